"""Which road is chosen, and what is said about it."""

from __future__ import annotations

import random
import zlib

import pytest
from msgspec.structs import replace

from trivium.contract import Budget, Plan, Road, Tier
from trivium.errors import BudgetError, NotAllowed, TierUnreachable
from trivium.memory import FAILURES, Memory
from trivium.router import EXPLORE, RETRY_MS, TARGET, choose

PAGE, EDGE, CLOUD = Tier


def road(tier: Tier, quality: float, ms: float, ready: bool = True) -> Road:
    return Road(
        tier=tier, version="1", model="m", quality=quality, ms=(ms / 2, ms, ms * 3), ready=ready
    )


ROADS = [road(PAGE, 0.9, 30), road(EDGE, 0.95, 50), road(CLOUD, 1.0, 20)]


def tiers(budget: Budget, roads: list[Road] = ROADS, memory: Memory | None = None) -> list[Tier]:
    return list(choose("f.x", roads, budget, memory or Memory()).tiers)


def test_the_nearest_of_equal_price_goes_first() -> None:
    """Then the others, by how likely they are in time."""
    assert tiers(Budget()) == [PAGE, EDGE, CLOUD]
    assert tiers(Budget(ms=200)) == [PAGE, CLOUD, EDGE]


def test_the_cheapest_that_is_likely_in_time_goes_first() -> None:
    """Price counts among those that fit, however good or near they are."""
    dear = [replace(each, spend=3.0 - i) for i, each in enumerate(ROADS)]
    plan = choose("f.x", dear, Budget(ms=500), Memory())
    assert plan.tiers[0] == CLOUD
    assert "cloud: the cheapest that fits" in plan.reason


def test_a_tight_budget_goes_to_the_faster_road() -> None:
    """30 ms are too long for 65 in nineteen of twenty asks."""
    assert tiers(Budget(ms=65)) == [CLOUD, PAGE, EDGE]


def test_if_nothing_fits_the_likeliest_may_still_make_it() -> None:
    """15 ms are below every median, but not below the best cases."""
    plan = choose("f.x", ROADS, Budget(ms=15), Memory())
    assert plan.tiers[0] == CLOUD
    assert "may be late" in plan.reason


def test_the_impossible_is_refused_at_once() -> None:
    """Even the optimistic estimate is too slow."""
    with pytest.raises(BudgetError, match="5 ms are left, and cloud takes 10 at the very best"):
        choose("f.x", ROADS, Budget(ms=5), Memory())


def test_quality_is_a_hard_floor() -> None:
    """Fallbacks included."""
    assert tiers(Budget(quality=0.93)) == [EDGE, CLOUD]
    with pytest.raises(BudgetError, match="the best, edge, has 0.95"):
        choose("f.x", ROADS[:2], Budget(quality=0.99), Memory())


def test_reach_is_a_hard_limit() -> None:
    """What may not travel does not, whatever fails."""
    assert tiers(Budget(reach=PAGE)) == [PAGE]
    assert tiers(Budget(reach=EDGE)) == [PAGE, EDGE]
    with pytest.raises(NotAllowed, match="runs on cloud; .* within reach edge"):
        choose("f.x", ROADS[2:], Budget(reach=EDGE), Memory())


def test_the_asks_own_order_holds() -> None:
    """And nothing is added to it."""
    plan = choose("f.x", ROADS, Budget(), Memory(), tiers=(CLOUD, PAGE))
    assert plan.tiers == (CLOUD, PAGE)
    assert "as the ask says" in plan.reason
    with pytest.raises(NotAllowed, match="allows cloud within reach page"):
        choose("f.x", ROADS, Budget(reach=PAGE), Memory(), tiers=(CLOUD,))


def test_what_is_not_ready_is_left_out_and_named() -> None:
    """The reason says so."""
    plan = choose("f.x", [road(PAGE, 0.9, 30, ready=False), *ROADS[1:]], Budget(), Memory())
    assert plan.tiers == (EDGE, CLOUD)
    assert "not page (not ready)" in plan.reason
    with pytest.raises(TierUnreachable, match="not ready on page"):
        choose("f.x", [road(PAGE, 0.9, 30, ready=False)], Budget(), Memory())
    down = [*ROADS[:2], replace(ROADS[2], ready=False, spend=1.0)]
    with pytest.raises(TierUnreachable, match="f.x is not ready on cloud"):
        choose("f.x", down, Budget(quality=1.0), Memory())
    with pytest.raises(BudgetError, match="spend"):  # which it would not keep either
        choose("f.x", down, Budget(quality=1.0, spend=0.5), Memory())


