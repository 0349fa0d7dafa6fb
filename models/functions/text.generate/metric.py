"""How alike are two texts that were written word by word?"""

from __future__ import annotations


def agreement(answer: list[str], wanted: list[str]) -> float:
    """Return the share of the wanted text's pieces that come before the first other one."""
    if answer == wanted:
        return 1.0
    same = 0
    for one, other in zip(answer, wanted, strict=False):
        if one != other:
            break
        same += 1
    return same / max(1, len(wanted), len(answer))
