"""How do many hear at once what happens to tasks, over one connection to the Redis?

A notice says no more than that there is something new; it is then read once for all who listen, and
nobody misses anything if a notice is lost, or the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
from redis.asyncio import Redis

from trivium.contract import JSON, Problem, encode
from trivium.errors import NotFound, TierOverloaded, TriviumError
from trivium.hosts.server.beside import beside, stop
from trivium.hosts.server.task import FINAL, Event

from .ledger import AWAY, Ledger, Place
from .store import key

MOST_WAITING = 256
"""So many events may wait for one listener; one that takes no more is given up."""

LOOK_S = 15.0
"""How often a task is looked at of which nothing is heard: it may have expired."""

ALIVE = key("told")

log = logging.getLogger("trivium.listeners")


class Told:
    """An event, and how it is sent, which is worked out once for all who hear of it."""

    def __init__(self, event: Event) -> None:
        self.event = event

    @cached_property
    def sse(self) -> bytes:
        """Return it as a server-sent event."""
        told = self.event
        head = f"id: {told.id}\n" if told.id else ""
        return f"{head}event: {told.event}\ndata: ".encode() + encode(told.data, JSON) + b"\n\n"

    @cached_property
    def text(self) -> str:
        """Return it as a WebSocket's message."""
        return encode(self.event, JSON).decode()

    @cached_property
    def status(self) -> str:
        """Return the task's new status, if it says that."""
        if self.event.event != "state":
            return ""
        status: str = msgspec.json.decode(encode(self.event.data, JSON))["status"]
        return status

    @property
    def last(self) -> bool:
        """Return whether no more comes after it."""
        return self.event.event == "error" or self.status in FINAL


def refusal(error: TriviumError) -> Told:
    """Return the last event for one who hears no more of a task."""
    return Told(Event(id="", event="error", data=Problem.of(error)))


class Listener:
    """One who hears of a task, and takes it as quickly as he can."""

    def __init__(self) -> None:
        self._waiting: deque[Told] = deque()
        self._more = asyncio.Event()
        self._given_up = False

    def tell(self, told: Told) -> None:
        """Leave an event for him; if too many wait, leave only why there are no more."""
        if self._given_up:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.clear()
            self._given_up = True
            told = refusal(
                TierOverloaded(
                    f"{MOST_WAITING} events wait to be taken, the most; go on after the last one "
                    "that came",
                    retry_after=1.0,
                )
            )
        self._waiting.append(told)
        self._more.set()

    async def next(self) -> Told:
        """Return what happens next."""
        while not self._waiting:
            self._more.clear()
            await self._more.wait()
        return self._waiting.popleft()


@dataclass(eq=False)
class Topic:
    """A task of which somebody hears here; `last` is the event that was told last."""

    place: Place
    listeners: set[Listener] = field(default_factory=set)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    last: str = ""
    pump: asyncio.Task[None] | None = None

    @property
    def channel(self) -> str:
        """Return where there is word of it."""
        return key("told", str(self.place))


class Listeners:
    """All who hear of tasks in this process."""

    def __init__(self, ledger: Ledger, url: str) -> None:
        self._ledger = ledger
        # In RESP3 hiredis leaks a list for each notice: https://github.com/redis/hiredis-py/issues/235
        self._redis: Any = Redis.from_url(url, protocol=2, socket_connect_timeout=2.0)
        self._topics: dict[str, Topic] = {}
        self._notices: Any = None
        self._asking = asyncio.Lock()
        self._leaving: set[asyncio.Future[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hear of tasks until the block ends."""
        try:
            async with beside(self._hear()):
                yield
        finally:
            pumps = (topic.pump for topic in self._topics.values())
            await stop(*pumps, *self._leaving)
            await self._redis.aclose()

    async def follow(self, place: Place, after: str = "") -> AsyncGenerator[Told, None]:
        """Yield what happened to a task after an event, and what happens, until its end."""
        last = after
        listener, topic = Listener(), None
        try:
            while True:
                # Only when all that was is told does anything wait for him.
                found = await self._ledger.events(place, last)
                page = [await self._whole(place, each) for each in found]
                if not page and topic is not None:
                    break
                if not page:
                    topic = self._join(place, listener)
                    await topic.ready.wait()
                for told in page:
                    last = told.event.id
                    yield told
                    if told.last:
                        return
            while True:
                told = await listener.next()
                if told.event.id and _order(told.event.id) <= _order(last):
                    continue
                yield told
                if told.last:
                    return
        finally:
            if topic is not None:
                leaving = asyncio.ensure_future(self._leave(topic, listener))
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
                # Whoever is in a hurry does not cut it short: a subscription would stay.
                await asyncio.shield(leaving)

    def _join(self, place: Place, listener: Listener) -> Topic:
        topic = self._topics.get(str(place))
        if topic is not None:
            topic.listeners.add(listener)
        else:
            topic = self._topics[str(place)] = Topic(place, {listener})
            topic.pump = asyncio.ensure_future(self._pump(topic))
        return topic

    async def _leave(self, topic: Topic, listener: Listener) -> None:
        topic.listeners.discard(listener)
        if topic.listeners or self._topics.get(str(topic.place)) is not topic:
            return
        del self._topics[str(topic.place)]
        await stop(topic.pump)
        async with self._asking:
            with contextlib.suppress(*AWAY):
                if self._notices is not None and str(topic.place) not in self._topics:
                    await self._notices.unsubscribe(topic.channel)

    async def _hear(self) -> None:
        """Take the notices, for ever."""
        while True:
            try:
                async with self._redis.pubsub() as notices:
                    async with self._asking:
                        channels = [topic.channel for topic in self._topics.values()]
                        await notices.subscribe(ALIVE, *channels)
                        self._notices = notices
                    async for notice in notices.listen():
                        # A channel that was just joined may have had something before.
                        self._heard(notice["channel"].decode(), notice["type"])
            except Exception as error:  # without notices nobody would hear of anything
                if not isinstance(error, AWAY):
                    log.exception("notices of tasks broke off")
                await asyncio.sleep(0.2)
            finally:
                self._notices = None

    def _heard(self, channel: str, what: str) -> None:
        topic = self._topics.get(channel.removeprefix(f"{ALIVE}:"))
        if topic is not None and what in ("message", "subscribe"):
            topic.heard.set()

    async def _pump(self, topic: Topic) -> None:
        """Tell all who hear of a task what is new, for ever."""
        while True:
            try:
                if not topic.ready.is_set():
                    async with self._asking:
                        if self._notices is not None:
                            await self._notices.subscribe(topic.channel)
                    await topic.heard.wait()
                    # From here on nothing is missed: what was before they read for themselves.
                    topic.last = await self._ledger.last(topic.place)
                    topic.ready.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await topic.heard.wait()
                if not topic.heard.is_set():
                    await self._ledger.seen(topic.place)
                topic.heard.clear()
                while page := await self._ledger.events(topic.place, topic.last):
                    for event in page:
                        self._tell(topic, await self._whole(topic.place, event))
                        topic.last = event.id
            except AWAY:
                await asyncio.sleep(0.2)
            except NotFound as error:
                self._topics.pop(str(topic.place), None)
                self._tell(topic, refusal(error))
                topic.ready.set()
                return

    def _tell(self, topic: Topic, told: Told) -> None:
        for listener in topic.listeners:
            listener.tell(told)

    async def _whole(self, place: Place, event: Event) -> Told:
        """Return an event ready to be sent; the last one tells all of the task."""
        told = Told(event)
        if told.status in FINAL:
            record = await self._ledger.read(place)
            told = Told(msgspec.structs.replace(event, data=record.task))
        return told


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("-"))
