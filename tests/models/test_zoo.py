"""Are the bundles that ship what their recipes say, and near enough to the full models?"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from trivium.contract import Blob, Tier
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.media import pixels
from trivium_models import recipe as recipes
from trivium_models.command import FUNCTIONS, ZOO, builtin
from trivium_models.measure import Chain, report, texts
from trivium_models.package import contents, describe, manifest

NAMES = [path.parent.name for path in builtin()]
SENTENCES = """\
A man is eating food.
The stock market fell sharply on Monday.
Der Zug nach Köln fährt um sieben Uhr ab.
¿Dónde está la biblioteca?
光合作用把光变成能量。
def add(a, b): return a + b
"""


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """Return each bundle that ships."""
    return Bundle(ZOO / request.param)


def test_every_file_is_the_pinned_one(bundle: Bundle) -> None:
    bundle.verify()
    recipe = recipes.read(FUNCTIONS / bundle.name)
    for name, made in recipe.files.items():
        assert bundle.manifest.files[name].sha256 == made.sha256


def test_the_manifest_is_what_the_folder_says(bundle: Bundle) -> None:
    folder = FUNCTIONS / bundle.name
    recipe, schema = recipes.read(folder), describe(folder)
    names = contents(folder, recipe, schema)
    assert (
        manifest(recipe, schema, bundle.folder, names)
        == (bundle.folder / "manifest.json").read_bytes()
    )


def test_committed_graphs_have_no_large_weights(bundle: Bundle) -> None:
    graph = onnx.load(FUNCTIONS / bundle.name / "graph.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        assert tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.raw_data) < 64


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """Return a file of sentences in several scripts."""
    path = tmp_path / "sentences.txt"
    path.write_text(SENTENCES, "utf-8")
    return path


def chain(bundle: Bundle, tier: Tier) -> Chain:
    variant = bundle.manifest.variant(tier)
    assert variant is not None
    return Chain(bundle, variant)


def test_small_vectors_are_near_the_full_ones(sentences: Path) -> None:
    bundle = Bundle(ZOO / "text.embed")
    full, small = chain(bundle, Tier.CLOUD), chain(bundle, Tier.EDGE)
    for feed in texts(bundle, sentences):
        vector = full.run(feed)
        assert abs(np.linalg.norm(vector) - 1) < 1e-5
        assert vector @ small.run(feed) > 0.998


def test_meanings_are_told_apart(tmp_path: Path) -> None:
    bundle = Bundle(ZOO / "text.embed")
    lines = ["A man is eating food.", "A man is eating a piece of bread.", "A girl has a baby."]
    (tmp_path / "lines").write_text("\n".join(lines), "utf-8")
    for tier in (Tier.EDGE, Tier.CLOUD):
        net = chain(bundle, tier)
        food, bread, baby = (net.run(feed) for feed in texts(bundle, tmp_path / "lines"))
        assert food @ bread > 0.7 > 0.2 > food @ baby


def test_a_padded_neighbour_changes_nothing(sentences: Path) -> None:
    bundle = Bundle(ZOO / "text.embed")
    net = chain(bundle, Tier.CLOUD)
    one = next(texts(bundle, sentences))
    width = one["input_ids"].shape[1]
    ids, mask = np.zeros((2, width + 5), np.int64), np.zeros((2, width + 5), np.int64)
    ids[0, :width], mask[0, :width] = one["input_ids"], 1
    ids[1], mask[1] = 2000, 1
    assert np.allclose(net.run({"input_ids": ids, "attention_mask": mask}), net.run(one), atol=1e-5)


def test_photos_get_the_right_labels() -> None:
    bundle = Bundle(ZOO / "image.classify")
    assert bundle.manifest.labels is not None
    labels = bundle.text(bundle.manifest.labels).splitlines()
    assert len(set(labels)) == 1000
    for tier in Tier:
        net = chain(bundle, tier)
        for sample in bundle.manifest.samples:
            data = bundle.read(sample.inputs["image"])
            tensor = pixels(Blob(media="image/jpeg", data=data))
            photo = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
            scores = net.run({"pixels": photo})
            assert abs(scores.sum() - 1) < 1e-5
            assert labels[scores.argmax()] == sample.output[0]["label"]
            if tier is Tier.CLOUD:
                assert abs(scores.max() - sample.output[0]["score"]) < 0.01


def test_small_photos_are_prepared_as_well() -> None:
    bundle = Bundle(ZOO / "image.classify")
    for shape in ((1, 1, 3), (224, 224, 3), (37, 500, 3), (500, 37, 3)):
        scores = chain(bundle, Tier.EDGE).run({"pixels": np.full(shape, 127, np.uint8)})
        assert scores.shape == (1000,)


def test_the_measured_quality_is_the_stated_one(sentences: Path) -> None:
    for name, inputs in (("text.embed", sentences), ("image.classify", ZOO / "image.classify")):
        said: list[str] = []
        report(ZOO / name, inputs, said.append)
        found = re.search(r"quality = ([\d.]+)", said[-1])
        assert found is not None
        assert float(found[1]) > 0.85
