"""Workers, stores and servers that are killed, for real: nothing is lost, nothing done twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

import toys
from servers import work
from stores import port
from trivium.errors import TierError
from trivium.hosts.server.child import Child
from trivium.hosts.server.task import Task
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.tasks import Tasks
from working import CALLER, MARKS, TEXT, Site, until

ACCEPT = """
import asyncio, os, sys
from pathlib import Path
from trivium_cloud.settings import Settings
from trivium_cloud.tasks import Tasks
from trivium.contract import Ask
from working import CALLER

async def main():
    tasks = Tasks(Settings.from_env(os.environ))
    async with tasks.running():
        while True:
            ask = Ask(function="text.mark", inputs={"text": "x"}, options={"marks": sys.argv[1]})
            task = await tasks.accept(CALLER, ask)
            print(task.task_id, flush=True)

asyncio.run(main())
"""


DIE = """
import asyncio, os, signal, sys
from trivium.contract import Ask
from trivium_cloud.settings import Settings
from trivium_cloud.tasks import Tasks
from working import CALLER

async def main():
    tasks = Tasks(Settings.from_env(os.environ))
    async with tasks.running():
        tasks.open.queue.add = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        for number in range(2):
            ask = Ask(function="text.mark", inputs={"text": "x"}, options={"marks": sys.argv[1]})
            await tasks.accept(CALLER, ask)

asyncio.run(main())
"""
"""Dies between writing a task down and queueing it."""

TELL = """
import logging
from trivium import Text, function

@function("text.tell")
async def tell(text: Text, marks: str) -> str:
    logging.getLogger("trivium.tell").warning("told by jane@example.org")
    return text
