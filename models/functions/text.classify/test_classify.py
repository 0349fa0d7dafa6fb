"""Does the function weigh every label by how near its sentence is?"""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

from trivium import Text

classify: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["classify"]
NEAR = {"A dog barks.": [1.0, 0.0], "on cats": [0.6, 0.8], "on dogs": [0.8, 0.6]}


async def ask(name: str, /, **values: Any) -> Any:
    assert name == "text.embed"
    assert isinstance(values["text"], Text)  # a plain string would be an option
    return NEAR[values["text"]]


def test_the_nearest_label_comes_first() -> None:
    labels = ["cats", "dogs", "cats"]
    found = asyncio.run(classify(Text("A dog barks."), ask, labels, template="on {}"))
    assert [each.label for each in found] == ["dogs", "cats"]
    assert sum(each.score for each in found) == pytest.approx(1)
    assert found[0].score / found[1].score == pytest.approx(54.6, rel=0.01)  # e to the 0.2 / 0.05
