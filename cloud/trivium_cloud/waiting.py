"""How many tasks wait, for how long has the oldest, who does them, and what became of others?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from docket import Docket
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from redis.asyncio import Redis
from redis.exceptions import RedisError

from trivium.hosts.server.beside import beside

from .ledger import COUNTS
from .store import connect

EVERY_S = 5.0
"""How often it is looked."""


class Waiting:
    """What stands in the queue, as it was last looked at; nothing where that failed."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._counts: dict[str, float] = {}

    @contextlib.asynccontextmanager
    async def looking(self, url: str, queue: Docket) -> AsyncIterator[None]:
        """While it is open, look at the queue in the Redis at `url`."""
        redis = connect(url)
        try:
            async with beside(self._watch(redis, queue)):
                yield
        finally:
            await redis.aclose()

    async def _watch(self, redis: Redis, queue: Docket) -> None:
        while True:
            try:
                seen = await look(redis, queue.stream_key, queue.worker_group_name)
                self._seen = {**seen, "workers": float(len(await queue.workers()))}
                self._counts = await counts(redis)
            except (RedisError, OSError):
                self._seen = self._counts = {}
            await asyncio.sleep(EVERY_S)

    def collect(self) -> Iterator[Metric]:
        """Yield what was seen, for the server's metrics."""
        for name, value in self._seen.items():
            family = GaugeMetricFamily(f"trivium_task_{name}", f"Tasks: {name.replace('_', ' ')}")
            family.add_metric([], value)
            yield family
        came = CounterMetricFamily(
            "trivium_tasks", "Tasks of all servers that came into a state", labels=["status"]
        )
        for status, value in self._counts.items():
            came.add_metric([status], value)
        if self._counts:
            yield came


async def counts(redis: Redis) -> dict[str, float]:
    """Return how many tasks came into each state, of late."""
    found: dict[Any, Any] = await redis.hgetall(COUNTS)
    return {_text(status): float(value) for status, value in found.items()}


async def look(redis: Redis, stream: str, group: str) -> dict[str, float]:
    """Return how many entries of a stream no worker has yet, how many some have, and the age."""
    groups: list[dict[str, Any]] = []
    if await redis.exists(stream):
        groups = await redis.xinfo_groups(stream)
    found = next((each for each in groups if _text(each["name"]) == group), None)
    start = f"({_text(found['last-delivered-id'])}" if found else "-"
    waiting: list[Any] = await redis.xrange(stream, min=start, count=1000) or []
    oldest = 0.0
    if waiting:
        oldest = max(0.0, time.time() - int(_text(waiting[0][0]).partition("-")[0]) / 1e3)
    return {
        "waiting": float(len(waiting)),
        "running": float(found["pending"]) if found else 0.0,
        "oldest_seconds": oldest,
    }


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
