"""Do the functions that find things in pictures hold for pictures of any size and shape?"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trivium.contract import Sample, Tier
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import agrees
from trivium_models.build import CACHE, Workshop
from trivium_models.command import FUNCTIONS, ZOO, say

SHAPES = [(1, 1), (1, 100), (100, 1), (20, 2000), (300, 400)]


def answers(name: str, tier: Tier, files: list[Path], **options: Any) -> list[Any]:
    """Return what a function answers on a tier's graphs."""
    shop, bundle = Workshop(FUNCTIONS / name, CACHE, say), Bundle(ZOO / name)
    variant = bundle.manifest.variant(tier)
    assert variant is not None
    rows = [Sample(inputs={"image": str(file)}, options=options) for file in files]
    return shop.subject().run(variant, shop.graphs(variant, bundle.folder), rows).outputs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Draw noise in shapes that no camera makes."""
    folder, dice = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    paths = []
    for number, shape in enumerate(SHAPES):
        paths.append(folder / f"{number}.png")
        Image.fromarray(dice.integers(0, 256, (*shape, 3), np.uint8)).save(paths[-1])
    return paths


def test_masks_cover_the_whole_picture(pictures: list[Path]) -> None:
    """Runs fill the grid, none but the first is empty, and a bolder ask covers less."""
    masks = {
        least: answers("image.segment", Tier.EDGE, pictures, least=least) for least in (0.1, 0.9)
    }
    for mask in masks[0.1] + masks[0.9]:
        assert sum(mask["runs"]) == mask["width"] * mask["height"]
        assert all(run > 0 for run in mask["runs"][1:])
    for loose, strict in zip(masks[0.1], masks[0.9], strict=True):
        assert sum(strict["runs"][1::2]) <= sum(loose["runs"][1::2])


@pytest.mark.parametrize("tier", [Tier.EDGE, Tier.CLOUD])
def test_boxes_lie_inside_the_picture(tier: Tier, pictures: list[Path]) -> None:
    """However little sure, at most so many, the surest first, and none outside."""
    for boxes in answers("image.detect", tier, pictures, least=0.05, top=7):
        assert len(boxes) <= 7
        scores = [box["score"] for box in boxes]
        assert scores == sorted(scores, reverse=True)
        assert all(0.05 <= score <= 1 for score in scores)
        for box in boxes:
            assert box["width"] >= 0
            assert box["height"] >= 0
            assert 0 <= box["x"] <= box["x"] + box["width"] <= 1.00001
            assert 0 <= box["y"] <= box["y"] + box["height"] <= 1.00001


@pytest.mark.parametrize("tier", [Tier.EDGE, Tier.CLOUD])
def test_things_are_found_where_they_are(tier: Tier, tmp_path: Path) -> None:
    """A cat in the right half of a wide photo, and beside it nothing."""
    cat = Image.open(ZOO / "image.detect" / "cat.jpg").convert("RGB")
    wide = Image.new("RGB", (2 * cat.width, cat.height), (128, 128, 128))
    wide.paste(cat, (cat.width, 0))
    wide.save(tmp_path / "wide.png")
    (boxes,) = answers("image.detect", tier, [tmp_path / "wide.png"], least=0.3)
    assert [box["label"] for box in boxes] == ["cat"]
    assert 0.45 < boxes[0]["x"] < 0.6
    assert boxes[0]["x"] + boxes[0]["width"] > 0.9


def test_a_person_is_cut_out() -> None:
    """Her face is inside, the flag and the shuttle behind her are not."""
    photo = ZOO / "image.segment" / "astronaut.jpg"
    (mask,) = answers("image.segment", Tier.CLOUD, [photo])
    ends = list(accumulate(mask["runs"]))

    def inside(x: float, y: float) -> bool:
        cell = int(y * mask["height"]) * mask["width"] + int(x * mask["width"])
        return bool(next(number for number, end in enumerate(ends) if cell < end) % 2)

    assert inside(0.45, 0.2)
    assert not inside(0.05, 0.2)
    assert not inside(0.8, 0.2)


def test_masks_and_boxes_are_compared_by_where_they_are() -> None:
    """Not by their labels alone."""
    mask = {"label": "person", "width": 2, "height": 2, "runs": [0, 2, 2]}
    assert agrees(mask, mask)
    assert not agrees({**mask, "runs": [2, 2]}, mask)
    assert not agrees([], mask)
    box = {"label": "cat", "score": 0.5, "x": 0.5, "y": 0.0, "width": 0.5, "height": 0.5}
    assert agrees([{**box, "x": 0.45, "score": 0.4}], [box])
    assert not agrees([{**box, "x": 0.1}], [box])
    assert not agrees([], [box])
