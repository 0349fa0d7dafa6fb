"""For how much of a video are both what is seen and what is said right?"""

from __future__ import annotations

import re
from typing import Any

STEP = 0.1
"""Seconds between the instants that are looked at."""


def timeline(answer: Any, wanted: Any) -> float:
    """Return the share of the wanted timeline's seconds at which both are right."""
    return share(answer["timeline"], wanted["timeline"], ("seen", "said"))


def share(answer: Any, wanted: Any, what: tuple[str, ...]) -> float:
    """Return the share of seconds at which `what` is right."""
    judge = {"seen": shown, "said": spoken}
    right = count = 0
    for truth in wanted:
        for number in range(round(truth["start"] / STEP), round(truth["end"] / STEP)):
            at = (number + 0.5) * STEP
            found = next((e for e in answer if e["start"] <= at < e["end"]), None)
            count += 1
            right += found is not None and all(judge[each](found, truth) for each in what)
    return right / max(1, count)


def shown(found: Any, truth: Any) -> bool:
    """Is one of the names that are right in the sentence, as a word of its own?"""
    sentence = " ".join(plain(found["seen"]))
    return any(
        re.search(rf"\b{re.escape(' '.join(plain(name)))}", sentence) for name in truth["seen"]
    )


def spoken(found: Any, truth: Any) -> bool:
    """Are at least half of the words right, and is silence silence?"""
    said, wanted = plain(found["said"]), plain(truth["said"])
    if not wanted or not said:
        return not wanted and not said
    row = list(range(len(said) + 1))
    for number, word in enumerate(wanted, 1):
        before, row[0] = row[0], number
        for place, other in enumerate(said, 1):
            cost = min(row[place] + 1, row[place - 1] + 1, before + (word != other))
            before, row[place] = row[place], cost
    return row[-1] <= len(wanted) / 2


def plain(text: str) -> list[str]:
    """Return words without case and marks."""
    return re.findall(r"[\w']+", text.lower())
