"""What is where in a photo?"""

from __future__ import annotations

from array import array
from typing import Annotated

from trivium import Box, Image, Meta, Models, Tensor, function


@function("image.detect")
async def detect(
    image: Image,
    models: Models,
    least: Annotated[float, Meta(ge=0.05, le=1)] = 0.4,
    top: Annotated[int, Meta(ge=1, le=100)] = 20,
) -> list[Box]:
    """Find things of 80 everyday kinds in a photo, the surest first."""
    found = await models.detector.run(
        pixels=image.pixels,
        least=Tensor(dtype="float32", shape=(1,), data=array("f", [least]).tobytes()),
        top=Tensor(dtype="int64", shape=(1,), data=array("q", [top]).tobytes()),
    )
    return [
        Box(label=models.labels[int(kind)], score=score, x=x, y=y, width=width, height=height)
        for x, y, width, height, score, kind in found.tolist()
    ]