"""
"""Says who it works for."""


async def kill_often(site: Site, worker: Child, times: int) -> None:
    """Kill a worker in the middle of its work, start it anew, and so on."""
    for _ in range(times):
        begun = len(site.begun())
        await until(lambda: len(site.begun()) > begun, "something was begun", 60)  # noqa: B023
        await asyncio.sleep(random.uniform(0.0, 0.6))
        worker.kill()
        worker.start()


async def kill_store(valkey: Valkey) -> None:
    """Kill the store again and again, for ever."""
    while True:
        await asyncio.sleep(random.uniform(0.3, 1.0))
        valkey.kill()
        valkey.start()
        await asyncio.to_thread(valkey.wait)


async def ended(tasks: Tasks, made: list[Task]) -> list[Task]:
    """Return all tasks as they ended."""
    return list(await asyncio.gather(*(tasks.wait(CALLER, task.task_id, 90) for task in made)))


def test_no_step_that_finished_is_done_again(tmp_path: Path) -> None:
    """One after another, together and nested, however often the worker is killed meanwhile."""

    async def play() -> None:
        async with site.tasks() as tasks:
            asks = [site.ask("text.nest", f"t{number}", seconds=0.3) for number in range(6)]
            made = [await tasks.accept(CALLER, ask) for ask in asks]
            await kill_often(site, worker, 4)  # the fifth death would end a task
            done = await ended(tasks, made)
            for number, task in enumerate(done):
                assert task.status == "done", task.error
                assert task.answer is not None
                names = ("FIRST", "LEFT", "RIGHT", "LAST", "OUTER")
                assert task.answer.output == [f"T{number}-{name}" for name in names]
                assert await site.repeated(tasks, task, f"t{number}") == 0
            assert max(task.runs for task in done) > 1

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        with site.worker() as worker:
            work(play())


def test_no_accepted_task_is_lost_with_the_store(tmp_path: Path) -> None:
    """It is killed while tasks are accepted and done, and so is the worker."""

    async def play() -> None:
        async with site.tasks() as tasks:
            made: list[Task] = []
            killers = [
                asyncio.ensure_future(kill_store(valkey)),
                asyncio.ensure_future(kill_often(site, worker, 4)),
            ]
            while len(made) < 80 or not killers[1].done():
                name = f"t{len(made)}"
                with contextlib.suppress(TierError):  # then it was not accepted
                    ask = site.ask("text.walk", name, seconds=0.05)
                    made.append(await tasks.accept(CALLER, ask, idempotency=name))
                await asyncio.sleep(0.05)
            await killers[1]
            killers[0].cancel()
            await asyncio.wait(killers)
            if valkey.code() is not None:
                valkey.start()
            done = await ended(tasks, made)
            assert {task.status for task in done} == {"done"}
            for number, task in enumerate(done):
                assert await site.repeated(tasks, task, f"t{number}") == 0

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        with site.worker() as worker:
            work(play())


def test_what_was_accepted_outlives_who_accepted_it(tmp_path: Path) -> None:
    """And the store, both killed at once, before there was any worker."""

    async def play(names: list[str]) -> None:
        async with site.tasks() as tasks:
            for name in names:
                assert (await tasks.wait(CALLER, name, 30)).status == "done"

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        environ = {**os.environ, **site.environ(), "PYTHONPATH": "tests"}
        command = [sys.executable, "-c", ACCEPT, str(site.marks)]
        with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as api:
            assert api.stdout is not None
            names = [api.stdout.readline().strip() for _ in range(20)]
            api.send_signal(signal.SIGKILL)
            valkey.kill()
            names += [line.strip() for line in api.stdout if line.endswith("\n")]
        valkey.start()
        valkey.wait()
        with site.worker():
            work(play(names))


def test_what_was_written_and_not_queued_is_done(tmp_path: Path) -> None:
    """Whoever accepted it died in between."""

    async def play() -> None:
        async with site.tasks() as tasks:
            (task,) = (await tasks.list(CALLER)).tasks
            assert task.status == "pending"
            assert (await tasks.wait(CALLER, task.task_id, 30)).status == "done"
            for _ in range(20):  # of what is done nothing is queued again
                assert await tasks.open.ledger.unclaimed(0) == []
            other = await tasks.accept(CALLER, site.ask("text.mark", "y"))
            await tasks.wait(CALLER, other.task_id, 30)
        assert [mark for mark, _ in site.begun()] == ["x", "y"]

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        environ = {**os.environ, **site.environ(), "PYTHONPATH": "tests"}
        command = [sys.executable, "-c", DIE, str(site.marks)]
        died = subprocess.run(command, env=environ, check=False)
        assert died.returncode == -signal.SIGKILL
        with site.worker():
            work(play())


def test_what_waits_for_its_turn_is_done_once(tmp_path: Path) -> None:
    """However often it is looked whether it was queued."""

    async def play() -> None:
        async with site.tasks() as tasks:
            asks = [site.ask("text.mark", f"t{number}", seconds=0.4) for number in range(12)]
            made = [await tasks.accept(CALLER, ask) for ask in asks]
            assert {task.status for task in await ended(tasks, made)} == {"done"}
        assert sorted(mark for mark, _ in site.begun()) == sorted(f"t{n}" for n in range(12))

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url, redelivery=0.5, concurrency=1)
        with site.worker():
            work(play())


def test_a_task_that_kills_its_worker_ends(tmp_path: Path) -> None:
    """After five deaths, and takes no other task with it."""

    async def play() -> None:
        async with site.tasks() as tasks:
            others = [
                await tasks.accept(CALLER, site.ask("text.mark", f"o{number}", seconds=0.5))
                for number in range(4)
            ]
            poison = await tasks.accept(CALLER, site.ask("text.die", "poison"))
            waiting = asyncio.ensure_future(tasks.wait(CALLER, poison.task_id, 60))
            while not waiting.done():
                await asyncio.sleep(0.05)
                if worker.code() is not None:
                    worker.start()
            ended = waiting.result()
            assert (ended.status, ended.runs) == ("failed", 6)
            assert ended.error is not None
            assert "died 5 times" in ended.error.detail
            for task in others:
                assert (await tasks.wait(CALLER, task.task_id, 30)).status == "done"
        assert sum(mark == "poison" for mark, _ in site.begun()) == 5

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        with site.worker() as worker:
            work(play())


def test_a_worker_that_stops_gives_back_what_it_does(tmp_path: Path) -> None:
    """It finishes what is short; another one goes on with the rest, without its finished steps."""

    async def play() -> None:
        async with site.tasks() as tasks:
            long = await tasks.accept(CALLER, site.ask("text.walk", "long", seconds=3.0))
            await until(lambda: len(site.begun()) == 1, "it began")
            short = await tasks.accept(CALLER, site.ask("text.mark", "short", seconds=2.0))
            await until(lambda: len(site.begun()) == 2, "both began")
            with site.worker():
                await asyncio.to_thread(worker.__exit__)
                assert (await tasks.get(CALLER, short.task_id)).status == "done"
                assert not (await tasks.get(CALLER, long.task_id)).final
                ended = await tasks.wait(CALLER, long.task_id, 60)
            assert (ended.status, ended.runs) == ("done", 1)
        assert sorted(mark for mark, _ in site.begun()) == sorted(
            # Which of the two the stopped worker had begun, it had not finished.
            ["long-first", "short", "long-last", *2 * ["long-left", "long-right"]]
        )

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url, redelivery=20.0)
        with contextlib.ExitStack() as stack:
            worker = site.worker()
            worker.start()
            stack.callback(worker.kill)
            work(play())


def test_a_worker_that_slept_is_not_believed(tmp_path: Path) -> None:
    """It wakes while another one has its task, and what it says then changes nothing."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.walk", "z", seconds=1.5))
            await until(lambda: len(site.begun()) == 1, "it began")
            os.kill(sleepy.pid, signal.SIGSTOP)
            with site.worker():
                await until(lambda: len(site.begun()) >= 2, "another one took it")
                os.kill(sleepy.pid, signal.SIGCONT)
                ended = await tasks.wait(CALLER, task.task_id, 60)
            assert (ended.status, ended.runs) == ("done", 2)
            assert await site.repeated(tasks, task, "z") == 0

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        with site.worker() as sleepy:
            work(play())


