"""One tier, and three in a row."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncGenerator, Awaitable
from typing import Any

import pytest
from msgspec.structs import replace

import toys
from toys import COUNTED, TEXT, ask, hop, three
from trivium.contract import (
    Answer,
    Ask,
    Budget,
    Fault,
    Part,
    Tensor,
    Tier,
)
from trivium.engine import Engine
from trivium.errors import (
    BadInput,
    BudgetError,
    Conflict,
    ModelNotReady,
    NotAllowed,
    RunFailed,
    TierOverloaded,
    TierUnreachable,
    TriviumError,
    UnknownFunction,
)
from trivium.function import Function, Loaded
from trivium.trace import Span

PAGE, EDGE, CLOUD = Tier

DOUBLE = """
from array import array
from trivium import Models, Tensor, Text, function

@function("text.double")
async def double(text: Text, models: Models) -> list[float]:
    x = Tensor(dtype="float32", shape=(2,), data=array("f", [len(text), 1]).tobytes())
    return (await models.double.run(x=x)).tolist()
"""

SPELL = """
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.spell")
async def spell(text: Text) -> AsyncIterator[str]:
    for letter in text:
        if letter == "!":
            raise ValueError("too loud")
        yield letter
"""

BROKEN = """
from trivium import Text, function

@function("text.count")
async def count(text: Text) -> int:
    return 1 // 0
"""


def test_a_tier_answers_by_itself() -> None:
    """Output, tier, model and the time split."""
    answer = ask(toys.engine(EDGE, COUNTED), options={"least": 4})
    assert answer.output == {"words": 1}
    assert (answer.tier, answer.model, answer.version) == (EDGE, "toy-edge", "1.0.0")
    assert answer.plan.tiers == (EDGE,)


def test_models_run_on_the_tiers_sessions() -> None:
    """The function sees only their names."""
    made = toys.manifest("text.double", "double", models={"double": ("m.onnx",)})
    assert ask(toys.engine(EDGE, (DOUBLE, made)), "text.double").output == [26.0, 2.0]


@pytest.mark.parametrize("tier", list(Tier))
def test_the_same_function_answers_on_every_tier(tier: Tier) -> None:
    """An ask at the page reaches each, and says which it was."""
    page, _, _ = three(COUNTED)
    answer = ask(page, tiers=(tier,))
    assert (answer.output, answer.tier) == ({"words": 3}, tier)


def test_the_floor_sends_an_ask_up() -> None:
    """The page's 0.9 is not enough."""
    page, _, _ = three(COUNTED)
    assert ask(page).tier == PAGE
    assert ask(page, budget=Budget(quality=0.94)).tier == EDGE
    assert ask(page, budget=Budget(quality=0.99)).tier == CLOUD


def test_budgets_shrink_at_each_hop() -> None:
    """Each tier is told what is left, not what there was."""
    page, edge, _ = three(COUNTED)
    page.host.cost = 7.0  # type: ignore[attr-defined]
    page.host.failing = ModelNotReady("cold")  # type: ignore[attr-defined]
    answer = ask(page, budget=Budget(ms=500), tiers=(PAGE, CLOUD))
    first, second = hop(page).asks[0], hop(edge).asks[0]
    assert first.budget.ms == 493
    assert second.budget.ms is not None
    assert second.budget.ms <= 493
    assert first.tiers == second.tiers == (CLOUD,)
    assert answer.tier == CLOUD
    assert "page failed (model_not_ready); so cloud answered" in answer.plan.reason


def test_a_spent_budget_is_not_passed_on() -> None:
    """No time is left after a slow failure."""
    page, _, _ = three(COUNTED)
    page.host.cost = 100.0  # type: ignore[attr-defined]
    page.host.failing = ModelNotReady("cold")  # type: ignore[attr-defined]
    with pytest.raises(BudgetError, match="are used up"):
        ask(page, budget=Budget(ms=90))
    assert hop(page).asks == []


