"""Does the function rank texts by how near they are to the picture?"""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

from trivium import Image, Tensor, Text

match: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["match"]
NEAR = {"a cat": [0.6, 0.8], "a dog": [0.8, 0.6], "the sea": [-1.0, 0.0]}
PICTURE = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))


async def ask(name: str, /, **values: Any) -> Any:
    if name == "image.embed":
        assert values["image"] is PICTURE
        return [1.0, 0.0]
    assert isinstance(values["text"], Text)
    return NEAR[values["text"]]


def test_the_nearest_text_comes_first() -> None:
    found = asyncio.run(match(PICTURE, Text("a cat"), ask, texts=["the sea", "a dog", "a cat"]))
    assert [each.label for each in found] == ["a dog", "a cat", "the sea"]
    assert [each.score for each in found] == pytest.approx([0.8, 0.6, 0.0])


def test_one_text_is_enough() -> None:
    (found,) = asyncio.run(match(PICTURE, Text("a cat"), ask))
    assert type(found.label) is str  # what the wire knows
    assert found.score == pytest.approx(0.6)