@pytest.mark.parametrize("begun", [False, True])
def test_a_cancelled_task_is_not_taken_up_again(tmp_path: Path, begun: bool) -> None:
    """Cancelled while nobody is there to do it, or to stop it."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.mark", "c", seconds=5.0))
            if begun:
                with site.worker() as worker:
                    await until(lambda: len(site.begun()) == 1, "it began")
                    worker.kill()
            assert (await tasks.cancel(CALLER, task.task_id)).status == "cancelled"
            with site.worker():
                other = await tasks.accept(CALLER, site.ask("text.mark", "d"))
                await tasks.wait(CALLER, other.task_id, 30)
                await asyncio.sleep(2.5)
            assert (await tasks.get(CALLER, task.task_id)).status == "cancelled"
        assert [mark for mark, _ in site.begun()] == ["c", "d"] if begun else ["d"]

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        work(play())


def test_a_worker_shows_what_it_counts(tmp_path: Path) -> None:
    """To those with a key, where it is told to."""

    async def play() -> None:
        told = {"authorization": "Bearer key"}
        async with site.tasks() as tasks, httpx.AsyncClient(base_url=url) as client:
            task = await tasks.accept(CALLER, site.ask("text.mark", "m"))
            assert (await tasks.wait(CALLER, task.task_id, 30)).status == "done"
            assert (await client.get("/metrics")).status_code == 401
            async with asyncio.timeout(30):
                while True:
                    shown = (await client.get("/metrics", headers=told)).text
                    if 'trivium_asks_total{code="ok",function="text.mark"' in shown:
                        break
                    await asyncio.sleep(0.05)
        assert 'service="worker"' in shown

    number = port()
    url = f"http://127.0.0.1:{number}"
    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url, worker_listen=f"127.0.0.1:{number}")
        with site.worker():
            work(play())


def test_a_task_that_nobody_does_expires(tmp_path: Path) -> None:
    """Without a worker it says so itself, and what comes later does not do it."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.mark", "e"), seconds=0.5)
            await asyncio.sleep(2.7)
            found = await tasks.get(CALLER, task.task_id)
            assert found.status == "expired"
            assert found.error is not None
            assert found.error.detail.startswith("the task was not begun within")
            with site.worker():
                other = await tasks.accept(CALLER, site.ask("text.mark", "f"))
                await tasks.wait(CALLER, other.task_id, 30)
        assert [mark for mark, _ in site.begun()] == ["f"]

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        work(play())


def test_a_workers_lines_name_the_trace_of_the_task(tmp_path: Path) -> None:
    """As JSON, masked as everywhere."""
    trace = "0af7651916cd43dd8448eb211c80319c"

    async def main(url: str) -> None:
        site = Site(tmp_path, url)
        made = toys.manifest("text.tell", "tell", options=(MARKS,), inputs=TEXT)
        toys.bundle(site.settings.bundles[0], TELL, made)
        environ, log = {**site.environ(), "TRIVIUM_LOG": "json"}, tmp_path / "log"
        command = [sys.executable, "-m", "trivium_cloud.worker"]
        with Child("worker", command, environ, log=log):
            async with site.tasks() as tasks:
                ask = replace(site.ask("text.tell", "one"), trace=f"00-{trace}-{'1' * 16}-01")
                await tasks.accept(CALLER, ask)
                await until(lambda: "told by" in log.read_text(), "it is told", 60)
        (line,) = (each for each in log.read_text().splitlines() if "told by" in each)
        said = json.loads(line)
        assert (said["service"], said["trace"]) == ("worker", trace)
        assert said["message"] == "told by [email]"

    with Valkey(tmp_path / "store") as valkey:
        work(main(valkey.url))
