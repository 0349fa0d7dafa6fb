"""How do comma-separated values or JSON become a table or a series, on every tier alike?"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ..contract import JSON, Blob, Tensor
from ..errors import BadInput, TooLarge
from ..kinds import Cells, Series, Table

CSV = "text/csv"
MEDIA = (CSV, JSON)

MOST_BYTES = 2 << 20
MOST_ROWS = 20_000
MOST_COLUMNS = 500
MOST_CELLS = 200_000
MOST_CELL = 1_000

SEPARATORS = ",;\t"
"""What may stand between cells: whichever of these comes first in the first line."""


def table(value: str | Blob) -> Table:
    """Return a table; raise BadInput or TooLarge that says which row or column is wrong."""
    media, text = read("table", value)
    return Table(from_json(text) if media == JSON else from_csv(text), value)


def series(value: str | Blob) -> Series:
    """Return a series; raise BadInput or TooLarge that says which row is wrong.

    In CSV it is a column of numbers, or one of times and one of numbers, or numbers in one line;
    in JSON a list of numbers, or `{"values": […], "times": […]}`.
    """
    media, text = read("series", value)
    times: Sequence[str]
    if media == JSON:
        said = parsed(text)
        given = said if isinstance(said, dict) else {"values": said}
        numbers, beside = given.get("values"), given.get("times", [])
        unknown = given.keys() - {"values", "times"}
        if unknown or not (isinstance(numbers, list) and isinstance(beside, list)):
            raise BadInput(
                'a series in JSON is a list of numbers, or {"values": […], "times": […]}; '
                f"this is {text[:60]!r}"
            )
        times = [shown(each) for each in beside]
    else:
        numbers, times = columns(text)
    if not numbers:
        raise BadInput("the series is empty")
    limit("points", len(numbers), MOST_ROWS)
    if times and len(times) != len(numbers):
        raise BadInput(f"the series has {len(numbers)} values and {len(times)} times")
    rising(times)
    values = array("d", (measured(number, cell) for number, cell in enumerate(numbers, 1)))
    tensor = Tensor(dtype="float64", shape=(len(values),), data=values.tobytes())
    return Series(tensor, times, value)


READ: dict[str, Callable[[str | Blob], Table | Series]] = {"table": table, "series": series}
"""What reads each kind that is written as text."""


def read(kind: str, value: str | Blob) -> tuple[str, str]:
    """Return the media type and the text of what came, once it is known to be small enough."""
    if isinstance(value, str):
        text, media = value, JSON if value.lstrip()[:1] in ("[", "{") else CSV
        limit("characters", len(text), MOST_BYTES)
    else:
        media = value.media.partition(";")[0].strip().lower()
        if media not in MEDIA:
            raise BadInput(f"a {kind} is {' or '.join(MEDIA)}, not {value.media[:100]!r}")
        limit("bytes", len(value.data), MOST_BYTES)
        try:
            text = bytes(value.data).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            why = f"{error.reason} at byte {error.start}"
            raise BadInput(f"the {kind} is not UTF-8: {why}") from None
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise BadInput(f"the {kind} is empty")
    return media, text


def limit(what: str, count: int, most: int) -> None:
    """Raise TooLarge above `most`."""
    if count > most:
        raise TooLarge(f"there are {count} {what}; at most {most} are allowed")


# No deeper than what a message can still name: in the page deep nesting is more than the stack.
_Single = None | bool | int | float | str
_Inner = _Single | list[_Single] | dict[str, _Single]
_Outer = _Single | list[_Inner] | dict[str, _Inner]
_json = msgspec.json.Decoder(_Single | list[_Outer] | dict[str, _Outer])


def parsed(text: str) -> Any:
    """Return what JSON says."""
    try:
        return _json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise BadInput(f"the JSON is not valid: {error}") from None


def from_json(text: str) -> Mapping[str, Cells]:
    """Return the columns of a list of records, of columns by name, or of one record."""
    said = parsed(text)
    if isinstance(said, dict):
        if not any(isinstance(each, list) for each in said.values()):
            said = {name: [cell] for name, cell in said.items()}
        rows = {name: len(each) if isinstance(each, list) else -1 for name, each in said.items()}
        odd = [name for name, count in rows.items() if count != next(iter(rows.values()))]
        if odd:
            first = next(iter(rows))
            raise BadInput(
                f"column {odd[0][:40]!r} has {max(0, rows[odd[0]])} cells, and {first[:40]!r} "
                f"{max(0, rows[first])}; all columns need as many"
            )
        found = said
    elif isinstance(said, list) and said and all(isinstance(each, dict) for each in said):
        names = list(said[0])
        for number, record in enumerate(said, 1):
            if record.keys() != said[0].keys():
                wrong = sorted(record.keys() ^ said[0].keys())[0]
                raise BadInput(
                    f"row {number} {'has' if wrong in record else 'lacks'} a column "
                    f"{wrong[:40]!r}, unlike row 1"
                )
        sized(len(said), len(names))
        found = {name: [record[name] for record in said] for name in names}
    else:
        raise BadInput(
            "a table in JSON is a list of records, or columns by name, each a list; "
            f"this is {text[:60]!r}"
        )
    named(list(found))
    sized(len(next(iter(found.values()))), len(found))
    return {name: typed(name, cells) for name, cells in found.items()}


def from_csv(text: str) -> Mapping[str, Cells]:
    """Return the columns of comma-separated values whose first line names them."""
    lines = records(text)
    names = [name.strip() for name in next(lines)]
    named(names)
    rows = list[list[str]]()
    for number, row in enumerate(lines, 1):
        sized(number, len(names))
        if len(row) != len(names):
            raise BadInput(f"row {number} has {len(row)} cells; the first line names {len(names)}")
        rows.append(row)
    if not rows:
        raise BadInput("the table has no row below the names of its columns")
    cells = zip(*rows, strict=True)
    return {name: typed(name, column) for name, column in zip(names, cells, strict=True)}


def columns(text: str) -> tuple[list[str], list[str]]:
    """Return the numbers of a series, and the times beside them, as they are written."""
    lines = records(text)
    rows = list[list[str]]()
    for row in lines:
        sized(len(rows), 1)
        rows.append(row)
    if len(rows) == 1 and len(rows[0]) > 2:
        return rows[0], []
    width = len(rows[0])
    if number(rows[0][-1]) is None and rows[0][-1].strip().lower() not in NOT_FINITE:
        rows = rows[1:]  # the names of the columns
    if width > 2:
        raise BadInput(
            "a series has a column of numbers, or one of times and one of numbers; "
            f"this has {width} columns"
        )
    for count, row in enumerate(rows, 1):
        if len(row) != width:
            raise BadInput(f"row {count} has {len(row)} cells, and the first line {width}")
    return [row[-1] for row in rows], [row[0].strip() for row in rows] if width == 2 else []


def records(text: str) -> Iterator[list[str]]:
    """Yield the cells of each line, quoted or not; blank lines are skipped.

    A cell in quotes may hold separators, line ends and, doubled, quotes.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = "".join(text.lstrip("\n").partition("\n")[0].split('"')[::2])
    between = min(SEPARATORS, key=lambda each: head.find(each) % (len(head) + 1))
    at, size, row = 0, len(text), list[str]()
    end = -1
    while at < size:
        if end < at:
            end = text.find("\n", at)
            end = size if end < 0 else end
        if not row and '"' not in text[at:end]:
            if at < end:
                row = text[at:end].split(between)
                limit("columns", len(row), MOST_COLUMNS)
                yield [cell_of(cell) for cell in row]
                row = []
            at = end + 1
            continue
        if text[at] == '"':
            cell, at = quoted(text, at)
            if at < size and text[at] not in (between, "\n"):
                raise BadInput(
                    f"{text[max(0, at - 20) : at + 5]!r}: after a cell in quotes comes "
                    f"{between!r} or the end of the line"
                )
        else:
            if end < at:
                end = text.find("\n", at) % (size + 1)
            stop = text.find(between, at, end) % (end + 1)
            cell, at = text[at:stop], stop
        row.append(cell_of(cell))
        limit("columns", len(row), MOST_COLUMNS)
        if at < size and text[at] == between:
            at += 1
            if at < size and text[at] != "\n":
                continue
            row.append("")
        yield row
        row, at = [], at + 1


