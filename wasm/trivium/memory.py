"""What is known of roads: how long work, way and queue take, how surely, and since when?

What roads have in common is kept once: a tier's pace, its queue, and the link that leads to it.
"""

from __future__ import annotations

from math import exp, inf, log

from .contract import Road, Tier
from .seen import ADVERT, Fading, Known, Level, Spread, Times, mixed, within

FAILURES = 3
"""How many failures in a row close a road."""

COOL_MS = (1_000.0, 8_000.0)
"""How long a closed road stays closed: at first, and at most."""

LATE = 1.4
"""What was given up would have taken so many times as long."""

QUEUE_MS = 4_000.0
"""After this time half of a queue that was told is taken to be gone."""

HEDGES = 0.1
"""What share of the asks may be hedged."""

SHADOW = 0x5AD0
"""What makes another series of a seed."""

MS_A_BYTE = 1 / 1250
"""What a link is taken for until something crossed it: 10 Mbit/s."""

_POINTS = ((0.15, 0.3), (0.5, 0.4), (0.8, 0.2), (0.93, 0.06), (0.985, 0.04))
"""Where a link's scatter is looked at, and how much each stands for."""

UNKNOWN = ((0.1, 0.3), (0.4, 0.3), (1.0, 0.25), (3.0, 0.15))
"""The same for a link that nothing crossed as yet."""


class Link:
    """The way to the next tier: its round trip, its time for a byte, and how they scatter."""

    __slots__ = ("_byte", "_points", "_rtt", "_told", "scatter", "trouble")

    def __init__(self) -> None:
        self._rtt: Level | None = None
        self._byte = Level(log(MS_A_BYTE))
        self._told = 0.0
        # A link of which nothing is known may be ten times as wide.
        self._points: tuple[tuple[float, float], ...] = UNKNOWN
        self.scatter = Spread()
        self.trouble = Fading()

    def told(self, hop: float, now: float) -> None:
        """Take in what the last poll took, which each road to there says."""
        if hop != self._told and hop > 0:
            self._told = hop
            self.trouble.clear()
            if self._rtt is None:
                self._rtt = Level(log(hop))
            self._rtt.add(log(hop) - self._rtt.at(now), now)

    def states(self, size: int, now: float) -> tuple[float, float, float]:
        """Return how long a way is as last seen, as it has long been, and how likely the first."""
        rtt, byte = self._rtt, self._byte
        if rtt is None:
            return 1.0 + size * exp(byte.last), 1.0 + size * exp(byte.long), byte.held(now)
        return (
            exp(rtt.last) + size * exp(byte.last),
            exp(rtt.long) + size * exp(byte.long),
            # A round trip is polled, and so known; what a byte takes is not.
            byte.held(now) if size > 4096 else rtt.held(now),
        )

    def ms(self, size: int, now: float) -> float:
        """Return how long `size` bytes and an answer are on the way."""
        there = exp(self._rtt.at(now)) if self._rtt else 1.0
        return there + size * exp(self._byte.at(now))

    def add(self, size: int, ms: float, now: float) -> None:
        """Take in one way there and back."""
        ms = max(ms, 0.05)
        if self._rtt is None:
            self._rtt = Level(log(ms))
        there = exp(self._rtt.at(now))
        whole = there + size * exp(self._byte.at(now))
        off = log(ms / whole)
        self._rtt.add(off * there / whole, now)
        self._byte.add(off * (1 - there / whole), now)
        # In hundredths, for it has the bins of milliseconds.
        self.scatter.add(100 * ms / whole, now)
        if self.scatter.total > 2 * self.scatter.gain:
            quantile = self.scatter.quantile
            self._points = tuple((quantile(at) / 100, share) for at, share in _POINTS)

    def points(self) -> tuple[tuple[float, float], ...]:
        """Return factors of the expected time, each with its share."""
        return self._points


