"""How do asyncio's worlds, page and servers alike, measure, race and limit work?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from ..errors import BudgetError, TierError
from ..function import Function
from .likeness import likeness

T = TypeVar("T")


LATER_S = 0.05
"""What may wait begins after this time: what was answered is on its way by then."""

_later: set[asyncio.Task[None]] = set()


class Timing:
    """The part of a host that is about time; `shadows` is the share of the asks that may be."""

    lanes = 1
    shadows = 0.01

    def cold(self, function: Function) -> float:  # noqa: ARG002 # servers load on first use
        """Return how many ms loading the function would take first: it is there."""
        return 0.0

    def clock(self) -> float:
        """Return monotonic milliseconds."""
        return time.perf_counter() * 1e3

    async def limit(self, work: Awaitable[T], ms: float | None) -> T:
        """Return what `work` gives; after `ms` cancel it and raise BudgetError."""
        if ms is None:
            return await work
        try:
            async with asyncio.timeout(ms / 1e3):
                return await work
        except TimeoutError as error:
            raise BudgetError(f"no answer within the {ms:.4g} ms that were left") from error

    async def together(self, works: Sequence[Awaitable[T]]) -> list[T]:
        """Return what all `works` give; if one raises, cancel the others, and raise it then."""
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            # They may still have to say that they were given up.
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def race(
        self,
        first: Callable[[], Awaitable[T]],
        then: Callable[[], Awaitable[T]],
        after_ms: float | None,
    ) -> T:
        """Return what comes first of `first` and `then`, and cancel the other.

        `then` starts as soon as `first` raises a TierError, or after `after_ms`. If both raise,
        the error of `then` counts.
        """
        if after_ms is None:
            try:
                return await first()
            except TierError:
                return await then()
        ahead: asyncio.Future[T] = asyncio.ensure_future(first())
        behind: asyncio.Future[T] | None = None
        try:
            await asyncio.wait({ahead}, timeout=after_ms / 1e3)
            if ahead.done() and not isinstance(ahead.exception(), TierError):
                return ahead.result()
            behind = asyncio.ensure_future(then())
            racing = {ahead, behind}
            while racing:
                finished, racing = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
                for each in finished:
                    if not isinstance(each.exception(), TierError):
                        return each.result()
            return behind.result()
        finally:
            for each in filter(None, (ahead, behind)):
                each.cancel()

    def alike(self, one: Any, other: Any) -> float | None:
        """Return from 0 to 1 how far two outputs agree, if they can be compared."""
        return likeness(one, other)

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` by and by, once what was answered is on its way; nobody waits for it."""

        async def begun() -> None:
            await asyncio.sleep(LATER_S)
            await work()

        # The loop itself holds tasks weakly.
        task = asyncio.ensure_future(begun())
        _later.add(task)
        task.add_done_callback(_later.discard)
