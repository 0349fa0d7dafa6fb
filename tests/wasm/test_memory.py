"""What is remembered of roads, and what is expected of them."""

from __future__ import annotations

import random
import sys
from itertools import pairwise

import pytest
from msgspec.structs import replace

from trivium.contract import Road, Tier
from trivium.memory import COOL_MS, FAILURES, HEDGES, Memory
from trivium.seen import SIZES, STALE_MS, TROUBLE_MS, Queue, Spread, bucket

PAGE, EDGE, CLOUD = Tier


def road(tier: Tier = PAGE, ms: float = 20.0, **fields: object) -> Road:
    given = {"version": "1", "model": "m", "quality": 1.0, "ms": (ms / 2, ms, ms * 3), **fields}
    return Road(tier=tier, **given)  # type: ignore[arg-type]


def likely(memory: Memory, taken: Road, ms: float, now: float = 0.0, size: int = 0) -> float:
    return memory.outlook("f.x", taken, size, ms, now)[1]


def test_sizes_fall_into_classes() -> None:
    """Four times the bytes, one class further, and no end of them."""
    assert [bucket(size) for size in (0, 255, 256, 1023, 1024, 1 << 20)] == [0, 0, 0, 1, 1, 6]
    assert bucket(1 << 60) == SIZES - 1


def within(spread: Spread, ms: float) -> float:
    """Return how likely so many ms are enough, by what was measured alone."""
    return spread.within(ms, 1.0, 0.0, ((0.0, 1.0),), 1e9, 1.0)


def test_quantiles_follow_what_is_measured() -> None:
    """Within a bin's width of the truth, and newer counts more."""
    spread, dice = Spread(), random.Random(3)
    for i in range(2000):
        spread.add(dice.expovariate(0.01), float(i))
    for share, truth in ((0.5, 69.3), (0.95, 299.6)):
        assert spread.quantile(share) == pytest.approx(truth, rel=0.3)
    assert within(spread, 69.3) == pytest.approx(0.5, abs=0.12)
    for i in range(100):
        spread.add(1000.0, 2000.0 + i)
    assert spread.quantile(0.5) == pytest.approx(1000, rel=0.2)
    assert within(spread, 500.0) < 0.15
    assert within(spread, 1e9) == 1.0


def test_a_spread_never_grows_nor_overflows() -> None:
    """The weights begin anew before they are too large."""
    spread = Spread()
    for i in range(5000):
        spread.add(0.01 if i % 2 else 1e7, i * STALE_MS)
    assert spread.quantile(0.9) > 1e4
    assert spread.weight(5000 * STALE_MS) <= 3


def test_evidence_grows_stale() -> None:
    """Half its weight is gone after a while, and the advert counts again."""
    memory, slow = Memory(), road(ms=10.0)
    for i in range(40):
        memory.measured("f.x", slow, 0, 200.0, float(i))
    assert likely(memory, slow, 100.0, 50.0) < 0.1
    assert likely(memory, slow, 100.0, 60 * STALE_MS) > likely(memory, slow, 100.0, 50.0)
    assert memory._about("f.x", slow).place(0)[0].weight(60 * STALE_MS) < 1e-6


def test_an_advert_is_believed_until_there_is_evidence() -> None:
    """Its p95 is in time in 95 of 100, its p5 in 5."""
    for ms, share in ((10.0, 0.05), (20.0, 0.5), (60.0, 0.95)):
        assert likely(Memory(), road(), ms) == pytest.approx(share, abs=0.01)


def test_a_slow_device_is_known_after_one_function() -> None:
    """Its other functions are about as much slower: a little of it may be the advert's fault."""
    memory = Memory()
    for i in range(20):
        memory.measured("f.x", road(), 0, 160.0, float(i))
    assert memory.outlook("f.x", road(), 0, 100.0, 20.0)[0][1] == pytest.approx(160, rel=0.15)
    assert 100 < memory.outlook("f.other", road(), 0, 100.0, 20.0)[0][1] < 200


