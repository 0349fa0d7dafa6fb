"""Is a question answered by what the picture says or shows, and is a guess never passed off?"""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from typing import Any

import pytest

from trivium import Asker, Blob, Image, Tensor, Text
from trivium.errors import ModelNotReady, TooLarge, TriviumError

answer: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["answer"]
PICTURE = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"abc"), Blob(media="", data=b"x"))
PLACE = {"x": 0.1, "width": 0.5, "height": 0.1, "score": 0.9}
LINES = [
    {"label": "Blue Parcel", "y": 0.1, **PLACE},
    {"label": "Arrives on Friday", "y": 0.3, **PLACE},
    {"label": "**", "y": 0.5, **PLACE},
]


class Ask(Asker):
    """Reads two lines; texts are near that speak of arriving, or of things."""

    def __init__(
        self, *without: str, said: str = "", error: type[TriviumError] = ModelNotReady
    ) -> None:
        self.without = without
        self.said = said
        self.error = error

    async def __call__(self, function: str, /, **values: Any) -> Any:
        if function in self.without:
            raise self.error(f"{function} is not there")
        if function == "text.embed":
            text = str(values["text"]).lower()
            coming = any(each in text for each in ("arrive", "come", "kommt"))
            thing = "thing" in text
            return [float(coming), float(thing), float(not coming and not thing)]
        if function == "text.generate":
            assert "- Arrives on Friday\n" in values["text"]
            return [self.said[:5], self.said[5:]]
        return {
            "image.describe": {"text": "The picture shows a parcel."},
            "document.read": [{"lines": LINES}],
        }[function]


def asked(question: str, ask: Ask | None = None, **options: Any) -> Any:
    return asyncio.run(answer(PICTURE, Text(question), ask or Ask(), **options))


def test_the_writing_is_quoted_with_its_place() -> None:
    found = asked("On which day will it come?")
    assert found.answer == "In the picture it says: “Arrives on Friday”."
    (best, *_) = found.evidence
    assert (best.source, best.at.y) == ("the picture's writing", 0.3)
    assert found.basis[:2] == ["writing: 2 lines by document.read", "seen: image.describe"]


def test_what_is_seen_answers_what_it_is() -> None:
    assert asked("What thing is there?").answer == "The picture shows a parcel."


def test_passages_answer_too() -> None:
    found = asked("How do things come?", passages=["Cups.", "Things come by post."])
    assert found.answer == "Things come by post."
    assert found.evidence[0].at == 2


def test_chinese_is_found_by_its_words() -> None:
    """Though text.embed knows English alone."""
    found = asked("退货需要多少天", Ask("text.embed"), passages=["发货很快。", "退货需要 7 天。"])
    assert found.answer == "退货需要 7 天。"


def test_where_nothing_answers_it_says_so() -> None:
    """Rather than what is nearest."""
    ask = Ask("text.embed")
    found = asked("Is the museum open on Sunday?", ask)
    assert (found.found, found.written) == (False, "nothing found")
    assert "please ask a person" in found.answer
    assert found.evidence  # what was nearest, with its score
    empty = asked("Open?", Ask("document.read", "image.describe"))
    assert empty.evidence == []
    assert empty.basis == [
        "writing: not looked for: document.read is not there",
        "seen: not looked at: image.describe is not there",
    ]


@pytest.mark.parametrize(
    ("said", "kept"),
    [("It arrives on Friday.", True), ("It arrives on Sunday.", False), ("", False)],
)
def test_a_worded_answer_holds_to_the_evidence(said: str, kept: bool) -> None:
    """Else the evidence is quoted."""
    found = asked("When does it come?", Ask(said=said), generate=True)
    assert (found.written == "by text.generate") == kept
    assert found.answer == (said if kept else "In the picture it says: “Arrives on Friday”.")


def test_without_a_writer_it_is_composed() -> None:
    found = asked("When does it come?", Ask("text.generate"), generate=True)
    assert found.written == "composed"
    assert "text.generate can't be asked" in found.basis[-1]


@pytest.mark.parametrize("function", ["document.read", "text.embed"])
def test_what_is_too_large_for_a_step_is_left_out(function: str) -> None:
    """What can be told without it is."""
    ask = Ask(function, error=TooLarge)
    found = asked("How does it come?", ask, passages=["They come by post."])
    assert found.answer == "They come by post."