def test_a_dead_cloud_leaves_what_the_edge_can() -> None:
    """And what it can't is said plainly."""
    _, edge, _ = three(COUNTED)
    hop(edge).down = TierUnreachable("the cloud did not answer", tier="cloud")
    assert ask(edge).tier == EDGE
    assert ask(edge, tiers=(CLOUD, EDGE)).tier == EDGE
    with pytest.raises(TierUnreachable, match="the cloud did not answer"):
        ask(edge, budget=Budget(quality=0.99))


def test_a_callers_mistake_does_not_travel() -> None:
    """No other tier would see it differently."""
    page, _, _ = three(COUNTED)
    with pytest.raises(BadInput):
        ask(page, options={"nope": 1})
    assert hop(page).asks == []


def test_reach_holds_for_fallbacks() -> None:
    """What may not leave the page fails there."""
    page, _, _ = three(COUNTED)
    page.host.failing = ModelNotReady("cold")  # type: ignore[attr-defined]
    with pytest.raises(ModelNotReady):
        ask(page, budget=Budget(reach=PAGE))
    assert hop(page).asks == []
    with pytest.raises(NotAllowed):
        ask(page, budget=Budget(reach=PAGE), tiers=(CLOUD,))


def test_a_function_of_the_cloud_alone_is_reached_from_the_page() -> None:
    """Nothing of it is loaded on the way."""
    page, edge, _ = three((toys.COUNT, toys.manifest(tiers=[CLOUD])))
    assert "text.count" not in edge.functions
    assert ask(page).tier == CLOUD


def test_an_unknown_function_lists_the_known() -> None:
    """Only if no road has it."""
    page, _, _ = three(COUNTED)
    with pytest.raises(UnknownFunction, match="'text.cuont'; the page has: text.count"):
        ask(page, "text.cuont")


def test_before_the_next_tier_has_spoken_nothing_is_unknown() -> None:
    """What it has can't be told yet, so that asking again makes sense."""
    _, edge, _ = three(COUNTED)
    hop(edge).known = False
    hop(edge).roads = lambda function: []  # type: ignore[method-assign]
    assert ask(edge).tier == EDGE
    for fields in ({"tiers": (CLOUD,)}, {"name": "text.other"}):
        with pytest.raises(TierUnreachable, match="did not answer yet"):
            ask(edge, **fields)


def test_an_old_page_is_told_the_versions() -> None:
    """Version 1 in front of 2: its own tier answers, the others say which they serve."""
    old, new = toys.manifest(version="1.0.0"), toys.manifest(version="2.0.0")
    cloud = toys.engine(CLOUD, (toys.COUNT, new))
    page = toys.engine(PAGE, (toys.COUNT, old), upstream=toys.Hop(cloud))
    assert ask(page, version="1.0.0").tier == PAGE
    with pytest.raises(
        Conflict, match=r"version 1\.0\.0 of text\.count is not served; served: 2\.0\.0"
    ):
        ask(cloud, version="1.0.0")
    page.add(toys.load(toys.COUNT, new, PAGE, "2" * 64))
    assert ask(page).version == "2.0.0"
    assert ask(page, version="1.0.0").version == "1.0.0"
    page.remove("text.count", "1.0.0")
    with pytest.raises(Conflict):
        ask(page, version="1.0.0", tiers=(PAGE,))
    page.remove("text.count", "2.0.0")
    assert page.functions == {}


@pytest.mark.parametrize("development", [True, False])
def test_a_broken_function_names_its_line_to_its_developer(development: bool) -> None:
    """And to nobody else."""
    host = toys.FakeHost()
    edge = toys.engine(EDGE, (BROKEN, toys.manifest()), host=host, development=development)
    with pytest.raises(
        RunFailed, match="text.count failed on the edge tier: ZeroDivisionError"
    ) as caught:
        ask(edge)
    line = "text.count/function.py, line 6, in count"
    assert caught.value.where == (line if development else None)
    assert ("division" in caught.value.message) == development
    assert [where for _, where in host.reports] == [line]


