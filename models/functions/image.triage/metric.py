"""Is the kind of picture right? One that is not told is half right where it is none."""

from __future__ import annotations

from typing import Any

NONE = "something else"


def kind(answer: dict[str, Any], wanted: str) -> float:
    """Return 1 if the kind is right; where there is none, one that is unclear does no harm."""
    found = answer["kind"]
    return float(found == wanted or (wanted == NONE and not found))
