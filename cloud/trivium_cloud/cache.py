"""What was answered before, and may be given again?

Answers are kept in Redis, vectors in Memcached or there too; engines that TensorRT compiled lie on
disk (trivium.hosts.server.compiled). Nothing waits for a cache: one that is gone or slow is left
aside, and asks are answered without it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from array import array
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec
from msgspec.structs import replace

import trivium
from trivium.contract import Answer, Ask, Plan, Tier, Times
from trivium.errors import BadInput, BudgetError, TierError, TriviumError
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.server import Server
from trivium.hosts.server.upstream import UNSENDABLE
from trivium.run import Journal, Step, weigh

from . import store
from .names import Held, Name, digest
from .settings import Settings
from .shelves import MOST, Breaker, InMemcached, InRedis, Vectors, connect

LEASE_S = 2.0
"""How long one that died in the middle of an ask keeps others from it."""

BIG = 256 << 10
"""Bytes from which on hashing goes to a thread."""

# One way there and back: the entry, how long it still lives, and else the right to make it.
_LOOK = """
local found = redis.call('GET', KEYS[1])
local left = redis.call('PTTL', KEYS[1])
if found and left > tonumber(ARGV[1]) then return {found, left, 0} end
local mine = redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3])
return {found, left, mine and 1 or 0}
"""
_KEEP = """
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""


class Flight:
    """An answer on its way, and how many wait for it; `old` is what was kept of before."""

    def __init__(self) -> None:
        self.waiting = 0
        self.old: Answer | None = None
        self.task: asyncio.Future[Answer]


