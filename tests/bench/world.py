"""How would asks fare on page, edge and cloud, if links and machines were like this?

A discrete-event simulation of the kernel itself: three real engines on the real `Timing` (limits
and hedges), over an asyncio loop whose clock jumps to the next event. Simulated are only work, the
links and who else asks. All that chance decides is drawn beforehand, per ask and tier, so that
every policy meets the same world, and an oracle can be told what would have been.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import selectors
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace

from bench.scenario import Link, Place, Scenario
from trivium.contract import (
    Answer,
    Ask,
    Blob,
    Budget,
    Input,
    Manifest,
    Part,
    Road,
    Schema,
    Tier,
    Variant,
)
from trivium.engine import Engine
from trivium.errors import RunFailed, TierUnreachable, TriviumError
from trivium.function import Function, Loaded
from trivium.hosts.timing import Timing
from trivium.kinds import Given, Image

STEP_MS = 100.0
"""How finely links and loads are drawn."""

POLL_MS = {Tier.PAGE: 3_000.0, Tier.EDGE: 2_000.0}
"""How often a tier asks the next for its roads: as hosts/fetch.py and hosts/server/upstream.py."""

PATIENCE_MS = 60_000.0
OVERHEAD_BYTES = 700.0

SOURCE = """
from trivium import Image, function

@function("{name}")
async def work(image: Image) -> int:
    return 0
