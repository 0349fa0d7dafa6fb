"""What comes next in a series of numbers, and how sure is that?"""

from __future__ import annotations

import math
from array import array
from typing import Annotated

from trivium import Forecast, Meta, Models, Series, Tensor, function
from trivium.errors import BadInput

LEVELS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
CONTEXT = 2048
LEAST = 8

Level = Annotated[float, Meta(ge=0.1, le=0.9)]


@function("series.forecast")
async def forecast(
    series: Series,
    models: Models,
    horizon: Annotated[int, Meta(ge=1, le=192)] = 48,
    quantiles: list[Level] | None = None,
) -> Forecast:
    """Tell what may come next in a series: for each step ahead, quantiles of what it may be."""
    values = array("d", series.values.values)
    known = [value for value in values[-CONTEXT:] if not math.isnan(value)]
    if len(known) < LEAST:
        raise BadInput(
            f"the series has {len(known)} measured values among its last {CONTEXT}; "
            f"at least {LEAST} are needed"
        )
    if not math.isfinite(max(known) - min(known)):
        raise BadInput(f"the series goes from {min(known):g} to {max(known):g}, which is too far")
    steps: list[list[float]] = []
    while len(steps) < horizon:
        context = values[-CONTEXT:]
        given = Tensor(dtype="float64", shape=(len(context),), data=context.tobytes())
        block = (await models.forecaster.run(values=given)).tolist()
        steps += block
        # Beyond one block it goes on from its own medians, as if they had come true.
        values.extend(row[4] for row in block)
    steps = steps[:horizon]
    if quantiles is not None:
        steps = [[_between(row, level) for level in quantiles] for row in steps]
    levels = LEVELS if quantiles is None else quantiles
    return Forecast(quantiles=levels, values=steps, times=series.ahead(horizon))


def _between(row: list[float], level: float) -> float:
    """Return a quantile that lies between two of the model's, in a straight line."""
    place = min(max(0.0, 10 * level - 1), 8.0)
    low = min(int(place + 1e-9), 7)
    return row[low] + (row[low + 1] - row[low]) * (place - low)
