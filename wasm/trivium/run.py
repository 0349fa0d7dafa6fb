"""How does a function run on one tier, and what may it ask of others?"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
)
from contextlib import asynccontextmanager
from contextvars import ContextVar
from math import prod
from types import TracebackType
from typing import Any, Protocol, TypeVar

from msgspec import msgpack
from msgspec.structs import replace

from .contract import Answer, Ask, Blob, Cascade, Input, Plan, Road, Tier, Times, Variant
from .errors import (
    BadInput,
    BudgetError,
    Cancelled,
    ModelNotReady,
    RunFailed,
    TierOverloaded,
    TriviumError,
)
from .function import Function, Models
from .host import Host
from .kinds import KINDS, Audio, Decoded, Given, Image, Text
from .memory import Memory
from .seen import Queue
from .trace import Open, Tracer

T = TypeVar("T")
INPUTS = (Text, Blob, Decoded)
Leg = tuple[Tier, ...]


class Step(Ask, frozen=True, kw_only=True):
    """What a pipeline asks: `held` are inputs that are decoded already; some have no file.

    `name` is the step's own in its run, and the same when that is run again.
    """

    name: str = ""
    held: Mapping[str, Decoded] = {}

    async def plain(self, encode: Callable[[Decoded], Awaitable[Blob]]) -> Ask:
        """Return the ask as it goes to another tier: `encode` makes files of what has none."""
        inputs = dict(self.inputs)
        for name, value in self.held.items():
            if name not in inputs:
                inputs[name] = await encode(value)
        rest = {each: getattr(self, each) for each in Ask.__struct_fields__ if each != "inputs"}
        return Ask(inputs=inputs, **rest)


class Journal(Protocol):
    """What is remembered of a pipeline's steps, so that none that finished is done twice.

    `name` is unique within a run and the same when it is run again: `classify`, a second one
    `classify#2`, in the second of what runs together `2/classify`, in a step that is a pipeline
    itself `outer/classify`. Whoever recalls should look whether the step asks the same, too.
    """

    async def recall(self, name: str, step: Step) -> Answer | None:
        """Return the answer of a step that finished before, or none: then it is asked."""

    async def began(self, name: str, step: Step) -> None:
        """Hear that a step is asked now."""

    async def ended(self, name: str, step: Step, found: Answer | TriviumError) -> None:
        """Hear what it answered, or why it failed; Cancelled if nobody waits for it any more."""


class Trip:
    """One ask on its way: the plan that was made for it here, and what has come of it.

    It is learnt how long what it is `about` takes: a function, or one whose parts are taken.
    `spent` is the price of all that was begun, as far as is known what was begun behind the next
    hop; else of all that may have been.
    """

    def __init__(
        self, ask: Ask, plan: Plan, here: Tier, started: float, span: Open, about: str = ""
    ) -> None:
        self.ask = ask
        self.journal: Journal | None = None
        self.about = about or ask.function
        self.plan = plan
        self.here = here
        self.size = weigh(ask)
        self.started = started
        self.span = span
        self.spent = 0.0
        self.failures: list[str] = []
        self.begun: list[Leg] = []
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

    def left(self, now: float) -> float | None:
        """Return the milliseconds left of the budget; raise BudgetError if none are."""
        ms = self.ask.budget.ms
        if ms is None:
            return None
        left = ms - (now - self.started)
        if left <= 0:
            raise BudgetError(f"the {ms:.4g} ms of the budget are used up", tier=self.here)
        return left

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


class Place(Protocol):
    """What a run needs of its tier's engine."""

    tier: Tier
    host: Host
    functions: dict[str, dict[str, Function]]
    tracer: Tracer
    memory: Memory
    line: Queue
    running: int
    most: int
    development: bool

    def queue(self) -> float:
        """Return how many ms an ask begun now would wait."""

    def roads(self, name: str, version: str = "", size: int | None = None) -> list[Road]:
        """Return the roads to a function, this tier's first, with what is expected there."""

    async def infer(
        self, ask: Ask, steps: Pipeline | None = None, aim: float | None = None
    ) -> Answer:
        """Answer one of a pipeline's steps, which should take no more than `aim`."""


