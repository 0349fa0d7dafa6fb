"""Are the pieces fused, and is a short text's vector text.embed's own?"""

from __future__ import annotations

import asyncio
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from trivium import Asker, Tensor, Text
from trivium.errors import TooLarge

HERE = Path(__file__).parent
embed: Any = runpy.run_path(str(HERE / "function.py"))["embed"]
HEAD = ort.InferenceSession(HERE / "head.onnx")


class Tokens:
    """As many ids as there are words, and two."""

    def __init__(self, text: str) -> None:
        self.ids = Tensor.of("int64", (1, len(text.split()) + 2), [0] * (len(text.split()) + 2))


class Head:
    """The real head."""

    async def run(self, pieces: Tensor, tokens: Tensor) -> Tensor:
        self.tokens = tokens.tolist()
        feeds = {
            name: np.frombuffer(each.data, np.float32).reshape(each.shape)
            for name, each in (("pieces", pieces), ("tokens", tokens))
        }
        (found,) = HEAD.run(None, feeds)
        return Tensor.of("float32", found.shape, found.ravel().tolist())


class Models:
    """What the function is given."""

    def __init__(self) -> None:
        self.head = Head()
        self.tokens = self

    def encode(self, text: str) -> Tokens:
        return Tokens(text)


def vector(text: str) -> list[float]:
    """Return some unit vector of a text."""
    made = np.random.default_rng(sum(text.encode())).normal(size=384)
    return [float(each) for each in made / np.linalg.norm(made)]


class Ask(Asker):
    """Remembers what is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, function: str, /, **values: Any) -> Any:
        assert function == "text.embed"
        assert isinstance(values["text"], Text)
        self.asked.append(values["text"])
        return vector(values["text"])


def run(text: str) -> tuple[list[float], list[str], Models]:
    ask, models = Ask(), Models()
    return asyncio.run(embed(Text(text), models, ask)), ask.asked, models


def test_a_short_text_has_its_own_vector() -> None:
    found, asked, _ = run("One sentence. And another.")
    assert asked == ["One sentence. And another."]
    assert found == vector(asked[0])


def test_a_long_text_is_one_unit_vector_near_all_its_pieces() -> None:
    text = "\n\n".join("word " * 200 + f"{number}." for number in range(7))
    found, asked, models = run(text)
    assert len(asked) == 7
    assert models.head.tokens == [pytest.approx([201 / 254])] * 7
    assert math.hypot(*found) == pytest.approx(1, abs=1e-5)
    near = [float(np.dot(found, vector(piece))) for piece in asked]
    assert min(near) > 0.1
    # The order counts a little, for a text begins with what it is about.
    back = run("\n\n".join(text.split("\n\n")[::-1]))[0]
    assert 0.9 < float(np.dot(found, back)) < 0.99999


def test_too_long_a_text_is_refused_before_it_is_cut() -> None:
    with pytest.raises(TooLarge, match="has 130049 characters; at most 64 pieces of 254 tokens"):
        run("a" * (8 * 254 * 64 + 1))
    with pytest.raises(TooLarge, match="and it has 65"):
        run("\n\n".join(["word " * 200 + "."] * 65))
