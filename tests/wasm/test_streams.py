"""What a function yields comes part by part, from any tier."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest

import toys
from toys import COUNTED, SPELLED, TEXT, ask, parts, three
from trivium.contract import (
    Answer,
    Ask,
    Fault,
    Part,
    Tensor,
    Tier,
)
from trivium.errors import (
    BadInput,
    ModelNotReady,
    RunFailed,
)

PAGE, EDGE, CLOUD = Tier


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
