"""How near is a mask to the full model's?"""

from __future__ import annotations

from itertools import cycle
from typing import Any


def shared(answer: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Return the cells inside both masks, over those inside either; two empty ones are alike."""
    one, other = inside(answer), inside(wanted)
    both = (one | other).bit_count()
    return (one & other).bit_count() / both if both else 1.0


def inside(mask: dict[str, Any]) -> int:
    """Return a mask's cells as the bits of a number."""
    bits = "".join(bit * length for bit, length in zip(cycle("01"), mask["runs"], strict=False))
    return int(bits or "0", 2)
