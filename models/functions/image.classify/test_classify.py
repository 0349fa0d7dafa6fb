"""Does the function hand its author's photo to the classifier, and the best labels back?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trivium import Image, Label, Tensor

classify: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["classify"]


def test_the_surest_labels_come_first() -> None:
    photo = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"\x01\x02\x03"))

    async def run(pixels: Tensor) -> Tensor:
        assert pixels is photo.pixels
        data = array("f", [0.25, 0.5, 0.125]).tobytes()
        return Tensor(dtype="float32", shape=(1, 3), data=data)

    models = SimpleNamespace(classifier=SimpleNamespace(run=run), labels=["cat", "dog", "owl"])
    labels = asyncio.run(classify(photo, models, top=2))
    assert labels == [Label(label="dog", score=0.5), Label(label="cat", score=0.25)]
