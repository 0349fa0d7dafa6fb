"""What a function on one tier asks of others, and an unsure answer of a better road."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

import toys
from toys import COUNTED, ask, hop, three
from trivium.contract import (
    Answer,
    Blob,
    Budget,
    Input,
    Tier,
)
from trivium.engine import Engine
from trivium.errors import (
    BudgetError,
    NotAllowed,
    TierUnreachable,
)
from trivium.nouns import Label

PAGE, EDGE, CLOUD = Tier

PIPE = """
from trivium import Asker, Image, Text, function

@function("text.pipe")
async def pipe(text: Text, image: Image, ask: Asker) -> list[object]:
    again = await ask("image.size", image=image)
    return [await ask("text.count", text=text, least=2), again]
"""

SIZE = """
from trivium import Image, function

@function("image.size")
async def size(image: Image) -> list[int]:
    return [image.height, image.width]
"""

PIPING = (
    PIPE,
    toys.manifest(
        "text.pipe",
        "pipe",
        tiers=[PAGE],
        inputs=(Input(name="text", kind="text"), Input(name="image", kind="image")),
        asks=True,
    ),
)


def test_a_pipeline_asks_within_its_own_budget() -> None:
    """Steps inherit reach and what is left; images travel as they came."""
    size = toys.manifest(
        "image.size", "size", tiers=[CLOUD], inputs=(Input(name="image", kind="image"),)
    )
    page, _, _ = three(PIPING, (SIZE, size), COUNTED)
    inputs = {"text": "a bb ccc", "image": Blob(media="image/png", data=b"rgb")}
    answer = ask(page, "text.pipe", inputs=inputs, budget=Budget(ms=900))
    assert answer.output == [{"words": 2}, [1, 1]]
    sent = hop(page).asks[0]
    assert sent.inputs == {"image": Blob(media="image/png", data=b"rgb")}
    assert sent.budget.ms is not None
    assert sent.budget.ms < 900
    with pytest.raises(NotAllowed):
        ask(page, "text.pipe", inputs=inputs, budget=Budget(reach=PAGE))


ASKS = """
from trivium import Asker, Text, function

@function("text.asks")
async def asks(text: Text, ask: Asker) -> object:
    return await ask("text.count", text=text)
"""


def test_a_steps_text_crosses_to_another_tier() -> None:
    """What its author holds is a `Text`, which the wire does not know."""
    count = (toys.COUNT, toys.manifest(tiers=[CLOUD]))
    page, _, _ = three((ASKS, toys.manifest("text.asks", "asks", tiers=[PAGE], asks=True)), count)
    assert ask(page, "text.asks", inputs={"text": "a bb"}).output == {"words": 2}


def test_steps_share_their_pipelines_budget() -> None:
    """As they took of it before; a share in which none can be does not stand in the way."""
    slow = {PAGE: (100.0, 140.0, 200.0), EDGE: (20.0, 30.0, 40.0), CLOUD: (20.0, 30.0, 40.0)}
    count = (toys.COUNT, toys.manifest(ms=slow))
    asks = (ASKS, toys.manifest("text.asks", "asks", tiers=[PAGE], asks=True))
    for share, left in ((None, True), (0.3, False), (0.001, True)):
        page, _, _ = three(asks, count)
        if share is not None:
            page.memory.stepped("text.asks", 0, share)
        ask(page, "text.asks", budget=Budget(ms=300))
        assert (hop(page).asks == []) == left
        for sent in hop(page).asks:
            assert sent.budget.ms == pytest.approx(300, abs=5)  # the share chose its road alone


def test_the_first_split_is_by_predicted_cost() -> None:
    """A step takes its part of what its pipeline is said to take, until more is known."""
    slow = {PAGE: (100.0, 140.0, 200.0), EDGE: (20.0, 30.0, 40.0), CLOUD: (20.0, 30.0, 40.0)}
    count = (toys.COUNT, toys.manifest(ms=slow))
    for whole, left in ((140.0, True), (500.0, False)):
        said = {PAGE: (0.7 * whole, whole, 1.5 * whole)}
        pipe = toys.manifest("text.asks", "asks", tiers=[PAGE], asks=True, ms=said)
        page, _, _ = three((ASKS, pipe), count)
        ask(page, "text.asks", budget=Budget(ms=400))
        assert (hop(page).asks == []) == left
        page.memory.stepped("text.asks", 0, 1.0)
        ask(page, "text.asks", budget=Budget(ms=400))
        assert len(hop(page).asks) == (0 if left else 1)


def test_what_steps_take_is_learnt() -> None:
    """Two that take the same have a half, and all that is left then; however many there are."""
    inputs = (Input(name="image", kind="image"),)
    size = toys.manifest("image.size", "size", tiers=[PAGE], inputs=inputs)
    page = toys.engine(PAGE, PIPING, (SIZE, size), COUNTED)
    image = Blob(media="image/png", data=b"rgb")
    for _ in range(3):
        ask(page, "text.pipe", inputs={"text": "a", "image": image})
    assert page.memory.share("text.pipe", 0) == pytest.approx(0.5)
    assert page.memory.share("text.pipe", 1) == pytest.approx(1.0)
    assert page.memory.share("text.pipe", 2) is None
    for place in range(100):
        page.memory.stepped("text.pipe", place, 0.5)
    assert len(page.memory._steps) <= 16


def test_steps_share_their_pipelines_cap() -> None:
    """What one spent is not there for the next, nor for the pipeline's own tier."""
    priced = toys.manifest()
    priced = toys.having(
        priced, variants=tuple(replace(each, spend=1.0) for each in priced.variants)
    )
    twice = ASKS.replace("return await", "await ask('text.count', text=text)\n    return await")
    asks = toys.manifest("text.asks", "asks", tiers=[PAGE], asks=True)
    page = toys.engine(PAGE, (twice, asks), (toys.COUNT, priced))
    assert ask(page, "text.asks", budget=Budget(spend=2.0)).spent == 2.0
    with pytest.raises(BudgetError, match="no road is within a spend of 0:"):
        ask(page, "text.asks", budget=Budget(spend=1.0))


