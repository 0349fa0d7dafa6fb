"""Where in a photo is a person?"""

from __future__ import annotations

from array import array
from typing import Annotated

from trivium import Image, Mask, Meta, Models, Tensor, function


@function("image.segment")
async def segment(
    image: Image, models: Models, least: Annotated[float, Meta(ge=0.01, le=0.99)] = 0.5
) -> Mask:
    """Say which part of a portrait is the person: where the model is at least so sure."""
    runs = await models.segmenter.run(
        pixels=image.pixels,
        least=Tensor(dtype="float32", shape=(1,), data=array("f", [least]).tobytes()),
    )
    side: int = models.settings["side"]
    return Mask(label="person", width=side, height=side, runs=runs.tolist())
