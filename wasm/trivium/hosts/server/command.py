"""What does the `trivium` command do?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

import trivium
from trivium.errors import TriviumError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command: `serve`, or one that another package brings, such as `models`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    brought = {each.name: each for each in entry_points(group="trivium.commands")}
    parser = argparse.ArgumentParser(
        prog="trivium", description="Write a function once; run it in the page, edge and cloud."
    )
    parser.add_argument("--version", action="version", version=trivium.__version__)
    parser.add_argument(
        "command", choices=["serve", *sorted(brought)], help="what to do; each has its own --help"
    )
    command = parser.parse_args(given[:1]).command
    try:
        if command in brought:
            return int(brought[command].load()(given[1:]) or 0)
        from . import serve  # servers and their libraries are needed by this command alone

        return serve.main(given[1:])
    except TriviumError as error:
        print(f"trivium {command}: {error.message}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
