"""How full real stores are, and whether they are there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

import stores as real
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.settings import Settings
from trivium_cloud.shelves import InMemcached
from trivium_cloud.store import connect
from trivium_cloud.stores import Stores, memcached_fill, redis_fill


def told(stores: Stores) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels["store"]): sample.value
        for family in stores.collect()
        for sample in family.samples
    }


async def until(stores: Stores, name: str, value: float) -> None:
    async with asyncio.timeout(30):
        while told(stores).get((name, "tasks")) != value:  # noqa: ASYNC110 # a metric
            await asyncio.sleep(0.05)


async def filled(redis: Redis) -> None:
    for i in range(10_000):
        try:
            await redis.set(f"k{i}", b"x" * 4096)
        except OutOfMemoryError:
            return
    raise AssertionError("it takes all")


def test_a_store_that_takes_nothing_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one that is gone; one that lets go of what it likes is never full."""
    monkeypatch.setattr("trivium_cloud.stores.EVERY_S", 0.1)

    async def work(valkey: Valkey) -> None:
        redis = connect(valkey.url)
        stores = Stores(Settings(bundles=(), keys=(), redis_url=valkey.url))
        assert told(stores) == {}
        async with stores.looking():
            await until(stores, "trivium_store_up", 1.0)
            assert told(stores)["trivium_store_full", "tasks"] == 0
            assert ("trivium_store_limit_bytes", "tasks") not in told(stores)
            used = told(stores)["trivium_store_bytes", "tasks"]
            await redis.config_set("maxmemory", int(used + 1e6))
            await filled(redis)
            await until(stores, "trivium_store_full", 1.0)
            await redis.config_set("maxmemory-policy", "allkeys-lru")
            for i in range(20):
                await redis.set(f"one more {i}", b"x" * 4096)
            await until(stores, "trivium_store_full", 0.0)
            assert (await redis_fill(redis)).evicted > 0
            valkey.kill()
            await until(stores, "trivium_store_up", 0.0)
            valkey.start()
            await until(stores, "trivium_store_up", 1.0)
        await redis.aclose()

    with Valkey(tmp_path) as valkey:
        asyncio.run(work(valkey))


@pytest.mark.skipif(not real.found("memcached"), reason="Debian's memcached is not here")
def test_a_memcached_says_what_it_holds() -> None:
    """In its own words, of many lines."""

    async def work(port: int) -> None:
        shelf = InMemcached(f"memcached://127.0.0.1:{port}")
        before = await memcached_fill(shelf)
        await shelf.put("a", b"x" * 1000)
        after = await memcached_fill(shelf)
        assert after.size >= before.size + 1000
        assert after.limit == 64 << 20
        assert (after.evicted, after.full) == (0, False)
        assert await shelf.get("a") == b"x" * 1000
        await shelf.close()

    with real.memcached() as kept:
        asyncio.run(work(kept.port))
