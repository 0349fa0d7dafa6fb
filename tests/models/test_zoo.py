"""Are the bundles that ship what their recipes say, and near enough to the full models?"""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from trivium.contract import Sample, Tier, Variant
from trivium.hosts.server.bundles import Bundle
from trivium_models import cascade, measure
from trivium_models import recipe as recipes
from trivium_models.build import CACHE, Workshop
from trivium_models.command import FUNCTIONS, ZOO, builtin, say
from trivium_models.measured import Row, known, stated, variants
from trivium_models.package import contents, manifest

NAMES = [path.parent.name for path in builtin()]
SENTENCES = """\
A man is eating food.
The stock market fell sharply on Monday.
Der Zug nach Köln fährt um sieben Uhr ab.
¿Dónde está la biblioteca?
光合作用把光变成能量。
def add(a, b): return a + b
""".splitlines()


@pytest.fixture(params=NAMES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """Return each bundle that ships."""
    found = Bundle(ZOO / request.param)
    if found.absent:
        pytest.skip(f"not pulled: trivium models pull {request.param}")
    return found


def workshop(name: str) -> Workshop:
    """Return the workshop of a function that ships."""
    return Workshop(FUNCTIONS / name, CACHE, say)


def test_every_file_is_the_pinned_one(bundle: Bundle) -> None:
    bundle.verify()
    recipe = recipes.read(FUNCTIONS / bundle.name)
    # What others are made of, and no variant runs, stays with whoever makes the bundle.
    between = {parent for made in recipe.files.values() for parent in made.parents}
    for name, made in recipe.files.items():
        if name in between - set(recipe.graphs()):
            continue
        assert bundle.manifest.files[name].sha256 == made.sha256


def test_the_manifest_is_what_the_folder_says(bundle: Bundle) -> None:
    shop = workshop(bundle.name)
    names = contents(shop.folder, shop.recipe, shop.schema)
    sure = cascade.of(shop, bundle.folder)
    roads = variants(shop, known(shop, bundle.folder), sure)
    raw = manifest(shop, roads, bundle.folder, names)
    assert raw == (bundle.folder / "manifest.json").read_bytes()


def test_what_ships_was_measured_as_it_is_and_passed(bundle: Bundle) -> None:
    found = known(workshop(bundle.name), bundle.folder)
    assert found is not None
    assert {row.tier for row in found.rows} == {v.tier for v in bundle.manifest.variants}
    for row in found.rows:
        assert row.gate == "passed"
        assert row.relative_low <= row.relative_quality <= row.relative_high
    for variant in bundle.manifest.variants:
        rows = [row for row in found.rows if row.tier == variant.tier]
        assert variant.quality == min(1.0, rows[0].relative_quality)
        assert variant.ms[1] in [round(row.latency_ms, 2) for row in rows]


ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)`(?: ¹)? \|(.*)\|$", re.MULTILINE)
TABLE = {
    name: row.split("|")
    for name, row in ROW.findall((FUNCTIONS.parents[1] / "README.md").read_text())
}


def near(said: str, value: float) -> bool:
    """Return whether a number is another one, rounded."""
    digits = len(said.strip().partition(".")[2])
    return abs(float(said) - value) <= 0.5 / float(10**digits) + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_the_readmes_table_is_what_was_measured(name: str) -> None:
    """Sizes, how many times as fast (one thread where that was timed), scores with an interval."""
    sizes, scores, fast, limits = TABLE[name]
    measured = stated(FUNCTIONS / name)
    assert measured is not None
    assert limits.strip()
    first: dict[Tier, Row] = {}
    for row in measured.rows:
        first.setdefault(row.tier, row)
    alike = sizes.removesuffix(" everywhere ")
    said = [alike] * 3 if alike != sizes else sizes.split(",")
    for tier, size in zip((Tier.CLOUD, Tier.EDGE, Tier.PAGE), said, strict=True):
        assert near(size, first[tier].size / 1e6) if tier in first else size.strip() == "none"
    for tier, ratio in zip((Tier.EDGE, Tier.PAGE), fast.split(","), strict=True):
        assert near(ratio, first[tier].latency_ratio) if tier in first else "none" in ratio
    triples = [(row.quality, row.quality_low, row.quality_high) for row in measured.rows]
    triples += [
        (row.relative_quality, row.relative_low, row.relative_high) for row in measured.rows
    ]
    for three in re.findall(r"([\d.]+) \(([\d.]+)-([\d.]+)\)", scores):
        assert any(all(map(near, three, triple)) for triple in triples)


def test_committed_graphs_have_no_large_weights(bundle: Bundle) -> None:
    made = recipes.read(FUNCTIONS / bundle.name).files.values()
    for name in filter(None, (each.assemble for each in made)):
        graph = onnx.load(FUNCTIONS / bundle.name / name, load_external_data=False)
        for tensor in graph.graph.initializer:
            small = len(tensor.raw_data) < 256
            # A vocabulary's letters, and where each word of it begins, are no weights.
            whole = tensor.data_type in (
                onnx.TensorProto.UINT8,
                onnx.TensorProto.INT32,
                onnx.TensorProto.INT64,
            )
            assert tensor.data_location == onnx.TensorProto.EXTERNAL or small or whole


def answers(name: str, tier: Tier, inputs: Sequence[dict[str, str]], **options: Any) -> list[Any]:
    """Return what a function answers on a tier's graphs."""
    shop, bundle = workshop(name), Bundle(ZOO / name)
    variant = bundle.manifest.variant(tier)
    assert isinstance(variant, Variant)
    rows = [Sample(inputs=each, options=options) for each in inputs]
    return shop.subject().run(variant, shop.graphs(variant, bundle.folder), rows).outputs


def vectors(tier: Tier, texts: Sequence[str]) -> Any:
    return np.array(answers("text.embed", tier, [{"text": text} for text in texts]))


def test_small_vectors_are_near_the_full_ones() -> None:
    full, small = vectors(Tier.CLOUD, SENTENCES), vectors(Tier.EDGE, SENTENCES)
    assert np.allclose(np.linalg.norm(full, axis=1), 1, atol=1e-5)
    assert ((full * small).sum(1) > 0.998).all()


@pytest.mark.parametrize("tier", [Tier.EDGE, Tier.CLOUD])
def test_meanings_are_told_apart(tier: Tier) -> None:
    lines = ["A man is eating food.", "A man is eating a piece of bread.", "A girl has a baby."]
    food, bread, baby = vectors(tier, lines)
    assert food @ bread > 0.7 > 0.2 > food @ baby


def test_a_recomputed_quality_is_the_stated_one() -> None:
    """The gate's own rows, scored anew, give the figures that are committed."""
    shop, bundle = workshop("text.embed"), Bundle(ZOO / "text.embed")
    stated = known(shop, bundle.folder)
    assert stated is not None
    gate = shop.recipe.gate
    assert gate is not None
    rows = shop.rows(gate)
    outputs = []
    for tier in (Tier.CLOUD, Tier.EDGE):
        variant = bundle.manifest.variant(tier)
        assert variant is not None
        graphs = shop.graphs(variant, bundle.folder)
        outputs.append(shop.subject().run(variant, graphs, rows).outputs)
    score = measure.quality(gate.metric, outputs[0], outputs[1], rows)
    row = next(row for row in stated.rows if row.tier == Tier.EDGE)
    assert abs(score.relative - row.relative_quality) < 1e-4
    assert abs(score.relative_low - row.relative_low) < 1e-4


@pytest.mark.parametrize("tier", list(Tier))
def test_texts_get_the_labels_that_fit(tier: Tier) -> None:
    """Asking text.embed, as its variant of this tier answers."""
    labels = ["sport", "music", "politics"]
    texts = ["The striker scored twice.", "She plays the cello.", "Parliament passed the bill."]
    found = answers("text.classify", tier, [{"text": text} for text in texts], labels=labels)
    assert [each[0]["label"] for each in found] == labels
    assert all(sum(label["score"] for label in each) == pytest.approx(1) for each in found)


@pytest.mark.parametrize("tier", list(Tier))
def test_photos_get_the_right_labels(tier: Tier) -> None:
    bundle = Bundle(ZOO / "image.classify")
    assert bundle.manifest.labels is not None
    assert len(set(bundle.text(bundle.manifest.labels).splitlines())) == 1000
    photos = [
        {"image": str(bundle.folder / each.inputs["image"])} for each in bundle.manifest.samples
    ]
    found = answers("image.classify", tier, photos, top=100)
    for sample, labels in zip(bundle.manifest.samples, found, strict=True):
        assert labels[0]["label"] == sample.output[0]["label"]
        assert sum(each["score"] for each in labels) <= 1.00001
        if tier is Tier.CLOUD:
            assert abs(labels[0]["score"] - sample.output[0]["score"]) < 0.01


def test_small_photos_are_prepared_as_well(tmp_path: Path) -> None:
    photos = []
    for width, height in ((1, 1), (224, 224), (37, 500), (500, 37)):
        path = tmp_path / f"{width}x{height}.png"
        Image.new("RGB", (width, height), (127, 127, 127)).save(path)
        photos.append({"image": str(path)})
    found = answers("image.classify", Tier.EDGE, photos, top=3)
    assert [len(labels) for labels in found] == [3] * 4


def test_files_get_the_types_that_their_folders_say() -> None:
    folder = FUNCTIONS / "document.type" / "held-out"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = answers("document.type", Tier.EDGE, [{"document": str(path)} for path in files])
    assert [each["label"] for each in found] == [path.parent.name for path in files]


def test_the_types_are_those_of_the_pinned_package() -> None:
    shop = workshop("document.type")
    wheel = CACHE / "packages" / f"{shop.recipe.packages['magika'].sha256}.whl"
    if not wheel.is_file():
        pytest.skip("the wheel is no longer there")
    table = runpy.run_path(str(shop.folder / "labels.py"))["table"]
    assert (shop.folder / "labels.txt").read_text("utf-8") == table(str(wheel))


@pytest.mark.parametrize("tier", [Tier.EDGE, Tier.CLOUD])
def test_pages_are_read_where_they_stand(tier: Tier) -> None:
    folder = FUNCTIONS / "document.read"
    (pages,) = answers("document.read", tier, [{"document": str(folder / "columns.png")}])
    lines = {line["label"]: line for line in pages[0]["lines"]}
    right = lines["Large models know more. They"]
    left = next(line for text, line in lines.items() if text.startswith("一个请求"))
    assert left["x"] < 0.1 < 0.5 < right["x"] < right["x"] + right["width"] < 1
    assert abs(left["y"] - right["y"]) < 0.02
    assert min(line["score"] for line in lines.values()) > 0.9
    (pages,) = answers("document.read", tier, [{"document": str(folder / "letter.pdf")}])
    assert [page["page"] for page in pages] == [1, 2]
    text = pages[0]["text"]
    assert text.index("leave the house.") < text.index("Large models know more.")
