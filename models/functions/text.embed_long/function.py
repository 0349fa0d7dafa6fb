"""What does a long text mean, as a point that lies near those of text.embed?"""

from __future__ import annotations

from trivium import Asker, Models, Tensor, Text, function
from trivium.errors import TooLarge
from trivium.texts import split

PIECE = 254
"""Tokens of a piece: text.embed takes 256, two of which are its own."""

MOST = 64
CHARACTERS = 8 * PIECE * MOST
"""So many are more than MOST pieces, in any language: they are not counted first."""


@function("text.embed_long")
async def embed(text: Text, models: Models, ask: Asker) -> list[float]:
    """Turn a text of up to 64 pieces of 254 tokens into a unit vector, near those of text.embed.

    One that is no longer than a piece has text.embed's own.
    """

    def count(piece: str) -> int:
        return models.tokens.encode(piece).ids.shape[1] - 2

    too_long = f"the text has {len(text)} characters; at most {MOST} pieces of {PIECE} tokens fit"
    if len(text) > CHARACTERS:
        raise TooLarge(too_long)
    pieces = split(text, count, PIECE)
    if len(pieces) > MOST:
        raise TooLarge(f"{too_long}, and it has {len(pieces)}")
    steps = [ask("text.embed", text=Text(piece)) for piece in pieces]
    vectors = await ask.together(*steps)
    if len(vectors) == 1:
        found: list[float] = vectors[0]
        return found
    size = len(vectors), len(vectors[0])
    flat = [number for vector in vectors for number in vector]
    tokens = Tensor.of("float32", (size[0], 1), [count(piece) / PIECE for piece in pieces])
    fused = await models.head.run(pieces=Tensor.of("float32", size, flat), tokens=tokens)
    return fused[0].tolist()
