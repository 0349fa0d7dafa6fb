"""Is every mistake in a recipe named?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trivium.contract import Tier
from trivium.errors import BundleError
from trivium_models.recipe import read, variants

Write = Callable[..., Path]
PINNED = f'sha256 = "{"0" * 64}"'


def test_two_lines_are_enough(folder: Write) -> None:
    recipe = read(folder())
    assert recipe.version == "1.0.0"
    assert [variant.tier for variant in variants(recipe)] == list(Tier)
    assert all(variant.models == {} for variant in variants(recipe))


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("licenses = []", "unknown field `licenses`"),
        ("labels = 7", "Expected `str | null`"),
        ("=", "Invalid"),
        ('labels = "labels.txt"', "labels.txt does not exist"),
        ('labels = "../labels.txt"', "use a plain name"),
        ('labels = "manifest.json"', "use a plain name"),
        ('[[variants]]\ntier = "moon"\nmodel = "m"', "moon"),
        ('[[variants]]\ntier = "page"\nmodel = "m"\nmodles = {}', "unknown field `modles`"),
        ('[[variants]]\ntier = "page"\nmodel = "m"\n' * 2, "each tier may have one variant"),
        ('[[variants]]\ntier = "page"\nmodel = "m"\nmodels.a = ["a.onnx"]', "a.onnx"),
        (f"[files.a]\n{PINNED}", "exactly one of assemble, export, fold"),
        (f'[files.a]\nquantise = "b"\nprepare = {{ crop = 8 }}\n{PINNED}', "quantise"),
        ('[files.a]\nquantise = "a"', "a is made of itself"),
        ('[files.a]\nassemble = "b"\npool = "mean"', "pool means nothing to assemble"),
        ("[files.a]\nprepare = { crop = 0 }", "Expected `int` >= 1"),
        ('[gate]\nmetric = "vibes"\ndata = "a"\nfloor = 1.0', "`$.gate.metric`"),
        ('[gate]\nmetric = "top1"\ndata = "a"\nfloor = 1.1', "<= 1"),
        (f'[files.a]\nquantise = "b"\n{PINNED}', "which [files] does not make"),
        ('[files.a]\nassemble = "b"\nsha256 = "short"', "regex"),
    ],
)
def test_a_mistake_is_named(folder: Write, recipe: str, said: str) -> None:
    with pytest.raises(BundleError) as raised:
        read(folder(recipe=recipe))
    assert said in raised.value.message
    assert "recipe.toml" in raised.value.message


def test_a_folder_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="needs a recipe.toml"):
        read(tmp_path)
