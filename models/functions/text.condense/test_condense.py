"""Are all pieces noted, by named steps, and the notes brought together within what fits?"""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

from trivium import Asker, Text
from trivium.errors import TooLarge, UnknownFunction

condense: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["condense"]


class Writer(Asker):
    """Says the first word of what it is given, and takes so many characters."""

    def __init__(self, most: int = 10_000) -> None:
        self.most = most
        self.names: list[str] = []
        self.sizes: list[int] = []

    async def __call__(self, function: str, /, **_: Any) -> Any:
        raise AssertionError(function)

    async def step(self, name: str, function: str, /, **values: Any) -> Any:
        assert function == "text.generate"
        assert isinstance(values["text"], Text)
        instruction, _, piece = values["text"].partition("\n\n")
        assert instruction == "Say it."
        if len(piece) > self.most:
            raise TooLarge("too many tokens")
        self.names.append(name)
        self.sizes.append(values["max_tokens"])
        return [piece.split()[0], " "]


def run(text: str, ask: Asker) -> dict[str, Any]:
    found: dict[str, Any] = asyncio.run(condense(Text(text), ask, "Say it.", 40))
    return found


def paragraphs(count: int) -> str:
    return "\n\n".join(f"w{number} " + "word " * 280 + "." for number in range(count))


def test_a_short_text_is_one_step() -> None:
    writer = Writer()
    assert run("One thing.", writer) == {"text": "One", "notes": []}
    assert (writer.names, writer.sizes) == (["reduce"], [40])


def test_each_piece_is_noted_and_the_notes_are_brought_together() -> None:
    writer = Writer()
    found = run(paragraphs(5), writer)
    assert found == {"text": "w0", "notes": ["w0", "w1", "w2", "w3", "w4"]}
    assert writer.names == ["map"] * 5 + ["reduce"]
    assert writer.sizes == [384 // 5] * 5 + [40]


def test_what_has_more_tokens_than_thought_is_halved() -> None:
    writer = Writer(most=800)
    found = run(paragraphs(2), writer)
    assert found["notes"] == ["w0 word", "w1 word"]
    assert writer.names == ["map"] * 4 + ["reduce"]
    with pytest.raises(TooLarge, match="too many tokens"):
        run("One thing.", Writer(most=0))


def test_too_long_a_text_is_refused() -> None:
    with pytest.raises(TooLarge, match="at most 64 pieces of about 384 tokens are allowed"):
        run(paragraphs(70), Writer())


class Nobody(Writer):
    """A tier without a language model."""

    async def step(self, _: str, __: str, /, **___: Any) -> Any:
        raise UnknownFunction("no tier has a function 'text.generate'; the cloud has: text.embed")


def test_without_a_language_model_its_command_is_told() -> None:
    with pytest.raises(UnknownFunction, match=r"trivium models pull text\.generate"):
        run("One thing.", Nobody())