def quoted(text: str, at: int) -> tuple[str, int]:
    """Return the cell whose opening quote is at a place, and the place behind it."""
    parts, start = [], at + 1
    while True:
        stop = text.find('"', start)
        if stop < 0:
            raise BadInput(f"the quote before {text[at + 1 : at + 30]!r} is never closed")
        parts.append(text[start:stop])
        if text[stop + 1 : stop + 2] != '"':
            return "".join(parts), stop + 1
        parts.append('"')
        start = stop + 2


def cell_of(cell: str) -> str:
    """Return the cell, if it is not too long."""
    if len(cell) > MOST_CELL:
        raise TooLarge(f"a cell has {len(cell)} characters; at most {MOST_CELL} are allowed")
    return cell


def named(names: Sequence[str]) -> None:
    """Raise BadInput unless every column has a name of its own."""
    if not names:
        raise BadInput("the table has no column")
    limit("columns", len(names), MOST_COLUMNS)
    seen = set[str]()
    for place, name in enumerate(names, 1):
        cell_of(name)
        if not name or name in seen:
            said = f"two columns are named {name[:40]!r}" if name else f"column {place} has no name"
            raise BadInput(f"{said}; the first line must name each column")
        seen.add(name)


def sized(rows: int, width: int) -> None:
    """Raise TooLarge for more rows or cells than are allowed."""
    limit("rows", rows, MOST_ROWS)
    limit("cells", rows * width, MOST_CELLS)