"""


class Jump(selectors.DefaultSelector):
    """Waits for nothing: time goes on to when the loop wants to wake."""

    loop: Loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits for something that never comes")
        self.loop.now += max(0.0, timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        jump = Jump()
        jump.loop = self
        super().__init__(jump)

    def time(self) -> float:
        return self.now


class Asked(msgspec.Struct):
    """One ask as drawn, and by tier the factor of its work, and whether it would fail."""

    number: int
    at: float
    function: str
    size: int
    budget: Budget
    work: dict[Tier, float]
    luck: dict[Tier, float]
    jitter: dict[str, float]


class Way:
    """A link as it is drawn: every STEP_MS its round trip and its bytes per ms each way."""

    def __init__(self, link: Link, seconds: float, dice: np.random.Generator) -> None:
        steps = int((seconds + 90) * 1e3 / STEP_MS)
        times = np.arange(steps) * STEP_MS / 1e3

        def wander() -> np.ndarray:
            # An autoregressive walk that forgets in about five seconds.
            keep = math.exp(-STEP_MS / 5_000)
            noise = dice.normal(0, link.drift * math.sqrt(1 - keep * keep), steps)
            level = float(dice.normal(0, link.drift))
            out: np.ndarray = np.empty(steps)
            for i, each in enumerate(noise):
                level = keep * level + each
                out[i] = level
            curve: np.ndarray = np.exp(out)
            return curve

        rtt, up, down = (np.full(steps, x) for x in (link.rtt_ms, link.up_mbps, link.down_mbps))
        if link.trace:
            rows = np.searchsorted([row[0] for row in link.trace], times, side="right") - 1
            table = np.array(link.trace)[np.maximum(rows, 0)]
            rtt, up, down = table[:, 1].copy(), table[:, 2].copy(), table[:, 3].copy()
        elif link.drift:
            rtt, width = rtt * wander(), wander()
            up, down = up * width, down * width
        for often, long, times_ in (
            (link.bursts_a_minute, link.burst_s, link.burst_times),
            (link.outages_a_minute, link.outage_s, math.inf),
        ):
            for _ in range(dice.poisson(often * seconds / 60)):
                first = int(dice.uniform(0, seconds) * 1e3 / STEP_MS)
                last = first + 1 + int(dice.exponential(long) * 1e3 / STEP_MS)
                if times_ == math.inf:
                    up[first:last] = down[first:last] = 0.0
                else:
                    rtt[first:last] *= times_
        self.offline = [False] * steps
        for change in link.changes:
            span = (times >= change.at_s) & (times < change.until_s)
            rtt[span] *= change.rtt * change.times
            share = 1 / (change.bandwidth * change.times)
            share = 0.0 if change.silent or change.offline else share
            up[span] *= share
            down[span] *= share
            if change.offline:
                self.offline = [a or bool(b) for a, b in zip(self.offline, span, strict=True)]
        self.rtt: list[float] = rtt.tolist()
        # Mbit/s to bytes a millisecond.
        self.widths: tuple[list[float], list[float]] = ((up * 125).tolist(), (down * 125).tolist())

    def step(self, now: float) -> int:
        return int(min(len(self.rtt) - 1, now / STEP_MS))

    def is_offline(self, now: float) -> bool:
        return self.offline[self.step(now)]

    def arrival(self, now: float, size: float, direction: int, jitter: float) -> float:
        """Return when `size` bytes sent now have arrived; infinity if never."""
        widths, i = self.widths[direction], self.step(now)
        now += self.rtt[i] / 2 * jitter
        left = size + OVERHEAD_BYTES
        i = self.step(now)
        while True:
            end = (i + 1) * STEP_MS
            if left <= widths[i] * (end - now):
                return now + left / widths[i]
            left -= widths[i] * (end - now)
            now = max(now, end)
            i += 1
            if i >= len(widths):
                return math.inf


class Machine:
    """A tier's processors: who else uses them was drawn, our own asks are added."""

    def __init__(self, place: Place, seconds: float, dice: np.random.Generator) -> None:
        self.place = place
        steps = int((seconds + 90) * 1e3 / STEP_MS)
        times = np.arange(steps) * STEP_MS / 1e3
        load, slow, fails = (np.full(steps, x) for x in (place.load, place.times, place.fails))
        for change in place.changes:
            span = (times >= change.at_s) & (times < change.until_s)
            slow[span] *= change.times
            fails[span] = np.maximum(fails[span], change.fails)
            if change.load is not None:
                load[span] = change.load
        # Others' unfinished work, by Lindley's recursion over what arrives and what is done.
        jobs = dice.poisson(load * place.lanes * STEP_MS / place.job_ms)
        come = dice.gamma(np.maximum(jobs, 1e-9), place.job_ms)
        walk = np.cumsum(come - place.lanes * STEP_MS)
        self.others: list[float] = (walk - np.minimum(np.minimum.accumulate(walk), 0)).tolist()
        self.ours, self.seen = 0.0, 0.0
        self.used: dict[str, float] = {}
        self.times: list[float] = slow.tolist()
        self.fails: list[float] = fails.tolist()

    def wait(self, now: float) -> float:
        """Return how long work that comes now waits."""
        i = min(len(self.others) - 1, int(now / STEP_MS))
        lanes = self.place.lanes
        ours = max(0.0, self.ours - (now - self.seen) * lanes)
        spare = (lanes - 1) * self.place.job_ms
        return max(0.0, self.others[i] + ours - spare) / lanes

    def cold(self, function: str, now: float) -> float:
        """Return how long the function takes to load now."""
        last = self.used.get(function)
        return self.place.cold_ms if last is None or now - last > self.place.idle_s * 1e3 else 0.0

    def ends(self, now: float, function: str, work: float) -> float:
        """Return when work that comes now is done."""
        now += self.cold(function, now)
        i = min(len(self.others) - 1, int(now / STEP_MS))
        return now + self.wait(now) + work * self.times[i]

    def enter(self, now: float, function: str, work: float) -> float:
        """Return when work that comes now is done, and take it in."""
        end = self.ends(now, function, work)
        i = min(len(self.others) - 1, int(now / STEP_MS))
        self.ours = max(0.0, self.ours - (now - self.seen) * self.place.lanes)
        self.ours += work * self.times[i]
        self.seen = now
        self.used[function] = end
        return end

    def broken(self, now: float, luck: float) -> bool:
        return luck < self.fails[min(len(self.fails) - 1, int(now / STEP_MS))]


