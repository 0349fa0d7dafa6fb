"""Does a sentence name what is in the picture, and nothing else?"""

from __future__ import annotations

from typing import Any


def named(answer: dict[str, Any], wanted: list[list[str]]) -> float:
    """Return F1 of the names said, and of true nouns, each given as the names right of it."""
    said = [each["label"] for each in answer["said"]]
    right = sum(any(name in names for names in wanted) for name in said)
    found = sum(any(name in names for name in said) for names in wanted)
    if not right:
        return 0.0
    precision, recall = right / len(said), found / len(wanted)
    return 2 * precision * recall / (precision + recall)
