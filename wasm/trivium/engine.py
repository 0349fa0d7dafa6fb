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


class Host(Protocol):
    """What a tier's world provides; the kernel itself does no I/O and owns no clock.

    `lanes` is how many asks really run at once.
    """

    lanes: int

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

    def report(self, error: BaseException, where: str | None) -> None:
        """Tell the developer, not the caller, that a function failed."""


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

    async def infer(self, ask: Ask) -> Answer:
        """Answer `ask` on the first of its roads that can, within its budget."""
        started = self.host.clock()
        with self.tracer.span(f"infer {ask.function}", ask.trace) as span:
            plan, legs = self._plan(ask, span)
            failures: list[str] = []

            async def walk(index: int) -> Answer:
                if index + 1 == len(legs):
                    return await self._leg(ask, plan, legs[index], started, span, failures)
                return await self.host.race(
                    lambda: self._leg(ask, plan, legs[index], started, span, failures, more=True),
                    lambda: walk(index + 1),
                    plan.hedge_ms if index == 0 else None,
                )

            answer = await self.host.limit(walk(0), ask.budget.ms)
            return self._finish(answer, plan, failures, span)

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer | Fault]:
        """Yield the parts of an answer; the last is the Answer, or a Fault after some parts.

        The budget is the time to the first part, and the longest gap between two.
        """
        started = self.host.clock()
        with self.tracer.span(f"stream {ask.function}", ask.trace) as span:
            plan, legs = self._plan(ask, span)
            failures: list[str] = []
            begun = False
            for leg in legs:
                try:
                    async with closing(self._parts(ask, plan, leg, started, span)) as parts:
                        while True:
                            left = ask.budget.ms if begun else self._left(ask, started)
                            part = await self.host.limit(anext(parts), left)
                            if isinstance(part, Answer):
                                self._measured(ask, plan, part)
                                yield self._finish(part, plan, failures, span)
                                return
                            begun = True
                            yield part
                except TriviumError as error:
                    if begun:
                        yield Fault.of(error)
                        return
                    self._failed(ask, leg, error, failures)
                    if not isinstance(error, TierError) or leg is legs[-1]:
                        raise

    def _plan(self, ask: Ask, span: Open) -> tuple[Plan, list[Leg]]:
        """Return the plan, and its tiers in groups: this one, and those one hop will serve."""
        name, size = ask.function, _size(ask.inputs)
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
        now = self.host.clock()
        plan = choose(name, roads, ask.budget, self.memory, size=size, now=now, tiers=ask.tiers)
        span.attributes["trivium.plan"] = plan.reason
        legs: list[Leg] = []
        for tier in plan.tiers:
            if legs and self.tier not in (tier, *legs[-1]):
                legs[-1] += (tier,)
            else:
                legs.append((tier,))
        return plan, legs

    async def _leg(
        self,
        ask: Ask,
        plan: Plan,
        leg: Leg,
        started: float,
        span: Open,
        failures: list[str],
        more: bool = False,
    ) -> Answer:
        """Return the answer of one leg; is there `more` to be tried after it?"""
        begun = self.host.clock()
        if leg[0] != plan.tiers[0] and not failures:
            self.memory.hedged += 1
        for road in plan.roads:
            if road.tier == leg[0]:
                self.memory.begun(ask.function, road, _size(ask.inputs), begun)
        try:
            if leg == (self.tier,):
                with Run(self, ask, plan, started, span) as run:
                    await run.whole()
                answer = run.answer()
            else:
                answer = await self._hop(ask, plan, leg, started, span)
        except BudgetError as error:
            self._late(ask, plan, leg, begun)
            if not more:
                raise
            # The next tier can't be in time; another road of this one may.
            failures.append(f"{leg[0]} failed ({error.code})")
            raise TierOverloaded(error.message, tier=leg[0]) from error
        except TriviumError as error:
            self._failed(ask, leg, error, failures)
            raise
        except BaseException:
            # Cancelled: the next road was quicker or time ran out, so it is this slow at least.
            self._late(ask, plan, leg, begun)
            raise
        self._measured(ask, plan, answer)
        return answer

    async def _hop(self, ask: Ask, plan: Plan, leg: Leg, started: float, span: Open) -> Answer:
        """Return the answer of tiers behind the next hop."""
        assert self.upstream is not None
        begun = self.host.clock()
        with self.tracer.span("hop", span) as hop:
            answer = await self.upstream.infer(self._onward(ask, plan, leg, started, hop))
            return self._hopped(ask, answer, begun)

    async def _parts(
        self, ask: Ask, plan: Plan, leg: Leg, started: float, span: Open
    ) -> AsyncIterator[Part | Answer]:
        """Yield the parts of one leg, then its answer."""
        if leg == (self.tier,):
            with Run(self, ask, plan, started, span) as run:
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
        with self.tracer.span("hop", span) as hop:
            onward = self._onward(ask, plan, leg, started, hop)
            async with closing(self.upstream.stream(onward)) as parts:
                async for part in parts:
                    if isinstance(part, Answer):
                        yield self._hopped(ask, part, begun)
                        return
                    yield part
        raise TierError(f"the parts from {leg[0]} ended without an answer", tier=leg[0])

    def _onward(self, ask: Ask, plan: Plan, leg: Leg, started: float, hop: Open) -> Ask:
        """Return the ask as the next hop is given it, with what is left of its budget."""
        budget = replace(ask.budget, ms=self._left(ask, started))
        if budget.spend is not None:
            # What was begun before this leg may have to be paid as well.
            before = plan.tiers[: plan.tiers.index(leg[0])]
            spent = sum(road.spend for road in plan.roads if road.tier in before)
            budget = replace(budget, spend=max(0.0, budget.spend - spent))
        return replace(ask, budget=budget, tiers=leg, trace=hop.header)

    def _hopped(self, ask: Ask, answer: Answer, begun: float) -> Answer:
        """Return `answer` with the time on the way added."""
        now = self.host.clock()
        hop = max(0.0, now - begun - answer.ms.total)
        self.memory.crossed(answer.tier, _size(ask.inputs), hop, answer.queue, now)
        return replace(answer, ms=replace(answer.ms, hop=answer.ms.hop + hop, way=hop))

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

    def _measured(self, ask: Ask, plan: Plan, answer: Answer) -> None:
        now, work = self.host.clock(), answer.ms.total - answer.ms.way
        for road in plan.roads:
            if road.tier == answer.tier:
                self.memory.measured(ask.function, road, _size(ask.inputs), work, now)

    def _late(self, ask: Ask, plan: Plan, leg: Leg, begun: float) -> None:
        now = self.host.clock()
        for road in plan.roads:
            if road.tier == leg[0]:
                self.memory.late(ask.function, road, _size(ask.inputs), now - begun, now)

    def _failed(self, ask: Ask, leg: Leg, error: TriviumError, failures: list[str]) -> None:
        if isinstance(error, TierError):
            now = self.host.clock()
            lost = isinstance(error, TierUnreachable)
            for tier in leg if lost else leg[-1:]:
                self.memory.failed(ask.function, tier, now, unreachable=lost)
            failures.append(f"{' and '.join(leg)} failed ({error.code})")

    def _finish(self, answer: Answer, plan: Plan, failures: list[str], span: Open) -> Answer:
        """Return `answer` with the plan made here, what came in its way, and how well it held."""
        tier, took = answer.tier, answer.ms.total
        reason = "; ".join([plan.reason, *failures])
        if failures or tier != plan.tiers[0]:
            reason += f"; so {tier} answered"
        expected = next(
            (road.ms for road in plan.roads if road.tier == tier and not road.why), None
        )
        said = span.attributes
        said["trivium.tier"] = str(tier)
        said["trivium.took_ms"] = took
        if expected is not None:
            said["trivium.expected_ms"] = expected[1]
        return replace(
            answer,
            plan=replace(plan, reason=reason),
            trace=span.header,
            expected=expected,
            took=took,
        )


