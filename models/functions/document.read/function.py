"""What is written on a page, where, and in which order is it read?"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate
from typing import Annotated

from trivium import Box, Document, Image, Meta, Models, Tensor, function
from trivium.errors import BadInput, TooLarge
from trivium.nouns import Noun

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]

MOST_PAGES = 50
MOST_REGIONS = 1000
"""Lines of one page; what else there may be is left out."""

# As the detector was learnt: what belongs to a line (of 255), how sure of it one must be on the
# whole, how far a line reaches beyond, and how thin one can be.
THRESHOLD = 51
SURE = 0.4
GROWTH = 1.4
LEAST = 3.0

HEIGHT = 48
MOST_WIDTH = 4800
READABLE = 0.5
"""How sure the reader must be of a line's letters."""

INK = bytes(int(value > THRESHOLD) for value in range(256))


class Line(Box, frozen=True, kw_only=True):
    """A line of writing: `label` is its text, and the box is around its corners."""


class Page(Noun, frozen=True, kw_only=True):
    """A page: its text and its lines as they are read, and its size in the pixels looked at."""

    page: int
    text: str
    lines: list[Line]
    width: int
    height: int


@function("document.read")
async def read(
    document: Document,
    models: Models,
    first: Annotated[int, Meta(ge=1)] = 1,
    most: Annotated[int, Meta(ge=1, le=50)] | None = None,
    plain: bool = False,
) -> AsyncIterator[Page]:
    """Read what is written on the pages of a PDF or on a picture, page by page.

    `most` pages from the `first` on, at most 50; without it all, of which there may be no more.
    With `plain` only their text is told.
    """
    count = await document.count()
    if first > count:
        raise BadInput(f"the document has {count} pages; first is {first}")
    if most is None and count - first + 1 > MOST_PAGES:
        raise TooLarge(
            f"the document has {count} pages; at most {MOST_PAGES} are read at once: "
            "say which with first and most"
        )
    for number in range(first, min(count, first - 1 + (most or MOST_PAGES)) + 1):
        image = await document.page(number)
        lines = await lines_of(image, models)
        yield Page(
            page=number,
            text="\n".join(line.label for line in lines),
            lines=[] if plain else lines,
            width=image.width,
            height=image.height,
        )


async def lines_of(image: Image, models: Models) -> list[Line]:
    """Return the lines on one page in the order of reading."""
    heat = await models.detector.run(pixels=image.pixels)
    high, wide = heat.shape
    across, down = image.width / wide, image.height / high
    found = []
    for small in regions(bytes(heat.data), high, wide):
        quad = tuple((x * across, y * down) for x, y in small)
        line = await read_line(image, models, quad)
        if line:
            found.append((quad, line))
    return ordered(found)


def regions(heat: bytes, high: int, wide: int) -> list[Quad]:
    """Return the corners of each line, clockwise from the upper left, in pixels of `heat`."""
    quads = []
    for runs in connected(heat.translate(INK), high, wide):
        if len(runs) < 2:
            continue
        quad, across, down = smallest(hull([(x, y) for y, *ends in runs for x in ends]))
        if min(across, down) < LEAST or sureness(heat, high, wide, quad) < 255 * SURE:
            continue
        quads.append(grown(quad, GROWTH * across * down / (2 * (across + down))))
        if len(quads) == MOST_REGIONS:
            break
    return quads


def connected(ink: bytes, high: int, wide: int) -> list[list[tuple[int, int, int]]]:
    """Return each region as its runs of ink: row, first and last column."""
    parents: list[int] = []
    every: list[tuple[int, int, int]] = []

    def root(one: int) -> int:
        while parents[one] != one:
            parents[one] = parents[parents[one]]
            one = parents[one]
        return one

    above = range(0)
    for row in range(high):
        start, end = row * wide, (row + 1) * wide
        first = len(every)
        at = ink.find(1, start, end)
        before = above.start
        while at >= 0:
            stop = ink.find(0, at, end)
            stop = end if stop < 0 else stop
            left, right = at - start, stop - start - 1
            mine = len(every)
            every.append((row, left, right))
            parents.append(mine)
            # Runs that touch, at a corner too, are of one region.
            while before < above.stop and every[before][2] < left - 1:
                before += 1
            other = before
            while other < above.stop and every[other][1] <= right + 1:
                one, two = root(other), root(mine)
                parents[max(one, two)] = min(one, two)
                other += 1
            at = ink.find(1, stop, end)
        above = range(first, len(every))
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for number, run in enumerate(every):
        groups.setdefault(root(number), []).append(run)
    return list(groups.values())