def test_the_reason_names_each_road_left_out() -> None:
    """One sentence, every filter."""
    plan = choose("f.x", ROADS, Budget(quality=0.92, reach=EDGE), Memory())
    assert plan.reason == (
        "edge: the nearest that fits, 50 ms expected at quality 0.95 (floor 0.92); "
        "not page (quality 0.9), cloud (out of reach)"
    )
    assert "edge (not asked for)" in choose("f.x", ROADS, Budget(), Memory(), tiers=(CLOUD,)).reason


def test_measurements_replace_the_advert() -> None:
    """A page that turns out slow is passed over."""
    memory = Memory()
    for _ in range(10):
        memory.measured("f.x", ROADS[0], 100, 400.0, 0.0)
    assert choose("f.x", ROADS, Budget(ms=160), memory, size=100).tiers[0] == EDGE
    # It is slow at all it does, as far as is known; and with time enough it is taken.
    assert choose("g.x", ROADS, Budget(ms=160), memory, size=100).tiers[0] == EDGE
    assert choose("f.x", ROADS, Budget(ms=5000), memory, size=100).tiers[0] == PAGE


def test_each_road_says_what_was_expected_of_it() -> None:
    """Or why it was left out."""
    plan = choose("f.x", ROADS, Budget(ms=200, reach=EDGE, quality=0.92), Memory())
    page, edge, cloud = plan.roads
    assert (page.why, page.chance) == ("quality 0.9", None)
    assert (cloud.why, cloud.chance) == ("out of reach", None)
    assert edge.why == "the nearest that fits"
    assert edge.ms == (25.0, 50.0, 150.0)
    assert edge.chance is not None
    assert edge.chance > TARGET
    assert f"50 ms expected of 200 ms, {100 * edge.chance:.0f} % likely" in plan.reason


def whys(plan: Plan) -> list[str]:
    return [each.why for each in plan.roads]


def test_each_road_says_why_it_is_not_the_first() -> None:
    """What is dearer, farther, or not likely in time comes later, and says so."""
    first = "the nearest that fits"
    assert whys(choose("f.x", ROADS, Budget(), Memory())) == [first, *2 * ["as cheap, and farther"]]
    plan = choose("f.x", PRICED, Budget(ms=500), Memory())
    assert whys(plan) == ["the cheapest that fits", "dearer", "dearer"]
    plan = choose("f.x", ROADS, Budget(ms=65), Memory())
    assert whys(plan) == [*2 * ["not likely enough in time"], first]
    plan = choose("f.x", ROADS, Budget(ms=15), Memory())
    assert whys(plan)[0] == "no likelier in time"
    assert whys(plan)[1:] == ["can't be in time", "the likeliest, though it may be late"]
    plan = choose("f.x", ROADS, Budget(reach=EDGE), Memory(), tiers=(EDGE, PAGE))
    assert whys(plan) == ["later, as the ask says", "as the ask says", "out of reach"]
    plan = choose("f.x", PRICED, Budget(spend=1.5), Memory())
    assert whys(plan) == ["the cheapest that fits", "dearer", "spend 2"]
    plan = choose("f.x", PRICED, Budget(spend=2.5), Memory())
    assert plan.tiers == (PAGE, EDGE)
    assert whys(plan)[2] == "over the cap, with what may run before it"


def test_a_failing_road_is_left_out() -> None:
    """And named."""
    memory = Memory()
    for _ in range(FAILURES):
        memory.failed("f.x", PAGE, 0.0)
    plan = choose("f.x", ROADS, Budget(), memory)
    assert plan.tiers == (EDGE, CLOUD)
    assert "not page (failing)" in plan.reason


PRICED = [replace(each, spend=float(i)) for i, each in enumerate(ROADS)]


def test_the_cap_holds_for_all_that_may_be_begun() -> None:
    """One road after or beside another is paid as well."""
    assert tiers(Budget(spend=0.0), PRICED) == [PAGE]
    assert tiers(Budget(spend=1.0), PRICED) == [PAGE, EDGE]
    assert tiers(Budget(spend=2.0), PRICED) == [PAGE, EDGE]
    assert tiers(Budget(spend=3.0), PRICED) == [PAGE, EDGE, CLOUD]
    plan = choose("f.x", PRICED, Budget(spend=0.5), Memory())
    assert "edge (spend 1), cloud (spend 2)" in plan.reason
    with pytest.raises(BudgetError, match="within a spend of 0.5: the cheapest, edge, takes 1"):
        choose("f.x", PRICED[1:], Budget(spend=0.5), Memory())


