"""Does this text say what this picture shows, and which of several says it best?"""

from __future__ import annotations

from operator import mul
from typing import Annotated

from trivium import Asker, Image, Label, Meta, Text, function

Line = Annotated[str, Meta(min_length=1, max_length=1000)]


@function("match.image_text")
async def match(
    image: Image,
    text: Text,
    ask: Asker,
    texts: Annotated[list[Line], Meta(max_length=64)] = [],  # noqa: B006 # never changed
) -> list[Label]:
    """Say how near a picture and a text are (and further texts), the nearest first.

    A score is the cosine of image.embed's and text.embed's vectors, 0 where it is negative.
    """
    picture = await ask("image.embed", image=image)
    found = []
    for line in dict.fromkeys([str(text), *texts]):
        words = await ask("text.embed", text=Text(line))
        found.append(Label(label=line, score=max(0.0, sum(map(mul, picture, words)))))
    return sorted(found, key=lambda each: -each.score)
