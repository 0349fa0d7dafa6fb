"""Are the relations found those that a reader finds, with nothing beside them?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def related(answer: dict[str, Any], wanted: Sequence[Sequence[str]]) -> float:
    """Return F1 of the relations; of a set that has none, whether none was found."""
    found = {
        tuple(map(plain, (each["subject"], each["relation"], each["object"])))
        for each in answer["relations"]
    }
    true = {tuple(map(plain, each)) for each in wanted}
    if not found or not true:
        return float(found == true)
    return 2 * len(found & true) / (len(found) + len(true))


def plain(name: str) -> str:
    """Return letters and digits alone, without a leading article."""
    return "".join(filter(str.isalnum, name.casefold().removeprefix("the ")))