class World:
    """A scenario, drawn: the same for every policy."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        root = np.random.SeedSequence([11, scenario.seed])
        asks, *rest = (np.random.default_rng(each) for each in root.spawn(6))
        seconds = scenario.seconds
        self.near = Way(scenario.link("near"), seconds, rest[0])
        self.far = Way(scenario.link("far"), seconds, rest[1])
        self._places = (scenario.page, scenario.edge, scenario.cloud)
        self._seeds = rest[2:5]
        self._states = [each.bit_generator.state for each in self._seeds]
        self.spend = {tier: place.spend for tier, place in zip(Tier, self._places, strict=True)}
        self.asks = self._draw(asks)
        self.reset()

    def reset(self) -> None:
        """Begin again: machines know nothing of an earlier policy's asks."""
        self.machines = {}
        for tier, place, dice, state in zip(
            Tier, self._places, self._seeds, self._states, strict=True
        ):
            dice.bit_generator.state = state
            self.machines[tier] = Machine(place, self.scenario.seconds, dice)

    def _draw(self, dice: np.random.Generator) -> list[Asked]:
        scenario = self.scenario
        found: list[Asked] = []
        shares = np.array([each.share for each in scenario.asks])
        now = 0.0
        while True:
            gap = dice.exponential(1e3 / scenario.asks_a_second)
            if dice.random() < scenario.bursty:
                gap /= 8
            elif scenario.bursty:
                gap *= (1 - scenario.bursty / 8) / (1 - scenario.bursty)
            now += gap
            if now >= scenario.seconds * 1e3:
                return found
            asks = scenario.asks[dice.choice(len(shares), p=shares / shares.sum())]
            work = scenario.work(asks.function)
            size = int(np.clip(dice.lognormal(np.log(work.size), work.spread), 16, 40e6))
            grown = (size / work.size) ** work.grows
            base = {}
            for tier, (low, middle, high) in work.ms.items():
                z = dice.normal()
                side = high / middle if z > 0 else middle / low
                base[tier] = middle * grown * side ** (z / 1.645)
            luck = dict(zip(Tier, dice.random(3).tolist(), strict=True))
            spread = {"near": scenario.link("near").jitter, "far": scenario.link("far").jitter}
            found.append(
                Asked(
                    number=len(found),
                    at=now,
                    function=asks.function,
                    size=size,
                    budget=Budget(
                        ms=float(dice.choice(asks.budgets_ms)),
                        quality=float(dice.choice(asks.qualities)),
                        reach=asks.reaches[dice.integers(len(asks.reaches))],
                        spend=asks.spend,
                    ),
                    work=base,
                    luck=luck,
                    jitter={
                        f"{way}{direction}": float(np.exp(dice.normal(0, sigma)))
                        for way, sigma in spread.items()
                        for direction in (0, 1)
                    },
                )
            )

    def takes(self, asked: Asked, tier: Tier, now: float) -> float:
        """Return how long `tier` would take for an ask sent now; infinity if it would fail."""
        work, at = self.scenario.work(asked.function), now
        ways = [("near", self.near), ("far", self.far)][: tier.distance]
        for name, way in ways:
            if way.is_offline(at):
                return math.inf
            at = way.arrival(at, asked.size, 0, asked.jitter[f"{name}0"])
        machine = self.machines[tier]
        if at == math.inf or machine.broken(at, asked.luck[tier]):
            return math.inf
        if tier == Tier.PAGE and at < machine.place.ready_s * 1e3:
            return math.inf
        at = machine.ends(at, asked.function, asked.work[tier])
        for name, way in reversed(ways):
            at = way.arrival(at, work.answer, 1, asked.jitter[f"{name}1"])
        return at - now


