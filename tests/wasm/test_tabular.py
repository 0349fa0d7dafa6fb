"""Are tables and series read as they are written, and is what can't be read refused plainly?"""

from __future__ import annotations

import json

import pytest

from trivium.contract import JSON, Blob
from trivium.errors import BadInput, TooLarge
from trivium.hosts import tabular
from trivium.hosts.tabular import CSV, series, table


@pytest.mark.parametrize(
    "text",
    [
        "age,name\n1,Ann\n2.5,\n",
        "age;name\r\n1;Ann\r\n2.5;\r\n",
        "\ufeffage\tname\n1\tAnn\n\n2.5\t\n",
        '"age","name"\n"1","Ann"\n2.5,""',
        '[{"age": 1, "name": "Ann"}, {"age": 2.5, "name": null}]',
        '{"age": [1, 2.5], "name": ["Ann", null]}',
    ],
)
def test_a_table_has_typed_columns(text: str) -> None:
    """However it is written, and as text or bytes."""
    media = JSON if text[0] in "[{" else CSV
    for value in (text, Blob(media=f"{media}; charset=utf-8", data=text.encode())):
        found = table(value)
        assert found.columns == {"age": [1, 2.5], "name": ["Ann", None]}
        assert len(found) == 2
        assert found.blob == value


def test_numbers_are_taken_by_name() -> None:
    """In the order that is asked for."""
    found = table("b,a\n2,1\n4,3").numbers(["a", "b"])
    assert (found.dtype, found.shape, found.tolist()) == ("float32", (2, 2), [[1, 2], [3, 4]])
    assert table('{"a": 1, "b": true}').numbers(["b", "a"]).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n1", "missing: 'b'"),
        ("a,b,c\n1,2,3", "unknown: 'c'"),
        ("a,b\n1,x", "row 1 of column 'b' is 'x'"),
        ("a,b\n1,nan", "'nan'"),
        ("a,b\n1,inf", "'inf'"),
        ("a,b\n1,1_0", "'1_0'"),
        ("a,b\n1,2\n1,", "row 2 of column 'b' is empty"),
        ("a,b\n1,1e300", "1e+300"),
    ],
)
def test_cells_that_are_no_numbers(text: str, said: str) -> None:
    """Are named by row and column."""
    with pytest.raises(BadInput, match="column") as caught:
        table(text).numbers(["a", "b"])
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("a,b", "no row"),
        ("a,b\n1", "row 1 has 1 cells; the first line names 2"),
        ("a,a\n1,2", "two columns are named 'a'"),
        ("a,\n1,2", "column 2 has no name"),
        ('a,b\n"1,2', "never closed"),
        ('a,b\n"1"2,3', "after a cell in quotes"),
        ("[]", "list of records"),
        ("[1]", "list of records"),
        ("{}", "no column"),
        ('{"a": [1], "b": [1, 2]}', "'b' has 2 cells, and 'a' 1"),
        ('{"a": [1], "b": 2}', "all columns need as many"),
        ('[{"a": 1}, {"b": 1}]', "row 2"),
        ('{"a": [[1]]}', "no single value"),
        ("[NaN]", "JSON"),
        ("[" * 5000, "JSON"),
        (Blob(media="image/png", data=b"1"), "not 'image/png'"),
        (Blob(media=CSV, data=b"a\xff"), "UTF-8"),
    ],
)
def test_what_is_no_table(value: str | Blob, said: str) -> None:
    """Is refused with what is wrong."""
    with pytest.raises(BadInput) as caught:
        table(value)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("[]", "empty"),
        ("value\n", "empty"),
        ("a,b,c\n1,2,3\n4,5,6", "3 columns"),
        ("1\n2\nnan\n", "value 3 of the series is 'nan'"),
        ("1\nInfinity\n", "'Infinity'"),
        ("inf\n1\n", "'inf'"),
        ("[1, 1e999]", "JSON"),
        ("[1, [2]]", "'[2]'"),
        ("[1, true]", "'true'"),
        ('["x"]', "'x'"),
        ("1\n2,3\n", "row 2 has 2 cells"),
        ('{"values": [1, 2], "times": [1]}', "2 values and 1 times"),
        ('{"value": [1]}', "a series in JSON"),
        ("2001,1\n2000,2\n", "'2000', is not after '2001'"),
        ("2001-02-01,1\n2001-02-01,2\n", "is not after"),
    ],
)
def test_what_is_no_series(value: str, said: str) -> None:
    """Is refused with what is wrong."""
    with pytest.raises(BadInput) as caught:
        series(value)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "1\n" * (tabular.MOST_ROWS + 2),
        "a" * (tabular.MOST_CELL + 1) + "\n1",
        "x\n" + "a" * (tabular.MOST_CELL + 1),
        '"' + "a" * (tabular.MOST_CELL + 1) + '",2\n1,2',
        "1," * tabular.MOST_COLUMNS + "2\n",
        '"1",' * tabular.MOST_COLUMNS + "2\n",
        "1" * (tabular.MOST_BYTES + 1),
        Blob(media=CSV, data=bytes(tabular.MOST_BYTES + 1)),
    ],
)
def test_too_large(value: str | Blob) -> None:
    """What is beyond a limit is refused before it costs."""
    with pytest.raises(TooLarge):
        table(value)


def test_one_line_of_numbers() -> None:
    """Is a series, too."""
    assert series("1, 2.5, 3").values.tolist() == [1, 2.5, 3]


@pytest.mark.parametrize(
    ("times", "ahead"),
    [
        (["1700", "1701", "1702"], ["1703", "1704"]),
        (["0", "0.5", "1.0"], ["1.5", "2"]),
        (["2001-10-01", "2001-11-01", "2001-12-01"], ["2002-01-01", "2002-02-01"]),
        (["2001-12-17", "2001-12-24", "2001-12-31"], ["2002-01-07", "2002-01-14"]),
        (
            ["2024-01-01T22:00", "2024-01-01T23:00", "2024-01-02T00:00"],
            ["2024-01-02T01:00", "2024-01-02T02:00"],
        ),
        (["1999-01-01", "2000-01-01", "2001-01-01"], ["2002-01-01", "2003-01-01"]),
        (["1", "2", "4"], []),
        (["2001-01-31", "2001-02-28", "2001-03-31"], []),
        (["Q1", "Q2", "Q3"], []),
        (["1"], []),
        ([], []),
    ],
)
def test_the_times_ahead(times: list[str], ahead: list[str]) -> None:
    """Go on as the last three went."""
    values = list(range(max(1, len(times))))
    text = json.dumps({"values": values, "times": times})
    assert series(text).ahead(2) == ahead
