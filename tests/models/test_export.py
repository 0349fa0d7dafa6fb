"""Does each kind of source become one ONNX file that answers as the source did?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from trivium.errors import BundleError
from trivium_models.distil import Distil
from trivium_models.export import make
from trivium_models.prune import Prune

Make = Callable[..., onnx.ModelProto]

HERE = Path(__file__).parents[1]
NEEDS_TORCH = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("torch"),
    reason="exporting torch modules needs the kit's extra, trivium[models]",
)


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """Make an ONNX file from a source in the test's own folder, and read it."""
    (tmp_path / "networks.py").write_bytes((HERE / "networks.py").read_bytes())

    def call(source: str, **options: Any) -> onnx.ModelProto:
        out = tmp_path / "made.onnx"
        said: list[str] = []
        work = tmp_path / "work"
        make(tmp_path, source, out, read=lambda _: b"", say=said.append, work=work, **options)
        return onnx.load(out)

    return call


def sizes(item: onnx.ValueInfoProto) -> list[int | str]:
    return [each.dim_param or each.dim_value for each in item.type.tensor_type.shape.dim]


def small(opset: int = 18) -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32) * 2, "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("ReduceSum", ["product"], ["y"], axes=[1])
        if opset < 13
        else helper.make_node("Relu", ["product"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 1 if opset < 13 else 3))
    graph = helper.make_graph(nodes, "small", [x], [y], [weight])
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def test_an_onnx_file_is_copied(made: Make, tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "full.onnx")
    assert made("full.onnx") == small()


def test_weights_beside_an_onnx_file_are_taken_in(made: Make, tmp_path: Path) -> None:
    onnx.save(
        small(), tmp_path / "full.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    model = made("full.onnx")
    (tmp_path / "w").unlink()
    session = ort.InferenceSession(model.SerializeToString())
    assert session.run(None, {"x": np.ones((1, 3), np.float32)})[0].tolist() == [[2, 2, 2]]


def test_an_old_onnx_file_is_raised(made: Make, tmp_path: Path) -> None:
    onnx.save(small(opset=11), tmp_path / "old.onnx")
    model = made("old.onnx")
    assert model.opset_import[0].version == 18
    session = ort.InferenceSession(model.SerializeToString())
    assert session.run(None, {"x": np.ones((2, 3), np.float32)})[0].ravel().tolist() == [6, 6]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.onnx", "absent.onnx does not exist; the recipe names it"),
        ("broken.onnx", "broken.onnx is no sound ONNX model"),
    ],
)
def test_unsound_onnx_files(made: Make, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"\x08no model")
    with pytest.raises(BundleError, match=message):
        made(source)


def test_only_torch_modules_are_pruned(made: Make, tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "full.onnx")
    with pytest.raises(BundleError, match=r"recipe\.toml: full\.onnx can't be pruned"):
        made("full.onnx", prune=Prune())


@NEEDS_TORCH
def test_a_transformer_keeps_its_axes_and_names(made: Make) -> None:
    model = made("networks.py:texts")
    assert [(item.name, sizes(item)) for item in model.graph.input] == [
        ("ids", ["b", "t"]),
        ("mask", ["b", "t"]),
    ]
    assert [item.name for item in model.graph.output] == ["embedding"]
    assert model.opset_import[0].version >= 18
    assert model.ir_version <= 10
    session = ort.InferenceSession(model.SerializeToString())
    feed = {"ids": np.ones((3, 7), np.int64), "mask": np.ones((3, 7), np.int64)}
    assert session.run(None, feed)[0].shape == (3, 32)


@NEEDS_TORCH
def test_a_network_is_exported_to_the_same_bytes(made: Make, tmp_path: Path) -> None:
    found = set()
    for _ in range(2):
        model = made("networks.py:texts")
        found.add(model.SerializeToString(deterministic=True))
        assert not model.metadata_props
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert len(found) == 1
    assert str(tmp_path).encode() not in found.pop()


def write(folder: Path, code: str) -> None:
    (folder / "network.py").write_text(f"import torch\nfrom torch import nn\n{code}", "utf-8")


CNN = """
build = lambda read: nn.Sequential(Named())
class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, input):
        return self.conv(input)
inputs = lambda rows, read: {"input": torch.ones(1, 3, 8, 8)}
"""