def test_a_wrong_advert_is_nobody_elses() -> None:
    """One function takes six times what its bundle says, another what it says: both are known."""
    memory, dice = Memory(), random.Random(1)
    takes = {"f.wrong": 120.0, "f.right": 100.0}
    roads = {"f.wrong": road(ms=20.0), "f.right": road(ms=100.0)}
    for i in range(60):
        name = dice.choice(list(takes))
        memory.measured(name, roads[name], 0, takes[name] * dice.lognormvariate(0, 0.1), float(i))
        if i >= 30:
            for each, ms in takes.items():
                times, _, _ = memory.outlook(each, roads[each], 0, 100.0, float(i))
                assert times[1] == pytest.approx(ms, rel=0.3)
    # Whatever slows both is the tier, and known by the next few of either.
    for i in range(4):
        memory.measured("f.right", roads["f.right"], 0, 400.0, 60.0 + i)
    times, _, _ = memory.outlook("f.wrong", roads["f.wrong"], 0, 100.0, 64.0)
    assert times[1] == pytest.approx(480, rel=0.35)


def test_other_sizes_are_reckoned_from_those_seen() -> None:
    """Time grows with size as it was seen to grow."""
    memory, dice = Memory(), random.Random(1)
    for i in range(60):
        size = int(1000 * 4 ** dice.uniform(0, 2))
        memory.measured("f.x", road(), size, size / 100, float(i))
    times, _, _ = memory.outlook("f.x", road(), 100_000, 100.0, 60.0)
    assert 250 < times[1] < 2000


def test_a_link_has_a_round_trip_and_a_width() -> None:
    """What crossed it tells both apart."""
    memory, dice = Memory(), random.Random(1)
    far = road(EDGE, hop=40.0)
    memory.link.told(40.0, 0.0)
    for i in range(60):
        size = dice.choice([500, 1_000_000])
        memory.crossed(EDGE, size, 40 + size / 1000, 0.0, float(i))
    assert memory.link.ms(0, 60.0) == pytest.approx(40, rel=0.1)
    assert memory.link.ms(500_000, 60.0) == pytest.approx(540, rel=0.15)
    assert memory.outlook("f.x", far, 1_000_000, 500.0, 60.0)[1] < 0.1
    assert memory.outlook("f.x", far, 500, 500.0, 60.0)[1] > 0.9


def test_a_link_that_breaks_is_noticed_at_once_and_forgiven() -> None:
    """Three asks are enough; half a minute later it may be well again."""
    memory, far = Memory(), road(EDGE, hop=20.0)
    for i in range(30):
        memory.crossed(EDGE, 100_000, 120.0, 0.0, 100.0 * i)
    assert memory.outlook("f.x", far, 100_000, 300.0, 3000.0)[1] > 0.9
    for i in range(3):
        memory.crossed(EDGE, 100_000, 3000.0, 0.0, 3000.0 + i)
    assert memory.outlook("f.x", far, 100_000, 300.0, 3100.0)[1] < 0.3
    assert memory.outlook("f.x", far, 100_000, 300.0, 33_000.0)[1] > 0.6


def test_a_link_that_gets_better_leaves_quantiles_in_order() -> None:
    """Each way is shorter than was expected; the p95 is still no less than the median."""
    memory, far = Memory(), replace(road(EDGE, hop=1.0), ms=(10.0, 11.0, 12.0))
    for i in range(40):
        memory.crossed(EDGE, 100_000, 500 * 0.93**i, 0.0, 100.0 * i)
    low, middle, high = memory.outlook("f.x", far, 100_000, 300.0, 4000.0)[0]
    assert low <= middle <= high


def test_a_queue_that_was_told_is_waited_for() -> None:
    """And the next advert, or time, ends it."""
    memory, far = Memory(), road(EDGE, hop=1.0)
    memory.outlook("f.x", far, 0, 100.0, 0.0)
    memory.crossed(EDGE, 0, 1.0, 500.0, 0.0)
    assert memory.queue(far, 0.0) == 500.0
    assert memory.queue(far, 8000.0) == pytest.approx(125.0)
    assert memory.queue(road(EDGE, hop=1.0, queue=7.0), 0.0) == 7.0
    assert memory.queue(road(PAGE, queue=3.0), 0.0) == 3.0


def test_what_was_given_up_was_slow() -> None:
    """Unless it was given up before it could be."""
    memory, taken = Memory(), road(ms=20.0)
    memory.late("f.x", taken, 0, 10.0, 0.0)
    assert likely(memory, taken, 60.0) > 0.9
    for i in range(3):
        memory.late("f.x", taken, 0, 200.0, float(i))
    assert likely(memory, taken, 60.0, 3.0) < 0.5


