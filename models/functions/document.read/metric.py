"""How much of a page was read, in the right order?"""

from __future__ import annotations

import unicodedata
from typing import Any


def read(answer: Any, wanted: Any) -> float:
    """Return 1 less the character error rate of all pages' text, at least 0.

    Spaces do not count, and wide and narrow forms of a character are the same.
    """
    found, truth = plain(answer), plain(wanted)
    return max(0.0, 1 - edits(found, truth) / max(1, len(truth)))


def plain(pages: Any) -> str:
    """Return the text of an answer, or of what was to be read, as it is compared."""
    text = pages if isinstance(pages, str) else "\n".join(page["text"] for page in pages)
    return "".join(unicodedata.normalize("NFKC", text).split())


def edits(one: str, two: str) -> int:
    """Return how many characters have to be put in, left out or replaced (Myers, 1999)."""
    if not one or not two:
        return len(one) + len(two)
    places: dict[str, int] = {}
    for at, letter in enumerate(one):
        places[letter] = places.get(letter, 0) | 1 << at
    full, top = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, count = full, 0, len(one)
    for letter in two:
        here = places.get(letter, 0)
        same = (((here & up) + up) ^ up) | here | down
        more, less = down | ~(same | up) & full, up & same
        count += bool(more & top) - bool(less & top)
        more, less = more << 1 | 1, less << 1
        up, down = (less | ~(here | down | more)) & full, more & (here | down)
    return count
