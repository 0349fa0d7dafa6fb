"""Add sentences of other kinds than WordNet's to the rows of train.txt, after data.py.

    python more.py FORTUNES MANUALS DESCRIPTIONS

The first is a folder of quotations (/usr/share/games/fortunes), the second one of manual pages
(/usr/share/man/man1), the third a file of package descriptions (from `apt-cache dumpavail`). Up
to 20,000 rows of each are drawn, with seed 0.
"""

from __future__ import annotations

import gzip
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
MOST = 20_000


def sentences(text: str) -> Iterator[str]:
    """Yield what looks like whole sentences of running text."""
    for paragraph in re.split(r"\n\s*\n|\n%\n", text):
        joined = re.sub(r"\s+", " ", paragraph).strip()
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", joined):
            words = sentence.split()
            if 4 <= len(words) <= 45 and sentence[0].isupper() and sentence[-1] in ".!?":
                yield sentence


def quotations(folder: Path) -> Iterator[str]:
    """Yield the sentences of fortune's files."""
    for path in sorted(folder.iterdir()):
        if not path.suffix:
            yield from sentences(path.read_text("utf-8", "replace"))


def manuals(folder: Path) -> Iterator[str]:
    """Yield the sentences of manual pages, without their markup."""
    for path in sorted(folder.glob("*.gz")):
        raw = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        lines = [re.sub(r"\\f.|\\&|\\", "", line) for line in raw.splitlines()]
        yield from sentences("\n".join("" if line[:1] in ".'" else line for line in lines))


def descriptions(path: Path) -> Iterator[str]:
    """Yield packages' one-line descriptions."""
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("Description: "):
            yield line.removeprefix("Description: ")


def main(sources: list[Iterator[str]]) -> None:
    """Add what train.txt does not have."""
    generator = random.Random(0)  # noqa: S311 - no secret
    path = HERE / "train.txt"
    rows = dict.fromkeys(path.read_text("utf-8").splitlines())
    for source in sources:
        found = sorted(set(source))
        kept = generator.sample(found, min(MOST, len(found)))
        print(f"{len(kept):,} of {len(found):,} rows")
        rows.update(dict.fromkeys(kept))
    path.write_text("\n".join(rows) + "\n", "utf-8")


if __name__ == "__main__":
    fortunes, manual, available = (Path(argument) for argument in sys.argv[1:4])
    main([quotations(fortunes), manuals(manual), descriptions(available)])
