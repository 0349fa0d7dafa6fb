"""How many tasks wait, as a real Valkey's streams have it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from docket import Worker

from trivium.errors import QuotaExceeded
from trivium.hosts.server.beside import stop
from trivium.hosts.server.callers import Caller, Limits
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.queue import queue
from trivium_cloud.quotas import REFUSED
from trivium_cloud.store import connect
from trivium_cloud.waiting import Waiting, counts, look
from trivium_cloud.worker import working
from working import Site


def test_what_became_of_tasks_is_counted(tmp_path: Path) -> None:
    """By their states, over all servers; an operator sees it, and what limits refused."""

    async def play() -> None:
        few = Caller(tenant="few", limits=Limits(tasks=1))
        async with site.tasks() as tasks:
            first = await tasks.accept(few, site.ask("text.mark", "a"))
            before = REFUSED.labels("tenant", "tasks")._value.get()
            with pytest.raises(QuotaExceeded):
                await tasks.accept(few, site.ask("text.mark", "b"))
            assert REFUSED.labels("tenant", "tasks")._value.get() == before + 1
            await tasks.cancel(few, first.task_id)
            second = await tasks.accept(few, site.ask("text.mark", "c"))
            async with working(site.settings):
                await tasks.wait(few, second.task_id, 30)
            redis = tasks.open.ledger.redis
            assert await counts(redis) == {"pending": 2, "running": 1, "cancelled": 1, "done": 1}

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        asyncio.run(play())


def test_what_nobody_has_yet_waits(tmp_path: Path) -> None:
    """Before there is a queue, before there are workers, and beside those that are at work."""

    async def work(url: str) -> None:
        redis = connect(url)
        none = {"waiting": 0.0, "running": 0.0, "oldest_seconds": 0.0}
        assert await look(redis, "s", "g") == none
        for i in range(3):
            await redis.xadd("s", {"n": i}, id=f"{1000 + i}-0")
        found = await look(redis, "s", "g")
        assert (found["waiting"], found["running"]) == (3, 0)
        assert found["oldest_seconds"] > 1e6
        await redis.xgroup_create("s", "g", id="0")
        await redis.xreadgroup("g", "worker", {"s": ">"}, count=2)
        found = await look(redis, "s", "g")
        assert (found["waiting"], found["running"]) == (1, 2)
        await redis.xack("s", "g", "1000-0", "1001-0")
        await redis.xreadgroup("g", "worker", {"s": ">"}, count=1)
        await redis.xack("s", "g", "1002-0")
        assert await look(redis, "s", "g") == none
        await redis.aclose()

    with Valkey(tmp_path) as valkey:
        asyncio.run(work(valkey.url))


def test_workers_are_counted_that_give_signs_of_life(tmp_path: Path) -> None:
    """So that it is seen when the last one is gone."""

    async def workers(waiting: Waiting, wanted: float) -> None:
        async with asyncio.timeout(30):
            while True:
                found = {each.name: each.samples[0].value for each in waiting.collect()}
                if found.get("trivium_task_workers") == wanted:
                    return
                await asyncio.sleep(0.05)

    async def work(url: str) -> None:
        waiting, docket = Waiting(), queue(url)
        async with docket, waiting.looking(url, docket):
            await workers(waiting, 0)
            async with Worker(docket, schedule_automatic_tasks=False) as worker:
                running = asyncio.ensure_future(worker.run_forever())
                await workers(waiting, 1)
                await stop(running)

    with Valkey(tmp_path) as valkey:
        asyncio.run(work(valkey.url))
