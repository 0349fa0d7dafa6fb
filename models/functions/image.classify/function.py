"""What does a photo show?"""

from __future__ import annotations

from typing import Annotated

from trivium import Image, Label, Meta, Models, function


@function("image.classify")
async def classify(
    image: Image, models: Models, top: Annotated[int, Meta(ge=1, le=100)] = 5
) -> list[Label]:
    """Name what a photo shows, the surest first."""
    scores = await models.classifier.run(pixels=image.pixels)
    return scores.top(top, labels=models.labels)