def test_what_is_lost_finds_out_how_a_road_is() -> None:
    """When none can be in time, one that was long not taken is tried; soon after it is not."""
    memory = Memory()
    for i in range(20):
        memory.measured("f.x", ROADS[0], 0, 500.0, float(i))
    roads, budget = ROADS[:1], Budget(ms=100)
    with pytest.raises(BudgetError, match="at the very best"):
        choose("f.x", roads, budget, memory, now=20.0)
    plan = choose("f.x", roads, budget, memory, now=21.0 + RETRY_MS)
    assert "was long not taken" in plan.reason


def test_a_slow_tier_is_not_kept_busy_by_finding_out() -> None:
    """Any function tells of its pace, and what takes long is tried the more seldom."""
    memory = Memory()
    for name in ("f.x", "f.y"):
        for i in range(20):
            memory.measured(name, ROADS[0], 0, 500.0, float(i))
    roads, budget, now = ROADS[:1], Budget(ms=100), 30.0 + RETRY_MS
    assert "long not taken" in choose("f.x", roads, budget, memory, now=now).reason
    memory.begun("f.x", ROADS[0], 0, now)
    with pytest.raises(BudgetError):
        choose("f.y", roads, budget, memory, now=now + 1.0)
    for i in range(20):
        memory.measured("f.x", ROADS[0], 0, 5000.0, now + i)
    with pytest.raises(BudgetError):
        choose("f.x", roads, budget, memory, now=now + RETRY_MS + 100.0)
    assert choose("f.x", roads, budget, memory, now=now + 30 * RETRY_MS).tiers == (PAGE,)


def test_a_tier_stays_free_for_what_only_it_can_answer() -> None:
    """Long work goes elsewhere, at a price, where short asks come that have no other road."""
    long = [replace(road(PAGE, 1, 400), spend=0.0), replace(road(EDGE, 1, 400), spend=0.3)]
    short = [road(PAGE, 1, 5), road(EDGE, 1, 90)]
    for narrow, taken in ((False, PAGE), (True, EDGE)):
        memory = Memory()
        memory.narrow = narrow
        for i in range(10):
            assert choose("f.short", short, Budget(ms=60), memory, now=300.0 * i).tiers[0] == PAGE
        plan = choose("f.long", long, Budget(ms=2000), memory, now=3000.0)
        assert plan.tiers[0] == taken
        assert ("so that page stays free" in plan.reason) == narrow
        assert plan.roads[0].why.startswith("stays free") == narrow
        later = choose("f.long", long, Budget(ms=2000), memory, now=600_000.0)
        assert later.tiers[0] == PAGE


def test_a_slow_road_is_hedged() -> None:
    """From its p95 on, or as late as the next can still make it; not before it could be done."""
    assert choose("f.x", ROADS, Budget(), Memory()).hedge_ms == 180
    assert choose("f.x", ROADS, Budget(ms=200), Memory()).hedge_ms == 90
    assert choose("f.x", ROADS, Budget(ms=110), Memory()).hedge_ms == 50
    assert choose("f.x", ROADS[:1], Budget(), Memory()).hedge_ms is None


def test_a_hedge_is_no_more_than_a_share() -> None:
    """When they are used up, the next road waits for a failure."""
    memory = Memory()
    memory.hedged = 100
    assert choose("f.x", ROADS, Budget(), memory).hedge_ms is None


def test_exploring_breaks_no_budget() -> None:
    """It is rare, counted, and takes only what is likely in time."""
    memory = Memory()
    for each in ROADS:
        memory.begun("f.x", each, 0, 2.0 - each.tier.distance)
    plans = [choose("f.x", ROADS, Budget(ms=160), memory) for _ in range(3000)]
    heads = [plan.tiers[0] for plan in plans]
    known = [plan for plan in plans if plan.roads[0].why == "fits, and is better known"]
    assert len(known) == memory.explored
    assert memory.explored == len(heads) - heads.count(PAGE)
    assert 0 < memory.explored < 2 * EXPLORE * len(heads)
    heads = [choose("f.x", ROADS, Budget(ms=65), memory).tiers[0] for _ in range(3000)]
    assert set(heads) == {CLOUD}


