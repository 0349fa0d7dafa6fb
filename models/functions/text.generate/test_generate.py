"""Text and JSON, from a tiny Llama everywhere and from the real one where it was pulled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import llama
from trivium.contract import Manifest, Sample, Tier, Variant
from trivium.errors import BadInput, BundleError, TooLarge
from trivium.function import Loaded, Models
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.host import Tokenizer
from trivium.hosts.server.session import Lanes, OrtSession, open_graph
from trivium_models.command import main
from trivium_models.package import load

HOME = Path(__file__).parent
ZOO = HOME.parents[1] / "zoo" / "text.generate"
STATE = {"past_*": "present_*"}
SETTINGS = {"max_tokens": 1500, "context": 1900, "ends": [0, 1, 2]}
PETS = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 9},
        "age": {"type": "integer", "minimum": 1, "maximum": 30},
        "weight": {"type": "number", "minimum": 0, "maximum": 9.5},
        "kind": {"enum": ["cat", "dog"]},
        "likes": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
        "good": {"type": "boolean"},
    },
}

made = load(HOME / "function.py")


def loaded(lanes: Lanes, *, form: str = "coarse", seed: int = 7) -> Models:
    """Return the tiny model."""
    session = OrtSession([open_graph("tiny", llama.graph(form, seed), False)], lanes, STATE)
    tokenizer = Tokenizer(llama.tokenizer().decode(), SETTINGS["max_tokens"])
    return Models(Loaded({"llama": session}, (), tokenizer, SETTINGS), lambda: 0.0)


def say(
    text: str = "Hello", *, seed_of_weights: int = 7, form: str = "coarse", **options: Any
) -> str:
    """Return what the tiny model says."""

    async def work() -> str:
        lanes = Lanes()
        try:
            models = loaded(lanes, form=form, seed=seed_of_weights)
            return "".join([piece async for piece in made.generate(text, models, **options)])
        finally:
            lanes.pool.shutdown()

    return asyncio.run(work())


def run(session: ort.InferenceSession, cache: dict[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Return one step's outputs by name."""
    names = [each.name for each in session.get_outputs()]
    feeds = {"ids": np.array([ids]), **cache}
    return dict(zip(names, session.run(names, feeds), strict=True))


def begin(session: ort.InferenceSession) -> dict[str, Any]:
    """Return an empty cache."""
    empty = np.zeros((1, 1, 0, 32), np.float32)
    return {each.name: empty for each in session.get_inputs() if each.name != "ids"}


