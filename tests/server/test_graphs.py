"""Graphs that could do more than arithmetic, or more of it than we can bear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import samples
from trivium.errors import BundleError
from trivium.hosts.server import graphs
from trivium.hosts.server.graphs import inspect

ZOO = Path("models/zoo")
FLOATS = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])


def toy() -> onnx.ModelProto:
    """Return y = 2x + 1."""
    model: onnx.ModelProto = onnx.ModelProto.FromString(samples.first_graph())
    return model


def refused(model: onnx.ModelProto | bytes) -> str:
    """Return why a graph is refused."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(BundleError) as caught:
        inspect("toy.onnx", data)
    assert caught.value.message.startswith("toy.onnx")
    assert len(caught.value.message) < 400
    return caught.value.message


def nested(depth: int) -> onnx.ModelProto:
    """Return graphs inside one another, so many in all."""
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [FLOATS])
    for _ in range(depth - 1):
        branch = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([branch], "outer", [], [FLOATS])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def elsewhere(tensor: onnx.TensorProto) -> None:
    """Put a tensor's data into another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")


@pytest.mark.parametrize("path", sorted(ZOO.glob("*/*.onnx")), ids=str)
def test_our_own_graphs_pass(path: Path) -> None:
    """With all of their nodes, and without their weights' bytes."""
    data = path.read_bytes()
    found = inspect(path.name, data)
    whole = onnx.ModelProto.FromString(data)
    assert list(found.graph.node) == list(whole.graph.node)
    assert [each.dims for each in found.graph.initializer] == [
        each.dims for each in whole.graph.initializer
    ]
    assert found.ByteSize() < 1 << 20


@pytest.mark.parametrize("data", [b"", b"garbage", bytes(100), b"\xff" * 100, b"PK\x03\x04" * 9])
def test_garbage_is_refused(data: bytes) -> None:
    """Whatever it is."""
    refused(data)


def test_a_graph_that_is_cut_off_is_refused() -> None:
    """Wherever that is, but between two fields, where it is another graph."""
    data = samples.first_graph()
    for size in range(len(data)):
        try:
            inspect("toy.onnx", data[:size])
        except BundleError:
            continue
        assert onnx.ModelProto.FromString(data[:size]).ir_version == 8


@given(st.binary(max_size=200))
def test_no_bytes_break_the_inspection(data: bytes) -> None:
    """They are a graph, or a BundleError."""
    refused(data)


@given(st.integers(0, len(samples.first_graph()) - 1), st.integers(1, 255))
def test_what_passes_reads_the_same_with_its_weights(place: int, change: int) -> None:
    """To look past the weights leaves nothing else out."""
    data = bytearray(samples.first_graph())
    data[place] ^= change
    try:
        found = inspect("toy.onnx", bytes(data))
    except BundleError:
        return
    whole = onnx.ModelProto.FromString(bytes(data))
    for each in whole.graph.initializer:
        each.ClearField("raw_data")
    assert found == whole


CHANGES: dict[str, tuple[Callable[[onnx.ModelProto], object], str]] = {
    "weights elsewhere": (
        lambda model: elsewhere(model.graph.initializer[0]),
        "are in another file, '../../../etc/passwd'",
    ),
    "a constant elsewhere": (
        lambda model: elsewhere(model.graph.node[0].attribute.add(name="value", type=4).t),
        "are in another file",
    ),
    "a sparse tensor elsewhere": (
        lambda model: elsewhere(model.graph.sparse_initializer.add().values),
        "are in another file",
    ),
    "no IR version": (lambda model: model.ClearField("ir_version"), "has IR version 0; 3 to "),
    "a later IR version": (
        lambda model: setattr(model, "ir_version", 1000),
        "has IR version 1000; 3 to ",
    ),
    "no operators' version": (
        lambda model: model.ClearField("opset_import"),
        "has version of operators '' 0; 7 to ",
    ),
    "a later operators' version": (
        lambda model: setattr(model.opset_import[0], "version", 1000),
        "has version of operators '' 1000; 7 to ",
    ),
    "two versions": (
        lambda model: model.opset_import.add(domain="ai.onnx", version=16),
        "two versions of the operators of 'ai.onnx'",
    ),
    "operators of others": (
        lambda model: setattr(model.graph.node[0], "domain", "ai.onnx.contrib"),
        "has operators of 'ai.onnx.contrib'; known are: '', 'ai.onnx.ml', 'com.microsoft'",
    ),
    "compiled code": (
        lambda model: model.graph.node.add(op_type="EPContext", domain="com.microsoft"),
        "a node EPContext, which carries compiled code",
    ),
    "functions": (lambda model: model.functions.add(name="f"), "has functions of its own"),
    "training": (lambda model: model.training_info.add(), "has training steps"),
    "an attribute of no type": (
        lambda model: model.graph.node[0].attribute.add(name="odd"),
        "Mul has an attribute 'odd' of no known type",
    ),
    "an attribute by reference": (
        lambda model: model.graph.node[0].attribute.add(name="odd", type=1, ref_attr_name="a"),
        "Mul has an attribute 'odd' of no known type",
    ),
    "a graph under another type": (
        lambda model: elsewhere(
            model.graph.node[0].attribute.add(name="odd", type=2).g.initializer.add()
        ),
        "are in another file",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_refused_is_named(what: str) -> None:
    """With its value, and what is allowed."""
    change, expected = CHANGES[what]
    model = toy()
    change(model)
    assert expected in refused(model)


def test_an_attribute_of_a_later_type_is_refused() -> None:
    """A type that the library does not know is not taken for none."""
    model = toy()
    model.graph.node[0].attribute.add(name="odd", type=onnx.AttributeProto.TYPE_PROTOS)
    data = model.SerializeToString()
    inspect("toy.onnx", data)
    assert "no known type" in refused(data.replace(b"odd\xa0\x01\x0e", b"odd\xa0\x01\x7e"))


@pytest.mark.parametrize("depth", [9, 12, 60])
def test_graphs_in_graphs_are_counted(depth: int) -> None:
    """Eight are enough for anybody; at some depth the format itself gives up."""
    if depth < 12:
        inspect("toy.onnx", nested(graphs.MOST_DEPTH).SerializeToString())
        assert "nests graphs over 8 deep" in refused(nested(depth))
        return
    inner = b""
    for _ in range(depth):  # graph > node > attribute > graph
        attribute = b"\x0a\x01g" + b"\xa0\x01\x05" + _field(6, inner)
        inner = _field(1, _field(5, attribute) + b"\x22\x02If")
    refused(b"\x08\x08" + _field(7, inner) + _field(8, b"\x10\x11"))


def _field(number: int, data: bytes) -> bytes:
    return graphs._written(number << 3 | 2) + graphs._written(len(data)) + data


def test_nodes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of inner graphs too."""
    monkeypatch.setattr(graphs, "MOST_NODES", 8)
    model = nested(4)  # 1 + 2 + 4 + 8 nodes
    assert "has over 8 nodes" in refused(model)


def test_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read."""
    monkeypatch.setattr(graphs, "MOST_BYTES", 10)
    assert "bytes; at most 10 are allowed" in refused(b"x" * 11)


def test_onnxruntimes_own_format_is_refused() -> None:
    """The same bytes would be another program to it."""
    data = bytearray(samples.first_graph())
    data[4:8] = b"ORTM"
    assert "only ONNX is allowed" in refused(bytes(data))


def test_an_unused_domain_does_no_harm() -> None:
    """Optimisers state more than a graph uses."""
    model = toy()
    model.opset_import.add(domain="com.microsoft.nchwc", version=1)
    inspect("toy.onnx", model.SerializeToString())
