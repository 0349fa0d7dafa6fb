"""Races between two roads, and limits; order is held by events, never by waiting for a while."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import pytest

from trivium.errors import BadInput, BudgetError, ModelNotReady, RunFailed, TriviumError
from trivium.hosts.timing import Timing

NEVER_MS = 60_000.0
"""Longer than any of these tests may take."""

timing = Timing()


def run(work: Coroutine[Any, Any, object]) -> object:
    """Return what a coroutine gives; a test that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, 20))


class Runner:
    """One side of a race, which ends when it is told to."""

    def __init__(self, result: str | TriviumError, at_once: bool = True) -> None:
        self.result = result
        self.started = False
        self.cancelled = False
        self.gate = asyncio.Event()
        if at_once:
            self.gate.set()

    async def __call__(self) -> str:
        self.started = True
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if isinstance(self.result, TriviumError):
            raise self.result
        return self.result


@pytest.mark.parametrize("after_ms", [None, NEVER_MS])
def test_the_first_wins_alone(after_ms: float | None) -> None:
    """The second is not even started."""

    async def work() -> None:
        first, then = Runner("first"), Runner("then")
        assert await timing.race(first, then, after_ms) == "first"
        assert not then.started

    run(work())


@pytest.mark.parametrize("after_ms", [None, NEVER_MS])
def test_a_failing_tier_is_followed_at_once(after_ms: float | None) -> None:
    """The second does not wait for the hedge."""

    async def work() -> None:
        first, then = Runner(ModelNotReady("cold")), Runner("then")
        assert await timing.race(first, then, after_ms) == "then"

    run(work())


@pytest.mark.parametrize("after_ms", [None, NEVER_MS])
@pytest.mark.parametrize("error", [BadInput("no"), BudgetError("late")])
def test_other_errors_are_not_retried(after_ms: float | None, error: TriviumError) -> None:
    """What is the caller's mistake stays it elsewhere."""

    async def work() -> None:
        then = Runner("then")
        with pytest.raises(type(error)):
            await timing.race(Runner(error), then, after_ms)
        assert not then.started

    run(work())


@pytest.mark.parametrize("after_ms", [None, NEVER_MS, 1.0])
def test_if_both_fail_the_second_error_counts(after_ms: float | None) -> None:
    """It is nearer to what could have answered."""

    async def work() -> None:
        with pytest.raises(RunFailed, match="then"):
            await timing.race(Runner(ModelNotReady("first")), Runner(RunFailed("then")), after_ms)

    run(work())


def test_a_slow_first_is_hedged_and_the_loser_cancelled() -> None:
    """After the hedge both run; the second may win."""

    async def work() -> None:
        first, then = Runner("first", at_once=False), Runner("then")
        assert await timing.race(first, then, 1.0) == "then"
        await asyncio.sleep(0)
        assert first.cancelled

    run(work())


def test_a_hedged_first_may_still_win() -> None:
    """Then the second is cancelled."""

    async def work() -> None:
        first, then = Runner("first", at_once=False), Runner("then", at_once=False)

        async def second() -> str:
            first.gate.set()
            return await then()

        assert await timing.race(first, second, 1.0) == "first"
        await asyncio.sleep(0)
        assert then.cancelled

    run(work())


def test_a_failing_hedge_waits_for_the_first() -> None:
    """One failure among two is none."""

    async def work() -> None:
        first = Runner("first", at_once=False)

        async def second() -> NoReturn:
            first.gate.set()
            raise RunFailed("then")

        assert await timing.race(first, second, 1.0) == "first"

    run(work())


def test_a_first_that_fails_late_waits_for_the_hedge() -> None:
    """So does the other way round."""

    async def work() -> None:
        first = Runner(ModelNotReady("first"), at_once=False)
        then = Runner("then", at_once=False)

        async def second() -> str:
            first.gate.set()
            await asyncio.sleep(0)
            asyncio.get_running_loop().call_soon(then.gate.set)
            return await then()

        assert await timing.race(first, second, 1.0) == "then"

    run(work())


def test_a_callers_mistake_ends_a_race() -> None:
    """The other road would say the same."""

    async def work() -> None:
        first, then = Runner("first", at_once=False), Runner(BadInput("no"))
        with pytest.raises(BadInput):
            await timing.race(first, then, 1.0)
        await asyncio.sleep(0)
        assert first.cancelled

    run(work())


@pytest.mark.parametrize("hedged", [True, False])
def test_a_cancelled_race_leaves_nobody_running(hedged: bool) -> None:
    """Neither the first nor the hedge goes on without an asker."""

    async def work() -> None:
        first, then = Runner("first", at_once=False), Runner("then", at_once=False)
        begun = asyncio.Event()

        def telling(runner: Runner, tell: bool) -> Callable[[], Awaitable[str]]:
            async def wrapped() -> str:
                if tell:
                    begun.set()
                return await runner()

            return wrapped

        race = asyncio.ensure_future(
            timing.race(
                telling(first, not hedged), telling(then, hedged), 1.0 if hedged else NEVER_MS
            )
        )
        await begun.wait()
        await asyncio.sleep(0)
        race.cancel()
        with pytest.raises(asyncio.CancelledError):
            await race
        await asyncio.sleep(0)
        assert (first.cancelled, then.cancelled) == (True, hedged)

    run(work())


def test_lost_errors_are_not_reported_as_forgotten() -> None:
    """A loser that failed was looked at: the loop has nothing to complain about."""

    async def work() -> list[object]:
        complaints: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
        for after_ms in (None, 1.0, NEVER_MS):
            await timing.race(Runner(RunFailed("first")), Runner("then"), after_ms)
        await asyncio.sleep(0)
        gc.collect()
        return complaints

    assert run(work()) == []


def test_a_limit_cancels_what_is_late() -> None:
    """The message says how much time was left."""

    async def work() -> None:
        slow = Runner("slow", at_once=False)
        with pytest.raises(BudgetError, match="no answer within the 1.5 ms that were left"):
            await timing.limit(slow(), 1.5)
        assert slow.cancelled
        assert await timing.limit(Runner("quick")(), NEVER_MS) == "quick"
        assert await timing.limit(Runner("unhurried")(), None) == "unhurried"

    run(work())


def test_the_clock_only_goes_forward() -> None:
    """In milliseconds."""
    first = timing.clock()
    assert timing.clock() >= first
