"""Does the function say what is in the photo, tag it, and recommend what is near?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from trivium import Asker, Blob, Image, Models, Tensor
from trivium.errors import BadInput, ModelNotReady
from trivium.function import Loaded
from trivium_models import author

product: Any = author.load(Path(__file__).with_name("function.py")).product
PICTURE = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"abc"), Blob(media="", data=b"x"))
X, Y = [1.0] + [0.0] * 383, [0.0, 1.0] + [0.0] * 382


class Catalogue:
    """Compares with three things."""

    async def run(self, feeds: Any) -> Any:
        assert feeds["vector"].shape == (1, 384)
        return {"near": Tensor.of("float32", (1, 3), [0.2, 0.8, 0.5])}


MODELS = Models(
    Loaded({"catalogue": Catalogue()}, ["lamp\thome", "mug\tdishes", "cup\tdishes"]),  # type: ignore[dict-item]
    lambda: 0.0,
)


class Ask(Asker):
    """Says what a photo of a mug shows; `without` can't be asked."""

    def __init__(self, *without: str, score: float = 0.9) -> None:
        self.without = without
        self.score = score

    async def __call__(self, function: str, /, **values: Any) -> Any:
        if function in self.without:
            raise ModelNotReady(f"{function} is not there")
        return {
            "image.describe": {
                "text": "The picture shows a mug.",
                "said": [
                    {"label": "mug", "score": self.score},
                    {"label": "vessel", "score": 0.95},
                    {"label": "Mug", "score": 0.3},
                ],
            },
            "image.embed": X,
            "document.read": [{"lines": [{"label": "TEA"}, {"label": "|"}]}],
            "text.embed": X if values.get("text") == "thé" else Y,
        }[function]


def made(ask: Asker, **options: Any) -> Any:
    return asyncio.run(product(PICTURE, ask, MODELS, **options))


def test_a_thing_is_named_tagged_and_likened() -> None:
    """Of the nearest things most are dishes."""
    found = made(Ask())
    assert found.title == "Mug"
    assert found.category == "dishes"
    assert [each.label for each in found.tags] == ["mug", "vessel", "dishes"]
    assert [each.name for each in found.recommendations] == ["mug", "cup", "lamp"]
    assert found.text == ["TEA"]
    assert "It reads “TEA”." in found.description
    assert "sample catalogue of 3 things" in found.basis[1]


def test_what_is_unsure_says_so() -> None:
    assert made(Ask(score=0.3)).title == "Perhaps: mug"


def test_ones_own_catalogue_is_looked_through() -> None:
    """By vectors of pictures, or by what things are called."""
    things = [
        {"name": "coffee", "category": "drinks"},
        {"name": "thé", "category": "drinks"},
        {"name": "saw", "category": "tools", "vector": Y},
    ]
    found = made(Ask(), catalogue=things, recommend=1)
    assert [(each.name, each.score) for each in found.recommendations] == [("thé", 1.0)]
    assert found.category == "drinks"


@pytest.mark.parametrize(
    ("thing", "why"),
    [
        ({"category": "tools"}, "missing required field `name`"),
        ({"name": "x", "vector": [1.0]}, "length >= 384"),
        ({"name": ""}, "length >= 1"),
    ],
)
def test_what_is_no_thing_is_refused(thing: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        made(Ask(), catalogue=[thing])


def test_too_many_names_are_refused() -> None:
    with pytest.raises(BadInput, match=r"51 things .* have no vector; at most 50"):
        made(Ask(), catalogue=[{"name": str(number)} for number in range(51)])


def test_it_does_without_what_can_not_be_asked() -> None:
    """And says what is missing."""
    found = made(Ask("image.embed", "document.read"))
    assert (found.category, found.recommendations, found.text) == ("", [], [])
    assert found.basis[1:] == [
        "no category and no recommendations: image.embed is not there",
        "text: not looked for: document.read is not there",
    ]
    with pytest.raises(ModelNotReady):
        made(Ask("image.describe"))
