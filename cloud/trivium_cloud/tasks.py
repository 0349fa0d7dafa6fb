"""How is an ask accepted that nobody need wait for, and how is it asked after?"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from docket import Docket
from msgspec.structs import replace

from trivium.contract import Ask, decode, encode
from trivium.errors import BadInput, NotFound, QuotaExceeded, TierError, Unauthenticated
from trivium.hosts.server import web
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.task import Event, Task
from trivium.nouns import Noun
from trivium.trace import Tracer

from . import webhooks
from .ledger import MOST_SECONDS, Ledger, Place, digest, reaching
from .listeners import Listeners, Told
from .queue import RUN, TELL, queue
from .quotas import REFUSED
from .settings import Settings
from .store import key
from .waiting import Waiting

SECONDS = 3600.0
"""How long a task may take that does not say so."""

MOST_OPEN = 10_000
"""So many of a tenant's tasks may wait or run, where neither it nor its key may have fewer."""

MOST_HELD = 1 << 30
"""And so many bytes may they hold."""

TICKET_S = 30
"""How long a ticket is good, once."""

SAFE_S = 5.0
"""So much after its deadline somebody is told of a task's end at the latest, if nobody did."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")


class Listing(Noun, frozen=True, kw_only=True):
    """Some of a tenant's tasks, newest first, without their answers.

    Further ones come `after` the id `next`, if there is one.
    """

    tasks: tuple[Task, ...]
    next: str | None = None


class Bearer(Noun, frozen=True, kw_only=True):
    """For whom a ticket was written, and for which task."""

    tenant: str
    subject: str
    masked: bool
    task_id: str


@dataclass(frozen=True, slots=True)
class Open:
    """What tasks are kept in, once the server runs."""

    ledger: Ledger
    queue: Docket
    listeners: Listeners


class Tasks:
    """All tasks of this installation, as their callers may see and change them.

    Raises TierError if there is no Redis, or it is away. Another tenant's task is NotFound, as one
    that never was.
    """

    def __init__(self, settings: Settings, tracer: Tracer | None = None) -> None:
        self._settings = settings
        self._tracer = tracer
        self._open: Open | None = None
        self.waiting = Waiting()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take and tell of tasks until the block ends, if there is a Redis."""
        url = self._settings.redis_url
        if not url:
            yield
            return
        ledger = Ledger(url, self._settings.task_keep, self._tracer)
        listeners = Listeners(ledger, url)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(ledger.close)
            docket = await stack.enter_async_context(queue(url))
            await stack.enter_async_context(listeners.running())
            await stack.enter_async_context(self.waiting.looking(url, docket))
            self._open = Open(ledger, docket, listeners)
            stack.callback(lambda: setattr(self, "_open", None))
            yield

    @property
    def open(self) -> Open:
        """Return what tasks are kept in."""
        if self._open is None:
            raise TierError("tasks need a Redis or Valkey; TRIVIUM_REDIS_URL names none")
        return self._open

    async def accept(
        self,
        caller: Caller,
        ask: Ask,
        *,
        idempotency: str = "",
        webhook: str = "",
        seconds: float | None = None,
    ) -> Task:
        """Return a new task, once all of it is written; the same one for the same `idempotency`.

        It may take `seconds`. Raises Conflict if that key stood for another ask, QuotaExceeded if
        too many of the tenant's tasks are open, or they hold too much.
        """
        caller.check("tasks")
        here, limits = self.open, self._settings.limits
        seconds = SECONDS if seconds is None else seconds
        if not 0 < seconds <= MOST_SECONDS:
            raise BadInput(f"a task may take from 0 to {MOST_SECONDS} s, not {seconds:.9g}")
        if idempotency and not _KEY.fullmatch(idempotency):
            raise BadInput("an idempotency key has at most 255 printable characters of ASCII")
        if webhook:
            webhooks.check(webhook, self._settings)
        with reaching(), _counted():
            place = Place.of(caller.tenant, secrets.token_hex(16))
            task_id = await here.ledger.accept(
                place,
                ask,
                tenant=caller.tenant,
                once=idempotency,
                webhook=webhook,
                seconds=seconds,
                most=min(filter(None, (limits.tasks, caller.limits.tasks, MOST_OPEN))),
                room=min(filter(None, (limits.held, caller.limits.held, MOST_HELD))),
                masked=caller.masked,
            )
            place = Place(place.tenant, task_id)
            task = await here.ledger.seen(place)
            if webhook and not task.final:
                # Whatever happens to whoever ends it, somebody is told.
                late = datetime.fromisoformat(task.deadline) + timedelta(seconds=SAFE_S)
                await here.queue.add(TELL, when=late, key=f"{TELL}-{task_id}")(str(place))
            if task.status == "pending":
                # Also if it was known: whoever accepted it then may have died before this.
                await here.queue.add(RUN, key=task_id)(str(place))
            return await _shown(task, caller)

    async def get(self, caller: Caller, task_id: str) -> Task:
        """Return a task as it stands."""
        caller.check("tasks")
        with reaching():
            task = await self.open.ledger.seen(Place.of(caller.tenant, task_id))
        return await _shown(task, caller)

    async def list(self, caller: Caller, after: str = "", most: int = 50) -> Listing:
        """Return the tenant's tasks that are older than the one with the id `after`."""
        caller.check("tasks")
        ledger, tasks = self.open.ledger, []
        with reaching():
            tenant = digest(caller.tenant.encode())
            found = await ledger.newest(tenant, after, most + 1)
            for place in found[:most]:
                with contextlib.suppress(NotFound):  # it was forgotten meanwhile
                    tasks.append(await ledger.seen(place, brief=True))
        further = found[most - 1].task_id if len(found) > most else None
        return Listing(tasks=tuple(tasks), next=further)

    async def wait(self, caller: Caller, task_id: str, seconds: float) -> Task:
        """Return a task when it has ended, or as it stands after so many seconds."""
        task = await self.get(caller, task_id)
        if not task.final and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for _ in self.events(caller, task_id):
                        pass
            task = await self.get(caller, task_id)
        return task

    async def events(self, caller: Caller, task_id: str, after: str = "") -> AsyncIterator[Event]:
        """Yield what happened to a task after the event with the id `after`, until its end."""
        async for told in self.follow(caller, task_id, after):
            yield told.event

    async def follow(
        self, caller: Caller, task_id: str, after: str = ""
    ) -> AsyncGenerator[Told, None]:
        """Yield events as they are sent; the first once the task is known to be the caller's."""
        caller.check("tasks")
        place = Place.of(caller.tenant, task_id)
        with reaching():
            await self.open.ledger.seen(place)
        async with contextlib.aclosing(self.open.listeners.follow(place, after)) as told:
            with reaching():
                async for each in told:
                    if not caller.masked:
                        yield each
                    elif isinstance(each.event.data, Task):
                        data = await _shown(each.event.data, caller)
                        yield Told(replace(each.event, data=data))
                    elif each.event.event != "part":
                        # A name may begin in one part and end in the next.
                        yield each

    async def told(self, caller: Caller, task_id: str, event: str) -> bool:
        """Return whether nothing happened to a task after an event."""
        with reaching():
            place = Place.of(caller.tenant, task_id)
            return bool(event) and not await self.open.ledger.events(place, event, 1)

    async def cancel(self, caller: Caller, task_id: str) -> Task:
        """End a task, and what is done for it; one that has ended stays as it is."""
        caller.check("tasks")
        here, place = self.open, Place.of(caller.tenant, task_id)
        with reaching():
            record = await here.ledger.read(place)
            if await here.ledger.end(place, "cancelled"):
                if record.task.status == "pending":
                    here.ledger.waited(record, "cancelled")
                if record.webhook:
                    await here.queue.replace(TELL, when=datetime.now(UTC), key=f"{TELL}-{task_id}")(
                        str(place)
                    )
                await here.queue.cancel(task_id)
            return await _shown(await here.ledger.seen(place), caller)

    async def ticket(self, caller: Caller, task_id: str) -> str:
        """Return what lets its bearer hear of a task, once and soon."""
        task = await self.get(caller, task_id)
        ticket = secrets.token_urlsafe(24)
        bearer = Bearer(
            tenant=caller.tenant,
            subject=caller.subject,
            masked=caller.masked,
            task_id=task.task_id,
        )
        with reaching():
            await self.open.ledger.redis.set(
                key("ticket", digest(ticket.encode())), encode(bearer), ex=TICKET_S
            )
        return ticket

    async def redeem(self, ticket: str, task_id: str) -> Caller:
        """Return for whom a ticket was written; raise Unauthenticated if it is good no more."""
        with reaching():
            found: Any = await self.open.ledger.redis.getdel(key("ticket", digest(ticket.encode())))
        bearer = decode(found, Bearer) if found else None
        if bearer is None or bearer.task_id != task_id:
            raise Unauthenticated("the ticket was used, is too old or of another task")
        return Caller(
            tenant=bearer.tenant,
            subject=bearer.subject,
            scopes=frozenset({"tasks"}),
            masked=bearer.masked,
        )


@contextlib.contextmanager
def _counted() -> Iterator[None]:
    try:
        yield
    except QuotaExceeded:
        REFUSED.labels("tenant", "tasks").inc()
        raise


async def _shown(task: Task, caller: Caller) -> Task:
    """Return a task as this caller may see it."""
    if task.answer is None or not caller.masked:
        return task
    return replace(task, answer=await web.masked(task.answer))
