"""Which roads should an ask take, in which order, and why?

Three ideas stay apart. *Feasible*: within reach, ready, not failing, likely enough to be in time.
*Good*: its quality reaches the floor. *Affordable*: its spend, with what may run beside or after
it, stays within the cap. Reach, readiness, quality and spend are hard filters, fallbacks included.
Of what is left, the cheapest road that is likely enough goes first; where none is, the likeliest.
A road's price counts what it makes others miss: long work on a tier that does one thing at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from msgspec.structs import replace

from .contract import Budget, Plan, Road, Tier
from .errors import BudgetError, NotAllowed, TierUnreachable
from .memory import Memory

TARGET = 0.95
"""How likely a road must be in time to be taken for its price."""

PRICES = {Tier.PAGE: 0.0, Tier.EDGE: 0.3, Tier.CLOUD: 1.0}
"""What an ask costs by tier, where the variant does not say: the cloud's is 1."""

EXPLORE, EXPLORING = 0.02, "to keep it known, and it fits"
"""How often another road that is likely in time is taken, so that it stays known: times are all
that is learnt, so an ask without a budget does not explore."""

RETRY_MS = 10_000.0
"""When no road can be in time, one that was not taken for so long is tried all the same."""

LATE = 5.0
"""What it costs that another ask comes too late: five asks in the cloud."""