class Memory:
    """What was measured from one tier; `seed` decides when it explores."""

    def __init__(self, seed: int = 0) -> None:
        self.link = Link()
        self.asked = self.explored = self.hedged = self.shadowed = 0
        self._seed = seed
        self._known: dict[tuple[str, Tier], Known] = {}
        self._pace: dict[Tier, Level] = {tier: Level(0.0) for tier in Tier}
        self._queue: dict[Tier, tuple[float, float, float]] = {}
        self._trouble: dict[tuple[str, Tier], Fading] = {}
        self._failures: dict[tuple[str, Tier], tuple[int, float]] = {}

    def begun(self, function: str, road: Road, size: int, now: float) -> None:
        """Remember that `road` is being taken."""
        self._about(function, road).spread(size).tried = now

    def crossed(self, tier: Tier, size: int, ms: float, queue: float, now: float) -> None:
        """Remember that an ask was `ms` on the way to the next tier, and the queue it was told."""
        self.link.add(size, ms, now)
        self.link.trouble.add(False, now)
        self._queue[tier] = (queue, now, self._queue.get(tier, (0.0, 0.0, 0.0))[2])

    def measured(self, function: str, road: Road, size: int, ms: float, now: float) -> None:
        """Remember that `road` answered after `ms`, the way to the next tier not counted."""
        tier = road.tier
        work = max(ms - road.queue, 0.2 * ms, 0.05)
        self._failures.pop((function, tier), None)
        trouble = self._trouble.get((function, tier))
        if trouble is not None:
            trouble.add(False, now)
        known = self._about(function, road)
        spread = known.spread(size)
        if spread.tried < 0:
            spread.prior = _behind(road)
        spread.tried = now
        if road.cold:
            spread.seen = now
            return
        pace = self._pace[tier]
        inside, outside = known.shift(size)
        # By its mean: a quantile is only as fine as its bin, and the pace would drift with that.
        weight = spread.weight(now)
        usual = weight * spread.mean + ADVERT * (log(spread.prior[1]) + outside)
        usual /= weight + ADVERT
        # What this tier's other work shares: a slow device, a hot or busy one.
        pace.add(log(work) - usual - inside - pace.at(now), now)
        work /= exp(pace.at(now))
        spread.add(work / exp(inside), now)
        known.add(size, work)

    def late(self, function: str, road: Road, size: int, ms: float, now: float) -> None:
        """Remember that `road`, as it was planned, had not answered after `ms` and was given up."""
        planned = road.ms[1]
        if ms < planned:
            return
        # It would have taken longer, by we do not know how much.
        if road.hop:
            way = min(self.link.ms(size, now), planned)
            self.link.add(size, LATE * ms - planned + way, now)
        else:
            self._pace[road.tier].add(log(LATE * ms / planned), now)
        if ms > 3 * planned:
            self._troubled(function, road.tier).add(True, now)

    def failed(self, function: str, tier: Tier, now: float, *, unreachable: bool = False) -> None:
        """Remember that `tier` could not answer."""
        count = self._failures.get((function, tier), (0, 0.0))[0] + 1
        first, most = COOL_MS
        closed = min(most, first * 2 ** (count - FAILURES)) if count >= FAILURES else 0.0
        self._failures[function, tier] = (count, now + closed)
        (self.link.trouble if unreachable else self._troubled(function, tier)).add(True, now)

    def closed(self, function: str, tier: Tier, now: float) -> bool:
        """Return whether `tier` failed so often of late that it should be left alone."""
        return now < self._failures.get((function, tier), (0, 0.0))[1]

    def queue(self, road: Road, now: float) -> float:
        """Return how long an ask would wait on the road's tier, by what was told last."""
        if not road.hop:
            return road.queue
        queue, seen, advert = self._queue.get(road.tier, (0.0, 0.0, -1.0))
        if road.queue != advert:
            self._queue[road.tier] = (road.queue, now, road.queue)
            return road.queue
        return queue and queue * 0.5 ** (max(0.0, now - seen) / QUEUE_MS)

    def expected(self, function: str, road: Road, size: int | None, now: float) -> Times:
        """Return the p5, p50 and p95 of the road's work; without a size, of those seen last."""
        known = self._about(function, road)
        if size is None and not known.count:
            return road.ms
        size = known.size if size is None else size
        inside, outside = known.shift(size)
        pace = exp(self._pace[road.tier].at(now) + inside)
        low, middle, high = mixed(known.spread(size, _behind(road)), now, outside)
        return pace * low, pace * middle, pace * high

    def outlook(
        self, function: str, road: Road, size: int, ms: float | None, now: float
    ) -> tuple[Times, float, float]:
        """Return the p5, p50 and p95 until the answer, its likelihood within `ms`, and the wait."""
        link = self.link
        trouble = self._trouble.get((function, road.tier))
        chance = 1.0 - trouble.at(now) if trouble is not None else 1.0
        known, prior = self._about(function, road), _behind(road)
        spread = known.spread(size, prior)
        inside, outside = known.shift(size)
        level = self._pace[road.tier]
        pace, held = exp(level.at(now) + inside), level.held(now)
        wait = self.queue(road, now)
        weight = spread.weight(now)
        if road.cold and (not weight or now - spread.seen > 5_000.0):
            wait += road.cold
        low, middle, high = mixed(spread, now, outside)
        low, middle, high = wait + pace * low, wait + pace * middle, wait + pace * high
        points: tuple[tuple[float, float], ...] = ((0.0, 1.0),)
        last = long = 0.0
        if road.hop:
            way = link.ms(size, now)
            last, long, still = link.states(size, now)
            held = min(held, still)
            points = link.points()
            chance *= 1.0 - link.trouble.at(now)
            low, middle, high = low + way * points[0][0], middle + way, high + way * points[-2][0]
        times = (low, middle, high)
        if ms is None:
            return times, chance, wait

        def likely(pace: float, way: float) -> float:
            found, carried = 0.0, exp(-outside)
            for factor, share in points:
                left = (ms - wait - way * factor) / pace
                if left <= 0.0:
                    break
                if weight:
                    seen = spread.below(left)
                    if weight < 40 * ADVERT:
                        advert = within(prior, left * carried)
                        seen = (weight * seen + ADVERT * advert) / (weight + ADVERT)
                else:
                    seen = within(prior, left * carried)
                found += share * seen
            return found

        # A change that was seen is believed until it is long ago, not halved by and by: what is
        # half as slow as it was may never be.
        now_or_never = likely(exp(level.last + inside), last)
        if held < 0.98:
            later = likely(exp(level.long + inside), long)
            now_or_never = held * now_or_never + (1 - held) * later
        return times, chance * now_or_never, wait

    def stale(self, function: str, road: Road, size: int, now: float) -> float:
        """Return for how many ms the road was not taken; for ever if it never was."""
        tried = self._about(function, road).spread(size).tried
        return now - tried if tried >= 0 else inf

    def dice(self) -> float:
        """Return the next number below 1 of a series that the seed decides."""
        self.asked += 1
        return self._drawn(self._seed)

    def may_shadow(self, share: float) -> bool:
        """Return whether to ask another road as well, by the seed, and for a share at most."""
        return self.shadowed < share * self.asked and self._drawn(self._seed + SHADOW) < share

    def _drawn(self, seed: int) -> float:
        x = (self.asked * 0x9E3779B9 + seed * 0x85EBCA6B) & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * 0x21F0AAAD) & 0xFFFFFFFF
        x = ((x ^ (x >> 15)) * 0x735A2D97) & 0xFFFFFFFF
        return (x ^ (x >> 15)) / 0x100000000

    def may_hedge(self) -> bool:
        """Return whether another hedge stays within the share that is allowed."""
        return self.hedged < 3 + HEDGES * self.asked

    def _troubled(self, function: str, tier: Tier) -> Fading:
        return self._trouble.setdefault((function, tier), Fading())

    def _about(self, function: str, road: Road) -> Known:
        place = (function, road.tier)
        known = self._known.get(place)
        if known is None or known.version != road.version:
            # Another version may be quicker or slower: it begins anew.
            known = self._known[place] = Known(road.version)
        return known


def _behind(road: Road) -> Times:
    """Return the advertised times without the way there."""
    hop = road.hop
    if not hop:
        return road.ms
    low, middle, high = road.ms
    return max(0.1, low - hop), max(0.2, middle - hop), max(0.3, high - 2 * hop)
