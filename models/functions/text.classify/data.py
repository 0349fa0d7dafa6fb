"""Write the rows that text.classify is held to: WordNet's glosses, and what each is about.

    python data.py /usr/share/wordnet

Twelve of WordNet's 26 classes of nouns, those that have a name in plain words. A synset's hash
orders each class: the first forty glosses are for choosing (chosen.jsonl, not kept), the next
forty for the figure (held-out.jsonl).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
EACH = 40
LABELS = {
    5: "animals",
    20: "plants",
    13: "food and drink",
    8: "parts of the body",
    18: "people",
    15: "places",
    27: "substances",
    12: "feelings",
    28: "time",
    10: "language and communication",
    21: "money and possessions",
    14: "groups of people",
}


def main(folder: Path) -> None:
    """Write both files."""
    found: dict[int, list[tuple[str, str]]] = {kind: [] for kind in LABELS}
    for line in (folder / "data.noun").read_text("utf-8").splitlines():
        data, _, text = line.partition(" | ")
        fields = data.split()
        gloss = re.sub(r'"[^"]*"|--.*?$', "", text).strip(" ;")
        if line.startswith("  ") or int(fields[1]) not in LABELS or len(gloss.split()) < 4:
            continue
        order = hashlib.sha256(f"classifynoun{fields[0]}".encode()).hexdigest()
        found[int(fields[1])].append((order, gloss))
    for name, first in (("chosen.jsonl", 0), ("held-out.jsonl", EACH)):
        rows = [
            {
                "inputs": {"text": gloss},
                "options": {"labels": list(LABELS.values())},
                "output": [{"label": LABELS[kind]}],
            }
            for kind, texts in found.items()
            for _, gloss in sorted(texts)[first : first + EACH]
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (HERE / name).write_text(lines, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
