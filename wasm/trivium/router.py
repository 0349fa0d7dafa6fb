"""Which roads should an ask take, in which order, and why?

A road must lie within the ask's reach, be ready and meet its quality floor: hard filters, fallbacks
included. Among those, the nearest whose expected time fits the budget goes first, then the others
by expected time. Expectations start from what is advertised and follow what is measured here.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from .contract import Budget, Plan, Road, Tier
from .errors import BudgetError, NotAllowed, TierUnreachable

WINDOW = 64
"""How many measurements a quantile is taken over."""

FORGET_MS = 300_000.0
"""A road not used for this long is expected to be as advertised again."""

FAILURES = 3
"""How many failures in a row close a road."""

COOL_MS = (1_000.0, 30_000.0)
"""How long a closed road stays closed: at first, and at most."""

HEDGE_MS = 50.0
"""The next road is never tried beside the first before this."""

Key = tuple[str, str, Tier, int]


def bucket(size: int) -> int:
    """Return the size class of an ask's inputs in bytes: each is four times the one before."""
    return max(0, (size.bit_length() - 8) // 2)


class Latency:
    """The last measurements of one road, kept in order; its advert counts as the first three."""

    __slots__ = ("advert", "recent", "seen", "sorted")

    def __init__(self, advert: tuple[float, float, float], now: float) -> None:
        self.advert = advert
        self.recent = deque(advert)
        self.sorted = sorted(advert)
        self.seen = now

    def add(self, ms: float, now: float) -> None:
        if len(self.recent) == WINDOW:
            del self.sorted[bisect_left(self.sorted, self.recent.popleft())]
        self.recent.append(ms)
        insort(self.sorted, ms)
        self.seen = now

    def quantiles(self) -> tuple[float, float, float]:
        last = len(self.sorted) - 1
        return (
            self.sorted[round(0.05 * last)],
            self.sorted[round(0.5 * last)],
            self.sorted[round(0.95 * last)],
        )


class Memory:
    """What was measured from here: each road's latency by size of input, and its failures."""

    def __init__(self) -> None:
        self._latency: dict[Key, Latency] = {}
        self._latest: dict[tuple[str, str, Tier], Key] = {}
        self._failures: dict[tuple[str, Tier], tuple[int, float]] = {}

    def measured(self, function: str, road: Road, size: int, ms: float, now: float) -> None:
        """Remember that `road` answered after `ms`."""
        key = (function, road.version, road.tier, bucket(size))
        self._latest[key[:3]] = key
        known = self._latency.get(key)
        if known is None or now - known.seen > FORGET_MS:
            known = self._latency[key] = Latency(road.ms, now)
        known.add(ms, now)
        self._failures.pop((function, road.tier), None)

    def failed(self, function: str, tier: Tier, now: float) -> None:
        """Remember that `tier` could not answer."""
        count = self._failures.get((function, tier), (0, 0.0))[0] + 1
        first, most = COOL_MS
        closed = min(most, first * 2 ** (count - FAILURES)) if count >= FAILURES else 0.0
        self._failures[function, tier] = (count, now + closed)

    def closed(self, function: str, tier: Tier, now: float) -> bool:
        """Return whether `tier` failed so often of late that it should be left alone."""
        return now < self._failures.get((function, tier), (0, 0.0))[1]

    def expected(
        self, function: str, road: Road, size: int | None, now: float
    ) -> tuple[float, float, float]:
        """Return the p5, p50 and p95 to expect of `road` in ms; without a size, those seen last."""
        place = (function, road.version, road.tier)
        key = self._latest.get(place) if size is None else (*place, bucket(size))
        known = self._latency.get(key) if key else None
        if known is None or now - known.seen > FORGET_MS:
            return road.ms
        return known.quantiles()


def choose(
    function: str,
    roads: Sequence[Road],
    budget: Budget,
    memory: Memory,
    *,
    size: int = 0,
    now: float = 0.0,
    tiers: Sequence[Tier] = (),
) -> Plan:
    """Return the plan for an ask of `size` input bytes; `tiers`, where given, fixes the order.

    Raises:
        NotAllowed: no tier within reach has the function.
        TierUnreachable: those that have it are all down.
        BudgetError: none meets the quality floor, or even the fastest can't be in time.
    """
    reach = budget.reach.distance
    allowed = [
        road for road in roads if road.tier.distance <= reach and (not tiers or road.tier in tiers)
    ]
    if not allowed:
        raise NotAllowed(
            f"{function} runs on {_names(roads)}; the ask allows "
            f"{', '.join(tiers) or 'any tier'} within reach {budget.reach}"
        )
    open_ = [road for road in allowed if road.ready and not memory.closed(function, road.tier, now)]
    if not open_:
        raise TierUnreachable(f"{function} is not ready on {_names(allowed)}", retry_after=1.0)
    good = [road for road in open_ if road.quality >= budget.quality]
    if not good:
        best = max(open_, key=lambda road: road.quality)
        raise BudgetError(
            f"no road reaches quality {budget.quality:g}: the best, {best.tier}, "
            f"has {best.quality:.3g}"
        )

    ms = budget.ms if budget.ms is not None else math.inf
    times = {road.tier: memory.expected(function, road, size, now) for road in good}
    quickest = min(good, key=lambda road: times[road.tier][1])
    if min(time[0] for time in times.values()) > ms:
        raise BudgetError(
            f"{ms:.4g} ms are left, and {quickest.tier} takes {times[quickest.tier][0]:.4g} "
            "at the very best"
        )

    if tiers:
        order = [road for tier in tiers for road in good if road.tier == tier]
        why = "as the ask says"
    else:
        fits = [road for road in good if times[road.tier][1] <= ms]
        first = min(fits, key=lambda road: road.tier.distance) if fits else quickest
        rest = sorted(
            (road for road in good if road is not first), key=lambda road: times[road.tier][1]
        )
        order = [first, *rest]
        why = "the nearest that fits" if fits else "the fastest, though it may be late"
    head = order[0]
    expected = times[head.tier]
    hedge_ms = None
    if len(order) > 1:
        hedge_ms = max(HEDGE_MS, 2 * expected[2])
        if ms < math.inf:
            hedge_ms = min(hedge_ms, max(expected[1], ms - times[order[1].tier][2]))
    limit = f" of {ms:.4g} ms" if ms < math.inf else ""
    reason = (
        f"{head.tier}: {why}, {expected[1]:.3g} ms expected{limit} at quality {head.quality:.3g}"
        f" (floor {budget.quality:g})"
    )
    left = [_out(road, budget, tiers, memory, function, now) for road in roads if road not in good]
    if left:
        reason += "; not " + ", ".join(left)
    return Plan(
        tiers=tuple(road.tier for road in order),
        reason=reason,
        hedge_ms=hedge_ms,
        roads=tuple(roads),
    )


def _out(
    road: Road, budget: Budget, tiers: Sequence[Tier], memory: Memory, function: str, now: float
) -> str:
    if road.tier.distance > budget.reach.distance:
        return f"{road.tier} (out of reach)"
    if tiers and road.tier not in tiers:
        return f"{road.tier} (not asked for)"
    if not road.ready:
        return f"{road.tier} (not ready)"
    if memory.closed(function, road.tier, now):
        return f"{road.tier} (failing)"
    return f"{road.tier} (quality {road.quality:.3g})"


def _names(roads: Sequence[Road]) -> str:
    return ", ".join(road.tier for road in roads) or "no tier"
