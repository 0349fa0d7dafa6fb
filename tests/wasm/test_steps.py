"""What is remembered of a pipeline's steps, and what is a run that was cut told again?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

import toys
from toys import COUNT, Cut, Diary, collect, run
from trivium import Asker
from trivium.contract import Answer, Ask, Option, Part, Tier
from trivium.errors import RunFailed
from trivium.run import Journal
from trivium.trace import Span

PAGE, EDGE, CLOUD = Tier

TALK = """
from trivium import Asker, Text, TierError, Unanswered, function

@function("text.talk")
async def talk(text: Text, ask: Asker) -> dict[str, object]:
    whole = await ask("text.count", text=text)
    again = await ask.step("again", "text.count", text=text)
    answer = await ask.answer("known", "text.count", text=Text("a b"))
    first, both, last = await ask.together(
        ask("text.count", text=Text("a")), pair(ask, "b c"), ask("text.count", text=Text("d"))
    )
    inner = await ask.step("inner", "text.inner", text=text)
    try:
        broken = await ask("text.broken", text=text)
    except TierError as error:
        broken = error.code
    try:
        nothing = await ask("text.nothing", text=text)
    except Unanswered as error:
        nothing = error.code
    if whole["words"] > 2:
        whole = await ask("text.count", text=Text("long"))
    return {"counts": [whole, again, answer.output, first, both, last, inner, broken, nothing],
            "tier": answer.tier, "unsure": answer.confidence is None}

async def pair(ask: Asker, text: str) -> list[object]:
    return [await ask("text.count", text=Text(each)) for each in (text, text + " d")]
"""

INNER = """
from trivium import Asker, Text, function

@function("text.inner")
async def inner(text: Text, ask: Asker) -> list[object]:
    return [await ask("text.count", text=text), await ask.step("two", "text.count", text=text)]
"""

BROKEN = """
from trivium import Text, function

@function("text.broken")
async def broken(text: Text) -> None:
    raise ValueError(text)
"""

FUNCTIONS = (
    (TALK, toys.manifest("text.talk", "talk", asks=True)),
    (INNER, toys.manifest("text.inner", "inner", asks=True)),
    (BROKEN, toys.manifest("text.broken", "broken")),
    (
        COUNT,
        toys.manifest(options=(Option(name="least", schema={"type": "integer"}, default=1),)),
    ),
)

FINISHED = [
    "text.count",
    "again",
    "known",
    "text.count#2",
    "2/text.count",
    "2/text.count#2",
    "text.count#3",
    "inner/text.count",
    "inner/two",
    "inner",
    "text.count#4",
]


def talking(diary: Journal | None = None, text: str = "one two three", **made: Any) -> Answer:
    engine = toys.engine(CLOUD, *FUNCTIONS, **made)
    return run(engine.infer(Ask(function="text.talk", inputs={"text": text}), journal=diary))


def test_each_step_has_a_name_and_tells_its_journal() -> None:
    """Repeated, beside others and within others; a branch that is not taken has no step."""
    diary = Diary()
    answer = talking(diary)
    assert list(diary.done) == FINISHED
    assert diary.told[:3] == ["recall text.count", "began text.count", "done text.count"]
    assert "run_failed text.broken" in diary.told
    assert "unknown_function text.nothing" in diary.told
    assert answer.output["counts"][-2:] == ["run_failed", "unknown_function"]
    assert (answer.output["tier"], answer.output["unsure"]) == ("cloud", True)
    short = Diary()
    talking(short, "one two")
    assert list(short.done) == FINISHED[:-1]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")  # those that were killed
def test_a_run_that_was_cut_repeats_no_step_that_ended() -> None:
    """Wherever it was cut, and again in the next one: it answers the same."""
    whole = Diary()
    wanted = talking(whole).output
    for first in range(len(whole.told)):
        diary = Diary(first)
        with pytest.raises(Cut):
            talking(diary)
        done = set(diary.done)
        for last in (first + 3, first + 40, None):
            diary.asked, diary.last = [], None if last is None else len(diary.told) + last
            try:
                assert talking(diary).output == wanted
            except Cut:
                assert last is not None
            assert not done & set(diary.asked)
            done = set(diary.done)
    assert talking().output == wanted


def test_what_was_remembered_is_not_asked_and_costs_nothing() -> None:
    """Not even where nothing is left of the budget, nor of the cap."""
    diary = Diary()
    priced = talking(diary).spent
    assert priced > 0
    engine = toys.engine(CLOUD, *FUNCTIONS)
    ask = Ask(function="text.talk", inputs={"text": "one two three"})
    for name in ("text.broken", "text.nothing"):
        diary.done[name] = diary.done["again"]
    answer = run(engine.infer(ask, journal=diary))
    (road,) = answer.plan.roads
    assert answer.spent == road.spend < priced
    assert engine.memory.share("text.talk", 0) is None  # no time was learnt of what took none


def test_a_steps_output_is_the_same_from_here_and_from_elsewhere() -> None:
    """Plain data, so that a pipeline sees the same when it is replayed."""
    label = """
