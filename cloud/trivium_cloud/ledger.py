"""How is a task written down, so that none is lost and nothing finished is done twice?

Each change is one script in the Redis, which first looks whether the task has ended, and whether
the worker that writes is the one that has it: what a worker says that was taken for dead is not
believed. A task's tenant comes right after its kind, as a digest. Large inputs are written before
their task, and stay as long as that is open.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
from msgspec.structs import replace
from redis import exceptions

from trivium.contract import JSON, Answer, Ask, Blob, Fault, Problem, decode, encode
from trivium.errors import BudgetError, Conflict, NotFound, QuotaExceeded, RunFailed, TierError
from trivium.hosts.server import masking
from trivium.hosts.server.task import Event, StepState, Task
from trivium.nouns import Noun
from trivium.run import weigh
from trivium.trace import Tracer

from .store import connect, key

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 1 << 16
"""Bytes above which an input is kept beside the task, and not in its record."""

BESIDE_S = 60
"""How long such an input stays for which no task came."""

MOST_SECONDS = 86_400
"""The longest a task may be given."""

MOST_EVENTS = 5_000
"""So many of a task's events are kept, the last ones."""

LATE_MS = 2_000.0
"""So much after its deadline a task has expired, whether or not its worker has said so."""

AWAY = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    # It was started anew between being told a script and doing it.
    exceptions.NoScriptError,
)
"""What passes when the Redis is back, has loaded, or has room again."""

UNCLAIMED = key("unclaimed")
"""Which tasks no worker has had yet, and since when: whoever accepted one may have died before it
was queued."""

COUNTS = key("counts")
"""How many tasks came into each state."""