def guess(engine: Engine, score: float, **fields: Any) -> Answer:
    return ask(engine, "text.guess", options={"score": score}, **fields)


def test_an_unsure_answer_goes_up() -> None:
    """To the best road that the plan allows, and the reason says so."""
    page, edge, _ = three(toys.guessing())
    answer = guess(page, 0.9)
    assert answer.tier == PAGE
    assert answer.confidence == pytest.approx(0.9)
    answer = guess(page, 0.5)
    assert answer.tier == CLOUD
    assert answer.plan.reason.endswith("; page is 50 % sure, not 75 %; so cloud answered")
    assert answer.ms.before == 1.0
    assert answer.spent == 1.0
    # The edge goes up itself, for who asked it and the cloud.
    assert guess(page, 0.5, tiers=(EDGE, CLOUD)).tier == CLOUD
    assert hop(page).asks[-1].tiers == (EDGE, CLOUD)
    assert hop(edge).asks[-1].tiers == (CLOUD,)
    empty = ask(page, "text.guess", inputs={"text": ""})
    assert (empty.tier, empty.confidence) == (PAGE, None)


def test_an_unsure_answer_is_kept_where_there_is_no_leave() -> None:
    """Beyond its reach, its tiers, its cap or its time no ask goes for being surer."""
    page, _, _ = three(toys.guessing(page=0.0, edge=0.3, cloud=1.0))
    for fields in (
        {"budget": Budget(reach=EDGE)},
        {"budget": Budget(spend=0.9)},
        {"tiers": (PAGE,)},
        {"tiers": (PAGE, EDGE)},
    ):
        assert guess(page, 0.5, **fields).tier == PAGE
    assert hop(page).asks == []
    answer = guess(page, 0.5, budget=Budget(ms=51))
    assert answer.tier == PAGE
    assert "page is 50 % sure, not 75 %; no time to ask cloud; so page answered" in (
        answer.plan.reason
    )
    hop(page).down = TierUnreachable("nobody is there", tier="edge")
    answer = guess(page, 0.5)
    assert answer.tier == PAGE
    assert "cloud failed (tier_unreachable); so page answered" in answer.plan.reason


def test_the_way_to_a_confidence_is_data() -> None:
    """Through lists, dicts and structs; where it leads nowhere, nothing is known."""
    (page, *_) = toys.guessing()[1].variants
    cascade = replace(page.cascade, scale=0.5, offset=1.0)
    assert cascade.sure([{"score": 0.5}]) == pytest.approx(0.731, abs=1e-3)
    assert cascade.sure([Label(label="x", score=0.9)]) == pytest.approx(0.891, abs=1e-3)
    assert cascade.sure([{"score": 1.0}]) < 1
    nothing: tuple[Any, ...] = ([], {}, None, [{}], [{"score": None}], "text", 3)
    for output in nothing:
        assert cascade.sure(output) is None