class Host(Timing):
    """A simulated tier's world."""

    def __init__(self, world: World, tier: Tier, loop: Loop, began: list[list[Tier]]) -> None:
        self._world = world
        self._tier = tier
        self._loop = loop
        self._began = began
        self.lanes = world.machines[tier].place.lanes

    def cold(self, function: Function) -> float:
        return self._world.machines[self._tier].cold(function.schema.name, self.clock())

    def clock(self) -> float:
        return self._loop.now * 1e3

    async def open(self, function: Function) -> Loaded:
        return Loaded({}, [], None, {})

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        """Do an ask's whole work."""
        assert isinstance(value, Blob)
        asked = self._world.asks[int(value.media)]
        machine, now = self._world.machines[self._tier], self.clock()
        self._began[asked.number].append(self._tier)
        if machine.broken(now, asked.luck[self._tier]):
            raise RunFailed("a simulated failure", tier=self._tier)
        end = machine.enter(now, asked.function, asked.work[self._tier])
        await asyncio.sleep((end - now) / 1e3)
        return Image.__new__(Image)

    def report(self, error: BaseException, where: str | None) -> None:
        raise error


class Server(Engine):
    """An engine whose queue is others' asks too, which it knows roughly."""

    machine: Machine

    def queue(self) -> float:
        now = self.host.clock()
        return self.machine.wait(now) * (0.7 + 0.6 * (int(now) * 2654435761 % 997) / 997)


class Upstream:
    """The next simulated engine, behind a link."""

    def __init__(self, engine: Engine, host: Host, way: Way, name: str, world: World) -> None:
        self.known = False
        self._engine = engine
        self._host = host
        self._way = way
        self._name = name
        self._world = world
        self._roads: dict[str, list[Road]] = {}
        self._hop = 5.0

    def functions(self) -> Sequence[str]:
        return list(self._roads)

    def roads(self, function: str) -> Sequence[Road]:
        return [road.behind(self._hop) for road in self._roads.get(function, ())]

    async def poll(self, every: float) -> None:
        """Keep the advertised roads up to date for ever."""
        while True:
            begun = self._host.clock()
            try:
                async with asyncio.timeout(2.0):
                    await self._cross(100, 0, 1.0)
                    names = {each.function for each in self._world.asks}
                    roads = {name: self._engine.roads(name) for name in names}
                    await self._cross(300 * len(roads), 1, 1.0)
                self._roads = roads
                self._hop = self._host.clock() - begun
                self.known = True
            except (TimeoutError, TierUnreachable):
                self._roads = {
                    name: [replace(road, ready=False) for road in roads]
                    for name, roads in self._roads.items()
                }
            await asyncio.sleep(every / 1e3)

    async def _cross(self, size: float, direction: int, jitter: float) -> None:
        now = self._host.clock()
        if self._way.is_offline(now):
            await asyncio.sleep(0.001)
            raise TierUnreachable("offline", tier=self._engine.tier)
        arrival = self._way.arrival(now, size, direction, jitter)
        await asyncio.sleep(min(arrival - now, PATIENCE_MS) / 1e3)
        if arrival - now > PATIENCE_MS:
            raise TierUnreachable("no answer", tier=self._engine.tier)

    async def infer(self, ask: Ask) -> Answer:
        (blob,) = ask.inputs.values()
        assert isinstance(blob, Blob)
        asked = self._world.asks[int(blob.media)]
        await self._cross(asked.size, 0, asked.jitter[f"{self._name}0"])
        failure, answer = None, None
        try:
            answer = await self._engine.infer(ask)
        except TriviumError as error:
            failure = error.with_traceback(None)
        size = self._world.scenario.work(asked.function).answer if answer else 200.0
        await self._cross(size, 1, asked.jitter[f"{self._name}1"])
        if answer is None:
            assert failure is not None
            raise failure
        return answer

    def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        raise NotImplementedError


class Outcome(msgspec.Struct):
    """How one ask fared; `first` is the tier that was chosen, `began` where work was begun."""

    asked: Asked
    met: bool
    ms: float
    tier: Tier | None
    quality: float
    spend: float
    first: Tier | None
    began: list[Tier]
    plan: Any = None


Pick = Callable[[World, Asked, float], tuple[Tier, ...]]
"""A policy: the tiers that may answer, best first; none leaves it to the kernel's router."""

ZEROS = bytes(40_000_000)


