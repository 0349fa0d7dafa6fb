"""What runs beside a server's work, and ends with it?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let it run while the block does; at the block's end it is cancelled, and waited for."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        await stop(task)


async def stop(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel them, until they have ended.

    In Python 3.11 a cancellation that comes together with an answer is lost now and then.
    """
    left = {task for task in tasks if task is not None}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=2.0)
