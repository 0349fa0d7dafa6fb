"""How is a long text cut where its meaning ends?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_CUTS = (
    # A paragraph, a line, a sentence, a part of one, a word: what follows belongs to the next.
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(r"\n\s*"),
    re.compile(
        # No new sentence begins with a small letter: "e.g. this". Chinese has no spaces.
        "(?<=[.!?…])[\"'”’)\\]]{0,3}\\s+(?=[^a-z\\s])|[。！？…][”’』」）]{0,3}\\s*"  # noqa: RUF001
    ),
    re.compile(r"(?<=[,;:])\s+|(?<=\s)[–—-]\s+|[，、；：]\s*"),  # noqa: RUF001 # a dash is one
    re.compile(r"\s+"),
)


def split(text: str, count: Callable[[str], int], most: int) -> list[str]:
    """Return `text` in pieces in which `count` finds at most `most` tokens, as long as can be.

    They end where paragraphs end, or else lines, sentences, clauses or words: a word is cut only
    if it is too long by itself. In English and Chinese. Raises ValueError if `most` is below 1.
    """
    if most < 1:
        raise ValueError(f"most is {most}; it must be 1 or above")
    return [piece for each in _pieces(text, count, most, 0) if (piece := each.strip())]


def _pieces(text: str, count: Callable[[str], int], most: int, level: int) -> Iterator[str]:
    held: list[str] = []
    size = 0
    for unit in _units(text, level):
        tokens = count(unit)
        if tokens > most and level < len(_CUTS):
            # With what came before, so that a heading is not left alone, and what is left goes on.
            *whole, last = _pieces("".join(held) + unit, count, most, level + 1)
            yield from whole
            held, size = [last], count(last)
        elif tokens > most:
            yield from _letters(unit, count, most)
        elif size + tokens > most:
            yield from _joined(held, count, most)
            held, size = [unit], tokens
        else:
            held.append(unit)
            size += tokens
    yield from _joined(held, count, most)


def _joined(units: list[str], count: Callable[[str], int], most: int) -> Iterator[str]:
    """Yield units in one piece, or in several if together they are more tokens than each alone."""
    while units:
        size = len(units)
        while size > 1 and count("".join(units[:size])) > most:
            size -= 1
        yield "".join(units[:size])
        units = units[size:]


def _units(text: str, level: int) -> Iterator[str]:
    """Yield the units of a level, what stands between them at the end of the one before."""
    start = 0
    if level < len(_CUTS):
        for found in _CUTS[level].finditer(text):
            yield text[start : found.end()]
            start = found.end()
    if start < len(text):
        yield text[start:]


def _letters(text: str, count: Callable[[str], int], most: int) -> Iterator[str]:
    """Yield a word that is too long in pieces that are not; a letter may be too long by itself."""
    while text:
        low, high = 1, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            if count(text[:middle]) <= most:
                low = middle
            else:
                high = middle - 1
        yield text[:low]
        text = text[low:]
