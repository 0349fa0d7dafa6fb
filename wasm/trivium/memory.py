"""What is known of roads: how long work, way and queue take, how surely, and since when?

What roads have in common is kept once: a tier's pace, its queue, and the link that leads to it.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, log

from .contract import Road, Tier
from .seen import LATE, Fading, Known, Level, Points, Spread, Times, mixed

FAILURES = 3
"""How many failures in a row close a road."""

COOL_MS = (1_000.0, 8_000.0)
"""How long a closed road stays closed: at first, and at most."""

QUEUE_MS = 4_000.0
"""After this time half of a queue that was told is taken to be gone."""

HEDGES = 0.1
"""What share of the asks may be hedged."""

OWN = 0.5
"""So many measurements of its own make a function half a witness of its tier's pace."""

SHADOW = 0x5AD0
"""What makes another series of a seed."""

MS_A_BYTE = 1 / 1250
"""What a link is taken for until something crossed it: 10 Mbit/s."""

NO_WAY: Points = ((0.0, 1.0),)

_POINTS = ((0.15, 0.3), (0.5, 0.4), (0.8, 0.2), (0.93, 0.06), (0.985, 0.04))
"""Where a link's scatter is looked at, and how much each stands for."""

STEPS = 16
"""So many steps of a pipeline are told apart; further ones are taken for like the last."""

BOUND = 16
"""So many of the last asks are kept that only one tier could answer in time."""

UNKNOWN = ((0.1, 0.3), (0.4, 0.3), (1.0, 0.25), (3.0, 0.15))
"""The same for a link that nothing crossed as yet."""


class Link:
    """The way to the next tier: its round trip, its time for a byte, and how they scatter."""

    __slots__ = ("_byte", "_known", "_rtt", "_told", "ends", "points", "scatter", "trouble")

    def __init__(self) -> None:
        self._rtt: Level | None = None
        self._byte = Level(log(MS_A_BYTE))
        self._told = 0.0
        self._known: tuple[int, float, tuple[float, float, float, float, float]] | None = None
        # Factors of the expected time, each with its share: a link of which nothing is known may be
        # ten times as wide.
        self.points: Points = UNKNOWN
        self.ends = 0.1, 1.0
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
            self._known = None

    def states(self, size: int, now: float) -> tuple[float, float, float, float, float]:
        """Return how long a way is now, as last seen, as it has long been, and two likelihoods.

        They are that it still is as last seen, and that it fails.
        """
        known = self._known
        if known is not None and known[0] == size and known[1] == now:
            # All roads behind one link have it in common.
            return known[2]
        rtt, byte = self._rtt, self._byte
        wide, still = byte.now(now)
        way, last, long = size * exp(wide), size * exp(byte.last), size * exp(byte.long)
        if rtt is None:
            found = 1.0 + way, 1.0 + last, 1.0 + long, still, self.trouble.at(now)
        else:
            there, held = rtt.now(now)
            found = (
                exp(there) + way,
                exp(rtt.last) + last,
                exp(rtt.long) + long,
                # A round trip is polled, and so known; what a byte takes is not.
                still if size > 4096 else held,
                self.trouble.at(now),
            )
        self._known = size, now, found
        return found

    def ms(self, size: int, now: float) -> float:
        """Return how long `size` bytes and an answer are on the way."""
        return self.states(size, now)[0]

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
        self._known = None
        # In hundredths, for it has the bins of milliseconds.
        self.scatter.add(100 * ms / whole, now)
        if self.scatter.total > 2 * self.scatter.gain:
            quantile = self.scatter.quantile
            points = self.points = tuple((quantile(at) / 100, share) for at, share in _POINTS)
            # While a link gets better all ways are shorter than expected.
            self.ends = min(points[0][0], 1.0), max(points[-2][0], 1.0)

    def failed(self, failed: bool, now: float) -> None:
        """Take in whether the way there was found."""
        self.trouble.add(failed, now)
        self._known = None


