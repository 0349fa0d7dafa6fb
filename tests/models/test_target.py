"""Is a model timed where it will run?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trivium.errors import BundleError
from trivium_models import target
from trivium_models.target import available, time_on


def model(path: Path, kind: str = "Relu", side: int = 64) -> Path:
    """Write a graph of one node."""
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", side]) for n in "xy"]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "g", shapes[:1], shapes[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, path)
    return path


FEED = {"x": np.ones((2, 64), np.float32)}


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "RUN_S", 0.1)
    monkeypatch.setattr(target, "WARM_S", {"cpu": 0.0, "wasm": 0.1})


@pytest.mark.parametrize("place", ["cpu-1", "cpu"])
def test_native(place: str, tmp_path: Path) -> None:
    found = time_on(place, [model(tmp_path / "a.onnx")], [FEED, FEED])
    assert 0 < found.ms[0] <= found.ms[1] <= found.ms[2]


def test_a_chain_feeds_the_next_by_name(tmp_path: Path) -> None:
    """The second graph's input is the first one's output: without the first it can't run."""
    first, second = model(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    renamed = onnx.load(model(tmp_path / "c.onnx"))
    renamed.graph.input[0].name = renamed.graph.node[0].input[0] = "y"
    renamed.graph.output[0].name = renamed.graph.node[0].output[0] = "z"
    onnx.save(renamed, second)
    assert time_on("cpu", [first, second], [FEED]).ms[1] > 0
    with pytest.raises(BundleError, match="cpu can't run the model"):
        time_on("cpu", [second], [FEED])


def test_what_a_target_can_not_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cpu-1 can't run the model: .*NoSuchOperator"):
        time_on("cpu-1", [model(tmp_path / "a.onnx", "NoSuchOperator")], [FEED])


@pytest.mark.browser
@pytest.mark.skipif("wasm-1" not in available(), reason="no Chromium, or no page packages")
@pytest.mark.parametrize("place", ["wasm-1", "wasm"])
def test_in_the_page(place: str, tmp_path: Path) -> None:
    found = time_on(place, [model(tmp_path / "a.onnx")], [FEED])
    assert 0 < found.ms[0] <= found.ms[2]
    assert found.memory_mb > 0


@pytest.mark.browser
@pytest.mark.skipif("wasm-1" not in available(), reason="no Chromium, or no page packages")
def test_what_the_page_can_not_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="wasm-1 can't run the model: .*NoSuchOperator"):
        time_on("wasm-1", [model(tmp_path / "a.onnx", "NoSuchOperator")], [FEED])
