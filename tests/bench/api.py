"""What do tasks cost, how many hear of one, and is any lost while workers are killed?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import msgspec
import websockets

from bench.record import Record, percentile
from bench.servers import SENTENCE, ZOO, free_port
from trivium.contract import Tier
from trivium.hosts.server.serve import Process
from trivium.hosts.server.task import Task
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.tasks import Tasks
from working import CALLER, Site

TASKS = 1_000
WORKERS = 4
KILL_S = 1.0
QUICK = 500
LISTENERS = 1_000
PARTS = 20
ASKS = 300
KEY = "bench"


def run() -> Iterator[Record]:
    """Measure on this machine, each part with a store of its own."""
    with TemporaryDirectory() as place, Valkey(Path(place) / "store") as valkey:
        site = Site(Path(place), valkey.url)
        yield from asyncio.run(killed(site))
    with TemporaryDirectory() as place, Valkey(Path(place) / "store") as valkey:
        site = Site(Path(place), valkey.url)
        with site.worker(), site.worker():
            yield from asyncio.run(quick(site))
    with TemporaryDirectory() as place, Valkey(Path(place) / "store") as valkey:
        site = Site(Path(place), valkey.url)
        with process(site.environ()) as cloud, site.worker():
            yield asyncio.run(heard(site, cloud.url))
    with TemporaryDirectory() as place, Valkey(Path(place) / "store") as valkey:
        environ = {
            "TRIVIUM_REDIS_URL": valkey.url,
            "TRIVIUM_CLOUD_BUNDLES": str(ZOO),
            "TRIVIUM_CLOUD_KEYS": KEY,
        }
        with process(environ) as cloud:
            yield overhead(cloud.url)


async def killed(site: Site) -> list[Record]:
    """Have many pipelines done by workers of which one is killed every second."""
    async with site.tasks() as tasks:
        async with killing(site) as kills:
            made = [
                await tasks.accept(CALLER, site.ask("text.walk", f"t{number}", seconds=0.1))
                for number in range(TASKS)
            ]
            ended = await ends(tasks, made)
        lost = sum(
            task.status != "done"
            or task.answer is None
            or task.answer.output[-1] != f"T{number}-LAST"
            for number, task in enumerate(ended)
        )
        again = sum(task.runs > 1 for task in ended)
        peer = f"{TASKS} tasks of 4 steps, {len(kills)} kills, {again} begun again"
        return [
            Record("api.tasks_lost", lost, "tasks", peer),
            Record("api.steps_repeated", await repeated(site, tasks, ended), "steps", peer),
        ]


@contextlib.asynccontextmanager
async def killing(site: Site) -> AsyncIterator[list[int]]:
    """Run workers, and kill one every second until the block ends."""
    workers = [site.worker() for _ in range(WORKERS)]
    kills: list[int] = []

    async def kill() -> None:
        while True:
            await asyncio.sleep(KILL_S)
            # The one that has lived longest: it is at work by now.
            worker = workers[len(kills) % WORKERS]
            kills.append(worker.pid)
            worker.kill()
            worker.start()

    with contextlib.ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        killer = asyncio.ensure_future(kill())
        try:
            yield kills
        finally:
            killer.cancel()
            await asyncio.wait({killer})


async def ends(tasks: Tasks, made: list[Task]) -> list[Task]:
    """Return all tasks as they ended, a few of them waited for at a time."""
    gate = asyncio.Semaphore(16)

    async def end(task: Task) -> Task:
        async with gate:
            return await tasks.wait(CALLER, task.task_id, 600)

    return list(await asyncio.gather(*map(end, made)))


async def repeated(site: Site, tasks: Tasks, ended: list[Task]) -> int:
    """Return how many steps were begun after they had been told to be done."""
    done: dict[str, float] = {}
    for number, task in enumerate(ended):
        async for event in tasks.events(CALLER, task.task_id):
            said = msgspec.json.decode(msgspec.json.encode(event.data))
            if event.event == "step" and said["status"] == "done":
                step = said["name"].replace("text.mark", "first")
                done[f"t{number}-{step}"] = float(event.id.partition("-")[0])
    return sum(when > done.get(mark, when) + 1 for mark, when in site.begun())


async def quick(site: Site) -> list[Record]:
    """Have short tasks done one by one, and then as many as there are."""
    async with site.tasks() as tasks:
        waits = []
        for number in range(60):
            task = await tasks.accept(CALLER, site.ask("text.mark", f"q{number}"))
            task = await tasks.wait(CALLER, task.task_id, 60)
            if number >= 10:  # the first load their functions
                waits.append(_ms(task.started) - _ms(task.created))
        gate = asyncio.Semaphore(16)

        async def accept(number: int) -> Task:
            async with gate:
                return await tasks.accept(CALLER, site.ask("text.mark", f"r{number}"))

        begun = time.perf_counter()
        made = await asyncio.gather(*map(accept, range(QUICK)))
        accepted = QUICK / (time.perf_counter() - begun)
        await ends(tasks, made)
        rate = QUICK / (time.perf_counter() - begun)
    peer = f"{accepted:.0f} accepted a second, 16 at once; 2 workers, each write on the disk"
    return [
        Record("api.accept_to_start_ms", round(percentile(waits, 0.5), 2), "ms", "idle workers"),
        Record("api.tasks_per_s", round(rate, 1), "/s", peer),
    ]


async def heard(site: Site, url: str) -> Record:
    """Count those who hear each event of a task, over WebSockets to one server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * LISTENERS), hard))
    headers, gate = {"authorization": "Bearer key"}, asyncio.Semaphore(50)
    wanted = {
        "function": "text.drip",
        "text": " ".join(map(str, range(PARTS))),
        "options": {"seconds": 0.25},
        "async": True,
    }
    joined = asyncio.Event()
    count = 0

    async def listen(path: str) -> tuple[str, ...]:
        nonlocal count
        async with gate:
            connection = await websockets.connect(
                url.replace("http", "ws") + path,
                additional_headers=headers,
                proxy=None,
                open_timeout=60,
                ping_interval=None,
            )
        count += 1
        if count == LISTENERS:
            joined.set()
        async with connection:
            return tuple([json.loads(message)["id"] async for message in connection])

    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        # Those who listen first wait behind one that is never done.
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.mark", "wait", seconds=300.0))
            path = f"/v1/tasks/{task.task_id}/ws"
            waiting = [asyncio.ensure_future(listen(path)) for _ in range(LISTENERS)]
            await joined.wait()
            begun = time.perf_counter()
            await tasks.cancel(CALLER, task.task_id)
            first = await asyncio.gather(*waiting)
            took = (time.perf_counter() - begun) * 1e3
        count = 0
        name = (await client.post("/v1/multimodal", json=wanted)).json()["task_id"]
        found = await asyncio.gather(*(listen(f"/v1/tasks/{name}/ws") for _ in range(LISTENERS)))
    every = max(found, key=len)
    got = sum(each == every and len(each) == PARTS + 3 for each in found)
    last = sum(each == first[0] for each in first)
    peer = f"of {LISTENERS}, {PARTS + 3} events; one event reached {last} within {took:.0f} ms"
    return Record("api.websocket_listeners", min(got, last), "", peer)


