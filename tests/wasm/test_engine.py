"""One tier, and three in a row."""

from __future__ import annotations

from typing import Any

import pytest

import toys
from toys import COUNTED, ask, hop, three
from trivium.contract import (
    Answer,
    Ask,
    Budget,
    Tier,
)
from trivium.errors import (
    BadInput,
    BudgetError,
    Conflict,
    ModelNotReady,
    NotAllowed,
    RunFailed,
    TierOverloaded,
    TierUnreachable,
    UnknownFunction,
)
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
    host, spans = toys.FakeHost(), list[Span]()
    broken = (BROKEN, toys.manifest())
    edge = toys.engine(EDGE, broken, host=host, development=development, spans=spans)
    with pytest.raises(
        RunFailed, match="text.count failed on the edge tier: ZeroDivisionError"
    ) as caught:
        ask(edge)
    line = "text.count/function.py, line 6, in count"
    assert caught.value.where == (line if development else None)
    assert ("division" in caught.value.message) == development
    assert [where for _, where in host.reports] == [line]
    run = next(span for span in spans if span.name == "run")
    assert run.attributes["trivium.function"] == "text.count"
    assert run.attributes["trivium.version"] == "1.0.0"


def test_a_full_tier_passes_on_or_refuses() -> None:
    """Nothing accepted waits without end."""
    cloud = toys.engine(CLOUD, COUNTED)
    edge = toys.engine(EDGE, COUNTED, upstream=toys.Hop(cloud), most=0)
    assert ask(edge).tier == CLOUD
    with pytest.raises(TierOverloaded, match="its limit") as caught:
        ask(edge, tiers=(EDGE,))
    assert caught.value.retry_after == 1.0


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


def test_an_ask_that_nobody_can_answer_in_time_had_a_budget() -> None:
    """Its span says so, though there never was a plan."""
    spans: list[Span] = []
    page, _, _ = three(COUNTED, spans=spans)
    with pytest.raises(BudgetError):
        ask(page, budget=Budget(ms=0.001))
    assert spans[-1].attributes["trivium.budget_ms"] == 0.001


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