class Memory:
    """What was measured from one tier; `seed` decides when it explores.

    How long what is `unsteady` takes is up to what it says, and tells nothing of its tier's pace.
    `narrow` is whether it does one thing at a time; `bound` when asks came that it alone could
    answer in time, and how long they could have waited.
    """

    def __init__(self, seed: int = 0) -> None:
        self.link = Link()
        self.asked = self.explored = self.hedged = self.shadowed = 0
        self.narrow = False
        self.unsteady: set[str] = set()
        self.bound: deque[tuple[float, float]] = deque(maxlen=BOUND)
        self._seed = seed
        self._known: dict[str, dict[Tier, Known]] = {}
        self._pace: dict[Tier, Level] = {tier: Level(0.0) for tier in Tier}
        self._steps: dict[tuple[str, int], float] = {}
        self._taken: dict[Tier, float] = {}
        self._queue: dict[Tier, tuple[float, float, float]] = {}
        self._trouble: dict[tuple[str, Tier], Fading] = {}
        self.failures: dict[tuple[str, Tier], tuple[int, float]] = {}

    def begun(self, function: str, road: Road, size: int, now: float) -> None:
        """Remember that `road` is being taken."""
        self._about(function, road).place(size)[0].tried = self._taken[road.tier] = now

    def crossed(self, tier: Tier, size: int, ms: float, queue: float, now: float) -> None:
        """Remember that an ask was `ms` on the way to the next tier, and the queue it was told."""
        self.link.add(size, ms, now)
        self.link.failed(False, now)
        self._queue[tier] = (queue, now, self._queue.get(tier, (0.0, 0.0, 0.0))[2])

    def measured(self, function: str, road: Road, size: int, ms: float, now: float) -> None:
        """Remember that `road` answered after `ms`, the way to the next tier not counted."""
        tier = road.tier
        work = max(ms - road.queue, 0.2 * ms, 0.05)
        self.failures.pop((function, tier), None)
        trouble = self._trouble.get((function, tier))
        if trouble is not None:
            trouble.add(False, now)
        known = self._about(function, road)
        spread, inside, outside = known.place(size)
        if spread.tried < 0:
            spread.told(_behind(road))
        spread.tried = now
        if road.cold:
            spread.seen = now
            return
        pace = self._pace[tier]
        # By its mean: a quantile is only as fine as its bin, and the pace would drift with that.
        weight = spread.weight(now)
        usual = spread.mean if weight else log(spread.prior[1]) + outside
        # What this tier's other work shares: a slow device, a hot or busy one. That an advert is
        # wrong tells nothing of it; only what this itself took before does.
        if function not in self.unsteady:
            pace.add(log(work) - usual - inside - pace.at(now), now, weight / (weight + OWN))
        work /= exp(pace.at(now))
        spread.add(work / exp(inside), now)
        known.add(size, work)

    def late(self, function: str, road: Road, size: int, ms: float, now: float) -> None:
        """Remember that `road`, as it was planned, had not answered after `ms` and was given up."""
        planned = road.ms[1]
        if ms < planned or function in self.unsteady:
            return
        # It would have taken longer, by we do not know how much.
        if road.hop:
            way = min(self.link.ms(size, now), planned)
            self.link.add(size, LATE * ms - planned + way, now)
        else:
            self._pace[road.tier].add(log(LATE * ms / planned), now)
        if ms > 3 * planned:
            self._troubled(function, road.tier).add(True, now)

    def failed(
        self,
        function: str,
        tier: Tier,
        now: float,
        *,
        unreachable: bool = False,
        here: bool = False,
    ) -> None:
        """Remember that `tier` could not answer; one that is `here` is tried again soon."""
        count = self.failures.get((function, tier), (0, 0.0))[0] + 1
        first, most = COOL_MS
        closed = min(most, first * 2 ** (count - FAILURES)) if count >= FAILURES else 0.0
        if here:
            # It takes no way to find out, and nobody else is in its way.
            closed = min(closed, first)
        self.failures[function, tier] = (count, now + closed)
        if unreachable:
            self.link.failed(True, now)
        else:
            self._troubled(function, tier).add(True, now)

    def closed(self, function: str, tier: Tier, now: float) -> bool:
        """Return whether `tier` failed so often of late that it should be left alone."""
        return now < self.failures.get((function, tier), (0, 0.0))[1]

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
        spread, inside, outside = known.place(size, _behind(road))
        pace = exp(self._pace[road.tier].at(now) + inside)
        low, middle, high = mixed(spread, spread.weight(now), outside)
        return pace * low, pace * middle, pace * high

    def outlook(
        self, function: str, road: Road, size: int, ms: float | None, now: float
    ) -> tuple[Times, float, float]:
        """Return the p5, p50 and p95 until the answer, its likelihood within `ms`, and the wait."""
        chance, held = 1.0, 1.0
        if self._trouble and (trouble := self._trouble.get((function, road.tier))) is not None:
            chance -= trouble.at(now)
        spread, inside, outside = self._about(function, road).place(size, _behind(road))
        level = self._pace[road.tier]
        here, held = level.now(now)
        pace, wait = exp(here + inside), self.queue(road, now) if road.hop else road.queue
        weight = spread.weight(now)
        if road.cold and (not weight or now - spread.seen > 5_000.0):
            wait += road.cold
        low, middle, high = mixed(spread, weight, outside)
        low, middle, high = wait + pace * low, wait + pace * middle, wait + pace * high
        points, last, long = NO_WAY, 0.0, 0.0
        if road.hop:
            way, last, long, still, failing = self.link.states(size, now)
            held = min(held, still)
            points = self.link.points
            chance *= 1.0 - failing
            below, above = self.link.ends
            low, middle, high = low + way * below, middle + way, high + way * above
        times = (low, middle, high)
        if ms is None:
            return times, chance, wait
        # A change that was seen is believed until it is long ago, not halved by and by: what is
        # half as slow as it was may never be.
        left, carried = ms - wait, exp(-outside) if outside else 1.0
        sure = spread.within(left, exp(level.last + inside), last, points, weight, carried)
        if held < 0.98:
            later = spread.within(left, exp(level.long + inside), long, points, weight, carried)
            sure = held * sure + (1 - held) * later
        return times, chance * sure, wait

    def stale(self, function: str, road: Road, size: int, now: float) -> float:
        """Return for how many ms the road was not taken; for ever if it never was."""
        tried = self._about(function, road).place(size)[0].tried
        return now - tried if tried >= 0 else inf

    def stepped(self, function: str, place: int, share: float) -> None:
        """Remember what share a pipeline's step took of the time from its begin on."""
        at = function, min(place, STEPS - 1)
        known = self._steps.get(at, share)
        self._steps[at] = known + 0.2 * (share - known)

    def share(self, function: str, place: int) -> float | None:
        """Return what share a pipeline's step usually takes, if it was ever seen."""
        return self._steps.get((function, min(place, STEPS - 1)))

    def harm(self, ms: float, now: float) -> float:
        """Return how many that only this tier can answer will be late if it is busy for `ms`.

        As many as came of late, each at any time of that, and with what time it had to wait.
        """
        since = max(1_000.0, now - self.bound[0][0])
        return sum([ms - slack for _, slack in self.bound if slack < ms]) / since

    def idle(self, tier: Tier, now: float) -> float:
        """Return for how many ms `tier` was not taken, whatever for; for ever if it never was."""
        return now - self._taken.get(tier, -inf)

    def dice(self) -> float:
        """Return this ask's number below 1 of a series that the seed decides."""
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
        tiers = self._known.get(function)
        if tiers is None:
            tiers = self._known[function] = {}
        known = tiers.get(road.tier)
        if known is None or known.version != road.version:
            # Another version may be quicker or slower: it begins anew.
            known = tiers[road.tier] = Known(road.version)
        return known


def _behind(road: Road) -> Times:
    """Return the advertised times without the way there, each above nothing."""
    hop, (low, middle, high) = road.hop, road.ms
    if not hop and low > 0.0:
        return road.ms
    low, middle, high = low - hop, middle - hop, high - 2 * hop
    return low if low > 0.1 else 0.1, middle if middle > 0.2 else 0.2, high if high > 0.3 else 0.3
