"""What does chance draw of a scenario: links, machines and asks?

All of it is drawn beforehand, per ask and tier, so that every policy meets the same world, and an
oracle can be told what would have been.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from bench.scenario import Link, Place, Scenario
from trivium.contract import Budget, Tier

STEP_MS = 100.0
"""How finely links and loads are drawn."""

OVERHEAD_BYTES = 700.0


class Asked(msgspec.Struct):
    """One ask as drawn: by tier its work and its luck, by link and direction its jitter."""

    number: int
    at: float
    function: str
    size: int
    budget: Budget
    work: dict[Tier, float]
    luck: dict[Tier, float]
    jitter: dict[str, float]


def moments(seconds: float) -> np.ndarray:
    """Return when what is drawn may change, in seconds, until the last ask has ended."""
    times: np.ndarray = np.arange(int((seconds + 90) * 1e3 / STEP_MS)) * STEP_MS / 1e3
    return times


class Way:
    """A link as it is drawn: every STEP_MS its round trip and its bytes per ms each way."""

    def __init__(self, link: Link, seconds: float, dice: np.random.Generator) -> None:
        times = moments(seconds)
        steps = len(times)

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
            (link.outages_a_minute, link.outage_s, None),
        ):
            for _ in range(dice.poisson(often * seconds / 60)):
                first = int(dice.uniform(0, seconds) * 1e3 / STEP_MS)
                last = first + 1 + int(dice.exponential(long) * 1e3 / STEP_MS)
                if times_ is None:
                    up[first:last] = down[first:last] = 0.0
                else:
                    rtt[first:last] *= times_
        offline = np.zeros(steps, bool)
        for change in link.changes:
            span = (times >= change.at_s) & (times < change.until_s)
            rtt[span] *= change.rtt * change.times
            share = 1 / (change.bandwidth * change.times)
            share = 0.0 if change.silent or change.offline else share
            up[span] *= share
            down[span] *= share
            offline |= span & change.offline
        self.tcp = link.tcp
        self.reset()
        self.offline: list[bool] = offline.tolist()
        self.rtt: list[float] = rtt.tolist()
        # Mbit/s to bytes a millisecond.
        self.widths: tuple[list[float], list[float]] = ((up * 125).tolist(), (down * 125).tolist())

    def reset(self) -> None:
        """Forget what was sent."""
        self._free = [0.0, 0.0]

    def step(self, now: float) -> int:
        return int(max(0, min(len(self.rtt) - 1, now / STEP_MS)))

    def is_offline(self, now: float) -> bool:
        return self.offline[self.step(now)]

    def arrival(self, now: float, size: float, direction: int, jitter: float) -> float:
        """Return when `size` bytes sent now have arrived; infinity if never."""
        late = self.rtt[self.step(now)] / 2 * jitter
        if self.tcp:
            free = max(now, self._free[direction])
            return self.sent(free, size + OVERHEAD_BYTES, direction) + late
        return self.sent(now + late, size + OVERHEAD_BYTES, direction)

    def carry(self, now: float, size: float, direction: int, jitter: float) -> float:
        """Return the same; what shares the link comes behind it from now on."""
        arrival = self.arrival(now, size, direction, jitter)
        self._free[direction] = arrival - self.rtt[self.step(now)] / 2 * jitter
        return arrival

    def sent(self, now: float, left: float, direction: int) -> float:
        """Return when `left` bytes that the link takes from now on have left; infinity if never."""
        widths = self.widths[direction]
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
        times = moments(seconds)
        steps = len(times)
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
        self.times: list[float] = slow.tolist()
        self.fails: list[float] = fails.tolist()
        self.reset()

    def reset(self) -> None:
        """Forget our own asks."""
        self.ours, self.seen = 0.0, 0.0
        self.used: dict[str, float] = {}

    def step(self, now: float) -> int:
        return min(len(self.others) - 1, int(now / STEP_MS))

    def wait(self, now: float) -> float:
        """Return how long work that comes now waits."""
        lanes = self.place.lanes
        spare = (lanes - 1) * self.place.job_ms
        return max(0.0, self.others[self.step(now)] + self.left(now) - spare) / lanes

    def left(self, now: float) -> float:
        """Return how much of our own asks' work is not done."""
        return max(0.0, self.ours - (now - self.seen) * self.place.lanes)

    def cold(self, function: str, now: float) -> float:
        """Return how long the function takes to load now."""
        last = self.used.get(function)
        return self.place.cold_ms if last is None or now - last > self.place.idle_s * 1e3 else 0.0

    def ends(self, now: float, function: str, work: float) -> float:
        """Return when work that comes now is done."""
        now += self.cold(function, now)
        return now + self.wait(now) + work * self.times[self.step(now)]

    def enter(self, now: float, function: str, work: float) -> float:
        """Return when work that comes now is done, and take it in."""
        end = self.ends(now, function, work)
        self.ours = self.left(now) + work * self.times[self.step(now)]
        self.seen = now
        self.used[function] = end
        return end

    def broken(self, now: float, luck: float) -> bool:
        return luck < self.fails[self.step(now)]


class World:
    """A scenario, drawn: the same for every policy."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        root = np.random.SeedSequence([11, scenario.seed])
        asks, *rest = (np.random.default_rng(each) for each in root.spawn(6))
        seconds = scenario.seconds
        self.near = Way(scenario.link("near"), seconds, rest[0])
        self.far = Way(scenario.link("far"), seconds, rest[1])
        places = (scenario.page, scenario.edge, scenario.cloud)
        self.spend = {tier: place.spend for tier, place in zip(Tier, places, strict=True)}
        self.machines = {
            tier: Machine(place, seconds, dice)
            for tier, place, dice in zip(Tier, places, rest[2:], strict=True)
        }
        self.asks = self._draw(asks)

    def reset(self) -> None:
        """Begin again: links and machines know nothing of an earlier policy's asks."""
        self.near.reset()
        self.far.reset()
        for machine in self.machines.values():
            machine.reset()

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
        work = self.scenario.work(asked.function)
        at = now + sum(
            work.beside.get(each, 0.0) for each in Tier if each.distance <= tier.distance
        )
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
