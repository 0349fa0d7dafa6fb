"""Does the function take its columns by name, and give a label a row?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Label, Tensor
from trivium.errors import BadInput
from trivium.hosts.tabular import table

HERE = Path(__file__).parent
function: Any = runpy.run_path(str(HERE / "function.py"))
CELLS = (HERE / "cells.csv").read_text()


def ask(text: str) -> tuple[list[Label], list[list[float]]]:
    """Return the labels of a model that finds every other row benign, and what it was given."""
    given: list[list[float]] = []

    async def run(cells: Tensor) -> Tensor:
        given.extend(cells.tolist())
        scores = array("f", [0.75, 0.25, 0.25, 0.75] * len(cells))[: 2 * len(cells)]
        return Tensor(dtype="float32", shape=(len(cells), 2), data=scores.tobytes())

    models = SimpleNamespace(classifier=SimpleNamespace(run=run), labels=("malignant", "benign"))
    return asyncio.run(function["classify"](table(text), models)), given


def test_a_label_a_row() -> None:
    labels, given = ask(CELLS)
    assert [each.label for each in labels] == ["malignant", "benign"] * 4
    assert {each.score for each in labels} == {0.75}
    assert [len(row) for row in given] == [30] * 8


def test_columns_are_taken_by_name() -> None:
    """Whatever their order."""
    turned = "\n".join(",".join(reversed(line.split(","))) for line in CELLS.splitlines())
    assert ask(turned) == ask(CELLS)
    assert CELLS.splitlines()[0].split(",") == function["COLUMNS"]


def test_a_column_that_is_missing_or_unknown() -> None:
    """Is named."""
    with pytest.raises(BadInput, match="missing: 'mean radius'; unknown: 'radius'"):
        ask(CELLS.replace("mean radius", "radius", 1))
