"""How is a task done, by a process that may be killed at any moment?

`python -m trivium_cloud.worker` does tasks until it is told to stop; there may be many, anywhere.
Each finished step is written down before the next begins, so that who goes on after a death repeats
none. Only the worker that has a task is believed: it gives signs of life, and one that gives none
for long enough has it no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace as changed
from datetime import UTC, datetime, timedelta

import docket
import uvicorn
import uvloop
from docket import CurrentExecution, Docket, Execution
from litestar import Litestar
from msgspec.structs import replace
from redis.exceptions import RedisError

from trivium.contract import JSON, Answer, Fault, Part, decode, encode
from trivium.errors import Cancelled, NotFound, RunFailed, TriviumError
from trivium.hosts.server import logs, web
from trivium.hosts.server.access import Access, Keys
from trivium.hosts.server.beside import beside, stop
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.server import Server
from trivium.hosts.server.task import StepState
from trivium.hosts.server.upstream import UNSENDABLE
from trivium.kinds import Audio, Image
from trivium.nouns import Noun
from trivium.run import Step, closing
from trivium.tensors import Tensor
from trivium.trace import Span

from .cache import Cache
from .ledger import AWAY, Claim, Ledger, Place, Record, digest, overdue, surely
from .opening import opened
from .queue import RUN, TELL, queue
from .settings import Settings
from .webhooks import Teller

MOST_RUNS = 5
"""A task that was begun so often without an end has ended its workers itself."""

ALONE = 2
"""One that was begun so often is done while no other such one is, so that it takes none with it."""

GRACE_S = 4.0
"""How long a worker that is to stop goes on with what it does; the rest it gives back."""

STOP_S = 2.0
"""How long the queue may then take to end."""

EXECUTION = CurrentExecution()

log = logging.getLogger("trivium.worker")


class Kept(Noun, frozen=True, kw_only=True):
    """What a step found, and what it was asked."""

    asked: str
    answer: Answer


class Book:
    """The journal of one task: what its steps found, in the ledger."""

    def __init__(self, ledger: Ledger, place: Place, token: str) -> None:
        self._ledger = ledger
        self._place = place
        self._token = token
        self._begun: dict[str, float] = {}

    async def recall(self, name: str, step: Step) -> Answer | None:
        """Return what a step found before, if it asked the same."""
        found = await surely(self._ledger.finished, self._place, name)
        kept = decode(found, Kept) if found else None
        return kept.answer if kept is not None and kept.asked == _asked(step) else None

    async def began(self, name: str, step: Step) -> None:  # noqa: ARG002 # it may want to know
        """Tell that a step is being done."""
        self._begun[name] = time.monotonic()
        await self._write(StepState(name=name, status="running"))

    async def ended(self, name: str, step: Step, found: Answer | TriviumError) -> None:
        """Write down what a step found, so that it is not done again."""
        ms = round((time.monotonic() - self._begun.pop(name, time.monotonic())) * 1e3, 3)
        if isinstance(found, Answer):
            kept = encode(Kept(asked=_asked(step), answer=found))
            await self._write(StepState(name=name, status="done", ms=ms), kept)
        elif not isinstance(found, Cancelled):
            await self._write(StepState(name=name, status="failed", ms=ms))

    async def part(self, part: Part) -> None:
        """Tell of a piece of the output."""
        await self._write(event=("part", encode({"output": part.output}, JSON)))

    async def _write(
        self,
        step: StepState | None = None,
        found: bytes = b"",
        event: tuple[str, bytes] | None = None,
    ) -> None:
        event = event or ("step", encode(step, JSON))
        change = self._ledger.change
        why = await surely(change, self._place, self._token, step=step, found=found, event=event)
        if why:
            raise Cancelled(f"the task is no longer this worker's: {why}")


class Work:
    """What one worker process does."""

    def __init__(
        self, settings: Settings, server: Server, ledger: Ledger, teller: Teller, cache: Cache
    ) -> None:
        self._settings = settings
        self._server = server
        self._ledger = ledger
        self._teller = teller
        self._cache = cache
        self._beat_s = settings.redelivery / 4
        self._name = f"{socket.gethostname()}#{os.getpid()}"
        self._alone = asyncio.Lock()
        self._active: set[asyncio.Task[None]] = set()
        self.docket: Docket | None = None

    async def run(self, place: str, execution: Execution = EXECUTION) -> None:
        """Do the task at `place`, from where it is."""
        current = asyncio.current_task()
        assert current is not None
        self._active.add(current)
        where = Place.read(place)
        token = f"{self._name}#{execution.message_id!r}#{time.monotonic_ns()}"
        try:
            record = await surely(self._ledger.read, where)
            async with contextlib.AsyncExitStack() as stack:
                if record.task.runs >= ALONE and not record.task.final:
                    await stack.enter_async_context(self._alone)
                claim = await self._claim(where, token)
                if not claim.status:
                    await self._do(where, token, record, claim.runs)
            if record.webhook:
                await self._tell_later(where)
        except NotFound:
            return  # it was forgotten long ago
        except asyncio.CancelledError:
            # Cancelled by its caller, then it has ended; or this process stops.
            with contextlib.suppress(*AWAY):
                await self._ledger.release(where, token)
                await self._hand_back(execution)
            raise
        finally:
            self._active.discard(current)

    async def tell(self, place: str) -> None:
        """Tell somebody of a task's end."""
        assert self.docket is not None
        await self._teller.tell(self.docket, Place.read(place))

    async def sweep(self) -> None:
        """Queue what was accepted by somebody who died before it was queued, for ever."""
        every = self._settings.redelivery
        assert self.docket is not None
        while True:
            await asyncio.sleep(every)
            with contextlib.suppress(RedisError, OSError):  # then the next time
                for place in await self._ledger.unclaimed(every):
                    # What only waits for its turn is on the queue already, and stays there once.
                    await self.docket.add(RUN, key=place.task_id)(str(place))

    async def _claim(self, place: Place, token: str) -> Claim:
        """Take the task, as soon as whoever had it gives no sign of life any more."""
        seen, last, since = "", "", 0.0
        while True:
            claim = await surely(self._ledger.claim, place, token, seen)
            if claim.status != "held":
                return claim
            if claim.last != last:
                last, since = claim.last, time.monotonic()
            await asyncio.sleep(self._beat_s / 2)
            # By this process's own clock: while the Redis is away nobody can give a sign.
            seen = last if time.monotonic() - since >= 2.5 * self._beat_s else ""

    async def _do(self, place: Place, token: str, record: Record, runs: int) -> None:
        """Do it, under spans of its states: how long it was pending, and how long it runs."""
        if runs == 1:
            self._ledger.waited(record, "running")
        said, tracer = {"trivium.runs": runs}, self._server.engine.tracer
        with tracer.span(f"running {record.task.function}", record.trace, **said) as span:
            web.TRACE.set(span.trace_id)
            record, state = changed(record, trace=span.header), "lost"
            try:
                state = await self._done(place, token, record, runs)
            except asyncio.CancelledError:
                state = "pending"
                with contextlib.suppress(*AWAY):
                    state = await self._ledger.release(place, token) or state
                raise
            finally:
                span.attributes["trivium.state"] = state

    async def _done(self, place: Place, token: str, record: Record, runs: int) -> str:
        """Do it, write down how it ended, and return that."""
        if runs > MOST_RUNS:
            error = RunFailed(f"the task's worker died {MOST_RUNS} times while it was done")
            await self._end(place, "failed", token, error=Fault.of(error))
            return "failed"
        work = asyncio.ensure_future(self._answer(place, token, record))
        try:
            while not work.done():
                left = record.deadline / 1e3 - time.time()
                if left <= 0:
                    await self._end(place, "expired", token, error=overdue(record, begun=True))
                    return "expired"
                await asyncio.wait({work}, timeout=min(left, self._beat_s))
                if not work.done() and (why := await surely(self._ledger.beat, place, token)):
                    return why  # it has ended, or is another's
        finally:
            if not work.done():
                await stop(work)
        try:
            answer = work.result()
            await self._end(place, "done", token, answer=answer)
            return "done"
        except TriviumError as error:
            await self._end(place, "failed", token, error=Fault.of(error))
        except Exception as error:  # a task must end, whatever its function's engine raises
            log.exception("task %s failed unforeseen", place.task_id)
            fault = RunFailed(f"an internal error; it was logged: {type(error).__name__}")
            await self._end(place, "failed", token, error=Fault.of(fault))
        return "failed"

    async def _answer(self, place: Place, token: str, record: Record) -> Answer:
        engine, book = self._server.engine, Book(self._ledger, place, token)
        caller = Caller(tenant=record.tenant, masked=record.masked)
        ask = replace(await surely(self._ledger.ask, place), trace=record.trace)
        versions = engine.functions.get(ask.function, {})
        streams = any(function.schema.streams for function in versions.values())
        answer = None
        if not streams:
            answer = await self._cache.infer(caller, ask, journal=book)
        else:
            journal = self._cache.journal(caller, ask, book)
            async with closing(engine.stream(ask, journal=journal)) as parts:
                async for part in parts:
                    if isinstance(part, Fault):
                        raise part.error()
                    if isinstance(part, Answer):
                        answer = part
                    elif not record.masked:  # a name may begin in one part and end in the next
                        await book.part(part)
        assert answer is not None
        if record.masked:
            answer = await web.masked(answer)
        try:
            encode(answer)
        except UNSENDABLE as error:
            raise RunFailed(f"{ask.function} returned what can't be sent: {error}") from error
        return answer

    async def _end(
        self,
        place: Place,
        status: str,
        token: str,
        *,
        answer: Answer | None = None,
        error: Fault | None = None,
    ) -> None:
        await surely(self._ledger.end, place, status, token, answer=answer, error=error)

    async def _tell_later(self, place: Place) -> None:
        """Have somebody told, by whichever worker; until then the task is not off the queue."""
        docket, key = self.docket, f"{TELL}-{place.task_id}"
        assert docket is not None
        if not (await surely(self._ledger.seen, place)).final:
            return
        if await surely(self._ledger.redis.hexists, place.key(), "tries"):
            return  # whoever ended it has seen to that
        now = datetime.now(UTC)
        await surely(docket.replace(TELL, when=now, key=key), str(place))

    async def _hand_back(self, execution: Execution) -> None:
        """Let another worker have it now, not only when this one seems dead."""
        assert self.docket is not None
        idle = round(self._settings.redelivery * 2e3)
        async with self.docket.redis() as redis:
            await redis.xclaim(
                name=self.docket.stream_key,
                groupname=self.docket.worker_group_name,
                consumername=self._name,
                min_idle_time=0,
                message_ids=[execution.message_id or b""],
                idle=idle,
                justid=True,
            )

    async def stop(self) -> None:
        """Give back what is not done in time."""
        if self._active:
            await asyncio.wait(self._active, timeout=GRACE_S)
        for task in self._active:
            task.cancel()


