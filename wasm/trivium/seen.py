"""How is kept what was seen of one thing: a time, a level, a likelihood, a queue?

Times are kept as shares of bins, the older the less, so that any quantile can be read off.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from math import exp, log

BINS = 64
_LOW, _STEP = log(0.5), log(1.22)
"""Bins begin at half a millisecond, each a fifth wider than the one before: up to two minutes."""

KEEP = 1.025
"""A new measurement weighs this much more than the one before it: half of all in 28."""

STALE_MS = 120_000.0
"""After this time without a new one, measurements weigh half."""

ADVERT = 1.0
"""As many measurements is an advert worth."""

DRIFT_MS = 6_000.0
"""After this time unseen, half of a sudden change is taken for over."""

TROUBLE_MS = 5_000.0
"""The same for a failure."""

LATE = 1.4
"""What was given up would have taken so many times as long."""

SIZES = 14
"""Inputs fall into so many classes; the last has all above a gigabyte."""

LOG_2 = log(2)

Times = tuple[float, float, float]
Points = tuple[tuple[float, float], ...]


def bucket(size: int) -> int:
    """Return the size class of an ask's inputs in bytes: each is four times the one before."""
    class_ = (size.bit_length() - 8) // 2
    return 0 if class_ < 0 else class_ if class_ < SIZES else SIZES - 1


class Spread:
    """Measurements as shares of bins; each new one weighs a little more than those before.

    `times` has their p5, p50 and p95, ready for whoever decides.
    """

    def __init__(self) -> None:
        self.prior: Times = (0.0, 0.0, 0.0)
        self.told((1.0, 10.0, 50.0))
        self.tried = -1.0
        self._bins = array("d", bytes(8 * BINS))
        self._sums = array("d", bytes(8 * (BINS + 1)))
        self._top = 0
        self.times = self.prior
        self.gain = 1.0
        self.total = self.mean = self.seen = 0.0

    def told(self, prior: Times) -> None:
        """Take in what is advertised: its p5, p50 and p95."""
        if prior == self.prior:
            return
        self.prior = low, middle, high = prior
        # A logistic of the time's logarithm: its p5 and p95 lie 2.944 from the middle.
        self._centre = log(middle)
        self._below = max(0.01, log(middle / low)) / 2.944
        self._above = max(0.01, log(high / middle)) / 2.944

    def add(self, ms: float, now: float) -> None:
        """Take in one measurement."""
        if self.total:
            self.gain *= KEEP * 2.0 ** (max(0.0, now - self.seen) / STALE_MS)
            if self.gain > 1e12:
                self._bins = array("d", [each / self.gain for each in self._bins])
                self.total /= self.gain
                self.gain = 1.0
        place = min(int((log(ms) - _LOW) / _STEP), BINS - 1) if ms > 0.5 else 0
        self._bins[place] += self.gain
        self._top = max(self._top, place + 1)
        self.total += self.gain
        self.mean += self.gain / self.total * (log(max(ms, 0.01)) - self.mean)
        self.seen = now
        self._sums = array("d", accumulate(self._bins, initial=0.0))
        self.times = self.quantile(0.05), self.quantile(0.5), self.quantile(0.95)

    def weight(self, now: float) -> float:
        """Return how many fresh measurements all are worth."""
        if not self.total:
            return 0.0
        gone = now - self.seen
        fresh: float = self.gain * 2.0 ** (gone / STALE_MS) if gone > 0.0 else self.gain
        return self.total / fresh

    def within(
        self, ms: float, pace: float, way: float, points: Points, weight: float, carried: float
    ) -> float:
        """Return how likely work at this pace, and the way at each of its points, end within `ms`.

        The advert counts beside the evidence while that weighs little.
        """
        share = weight / (weight + ADVERT) if weight < 40 * ADVERT else 1.0
        rest, top, sums, found = 1.0 - share, self._top if weight else 0, self._sums, 0.0
        centre = self._centre if carried == 1.0 else self._centre - log(carried)
        for factor, often in points:
            left = (ms - way * factor) / pace
            if left <= 0.0:
                break
            at = log(left)
            place = (at - _LOW) / _STEP
            if place <= 0.0:
                seen = 0.0
            elif place >= top:
                seen = share
            else:
                i = int(place)
                low = sums[i]
                seen = share * ((low + (place - i) * (sums[i + 1] - low)) / sums[BINS])
            if rest:
                off = at - centre
                odds = off / (self._above if off > 0.0 else self._below)
                if odds > -40.0:
                    seen += rest / (1.0 + exp(-odds))
            found += often * seen
        return found

    def quantile(self, share: float) -> float:
        """Return the milliseconds below which a share of the measurements lies."""
        sums = self._sums
        goal = share * sums[BINS]
        i = bisect_left(sums, goal, 1)
        inside = (goal - sums[i - 1]) / ((sums[i] - sums[i - 1]) or 1.0)
        return exp(_LOW + (i - 1 + inside) * _STEP)


class Level:
    """The logarithm of something that may jump: it is followed at once, and forgotten slowly.

    `last` is what it was when last seen, `long` what it has long been.
    """

    __slots__ = ("_off", "_seen", "count", "last", "long")

    def __init__(self, start: float) -> None:
        self.last = self.long = start
        self._off = 0.0
        self._seen = 0.0
        self.count = 0

    def now(self, now: float) -> tuple[float, float]:
        """Return what it is by now, and how likely it still is as last seen.

        Unseen, it comes back to what it has long been; if it was as ever, it surely still is.
        """
        change, gone = self.last - self.long, now - self._seen
        still = 0.5 ** (gone / DRIFT_MS) if gone > 0.0 else 1.0
        return self.long + change * still, 1.0 if -0.05 < change < 0.05 else still

    def at(self, now: float) -> float:
        """Return what it is by now."""
        return self.now(now)[0]

    def add(self, by: float, now: float, trust: float = 1.0) -> None:
        """Take in that it was seen to be off by so much, as far as that is to be trusted.

        What is new has to be learnt from whatever there is.
        """
        here = self.at(now)
        self.count += 1
        # Two surprises of a kind are a change; one may be chance.
        share = 0.75 if by * self._off > 0.25 else 0.3
        new = 1 / (self.count + 0.2)
        self.last = here + max(trust * share, new) * by
        self.long += max(trust * 0.03, new) * (here + by - self.long)
        self._off = by
        self._seen = now