def test_a_cold_road_takes_its_loading_along() -> None:
    """Until it has answered; and loading is no measure of its work."""
    memory, cold = Memory(), road(cold=700.0)
    assert memory.outlook("f.x", cold, 0, 100.0, 0.0)[2] == 700.0
    memory.measured("f.x", cold, 0, 720.0, 1.0)
    memory.measured("f.x", road(), 0, 20.0, 2.0)
    assert memory.outlook("f.x", cold, 0, 100.0, 3.0)[2] == 0.0
    assert likely(memory, road(), 100.0, 3.0) > 0.9


def test_a_road_that_keeps_failing_is_left_alone_for_a_while() -> None:
    """Longer each time, and an answer opens it again."""
    memory = Memory()
    for _ in range(FAILURES):
        assert not memory.closed("f.x", PAGE, 0.0)
        memory.failed("f.x", PAGE, 0.0)
    assert memory.closed("f.x", PAGE, 0.0)
    assert not memory.closed("f.x", PAGE, COOL_MS[0])
    memory.failed("f.x", PAGE, COOL_MS[0])
    assert memory.closed("f.x", PAGE, 2.5 * COOL_MS[0])
    for _ in range(40):
        memory.failed("f.x", PAGE, 0.0)
    assert not memory.closed("f.x", PAGE, COOL_MS[1])
    memory.measured("f.x", road(), 0, 1.0, 0.0)
    assert not memory.closed("f.x", PAGE, 0.0)


def test_a_tier_that_is_here_is_tried_again_soon() -> None:
    """Finding out takes no way, and an ask may have no other road."""
    memory = Memory()
    for _ in range(20):
        memory.failed("f.x", PAGE, 0.0, here=True)
    assert memory.closed("f.x", PAGE, COOL_MS[0] - 1)
    assert not memory.closed("f.x", PAGE, COOL_MS[0])


def test_a_failure_makes_the_next_likelier_for_a_while() -> None:
    """Of the tier, or of all behind a link that is down until a poll crosses it again."""
    memory, far = Memory(), road(EDGE, hop=5.0)
    before = likely(memory, road(), 1e6)
    memory.failed("f.x", PAGE, 0.0)
    assert likely(memory, road(), 1e6) == pytest.approx(0.6 * before)
    assert likely(memory, road(), 1e6, 10 * TROUBLE_MS) > 0.99 * before
    before = likely(memory, far, 1e6)
    memory.failed("f.x", EDGE, 0.0, unreachable=True)
    assert memory.outlook("g.x", road(CLOUD, hop=5.0), 0, 1e6, 0.0)[1] < 0.7 * before
    memory.link.told(6.0, 1.0)
    assert likely(memory, far, 1e6, 1.0) > 0.99 * before


def test_versions_are_not_judged_by_each_other() -> None:
    """A new one begins with its advert."""
    memory = Memory()
    for i in range(20):
        memory.measured("f.x", road(), 0, 20.0, float(i))
        memory.measured("f.x", road(ms=50.0, version="2"), 0, 50.0, float(i))
    known = memory.outlook("f.x", road(ms=200.0, version="3"), 0, 100.0, 20.0)[0]
    assert known[1] == pytest.approx(200, rel=0.3)


def test_more_time_never_makes_it_less_likely() -> None:
    """Whatever was measured before."""
    for seed in range(60):
        dice, memory = random.Random(seed), Memory(seed)
        roads = [road(PAGE), road(EDGE, hop=20.0), road(CLOUD, hop=20.0)]
        now = 0.0
        for _ in range(dice.randrange(60)):
            now += dice.expovariate(0.001)
            each, size = dice.choice(roads), dice.choice([10, 5000, 10**6])
            ms = dice.lognormvariate(4, 2)
            if dice.random() < 0.2:
                memory.failed("f.x", each.tier, now, unreachable=dice.random() < 0.5)
            elif dice.random() < 0.3:
                memory.late("f.x", each, size, ms, now)
            else:
                if each.hop:
                    memory.crossed(each.tier, size, dice.lognormvariate(3, 1), ms / 9, now)
                memory.measured("f.x", each, size, ms, now)
        for each in roads:
            chances = [likely(memory, each, 1.5**i, now, 5000) for i in range(35)]
            assert all(0.0 <= chance <= 1.0 + 1e-9 for chance in chances)
            assert all(a <= b + 1e-9 for a, b in pairwise(chances)), seed