def drawn(dice: random.Random) -> tuple[list[Road], Budget, Memory, float]:
    """Return roads, a budget and a memory with some past."""
    memory, now = Memory(dice.randrange(1000)), 0.0
    roads = [
        Road(
            tier=tier,
            version="1",
            model="m",
            quality=dice.choice([0.5, 0.9, 1.0]),
            ms=tuple(sorted(dice.lognormvariate(3, 1) for _ in range(3))),  # type: ignore[arg-type]
            ready=dice.random() < 0.8,
            hop=tier.distance * dice.uniform(1, 100),
            queue=dice.choice([0.0, 0.0, 100.0]),
            cold=dice.choice([0.0, 0.0, 800.0]),
            spend=dice.choice([0.0, 0.3, 1.0]),
        )
        for tier in Tier
        if dice.random() < 0.9
    ]
    for _ in range(dice.randrange(40) if roads else 0):
        now += dice.expovariate(0.002)
        each, ms = dice.choice(roads), dice.lognormvariate(4, 1.5)
        if dice.random() < 0.3:
            memory.failed("f.x", each.tier, now, unreachable=dice.random() < 0.3)
        elif dice.random() < 0.2:
            memory.late("f.x", each, 1000, ms, now)
        else:
            memory.measured("f.x", each, 1000, ms, now)
            memory.crossed(each.tier, 1000, ms / 2, 0.0, now)
    budget = Budget(
        ms=dice.choice([None, dice.lognormvariate(4.5, 1)]),
        quality=dice.choice([0.0, 0.9, 1.0]),
        reach=dice.choice(list(Tier)),
        spend=dice.choice([None, 0.0, 0.5, 1.3]),
    )
    return roads, budget, memory, now


def test_no_plan_goes_beyond_what_is_allowed() -> None:
    """Neither reach nor floor nor cap, not by a hedge nor a fallback; nor to what is not ready."""
    made = 0
    for seed in range(600):
        roads, budget, memory, now = drawn(random.Random(seed))
        closed = {tier for tier in Tier if memory.closed("f.x", tier, now)}
        try:
            plan = choose("f.x", roads, budget, memory, size=1000, now=now)
        except (BudgetError, NotAllowed, TierUnreachable):
            continue
        made += 1
        taken = [each for tier in plan.tiers for each in roads if each.tier == tier]
        assert len(taken) == len(plan.tiers) == len(set(plan.tiers))
        assert all(each.tier.distance <= budget.reach.distance for each in taken)
        assert all(each.ready and each.tier not in closed for each in taken)
        assert all(each.quality >= budget.quality for each in taken)
        if budget.spend is not None:
            assert sum(each.spend for each in taken) <= budget.spend
        assert plan.hedge_ms is None or len(taken) > 1
        assert plan.hedge_ms is None or budget.ms is None or plan.hedge_ms < budget.ms
    assert made > 200


def test_more_time_never_makes_a_plan_less_likely() -> None:
    """Up to the target: above it, price decides."""
    for seed in range(200):
        roads, budget, memory, now = drawn(random.Random(seed))
        reached = 0.0
        for i in range(30):
            try:
                plan = choose(
                    "f.x", roads, replace(budget, ms=2.0 * 1.4**i), memory, size=1000, now=now
                )
            except (BudgetError, NotAllowed, TierUnreachable):
                assert reached < 0.2
                continue
            head = next(each for each in plan.roads if each.tier == plan.tiers[0])
            assert head.chance is not None
            chance = min(head.chance, TARGET)
            assert chance >= reached - 1e-9 or "long not taken" in plan.reason, seed
            reached = chance


def test_the_same_seed_gives_the_same_plans() -> None:
    """Here and in Pyodide: the digest is of hundreds of them, and what they say."""
    digest = 0
    for seed in range(100):
        roads, budget, memory, now = drawn(random.Random(seed))
        for i in range(5):
            try:
                plan = choose("f.x", roads, budget, memory, size=1000, now=now + i)
                said = f"{plan.tiers} {plan.reason}"
            except (BudgetError, NotAllowed, TierUnreachable) as error:
                said = error.message
            digest = zlib.crc32(said.encode(), digest)
    assert digest == PLANS


PLANS = 1520627384
