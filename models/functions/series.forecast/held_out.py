"""On what is the forecaster judged, and how does it compare with repeating the last season?

`python held_out.py WHEEL` writes held-out.jsonl of the series in statsmodels' wheel; then
`.venv/bin/python held_out.py BUNDLE` prints the table for the graphs of a built bundle.
"""

from __future__ import annotations

import csv
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec

HERE = Path(__file__).parent
CONTEXT = 2048

Values = list[float | None]

SERIES = {
    # season, steps ahead, windows
    "co2": (52, 48, 12),
    "elnino": (12, 24, 12),
    "sunspots": (11, 22, 8),
    "nile": (1, 10, 5),
    "realgdp": (4, 8, 6),
    "unemp": (4, 8, 6),
    "tbilrate": (4, 8, 6),
    "infl": (4, 8, 6),
}


def read(wheel: ZipFile) -> dict[str, Values]:
    """Return the series by name; None is where nothing was measured."""

    def rows(name: str) -> list[list[str]]:
        text = wheel.read(f"statsmodels/datasets/{name}/{name}.csv").decode()
        return list(csv.reader(io.StringIO(text)))

    def values(cells: Iterator[str]) -> Values:
        return [float(cell) if cell.strip() else None for cell in cells]

    macro = rows("macrodata")
    return {
        "co2": values(row[1] for row in rows("co2")[1:]),
        "elnino": values(cell for row in rows("elnino")[1:] for cell in row[1:]),
        "sunspots": values(row[1] for row in rows("sunspots")[1:]),
        "nile": values(row[1] for row in rows("nile")[1:]),
        **{
            name: values(row[macro[0].index(name)] for row in macro[1:])
            for name in ("realgdp", "unemp", "tbilrate", "infl")
        },
    }


def windows(name: str, values: Values) -> Iterator[dict[str, Any]]:
    """Yield the last windows of a series, the context of each and what came then."""
    season, steps, count = SERIES[name]
    for window in range(count, 0, -1):
        cut = len(values) - window * steps
        context, actual = values[max(0, cut - CONTEXT) : cut], values[cut : cut + steps]
        scale = error(context, season)
        yield {
            # A line of its own says that this is the series, and no file's name.
            "inputs": {"series": msgspec.json.encode(context).decode() + "\n"},
            "options": {"horizon": steps},
            "output": {"name": name, "actual": actual, "scale": scale},
        }


def error(values: Values, season: int) -> float:
    """Return the mean error of repeating the season within the context."""
    pairs = zip(values, values[season:], strict=False)
    found = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    return sum(found) / len(found)


def naive(context: Values, season: int, steps: int) -> list[float]:
    """Return the last season again and again; a gap is filled by what was before it."""
    filled: list[float] = []
    for each in context:
        filled.append(each if each is not None else filled[-1])
    return [filled[len(filled) - season + step % season] for step in range(steps)]


def compare(bundle: Path) -> None:
    """Print, for each series, MASE and CRPS beside the seasonal naive's."""
    import numpy as np
    import onnxruntime as ort
    from metric import loss

    rows = [
        msgspec.json.decode(each) for each in (HERE / "held-out.jsonl").read_bytes().splitlines()
    ]
    table: dict[str, list[list[float]]] = {}
    sessions = [ort.InferenceSession(bundle / f"model.{form}.onnx") for form in ("fp32", "int8")]
    for row in rows:
        name, actual, scale = (row["output"][key] for key in ("name", "actual", "scale"))
        season = SERIES[name][0]
        context = msgspec.json.decode(row["inputs"]["series"])
        given = np.array([math.nan if each is None else each for each in context])
        plain = naive(context, season, len(actual))
        answers = [
            session.run(None, {"values": given})[0][: len(actual)].tolist() for session in sessions
        ]
        answers.append([[each] * 9 for each in plain])
        levels = [each / 10 for each in range(1, 10)]
        found = []
        for answer in answers:
            errors = [abs(r[4] - a) for r, a in zip(answer, actual, strict=True) if a is not None]
            found.append(sum(errors) / len(errors) / scale)
            found.append(loss({"values": answer, "quantiles": levels}, row["output"]))
        table.setdefault(name, []).append(found)
    print("series     rows | MASE fp32  int8  naive | CRPS fp32  int8  naive")
    every = np.array([each for found in table.values() for each in found])
    for name, found in [*table.items(), ("all", every)]:
        mean = np.mean(found, 0)
        halves = [
            " ".join(f"{mean[at]:6.3f}" for at in (half, half + 2, half + 4)) for half in (0, 1)
        ]
        print(f"{name:10} {len(found):4} | {' | '.join(halves)}")
    picks = np.random.default_rng(0).integers(0, len(every), (2000, len(every)))
    for what, ours, theirs in (("fp32 / naive", 1, 5), ("int8 / fp32", 3, 1)):
        ratios = every[picks, ours].mean(1) / every[picks, theirs].mean(1)
        low, high = np.quantile(ratios, (0.025, 0.975))
        ratio = every[:, ours].mean() / every[:, theirs].mean()
        print(f"CRPS {what}: {ratio:.3f} ({low:.3f}-{high:.3f})")


if __name__ == "__main__":
    given = Path(sys.argv[1])
    if given.is_dir():
        sys.path.insert(0, str(HERE))
        compare(given)
    else:
        with ZipFile(given) as wheel:
            found = read(wheel)
        lines = [msgspec.json.encode(row) for name in SERIES for row in windows(name, found[name])]
        (HERE / "held-out.jsonl").write_bytes(b"\n".join(lines) + b"\n")