@NEEDS_TORCH
def test_a_network_without_axes_has_fixed_sizes(made: Make, tmp_path: Path) -> None:
    write(tmp_path, CNN)
    model = made("network.py:build")
    assert sizes(model.graph.input[0]) == [1, 3, 8, 8]


@NEEDS_TORCH
def test_an_output_may_be_called_as_a_value_inside(made: Make, tmp_path: Path) -> None:
    """The exporter names values after weights and calls; the author's name wins."""
    write(tmp_path, CNN + 'outputs = ["conv2d"]\n')
    model = made("network.py:build")
    assert [item.name for item in model.graph.output] == ["conv2d"]


@NEEDS_TORCH
def test_pruned_and_distilled(made: Make, tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning", reason="pruning needs the kit's extra, trivium[models]")
    full = made("networks.py:texts")
    (tmp_path / "full.onnx").write_bytes(full.SerializeToString())
    rows = "\n".join(f"row {number} of some more" for number in range(60))
    (tmp_path / "rows.txt").write_text(rows, "utf-8")
    step = Distil(teacher="full.onnx", data="rows.txt", steps=30, batch=8, rate=1e-3)
    options = {"prune": Prune(share=0.3), "distil": step, "teacher": tmp_path / "full.onnx"}
    model = made("networks.py:texts", **options)
    assert model.ByteSize() < full.ByteSize()
    assert sizes(model.graph.input[0]) == ["b", "t"]
    ids = np.array([[ord(letter) for letter in "another row"]])
    feed = {"ids": ids, "mask": np.ones_like(ids)}
    one, other = (
        ort.InferenceSession(each.SerializeToString()).run(None, feed)[0][0]
        for each in (full, model)
    )
    assert one @ other > 0.95


@NEEDS_TORCH
@pytest.mark.parametrize(
    ("code", "source", "message"),
    [
        ("", "absent.py:build", r"absent\.py does not exist; the recipe names it"),
        (CNN, "network.py:built", r"network\.py has no callable 'built'; it has .*build"),
        ("build = print", "network.py:build", r"network\.py has no callable 'inputs'"),
        ("import absent_library", "network.py:build", "needs absent_library: install it"),
        ("1 / 0", "network.py:build", r"network\.py: import fails: ZeroDivisionError"),
        (
            f"{CNN}\ndef build(read): return 1 / 0",
            "network.py:build",
            r"network\.py: build fails: ZeroDivisionError: division by zero",
        ),
        (f"{CNN}\ndef build(read): return 1", "network.py:build", r"build\(\) gives int, not an"),
        (f"{CNN}\ninputs = lambda *_: []", "network.py:build", r"inputs\(\) gives no tensors"),
        (
            f'{CNN}\ninputs = lambda *_: {{"input": torch.ones(1, 2, 8, 8)}}',
            "network.py:build",
            r"network\.py: build\(\) fails for input \[1, 2, 8, 8\]: RuntimeError: Given groups=1",
        ),
        (f"{CNN}\noutputs = 'ab'", "network.py:build", "gives 1 tensors, but outputs names a, b"),
        (
            f"{CNN}\nNamed.forward = lambda self, input: torch.linalg.eigvals(input).real",
            "network.py:build",
            r"network\.py: build\(\) can't be exported: .*linalg_eig",
        ),
    ],
)
def test_what_is_wrong_with_a_network(
    made: Make, tmp_path: Path, code: str, source: str, message: str
) -> None:
    write(tmp_path, code)
    with pytest.raises(BundleError, match=message):
        made(source)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Save a tiny BERT as transformers does."""
    transformers = pytest.importorskip("transformers", reason="the kit's extra is not installed")
    pytest.importorskip("optimum.exporters.onnx", reason="the kit's extra is not installed")
    shape = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": 50}
    config = transformers.BertConfig(num_hidden_layers=1, num_attention_heads=2, **shape)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.mark.parametrize("task", ["", "text-classification"])
def test_a_saved_transformers_model(made: Make, saved: Path, task: str) -> None:
    model = made(saved.name, task=task)
    assert [item.name for item in model.graph.output] == ["logits"]
    assert all(isinstance(size, str) for size in sizes(model.graph.input[0]))
    assert model.opset_import[0].version >= 18


def test_no_saved_model(made: Make, saved: Path) -> None:
    with pytest.raises(BundleError, match="does not exist; the recipe names it"):
        made("./absent")
    (saved / "config.json").unlink()
    with pytest.raises(BundleError, match="bert was saved as no architecture"):
        made(saved.name)
