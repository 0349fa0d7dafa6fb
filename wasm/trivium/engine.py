"""How does one tier answer one ask: here, or by asking the next hop?

Page, edge and cloud are this one class with other arguments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from msgspec import UNSET
from msgspec.structs import replace

from .contract import Answer, Ask, Cascade, Fault, Part, Road, Tier, Upstream
from .errors import (
    BudgetError,
    Conflict,
    TierError,
    TierOverloaded,
    TierUnreachable,
    TriviumError,
    UnknownFunction,
    Unsuited,
)
from .function import Function
from .host import Host
from .memory import Memory
from .router import PRICES, TARGET, choose
from .run import Journal, Leg, Pipeline, Run, Step, Trip, closing, weigh
from .seen import Queue
from .trace import Open, Tracer

SHADOW_MS = 2_000.0
"""A road that should take longer is asked for no shadow: that would be in the way of others."""

IDLE_MS = 1.0
"""A road on which an ask would wait no longer is idle."""


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
        self.memory.narrow = host.lanes == 1
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
        if function.schema.streams:
            self.memory.unsteady.add(function.manifest.name)

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
                spend=PRICES[self.tier] if variant.spend is UNSET else variant.spend,
            )
            roads.append(road)
        if self.upstream is not None:
            roads += self.upstream.roads(name)
        return roads

    async def infer(
        self,
        ask: Ask,
        steps: Pipeline | None = None,
        aim: float | None = None,
        *,
        journal: Journal | None = None,
    ) -> Answer:
        """Answer `ask` on the first of its roads that can, within its budget.

        It may be one of a pipeline's `steps`, whose road is chosen to take no more than `aim`.
        If it is a pipeline itself and runs here, `journal` remembers its steps.
        """
        with self.tracer.span(f"infer {ask.function}", ask.trace) as span:
            trip = self._plan(ask, span, aim)
            trip.journal = journal if steps is None else steps.journal
            if steps is not None:
                span.attributes["trivium.inner"] = True
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

            answer = await self.host.limit(walk(0), ask.budget.ms)
            if answer.confidence is not None and answer.tier == self.tier:
                answer = await self._surer(trip, answer, answer.confidence)
            answer = self._finish(trip, answer)
        if steps is not None:
            steps.spent += trip.spent - reserved
        elif not ask.tiers and len(trip.plan.tiers) > 1:
            self._shadow(trip, answer)
        return answer

    async def _surer(self, trip: Trip, answer: Answer, sure: float) -> Answer:
        """Return a better road's answer in place of an unsure one, if there is leave and time."""
        ask, plan = trip.ask, trip.plan
        function = self.functions[ask.function][answer.version]
        cascade, own = function.variant.cascade, trip.road(self.tier)
        if own is None or not isinstance(cascade, Cascade) or sure >= cascade.threshold:
            return answer
        better = [
            road
            for road in self._roads(ask.function, ask.version)
            if road.tier in plan.tiers
            and road.quality > own.quality
            and not any(road.tier in leg for leg in trip.begun)
        ]
        if not better:
            return answer
        road = max(better, key=lambda road: (road.quality, -road.tier.distance))
        trip.span.attributes["trivium.escalated"] = road.tier.value
        trip.failures.append(
            f"{self.tier} is {100 * sure:.0f} % sure, not {100 * cascade.threshold:.0f} %"
        )
        try:
            now = self.host.clock()
            left = trip.left(now)
            chance = self.memory.outlook(ask.function, road, trip.size, left, now)[1]
            if left is not None and chance < TARGET:
                trip.failures.append(f"no time to ask {road.tier}")
                return answer
            leg = (road.tier,)
            return await self.host.limit(self._leg(trip, leg, more=True), left and 0.98 * left)
        except TriviumError:
            # What there is was good enough to be planned.
            return answer

    async def stream(
        self, ask: Ask, *, journal: Journal | None = None
    ) -> AsyncIterator[Part | Answer | Fault]:
        """Yield the parts of an answer; the last is the Answer, or a Fault after some parts.

        The budget is the time to the first part, which is learnt, and the longest gap between two.
        """
        with self.tracer.span(f"stream {ask.function}", ask.trace) as span:
            trip = self._plan(ask, span, parts=" in parts")
            trip.journal = journal
            begun = 0.0
            for leg in trip.legs:
                price = trip.price(leg)
                trip.spent += price
                try:
                    async with closing(self._parts(trip, leg)) as parts:
                        while True:
                            left = ask.budget.ms if begun else trip.left(self.host.clock())
                            part = await self.host.limit(anext(parts), left)
                            if isinstance(part, Answer):
                                self._measured(trip, part, begun and self.host.clock() - begun)
                                trip.spent += part.spent - price
                                yield self._finish(trip, part)
                                return
                            begun = begun or self.host.clock()
                            yield part
                except TriviumError as error:
                    if begun:
                        yield Fault.of(error)
                        return
                    self._failed(trip, leg, error)
                    if not isinstance(error, TierError) or leg is trip.legs[-1]:
                        raise

    def _plan(self, ask: Ask, span: Open, aim: float | None = None, parts: str = "") -> Trip:
        """Return the ask with the plan for it; within `aim` if that can be, else its budget."""
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
        now, size, said, about = self.host.clock(), weigh(ask), span.attributes, name + parts
        if ask.budget.ms is not None:
            said["trivium.budget_ms"] = ask.budget.ms
        budget = ask.budget if aim is None else replace(ask.budget, ms=aim)
        try:
            plan = choose(about, roads, budget, self.memory, size=size, now=now, tiers=ask.tiers)
        except BudgetError:
            if aim is None:
                raise
            plan = choose(name, roads, ask.budget, self.memory, size=size, now=now, tiers=ask.tiers)
        said["trivium.plan"], said["trivium.size"] = plan.reason, size
        return Trip(ask, plan, self.tier, now, span, about)

    async def _leg(self, trip: Trip, leg: Leg, more: bool = False) -> Answer:
        """Return the answer of one leg; is there `more` to be tried after it?"""
        begun, price = self.host.clock(), trip.price(leg)
        if leg[0] != trip.plan.tiers[0] and not trip.failures:
            self.memory.hedged += 1
            trip.span.attributes["trivium.hedged"] = leg[0].value
        trip.spent += price
        trip.begun.append(leg)
        road = trip.road(leg[0])
        if road is not None:
            self.memory.begun(trip.about, road, trip.size, begun)
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
        with self.tracer.span("hop", trip.span, **{"trivium.tier": leg[0].value}) as hop:
            answer = await self.upstream.infer(await self._onward(trip, leg, hop))
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
        with self.tracer.span("hop", trip.span, **{"trivium.tier": leg[0].value}) as hop:
            onward = await self._onward(trip, leg, hop)
            async with closing(self.upstream.stream(onward)) as parts:
                async for part in parts:
                    if isinstance(part, Answer):
                        yield self._hopped(trip, part, begun)
                        return
                    yield part
        raise TierError(f"the parts from {leg[0]} ended without an answer", tier=leg[0])

    async def _onward(self, trip: Trip, leg: Leg, hop: Open) -> Ask:
        """Return the ask as the next hop is given it, with what is left of its budget."""
        ask = trip.ask
        if isinstance(ask, Step):
            ask = await ask.plain(self.host.encode)
        budget = replace(ask.budget, ms=trip.left(self.host.clock()))
        if budget.spend is not None:
            # What was begun before this leg may have to be paid as well.
            tiers = trip.plan.tiers
            before = trip.price(tiers[: tiers.index(leg[0])])
            budget = replace(budget, spend=max(0.0, budget.spend - before))
        return replace(ask, budget=budget, tiers=leg, trace=hop.header)

    def _hopped(self, trip: Trip, answer: Answer, begun: float) -> Answer:
        """Return `answer` with the time on the way added."""
        now, ms = self.host.clock(), answer.ms
        hop = max(0.0, now - begun - ms.total - ms.before)
        self.memory.crossed(answer.tier, trip.size, hop, answer.queue, now)
        return replace(answer, ms=replace(ms, hop=ms.hop + hop, way=hop))

    def _measured(self, trip: Trip, answer: Answer, since: float = 0.0) -> None:
        """Learn how long the work took; of a stream until its first part, `since` ms ago."""
        now, road = self.host.clock(), trip.road(answer.tier)
        if road is not None:
            work = answer.ms.total - answer.ms.way - since
            self.memory.measured(trip.about, road, trip.size, work, now)

    def _late(self, trip: Trip, leg: Leg, begun: float) -> None:
        now, road = self.host.clock(), trip.road(leg[0])
        if road is not None:
            self.memory.late(trip.about, road, trip.size, now - begun, now)

    def _failed(self, trip: Trip, leg: Leg, error: TriviumError) -> None:
        if isinstance(error, TierError):
            now, lost = self.host.clock(), isinstance(error, TierUnreachable)
            broken = leg if lost else leg[-1:]
            for tier in broken if not isinstance(error, Unsuited) else ():
                here = tier == self.tier
                self.memory.failed(trip.about, tier, now, unreachable=lost, here=here)
            trip.failures.append(f"{' and '.join(leg)} failed ({error.code})")
            trip.span.attributes["trivium.failed"] = f"{leg[-1]}: {error.code}"

    def _finish(self, trip: Trip, answer: Answer) -> Answer:
        """Return `answer` with the plan made here, what came in its way, and how well it held."""
        plan, tier, took = trip.plan, answer.tier, answer.ms.total
        reason = "; ".join([plan.reason, *trip.failures])
        if trip.failures or tier != plan.tiers[0]:
            reason += f"; so {tier} answered"
        road = trip.road(tier)
        expected = road.ms if road is not None and road.chance is not None else None
        said, ms = trip.span.attributes, answer.ms
        said |= {
            "trivium.tier": tier.value,
            "trivium.version": answer.version,
            "trivium.model": answer.model,
            "trivium.took_ms": took,
            "trivium.spent": trip.spent,
            "trivium.decode_ms": ms.decode,
            "trivium.python_ms": ms.python,
            "trivium.run_ms": ms.run,
            "trivium.hop_ms": ms.hop,
        }
        if road is not None:
            said["trivium.quality"] = road.quality
        if answer.confidence is not None:
            said["trivium.confidence"] = answer.confidence
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
        """Ask `road` too; learn how long it takes, and how far it answers the same."""
        here = self.functions.get(trip.ask.function, {})
        if road.tier == self.tier and (
            self.running or self.queue() >= IDLE_MS or road.version not in here
        ):
            return
        budget = replace(trip.ask.budget, ms=None)
        if budget.spend is not None:
            budget = replace(budget, spend=road.spend)
        facts = {"trivium.function": trip.ask.function, "trivium.tier": road.tier.value}
        with self.tracer.span("shadow", trip.span, **facts) as span:
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
            alike = self.host.alike(answer.output, found.output)
            if alike is not None:
                span.attributes["trivium.alike"] = alike