from trivium import Label, Text, function

@function("text.label")
async def label(text: Text) -> dict[str, object]:
    return {"labels": (Label(label=str(text), score=1.0),), "data": b"x"}
"""
    pipe = """
from trivium import Asker, Text, function

@function("text.pipe")
async def pipe(text: Text, ask: Asker) -> str:
    return repr(await ask("text.label", text=text))
"""
    wanted = "{'labels': [{'label': 'a', 'score': 1.0}], 'data': b'x'}"
    for tiers in ([PAGE], [CLOUD]):
        page, _, _ = toys.three(
            (pipe, toys.manifest("text.pipe", "pipe", tiers=[PAGE], asks=True)),
            (label, toys.manifest("text.label", "label", tiers=tiers)),
        )
        assert toys.ask(page, "text.pipe", inputs={"text": "a"}).output == wanted


def test_each_change_of_a_step_is_a_spans_begin_or_end() -> None:
    """Its begin and its end, with what became of it; steps of steps lie within it."""
    spans: list[Span] = []
    diary = Diary()
    talking(diary, spans=spans)
    steps = {
        span.attributes["trivium.step"]: span for span in spans if "trivium.step" in span.attributes
    }
    assert set(steps) == {*FINISHED, "text.broken", "text.nothing"}
    assert steps["again"].attributes["trivium.state"] == "done"
    assert steps["text.broken"].attributes["trivium.state"] == "failed"
    assert steps["text.broken"].error == "run_failed"
    (infer,) = [span for span in spans if span.parent_id == steps["inner"].span_id]
    assert infer.name == "infer text.inner"
    again: list[Span] = []
    talking(diary, spans=again)
    states = [span.attributes.get("trivium.state") for span in again if span.name == "step"]
    assert states.count("replayed") == 9  # "inner" was, and so nothing in it was asked


def test_a_stream_remembers_its_steps_too() -> None:
    """And so does one that was left by who took its parts."""
    code = """
from collections.abc import AsyncIterator
from trivium import Asker, Text, function

@function("text.each")
async def each(text: Text, ask: Asker) -> AsyncIterator[object]:
    for word in text.split():
        yield await ask("text.count", text=Text(word))
"""
    made = toys.manifest("text.each", "each", asks=True, streams=True)
    engine = toys.engine(CLOUD, (code, made), FUNCTIONS[-1])
    ask, diary = Ask(function="text.each", inputs={"text": "a b"}), Diary()
    parts = run(collect(engine.stream(ask, journal=diary)))
    assert [type(part) for part in parts] == [Part, Part, Answer]
    assert list(diary.done) == ["text.count", "text.count#2"]


@pytest.mark.parametrize("name", ["a/b", "a#2"])
def test_a_name_that_could_be_anothers_is_refused(name: str) -> None:
    """The author hears why, in development."""
    code = f"""
from trivium import Asker, Text, function

@function("text.named")
async def named(text: Text, ask: Asker) -> object:
    return await ask.step({name!r}, "text.count", text=text)
"""
    made = toys.manifest("text.named", "named", asks=True)
    engine = toys.engine(CLOUD, (code, made), FUNCTIONS[-1], development=True)
    with pytest.raises(RunFailed, match="must not have / or # in it"):
        toys.ask(engine, "text.named")


def test_a_pipeline_can_be_called_in_a_test() -> None:
    """Only who answers must be written."""

    class Fake(Asker):
        async def __call__(self, function: str, /, **values: Any) -> Any:
            return [function, values]

    async def talk(ask: Asker) -> AsyncIterator[Any]:
        yield await ask.step("one", "text.count", text="a")
        yield (await ask.answer("two", "text.count", text="b")).output
        yield await ask.together(ask("text.count"), ask("text.other"))

    assert run(collect(talk(Fake()))) == [
        ["text.count", {"text": "a"}],
        ["text.count", {"text": "b"}],
        [["text.count", {}], ["text.other", {}]],
    ]
