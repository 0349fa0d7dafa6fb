"""How does one tier answer one ask: here, or by asking the next hop?

Page, edge and cloud are this one class with other arguments.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from .contract import Answer, Ask, Blob, Fault, Part, Plan, Road, Tier, Times, Upstream, Variant
from .errors import (
    BudgetError,
    Conflict,
    RunFailed,
    TierError,
    TierOverloaded,
    TierUnreachable,
    TriviumError,
    UnknownFunction,
)
from .function import Function, Loaded, Models
from .kinds import Decoded, Given, Text
from .memory import Memory
from .router import choose
from .seen import Queue
from .trace import Open, Tracer

T = TypeVar("T")
Leg = tuple[Tier, ...]

SHADOW_MS = 2_000.0
"""A road that should take longer is asked for no shadow: that would be in the way of others."""

IDLE_MS = 1.0
"""A road on which an ask would wait no longer is idle."""


class Host(Protocol):
    """What a tier's world provides; the kernel itself does no I/O and owns no clock.

    `lanes` is how many asks really run at once; `shadows` the share of the asks after which
    another road may be asked as well, to learn how long it would have taken.
    """

    lanes: int
    shadows: float

    def cold(self, function: Function) -> float:
        """Return how many ms loading the function would take first; 0 if it is loaded."""

    def clock(self) -> float:
        """Return monotonic milliseconds."""

    async def open(self, function: Function) -> Loaded:
        """Return the function's sessions, loading them on first use; raise ModelNotReady."""

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        """Return the input ready for the function; raise BadInput or TooLarge."""

    async def race(
        self,
        first: Callable[[], Awaitable[T]],
        then: Callable[[], Awaitable[T]],
        after_ms: float | None,
    ) -> T:
        """Return what comes first of `first` and `then`, and cancel the other.

        `then` starts as soon as `first` raises a TierError, or after `after_ms`.
        """

    async def limit(self, work: Awaitable[T], ms: float | None) -> T:
        """Return what `work` gives; after `ms` cancel it and raise BudgetError."""

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` by and by, once what was answered is on its way; nobody waits for it."""

    def report(self, error: BaseException, where: str | None) -> None:
        """Tell the developer, not the caller, that a function failed."""


class Trip:
    """One ask on its way: the plan that was made for it here, and what has come of it.

    `spent` is the price of all that was begun, as far as is known what was begun behind the next
    hop; else of all that may have been.
    """

    __slots__ = ("ask", "failures", "legs", "plan", "size", "span", "spent", "started")

    def __init__(self, ask: Ask, plan: Plan, here: Tier, started: float, span: Open) -> None:
        self.ask = ask
        self.plan = plan
        self.size = _size(ask.inputs)
        self.started = started
        self.span = span
        self.spent = 0.0
        self.failures: list[str] = []
        # This tier, and those that one hop will serve.
        self.legs: list[Leg] = []
        for tier in plan.tiers:
            if self.legs and here not in (tier, *self.legs[-1]):
                self.legs[-1] += (tier,)
            else:
                self.legs.append((tier,))

    def road(self, tier: Tier) -> Road | None:
        """Return the plan's road of a tier."""
        for road in self.plan.roads:
            if road.tier == tier:
                return road
        return None

    def price(self, leg: Leg) -> float:
        """Return what a leg takes if all its tiers are begun."""
        return sum(road.spend for road in self.plan.roads if road.tier in leg)


@asynccontextmanager
async def closing(parts: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """End what gives the parts as soon as nobody takes them any more, not when it is collected."""
    try:
        yield parts
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()


class Engine:
    """One tier: its functions, what it measured, and the next hop.

    With `development` a failed function's own line is told to the caller. `most` asks run here at
    once; further ones are sent on, or refused as TierOverloaded.
    """

    def __init__(
        self,
        tier: Tier,
        host: Host,
        *,
        upstream: Upstream | None = None,
        tracer: Tracer | None = None,
        development: bool = False,
        most: int = 256,
    ) -> None:
        self.tier = tier
        self.host = host
        self.upstream = upstream
        self.memory = Memory()
        self.tracer = tracer or Tracer(tier)
        self.functions: dict[str, dict[str, Function]] = {}
        self.running = 0
        self.line = Queue(host.lanes)
        self.development = development
        self.most = most

    def add(self, function: Function) -> None:
        """Serve `function` here; the version added last is the one asked for by default."""
        versions = self.functions.setdefault(function.manifest.name, {})
        versions.pop(function.manifest.version, None)
        versions[function.manifest.version] = function

    def remove(self, name: str, version: str) -> None:
        """Stop serving one version; asks that are running end undisturbed."""
        versions = self.functions.get(name, {})
        versions.pop(version, None)
        if not versions:
            self.functions.pop(name, None)

    def roads(self, name: str, version: str = "", size: int | None = None) -> list[Road]:
        """Return the roads to `name`: this tier's with what was measured, then those behind.

        Without `version` this tier's is the newest; without `size` times are those seen last.
        """
        roads = self._roads(name, version)
        if roads and roads[0].tier == self.tier:
            now = self.host.clock()
            roads[0] = replace(roads[0], ms=self.memory.expected(name, roads[0], size, now))
        return roads

    def queue(self) -> float:
        """Return how many ms an ask begun now would wait for those that run, by what they take."""
        return self.line.wait(self.host.clock())

    def _roads(self, name: str, version: str) -> list[Road]:
        """Return the roads to `name` as they are advertised, here by the manifest."""
        roads: list[Road] = []
        here = self.functions.get(name)
        if here and (not version or version in here):
            function = here[version] if version else next(reversed(here.values()))
            variant, now = function.variant, self.host.clock()
            road = Road(
                tier=self.tier,
                version=function.manifest.version,
                model=variant.model,
                quality=variant.quality,
                ms=variant.ms,
                ready=not self.memory.closed(name, self.tier, now),
                queue=self.queue(),
                cold=self.host.cold(function),
                spend=variant.spend or 0.0,
            )
            roads.append(road)
        if self.upstream is not None:
            roads += self.upstream.roads(name)
        return roads

    async def infer(self, ask: Ask, steps: Pipeline | None = None) -> Answer:
        """Answer `ask`, perhaps one of a pipeline's `steps`, within its budget.

        It is answered on the first of its roads that can.
        """
        started = self.host.clock()
        with self.tracer.span(f"infer {ask.function}", ask.trace) as span:
            trip = self._plan(ask, started, span)
            if steps is not None:
                # Whatever runs beside it may not count on that any more.
                reserved = trip.price(trip.plan.tiers)
                steps.spent += reserved

            async def walk(index: int) -> Answer:
                if index + 1 == len(trip.legs):
                    return await self._leg(trip, trip.legs[index])
                return await self.host.race(
                    lambda: self._leg(trip, trip.legs[index], more=True),
                    lambda: walk(index + 1),
                    trip.plan.hedge_ms if index == 0 else None,
                )

            answer = self._finish(trip, await self.host.limit(walk(0), ask.budget.ms))
        if steps is not None:
            steps.spent += trip.spent - reserved
        elif not ask.tiers and len(trip.plan.tiers) > 1:
            self._shadow(trip, answer)
        return answer

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer | Fault]:
        """Yield the parts of an answer; the last is the Answer, or a Fault after some parts.

        The budget is the time to the first part, and the longest gap between two.
        """
        started = self.host.clock()
        with self.tracer.span(f"stream {ask.function}", ask.trace) as span:
            trip = self._plan(ask, started, span)
            begun = False
            for leg in trip.legs:
                price = trip.price(leg)
                trip.spent += price
                try:
                    async with closing(self._parts(trip, leg)) as parts:
                        while True:
                            left = ask.budget.ms if begun else self._left(ask, started)
                            part = await self.host.limit(anext(parts), left)
                            if isinstance(part, Answer):
                                self._measured(trip, part)
                                trip.spent += part.spent - price
                                yield self._finish(trip, part)
                                return
                            begun = True
                            yield part
                except TriviumError as error:
                    if begun:
                        yield Fault.of(error)
                        return
                    self._failed(trip, leg, error)
                    if not isinstance(error, TierError) or leg is trip.legs[-1]:
                        raise

    def _plan(self, ask: Ask, started: float, span: Open) -> Trip:
        """Return the ask with the plan for it."""
        name = ask.function
        roads = self._roads(name, ask.version)
        if ask.version:
            others = {road.version for road in roads if road.version != ask.version}
            others |= self.functions.get(name, {}).keys() - {ask.version}
            roads = [road for road in roads if road.version == ask.version]
            if not roads and others:
                raise Conflict(
                    f"version {ask.version} of {name} is not served; "
                    f"served: {', '.join(sorted(others))}"
                )
        if self.upstream is not None and not self.upstream.known:
            wanted = set(ask.tiers) - {road.tier for road in roads}
            if not roads or (wanted and len(wanted) == len(ask.tiers)):
                raise TierUnreachable(
                    f"{name} is not on the {self.tier} tier, and the next did not answer yet",
                    tier=self.tier,
                    retry_after=1.0,
                )
        if not roads:
            known = ", ".join(sorted(self.functions)) or "none"
            raise UnknownFunction(f"no tier has a function {name!r}; the {self.tier} has: {known}")
        now, size = self.host.clock(), _size(ask.inputs)
        plan = choose(name, roads, ask.budget, self.memory, size=size, now=now, tiers=ask.tiers)
        span.attributes["trivium.plan"] = plan.reason
        return Trip(ask, plan, self.tier, started, span)

    async def _leg(self, trip: Trip, leg: Leg, more: bool = False) -> Answer:
        """Return the answer of one leg; is there `more` to be tried after it?"""
        begun, price = self.host.clock(), trip.price(leg)
        if leg[0] != trip.plan.tiers[0] and not trip.failures:
            self.memory.hedged += 1
        trip.spent += price
        road = trip.road(leg[0])
        if road is not None:
            self.memory.begun(trip.ask.function, road, trip.size, begun)
        try:
            if leg == (self.tier,):
                with Run(self, trip) as run:
                    await run.whole()
                answer = run.answer()
            else:
                answer = await self._hop(trip, leg)
        except BudgetError as error:
            self._late(trip, leg, begun)
            if not more:
                raise
            # The next tier can't be in time; another road of this one may.
            trip.failures.append(f"{leg[0]} failed ({error.code})")
            raise TierOverloaded(error.message, tier=leg[0]) from error
        except TriviumError as error:
            self._failed(trip, leg, error)
            raise
        except BaseException:
            # Cancelled: the next road was quicker or time ran out, so it is this slow at least.
            self._late(trip, leg, begun)
            raise
        self._measured(trip, answer)
        trip.spent += answer.spent - price
        if leg is not trip.legs[0]:
            before = answer.ms.before + begun - trip.started
            answer = replace(answer, ms=replace(answer.ms, before=before))
        return answer

    async def _hop(self, trip: Trip, leg: Leg) -> Answer:
        """Return the answer of tiers behind the next hop."""
        assert self.upstream is not None
        begun = self.host.clock()
        with self.tracer.span("hop", trip.span) as hop:
            answer = await self.upstream.infer(self._onward(trip, leg, hop))
            return self._hopped(trip, answer, begun)

    async def _parts(self, trip: Trip, leg: Leg) -> AsyncIterator[Part | Answer]:
        """Yield the parts of one leg, then its answer."""
        if leg == (self.tier,):
            with Run(self, trip) as run:
                if run.function.schema.streams:
                    run.output = []
                    call = run.function.call(**await run.begin())
                    async with closing(call) as pieces:
                        async for piece in pieces:
                            run.output.append(piece)
                            yield Part(output=piece)
                else:
                    await run.whole()
            yield run.answer()
            return
        assert self.upstream is not None
        begun = self.host.clock()
        with self.tracer.span("hop", trip.span) as hop:
            onward = self._onward(trip, leg, hop)
            async with closing(self.upstream.stream(onward)) as parts:
                async for part in parts:
                    if isinstance(part, Answer):
                        yield self._hopped(trip, part, begun)
                        return
                    yield part
        raise TierError(f"the parts from {leg[0]} ended without an answer", tier=leg[0])

    def _onward(self, trip: Trip, leg: Leg, hop: Open) -> Ask:
        """Return the ask as the next hop is given it, with what is left of its budget."""
        budget = replace(trip.ask.budget, ms=self._left(trip.ask, trip.started))
        if budget.spend is not None:
            # What was begun before this leg may have to be paid as well.
            tiers = trip.plan.tiers
            before = trip.price(tiers[: tiers.index(leg[0])])
            budget = replace(budget, spend=max(0.0, budget.spend - before))
        return replace(trip.ask, budget=budget, tiers=leg, trace=hop.header)

    def _hopped(self, trip: Trip, answer: Answer, begun: float) -> Answer:
        """Return `answer` with the time on the way added."""
        now, ms = self.host.clock(), answer.ms
        hop = max(0.0, now - begun - ms.total - ms.before)
        self.memory.crossed(answer.tier, trip.size, hop, answer.queue, now)
        return replace(answer, ms=replace(ms, hop=ms.hop + hop, way=hop))

    def _left(self, ask: Ask, started: float) -> float | None:
        """Return the milliseconds left of the budget."""
        if ask.budget.ms is None:
            return None
        left = ask.budget.ms - (self.host.clock() - started)
        if left <= 0:
            raise BudgetError(
                f"the {ask.budget.ms:.4g} ms of the budget are used up", tier=self.tier
            )
        return left

    def _measured(self, trip: Trip, answer: Answer) -> None:
        road = trip.road(answer.tier)
        if road is not None:
            work = answer.ms.total - answer.ms.way
            self.memory.measured(trip.ask.function, road, trip.size, work, self.host.clock())

    def _late(self, trip: Trip, leg: Leg, begun: float) -> None:
        now, road = self.host.clock(), trip.road(leg[0])
        if road is not None:
            self.memory.late(trip.ask.function, road, trip.size, now - begun, now)

    def _failed(self, trip: Trip, leg: Leg, error: TriviumError) -> None:
        if isinstance(error, TierError):
            now = self.host.clock()
            lost = isinstance(error, TierUnreachable)
            for tier in leg if lost else leg[-1:]:
                self.memory.failed(trip.ask.function, tier, now, unreachable=lost)
            trip.failures.append(f"{' and '.join(leg)} failed ({error.code})")

    def _finish(self, trip: Trip, answer: Answer) -> Answer:
        """Return `answer` with the plan made here, what came in its way, and how well it held."""
        plan, tier, took = trip.plan, answer.tier, answer.ms.total
        reason = "; ".join([plan.reason, *trip.failures])
        if trip.failures or tier != plan.tiers[0]:
            reason += f"; so {tier} answered"
        road = trip.road(tier)
        expected = road.ms if road is not None and not road.why else None
        said = trip.span.attributes
        said["trivium.tier"] = str(tier)
        said["trivium.took_ms"] = took
        if expected is not None:
            said["trivium.expected_ms"] = expected[1]
        return replace(
            answer,
            plan=replace(plan, reason=reason),
            trace=trip.span.header,
            expected=expected,
            took=took,
            spent=trip.spent,
        )

    def _shadow(self, trip: Trip, answer: Answer) -> None:
        """Now and then have another road asked the same, now that the answer is given.

        It is one that the ask's plan allows, that its cap still pays for, and that is idle.
        """
        share, memory, ask = self.host.shadows, self.memory, trip.ask
        if not share or not memory.may_shadow(share):
            return
        now, cap = self.host.clock(), ask.budget.spend
        idle = [
            road
            for road in trip.plan.roads
            if road.tier in trip.plan.tiers
            and road.tier != answer.tier
            and (cap is None or trip.spent + road.spend <= cap)
            and road.queue < IDLE_MS
            and road.ms[2] < SHADOW_MS
        ]
        if not idle:
            return
        road = max(idle, key=lambda road: memory.stale(ask.function, road, trip.size, now))
        memory.shadowed += 1
        self.host.later(lambda: self._shadowed(trip, road, answer))

    async def _shadowed(self, trip: Trip, road: Road, answer: Answer) -> None:
        """Ask `road` too, and learn how long it takes; what it answers is thrown away."""
        here = self.functions.get(trip.ask.function, {})
        if road.tier == self.tier and (
            self.running or self.queue() >= IDLE_MS or road.version not in here
        ):
            return
        budget = replace(trip.ask.budget, ms=None)
        if budget.spend is not None:
            budget = replace(budget, spend=road.spend)
        with self.tracer.span("shadow", trip.span, **{"trivium.tier": str(road.tier)}) as span:
            ask = replace(trip.ask, budget=budget, tiers=(road.tier,))
            plan = replace(trip.plan, tiers=(road.tier,), hedge_ms=None)
            again = Trip(ask, plan, self.tier, self.host.clock(), span)
            try:
                found = await self.host.limit(self._leg(again, again.legs[0]), 3 * SHADOW_MS)
            except TriviumError as error:
                span.attributes["trivium.failed"] = error.code
                return
            span.attributes["trivium.took_ms"] = found.ms.total
            span.attributes["trivium.instead_ms"] = answer.took


class Run:
    """One ask that runs on this tier: what it is given, how long it takes, what it answers."""

    def __init__(self, engine: Engine, trip: Trip) -> None:
        if engine.running >= engine.most:
            raise TierOverloaded(
                f"{engine.running} asks run on this tier, its limit",
                tier=engine.tier,
                retry_after=1.0,
            )
        ask = trip.ask
        here = engine.functions[ask.function]
        self.function = here[ask.version] if ask.version else next(reversed(here.values()))
        self.output: Any = None
        self._engine = engine
        self._trip = trip
        self._parent = trip.span
        self._clock = engine.host.clock
        self._begun = self._opened = self._decoded = self._ended = self._clock()
        self._arguments: dict[str, Any] = self.function.options(ask.options)
        self._inputs = self.function.inputs(ask.inputs)
        self._models: Models | None = None
        self._steps: Pipeline | None = None
        self._span: Open | None = None

    def __enter__(self) -> Run:
        engine = self._engine
        road = self._trip.road(engine.tier)
        work = road.ms[1] - road.queue if road is not None else 0.0
        self._place = engine.line.begin(work, self._begun)
        engine.running += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        engine, self._ended = self._engine, self._clock()
        engine.running -= 1
        if self._models is not None:
            self._models.close()
        if error is None or isinstance(error, Exception):
            engine.line.end(self._place, self._ended)
        else:
            # Cancelled, but what the session has begun goes on: others wait for it.
            engine.line.leave(self._place, self._ended)
        if self._span is None:
            return
        broken = None
        if isinstance(error, TriviumError):
            error.tier = error.tier or engine.tier
        elif isinstance(error, Exception):  # whatever the author's code or its model raises
            kind, broken = RunFailed, self._broken(error)
        self._span.__exit__(kind, broken or error, traceback)
        if broken is not None:
            raise broken from error

    async def begin(self) -> dict[str, Any]:
        """Return what the function is called with, its models loaded and its inputs decoded."""
        engine, schema, variant = self._engine, self.function.schema, self.function.variant
        with engine.tracer.span("open", self._parent):
            models = self._models = Models(await engine.host.open(self.function), self._clock)
        self._opened = self._clock()
        with engine.tracer.span("decode", self._parent):
            for each in schema.inputs:
                self._arguments[each.name] = await engine.host.decode(
                    each.kind, self._inputs[each.name], variant
                )
        self._decoded = self._clock()
        span = engine.tracer.span("run", self._parent, **{"trivium.model": variant.model})
        self._span = span
        if schema.models:
            self._arguments[schema.models] = models
        if schema.asks:
            self._arguments[schema.asks] = self._steps = Pipeline(engine, self._trip, span)
        return self._arguments

    async def whole(self) -> None:
        """Call the function, and take all its parts if it gives its output in such."""
        call = self.function.call(**await self.begin())
        if self.function.schema.streams:
            async with closing(call) as pieces:
                self.output = [piece async for piece in pieces]
        else:
            self.output = await call

    def answer(self) -> Answer:
        """Return the answer, once all is done."""
        assert self._models is not None
        took, trip = self._models.ms, self._trip
        return Answer(
            function=self.function.schema.name,
            version=self.function.manifest.version,
            output=self.output,
            tier=self._engine.tier,
            model=self.function.variant.model,
            plan=trip.plan,
            ms=Times(
                decode=self._decoded - self._opened,
                python=max(0.0, self._ended - self._decoded - took) + self._opened - self._begun,
                run=took,
            ),
            trace=self._parent.header,
            queue=self._engine.queue(),
            spent=trip.price((self._engine.tier,)) + (self._steps.spent if self._steps else 0.0),
        )

    def _broken(self, error: Exception) -> RunFailed:
        engine, where = self._engine, self.function.line(error)
        engine.host.report(error, where)
        said = f"{type(error).__name__}: {error}" if engine.development else type(error).__name__
        return RunFailed(
            f"{self.function.schema.name} failed on the {engine.tier} tier: {said}",
            tier=engine.tier,
            where=where if engine.development else None,
        )


class Pipeline:
    """The asker that a pipeline's function is given: steps inherit what is left of its budget."""

    def __init__(self, engine: Engine, trip: Trip, span: Open) -> None:
        self._engine = engine
        self._trip = trip
        self._span = span
        self.spent = 0.0

    async def __call__(self, name: str, /, **values: Any) -> Any:
        """Return the output of `name`: Blobs and values of the kinds are inputs, others options."""
        inputs: dict[str, str | Blob] = {}
        options: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, Text):
                inputs[key] = str(value)  # msgspec packs no subclass of str
            elif isinstance(value, Blob):
                inputs[key] = value
            elif isinstance(value, Decoded) and value.blob is not None:
                inputs[key] = value.blob
            else:
                options[key] = value
        budget = self._trip.ask.budget
        ms, spend = self._engine._left(self._trip.ask, self._trip.started), budget.spend
        if spend is not None:
            spend = max(0.0, spend - self._trip.spent - self.spent)
        step = Ask(
            function=name,
            inputs=inputs,
            options=options,
            budget=replace(budget, ms=ms, spend=spend),
            trace=self._span.header,
        )
        return (await self._engine.infer(step, self)).output


def _size(inputs: Mapping[str, str | Blob]) -> int:
    return sum(
        len(value) if isinstance(value, str) else len(value.data) for value in inputs.values()
    )