_ID = re.compile("[0-9a-f]{32}")
_FIELDS = (
    *("status", "function", "created", "started", "ended", "deadline", "runs"),
    *("error", "keep", "tenant", "webhook", "masked", "trace", "answer"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a task is: the digest of its tenant, and its id."""

    tenant: str
    task_id: str

    @classmethod
    def of(cls, tenant: str, task_id: str) -> Place:
        """Return a tenant's place for an id; raise NotFound for what can't be one."""
        if not _ID.fullmatch(task_id):
            raise NotFound(f"there is no task {task_id[:64]!r}")
        return cls(digest(tenant.encode()), task_id)

    @classmethod
    def read(cls, text: str) -> Place:
        """Return the place that `str` gave."""
        tenant, _, task_id = text.partition("/")
        return cls(tenant, task_id)

    def __str__(self) -> str:
        return f"{self.tenant}/{self.task_id}"

    def key(self, *parts: str) -> str:
        """Return the name of the task's own record, or of a `part` of it."""
        return key("task", self.tenant, self.task_id, *parts)


class Kept(Noun, frozen=True, kw_only=True):
    """An ask as it is kept: of `large` inputs it holds the media type, and here their digests."""

    ask: Ask
    large: dict[str, str] = {}

    @classmethod
    def of(cls, ask: Ask) -> tuple[Kept, dict[str, bytes]]:
        """Return an ask as it is kept, and the bytes of its large inputs by their digests."""
        large: dict[str, str] = {}
        small: dict[str, str | Blob] = {}
        beside: dict[str, bytes] = {}
        for name, value in ask.inputs.items():
            data = value.encode() if isinstance(value, str) else value.data
            if len(data) < LARGE:
                small[name] = value
                continue
            large[name] = digest(data)
            beside[large[name]] = data
            small[name] = "" if isinstance(value, str) else replace(value, data=b"")
        return cls(ask=replace(ask, inputs=small), large=large), beside


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A task and what only those who work on it know; times in ms since 1970.

    What a `masked` one gives is masked before it is written down. `trace` is its request's.
    """

    task: Task
    tenant: str
    deadline: float
    keep: float
    webhook: str
    masked: bool
    trace: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Whether a worker has a task: if not its `status`, or `held` and the `last` sign of life."""

    status: str
    last: str
    runs: int


class Ledger:
    """All tasks in the Redis at `url`; what has ended is kept for `keep` seconds more.

    The `tracer` is told how long each waited for a worker.
    """

    def __init__(self, url: str, keep: float = 3600.0, tracer: Tracer | None = None) -> None:
        self._tracer = tracer or Tracer("cloud")
        # Its own types do not know that replies are bytes here.
        self.redis: Any = connect(url)
        self.keep = keep
        self._accept, self._claim, self._beat, self._change, self._sweep = (
            self.redis.register_script((Path(__file__).parent / f"{name}.lua").read_text())
            for name in ("accept", "claim", "beat", "change", "sweep")
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self.redis.aclose()

    async def accept(
        self,
        place: Place,
        ask: Ask,
        *,
        tenant: str,
        once: str,
        webhook: str,
        seconds: float,
        most: int,
        room: int,
        masked: bool = False,
    ) -> str:
        """Write a task down with all that it needs, and return its id.

        It is another's if the tenant sent the key `once` before, with the same content. Of one
        tenant at most `most` tasks may be open, which hold at most `room` bytes.
        """
        now = time.time() * 1e3
        deadline = now + seconds * 1e3
        if weigh(ask) < LARGE:
            kept, beside = Kept.of(ask)
        else:  # others are answered while some megabytes are hashed
            kept, beside = await asyncio.to_thread(Kept.of, ask)
        packed = encode(kept)
        content = digest(encode([replace(kept.ask, trace=""), kept.large, webhook, seconds]))
        size = len(packed) + sum(map(len, beside.values()))
        keys = [
            place.key(),
            place.key("events"),
            key("once", place.tenant, digest(once.encode())),
            key("tasks", place.tenant),
            key("open", place.tenant),
            key("held", place.tenant),
            place.key("inputs"),
            UNCLAIMED,
            COUNTS,
        ]
        args: list[str | int | float | bytes] = [
            *(place.task_id, str(place), content if once else ""),
            *(int(now), int(deadline), int(deadline + self.keep * 1e3)),
            *(most, int((MOST_SECONDS + self.keep) * 1e3), size, room, len(beside)),
        ]
        found: bytes = b""
        if beside:
            # What is refused, or known already, is not written first.
            found = await self._accept(keys=keys, args=args)
            if not found:
                async with self.redis.pipeline() as pipe:
                    pipe.hset(place.key("inputs"), mapping=beside)
                    pipe.expire(place.key("inputs"), BESIDE_S)
                    await pipe.execute()
        if not found:
            args += [
                *("status", "pending", "function", ask.function, "created", now),
                *("deadline", deadline, "keep", round(self.keep * 1e3), "tenant", tenant),
                *("webhook", webhook, "masked", int(masked), "trace", ask.trace, "ask", packed),
            ]
            found = await self._accept(keys=keys, args=args)
        if found == b"full":
            raise QuotaExceeded(
                f"{most} tasks are open, which is the most; wait for some, or cancel them",
                retry_after=5.0,
            )
        if found == b"large":
            raise QuotaExceeded(
                f"with this one of {size} bytes the open tasks would hold more than {room}, which "
                "is the most; wait for some, or cancel them",
                retry_after=5.0,
            )
        if found == b"late":
            raise TierError("writing the inputs took too long; try again", retry_after=1.0)
        known, _, same = found.decode().partition(" ")
        if same and same != content:
            raise Conflict(
                "this idempotency key was used for another request; a new request needs a new key"
            )
        return known

    async def ask(self, place: Place) -> Ask:
        """Return what is asked; raise NotFound if the task has ended."""
        found = await self.redis.hget(place.key(), "ask")
        if found is None:
            raise NotFound(f"task {place.task_id} has ended")
        kept = decode(found, Kept)
        inputs = dict(kept.ask.inputs)
        for name, content in kept.large.items():
            data = await self.redis.hget(place.key("inputs"), content)
            if data is None:
                raise RunFailed(f"the input {name} of task {place.task_id} is gone")
            value = inputs[name]
            inputs[name] = data.decode() if isinstance(value, str) else replace(value, data=data)
        return replace(kept.ask, inputs=inputs)

    async def read(self, place: Place, *, brief: bool = False) -> Record:
        """Return a task as it stands, if `brief` without its answer; else raise NotFound."""
        fields = _FIELDS[:-1] if brief else _FIELDS
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hmget(place.key(), fields)
            pipe.hvals(place.key("steps"))
            found, steps = await pipe.execute()
        given = dict(zip(fields, found, strict=True))
        if given["status"] is None:
            raise NotFound(f"there is no task {place.task_id}")
        deadline, keep = float(given["deadline"]), float(given["keep"])
        ended = float(given["ended"] or 0)
        task = Task(
            task_id=place.task_id,
            status=given["status"].decode(),
            function=given["function"].decode(),
            created=stamp(float(given["created"])),
            deadline=stamp(deadline),
            expires=stamp((ended or deadline) + keep),
            started=given["started"] and stamp(float(given["started"])),
            ended=stamp(ended) if ended else None,
            runs=int(given["runs"] or 0),
            steps=tuple(decode(each, StepState) for each in steps),
            answer=decode(given["answer"], Answer) if given.get("answer") else None,
            error=given["error"] and Problem.of(decode(given["error"], Fault)),
        )
        return Record(
            task=task,
            tenant=given["tenant"].decode(),
            deadline=deadline,
            keep=keep,
            webhook=given["webhook"].decode(),
            masked=given["masked"] == b"1",
            trace=(given["trace"] or b"").decode(),
        )

    async def seen(self, place: Place, *, brief: bool = False) -> Task:
        """Return a task as its caller sees it: one whose time is over has expired."""
        record = await self.read(place, brief=brief)
        if not record.task.final and time.time() * 1e3 > record.deadline + LATE_MS:
            begun = record.task.runs > 0
            if await self.end(place, "expired", error=overdue(record, begun=begun)) and not begun:
                self.waited(record, "expired")
            record = await self.read(place, brief=brief)
        return record.task

    def waited(self, record: Record, state: str) -> None:
        """Add to a task's trace how long it was pending, and for which `state` it was no more."""
        name, said = record.task.function, {"trivium.state": state}
        with self._tracer.span(f"pending {name}", record.trace, **said) as span:
            span.began(max(0, time.time_ns() - round(_ms(record.task.created) * 1e6)))

    async def newest(self, tenant: str, after: str, most: int) -> list[Place]:
        """Return where a tenant's tasks are, newest first, from the one `after` another on."""
        listing, begin = key("tasks", tenant), 0
        if after:
            rank = await self.redis.zrevrank(listing, after)
            if rank is None:
                raise NotFound(f"there is no task {after!r} to go on after")
            begin = rank + 1
        found = await self.redis.zrevrange(listing, begin, begin + most - 1)
        return [Place(tenant, each.decode()) for each in found]

    async def claim(self, place: Place, token: str, seen: str = "") -> Claim:
        """Take a task for the worker `token`; `seen` is the last sign of one that is dead."""
        status, last, runs = await self._claim(
            keys=[place.key(), place.key("events"), UNCLAIMED, COUNTS],
            args=[token, seen, int(time.time() * 1e3), str(place), MOST_EVENTS],
        )
        return Claim(status.decode(), last.decode(), runs)

    async def unclaimed(self, seconds: float) -> list[Place]:
        """Return some tasks that no worker has had for so long: maybe nobody has queued them."""
        found = await self._sweep(
            keys=[UNCLAIMED], args=[int(time.time() * 1e3), round(seconds * 1e3)]
        )
        return [Place.read(each.decode()) for each in found]

    async def beat(self, place: Place, token: str) -> str:
        """Give a sign of life; return why the task is no longer the worker's, or nothing."""
        found: bytes = await self._beat(keys=[place.key()], args=[token])
        return found.decode()

    async def release(self, place: Place, token: str) -> str:
        """Give a task back that this worker will not finish; it does not count as begun.

        Return why it is not the worker's any more, or nothing.
        """
        fields: dict[str, str | bytes | float] = {"status": "pending", "owner": ""}
        return await self.change(place, token, fields, event=("state", state("pending")))

    async def end(
        self,
        place: Place,
        status: str,
        token: str = "",
        *,
        answer: Answer | None = None,
        error: Fault | None = None,
    ) -> bool:
        """End a task; return whether it had not ended before, and was the worker's."""
        fields: dict[str, str | bytes | float] = {"status": status, "ended": time.time() * 1e3}
        if answer is not None:
            fields["answer"] = encode(answer)
        if error is not None:
            # It may quote what was sent, and is kept for longer.
            fields["error"] = encode(replace(error, message=masking.current().text(error.message)))
        return not await self.change(place, token, fields, event=("state", state(status)))

    async def change(
        self,
        place: Place,
        token: str = "",
        fields: Mapping[str, str | bytes | float] | None = None,
        *,
        step: StepState | None = None,
        found: bytes = b"",
        event: tuple[str, bytes] = ("", b""),
    ) -> str:
        """Write what has happened, and tell of it; return why it was not believed, or nothing.

        Without a `token` it is nobody's in particular. What a `step` has `found` is kept.
        """
        given = [part for pair in (fields or {}).items() for part in pair]
        said: bytes = await self._change(
            keys=[
                place.key(),
                place.key("steps"),
                place.key("found"),
                place.key("events"),
                key("open", place.tenant),
                key("held", place.tenant),
                place.key("inputs"),
                UNCLAIMED,
                COUNTS,
            ],
            args=[
                token,
                str(place),
                int(time.time() * 1e3),
                MOST_EVENTS,
                *event,
                step.name if step else "",
                encode(step) if step else b"",
                found,
                *given,
            ],
        )
        return said.decode()

    async def finished(self, place: Place, name: str) -> bytes | None:
        """Return what a step found in this run or an earlier one, or none."""
        found: bytes | None = await self.redis.hget(place.key("found"), name)
        return found

    async def tried(self, place: Place) -> int:
        """Return how often it was tried to tell of the task's end, now included."""
        async with self.redis.pipeline() as pipe:
            pipe.hincrby(place.key(), "tries", 1)
            pipe.pexpire(place.key(), round(self.keep * 1e3), nx=True)
            tries: int = (await pipe.execute())[0]
        return tries

    async def events(self, place: Place, after: str, most: int = 100) -> list[Event]:
        """Return what happened after an event, oldest first."""
        found = await self.redis.xrange(
            place.key("events"), f"({after}" if after else "-", "+", most
        )
        return [_event(*each) for each in found]

    async def last(self, place: Place) -> str:
        """Return the id of the last event, or nothing."""
        found = await self.redis.xrevrange(place.key("events"), count=1)
        return found[0][0].decode() if found else ""


def overdue(record: Record, *, begun: bool) -> Fault:
    """Return why a task has expired."""
    given = round((record.deadline - _ms(record.task.created)) / 1e3)
    said = "was not done" if begun else "was not begun"
    return Fault.of(BudgetError(f"the task {said} within its {given} s"))


@contextlib.contextmanager
def reaching() -> Iterator[None]:
    """Tell a caller plainly if the Redis is away."""
    try:
        yield
    except AWAY as error:
        raise TierError("the tasks' store does not answer; try again", retry_after=1.0) from error


async def surely(call: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs) -> T:
    """Return what `call` gives, as soon as the Redis is there to give it."""
    while True:
        try:
            return await call(*args, **named)
        except AWAY:
            await asyncio.sleep(0.1)


def digest(data: bytes) -> str:
    """Return a name for what a caller chose, or sent: nothing else of it becomes a key."""
    return hashlib.sha256(data).hexdigest()[:40]


def state(status: str) -> bytes:
    """Return an event's data for a new status."""
    return encode({"status": status}, JSON)


def stamp(ms: float) -> str:
    """Return a time in ms since 1970 as ISO 8601."""
    return datetime.fromtimestamp(ms / 1e3, UTC).isoformat(timespec="milliseconds")


def _ms(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1e3


def _event(name: bytes, fields: Mapping[bytes, bytes]) -> Event:
    return Event(
        id=name.decode(),
        event=fields[b"event"].decode(),  # type: ignore[arg-type] # we wrote it
        data=msgspec.Raw(fields[b"data"]),
    )
