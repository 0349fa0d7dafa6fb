"""How a function is loaded and called."""

from __future__ import annotations

from typing import Any

import pytest

import toys
from trivium.contract import Option, Tensor, Tier
from trivium.errors import BadInput, BundleError, RunFailed
from trivium.function import Loaded, Models, function
from trivium.kinds import Image, Text

LEAST = Option(name="least", schema={"type": "integer", "minimum": 1}, default=1)


def test_a_marked_function_stays_callable() -> None:
    """An author's test calls it as it is."""

    @function("text.shout")
    async def shout(text: Text) -> str:
        return text.upper()

    assert toys.run(shout(Text("a"))) == "A"


def test_options_are_checked_and_filled_in() -> None:
    """Defaults fill gaps; text from a query string is converted."""
    counted = toys.load(toys.COUNT, toys.manifest(options=(LEAST,)), Tier.EDGE)
    assert counted.options({}) == {"least": 1}
    assert counted.options({"least": "3"}) == {"least": 3}


@pytest.mark.parametrize("given", [{"least": 0}, {"least": "x"}, {"most": 1}, {"least": None}])
def test_a_wrong_option_names_the_allowed(given: dict[str, Any]) -> None:
    """The message lists what there is."""
    counted = toys.load(toys.COUNT, toys.manifest(options=(LEAST,)), Tier.EDGE)
    with pytest.raises(BadInput, match=r"options of text.count: .*\(options: least\)"):
        counted.options(given)


def test_a_required_option_is_required() -> None:
    """Without a default there is no filling in."""
    needed = Option(name="least", schema={"type": "integer"}, required=True)
    counted = toys.load(toys.COUNT, toys.manifest(options=(needed,)), Tier.EDGE)
    with pytest.raises(BadInput, match="least"):
        counted.options({})


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string", "enum": ["a", "b"]}, "a", "c"),
        ({"enum": ["a", "b"]}, "b", "c"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, "x"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 2}, ["x"], ["x", "y", "z"]),
        ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "b"}, {"a": 5}),
        ({"type": "object", "additionalProperties": False}, {"a": 5}, 5),
        ({"type": "number", "exclusiveMinimum": 0}, 0.1, 0),
        ({"type": "boolean"}, True, 7),
        ({"type": "string", "maxLength": 2, "pattern": "^a"}, "ab", "b"),
        ({"type": "object"}, {"k": 1}, []),
    ],
)
def test_options_follow_their_json_schema(schema: dict[str, Any], good: Any, bad: Any) -> None:
    """What a hint says is what is accepted."""
    option = Option(name="o", schema=schema, required=True)
    counted = toys.load(toys.COUNT, toys.manifest(options=(option,)), Tier.EDGE)
    assert counted.options({"o": good}) == {"o": good}
    with pytest.raises(BadInput):
        counted.options({"o": bad})


def test_a_list_may_arrive_as_text() -> None:
    """A raw body's options are all text: what a list holds stands between commas."""
    words = Option(name="words", schema={"type": "array", "items": {"type": "string"}})
    made = toys.load(toys.COUNT, toys.manifest(options=(words,)), Tier.EDGE)
    assert made.options({"words": "one, two words,three"}) == {
        "words": ["one", "two words", "three"]
    }
    assert made.options({"words": ["one, two"]}) == {"words": ["one, two"]}


def test_mutable_defaults_are_not_shared() -> None:
    """One ask can't change another's default."""
    option = Option(name="o", schema={"type": "array"}, default=[])
    counted = toys.load(toys.COUNT, toys.manifest(options=(option,)), Tier.EDGE)
    counted.options({})["o"].append(1)
    assert counted.options({}) == {"o": []}


def test_inputs_must_be_those_of_the_function() -> None:
    """Missing and unknown ones are both named."""
    counted = toys.load(toys.COUNT, toys.manifest(), Tier.EDGE)
    assert counted.inputs({"text": "x"}) == {"text": "x"}
    with pytest.raises(BadInput, match="takes the inputs: text; the ask has: none"):
        counted.inputs({})
    with pytest.raises(BadInput, match="the ask has: text, more"):
        counted.inputs({"text": "x", "more": "y"})


def test_a_module_that_fails_names_its_line() -> None:
    """A bundle whose code does not load is a bad bundle."""
    with pytest.raises(BundleError, match="ZeroDivisionError") as caught:
        toys.load("x = 1\ny = 1 / 0\n", toys.manifest(), Tier.EDGE)
    assert caught.value.where == "text.count/function.py, line 2, in <module>"
    with pytest.raises(BundleError, match="SyntaxError") as caught:
        toys.load("x = 1\nasync def (\n", toys.manifest(), Tier.EDGE)
    assert caught.value.where == "text.count/function.py, line 2"
    with pytest.raises(BundleError, match="SystemExit"):
        toys.load("raise SystemExit", toys.manifest(), Tier.EDGE)
    with pytest.raises(BundleError, match="count"):
        toys.load("", toys.manifest(), Tier.EDGE)


