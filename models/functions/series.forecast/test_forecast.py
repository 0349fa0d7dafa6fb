"""Does the function take the right part of a series, go on from its medians, and refuse plainly?"""

from __future__ import annotations

import asyncio
import math
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Forecast, Series, Tensor
from trivium.errors import BadInput

forecast: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["forecast"]


def of(values: list[float], times: tuple[str, ...] = ()) -> Series:
    data = array("d", values).tobytes()
    return Series(Tensor(dtype="float64", shape=(len(values),), data=data), times)


def ask(series: Series, **options: Any) -> tuple[Forecast, list[list[float]]]:
    """Return the forecast of a model that adds 1 to the last value, and what it was given."""
    given: list[list[float]] = []

    async def run(values: Tensor) -> Tensor:
        given.append(values.tolist())
        flat = [values.values[-1] + level for _ in range(48) for level in range(-4, 5)]
        flat = [each + 1 + at // 9 for at, each in enumerate(flat)]
        return Tensor(dtype="float64", shape=(48, 9), data=array("d", flat).tobytes())

    models = SimpleNamespace(forecaster=SimpleNamespace(run=run))
    return asyncio.run(forecast(series, models, **options)), given


def test_it_goes_on_from_its_medians() -> None:
    """Steps beyond a block continue where the block's medians ended."""
    answer, given = ask(of([float(each) for each in range(10)], ("1", "2", "3")), horizon=50)
    assert [row[4] for row in answer.values] == list(range(10, 60))
    assert answer.times == [str(each) for each in range(4, 54)]
    assert [len(each) for each in given] == [10, 58]


def test_no_more_than_the_model_sees_is_sent() -> None:
    """The last 2048 values."""
    _, given = ask(of([float(each) for each in range(3000)]))
    assert given == [[float(each) for each in range(952, 3000)]]


def test_quantiles_between_the_models() -> None:
    """Lie in a straight line between its own."""
    answer, _ = ask(of([0.0] * 8), horizon=1, quantiles=[0.1, 0.25, 0.5, 0.9])
    assert answer.quantiles == [0.1, 0.25, 0.5, 0.9]
    assert answer.values[0] == pytest.approx([-3, -1.5, 1, 5])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0] * 7, "7 measured values"),
        ([1.0] * 9 + [math.nan] * 2048, "0 measured values among its last 2048"),
        ([1e308, -1e308] * 4, "too far"),
    ],
)
def test_what_can_not_be_forecast(values: list[float], said: str) -> None:
    """Is refused before the model runs."""
    with pytest.raises(BadInput, match=said):
        ask(of(values))
