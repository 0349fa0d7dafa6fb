"""Vectors are kept as numbers, in Redis or Memcached, and a store that fails is no harm."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from redis.asyncio import Redis

import stores
import toys
from keeping import ANNA, BEN, count, embed, place, work
from trivium.contract import Tier
from trivium.hosts.server.server import Server
from trivium.hosts.server.valkey import Valkey
from trivium_cloud import shelves
from trivium_cloud.cache import Cache
from trivium_cloud.settings import Settings


def test_vectors_are_kept_as_numbers(bundles: Path, store: str) -> None:
    """Four bytes each, given again to the same bit, and to their tenant alone."""

    async def test() -> None:
        async with place(bundles, store) as here:
            ask = embed("a" + os.urandom(4).hex())
            first, again = await here.ask(ask), await here.ask(ask)
            assert (first.cached, again.cached, here.ran) == ("miss", "hit", 1)
            assert again.output == first.output
            assert (again.version, again.model) == (first.version, first.model)
            assert (await here.ask(ask, BEN)).cached == "miss"
            wanted = await here.cache._name(ANNA, ask, {})
            assert wanted is not None
            redis = Redis.from_url(store)
            assert len(await redis.get(wanted.name) or b"") == 16 + 2 * 4
            await redis.set(wanted.name, os.urandom(24))
            assert (await here.ask(ask)).output == first.output
            await redis.aclose()

    work(test)


@pytest.mark.skipif(not stores.found("memcached"), reason="Debian's memcached is not here")
def test_vectors_are_kept_in_memcached(bundles: Path) -> None:
    """Which may be killed, stopped and started again."""

    async def test() -> None:
        with stores.memcached() as memcached:
            url = f"memcached://127.0.0.1:{memcached.port}"
            async with place(bundles, "", memcached_url=url) as here:
                ask = embed("a text")
                assert [(await here.ask(ask)).cached for _ in range(2)] == ["miss", "hit"]
                many = [embed(f"a text of {number}") for number in range(50)]
                await asyncio.gather(*(here.ask(each) for each in many))
                found = await asyncio.gather(*(here.ask(each) for each in many))
                assert {each.cached for each in found} == {"hit"}
                assert [each.output[0] for each in found] == [
                    toys.run(
                        here.server.engine.functions["text.embed"]["1.0.0"].call(
                            each.inputs["text"]
                        )
                    )[0]
                    for each in many
                ]
                memcached.kill()
                for _ in range(9):
                    assert (await here.ask(ask)).cached == "miss"
                memcached.start()
                memcached.wait()
                for _ in range(100):
                    if (await here.ask(ask)).cached == "hit":
                        break
                    await asyncio.sleep(0.05)
                with stores.stopped(memcached):
                    for _ in range(20):
                        assert (await here.ask(ask)).cached == "miss"
                    # So few waited for it; all would have.
                    assert isinstance(here.cache._vectors, shelves.InMemcached)
                    assert here.cache._vectors._breaker._failures <= 10

    work(test)


def test_without_a_store_asks_are_answered(bundles: Path) -> None:
    """None set, or none there."""

    async def test() -> None:
        for url in ("", f"redis://127.0.0.1:{stores.port()}/0"):
            async with place(bundles, url) as here:
                ask = count()
                assert [(await here.ask(ask)).cached for _ in range(6)] == ["bypass"] * 6
        async with place(bundles, url, cache_s=0.0) as here:
            assert (await here.ask(count())).cached == "bypass"

    work(test)


def test_a_store_that_is_killed_stopped_or_emptied_costs_answers_nothing(
    bundles: Path, tmp_path: Path
) -> None:
    """They go on without; when it is back, it is used again."""

    async def test() -> None:
        with Valkey(tmp_path) as valkey:
            async with place(bundles, valkey.url) as here:
                ask = count("a b")

                async def settled(cached: str) -> None:
                    for _ in range(100):
                        if (await here.ask(ask)).cached == cached:
                            return
                        await asyncio.sleep(0.05)
                    raise AssertionError(f"never a {cached}")

                assert [(await here.ask(ask)).cached for _ in range(2)] == ["miss", "hit"]
                # Killed in the middle of a run: the answer is there all the same.
                here.slow = 0.2
                asked = asyncio.ensure_future(here.ask(count("c")))
                await asyncio.sleep(0.1)
                valkey.kill()
                assert (await asked).output == {"words": 1}
                here.slow = 0.0
                assert [(await here.ask(ask)).cached for _ in range(9)] == ["bypass"] * 9
                stores.emptied(valkey, tmp_path)
                await settled("hit")
                with stores.stopped(valkey):
                    found = [(await here.ask(ask)) for _ in range(30)]
                    assert {each.cached for each in found} == {"bypass"}
                    # Some waited with all their patience, the others asked no more.
                    assert 3 <= here.cache._breaker._failures <= 8
                await settled("hit")

    work(test)


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever comes with what no store says, then leave."""
    await reader.read(10)
    writer.write(b"VALUE x 0 99999999999\r\n" if os.urandom(1)[0] % 2 else b"\x00\xff" * 40_000)
    writer.close()


def test_a_store_that_talks_nonsense_is_none(bundles: Path) -> None:
    """Neither as a Redis nor as a Memcached."""

    async def test() -> None:
        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        both = {"memcached_url": f"memcached://127.0.0.1:{port}"}
        async with place(bundles, f"redis://127.0.0.1:{port}", **both) as here:
            for _ in range(5):
                assert (await here.ask(count("a"))).output == {"words": 1}
                assert (await here.ask(embed("a"))).cached == "miss"
        server.close()

    work(test)


def test_the_address_of_a_memcached_is_checked(bundles: Path) -> None:
    """At start."""
    server = Server(Tier.CLOUD, [bundles], toys.trust())
    for wrong in ("localhost:11211", "redis://localhost", "memcached://"):
        with pytest.raises(ValueError, match="it should be such as memcached://HOST:11211"):
            Cache(server, Settings(bundles=(), keys=(), memcached_url=wrong))
    server.host.close()
