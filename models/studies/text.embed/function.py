"""What does a text mean, as a point that lies near those of texts that mean the same?"""

from __future__ import annotations

from trivium import Models, Text, function


@function("text.embed_study")
async def embed(text: Text, models: Models) -> list[float]:
    """Turn a text into a unit vector; near vectors mean near meanings."""
    tokens = models.tokens.encode(text)
    vectors = await models.encoder.run(input_ids=tokens.ids, attention_mask=tokens.mask)
    return vectors[0].tolist()
