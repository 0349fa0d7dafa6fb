"""Does the function hand its author's photo to the model, and the runs back as a mask?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Image, Mask, Tensor

FOLDER = Path(__file__).parent
segment: Any = runpy.run_path(str(FOLDER / "function.py"))["segment"]
shared: Any = runpy.run_path(str(FOLDER / "metric.py"))["shared"]


def test_runs_become_a_mask() -> None:
    photo = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))

    async def run(pixels: Tensor, least: Tensor) -> Tensor:
        assert pixels is photo.pixels
        assert least.tolist() == [0.25]
        return Tensor(dtype="int64", shape=(3,), data=array("q", [1, 2, 1]).tobytes())

    models = SimpleNamespace(segmenter=SimpleNamespace(run=run), settings={"side": 2})
    mask = asyncio.run(segment(photo, models, least=0.25))
    assert mask == Mask(label="person", width=2, height=2, runs=[1, 2, 1])


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [([1, 2, 1], [1, 2, 1], 1), ([4], [4], 1), ([4], [0, 4], 0), ([0, 2, 2], [1, 3], 0.25)],
)
def test_masks_are_compared_by_what_they_share(
    one: list[int], other: list[int], score: float
) -> None:
    assert shared({"runs": one}, {"runs": other}) == score