def test_the_series_of_a_seed_is_the_same_everywhere() -> None:
    """In Pyodide too: it is integers alone."""
    memory = Memory(7)

    def drawn() -> float:
        memory.asked += 1
        return memory.dice()

    series = [drawn() for _ in range(4)]
    assert [round(each * 2**32) for each in series] == [
        2087862762,
        79516702,
        1287711422,
        2249543979,
    ]
    many = [drawn() for _ in range(10_000)]
    assert sum(each < 0.02 for each in many) == pytest.approx(200, abs=60)


def test_hedges_are_a_share_of_the_asks() -> None:
    """And a few at the start."""
    memory = Memory()
    for _ in range(1000):
        memory.asked += 1
        if memory.may_hedge():
            memory.hedged += 1
    assert memory.hedged <= 4 + 1000 * HEDGES


def test_a_function_takes_bounded_memory() -> None:
    """Whatever is asked of it, for ever so long."""
    memory, dice = Memory(), random.Random(1)
    for i in range(5000):
        size = int(2 ** dice.uniform(0, 50))
        tier = dice.choice(list(Tier))
        made = road(tier, version=str(i // 1000))
        memory.outlook("f.x", made, size, 100.0, float(i))
        memory.measured("f.x", made, size, dice.lognormvariate(3, 2), float(i))
    known = [known for tiers in memory._known.values() for known in tiers.values()]
    kept = [spread for each in known for spread in each.spreads.values()]
    assert len(known) == 3
    assert len(kept) <= 3 * SIZES
    assert sum(sys.getsizeof(spread._bins) + 24 * len(spread._bins) for spread in kept) < 120_000


def test_those_behind_wait_for_those_before() -> None:
    """By what each should take; what runs over takes the rest along."""
    queue = Queue(1)
    assert queue.wait(0.0) == 0.0
    first = queue.begin(100.0, 0.0)
    second = queue.begin(50.0, 0.0)
    assert queue.wait(0.0) == 150.0
    assert queue.wait(40.0) == 110.0
    assert queue.wait(200.0) == pytest.approx(60 + 100)
    queue.end(first, 200.0)
    assert queue.wait(210.0) == 40.0
    queue.end(second, 250.0)
    assert queue.wait(250.0) == 0.0


def test_what_was_given_up_still_stands_in_the_way() -> None:
    """Until it must be done, or one behind it is."""
    queue = Queue(1)
    first = queue.begin(100.0, 0.0)
    queue.leave(first, 30.0)
    assert queue.wait(30.0) == 70.0
    second = queue.begin(10.0, 30.0)
    queue.end(second, 60.0)
    assert queue.wait(60.0) == 0.0
    queue.leave(queue.begin(20.0, 60.0), 60.0)
    assert queue.wait(81.0) == 0.0


def test_what_was_given_up_is_not_waited_for_for_ever() -> None:
    """One after another, as long as each should take: though none is seen to end."""
    queue = Queue(1)
    for now in range(5):
        queue.leave(queue.begin(100.0, now), now + 0.5)
    assert queue.wait(10.0) == pytest.approx(490, abs=5)
    assert queue.wait(260.0) == pytest.approx(240, abs=5)
    assert queue.wait(510.0) == 0.0
    # What was given up late is slower than was thought.
    queue.leave(queue.begin(10.0, 600.0), 700.0)
    assert queue.wait(700.0) == pytest.approx(40.0)


def test_several_run_at_once_on_several_lanes() -> None:
    """Nobody waits while one is free."""
    queue = Queue(2)
    queue.begin(100.0, 0.0)
    assert queue.wait(0.0) == 0.0
    queue.begin(100.0, 0.0)
    assert queue.wait(0.0) == 100.0


def test_an_advert_of_nothing_is_no_error() -> None:
    """What takes microseconds is rounded to it."""
    memory, quick = Memory(), Road(tier=PAGE, version="1", model="m", quality=1.0, ms=(0, 0, 0))
    for now in range(3):
        assert likely(memory, quick, 100.0, float(now)) > 0.99
        memory.measured("f.x", quick, 0, 0.01, float(now))