def hull(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the corners of the convex hull."""
    ordered = sorted(set(points))
    halves = []
    for side in (ordered, ordered[::-1]):
        half: list[tuple[int, int]] = []
        for x, y in side:
            while len(half) > 1:
                (ax, ay), (bx, by) = half[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                half.pop()
            half.append((x, y))
        halves.append(half[:-1])
    return halves[0] + halves[1]


def smallest(corners: Sequence[tuple[int, int]]) -> tuple[Quad, float, float]:
    """Return the smallest rectangle around a hull, and its sides across and down."""
    best: tuple[float, ...] = ()
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        size = math.hypot(bx - ax, by - ay)
        if not size:
            continue
        ux, uy = (bx - ax) / size, (by - ay) / size
        # Any side gives the same rectangle as one a quarter turn away: take the flatter.
        while not (ux > 0 and -ux < uy <= ux):
            ux, uy = -uy, ux
        along = [x * ux + y * uy for x, y in corners]
        over = [y * ux - x * uy for x, y in corners]
        left, right, top, bottom = min(along), max(along), min(over), max(over)
        area = (right - left) * (bottom - top)
        if not best or area < best[0]:
            best = (area, ux, uy, left, right, top, bottom)
    if not best:
        x, y = corners[0]
        return ((x, y), (x, y), (x, y), (x, y)), 0.0, 0.0
    _, ux, uy, left, right, top, bottom = best
    quad = tuple(
        (a * ux - b * uy, a * uy + b * ux)
        for a, b in ((left, top), (right, top), (right, bottom), (left, bottom))
    )
    return quad, right - left, bottom - top  # type: ignore[return-value] # there are four


def sureness(heat: bytes, high: int, wide: int, quad: Quad) -> float:
    """Return the mean of the bytes inside a quad."""
    first = max(0, math.floor(min(y for _, y in quad)))
    last = min(high - 1, math.ceil(max(y for _, y in quad)))
    total = count = 0
    edges = list(zip(quad, [*quad[1:], quad[0]], strict=True))
    for row in range(first, last + 1):
        crossed = []
        for (ax, ay), (bx, by) in edges:
            low, up = min(ay, by), max(ay, by)
            if low - 0.5 <= row <= up + 0.5:
                if ay == by:
                    crossed += [ax, bx]
                else:
                    part = (min(max(row, low), up) - ay) / (by - ay)
                    crossed.append(ax + part * (bx - ax))
        if not crossed:
            continue
        left = max(0, round(min(crossed)))
        right = min(wide - 1, round(max(crossed)))
        total += sum(heat[row * wide + left : row * wide + right + 1])
        count += right - left + 1
    return total / count if count else 0.0


def grown(quad: Quad, by: float) -> Quad:
    """Return a rectangle with each side moved outwards."""
    (ax, ay), (bx, by_), _, _ = quad
    size = math.hypot(bx - ax, by_ - ay)
    ux, uy = by * (bx - ax) / size, by * (by_ - ay) / size
    ways = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    moved = [
        (x + i * ux - j * uy, y + i * uy + j * ux)
        for (x, y), (i, j) in zip(quad, ways, strict=True)
    ]
    return moved[0], moved[1], moved[2], moved[3]


async def read_line(image: Image, models: Models, quad: Sequence[Point]) -> Line | None:
    """Return what stands in one quad of the picture."""
    wide, high = image.width, image.height
    # The corners are pixels' middles; a rectangle of pixels reaches half of one further.
    quad = [(min(max(x, 0), wide - 1) + 0.5, min(max(y, 0), high - 1) + 0.5) for x, y in quad]
    left, right = min(x for x, _ in quad), max(x for x, _ in quad)
    top, bottom = min(y for _, y in quad), max(y for _, y in quad)
    window = (math.floor(top), math.floor(left), math.ceil(bottom), math.ceil(right))
    start, across, down = quad[0], way(quad[0], quad[1]), way(quad[0], quad[3])
    size = [max(1, round(math.hypot(*each))) for each in (across, down)]
    if size[1] >= 1.5 * size[0]:  # written from top to bottom, or turned
        start, across, down, size = quad[1], down, way(quad[1], quad[0]), size[::-1]
    width = min(MOST_WIDTH, max(8, math.ceil(HEIGHT * size[0] / size[1])))
    shifted = (start[0] - window[1], start[1] - window[0])
    given = array("f", [*shifted, *across, *down])
    outputs = await models.reader.run_all(
        pixels=image.pixels,
        window=integers(window),
        corners=Tensor(dtype="float32", shape=(3, 2), data=given.tobytes()),
        size=integers(size),
        width=integers([width]),
    )
    text, score = spelt(outputs["ids"].values, outputs["scores"].values, models.labels)
    if not text or score < READABLE:
        return None
    return Line(
        label=text,
        score=score,
        x=left / wide,
        y=top / high,
        width=(right - left) / wide,
        height=(bottom - top) / high,
    )


def way(a: Point, b: Point) -> Point:
    return b[0] - a[0], b[1] - a[1]


def integers(values: Sequence[int]) -> Tensor:
    return Tensor(dtype="int64", shape=(len(values),), data=array("q", values).tobytes())


def spelt(ids: Sequence[int], scores: Sequence[float], letters: Sequence[str]) -> tuple[str, float]:
    """Return the text of the surest characters, and how sure they are; 0 is a gap."""
    kept, sure, last = [], 0.0, 0
    for each, score in zip(ids, scores, strict=True):
        if each not in (0, last):
            kept.append(letters[each])
            sure += score
        last = each
    text = "".join(kept).strip()
    return text, sure / len(kept) if kept else 0.0


class Item:
    """A line in a page turned level: from `left` to `right`, at a height of `middle`."""

    __slots__ = ("height", "left", "line", "middle", "right")

    def __init__(self, quad: Quad, line: Line, level: Point) -> None:
        across, down = way(quad[0], quad[1]), way(quad[0], quad[3])
        x, y = (quad[0][0] + quad[2][0]) / 2, (quad[0][1] + quad[2][1]) / 2
        half = math.hypot(*across) / 2
        middle = x * level[0] + y * level[1]
        self.left, self.right = middle - half, middle + half
        self.middle = y * level[0] - x * level[1]
        self.height = math.hypot(*down)
        self.line = line


Row = list[Item]


def ordered(found: Sequence[tuple[Quad, Line]]) -> list[Line]:
    """Return lines in the order of reading: column by column, each from its top."""
    if not found:
        return []
    turns = sorted(
        (math.atan2(*reversed(way(quad[0], quad[1]))), math.hypot(*way(quad[0], quad[1])))
        for quad, _ in found
    )
    # The median of all turns, each counted as often as its line is long.
    sizes = list(accumulate(size for _, size in turns))
    turn = turns[bisect_left(sizes, sizes[-1] / 2)][0]
    level = (math.cos(turn), math.sin(turn))
    items = [Item(quad, line, level) for quad, line in found]
    return [item.line for item in flow(items)]


def flow(items: Sequence[Item]) -> list[Item]:
    """Return what is read one after the other: groups of rows, in each its columns."""
    height = sorted(item.height for item in items)[len(items) // 2]
    out: list[Item] = []
    group: list[Row] = []
    for row in rows(items):
        if group and not same(group, row, height):
            out += columns(group, height)
            group = []
        group.append(row)
    return out + columns(group, height)


def rows(items: Sequence[Item]) -> list[Row]:
    """Return lines that stand side by side together, from the top, each row from the left."""
    found: list[Row] = []
    for item in sorted(items, key=lambda each: each.middle):
        last = found[-1][0] if found else None
        if last and abs(item.middle - last.middle) <= 0.5 * min(item.height, last.height):
            found[-1].append(item)
        else:
            found.append([item])
    return [sorted(row, key=lambda each: each.left) for row in found]


def same(group: Sequence[Row], row: Row, height: float) -> bool:
    """Return whether a row goes on with what stands above it: as many columns, letters alike."""
    before = [item for each in group for item in each]
    large = [any(each.height > 1.5 * height for each in items) for items in (group[-1], row)]
    if large[0] is not large[1]:  # a heading begins or ends
        return False
    gaps = len(parts(before, height)) > 1
    more = len(parts(row, height)) > 1
    both = len(parts([*before, *row], height)) > 1
    return both if gaps or more else True


def parts(items: Sequence[Item], height: float) -> list[list[Item]]:
    """Return lines parted where nothing stands from the top to the bottom."""
    found: list[list[Item]] = []
    reach = -math.inf
    for item in sorted(items, key=lambda each: each.left):
        if item.left > reach + 0.8 * height:
            found.append([])
        found[-1].append(item)
        reach = max(reach, item.right)
    return found


def columns(group: Sequence[Row], height: float) -> list[Item]:
    """Return a group's lines column by column, or row by row if it is a table."""
    items = [item for row in group for item in row]
    found = parts(items, height)
    wide = all(max(each.right - each.left for each in part) > 6 * height for part in found)
    if len(found) > 1 and len(group) > 1 and wide:
        return [item for part in found for item in flow(part)]
    return items