def test_a_full_tier_passes_on_or_refuses() -> None:
    """Nothing accepted waits without end."""
    cloud = toys.engine(CLOUD, COUNTED)
    edge = toys.engine(EDGE, COUNTED, upstream=toys.Hop(cloud), most=0)
    assert ask(edge).tier == CLOUD
    with pytest.raises(TierOverloaded, match="its limit") as caught:
        ask(edge, tiers=(EDGE,))
    assert caught.value.retry_after == 1.0


SPELLED = (SPELL, toys.manifest("text.spell", "spell", streams=True))


def parts(engine: Engine, **fields: Any) -> list[Any]:
    asked = Ask(function="text.spell", **{"inputs": {"text": "abc"}, **fields})
    return toys.run(toys.collect(engine.stream(asked)))


@pytest.mark.parametrize("tier", list(Tier))
def test_parts_stream_from_any_tier(tier: Tier) -> None:
    """The last is the answer, with all of them."""
    page, _, _ = three(SPELLED)
    found = parts(page, tiers=(tier,))
    assert found[:-1] == [Part(output=letter) for letter in "abc"]
    assert (found[-1].output, found[-1].tier) == (["a", "b", "c"], tier)


def test_a_stream_can_be_asked_for_as_a_whole() -> None:
    """Infer gives the list of its parts."""
    page, _, _ = three(SPELLED)
    assert ask(page, "text.spell", inputs={"text": "ab"}, tiers=(CLOUD,)).output == ["a", "b"]


def test_a_plain_function_streams_its_answer_alone() -> None:
    """There are no parts to wait for."""
    page, _, _ = three(COUNTED)
    found = toys.run(toys.collect(page.stream(Ask(function="text.count", inputs=TEXT))))
    assert [type(each) for each in found] == [Answer]


def test_before_the_first_part_a_stream_falls_back() -> None:
    """After it, a failure is a part of its own and the end."""
    page, _, _ = three(SPELLED)
    page.host.failing = ModelNotReady("cold")  # type: ignore[attr-defined]
    assert parts(page)[-1].tier in (EDGE, CLOUD)
    _, edge, _ = three(SPELLED)
    begun = parts(edge, inputs={"text": "a!b"})
    assert begun[0] == Part(output="a")
    assert isinstance(begun[-1], Fault)
    assert begun[-1].code == "run_failed"
    with pytest.raises(RunFailed):
        parts(edge, inputs={"text": "!"})
    with pytest.raises(BadInput):
        parts(edge, options={"x": 1})


def test_one_trace_crosses_all_tiers() -> None:
    """Each span's parent is another span of it, up to the first."""
    spans: list[Span] = []
    page, _, _ = three(COUNTED, spans=spans)
    answer = ask(page, tiers=(CLOUD,))
    assert {span.service for span in spans} == {"page", "edge", "cloud"}
    assert {span.trace_id for span in spans} == {answer.trace[3:35]}
    ids = {span.span_id for span in spans}
    roots = [span for span in spans if not span.parent_id]
    assert [root.name for root in roots] == ["infer text.count"]
    assert all(span.parent_id in ids for span in spans if span not in roots)
    assert [span.attributes["trivium.tier"] for span in roots] == ["cloud"]


def test_roads_show_what_was_measured() -> None:
    """After some asks the advert is the experience."""
    edge = toys.engine(EDGE, COUNTED)
    assert edge.roads("text.count")[0].ms == (1.0, 20.0, 50.0)
    for _ in range(80):
        ask(edge)
    assert edge.roads("text.count")[0].ms == pytest.approx((1.0, 1.0, 1.0), rel=0.5)
    assert edge.roads("text.count")[0].ready
    for _ in range(5):
        edge.memory.failed("text.count", EDGE, edge.host.clock())
    assert not edge.roads("text.count")[0].ready