class Run:
    """One ask that runs on this tier: what it is given, how long it takes, what it answers."""

    def __init__(self, engine: Place, trip: Trip) -> None:
        if engine.running >= engine.most:
            raise TierOverloaded(
                f"{engine.running} asks run on this tier, its limit",
                tier=engine.tier,
                retry_after=1.0,
            )
        ask = trip.ask
        here = engine.functions.get(ask.function, {})
        if not here or (ask.version and ask.version not in here):
            # Since it was planned; another road may have it.
            raise ModelNotReady(f"{ask.function} is served no more", tier=engine.tier)
        self.function = here[ask.version] if ask.version else next(reversed(here.values()))
        self.output: Any = None
        self._engine = engine
        self._trip = trip
        self._parent = trip.span
        self._clock = engine.host.clock
        self._begun = self._opened = self._decoded = self._ended = self._clock()
        self._arguments: dict[str, Any] = self.function.options(ask.options)
        held: Mapping[str, Given] = ask.held if isinstance(ask, Step) else {}
        given: dict[str, str | Blob | Given] = {**ask.inputs, **held}
        self._inputs = self.function.inputs(given)
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
        if error is None and self._steps is not None:
            self._steps.learn(self._ended)
        if error is None or isinstance(error, Exception) or self.function.schema.streams:
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
            # No answer will say whose fault it was.
            self._span.attributes["trivium.function"] = self.function.schema.name
            self._span.attributes["trivium.version"] = self.function.manifest.version
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
                given = self._inputs[each.name]
                self._arguments[each.name] = (
                    [await self._ready(each, value, variant) for value in given]
                    if isinstance(given, list)
                    else await self._ready(each, given, variant)
                )
        self._decoded = self._clock()
        span = engine.tracer.span("run", self._parent, **{"trivium.model": variant.model})
        self._span = span
        if schema.models:
            self._arguments[schema.models] = models
        if schema.asks:
            self._arguments[schema.asks] = self._steps = Pipeline(engine, self._trip, span)
        return self._arguments

    async def _ready(self, taker: Input, given: str | Blob | Given, variant: Variant) -> Given:
        """Return one value as the function is given it."""
        if not isinstance(given, Decoded):
            return await self._engine.host.decode(taker.kind, given, variant)
        # From another function here, which needs no file of it.
        if not isinstance(given, KINDS[taker.kind]):
            what, name = type(given).__name__, self.function.schema.name
            raise BadInput(f"{name} takes {taker.kind}, not {what}: {taker.name}")
        return given

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
        took, trip, cascade = self._models.ms, self._trip, self.function.variant.cascade
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
            confidence=cascade.sure(self.output) if isinstance(cascade, Cascade) else None,
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


_BRANCH: ContextVar[str] = ContextVar("branch", default="")
"""Which of the things that a pipeline does together asks."""