class Run:
    """One ask that runs on this tier: what it is given, how long it takes, what it answers."""

    def __init__(self, engine: Engine, ask: Ask, plan: Plan, started: float, parent: Open) -> None:
        if engine.running >= engine.most:
            raise TierOverloaded(
                f"{engine.running} asks run on this tier, its limit",
                tier=engine.tier,
                retry_after=1.0,
            )
        here = engine.functions[ask.function]
        self.function = here[ask.version] if ask.version else next(reversed(here.values()))
        self.output: Any = None
        self._engine = engine
        self._ask = ask
        self._plan = plan
        self._started = started
        self._parent = parent
        self._clock = engine.host.clock
        self._begun = self._opened = self._decoded = self._ended = self._clock()
        self._arguments: dict[str, Any] = self.function.options(ask.options)
        self._inputs = self.function.inputs(ask.inputs)
        self._models: Models | None = None
        self._span: Open | None = None

    def __enter__(self) -> Run:
        engine, work = self._engine, 0.0
        for road in self._plan.roads:
            if road.tier == engine.tier:
                work = road.ms[1] - road.queue
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
            self._arguments[schema.asks] = Pipeline(engine, self._ask, self._started, span)
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
        took = self._models.ms
        return Answer(
            function=self.function.schema.name,
            version=self.function.manifest.version,
            output=self.output,
            tier=self._engine.tier,
            model=self.function.variant.model,
            plan=self._plan,
            ms=Times(
                decode=self._decoded - self._opened,
                python=max(0.0, self._ended - self._decoded - took) + self._opened - self._begun,
                run=took,
            ),
            trace=self._parent.header,
            queue=self._engine.queue(),
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

    def __init__(self, engine: Engine, ask: Ask, started: float, span: Open) -> None:
        self._engine = engine
        self._ask = ask
        self._span = span
        self._started = started

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
        ms = self._engine._left(self._ask, self._started)
        step = Ask(
            function=name,
            inputs=inputs,
            options=options,
            budget=replace(self._ask.budget, ms=ms),
            trace=self._span.header,
        )
        return (await self._engine.infer(step)).output


def _size(inputs: Mapping[str, str | Blob]) -> int:
    return sum(
        len(value) if isinstance(value, str) else len(value.data) for value in inputs.values()
    )
