"""How many words are right?"""

from __future__ import annotations

import re
from typing import Any


def words(answer: Any, wanted: Any) -> float:
    """Return one less the share of words that are wrong, missing or too many; 0 at the least."""
    found = plain(" ".join(each["text"] for each in answer))
    stated = plain(wanted if isinstance(wanted, str) else " ".join(e["text"] for e in wanted))
    row = list(range(len(found) + 1))
    for number, word in enumerate(stated, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(found, 1):
            cost = min(row[place] + 1, row[place - 1] + 1, before + (word != other))
            before, row[place] = row[place], cost
    return max(0.0, 1 - row[-1] / max(1, len(stated)))


def plain(text: str) -> list[str]:
    """Return words without case and marks."""
    return re.findall(r"[\w']+", text.lower())
