"""Does the sentence say what both models told, once, and with the doubt they had?"""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivium import Box, Label

HERE = Path(__file__).parent
made = runpy.run_path(str(HERE / "function.py"))
WORDS = (HERE / "words.txt").read_text("utf-8").splitlines()
named: Any = runpy.run_path(str(HERE / "metric.py"))["named"]

Wire = list[dict[str, Any]]


def box(label: str, score: float, *sides: float) -> dict[str, Any]:
    x, y, width, height = sides or (0.4, 0.4, 0.2, 0.2)
    return {"label": label, "score": score, "x": x, "y": y, "width": width, "height": height}


def describe(labels: dict[str, float], *boxes: dict[str, Any]) -> Any:
    """Return what the function makes of two answers, given as objects and as JSON."""
    told = [Label(label=name, score=score) for name, score in labels.items()]

    async def ask(name: str, /, **_: Any) -> Any:
        return told if name == "image.classify" else list(boxes)

    models = SimpleNamespace(labels=WORDS)
    return asyncio.run(made["describe"](None, ask, models))


@pytest.mark.parametrize(
    ("labels", "boxes", "text"),
    [
        ({"espresso": 0.95}, [], "The picture shows an espresso."),
        (
            {"tabby": 0.3, "Egyptian cat": 0.25, "tiger cat": 0.25},
            [box("cat", 0.6, 0, 0, 0.9, 0.9)],
            "The picture shows a cat (perhaps a tabby) that fills the picture.",
        ),
        (
            {"beagle": 0.9},
            [box("dog", 0.7, 0.7, 0.4, 0.2, 0.2)],
            "The picture shows a beagle on the right.",
        ),
        (
            {"tub": 0.1},
            [box("cow", 0.7, 0, 0.8, 0.1, 0.1), box("cow", 0.6, 0.1, 0.8, 0.1, 0.1)],
            "The picture shows two cows at the bottom left.",
        ),
        (
            {"pitcher": 0.1},
            [
                box("person", 0.8),
                box("person", 0.7),
                box("person", 0.6),
                box("kite", 0.7, 0, 0, 0.2, 0.2),
            ],
            "The picture shows three people in the middle and a kite at the top left.",
        ),
        ({"daisy": 0.3}, [], "It is hard to say what the picture shows: perhaps a daisy."),
        ({"daisy": 0.1}, [], "It is hard to say what the picture shows."),
        ({}, [], "It is hard to say what the picture shows."),
    ],
)
def test_a_sentence(labels: dict[str, float], boxes: Wire, text: str) -> None:
    found = describe(labels, *boxes)
    assert found.text == text


def test_many_breeds_make_a_dog() -> None:
    """A wide name is as likely as all it holds, and what is likely is no guess."""
    found = describe({"beagle": 0.15, "boxer": 0.15, "pug": 0.15, "redbone": 0.15})
    assert found.text == "The picture shows a dog."
    assert [(each.label, round(each.score, 2)) for each in found.said] == [("dog", 0.6)]


def test_a_box_that_fills_the_picture_alone_is_not_believed() -> None:
    """Who names the whole picture would have named that; but people have no name there."""
    filling = (0.0, 0.0, 1.0, 1.0)
    assert "bed" not in describe({"espresso": 0.9}, box("bed", 0.9, *filling)).text
    assert "person" in describe({"suit": 0.9}, box("person", 0.9, *filling)).text


def test_what_it_was_made_of_is_beside_it() -> None:
    found = describe({f"thing {number}": 0.02 for number in range(50)}, box("cat", 0.7))
    assert [type(each) for each in found.boxes] == [Box]
    assert len(found.labels) == 5


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([line.split(": ")[0] for line in WORDS]), st.floats(0, 0.3), max_size=8
    ),
    st.lists(
        st.builds(
            lambda label, score, x, y: box(label, score, x, y, 1 - x, 1 - y),
            st.sampled_from(["cat", "person", "bus", "scissors", "wine glass"]),
            st.floats(0.3, 1),
            st.floats(0, 1),
            st.floats(0, 1),
        ),
        max_size=20,
    ),
)
def test_every_sentence_is_one(labels: dict[str, float], boxes: Wire) -> None:
    """It ends once, has no gaps, names each thing once, and all that it says it said."""
    found = describe(labels, *sorted(boxes, key=lambda each: -each["score"]))
    assert found.text.endswith(".")
    assert found.text.count(".") == 1
    assert "  " not in found.text
    assert " ." not in found.text
    names = [each.label for each in found.said]
    assert len(set(names)) == len(names)
    assert all(0 <= each.score <= 1 for each in found.said)


def test_a_score_counts_names_and_nouns() -> None:
    """Half of what is said and all that is true: two thirds."""
    answer = {"said": [{"label": "cat"}, {"label": "bowl"}]}
    assert named(answer, [["animal", "cat"]]) == pytest.approx(2 / 3)
    assert named(answer, [["dog"], []]) == 0
    assert named({"said": []}, [["dog"]]) == 0