HEDGE_MS = 10.0
"""The next road is never tried beside the first before this."""


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
        TierUnreachable: those that could answer it are all down.
        BudgetError: none meets the quality floor, or the spend, even if it were ready.
    """
    reach, floor, ms, cap = budget.reach.distance, budget.quality, budget.ms, budget.spend
    memory.asked += 1
    seen: list[Road] = []
    good: list[Road] = []
    likely: list[Road] = []
    left: list[str] = []
    soonest = inf
    for road in roads:
        tier = road.tier
        if tier.distance > reach:
            why = "out of reach"
        elif tiers and tier not in tiers:
            why = "not asked for"
        elif not road.ready:
            why = "not ready"
        elif memory.failures and memory.closed(function, tier, now):
            why = "failing"
        elif road.quality < floor:
            why = f"quality {road.quality:.3g}"
        elif cap is not None and road.spend > cap:
            why = f"spend {road.spend:g}"
        else:
            if road.hop:
                memory.link.told(road.hop, now)
            times, chance, wait = memory.outlook(function, road, size, ms, now)
            road = replace(road, ms=times, chance=chance, queue=wait)
            good.append(road)
            seen.append(road)
            # Without a budget nothing is late; what fails often is closed.
            if ms is None or chance >= TARGET:
                likely.append(road)
            soonest = min(soonest, times[0])
            continue
        seen.append(replace(road, why=why))
        left.append(f"{tier} ({why})")
    if not good:
        _refuse(function, seen, budget, tiers)
    lost = None
    if ms is not None and soonest > ms:
        lost = _untried(function, roads, good, ms, memory, size, now)
    if tiers:
        order = [road for tier in tiers for road in good if road.tier == tier]
        why = "as the ask says"
    else:
        if lost is not None:
            head, why = lost, "none can be in time, and this was long not taken"
        elif likely:
            head, why = _cheapest(likely, good, memory, now)
            if ms is not None and len(likely) > 1 and memory.dice() < EXPLORE:
                rarest = max(likely, key=lambda road: memory.stale(function, road, size, now))
                if rarest is not head:
                    head, why = rarest, EXPLORING
                    memory.explored += 1
        else:
            head = max(good, key=lambda road: (road.chance or 0.0, -road.ms[1]))
            why = "the likeliest, though it may be late"
        if ms is not None and memory.narrow and not good[0].hop:
            own = good[0]
            slack = ms - own.ms[1] + own.queue
            if likely == [own] or (not likely and slack > own.ms[2] - own.ms[1]):
                memory.bound.append((now, slack))
        order = good
        if len(good) > 1:
            rest = [road for road in good if road is not head]
            order = [head, *sorted(rest, key=lambda road: -(road.chance or 0.0))]
    if cap is not None:
        order = _affordable(order, cap)
    head = order[0]
    hedge_ms = None
    if len(order) > 1 and memory.may_hedge():
        hedge_ms = _hedge(head, order[1], ms)
    sure = head.chance or 0.0
    limit = f" of {ms:.4g} ms, {100 * sure:.0f} % likely" if ms is not None else ""
    reason = (
        f"{head.tier}: {why}, {head.ms[1]:.3g} ms expected{limit}"
        f" at quality {head.quality:.3g} (floor {floor:g})"
    )
    if left:
        reason += "; not " + ", ".join(left)
    for i, road in enumerate(seen):
        if road is head:
            seen[i] = replace(road, why=why)
        elif road.chance is not None:
            said = "later, as the ask says" if tiers else _passed(road, head, ms, why)
            if cap is not None and road not in order:
                said = "over the cap, with what may run before it"
            seen[i] = replace(road, why=said)
    return Plan(
        tiers=tuple([road.tier for road in order]),
        reason=reason,
        hedge_ms=hedge_ms,
        roads=tuple(seen),
    )


def _passed(road: Road, head: Road, ms: float | None, why: str) -> str:
    """Return why a road that could be taken is not first, where `head` is for what `why` says."""
    if ms is not None and (road.chance or 0.0) < TARGET:
        if road.ms[0] > ms:
            return "can't be in time"
        fits = (head.chance or 0.0) >= TARGET
        return "not likely enough in time" if fits else "no likelier in time"
    if why is EXPLORING:
        return "fits, and is better known"
    if road.spend > head.spend:
        return "dearer"
    if road.spend == head.spend and road.tier.distance > head.tier.distance:
        return "as cheap, and farther"
    return "stays free for what only it can answer in time"


def _cheapest(likely: list[Road], good: list[Road], memory: Memory, now: float) -> tuple[Road, str]:
    """Return the cheapest, the nearest of equal ones, and which of both it is.

    What would keep this tier busy while others come that only it can answer in time is dearer.
    """
    head, price = likely[0], likely[0].spend
    if len(likely) > 1 and memory.bound and not head.hop:
        price += LATE * memory.harm(head.ms[1] - head.queue, now)
    for road in likely[1:]:
        if (road.spend, road.tier.distance) < (price, head.tier.distance):
            head, price = road, road.spend
    if head is not likely[0] and likely[0].spend < head.spend:
        return head, f"so that {likely[0].tier} stays free for what only it can answer in time"
    for road in good:
        if road.spend > head.spend:
            return head, "the cheapest that fits"
    return head, "the nearest that fits"


def _untried(
    function: str,
    roads: Sequence[Road],
    good: list[Road],
    ms: float,
    memory: Memory,
    size: int,
    now: float,
) -> Road:
    """Return the road that an ask which is lost tries; raise BudgetError if it should not.

    It can still find out how a road is that was long not taken, and warm it; what even its advert
    rules out need not be tried for the first time.
    """
    best = {road.tier: road.ms[0] for road in roads}
    since = {road.tier: memory.stale(function, road, size, now) for road in good}
    untried = [
        road
        for road in good
        if since[road.tier] >= RETRY_MS
        and (since[road.tier] < inf or best[road.tier] <= ms)
        # What runs here goes on when it is given up: a slow tier is not kept busy by finding out,
        # and any function tells of its pace.
        and (
            road.hop
            or road.cold
            or memory.idle(road.tier, now) >= max(RETRY_MS, 10 * (road.ms[1] - road.queue))
        )
    ]
    if not untried:
        quickest = min(good, key=lambda road: road.ms[0])
        raise BudgetError(
            f"{ms:.4g} ms are left, and {quickest.tier} takes {quickest.ms[0]:.4g} at the very best"
        )
    return max(untried, key=lambda road: since[road.tier])


def _hedge(head: Road, other: Road, ms: float | None) -> float | None:
    """Return when to begin the other road too: when the first is late, while there is time."""
    _, middle, high = head.ms
    if ms is None:
        return max(HEDGE_MS, 2 * high)
    latest = ms - other.ms[2]
    if latest < middle or not other.chance:
        # Too late to help once the first is late.
        latest = max(middle, ms - other.ms[1])
    at = max(HEDGE_MS, min(high, latest))
    return at if at < ms - other.ms[0] else None


def _affordable(order: list[Road], cap: float) -> list[Road]:
    """Return the roads that the cap pays for even if each before them was begun as well."""
    found, spent = [], 0.0
    for road in order:
        if spent + road.spend <= cap:
            spent += road.spend
            found.append(road)
    return found


def _refuse(function: str, seen: list[Road], budget: Budget, tiers: Sequence[Tier]) -> None:
    """Raise what is in the way."""
    allowed = [road for road in seen if road.why not in ("out of reach", "not asked for")]
    if not allowed:
        raise NotAllowed(
            f"{function} runs on {_names(seen)}; the ask allows "
            f"{', '.join(tiers) or 'any tier'} within reach {budget.reach}"
        )
    good = [road for road in allowed if road.quality >= budget.quality]
    down = [road for road in good if budget.spend is None or road.spend <= budget.spend]
    if down:
        raise TierUnreachable(f"{function} is not ready on {_names(down)}", retry_after=1.0)
    if not good:
        best = max(allowed, key=lambda road: road.quality)
        raise BudgetError(
            f"no road reaches quality {budget.quality:g}: the best, {best.tier}, "
            f"has {best.quality:.3g}"
        )
    cheapest = min(good, key=lambda road: road.spend)
    raise BudgetError(
        f"no road is within a spend of {budget.spend:g}: the cheapest, {cheapest.tier}, "
        f"takes {cheapest.spend:g}"
    )


def _names(roads: Sequence[Road]) -> str:
    return ", ".join(road.tier for road in roads) or "no tier"