class Watched(uvicorn.Server):
    """Leaves signals to the worker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@contextlib.asynccontextmanager
async def watched(server: Server, settings: Settings) -> AsyncIterator[None]:
    """Show what the worker counts, at the address that the settings name, if they do."""
    host, _, port = settings.worker_listen.rpartition(":")
    if not port:
        yield
        return
    admit = Access(settings.access, Keys(settings.keys))
    app = Litestar(
        [server.metrics.route(admit)],
        exception_handlers={Exception: web.refuse},
        openapi_config=None,
        logging_config=None,
    )
    config = uvicorn.Config(
        app,
        host=host or "127.0.0.1",
        port=int(port),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    made = Watched(config)
    serving = asyncio.ensure_future(made.serve())
    try:
        yield
    finally:
        made.should_exit = True
        await asyncio.wait({serving}, timeout=STOP_S)


@contextlib.asynccontextmanager
async def working(
    settings: Settings, emit: Callable[[Span], None] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """Do tasks until the block ends; what it gives runs for ever."""
    server, spans = opened(settings, emit, "worker")
    ledger = Ledger(settings.redis_url, settings.task_keep, server.engine.tracer)
    teller = Teller(ledger, settings)
    cache = Cache(server, settings)
    work = Work(settings, server, ledger, teller, cache)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(ledger.close)
        stack.push_async_callback(teller.close)
        stack.push_async_callback(cache.close)
        await stack.enter_async_context(server.running(spans))
        await stack.enter_async_context(watched(server, settings))
        work.docket = await stack.enter_async_context(
            queue(settings.redis_url, **{RUN: work.run, TELL: work.tell})
        )
        worker = await stack.enter_async_context(
            docket.Worker(
                work.docket,
                concurrency=settings.concurrency,
                redelivery_timeout=timedelta(seconds=settings.redelivery),
                reconnection_delay=timedelta(seconds=0.5),
                minimum_check_interval=timedelta(milliseconds=50),
                schedule_automatic_tasks=False,
                message_batch=settings.concurrency,
            )
        )
        running = asyncio.ensure_future(worker.run_forever())
        try:
            async with beside(work.sweep()):
                yield running
        finally:
            running.cancel()
            await work.stop()
            # It writes down what has ended; only one that missed its cancellation needs another.
            await asyncio.wait({running}, timeout=STOP_S)
            await stop(running)


async def main(settings: Settings) -> None:
    """Do tasks until a signal says to stop."""
    logs.configure(os.environ, "worker")
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with working(settings) as running:
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if running.done():
            running.result()


def _asked(step: Step) -> str:
    """Return what tells whether a step asks the same as one before."""
    held = [
        (name, tensor.shape, bytes(tensor.data))
        for name, value in sorted(step.held.items())
        if isinstance(tensor := _tensor(value), Tensor)
    ]
    return digest(encode([step.function, step.version, step.inputs, step.options, held]))


def _tensor(value: object) -> object:
    if isinstance(value, Image):
        return value.pixels
    return value.samples if isinstance(value, Audio) else None


if __name__ == "__main__":
    found = Settings.from_env(os.environ)
    if not found.redis_url:
        sys.exit("a worker needs a Redis: set TRIVIUM_REDIS_URL")
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(main(found))
