"""What runs beside a server's work."""

from __future__ import annotations

import asyncio

import pytest

from trivium.hosts.server.beside import beside


@pytest.mark.parametrize("broken", [False, True])
def test_it_ends_with_the_block(broken: bool) -> None:
    """However the block ends, and although a first cancellation is lost."""
    told = []

    async def work() -> None:
        told.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.append("lost")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            told.append("ended")

    async def play() -> None:
        async with beside(work()):
            await asyncio.sleep(0)
            if broken:
                raise LookupError

    if broken:
        with pytest.raises(LookupError):
            asyncio.run(play())
    else:
        asyncio.run(play())
    assert told == ["begun", "lost", "ended"]


def test_what_failed_long_ago_is_in_nobodys_way() -> None:
    """Its error is not the block's."""

    async def work() -> None:
        raise LookupError

    async def play() -> str:
        async with beside(work()):
            await asyncio.sleep(0)
        return "done"

    assert asyncio.run(play()) == "done"
