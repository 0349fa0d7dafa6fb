"""Is the clearest word of a sound named, wherever in it?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trivium import Audio, Tensor

keyword: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["keyword"]

LABELS = ["yes", "no", "other", "silence"]


def ask(windows: list[list[float]], seconds: float) -> tuple[list[Any], list[int]]:
    """Return the answer, and how many samples each run was given."""
    runs: list[int] = []
    left = list(windows)

    async def run(samples: Tensor) -> Tensor:
        runs.append(len(samples))
        count = max(1, -(-len(samples) // 6400) - 2)
        given, left[:count] = left[:count], []
        data = memoryview(array("f", [score for window in given for score in window]))
        return Tensor(dtype="float32", shape=(len(given), 4), data=data)

    models = SimpleNamespace(words=SimpleNamespace(run=run), labels=LABELS)
    size = round(seconds * Audio.RATE)
    audio = Audio(Tensor(dtype="float32", shape=(size,), data=bytes(4 * size)))
    found = asyncio.run(keyword(audio, models, top=2))
    assert not left
    return found, runs


def test_the_window_with_the_clearest_word_answers() -> None:
    """A window that surely holds another word, or none, does not speak for the sound."""
    found, _ = ask([[0.1, 0.0, 0.9, 0.0], [0.2, 0.7, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0]], 2.0)
    assert [each.label for each in found] == ["no", "yes"]


def test_a_sound_without_words_says_so() -> None:
    found, _ = ask([[0.0, 0.1, 0.0, 0.9]], 0.3)
    assert found[0].label == "silence"


def test_a_long_sound_is_heard_in_runs_that_overlap() -> None:
    """Every window is heard once."""
    windows = [[0.0, 0.1, 0.9, 0.0]] * 123
    windows[100] = [1.0, 0.0, 0.0, 0.0]
    found, runs = ask(windows, 50.0)
    assert found[0].label == "yes"
    assert runs == [62 * 6400, 62 * 6400, 800_000 - 120 * 6400]
