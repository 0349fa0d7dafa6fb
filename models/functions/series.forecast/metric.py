"""How near is a forecast to what came?"""

from __future__ import annotations

from typing import Any


def scaled(answer: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Return 1 / (1 + CRPS): 1 is perfect, 0.5 errs as much as the seasonal naive did before.

    The CRPS is twice the mean pinball loss over the quantiles, in units of the mean error that
    repeating the season made within the context, as MASE has it.
    """
    return 1 / (1 + loss(answer, wanted))


def loss(answer: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Return the CRPS in those units."""
    losses = [
        max(level * (actual - guess), (level - 1) * (actual - guess))
        for row, actual in zip(answer["values"], wanted["actual"], strict=True)
        if actual is not None
        for level, guess in zip(answer["quantiles"], row, strict=True)
    ]
    return 2 * sum(losses) / len(losses) / float(wanted["scale"])
