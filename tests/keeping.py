"""A cloud server's cache, functions of which some may be kept, and asks for them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import samples
import toys
from trivium.contract import Answer, Ask, Tier
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.server import Server
from trivium_cloud.cache import Cache
from trivium_cloud.settings import Settings

ANNA = Caller(tenant="anna")
BEN = Caller(tenant="ben")

SEEDED = """
from trivium import Text, function

@function("text.seeded")
async def seeded(text: Text, seed: int | None = None) -> str:
    return str(text)
"""

VECTOR = """
from array import array
from trivium import Text, function

@function("text.embed")
async def embed(text: Text) -> list[float]:
    return array("f", [len(text) / 3, 0.25]).tolist()
"""

SHY = """
from trivium import Text, function

@function("text.shy")
async def shy(text: Text) -> str:
    return str(text)
"""


def zoo(folder: Path) -> Path:
    """Make the bundles of functions that may be kept, and of some that may not."""
    samples.zoo(folder)
    seed = toys.manifest("text.seeded", "seeded", options=(samples.SEED,))
    toys.bundle(folder, SEEDED, seed)
    toys.bundle(folder, VECTOR, toys.manifest("text.embed", "embed"))
    toys.bundle(folder, SHY, toys.manifest("text.shy", "shy", settings={"cache": False}))
    return folder


class Place:
    """A cloud server's cache, and how often its functions really ran."""

    def __init__(self, server: Server, kept: Cache) -> None:
        self.server = server
        self.cache = kept
        self.ran = 0
        self.slow = 0.0
        self.error: Exception | None = None

    async def ask(
        self, ask: Ask, caller: Caller = ANNA, control: str = "", whole: bool = True
    ) -> Answer:
        """Return what the cache gives."""

        async def run() -> Answer:
            self.ran += 1
            await asyncio.sleep(self.slow)
            if self.error:
                raise self.error
            return await self.server.engine.infer(ask)

        found = await self.cache.results(caller, ask, run, control, lambda: whole)
        await self.settled()
        return found

    async def settled(self) -> None:
        """Wait until all is written."""
        while tasks := {task for task in self.cache._later if not task.done()}:
            await asyncio.wait(tasks)


@asynccontextmanager
async def place(bundles: Path, url: str, **fields: Any) -> AsyncIterator[Place]:
    """Open a server's cache."""
    server = Server(Tier.CLOUD, [bundles], toys.trust())
    given = Settings(bundles=(bundles,), keys=(), redis_url=url, **fields)
    made = Place(server, Cache(server, given))
    try:
        yield made
    finally:
        await made.cache.close()
        server.host.close()


def count(text: str = "", **fields: Any) -> Ask:
    """Return an ask; its text is new each time unless it is given."""
    return Ask(function="text.count", inputs={"text": text or os.urandom(8).hex()}, **fields)


def embed(text: str) -> Ask:
    """Return an ask for a vector."""
    return Ask(function="text.embed", inputs={"text": text})


def work(made: Callable[[], Awaitable[None]]) -> None:
    """Run what a test does."""

    async def all_of_it() -> None:
        await made()

    asyncio.run(all_of_it())
