"""What a function yields comes part by part, from any tier."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from msgspec.structs import replace

import toys
from toys import COUNTED, SPELLED, TEXT, ask, parts, three
from trivium.contract import (
    Answer,
    Ask,
    Budget,
    Fault,
    Option,
    Part,
    Tensor,
    Tier,
)
from trivium.errors import (
    BadInput,
    ModelNotReady,
    RunFailed,
    TierUnreachable,
    Unsuited,
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


WAITING = """
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.wait")
async def wait(text: Text) -> AsyncIterator[int]:
    for ms in map(int, text.split()):
        CLOCK.now += ms
        yield ms
"""


def waiting() -> Any:
    """Return an edge with a function whose parts take as long as its text says, and a quick one."""
    edge = toys.engine(EDGE, (WAITING, toys.manifest("text.wait", "wait", streams=True)), COUNTED)
    (function,) = edge.functions["text.wait"].values()
    function.call.__globals__["CLOCK"] = edge.host
    return edge


def test_a_streams_time_is_that_to_its_first_part() -> None:
    """What a budget is held against; how long it goes on is up to what it says."""
    edge = waiting()
    for _ in range(20):
        wait = parts(edge, function="text.wait", inputs={"text": "30 9000"}, budget=Budget(ms=500))
        assert wait[-1].output == [30, 9000]
    assert wait[-1].expected[1] == pytest.approx(31, rel=0.2)


@pytest.mark.parametrize("stream", [False, True])
def test_what_says_much_makes_no_tier_look_slow(stream: bool) -> None:
    """Another function is expected to take as long as before, whatever a long answer took."""
    edge = waiting()
    for _ in range(20):
        before = ask(edge).expected
    for text in ("1", "1 20000", "1", "1 60000"):
        inputs: Any = {"text": text}
        if stream:
            parts(edge, function="text.wait", inputs=inputs)
        else:
            ask(edge, "text.wait", inputs=inputs)
    assert ask(edge).expected == pytest.approx(before, rel=0.3)


SMALL = """
from collections.abc import AsyncIterator
from trivium import Models, Text, function
from trivium.errors import Unsuited

@function("text.say")
async def say(text: Text, models: Models, language: str = "en") -> AsyncIterator[str]:
    if language != "en" and models.settings.get("only"):
        raise Unsuited("this tier knows English alone")
    yield language
"""


def test_a_model_that_cannot_is_no_broken_road() -> None:
    """Its own error leads on to the next tier as often as need be, or is told where none may."""
    option = Option(name="language", schema={"type": "string"}, default="en")
    models: dict[str, tuple[str, ...]] = {"m": ("m.onnx",)}
    made = toys.manifest("text.say", "say", streams=True, models=models, options=(option,))
    small = [replace(each, settings={"only": each.tier != CLOUD}) for each in made.variants]
    page, edge, cloud = three((SMALL, toys.having(made, variants=tuple(small))))
    for _ in range(5):
        for said in (
            ask(page, "text.say", options={"language": "fr"}),
            parts(page, function="text.say", options={"language": "fr"})[-1],
        ):
            assert (said.output, said.tier) == (["fr"], CLOUD)
        for allowed in ({"tiers": (EDGE,)}, {"tiers": (PAGE,)}, {"budget": Budget(reach=EDGE)}):
            for asked in (
                ask,
                lambda engine, function, **more: parts(engine, function=function, **more),
            ):
                with pytest.raises(Unsuited, match="English alone"):
                    asked(page, "text.say", options={"language": "fr"}, **allowed)
    assert ask(page, "text.say").tier == PAGE
    assert page.memory.failures == edge.memory.failures == cloud.memory.failures == {}
    page.upstream.down = TierUnreachable("gone")  # type: ignore[union-attr]
    with pytest.raises(TierUnreachable):
        ask(page, "text.say", options={"language": "fr"})


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
