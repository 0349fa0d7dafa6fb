"""Do a pipeline's steps really run beside each other, and end together?"""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

import toys
from toys import CLOUD, Diary
from trivium.contract import Ask
from trivium.engine import Engine
from trivium.errors import TierError
from trivium.hosts.timing import Timing


class World(toys.FakeHost):
    """A toy's world in which things really run beside each other."""

    together = Timing.together


SLOW = """
import asyncio
from trivium import Text, TierError, function

@function("text.slow")
async def slow(text: Text) -> str:
    await asyncio.sleep({"fails": 0.01}.get(text, 0.02 if text == "b" else 60.0 * (text == "long")))
    if text == "fails":
        raise TierError("it failed")
    return str(text)
"""

BESIDE = """
from trivium import Asker, Text, TierError, function

@function("text.beside")
async def beside(text: Text, ask: Asker) -> list[str]:
    words = text.split()
    return await ask.together(*(two(ask, word) for word in words))

async def two(ask: Asker, word: str) -> str:
    first = await ask("text.slow", text=Text(word))
    return first + await ask("text.slow", text=Text("c"))
"""


def beside(host: World) -> Engine:
    return toys.engine(
        CLOUD,
        (SLOW, toys.manifest("text.slow", "slow")),
        (BESIDE, toys.manifest("text.beside", "beside", asks=True)),
        host=host,
    )


def test_what_runs_together_is_named_by_its_place() -> None:
    """Not by who was first, which the next run may change."""
    diary = Diary()
    ask = Ask(function="text.beside", inputs={"text": "b a"})
    answer = asyncio.run(beside(World()).infer(ask, journal=diary))
    assert answer.output == ["bc", "ac"]
    assert list(diary.done) == [
        "2/text.slow",
        "2/text.slow#2",
        "1/text.slow",
        "1/text.slow#2",
    ]
    assert [diary.done[f"{number}/text.slow"].output for number in (1, 2)] == ["b", "a"]


def test_one_that_fails_cancels_the_others() -> None:
    """The first error is raised, and the journal hears of those that were given up."""
    diary = Diary()
    ask = Ask(function="text.beside", inputs={"text": "long fails a"})
    with pytest.raises(TierError, match="it failed"):
        asyncio.run(beside(World()).infer(ask, journal=diary))
    assert "cancelled 1/text.slow" in diary.told
    assert "tier_failed 2/text.slow" in diary.told


def test_a_caller_that_goes_away_ends_all_steps() -> None:
    """And the journal hears of it."""

    async def leave() -> None:
        ask = Ask(function="text.beside", inputs={"text": "long long"})
        task = asyncio.ensure_future(beside(World()).infer(ask, journal=diary))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    diary = Diary()
    asyncio.run(leave())
    assert diary.told[-2:] == ["cancelled 1/text.slow", "cancelled 2/text.slow"]


def test_whoever_goes_away_leaves_nothing_unawaited() -> None:
    """However early: what was to run together may not have begun."""

    async def leave(turns: int) -> None:
        ask = Ask(function="text.beside", inputs={"text": "long long"})
        task = asyncio.ensure_future(beside(World()).infer(ask))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for turns in range(1, 12):
            asyncio.run(leave(turns))
        gc.collect()
    assert [str(each.message) for each in told] == []
