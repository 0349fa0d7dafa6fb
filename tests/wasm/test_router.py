"""Which road is chosen, and what is said about it."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from trivium.contract import Budget, Road, Tier
from trivium.errors import BudgetError, NotAllowed, TierUnreachable
from trivium.router import COOL_MS, FAILURES, FORGET_MS, WINDOW, Memory, bucket, choose

PAGE, EDGE, CLOUD = Tier


def road(tier: Tier, quality: float, ms: float, ready: bool = True) -> Road:
    return Road(
        tier=tier, version="1", model="m", quality=quality, ms=(ms / 2, ms, ms * 3), ready=ready
    )


ROADS = [road(PAGE, 0.9, 30), road(EDGE, 0.95, 50), road(CLOUD, 1.0, 20)]


def tiers(budget: Budget, roads: list[Road] = ROADS, memory: Memory | None = None) -> list[Tier]:
    return list(choose("f.x", roads, budget, memory or Memory()).tiers)


def test_the_nearest_that_fits_goes_first() -> None:
    """Then the others, by expected time."""
    assert tiers(Budget()) == [PAGE, CLOUD, EDGE]


def test_a_tight_budget_goes_to_the_faster_road() -> None:
    """30 ms are too long for 25."""
    assert tiers(Budget(ms=25)) == [CLOUD, PAGE, EDGE]


def test_if_nothing_fits_the_fastest_may_still_make_it() -> None:
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
    assert choose("f.x", ROADS, Budget(ms=100), memory, size=100).tiers[0] == EDGE
    # Other sizes and functions are not judged by it.
    assert choose("f.x", ROADS, Budget(ms=100), memory, size=1_000_000).tiers[0] == PAGE
    assert choose("g.x", ROADS, Budget(ms=100), memory, size=100).tiers[0] == PAGE


def test_an_old_measurement_is_forgotten() -> None:
    """A road that was slow once gets another chance."""
    memory = Memory()
    for _ in range(10):
        memory.measured("f.x", ROADS[0], 0, 400.0, 0.0)
    assert memory.expected("f.x", ROADS[0], 0, FORGET_MS + 1) == ROADS[0].ms
    memory.measured("f.x", ROADS[0], 0, 20.0, FORGET_MS + 1)
    assert memory.expected("f.x", ROADS[0], 0, FORGET_MS + 2)[2] < 400


def test_quantiles_follow_a_moving_window() -> None:
    """They equal those of the sorted last measurements, whatever came before."""
    memory, dice, last = Memory(), random.Random(3), []
    for _ in range(500):
        last.append(dice.expovariate(0.1))
        memory.measured("f.x", ROADS[0], 0, last[-1], 0.0)
    window = sorted(last[-WINDOW:])
    top = WINDOW - 1
    expected = tuple(window[round(share * top)] for share in (0.05, 0.5, 0.95))
    assert memory.expected("f.x", ROADS[0], 0, 0.0) == expected
    assert memory.expected("f.x", ROADS[0], None, 0.0) == expected


def test_a_road_that_keeps_failing_is_left_alone_for_a_while() -> None:
    """Longer each time, and an answer opens it again."""
    memory = Memory()
    for _ in range(FAILURES):
        assert not memory.closed("f.x", PAGE, 0.0)
        memory.failed("f.x", PAGE, 0.0)
    assert "not page (failing)" in choose("f.x", ROADS, Budget(), memory).reason
    assert not memory.closed("f.x", PAGE, COOL_MS[0])
    memory.failed("f.x", PAGE, COOL_MS[0])
    assert memory.closed("f.x", PAGE, 2.5 * COOL_MS[0])
    for _ in range(40):
        memory.failed("f.x", PAGE, 0.0)
    assert not memory.closed("f.x", PAGE, COOL_MS[1])
    memory.measured("f.x", ROADS[0], 0, 1.0, 0.0)
    assert not memory.closed("f.x", PAGE, 0.0)


def test_a_slow_road_is_hedged() -> None:
    """Twice its p95, or as late as the next can still make it."""
    assert choose("f.x", ROADS, Budget(), Memory()).hedge_ms == 180
    assert choose("f.x", ROADS, Budget(ms=200), Memory()).hedge_ms == 140
    assert choose("f.x", ROADS[:1], Budget(), Memory()).hedge_ms is None
    quick = replace(ROADS[0], ms=(1.0, 2.0, 3.0))
    assert choose("f.x", [quick, ROADS[2]], Budget(), Memory()).hedge_ms == 50


def test_sizes_fall_into_classes() -> None:
    """Four times the bytes, one class further."""
    assert [bucket(size) for size in (0, 255, 256, 1023, 1024, 1 << 20)] == [0, 0, 0, 1, 1, 6]
