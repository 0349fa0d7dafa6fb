"""Write WordNet's texts as rows: glosses, examples and words, apart by synset.

    python data.py /usr/share/wordnet

A synset's hash decides where all its texts go: 80 % train.txt, 20 % test.txt, which neither
training nor validation sees. A row of test.txt is: class, word, gloss, with tabs between.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Synset(NamedTuple):
    """A meaning: its semantic class, words, definition and example sentences."""

    key: str
    kind: int
    words: list[str]
    gloss: str
    examples: list[str]


def synsets(folder: Path) -> Iterator[Synset]:
    """Yield every synset of WordNet's data files."""
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            if line.startswith("  "):
                continue  # the licence
            data, _, text = line.partition(" | ")
            fields = data.split()
            count = int(fields[3], 16)
            words = [fields[4 + 2 * each].partition("(")[0] for each in range(count)]
            examples = re.findall(r'"([^"]+)"', text)
            gloss = re.sub(r'"[^"]*"|--.*?$', "", text).strip(" ;")
            yield Synset(
                f"{part}{fields[0]}",
                int(fields[1]),
                [word.replace("_", " ") for word in words],
                gloss,
                examples,
            )


def held_out(key: str) -> bool:
    """Say whether a synset is for the final score."""
    return hashlib.sha256(key.encode()).digest()[0] < 51  # a fifth


def main(folder: Path) -> None:
    """Write both files."""
    train: dict[str, None] = {}
    test = []
    for each in synsets(folder):
        if not each.gloss:
            continue
        if held_out(each.key):
            test.append(f"{each.kind}\t{each.words[0]}\t{each.gloss}")
        else:
            train.update(dict.fromkeys([each.gloss, *each.examples, each.words[0]]))
    # What a test row says must not stand among the training rows, whichever synset said it.
    seen = {text for row in test for text in row.split("\t")[1:]}
    kept = [text for text in train if text not in seen and text.strip()]
    (HERE / "train.txt").write_text("\n".join(kept) + "\n", "utf-8")
    (HERE / "test.txt").write_text("\n".join(test) + "\n", "utf-8")
    # What the recipe's gate looks at: test rows' texts alone.
    glosses = [row.split("\t")[2] for row in test]
    (HERE / "glosses.txt").write_text("\n".join(glosses) + "\n", "utf-8")
    print(f"{len(kept):,} rows to train, {len(test):,} to test")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
