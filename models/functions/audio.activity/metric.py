"""How well do segments cover what was spoken?"""

from __future__ import annotations

from typing import Any


def overlap(answer: Any, wanted: Any) -> float:
    """Return F1 over time: twice what both call speech, by what each of them does."""
    shared = sum(
        max(0.0, min(one["end"], two["end"]) - max(one["start"], two["start"]))
        for one in answer
        for two in wanted
    )
    spoken = sum(each["end"] - each["start"] for each in [*answer, *wanted])
    return 2 * shared / spoken if spoken else 1.0
