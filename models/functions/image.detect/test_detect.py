"""Does the function hand its author's photo to the detector, and rows back as boxes?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Box, Image, Tensor

FOLDER = Path(__file__).parent
detect: Any = runpy.run_path(str(FOLDER / "function.py"))["detect"]
matched: Any = runpy.run_path(str(FOLDER / "metric.py"))["matched"]


def test_rows_become_boxes() -> None:
    photo = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))

    async def run(pixels: Tensor, least: Tensor, top: Tensor) -> Tensor:
        assert pixels is photo.pixels
        assert (least.tolist(), top.tolist()) == ([0.5], [3])
        row = array("f", [0.25, 0.5, 0.125, 0.0625, 0.75, 1])
        return Tensor(dtype="float32", shape=(1, 6), data=row.tobytes())

    models = SimpleNamespace(detector=SimpleNamespace(run=run), labels=["cat", "dog"])
    (box,) = asyncio.run(detect(photo, models, least=0.5, top=3))
    assert box == Box(label="dog", score=0.75, x=0.25, y=0.5, width=0.125, height=0.0625)


def test_nothing_found_is_no_box() -> None:
    async def run(**_: Tensor) -> Tensor:
        return Tensor(dtype="float32", shape=(0, 6), data=b"")

    models = SimpleNamespace(detector=SimpleNamespace(run=run), labels=["cat", "dog"])
    photo = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))
    assert asyncio.run(detect(photo, models)) == []


def box(label: str, x: float) -> dict[str, Any]:
    return {"label": label, "score": 0.5, "x": x, "y": 0.0, "width": 0.2, "height": 0.2}


@pytest.mark.parametrize(
    ("answer", "wanted", "score"),
    [
        ([], [], 1),
        ([box("cat", 0)], [], 0),
        ([box("cat", 0.05)], [box("cat", 0)], 1),
        ([box("cat", 0.1)], [box("cat", 0)], 0),
        ([box("dog", 0)], [box("cat", 0)], 0),
        ([box("cat", 0), box("cat", 0)], [box("cat", 0)], pytest.approx(2 / 3)),
    ],
)
def test_boxes_are_matched_once(answer: list[Any], wanted: list[Any], score: float) -> None:
    assert matched(answer, wanted) == score
