"""Are the stores there, and how full are they?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from redis.asyncio import Redis

from trivium.hosts.server.beside import beside

from .settings import Settings
from .shelves import FAILURES, InMemcached
from .store import connect

EVERY_S = 5.0
"""How often it is looked."""

PATIENCE_S = 2.0
"""How long one may take to say so."""

FULL = 0.98
"""From this share of its memory on a store that throws nothing away takes nothing more."""


@dataclass(frozen=True, slots=True)
class Fill:
    """What a store holds; `limit` is 0 where none is set, `full` where it takes nothing more."""

    size: float
    limit: float
    evicted: float
    full: bool


class Stores:
    """The stores that a server was told of, each as it was last looked at."""

    def __init__(self, settings: Settings) -> None:
        urls = {"tasks": settings.redis_url}
        if settings.cache_url not in ("", settings.redis_url):
            urls["answers"] = settings.cache_url
        self._redises = {name: connect(url) for name, url in urls.items() if url}
        self._memcached = InMemcached(settings.memcached_url) if settings.memcached_url else None
        self._seen: dict[str, Fill | None] = {}

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """While it is open, look at them."""
        try:
            async with beside(self._watch()):
                yield
        finally:
            for redis in self._redises.values():
                await redis.aclose()
            if self._memcached:
                await self._memcached.close()

    async def _watch(self) -> None:
        while True:
            for name, redis in self._redises.items():
                self._seen[name] = await _within(redis_fill(redis))
            if self._memcached:
                self._seen["vectors"] = await _within(memcached_fill(self._memcached))
            await asyncio.sleep(EVERY_S)

    def collect(self) -> Iterator[Metric]:
        """Yield what was seen, for the server's metrics."""
        up = GaugeMetricFamily("trivium_store_up", "Whether a store answers", labels=["store"])
        size = GaugeMetricFamily("trivium_store_bytes", "What it holds", labels=["store"])
        limit = GaugeMetricFamily("trivium_store_limit_bytes", "What it may", labels=["store"])
        full = GaugeMetricFamily(
            "trivium_store_full", "Whether it takes nothing more", labels=["store"]
        )
        gone = CounterMetricFamily("trivium_store_evicted", "What it let go of", labels=["store"])
        for name, fill in self._seen.items():
            up.add_metric([name], float(fill is not None))
            if fill is not None:
                size.add_metric([name], fill.size)
                full.add_metric([name], float(fill.full))
                gone.add_metric([name], fill.evicted)
                if fill.limit:
                    limit.add_metric([name], fill.limit)
        yield from (up, size, limit, full, gone)


async def _within(look: Coroutine[Any, Any, Fill]) -> Fill | None:
    with contextlib.suppress(*FAILURES):
        async with asyncio.timeout(PATIENCE_S):
            return await look
    return None


async def redis_fill(redis: Redis) -> Fill:
    """Return how full a Redis is; raise one of FAILURES if it does not say."""
    said = await redis.info("memory") | await redis.info("stats")
    size, limit = float(said["used_memory"]), float(said["maxmemory"])
    keeps = said["maxmemory_policy"] == "noeviction"
    return Fill(size, limit, float(said["evicted_keys"]), keeps and 0 < FULL * limit <= size)


async def memcached_fill(memcached: InMemcached) -> Fill:
    """Return how full a Memcached is; raise one of FAILURES if it does not say."""
    said = await memcached.stats()
    size, limit, evicted = (float(said[each]) for each in ("bytes", "limit_maxbytes", "evictions"))
    return Fill(size, limit, evicted, full=False)
