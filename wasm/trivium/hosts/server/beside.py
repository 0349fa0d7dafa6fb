"""What runs beside a server's work, and ends with it?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

from litestar.types import Receive

from ...errors import Cancelled

T = TypeVar("T")


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let it run while the block does; at the block's end it is cancelled, and waited for."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        await stop(task)


async def attended(receive: Receive, work: Awaitable[T]) -> T:
    """Return what `work` gives; end it once the client, whose body was read, is gone."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise Cancelled("the client left before anything was answered")
        return doing.result()
    finally:
        await stop(doing, leaving)


async def stop(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel them, until they have ended.

    In Python 3.11 a cancellation that comes together with an answer is lost now and then.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=2.0)
