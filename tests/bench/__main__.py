"""Which figures does this machine give, and are they as good as they should be?"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import msgspec

from bench.record import Record, targets

NAMES = (
    "router",
    "real",
    "servers",
    "page",
    "loops",
    "kit",
    "gpu",
    "cache",
    "pipeline",
    "memory",
    "api",
    "telemetry",
)


def main() -> int:
    """Run the benchmarks named, or all; exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description="Measure against peers in the same run."
    )
    parser.add_argument("name", nargs="?", choices=NAMES, help="one of them; all without a name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records to FILE")
    more = parser.add_argument_group("router")
    more.add_argument("--scenarios", type=int, metavar="N", help="how many are drawn (24)")
    more.add_argument("--scenario", type=Path, metavar="TOML", help="play one of your own alone")
    more.add_argument("--plots", type=Path, metavar="FOLDER", help="draw what came out")
    parser.add_argument("--asks", type=int, metavar="N", help="how many for memory (100,000)")
    options = parser.parse_args()
    given = {"scenarios": options.scenarios, "scenario": options.scenario, "plots": options.plots}
    routing = {name: value for name, value in given.items() if value is not None}
    known = targets()
    records: list[Record] = []
    missed = 0
    for name in [options.name] if options.name else NAMES:
        settings = routing if name == "router" else {}
        if name == "memory" and options.asks is not None:
            settings = {"asks": options.asks}
        for record in importlib.import_module(f"bench.{name}").run(**settings):
            records.append(record)
            target = known.get(record.name)
            verdict = "" if target is None else "ok" if target.met(record) else "MISSED"
            missed += verdict == "MISSED"
            print(
                f"{record.name:45} {record.value:>10} {record.unit:6} {verdict:6} {record.peer}",
                flush=True,
            )
    if options.json:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(records)))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
