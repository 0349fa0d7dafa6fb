"""What does a picture show, as a point that lies near the texts that say so?"""

from __future__ import annotations

from trivium import Image, Models, function


@function("image.embed")
async def embed(image: Image, models: Models) -> list[float]:
    """Turn a picture into a unit vector, near those that text.embed gives texts about it."""
    vectors = await models.encoder.run(pixels=image.pixels)
    return vectors[0].tolist()
