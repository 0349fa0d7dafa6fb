"""What the road not taken would have taken is found out by asking it, and costs nobody a thing."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable

from msgspec.structs import replace

import toys
from toys import COUNTED, SPELLED, ask, hop, parts, three
from trivium.contract import (
    Budget,
    Tier,
)
from trivium.engine import Engine
from trivium.errors import (
    ModelNotReady,
    TierUnreachable,
    TriviumError,
)
from trivium.function import Function, Loaded
from trivium.trace import Span

PAGE, EDGE, CLOUD = Tier


def shadows(engine: Engine) -> int:
    """Do what was put off, and return how much that was."""
    host = engine.host
    assert isinstance(host, toys.FakeHost)
    put_off, host.postponed = host.postponed, []
    for work in put_off:
        toys.run(awaited(work()))
    return len(put_off)


async def awaited(work: Awaitable[None]) -> None:
    await work


def test_another_road_is_asked_as_well() -> None:
    """After the answer, and only its time is learnt; one span says what it would have taken."""
    spans: list[Span] = []
    page, _, _ = three(COUNTED, spans=spans)
    page.host.shadows = 1.0
    answer = ask(page)
    assert (answer.tier, hop(page).asks) == (PAGE, [])
    assert shadows(page) == 1
    (asked,) = hop(page).asks
    assert asked.tiers in ((EDGE,), (CLOUD,))
    (taken,) = (road for road in answer.plan.roads if road.tier == asked.tiers[0])
    now = page.host.clock()
    assert page.memory.stale("text.count", taken, 13, now) < 100
    (span,) = (each for each in spans if each.name == "shadow")
    assert span.trace_id == answer.trace[3:35]
    assert span.attributes["trivium.tier"] == asked.tiers[0]
    assert span.attributes["trivium.instead_ms"] == answer.took
    assert {"trivium.took_ms", "trivium.instead_ms"} <= span.attributes.keys()


def test_some_asks_have_no_shadow() -> None:
    """Where there is one road, for streams, for tiers that were named, and where it is off."""
    page, edge, cloud = three(COUNTED, SPELLED)
    for each in (page, edge, cloud):
        each.host.shadows = 1.0
    ask(page, budget=Budget(reach=PAGE))
    ask(page, tiers=(PAGE, EDGE, CLOUD))
    parts(page)
    assert shadows(page) == 0
    ask(page, budget=Budget(quality=0.94))
    assert (shadows(page), shadows(edge)) == (1, 0)
    page.host.shadows = 0.0
    ask(page)
    assert shadows(page) == 0


def test_shadows_are_a_share() -> None:
    """Of all asks, however often they are drawn."""
    page, _, _ = three(COUNTED)
    page.host.shadows = 0.05
    for _ in range(1000):
        ask(page)
    assert 10 < shadows(page) == page.memory.shadowed <= 50


def test_a_shadow_that_fails_is_only_learnt() -> None:
    """Nobody waits for it, and nobody is told but the trace."""
    spans: list[Span] = []
    page, _, _ = three(COUNTED, spans=spans)
    page.host.shadows = 1.0
    hop(page).down = TierUnreachable("nobody is there", tier="edge")
    ask(page)
    assert shadows(page) == 1
    (span,) = (each for each in spans if each.name == "shadow")
    assert span.attributes["trivium.failed"] == "tier_unreachable"


def test_nothing_is_begun_beyond_reach_or_cap() -> None:
    """Whatever fails, shadows cast; and the answer says what was begun at most."""
    cast = 0
    for seed in range(300):
        dice = random.Random(seed)
        prices = {tier: dice.choice([0.0, 0.3, 1.0]) for tier in Tier}
        source, made = toys.guessing() if seed % 2 else COUNTED
        made = toys.having(
            made,
            variants=tuple(replace(each, spend=prices[each.tier]) for each in made.variants),
        )
        engines = three((source, made))
        begun: list[Tier] = []
        for engine in engines:
            engine.host.shadows = 1.0
            note(engine, begun, ModelNotReady("cold") if dice.random() < 0.3 else None)
        budget = Budget(reach=dice.choice(list(Tier)), spend=dice.choice([None, 0.0, 0.5, 1.3, 2]))
        answer = None
        with contextlib.suppress(TriviumError):
            # Every other one is unsure, and would go up if it may.
            answer = ask(engines[0], made.name, budget=budget)
        known = sum(prices[tier] for tier in begun)
        assert answer is None or answer.spent > known - 1e-9
        cast += sum(map(shadows, engines))
        assert all(tier.distance <= budget.reach.distance for tier in begun)
        if budget.spend is not None:
            assert sum(prices[tier] for tier in begun) < budget.spend + 1e-9
    assert cast > 50


def note(engine: Engine, begun: list[Tier], failing: TriviumError | None) -> None:
    """Note when work is begun on a tier, which may fail."""
    host = engine.host
    assert isinstance(host, toys.FakeHost)
    opened = host.open
    host.failing = failing

    async def open_(function: Function) -> Loaded:
        begun.append(engine.tier)
        return await opened(function)

    host.open = open_  # type: ignore[method-assign]