class Fading:
    """A likelihood of failing: raised by each failure, lowered by each answer and by time."""

    __slots__ = ("_seen", "_share")

    def __init__(self) -> None:
        self._share = self._seen = 0.0

    def at(self, now: float) -> float:
        """Return the likelihood now."""
        if not self._share:
            return 0.0
        here: float = self._share * 0.5 ** (max(0.0, now - self._seen) / TROUBLE_MS)
        return here

    def add(self, failed: bool, now: float) -> None:
        """Take in one outcome."""
        share = self.at(now)
        self._share = share + 0.4 * (1 - share) if failed else 0.4 * share
        self._seen = now

    def clear(self) -> None:
        """Forget all failures."""
        self._share = 0.0


class Known:
    """What is known of one version of a function on one tier: its times by size, and how it grows.

    Within a class of sizes, and to one that was never seen, times are carried by size ** grows.
    """

    __slots__ = ("_x", "_xx", "_xy", "_y", "count", "grows", "size", "spreads", "version")

    def __init__(self, version: str) -> None:
        self.version = version
        self.spreads: dict[int, Spread] = {}
        self.size = self.count = 0
        self.grows = 0.0
        self._x = self._y = self._xx = self._xy = 0.0

    def place(self, size: int, prior: Times | None = None) -> tuple[Spread, float, float]:
        """Return the spread of a size's class, which a prior renews, and two logarithms.

        They are of the size's time over its class's, and of its class's over all.
        """
        class_ = bucket(size)
        spread = self.spreads.get(class_)
        if spread is None:
            spread = self.spreads[class_] = Spread()
        if prior is not None and prior is not spread.prior:
            spread.told(prior)
        grows = self.grows
        if not grows:
            return spread, 0.0, 0.0
        centre = (2 * class_ + 8) * LOG_2
        return spread, grows * (log(max(size, 1)) - centre), grows * (centre - self._x)

    def add(self, size: int, ms: float) -> None:
        """Take in one measurement."""
        x, y = log(max(size, 1)), log(ms)
        share = max(0.03, 1 / (self.count + 1))
        off = x - self._x
        self._x += share * off
        self._y += share * (y - self._y)
        self._xx += share * (off * (x - self._x) - self._xx)
        self._xy += share * (off * (y - self._y) - self._xy)
        self.count += 1
        self.size = size
        if self.count > 3:
            # The power of the size by which the time grows.
            self.grows = max(0.0, min(1.2, self._xy / (self._xx + 0.2)))


class Queue:
    """The asks that run on a tier, of which so many really do at once, the rest behind them.

    One that was given up still runs, as long as it should take by itself.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._free = 0.0
        self._asks: dict[object, tuple[float, float]] = {}
        self._left: set[object] = set()

    def begin(self, work: float, now: float) -> object:
        """Take in an ask that should take `work` ms by itself; return its token."""
        token = object()
        self._asks[token] = now, max(work, 0.1)
        return token

    def end(self, token: object, now: float) -> None:
        """Let an ask go that is done; those before it that were given up are done as well."""
        for other in list(self._left):
            if self._asks[other][0] <= self._asks[token][0]:
                self._left.remove(other)
                del self._asks[other]
        del self._asks[token]
        self._free = now

    def leave(self, token: object, now: float) -> None:
        """Let an ask go that was given up: what its session has begun goes on a while."""
        begun, work = self._asks[token]
        if next(iter(self._asks)) is token:
            work = max(work, LATE * (now - max(begun, self._free)))
        self._asks[token] = begun, work
        self._left.add(token)

    def wait(self, now: float) -> float:
        """Return the ms until an ask begun now would run."""
        if self._left:
            self._clear(now)
        if len(self._asks) < self._lanes:
            return 0.0
        total, late = 0.0, 1.0
        for place, (token, (begun, work)) in enumerate(self._asks.items()):
            if place >= self._lanes:
                total += work * late
                continue
            gone = now - max(begun, self._free)
            if token in self._left:
                total += max(0.0, work - gone)
            else:
                # What takes longer than it should will take longer still, and so will the rest.
                total += max(work - gone, 0.3 * gone)
                late = max(late, gone / work)
        return total / self._lanes

    def _clear(self, now: float) -> None:
        """Let go of the first ones, if they were given up and their time is over."""
        for token, (begun, work) in list(self._asks.items()):
            end = max(begun, self._free) + work
            if token not in self._left or end > now:
                return
            self._left.remove(token)
            del self._asks[token]
            self._free = end


def mixed(spread: Spread, weight: float, outside: float) -> Times:
    """Return p5, p50 and p95, the advert, carried to this class, weighed against the evidence."""
    low, middle, high = spread.prior
    if not weight:
        carry = exp(outside)
        return low * carry, middle * carry, high * carry
    share, seen = weight / (weight + ADVERT), spread.times
    carry = exp(outside * (1.0 - share)) if outside else 1.0
    return (
        carry * low * (seen[0] / low) ** share,
        carry * middle * (seen[1] / middle) ** share,
        carry * high * (seen[2] / high) ** share,
    )
