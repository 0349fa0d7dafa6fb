"""Does the function cut scores into segments by silero's rules, however long the sound is?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Audio, Tensor

names: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))

WINDOW = 512


def floats(values: list[float]) -> Tensor:
    return Tensor(dtype="float32", shape=(len(values),), data=memoryview(array("f", values)))


def ask(scores: list[float], **options: Any) -> list[tuple[float, float, float]]:
    """Return the windows at which segments start and end, and their scores."""
    left, state = list(scores), floats([0.0] * 128)

    async def run_all(samples: Tensor, context: Tensor, h: Tensor, c: Tensor) -> dict[str, Tensor]:
        count = -(-len(samples) // WINDOW)
        assert (len(context), len(h), len(c)) in ((64, 1, 1), (64, 128, 128))
        given, left[:count] = left[:count], []
        return {"speech_probs": floats(given), "hn": state, "cn": state}

    size = WINDOW * len(scores)
    audio = Audio(Tensor(dtype="float32", shape=(size,), data=bytes(4 * size)))
    models = SimpleNamespace(vad=SimpleNamespace(run_all=run_all))
    found = asyncio.run(names["activity"](audio, models, **options))
    assert not left
    return [(s.start * 16_000 / WINDOW, s.end * 16_000 / WINDOW, s.score) for s in found]


def test_speech_lasts_until_it_is_quiet_for_long_enough() -> None:
    """A short dip does not end it, and between .35 and .5 nothing changes."""
    scores = [0.0] * 4 + [0.9] * 10 + [0.1] * 2 + [0.9] * 4 + [0.4] * 9 + [0.1] * 9
    ((start, end, score),) = ask(scores, pad_ms=0)
    assert (start, end) == (4, 29)
    assert score == pytest.approx((14 * 0.9 + 2 * 0.1 + 9 * 0.4) / 25)


def test_short_speech_is_none() -> None:
    assert ask([0.0] * 4 + [0.9] * 7 + [0.0] * 9) == []
    assert len(ask([0.0] * 4 + [0.9] * 7 + [0.0] * 9, min_speech_ms=100)) == 1


def test_padding_stays_within_the_sound_and_between_neighbours() -> None:
    """Half of a gap belongs to each."""
    scores = [0.9] * 12 + [0.0] * 6 + [0.9] * 12
    found = ask(scores, pad_ms=1000)
    assert [(start, end) for start, end, _ in found] == [(0, 15), (15, 30)]


def test_a_long_sound_is_heard_in_runs() -> None:
    """Speech goes on across two runs of a minute."""
    scores = [0.0] * 1870 + [0.9] * 20 + [0.0] * 2000
    assert [(start, end) for start, end, _ in ask(scores, pad_ms=0)] == [(1870, 1890)]


def test_speech_at_the_end_ends_there() -> None:
    assert [(start, end) for start, end, _ in ask([0.0] * 3 + [0.9] * 20)] == [
        (pytest.approx(3 - 30 * 16 / WINDOW), 23)
    ]
