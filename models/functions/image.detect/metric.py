"""How near are a small model's boxes to the full one's?"""

from __future__ import annotations

from typing import Any

OVERLAP = 0.5

Box = dict[str, Any]


def matched(answer: list[Box], wanted: list[Box]) -> float:
    """Return F1: boxes of the same label that share half of what they cover, over all boxes.

    Two empty answers are alike.
    """
    if not answer and not wanted:
        return 1.0
    left = list(answer)
    hits = 0
    for box in wanted:
        shares = [(overlap(box, other), number) for number, other in enumerate(left)]
        best, number = max(shares, default=(0.0, 0))
        if best >= OVERLAP:
            del left[number]
            hits += 1
    return 2 * hits / (len(answer) + len(wanted))


def overlap(one: Box, other: Box) -> float:
    """Return what two boxes share, over what they cover together; 0 for unlike labels."""
    if one["label"] != other["label"]:
        return 0.0
    width = min(each["x"] + each["width"] for each in (one, other)) - max(one["x"], other["x"])
    height = min(each["y"] + each["height"] for each in (one, other)) - max(one["y"], other["y"])
    shared = max(0.0, width) * max(0.0, height)
    both = sum(each["width"] * each["height"] for each in (one, other)) - shared
    return float(shared / both) if both > 0 else 0.0
