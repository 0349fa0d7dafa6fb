"""What does `trivium models` do?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from trivium.errors import BundleError

from . import sign
from .fetch import CACHE
from .package import package

ROOM = Path(__file__).parent.parent
FUNCTIONS = ROOM / "functions"
ZOO = ROOM / "zoo"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sub-command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="trivium models", description="Make the bundles that edge, cloud and page load."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser(
        "build",
        help="make bundles out of function folders",
        description="Make bundles. What is there and right is kept, so that a second run is quick "
        "and an interrupted one goes on.",
    )
    add_functions(build)
    build.add_argument(
        "--out", type=Path, default=ZOO, help="where bundles go (default: %(default)s)"
    )
    build.add_argument(
        "--cache", type=Path, default=CACHE, help="where packages are kept (default: %(default)s)"
    )
    measure = verbs.add_parser(
        "measure",
        help="compare a bundle's variants with its full one",
        description="Run every variant of built bundles on real inputs, and print how near they "
        "come to the cloud's: the numbers that a recipe states.",
    )
    add_functions(measure)
    measure.add_argument("--out", type=Path, default=ZOO, help="where bundles are")
    measure.add_argument(
        "--inputs", type=Path, required=True, help="a text file, a line an input, or photos' folder"
    )
    sign.add(verbs, ZOO)
    given = parser.parse_args(arguments)
    if given.verb in sign.VERBS:
        return sign.run(given, say)
    for name in given.functions or [path.parent.name for path in builtin()]:
        if given.verb == "build":
            pin = None if given.functions else sign.pinned(given.out / name)
            bundle = package(find(name), given.out, say, given.cache)
            sign.built(bundle, find(name), pin, say)
        else:
            from .measure import report

            report(given.out / name, given.inputs, print)
    return 0


def add_functions(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says which functions are meant."""
    known = ", ".join(path.parent.name for path in builtin())
    parser.add_argument(
        "functions",
        nargs="*",
        metavar="NAME|FOLDER",
        help=f"a built-in function ({known}) or a function's folder; none means all built-in ones",
    )


def builtin() -> list[Path]:
    """Return the recipes of the built-in functions."""
    return sorted(FUNCTIONS.glob("*/recipe.toml"))


def find(name: str) -> Path:
    """Return the folder of a built-in function, or the one that a path names."""
    for folder in (FUNCTIONS / name, Path(name)):
        if (folder / "recipe.toml").is_file():
            return folder
    known = ", ".join(path.parent.name for path in builtin())
    raise BundleError(f"{name} is neither a folder with a recipe.toml nor one of: {known}.")


def say(line: str) -> None:
    """Show progress where it can't be mistaken for a result."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201