def on(outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the cache for the next step."""
    return {f"past{k[7:]}": each for k, each in outputs.items() if k.startswith("present")}


@pytest.mark.parametrize("form", ["coarse", "unpacked"])
def test_four_bits_are_the_full_model(form: str) -> None:
    """The blocks map without loss: what is left is the order of sums."""
    ids = [5, 99, 200, 17, 42, 8]
    both = [ort.InferenceSession(llama.graph(each)) for each in ("full", form)]
    one, other = (run(each, begin(each), ids) for each in both)
    assert np.abs(one["logits"]).max() > 1
    np.testing.assert_allclose(other["logits"], one["logits"], atol=2e-4)
    assert other["candidates"][:20].tolist() == one["candidates"][:20].tolist()


@pytest.mark.parametrize("cut", [[1, 1, 1, 1, 1, 1], [3, 3], [4, 1, 1], [1, 5]])
def test_steps_are_the_whole(cut: list[int]) -> None:
    """With a cache, in whatever pieces, the scores are those of all tokens at once."""
    session = ort.InferenceSession(llama.graph())
    ids = [5, 99, 200, 17, 42, 8]
    whole = run(session, begin(session), ids)
    cache, at = begin(session), 0
    for size in cut:
        outputs = run(session, cache, ids[at : at + size])
        cache, at = on(outputs), at + size
    np.testing.assert_allclose(outputs["logits"], whole["logits"], atol=1e-4)
    ranked = outputs["logits"][0][outputs["candidates"]]
    assert ranked.tolist() == sorted(outputs["logits"][0].tolist(), reverse=True)[: len(ranked)]
    np.testing.assert_array_equal(ranked, outputs["scores"])


def test_the_best_token_or_one_by_chance() -> None:
    """Without a temperature the same each time; with one, the same for a seed."""
    assert say(max_tokens=20) == say(max_tokens=20, seed=5)
    warm = {"max_tokens": 20, "temperature": 1.5, "top_k": 100, "top_p": 1.0}
    assert say(seed=1, **warm) == say(seed=1, **warm)
    assert len({say(seed=each, **warm) for each in range(4)}) > 1


@pytest.mark.parametrize("weights", range(6))
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_even_nonsense_is_json_of_the_schema(weights: int, temperature: float) -> None:
    """A model that knows nothing gives what the schema allows, in whatever room there is."""
    for room in (95, 120, 300):
        said = (
            say(
                seed_of_weights=weights,
                schema=PETS,
                max_tokens=room,
                temperature=temperature,
                seed=weights,
            )
            if room < 300
            else say("x", seed_of_weights=weights, schema={"type": "number"})
        )
        found = json.loads(said)
        if room < 300:
            assert list(found) == list(PETS["properties"])  # type: ignore[call-overload] # a dict
            assert 1 <= found["age"] <= 30
            assert 0 <= found["weight"] <= 9.5
            assert found["kind"] in ("cat", "dog")


def test_a_stop_string_ends_it() -> None:
    """Whatever tokens it is made of; nothing of it is said."""
    text = say(max_tokens=30)
    stop = text[9:12]
    assert say(max_tokens=30, stop=[stop, "never"]) == text[: text.index(stop)]


def test_what_does_not_fit_is_refused() -> None:
    """With the number, and what is allowed."""
    with pytest.raises(BadInput, match="room for 5; JSON of this schema may need"):
        say(schema=PETS, max_tokens=5)
    with pytest.raises(TooLarge, match="at most 1500"):
        say("x" * 1600)
    with pytest.raises(BadInput, match="1 to 64 characters"):
        say(stop=[""])
    with pytest.raises(BadInput, match="known are: object"):
        say(schema={"type": "moon"})


pulled = pytest.mark.skipif(
    not ZOO.is_dir() or Bundle(ZOO).absent, reason="not pulled: trivium models pull text.generate"
)


def variant(tier: Tier) -> tuple[Manifest, Variant]:
    """Return the real bundle's manifest and variant."""
    manifest = Bundle(ZOO).manifest
    found = manifest.variant(tier)
    assert found
    return manifest, found


@pulled
def test_the_real_one_answers() -> None:
    """Its samples, in four bits as in full."""
    from trivium_models.measure import Subject

    manifest, small = variant(Tier.EDGE)
    tokenizer = (ZOO / "tokenizer.json").read_text("utf-8")
    subject = Subject(manifest.function, made.generate, (), tokenizer)
    samples = [Sample(inputs=each.inputs, options=each.options) for each in manifest.samples]
    found = subject.run(small, {"model.int4.onnx": ZOO / "model.int4.onnx"}, samples).outputs
    assert "".join(found[0]) == "The capital of France is Paris."
    assert json.loads("".join(found[1]))["kind"] == "cat"


def test_what_can_be_pulled_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """With its size; what is no optional function can't be pulled."""
    assert main(["pull"]) == 0
    assert "text.generate  733 MB" in capsys.readouterr().err
    with pytest.raises(BundleError, match=r"text.embed can't be pulled; optional are: .*generate"):
        main(["pull", "text.embed"])


@pulled
def test_pulling_again_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Each file is as it is pinned, and signed."""
    before = Bundle(ZOO)
    assert main(["pull", "text.generate"]) == 0
    assert "text.generate is pulled" in capsys.readouterr().err
    assert (Bundle(ZOO).digest, Bundle(ZOO).signature) == (before.digest, before.signature)