def overhead(url: str) -> Record:
    """Compare one request of any parts with the ask that it becomes, in turns."""
    headers = {"authorization": f"Bearer {KEY}", "cache-control": "no-store"}
    ask = {"inputs": {"text": SENTENCE}}
    request = {"function": "text.embed", "text": SENTENCE}
    times: dict[str, list[float]] = {"infer/text.embed": [], "multimodal": []}
    with httpx.Client(base_url=f"{url}/v1/", headers=headers, trust_env=False) as client:
        for number in range(ASKS + 50):
            for path, body in (("infer/text.embed", ask), ("multimodal", request)):
                begun = time.perf_counter()
                client.post(path, json=body).raise_for_status()
                if number >= 50:
                    times[path].append((time.perf_counter() - begun) * 1e3)
    infer, multimodal = (percentile(each, 0.5) for each in times.values())
    peer = f"/v1/infer {infer:.3f} ms, the same client"
    return Record("api.overhead_ms", round(multimodal - infer, 3), "ms", peer)


@contextlib.contextmanager
def process(environ: dict[str, str]) -> Iterator[Process]:
    """Run a cloud by itself."""
    with Process(Tier.CLOUD, "127.0.0.1", free_port(), environ) as made:
        made.wait()
        yield made


def _ms(stamp: str | None) -> float:
    return datetime.fromisoformat(stamp or "").timestamp() * 1e3