def test_two_versions_live_side_by_side() -> None:
    """The digest names the module, so that neither hides the other."""
    one = toys.load(toys.COUNT, toys.manifest(), Tier.EDGE, "1" * 64)
    two = toys.load(toys.COUNT.replace("len(words)", "-1"), toys.manifest(), Tier.EDGE, "2" * 64)
    assert toys.run(one.call(Text("a b"), 1)) == {"words": 2}
    assert toys.run(two.call(Text("a b"), 1)) == {"words": -1}


def test_models_are_sessions_by_name() -> None:
    """Labels, settings and time spent come with them."""
    ticks = iter([0.0, 5.0])
    models = Models(
        Loaded({"double": toys.FakeSession()}, ["a"], None, {"k": 1}), lambda: next(ticks)
    )
    x = Tensor(dtype="float32", shape=(2,), data=memoryview(bytearray(8)))
    assert toys.run(models.double.run(x=x)).tolist() == [0, 0]
    assert models.ms == 5.0
    assert list(models.labels) == ["a"]
    assert models.settings == {"k": 1}
    with pytest.raises(AttributeError, match="no model 'triple'; it has: double"):
        _ = models.triple
    with pytest.raises(RunFailed, match="no tokenizer"):
        _ = models.tokens


def test_run_wants_one_output() -> None:
    """A model with several is run by run_all."""

    class Two(toys.FakeSession):
        async def run(self, feeds: Any) -> dict[str, Tensor]:
            return {"a": feeds["x"], "b": feeds["x"]}

    models = Models(Loaded({"two": Two()}), lambda: 0.0)
    x = Tensor(dtype="float32", shape=(1,), data=bytes(4))
    assert sorted(toys.run(models.two.run_all(x=x))) == ["a", "b"]
    with pytest.raises(RunFailed, match="outputs a, b; use run_all"):
        toys.run(models.two.run(x=x))


def test_an_image_knows_its_size() -> None:
    """Height comes first in the pixels' shape."""
    image = Image(Tensor(dtype="uint8", shape=(2, 3, 3), data=bytes(18)))
    assert (image.height, image.width) == (2, 3)


def models() -> Models:
    """Return one model."""
    return Models(Loaded({"m": toys.FakeSession()}), lambda: 0.0)


def ones(count: int = 1) -> Tensor:
    """Return float32 [count] of ones."""
    return Tensor.of("float32", (count,), [1.0] * count)


def test_steps_carry_their_state_on() -> None:
    """Each begins where the last one ended, or where `start` was told to begin."""

    async def steps(**first: Tensor) -> list[float]:
        found: list[float] = []
        async with models().m.start(**first) as each:
            found += (await each.run(x=ones(2))).tolist()
            found += (await each.run_all(x=ones()))["y"].tolist()
        return found

    assert toys.run(steps()) == [2.0, 3.0]
    assert toys.run(steps(past=ones(5))) == [7.0, 8.0]


def test_steps_end_with_their_block_and_with_the_ask() -> None:
    """After that there is no state to go on with."""
    all_models = models()
    steps = all_models.m.start()
    toys.run(steps.run(x=ones()))
    all_models.close()
    with pytest.raises(RunFailed, match="the steps of model 'm' have ended"):
        toys.run(steps.run(x=ones()))
    steps.close()


def test_a_failed_step_may_be_tried_again() -> None:
    """The state is that before it."""
    steps = models().m.start()
    with pytest.raises(RunFailed, match="the model failed"):
        toys.run(steps.run(fail=ones()))
    assert toys.run(steps.run(x=ones())).tolist() == [1.0]


def test_a_cancelled_step_ends_all() -> None:
    """The state may be that before or after it: nobody can go on from there."""
    steps = models().m.start()
    pending = steps.run(hang=ones())
    pending.send(None)
    with pytest.raises(RunFailed, match="a step of model 'm' is still running"):
        toys.run(steps.run(x=ones()))
    with pytest.raises(KeyboardInterrupt):
        pending.throw(KeyboardInterrupt)
    with pytest.raises(RunFailed, match="have ended"):
        toys.run(steps.run(x=ones()))


def test_outputs_may_stay() -> None:
    """They are fed to a model without their numbers ever coming here."""
    kept = toys.run(models().m.keep(x=ones(3)))
    assert (kept["y"].dtype, kept["y"].shape) == ("float32", (3,))
