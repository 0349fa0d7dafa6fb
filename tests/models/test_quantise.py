"""Are coarse forms near what they came from, and are folded graphs what Python would compute?"""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trivium.errors import BundleError
from trivium_models.command import FUNCTIONS
from trivium_models.fold import Prepare, fold, prepare
from trivium_models.quantise import Form, quantise
from trivium_models.recipe import Made
from trivium_models.tune import candidates, outliers

generator = np.random.default_rng(5)


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> Any:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def save(path: Path, nodes: list[Any], inputs: list[Any], rank: int, **weights: Any) -> Path:
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * rank)
    graph = helper.make_graph(
        nodes, "g", inputs, [output], [numpy_helper.from_array(w, n) for n, w in weights.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Write a small encoder: a table, two products, one of them after an outlier; [b, t, 64]."""
    table = generator.normal(0, 1, (50, 64)).astype(np.float32)
    peaked = table * np.where(np.arange(64) == 3, 8, 1).astype(np.float32)
    first, second = (generator.normal(0, 0.1, (64, 64)).astype(np.float32) for _ in "ab")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"], name="words"),
        helper.make_node("MatMul", ["words", "first"], ["hidden"], name="first_product"),
        helper.make_node("Tanh", ["hidden"], ["calm"], name="calm"),
        helper.make_node("MatMul", ["calm", "second"], ["out"], name="second_product"),
    ]
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"])
        for n in ("input_ids", "attention_mask")
    ]
    return save(tmp_path / "t.onnx", nodes, inputs, 3, table=peaked, first=first, second=second)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write a small convolution of [1, 3, 8, 8]."""
    kernel = generator.normal(0, 0.2, (16, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["maps"], name="conv"),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"], name="pool"),
        helper.make_node("Flatten", ["mean"], ["out"], name="flat"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])
    return save(tmp_path / "p.onnx", nodes, [image], 2, kernel=kernel)


FEED = {"input_ids": np.arange(12).reshape(1, 12), "attention_mask": np.ones((1, 12), np.int64)}


@pytest.mark.parametrize(
    ("form", "near", "smaller"),
    [("weights", 0.03, 3.3), ("dynamic", 0.1, 3.3), ("int4", 0.3, 4.0), ("float16", 0.01, 1.9)],
)
def test_a_form_is_near_and_small(tokens: Path, form: Form, near: float, smaller: float) -> None:
    full, small = onnx.load(tokens), quantise(tokens, form)
    wanted, found = run(full, FEED), run(small, FEED)
    assert np.linalg.norm(wanted - found) / np.linalg.norm(wanted) < near
    assert len(full.SerializeToString()) / len(small.SerializeToString()) > smaller
    assert quantise(tokens, form) == small


def test_static_is_calibrated(picture: Path) -> None:
    feeds = [{"image": generator.normal(0, 1, (1, 3, 8, 8)).astype("f")} for _ in range(8)]
    small = quantise(picture, "static", (), lambda: feeds)
    assert "QLinearConv" in {node.op_type for node in small.graph.node}
    wanted = run(onnx.load(picture), feeds[0])
    assert np.abs(run(small, feeds[0]) - wanted).max() < 0.1
    with pytest.raises(BundleError, match="needs data"):
        quantise(picture, "static")


def test_excluded_nodes_stay(tokens: Path) -> None:
    small = quantise(tokens, "dynamic", ["first_product"])
    kept = {node.name for node in small.graph.node if node.op_type == "MatMul"}
    assert kept == {"first_product"}
    with pytest.raises(BundleError, match="no node nothing to exclude; its first are: calm"):
        quantise(tokens, "dynamic", ["nothing"])


def test_a_picture_s_kernels_are_kept_as_int8(picture: Path) -> None:
    """Each channel has a scale of its own, and the arithmetic stays float32."""
    feed = {"image": generator.normal(0, 1, (1, 3, 8, 8)).astype("f")}
    small = quantise(picture, "weights")
    assert len(small.SerializeToString()) < picture.stat().st_size / 2
    assert "Conv" in {node.op_type for node in small.graph.node}
    kept = next(each for each in small.graph.initializer if each.name == "kernel.scale")
    assert list(kept.dims) == [16, 1, 1, 1]
    assert np.abs(run(small, feed) - run(onnx.load(picture), feed)).max() < 0.01


def test_nothing_to_quantise_is_said(picture: Path) -> None:
    with pytest.raises(BundleError, match="has no matrix product"):
        quantise(picture, "int4")
    with pytest.raises(BundleError, match="has no matrix product, table or"):
        quantise(picture, "weights", ["conv"])


def test_the_node_with_the_worst_outliers_comes_first(tokens: Path) -> None:
    assert outliers(tokens, [FEED]) == ["first_product", "second_product"]


def test_folding_is_what_python_would_compute(tokens: Path) -> None:
    feed = {"input_ids": FEED["input_ids"], "attention_mask": (np.arange(12) < 7)[None].astype("q")}
    hidden = run(onnx.load(tokens), feed)
    mean = hidden[:, :7].mean(1)
    unit = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    assert np.allclose(run(fold(tokens, pool="mean"), feed), mean, atol=1e-5)
    folded = fold(tokens, pool="mean", normalise=True, output="embedding")
    assert [each.name for each in folded.graph.output] == ["embedding"]
    assert np.allclose(run(folded, feed), unit, atol=1e-5)
    powers = np.exp(hidden - hidden.max(-1, keepdims=True))
    soft = powers / powers.sum(-1, keepdims=True)
    assert np.allclose(run(fold(tokens, softmax=True), feed), soft, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "nothing to do"),
        ({"softmax": True, "output": "words"}, "'words' is taken"),
    ],
)
def test_folding_that_can_not_be(tokens: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        fold(tokens, **options)


def test_what_a_product_reads_can_be_tapped() -> None:
    """The features before a classifier's last layer, of bytes as floats; its answer stays."""
    whole = FUNCTIONS / "image.classify" / "model.int8.onnx"
    tapped = fold(whole, tap={"features": "flatten_190_quantized"})
    image = np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype("f")
    session = ort.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"])
    probabilities, features = session.run(None, {"image": image})
    assert np.array_equal(probabilities, run(onnx.load(whole), {"image": image}))
    assert features.shape == (1, 1280)
    assert features.dtype == np.float32
    assert features.max() > 0
    with pytest.raises(BundleError, match="has no 'x' that a Gemm or QGemm reads"):
        fold(whole, tap={"features": "x"})


def test_pooling_needs_tokens(picture: Path) -> None:
    with pytest.raises(BundleError, match="needs an input attention_mask"):
        fold(picture, pool="mean")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_a_picture_is_prepared(layout: Any) -> None:
    step = Prepare(crop=4, short=4, mean=(10.0, 20.0, 30.0), std=(2.0,), layout=layout)
    pixels = np.broadcast_to(np.array([10, 24, 40], np.uint8), (9, 7, 3))
    found = run(prepare(step), {"pixels": pixels})
    wanted = np.broadcast_to(np.array([0, 2, 5], "f"), (1, 4, 4, 3))
    assert np.array_equal(found, wanted.transpose(0, 3, 1, 2) if layout == "nchw" else wanted)


def test_one_table_may_serve_both_ends(tmp_path: Path) -> None:
    """Words are looked up in the columns that the answer is multiplied by, kept once."""
    table = generator.normal(0, 1, (64, 50)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["columns"], axis=1),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=(1, 0)),
        helper.make_node("MatMul", ["rows", "table"], ["out"]),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["t"])]
    path = save(tmp_path / "tied.onnx", nodes, inputs, 2, table=table)
    small = quantise(path, "weights")
    assert len(small.SerializeToString()) < path.stat().st_size / 3
    ids = np.array([3, 49, 0])
    wanted, found = run(onnx.load(path), {"ids": ids}), run(small, {"ids": ids})
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()


@pytest.mark.parametrize("form", ["dynamic", "static"])
def test_a_disk_that_is_full_is_told_and_nothing_is_written_beside_the_model(
    form: Form, picture: Path, tokens: Path
) -> None:
    """onnxruntime's own tools write cut files without a word."""
    model = picture if form == "static" else tokens
    feeds = [{"image": np.ones((1, 3, 8, 8), np.float32)}]
    there = set(model.parent.iterdir())
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (model.stat().st_size, most[1]))
    try:
        with pytest.raises((BundleError, OSError), match=r"disk that is full|File too large"):
            quantise(model, form, (), lambda: feeds)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert set(model.parent.iterdir()) == there


def test_a_picture_s_model_is_tried_with_coarse_weights(picture: Path) -> None:
    """It has no matrix product, and is a fourth of the size all the same."""
    made = Made(quantise="p.onnx")
    shop: Any = SimpleNamespace(recipe=SimpleNamespace(samples=()))
    forms = [form for form, _ in candidates(shop, "small.onnx", made, picture)]
    assert forms == ["float32", "weights", "float16"]
