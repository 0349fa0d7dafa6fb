"""Does the function hand its author's picture to the encoder, and the vector back?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trivium import Image, Tensor

HERE = Path(__file__).parent
embed: Any = runpy.run_path(str(HERE / "function.py"))["embed"]
metric: Any = runpy.run_path(str(HERE / "metric.py"))


def test_the_vector_is_what_the_encoder_gives() -> None:
    picture = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))

    async def run(pixels: Tensor) -> Tensor:
        assert pixels is picture.pixels
        return Tensor(dtype="float32", shape=(1, 2), data=array("f", [0.5, -0.5]).tobytes())

    models = SimpleNamespace(encoder=SimpleNamespace(run=run))
    assert asyncio.run(embed(picture, models)) == [0.5, -0.5]


def test_a_text_found_first_counts_fully() -> None:
    gallery = metric["GALLERY"]
    assert len(gallery) >= 2000
    own = gallery[7].tolist()
    assert metric["gain"](own, 7) == 1
    assert metric["gain"]([-x for x in own], 7) < 0.1
