"""How many of the recommended things are of the photographed one's category?"""

from __future__ import annotations

from typing import Any


def alike(answer: dict[str, Any], wanted: str) -> float:
    """Return the share of recommendations that are of the wanted category."""
    found = [each["category"] == wanted for each in answer["recommendations"]]
    return sum(found) / len(found) if found else 0.0
