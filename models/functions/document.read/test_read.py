"""Are lines found, ordered and spelt as they stand, whatever the models give?"""

from __future__ import annotations

import asyncio
import math
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium import Image, Tensor
from trivium.errors import BadInput, TooLarge

HERE = Path(__file__).parent
read: Any = runpy.run_path(str(HERE / "function.py"))
metric: Any = runpy.run_path(str(HERE / "metric.py"))


def bitmap(*rows: str) -> tuple[bytes, int, int]:
    """Return a map of ink, its height and its width."""
    return bytes(255 * (each == "#") for row in rows for each in row), len(rows), len(rows[0])


def filled(wide: int, high: int, inside: Any) -> bytes:
    """Return a map that is full where `inside` says so."""
    return bytes(255 * bool(inside(x, y)) for y in range(high) for x in range(wide))


def test_runs_that_touch_at_a_corner_are_of_one_region() -> None:
    ink, high, wide = bitmap("##...#", "..#..#", "#..#.#", "##...#")
    found = read["connected"](ink.translate(read["INK"]), high, wide)
    assert sorted(map(len, found)) == [2, 3, 4]


@given(st.lists(st.text("#.", min_size=7, max_size=7), min_size=1, max_size=9))
def test_regions_are_those_of_a_flood(rows: list[str]) -> None:
    ink, high, wide = bitmap(*rows)
    left = {(x, y) for y in range(high) for x in range(wide) if ink[y * wide + x]}
    flooded = set()
    while left:
        waiting, region = [left.pop()], set()
        while waiting:
            x, y = waiting.pop()
            region.add((x, y))
            near = {(x + i, y + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            waiting += near
        flooded.add(frozenset(region))
    found = read["connected"](ink.translate(read["INK"]), high, wide)
    assert flooded == {
        frozenset((x, y) for y, first, last in runs for x in range(first, last + 1))
        for runs in found
    }


@pytest.mark.parametrize("degrees", [0, 1, -3, 8, -20])
def test_a_turned_line_keeps_its_size(degrees: float) -> None:
    """Its corners lie around it, the upper left one first."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def inside(x: int, y: int) -> bool:
        along, over = (x - 150) * cos + (y - 100) * sin, (y - 100) * cos - (x - 150) * sin
        return abs(along) <= 100 and abs(over) <= 8

    (quad,) = read["regions"](filled(300, 200, inside), 200, 300)
    across, down = math.dist(quad[0], quad[1]), math.dist(quad[0], quad[3])
    growth = 1.4 * 200 * 16 / (2 * 216)
    assert across == pytest.approx(200 + 2 * growth, abs=3)
    assert down == pytest.approx(16 + 2 * growth, abs=3)
    turn = math.degrees(math.atan2(quad[1][1] - quad[0][1], quad[1][0] - quad[0][0]))
    assert turn == pytest.approx(degrees, abs=1)


@given(st.binary(min_size=600, max_size=600))
def test_any_map_has_lines_within_reason(heat: bytes) -> None:
    """Noise is no error."""
    for quad in read["regions"](heat, 20, 30):
        assert len(quad) == 4
        assert all(math.isfinite(each) for corner in quad for each in corner)


def words(*places: tuple[str, float, float, float]) -> list[str]:
    """Return the order in which words at (left, top, width) are read; each is 10 high."""
    found = []
    for label, x, y, wide in places:
        quad = ((x, y), (x + wide, y), (x + wide, y + 10), (x, y + 10))
        line = read["Line"](label=label, score=1, x=0, y=0, width=0, height=0)
        found.append((quad, line))
    return [line.label for line in read["ordered"](found)]


def test_columns_are_read_one_after_the_other() -> None:
    rows = [
        (f"{side}{y}", x, 20.0 * y, 100.0) for y in (1, 2, 3) for side, x in (("l", 0), ("r", 120))
    ]
    order = ["l1", "l2", "l3", "r1", "r2", "r3"]
    assert words(*rows) == order
    assert words(*rows[::-1]) == order
    assert words(("title", 0, 0, 220), *rows, ("end", 0, 90, 220)) == ["title", *order, "end"]


def test_narrow_columns_are_a_table_and_read_by_rows() -> None:
    assert words(("a", 0, 0, 20), ("b", 60, 1, 20), ("c", 0, 20, 20), ("d", 60, 21, 20)) == [
        *"abcd"
    ]


def test_a_page_a_little_askew_is_read_like_a_straight_one() -> None:
    found = []
    for y in range(6):
        for side, x in (("l", 0), ("r", 240)):
            top = 18 * y + 0.05 * x
            quad = ((x, top), (x + 200, top + 10), (x + 200, top + 20), (x, top + 10))
            line = read["Line"](label=f"{side}{y}", score=1, x=0, y=0, width=0, height=0)
            found.append((quad, line))
    order = [line.label for line in read["ordered"](found)]
    assert order == [f"{side}{y}" for side in "lr" for y in range(6)]


def test_letters_are_spelt_once_unless_parted() -> None:
    letters = ["", "a", "b", " "]
    text, score = read["spelt"]([1, 1, 0, 1, 2, 2, 3, 0], [1, 0, 0, 0.5, 0.75, 0, 0.75, 0], letters)
    assert (text, score) == ("aab", 0.75)
    assert read["spelt"]([0, 0], [1, 1], letters) == ("", 0.0)


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_edits_are_counted_as_by_the_book(one: str, two: str) -> None:
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        before, row = row, [i]
        for j, b in enumerate(two, 1):
            row.append(min(before[j - 1] + (a != b), before[j] + 1, row[-1] + 1))
    assert metric["edits"](one, two) == row[-1]


class Blank:
    """A document of empty pages."""

    def __init__(self, pages: int) -> None:
        self.pages = pages

    async def count(self) -> int:
        return self.pages

    async def page(self, number: int) -> Image:
        assert 1 <= number <= self.pages
        return Image(Tensor(dtype="uint8", shape=(32, 32, 3), data=bytes(3072)))


def pages(count: int, **options: Any) -> list[int]:
    """Return the numbers of the pages that are read."""

    async def run(**_: Tensor) -> Tensor:
        return Tensor(dtype="uint8", shape=(32, 32), data=bytes(1024))

    async def work() -> list[int]:
        models = SimpleNamespace(detector=SimpleNamespace(run=run))
        return [page.page async for page in read["read"](Blank(count), models, **options)]

    return asyncio.run(work())


def test_the_pages_asked_for_are_read() -> None:
    assert pages(3) == [1, 2, 3]
    assert pages(3, first=2, most=1) == [2]
    assert pages(500, first=499, most=50) == [499, 500]
    assert len(pages(50)) == 50


def test_a_book_is_not_read_by_mistake() -> None:
    """It is refused before a page is drawn, not cut without a word."""
    with pytest.raises(TooLarge, match="500 pages; at most 50 are read at once: say which"):
        pages(500)
    with pytest.raises(BadInput, match="the document has 2 pages; first is 3"):
        pages(2, first=3)
