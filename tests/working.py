"""Real workers over a real store: functions that leave marks, tasks, and what becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

import toys
from trivium.contract import Ask, Input, Option
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.child import Child
from trivium.hosts.server.task import Task
from trivium_cloud.settings import Settings
from trivium_cloud.tasks import Tasks

CALLER = Caller(tenant="default")

MARK = """
import asyncio, os, time
from pathlib import Path
from trivium import Text, function

@function("text.mark")
async def mark(text: Text, marks: str, seconds: float = 0.0, fail: bool = False) -> str:
    with Path(marks).open("a") as file:
        file.write(f"{text} {time.time() * 1e3:.3f}\\n")
    await asyncio.sleep(seconds)
    if fail:
        raise ValueError("as asked")
    return text.upper()
"""

WALK = """
from trivium import Asker, Text, function

@function("text.walk")
async def walk(text: Text, ask: Asker, marks: str, seconds: float = 0.0) -> list[str]:
    given = {"marks": marks, "seconds": seconds}
    first = await ask("text.mark", text=Text(f"{text}-first"), **given)
    both = await ask.together(
        ask.step("left", "text.mark", text=Text(f"{text}-left"), **given),
        ask.step("right", "text.mark", text=Text(f"{text}-right"), **given),
    )
    last = await ask.step("last", "text.mark", text=Text(f"{text}-last"), **given)
    return [first, *both, last]
"""

NEST = """
from trivium import Asker, Text, function

@function("text.nest")
async def nest(text: Text, ask: Asker, marks: str, seconds: float = 0.0) -> list[str]:
    given = {"marks": marks, "seconds": seconds}
    inner = await ask.step("inner", "text.walk", text=text, **given)
    return [*inner, await ask.step("outer", "text.mark", text=Text(f"{text}-outer"), **given)]
"""

DRIP = """
import asyncio
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.drip")
async def drip(text: Text, seconds: float = 0.0) -> AsyncIterator[str]:
    for word in text.split():
        await asyncio.sleep(seconds)
        yield word
"""

DIE = """
import asyncio, os, signal, time
from pathlib import Path
from trivium import Text, function

@function("text.die")
async def die(text: Text, marks: str) -> str:
    with Path(marks).open("a") as file:
        file.write(f"{text} {time.time() * 1e3:.3f}\\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return text
"""

MARKS = Option(name="marks", schema={"type": "string"}, required=True)
_SECONDS = Option(name="seconds", schema={"type": "number"}, default=0.0)
_FAIL = Option(name="fail", schema={"type": "boolean"}, default=False)
TEXT = (Input(name="text", kind="text"),)


def zoo(folder: Path) -> Path:
    """Make the bundles of functions that leave marks."""
    for source, entry, options, more in (
        (MARK, "mark", (MARKS, _SECONDS, _FAIL), {}),
        (WALK, "walk", (MARKS, _SECONDS), {"asks": True}),
        (NEST, "nest", (MARKS, _SECONDS), {"asks": True}),
        (DRIP, "drip", (_SECONDS,), {"streams": True}),
        (DIE, "die", (MARKS,), {}),
    ):
        made = toys.manifest(f"text.{entry}", entry, options=options, inputs=TEXT, **more)  # type: ignore[arg-type]
        toys.bundle(folder, source, made)
    return folder


class Site:
    """A store, bundles, and workers that come and go."""

    def __init__(self, folder: Path, url: str, **settings: Any) -> None:
        self.marks = folder / "marks"
        self.marks.touch()
        self.settings = Settings(
            bundles=(zoo(folder / "zoo"),),
            keys=("key",),
            trust=(toys.keys(),),
            redis_url=url,
            **{"redelivery": 1.0, **settings},
        )

    def environ(self) -> dict[str, str]:
        """Return the settings as a server or worker reads them."""
        mine = self.settings
        return {
            "TRIVIUM_REDIS_URL": mine.redis_url,
            "TRIVIUM_CLOUD_BUNDLES": str(mine.bundles[0]),
            "TRIVIUM_CLOUD_TRUST": str(mine.trust[0]),
            "TRIVIUM_CLOUD_KEYS": ",".join(mine.keys),
            "TRIVIUM_CLOUD_REDELIVERY": str(mine.redelivery),
            "TRIVIUM_CLOUD_CONCURRENCY": str(mine.concurrency),
            "TRIVIUM_CLOUD_TASK_KEEP": str(mine.task_keep),
            "TRIVIUM_CLOUD_WEBHOOK_SECRET": mine.webhook_secret,
            "TRIVIUM_CLOUD_WORKER_LISTEN": mine.worker_listen,
            "TRIVIUM_CLOUD_DEVELOPMENT": "1" if mine.development else "",
        }

    def worker(self) -> Child:
        """Return a worker that is to be started."""
        return Child("worker", [sys.executable, "-m", "trivium_cloud.worker"], self.environ())

    @contextlib.asynccontextmanager
    async def tasks(self) -> AsyncIterator[Tasks]:
        """Accept tasks, as the cloud does."""
        tasks = Tasks(self.settings)
        async with tasks.running():
            yield tasks

    def ask(self, function: str, text: str, **options: Any) -> Ask:
        """Return an ask whose function leaves its marks here."""
        if function != "text.drip":
            options["marks"] = str(self.marks)
        return Ask(function=function, inputs={"text": text}, options=options)

    def begun(self) -> list[tuple[str, float]]:
        """Return what was begun, and when in ms."""
        lines = self.marks.read_text().splitlines()
        return [(line.split()[0], float(line.split()[1])) for line in lines]

    async def repeated(self, tasks: Tasks, task: Task, text: str) -> int:
        """Return how often a finished step of the task with this text was begun again."""
        done: dict[str, float] = {}
        async for event in tasks.events(CALLER, task.task_id):
            said = msgspec.json.decode(msgspec.json.encode(event.data))
            if event.event == "step" and said["status"] == "done":
                step = said["name"].rpartition("/")[2].replace("text.mark", "first")
                done[f"{text}-{step}"] = float(event.id.partition("-")[0])
        return sum(when > done.get(mark, when) + 1 for mark, when in self.begun())


async def until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until something holds."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"this did not happen: {what}"
        await asyncio.sleep(0.02)