def flat(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield values by name, those of a list of inputs each by its own."""
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(each, INPUTS) for each in value):
            yield from ((f"{name}.{number}", each) for number, each in enumerate(value))
        else:
            yield name, value


def plain(output: Any) -> Any:
    """Return an output as plain data: what another tier would have sent of it."""
    return msgpack.decode(msgpack.encode(output))


class Pipeline:
    """The asker that a pipeline's function is given: its steps share what is left of its budget.

    How much of the time from its begin on each step takes is learnt, and at first what it and the
    whole are expected to take. Each is to take no more of what is left then. Only its road is
    chosen by that: one that takes longer is not given up.
    What the journal remembers takes nothing.
    """

    def __init__(self, engine: Place, trip: Trip, span: Open) -> None:
        self._engine = engine
        self._trip = trip
        self._span = span
        self._within = f"{trip.ask.name}/" if isinstance(trip.ask, Step) else ""
        self._named: dict[str, int] = {}
        self._begun = 0
        self._done: list[tuple[int, float, float]] = []
        self.journal = trip.journal
        self.spent = 0.0

    def __call__(self, function: str, /, **values: Any) -> Coroutine[Any, Any, Any]:
        """Return the output of `function`, as a step of that name."""
        return self._output(self._step(function, function, values))

    def step(self, name: str, function: str, /, **values: Any) -> Coroutine[Any, Any, Any]:
        """Return the output of `function`, as a step with a name of its own."""
        return self._output(self._step(name, function, values))

    def answer(self, name: str, function: str, /, **values: Any) -> Coroutine[Any, Any, Answer]:
        """Return the whole answer: its confidence, tier and model as well."""
        return self._ask(*self._step(name, function, values))

    async def together(self, *works: Awaitable[Any]) -> list[Any]:
        """Return what all give, which run beside each other; if one fails, so do the others."""

        async def branch(number: int, work: Awaitable[Any]) -> Any:
            _BRANCH.set(f"{outer}{number}/")
            return await work

        outer = _BRANCH.get()
        branches = [branch(*each) for each in enumerate(works, 1)]
        try:
            return await self._engine.host.together(branches)
        finally:
            _BRANCH.set(outer)
            for unbegun in (work for work in works if isinstance(work, Coroutine)):
                unbegun.close()

    async def _output(self, asked: tuple[int, Step]) -> Any:
        return (await self._ask(*asked)).output

    def _step(self, name: str, function: str, values: Mapping[str, Any]) -> tuple[int, Step]:
        """Return a step, named when it is asked for, whatever else runs; Blobs are inputs."""
        inputs: dict[str, str | Blob] = {}
        options: dict[str, Any] = {}
        held: dict[str, Decoded] = {}
        for key, value in flat(values):
            if isinstance(value, Text):
                inputs[key] = str(value)  # msgspec packs no subclass of str
            elif isinstance(value, Blob):
                inputs[key] = value
            elif isinstance(value, Decoded):
                if value.blob is not None:
                    inputs[key] = value.blob
                if value.blob is None or value.ALIKE:
                    held[key] = value
            else:
                options[key] = value
        if "/" in name or "#" in name:
            raise ValueError(f"a step is called {name!r}; its name must not have / or # in it")
        full = f"{self._within}{_BRANCH.get()}{name}"
        count = self._named[full] = self._named.get(full, 0) + 1
        place = self._begun
        self._begun += 1
        return place, Step(
            name=full if count == 1 else f"{full}#{count}",
            function=function,
            inputs=inputs,
            options=options,
            held=held,
        )

    async def _ask(self, place: int, step: Step) -> Answer:
        """Return the step's answer: pending, it is replayed, or runs until it is done or failed."""
        engine, trip, journal, name = self._engine, self._trip, self.journal, step.name
        with engine.tracer.span("step", self._span, **{"trivium.step": name}) as span:
            state = span.attributes if span is not self._span else {}
            if journal is not None:
                state["trivium.state"] = "pending"
                known = await journal.recall(name, step)
                if known is not None:
                    state["trivium.state"] = "replayed"
                    return known
            begun, budget = engine.host.clock(), trip.ask.budget
            ms, spend = trip.left(begun), budget.spend
            aim = None
            if ms is not None:
                share = engine.memory.share(trip.ask.function, place)
                aim = ms * (share or self._predicted(step, begun))
            if spend is not None:
                spend = max(0.0, spend - trip.spent - self.spent)
            step = replace(step, budget=replace(budget, ms=ms, spend=spend), trace=span.header)
            state["trivium.state"] = "running"
            try:
                if journal is not None:
                    await journal.began(name, step)
                answer = await engine.infer(step, self, aim)
                answer = replace(answer, output=plain(answer.output))
            except BaseException as error:
                state["trivium.state"] = "failed"
                if journal is not None and not isinstance(error, GeneratorExit):
                    await journal.ended(name, step, _ending(name, error))
                raise
            if journal is not None:
                await journal.ended(name, step, answer)
            state["trivium.state"] = "done"
        self._done.append((place, begun, engine.host.clock()))
        return answer

    def _predicted(self, step: Step, now: float) -> float:
        """Return what share of the time that is expected to be left a step never seen will take."""
        whole = self._trip.road(self._engine.tier)
        roads = self._engine.roads(step.function, size=weigh(step))
        if whole is None or not roads:
            return 1.0
        own = max(roads[0].ms[1], 0.1)
        return own / max(own, whole.ms[1] - whole.queue - (now - self._trip.started))

    def learn(self, now: float) -> None:
        """Remember how much of the time from its begin on each step took, now that all is done."""
        for place, begun, ended in self._done:
            if now > begun:
                share = (ended - begun) / (now - begun)
                self._engine.memory.stepped(self._trip.ask.function, place, share)


def _ending(name: str, error: BaseException) -> TriviumError:
    """Return why a step did not finish, as its journal is told."""
    if isinstance(error, TriviumError):
        return error
    if isinstance(error, Exception):
        return RunFailed(f"step {name} failed: {type(error).__name__}")
    return Cancelled(f"step {name} was given up")


def weigh(ask: Ask) -> int:
    """Return how many bytes or characters an ask brings along, of what has no file as it is."""
    held = ask.held if isinstance(ask, Step) else {}
    bare = [value for name, value in held.items() if name not in ask.inputs]
    return (
        sum(len(each if isinstance(each, str) else each.data) for each in ask.inputs.values())
        + sum(prod(each.pixels.shape) for each in bare if isinstance(each, Image))
        + sum(4 * len(each.samples) for each in bare if isinstance(each, Audio))
    )
