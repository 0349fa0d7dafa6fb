"""Which of these labels fits a text, though nobody trained on them?"""

from __future__ import annotations

from math import exp
from operator import mul
from typing import Annotated

from trivium import Asker, Label, Meta, Text, function

TEMPERATURE = 0.05
"""What cosines are divided by: chosen on rows that the gate's figure is not of."""

Name = Annotated[str, Meta(min_length=1, max_length=200)]


@function("text.classify")
async def classify(
    text: Text,
    ask: Asker,
    labels: Annotated[list[Name], Meta(min_length=2, max_length=64)],
    template: Annotated[str, Meta(max_length=200, pattern=r"\{\}")] = "This text is about {}.",
) -> list[Label]:
    """Say how well each of your own labels fits a text, the best first."""
    meaning = await ask("text.embed", text=text)
    powers = {}
    for label in dict.fromkeys(labels):
        sentence = await ask("text.embed", text=Text(template.replace("{}", label)))
        powers[label] = exp(sum(map(mul, meaning, sentence)) / TEMPERATURE)
    total = sum(powers.values())
    best = sorted(powers.items(), key=lambda item: -item[1])
    return [Label(label=label, score=power / total) for label, power in best]