def test_an_answer_says_what_was_expected() -> None:
    """By the plan that was made where the ask began, and what its road took as seen from there."""
    spans: list[Span] = []
    page, _, _ = three(COUNTED, spans=spans)
    answer = ask(page)
    assert (answer.expected, answer.took) == ((1.0, 10.0, 50.0), 1.0)
    answer = ask(page, tiers=(CLOUD,))
    (road,) = (each for each in answer.plan.roads if each.tier == CLOUD)
    assert answer.expected == road.ms
    assert answer.took == answer.ms.total
    root = spans[-1].attributes
    assert (root["trivium.expected_ms"], root["trivium.took_ms"]) == (road.ms[1], answer.took)


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


def test_what_came_before_is_not_the_links_time() -> None:
    """The edge failed for 40 ms, then the cloud answered: the page's link was as quick as ever."""
    page, edge, _ = three(COUNTED)
    edge.host.cost = 40.0  # type: ignore[attr-defined]
    edge.host.failing = ModelNotReady("cold")  # type: ignore[attr-defined]
    answer = ask(edge, tiers=(EDGE, CLOUD))
    assert (answer.tier, answer.ms.before, answer.ms.total) == (CLOUD, 40.0, 1.0)
    assert ask(page, tiers=(EDGE, CLOUD)).ms.before == 40.0


def test_a_hop_counts_as_time() -> None:
    """What the next tier did not spend was spent on the way."""
    cloud = toys.engine(CLOUD, COUNTED)

    class Slow(toys.Hop):
        async def infer(self, ask: Ask) -> Answer:
            answer = await super().infer(ask)
            edge.host.now += 30  # type: ignore[attr-defined]
            return answer

    edge = toys.engine(EDGE, COUNTED, upstream=Slow(cloud))
    assert ask(edge, tiers=(CLOUD,)).ms.hop == 30 - 1


def test_a_stream_without_an_answer_is_a_failure() -> None:
    """A next hop that just stops has not answered."""
    from trivium.errors import TierError

    class Mute(toys.Hop):
        async def stream(self, ask: Ask) -> Any:
            return
            yield

    edge = toys.engine(EDGE, upstream=Mute(toys.engine(CLOUD, SPELLED)))
    with pytest.raises(TierError, match="ended without an answer"):
        parts(edge)


HELD = """
from collections.abc import AsyncIterator
from trivium import Models, Tensor, Text, function

ENDED = []
HELD = []

@function("text.held")
async def held(text: Text, models: Models) -> AsyncIterator[float]:
    steps = models.m.start()  # and never ends it: the ask does
    HELD.append(steps)
    try:
        while True:
            yield (await steps.run(x=Tensor.of("float32", (1,), [1.0]))).tolist()[0]
    finally:
        ENDED.append(text)
"""


@pytest.mark.parametrize("tier", list(Tier))
def test_a_stream_that_nobody_takes_ends_at_once(tier: Tier) -> None:
    """Through any number of hops: the function's block is left, and its state let go."""
    made = toys.manifest("text.held", "held", streams=True, models={"m": ("m.onnx",)})
    page, edge, cloud = three((HELD, made))

    async def some() -> None:
        asked = Ask(function="text.held", inputs={"text": tier}, tiers=(tier,))
        stream = page.stream(asked)
        assert [await anext(stream) for _ in range(2)] == [Part(output=1.0), Part(output=2.0)]
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()

    toys.run(some())
    engine = {PAGE: page, EDGE: edge, CLOUD: cloud}[tier]
    (function,) = engine.functions["text.held"].values()
    known = function.call.__globals__
    assert known["ENDED"][-1] == tier
    assert engine.running == 0
    with pytest.raises(RunFailed, match="have ended"):
        toys.run(known["HELD"][-1].run(x=Tensor.of("float32", (1,), [1.0])))


def test_a_function_that_goes_while_it_is_asked_is_a_failure_of_its_tier() -> None:
    """Another road may have it still."""
    page, _, _ = three(COUNTED)
    host = page.host
    first = host.race

    async def gone(*given: Any) -> Any:
        page.functions.clear()
        return await first(*given)

    host.race = gone  # type: ignore[method-assign, assignment]
    answer = ask(page)
    assert answer.tier in (EDGE, CLOUD)
    assert "page failed (model_not_ready)" in answer.plan.reason