class Cache:
    """The answers and vectors of one server's functions; no tenant is given another's."""

    def __init__(self, server: Server, settings: Settings) -> None:
        self._server = server
        self._fresh_ms = round(1e3 * settings.cache_s)
        self._stale_ms = round(1e3 * settings.stale_s)
        self._flights: dict[str, Flight] = {}
        self._later: set[asyncio.Future[Any]] = set()
        self._breaker = Breaker("the answers' Redis")
        url = settings.cache_url or settings.redis_url
        self._redis = connect(url) if url and settings.cache_s > 0 else None
        self._vectors: Vectors | None = None
        if settings.memcached_url and settings.cache_s > 0:
            self._vectors = InMemcached(settings.memcached_url)
        elif self._redis:
            self._vectors = InRedis(self._redis)
        if self._redis:
            self._look = self._redis.register_script(_LOOK)
            self._keep = self._redis.register_script(_KEEP)
            self._renew = self._redis.register_script(_RENEW)

    async def infer(
        self, caller: Caller, ask: Ask, journal: Journal | None = None, control: str = ""
    ) -> Answer:
        """Return an answer kept of before, or the engine's, whose steps use kept vectors.

        `journal` is what is to be told of the steps, `control` the request's Cache-Control.
        """
        if "no-store" in _told(control):
            return replace(await self._server.engine.infer(ask, journal=journal), cached="bypass")
        steps = Steps(self, caller, ask, journal)

        async def run() -> Answer:
            return await self._server.engine.infer(ask, journal=steps)

        return await self.results(caller, ask, run, control, lambda: steps.whole)

    def journal(self, caller: Caller, ask: Ask, journal: Journal | None = None) -> Steps:
        """Return a Journal for one run that knows vectors of before, and tells another of all."""
        return Steps(self, caller, ask, journal)

    async def results(
        self,
        caller: Caller,
        ask: Ask,
        run: Callable[[], Awaitable[Answer]],
        control: str = "",
        whole: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Return an answer to `ask` that was kept for this tenant, or what `run` gives.

        Of equal asks at the same time one is run, by whichever process. `Answer.cached` says
        `hit`, `miss`, `stale` (kept longer than fresh, and asking failed or the ask's time ran
        out), or `bypass`: this ask has nothing to do with a cache, or there is none. What `run`
        gives is kept only if then `whole()`. Raises what `run` raises, and BudgetError.
        """
        told = _told(control)
        wanted = None
        if "no-store" not in told:
            wanted = await self._name(caller, ask, {})
        if wanted is None:
            return replace(await run(), cached="bypass")
        name, begun, ms = wanted.name, time.monotonic(), ask.budget.ms
        if told & {"no-cache", "max-age=0"}:
            answer = await run()
            if whole() and self._of(ask) == wanted.of:
                self._do(self._store(wanted, answer, ""))
            return replace(answer, cached="miss")
        with self._server.engine.tracer.span(f"cache {ask.function}", ask.trace) as span:
            while True:
                flight, mine = self._flights.get(name), False
                if flight is None:
                    flight, mine = Flight(), True
                    work = self._fly(flight, wanted, ask, run, whole)
                    flight.task = asyncio.ensure_future(work)
                    flight.task.add_done_callback(lambda task: self._landed(name, task))
                    self._flights[name] = flight
                flight.waiting += 1
                left = None if ms is None else max(0.0, ms / 1e3 - (time.monotonic() - begun))
                try:
                    async with asyncio.timeout(left) as limit:
                        answer = await asyncio.shield(flight.task)
                except TimeoutError:
                    if not limit.expired():
                        raise
                    if flight.old is None:
                        raise BudgetError(
                            f"the {ms:.4g} ms of the budget ran out", tier=Tier.CLOUD
                        ) from None
                    answer = replace(flight.old, cached="stale")
                except BudgetError:
                    if not mine:
                        continue  # whoever asked first had less time
                    raise
                finally:
                    flight.waiting -= 1
                    if not flight.waiting and not flight.task.done():
                        flight.task.cancel()
                        self._flights.pop(name, None)
                span.attributes["trivium.cached"] = answer.cached
                if answer.cached in ("hit", "stale") or not mine:
                    took = 1e3 * (time.monotonic() - begun)
                    answer = replace(
                        answer,
                        cached=answer.cached if answer.cached == "stale" else "hit",
                        ms=Times(python=took),
                        took=took,
                        expected=None,
                        spent=0.0,
                        queue=self._server.engine.queue(),
                        trace=span.header,
                    )
                return answer

    async def close(self) -> None:
        """Let the connections go."""
        for task in [*self._later, *(flight.task for flight in self._flights.values())]:
            task.cancel()
        if self._vectors:
            await self._vectors.close()
        if self._redis:
            await self._redis.aclose()

    async def _fly(
        self,
        flight: Flight,
        wanted: Name,
        ask: Ask,
        run: Callable[[], Awaitable[Answer]],
        whole: Callable[[], bool],
    ) -> Answer:
        """Return what is kept, waited for, or made now."""
        token = os.urandom(16).hex()
        if wanted.vector:
            found = await self._recall(wanted)
            if found is not None:
                return found
            holding = False
        else:
            fresh, holding = await self._claim(flight, wanted, token)
            if fresh is not None:
                return fresh
        renewing = self._do(self._renewed(wanted, token)) if holding else None
        kept: Answer | None = None
        try:
            answer = await run()
            # The bundles may have been replaced meanwhile.
            if whole() and self._of(ask) == wanted.of:
                kept = answer
        except (TierError, BudgetError) as error:
            if flight.old is None:
                raise
            reason = f"{flight.old.plan.reason}; asking failed ({error.code})"
            plan = replace(flight.old.plan, reason=reason)
            return replace(flight.old, plan=plan, cached="stale")
        finally:
            if renewing:
                renewing.cancel()
            if kept or holding:
                # Whoever asked waits for no disk.
                self._do(self._store(wanted, kept, token))
        return replace(answer, cached="miss" if holding or wanted.vector else "bypass")

    async def _claim(self, flight: Flight, wanted: Name, token: str) -> tuple[Answer | None, bool]:
        """Return a fresh answer, or whether the right to make one is ours; else the cache is gone.

        Whoever makes one holds a lease, and when that ends another takes over.
        """
        pause, corrupt = 0.004, 0
        args: list[str | int] = [self._stale_ms, token, round(1e3 * LEASE_S)]
        keys = [wanted.name, wanted.lock]
        while corrupt < 3:
            found = await self._breaker.ask(lambda: self._look(keys=keys, args=args))
            if found is None:
                return None, False
            data, left, mine = found
            old = None if data is None else wanted.read(data)
            if old is not None:
                age = (self._fresh_ms + self._stale_ms - left) / 1e3
                reason = f"an answer of {age:.1f} s ago was kept; then: {old.plan.reason}"
                old = replace(old, plan=replace(old.plan, reason=reason))
                if left > self._stale_ms:
                    return replace(old, cached="hit"), False
                flight.old = old
            if mine:
                return None, True
            if data is not None and old is None:
                corrupt += 1
                await self._breaker.ask(lambda: self._deleted(wanted))
                continue
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))  # noqa: S311 # no secret
            pause = min(0.05, 1.5 * pause)
        return None, False

    async def _renewed(self, wanted: Name, token: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._breaker.ask(
                lambda: self._renew(keys=[wanted.lock], args=[token, round(1e3 * LEASE_S)])
            )

    async def _deleted(self, wanted: Name) -> bool:
        assert self._redis is not None
        await self._redis.delete(wanted.name)
        return True

    async def _store(self, wanted: Name, answer: Answer | None, token: str) -> None:
        """Keep an answer, if there is one, and give the right to make it back."""
        if wanted.vector:
            if answer:
                await self._remember(wanted, answer)
            return
        data = b""
        if answer:
            try:
                # The trace is that of one ask alone.
                data = wanted.entry(msgspec.msgpack.encode(replace(answer, trace="")))
            except UNSENDABLE:
                data = b""
        if len(data) > MOST:
            data = b""
        args: list[str | bytes | int] = [token, data, self._fresh_ms + self._stale_ms]
        await self._breaker.ask(lambda: self._keep(keys=[wanted.name, wanted.lock], args=args))

    def _landed(self, name: str, task: asyncio.Future[Answer]) -> None:
        flight = self._flights.get(name)
        if flight is not None and flight.task is task:
            del self._flights[name]
        if not task.cancelled():
            task.exception()  # nobody may be left who would look at it

    def _do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        return task

    async def _name(self, caller: Caller, ask: Ask, held: Held) -> Name | None:
        """Return by which name the answer is kept, if it may be at all."""
        vector = _embeds(ask)
        if caller.masked:
            return None  # what is to be hidden is not written down either
        if (vector and not self._vectors) or (not vector and not self._redis):
            return None
        of = self._of(ask)
        if of is None:
            return None
        work = partial(digest, caller.tenant, ask, of, held)
        try:
            found = await asyncio.to_thread(work) if weigh(ask) > BIG else work()
        except (UnicodeEncodeError, TypeError, OverflowError):
            return None  # nothing that could be sent; who answers will say so
        if found is None:
            return None
        tenant = sha256(caller.tenant.encode()).hexdigest()[:32]
        return Name(store.key("vectors" if vector else "results", tenant, found), vector, of)

    def _of(self, ask: Ask) -> tuple[Any, ...] | None:
        """Return what an answer depends on beside its inputs; nothing if it is not to be kept."""
        bundle = self._server.bundles.get(ask.function)
        versions = self._server.engine.functions.get(ask.function, {})
        if bundle is None or ask.budget.reach != Tier.CLOUD:
            return None
        function = versions.get(bundle.manifest.version)
        if function is None or ask.version not in ("", bundle.manifest.version):
            return None
        variant, schema = function.variant, function.schema
        if variant.settings.get("cache") is False:
            return None
        try:
            options = function.options(ask.options)
        except BadInput:
            return None
        if options.get("seed", 0) is None:
            return None  # without a seed another answer is wanted each time
        # What a pipeline asks only its code knows.
        asked = [each.digest for _, each in sorted(self._server.bundles.items())]
        return (
            ask.function,
            bundle.digest,
            asked if schema.asks else (),
            (variant.tier, variant.model, trivium.__version__),
            options,
            (ask.budget.quality, ask.tiers),
        )

    async def recall(self, caller: Caller, step: Step) -> Answer | None:
        """Return a kept vector as the answer of a step."""
        wanted = await self._name(caller, step, step.held) if _embeds(step) else None
        return await self._recall(wanted) if wanted else None

    async def remember(self, caller: Caller, step: Step, answer: Answer) -> None:
        """Keep a step's vector, without waiting for it."""
        wanted = await self._name(caller, step, step.held) if _embeds(step) else None
        if wanted:
            self._do(self._remember(wanted, answer))

    async def _recall(self, wanted: Name) -> Answer | None:
        assert self._vectors is not None
        found = wanted.checked(await self._vectors.get(wanted.name))
        if not found or len(found) % 4:
            return None
        values = array("f", found)
        function = self._server.engine.functions.get(wanted.of[0], {})
        for version, each in function.items():
            return Answer(
                function=wanted.of[0],
                version=version,
                output=values.tolist(),
                tier=self._server.engine.tier,
                model=each.variant.model,
                plan=Plan(tiers=(self._server.engine.tier,), reason="its vector was kept"),
                ms=Times(),
                cached="hit",
            )
        return None

    async def _remember(self, wanted: Name, answer: Answer) -> None:
        assert self._vectors is not None
        try:
            values = array("f", answer.output)
        except (TypeError, OverflowError):
            return  # no vector after all
        if values.tolist() == answer.output:
            await self._vectors.put(wanted.name, wanted.entry(values.tobytes()))


class Steps:
    """The journal of one run, with the vectors that are known of before."""

    def __init__(self, cache: Cache, caller: Caller, ask: Ask, journal: Journal | None) -> None:
        self.whole = True
        self._cache = cache
        self._caller = caller
        self._budget = ask.budget
        self._journal = journal

    async def recall(self, name: str, step: Step) -> Answer | None:
        """Return the step's answer if it ended before, or its vector is known."""
        found = await self._journal.recall(name, step) if self._journal else None
        return found or await self._cache.recall(self._caller, self._of(step))

    async def began(self, name: str, step: Step) -> None:
        """Hand on that a step began."""
        if self._journal:
            await self._journal.began(name, step)

    async def ended(self, name: str, step: Step, found: Answer | TriviumError) -> None:
        """Hand on how a step ended, and keep a vector; what comes of a failed one is not kept."""
        if self._journal:
            await self._journal.ended(name, step, found)
        if isinstance(found, TriviumError):
            self.whole = False
        else:
            await self._cache.remember(self._caller, self._of(step), found)

    def _of(self, step: Step) -> Step:
        """Return the step under the reach and quality of the whole ask: it has its own later."""
        return replace(step, budget=self._budget)


def _told(control: str) -> set[str]:
    return {each.strip().lower() for each in control.split(",")}


def _embeds(ask: Ask) -> bool:
    return ask.function.endswith(".embed")