def typed(name: str, cells: Sequence[Any]) -> Cells:
    """Return a column's cells as numbers, if all that are filled are, else as text."""
    kept: list[float | None] = []
    for row, cell in enumerate(cells, 1):
        if isinstance(cell, list | dict):
            raise BadInput(f"row {row} of column {name[:40]!r} is no single value")
        value = None if blank(cell) else number(cell)
        if value is None and not blank(cell):
            return [None if blank(each) else cell_of(shown(each)) for each in cells]
        kept.append(value)
    return kept


def blank(cell: Any) -> bool:
    """Return whether a cell is empty."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def shown(cell: Any) -> str:
    """Return a cell as it would be written."""
    return cell if isinstance(cell, str) else msgspec.json.encode(cell).decode()


def number(cell: Any) -> float | None:
    """Return a finite number, or none if the cell is no such."""
    try:
        value = float(cell)
    except (ValueError, TypeError, OverflowError):
        return None
    return value if math.isfinite(value) and "_" not in str(cell) else None


NOT_FINITE = ("nan", "inf", "-inf", "+inf", "infinity", "-infinity")


def measured(row: int, cell: Any) -> float:
    """Return a value of a series, NaN where nothing was measured."""
    if blank(cell):
        return math.nan
    value = number(cell)
    if value is None or isinstance(cell, bool):
        raise BadInput(
            f"value {row} of the series is {shown(cell)[:40]!r}, which is no finite number; "
            "leave it empty (null in JSON) where nothing was measured"
        )
    return value


def rising(times: Sequence[str]) -> None:
    """Raise BadInput if the times are numbers or dates, and one is not later than that before."""
    for read in (float, datetime.fromisoformat):
        try:
            places: list[Any] = [read(each) for each in times]
            late = next((i for i in range(1, len(places)) if not places[i] > places[i - 1]), 0)
        except (ValueError, TypeError):
            continue
        if late:
            raise BadInput(f"time {late + 1}, {times[late]!r}, is not after {times[late - 1]!r}")
        return
