"""How would asks fare on page, edge and cloud, if links and machines were like this?

A discrete-event simulation of the kernel itself: three real engines on the real `Timing` (limits
and hedges), over an asyncio loop whose clock jumps to the next event. Simulated are only work, the
links and who else asks, as `world.py` draws them.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from bench.policies import Pick
from bench.scenario import Scenario
from bench.world import Asked, Machine, Way, World
from trivium.contract import (
    Answer,
    Ask,
    Blob,
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
from trivium.kinds import Decoded, Given, Image

POLL_MS = {Tier.PAGE: 3_000.0, Tier.EDGE: 2_000.0}
"""How often a tier asks the next for its roads: as hosts/fetch.py and hosts/server/upstream.py."""

PATIENCE_MS = 60_000.0
IDLE_MS = 5_000.0
"""After so long without a request uvicorn closes a connection."""

REFUSAL_BYTES = 200.0
ZEROS = bytes(40_000_000)

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

    async def free(self) -> None:
        """Wait for what runs, where it is in the way of all else."""
        machine = self._world.machines[self._tier]
        if machine.place.single and (left := machine.left(self.clock())):
            await asyncio.sleep(left / 1e3)

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

    async def encode(self, value: Decoded) -> Blob:
        assert isinstance(value.blob, Blob)  # simulated asks carry files alone
        return value.blob

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
        self._idle: list[float] = []

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
                    await self._connect()
                    await self._cross(100, 0, 1.0)
                    names = {each.function for each in self._world.asks}
                    roads = {name: self._engine.roads(name) for name in names}
                    await self._cross(self._world.scenario.advert * len(roads), 1, 1.0)
                self._idle.append(self._host.clock())
                self._roads = roads
                self._hop = self._host.clock() - begun
                self.known = True
            except (TimeoutError, TierUnreachable):
                self._roads = {
                    name: [replace(road, ready=False) for road in roads]
                    for name, roads in self._roads.items()
                }
            await asyncio.sleep(every / 1e3)

    async def _connect(self) -> None:
        """Take an open connection; where there is none, a round trip makes one."""
        now = self._host.clock()
        self._idle = [each for each in self._idle if now - each < IDLE_MS]
        if self._idle:
            self._idle.pop()
        elif self._way.tcp:
            await asyncio.sleep(self._way.rtt[self._way.step(now)] / 1e3)

    async def _cross(self, size: float, direction: int, jitter: float) -> None:
        now = self._host.clock()
        if self._way.is_offline(now):
            await asyncio.sleep(0.001)
            raise TierUnreachable("offline", tier=self._engine.tier)
        arrival = self._way.carry(now, size, direction, jitter)
        await asyncio.sleep(min(arrival - now, PATIENCE_MS) / 1e3)
        if arrival - now > PATIENCE_MS:
            raise TierUnreachable("no answer", tier=self._engine.tier)

    async def infer(self, ask: Ask) -> Answer:
        (blob,) = ask.inputs.values()
        assert isinstance(blob, Blob)
        asked = self._world.asks[int(blob.media)]
        work = self._world.scenario.work(asked.function)
        await self._connect()
        await self._cross(asked.size, 0, asked.jitter[f"{self._name}0"])
        back = asked.jitter[f"{self._name}1"]
        if beside := work.beside.get(self._engine.tier):
            await asyncio.sleep(beside / 1e3)
        try:
            answer = await self._engine.infer(ask)
        except TriviumError:
            await self._cross(REFUSAL_BYTES, 1, back)
            self._idle.append(self._host.clock())
            raise
        await self._cross(work.answer, 1, back)
        self._idle.append(self._host.clock())
        await self._host.free()
        return answer

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        """Give the answer alone: what is simulated has no parts."""
        yield await self.infer(ask)


class Outcome(msgspec.Struct):
    """How one ask fared; `began` holds the tiers where work was begun."""

    asked: Asked
    met: bool
    ms: float
    quality: float
    spend: float
    began: list[Tier]


def play(world: World, pick: Pick) -> list[Outcome]:
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
    view = memoryview(ZEROS)
    outcomes: list[Outcome] = []

    async def serve(tier: Tier) -> None:
        place = world.machines[tier].place
        await asyncio.sleep(place.ready_s)
        for name in functions:
            engines[tier].add(loaded(world.scenario, name, tier, place.spend))

    async def one(asked: Asked) -> None:
        await asyncio.sleep(asked.at / 1e3 - loop.now)
        now = loop.now * 1e3
        tiers = pick(world, asked, now)
        blob = Blob(media=str(asked.number), data=view[: asked.size])  # type: ignore[arg-type]
        ask = Ask(function=asked.function, inputs={"image": blob}, budget=asked.budget, tiers=tiers)
        answer: Answer | None = None
        await hosts[Tier.PAGE].free()
        if beside := world.scenario.work(asked.function).beside.get(Tier.PAGE):
            await asyncio.sleep(beside / 1e3)
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
                quality=quality,
                spend=0.0,
                began=began[asked.number],
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


def loaded(scenario: Scenario, name: str, tier: Tier, spend: float) -> Function:
    """Return a function whose work is simulated, advertised with what was measured of it."""
    work = scenario.work(name)
    variant = Variant(
        tier=tier,
        model=f"{name}-{tier}",
        quality=work.quality[tier],
        ms=work.told.get(tier, work.ms[tier]),
        spend=spend,
    )
    schema = Schema(name=name, entry="work", doc="", inputs=(Input(name="image", kind="image"),))
    manifest = Manifest(
        name=name, version="1.0.0", function=schema, variants=(variant,), licence="none"
    )
    return Function(manifest, variant, SOURCE.format(name=name), "0" * 64)
