"""How does a model become its INT8 form, the same bits on every machine?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Weights = NDArray[np.float32]


def quantise_weights(model: Path) -> onnx.ModelProto:
    """Keep weights as INT8 and compute in float32.

    A fourth of the download and nearly the full answers, which also agree between machines: with
    activations in INT8, one value that two machines round apart moves the whole answer.
    """
    small = onnx.load(model)
    graph = small.graph
    weights = {item.name: item for item in graph.initializer}
    products = {n.input[1] for n in graph.node if n.op_type == "MatMul"} & weights.keys()
    tables = {n.input[0] for n in graph.node if n.op_type == "Gather"} & weights.keys()
    nodes = []
    for name in sorted(products):
        # Each column of a product, and below each row of a table, has its own scale.
        keep(graph, weights[name], axis=0)
        nodes += widen(f"{name}.int8", f"{name}.scale", name)
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            name, row = node.input[0], node.output[0]
            keep(graph, weights[name], axis=1)
            for part in ("int8", "scale"):
                inputs = [f"{name}.{part}", node.input[1]]
                nodes.append(helper.make_node("Gather", inputs, [f"{row}.{part}"]))
            nodes += widen(f"{row}.int8", f"{row}.scale", row)
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    onnx.checker.check_model(small)
    return small


def keep(graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int) -> None:
    """Replace a weight by whole numbers from -127 to 127 and their scales along `axis`."""
    if weight not in graph.initializer:
        return
    values: Weights = numpy_helper.to_array(weight)
    peak = np.maximum(np.abs(values).max(axis=axis, keepdims=True), np.float32(1e-12))
    scale = peak / np.float32(127)
    rounded = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
    graph.initializer.remove(weight)
    graph.initializer.append(numpy_helper.from_array(rounded, f"{weight.name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{weight.name}.scale"))


def widen(whole: str, scale: str, to: str) -> list[onnx.NodeProto]:
    """Return the nodes that turn whole numbers and their scales into floats."""
    floats = f"{to}.float"
    return [
        helper.make_node("Cast", [whole], [floats], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [floats, scale], [to]),
    ]


def quantise_all(model: Path) -> onnx.ModelProto:
    """Keep weights as INT8 and turn activations into it at run time, with nothing calibrated.

    Two to three times as fast; never batch or pad it, since neighbours move its answers.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(model, path, weight_type=QuantType.QInt8, per_channel=True)
        small = onnx.load(path)
    # What the tools write about themselves changes with their versions; the model does not.
    small.producer_name, small.producer_version = "trivium", ""
    del small.graph.value_info[:]
    del small.metadata_props[:]
    return small