def play(world: World, pick: Pick, keep_plans: bool = False) -> list[Outcome]:
    """Return how each ask of a world fares under a policy."""
    world.reset()
    loop = Loop()
    began: list[list[Tier]] = [[] for _ in world.asks]
    hosts = {tier: Host(world, tier, loop, began) for tier in Tier}
    engines: dict[Tier, Engine] = {}
    upstreams: list[tuple[Upstream, float]] = []
    for tier, below, way, name in (
        (Tier.CLOUD, None, None, ""),
        (Tier.EDGE, Tier.CLOUD, world.far, "far"),
        (Tier.PAGE, Tier.EDGE, world.near, "near"),
    ):
        upstream = None
        if below is not None and way is not None:
            upstream = Upstream(engines[below], hosts[tier], way, name, world)
            upstreams.append((upstream, POLL_MS[tier]))
        kind = Engine if tier == Tier.PAGE else Server
        engine = engines[tier] = kind(tier, hosts[tier], upstream=upstream)
        if isinstance(engine, Server):
            engine.machine = world.machines[tier]
    functions = {each.function for each in world.asks}
    places = dict(zip(Tier, world._places, strict=True))
    view = memoryview(ZEROS)
    outcomes: list[Outcome] = []

    async def serve(tier: Tier) -> None:
        await asyncio.sleep(places[tier].ready_s)
        for name in functions:
            engines[tier].add(loaded(world.scenario, name, tier, places[tier].spend))

    async def one(asked: Asked) -> None:
        await asyncio.sleep(asked.at / 1e3 - loop.now)
        now = loop.now * 1e3
        tiers = pick(world, asked, now)
        blob = Blob(media=str(asked.number), data=view[: asked.size])  # type: ignore[arg-type]
        ask = Ask(function=asked.function, inputs={"image": blob}, budget=asked.budget, tiers=tiers)
        answer: Answer | None = None
        with contextlib.suppress(TriviumError):
            answer = await engines[Tier.PAGE].infer(ask)
        ms = loop.now * 1e3 - now
        assert asked.budget.ms is not None
        quality = world.scenario.work(asked.function).quality[answer.tier] if answer else 0.0
        outcomes.append(
            Outcome(
                asked=asked,
                met=answer is not None
                and ms <= asked.budget.ms + 1e-6
                and quality >= asked.budget.quality,
                ms=ms,
                tier=answer.tier if answer else None,
                quality=quality,
                spend=0.0,
                first=answer.plan.tiers[0] if answer else None,
                began=began[asked.number],
                plan=answer.plan if answer and keep_plans else None,
            )
        )

    async def everything() -> None:
        for tier in (Tier.CLOUD, Tier.EDGE):
            await serve(tier)
        polls = []
        for upstream, every in upstreams:
            polls.append(asyncio.ensure_future(upstream.poll(every)))
            await asyncio.sleep(0.0001)
        await asyncio.gather(serve(Tier.PAGE), *map(one, world.asks))
        await asyncio.sleep(5)  # what was hedged ends
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(everything())
    finally:
        loop.close()
    outcomes.sort(key=lambda each: each.asked.number)
    for outcome in outcomes:
        outcome.spend = sum(world.spend[tier] for tier in outcome.began)
    return outcomes


_manifests: dict[tuple[str, Tier, float], Function] = {}


def loaded(scenario: Scenario, name: str, tier: Tier, spend: float) -> Function:
    """Return a function whose work is simulated, advertised with what was measured of it."""
    work = scenario.work(name)
    variant = Variant(
        tier=tier,
        model=f"{name}-{tier}",
        quality=work.quality[tier],
        ms=work.ms[tier],
        spend=spend,
    )
    schema = Schema(name=name, entry="work", doc="", inputs=(Input(name="image", kind="image"),))
    manifest = Manifest(
        name=name, version="1.0.0", function=schema, variants=(variant,), licence="none"
    )
    return Function(manifest, variant, SOURCE.format(name=name), "0" * 64)
