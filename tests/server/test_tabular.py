"""Is any text at all read as Python's own readers do, or refused? (The page has no hypothesis.)"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.contract import JSON, Blob
from trivium.errors import AskError, BadInput
from trivium.hosts.tabular import CSV, records, series, table

cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)
rows = st.lists(st.lists(cells, min_size=2, max_size=4), min_size=1, max_size=5)


@given(rows, st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), st.sampled_from(["\n", "\r\n"]))
def test_records_are_what_the_standard_library_wrote(
    given_rows: list[list[str]], quoting: Any, end: str
) -> None:
    """Whatever Python's csv writes is read back."""
    given_rows = [["a", "b"], *given_rows]
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator=end).writerows(given_rows)
    assert list(records(out.getvalue())) == given_rows


@given(st.text(st.sampled_from('ab1",;\t\n '), max_size=40))
def test_records_read_as_the_standard_library_does(text: str) -> None:
    """Any text gives what Python's csv reads when it is strict, or is refused."""
    text = "h,h\n" + text
    try:
        found = list(records(text))
    except BadInput:
        with pytest.raises(csv.Error):
            list(csv.reader(io.StringIO(text, newline=""), strict=True))
        return
    wanted = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    assert found == wanted


@given(st.text(max_size=200) | st.binary(max_size=200), st.sampled_from([CSV, JSON]))
def test_nothing_but_a_refusal(value: str | bytes, media: str) -> None:
    """Whatever comes is read, or is the caller's mistake."""
    given_value = value if isinstance(value, str) else Blob(media=media, data=value)
    for read in (table, series):
        with contextlib.suppress(AskError):
            assert len(read(given_value)) > 0


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(numbers | st.none(), min_size=1, max_size=20))
def test_a_series_holds_its_numbers(values: list[float | None]) -> None:
    """To the last bit, from JSON, from lines and from lines with times; None is NaN."""
    lines = "\n".join("" if each is None else repr(each) for each in values)
    timed = "year,value\n" + "".join(
        f"{1900 + i},{'' if each is None else repr(each)}\n" for i, each in enumerate(values)
    )
    texts = [json.dumps(values), json.dumps({"values": values}), timed]
    if None not in values:
        texts.append(lines)
    for text in texts:
        found = series(text).values.tolist()
        assert [None if math.isnan(each) else each for each in found] == values
