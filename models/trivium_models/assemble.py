"""How does a graph without weights become a whole model, the same bits on every machine?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from trivium.errors import BundleError

from .gguf import unpack

Floats = NDArray[np.float32]

FOLD = "fold"
"""What stands in the doc string of a cast that is done when a model is assembled."""


def assemble(graph: Path, read: Callable[[str], bytes]) -> onnx.ModelProto:
    """Fill a graph's external weights with the bytes `read` finds, and fold what is constant.

    Only copies and element by element arithmetic happen here, never a sum: IEEE 754 then
    promises the same bits everywhere, and the result can be pinned by its hash.
    """
    model = onnx.load(graph, load_external_data=False)
    weights = {}
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            fill(tensor, read)
        weights[tensor.name] = numpy_helper.to_array(tensor)
    fold_casts(model.graph, weights)
    fold_transposes(model.graph, weights)
    fold_norms(model.graph, weights)
    used = {name for node in model.graph.node for name in node.input}
    del model.graph.initializer[:]
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in weights.items() if name in used
    )
    onnx.checker.check_model(model)
    return model


def fill(tensor: onnx.TensorProto, read: Callable[[str], bytes]) -> None:
    """Replace a reference to bytes by the bytes."""
    entry = {item.key: item.value for item in tensor.external_data}
    # A file may be cut into parts, in packages that have to be small.
    parts = [read(part) for part in entry["location"].split("|")]
    data = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
    raw = b""
    # Several pieces where rows of several tensors become one.
    for at, size in zip(entry["offset"].split(), entry["length"].split(), strict=True):
        offset, length = int(at), int(size)
        piece = data[offset : offset + length]
        if len(piece) != length:
            raise BundleError(
                f"The weight {tensor.name} should be {length} bytes at {offset} of "
                f"{entry['location']}, but that file ends earlier. Export the graph again."
            )
        raw += piece
    if "." in entry.get("form", ""):
        raw = unpack(entry["form"], raw, tuple(tensor.dims)).tobytes()
    tensor.raw_data = raw
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def fold_casts(graph: onnx.GraphProto, weights: dict[str, NDArray[np.generic]]) -> None:
    """Replace float16 weights by float32 where a cast is marked so: the same numbers.

    Others stay, since they halve a file.
    """
    for node in list(graph.node):
        if node.op_type == "Cast" and node.doc_string == FOLD:
            weights[node.output[0]] = weights[node.input[0]].astype(np.float32)
            graph.node.remove(node)


def fold_transposes(graph: onnx.GraphProto, weights: dict[str, NDArray[np.generic]]) -> None:
    """Replace every transposed weight by a weight."""
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in weights:
            (perm,) = (onnx.helper.get_attribute_value(item) for item in node.attribute)
            turned = weights[node.input[0]].transpose(perm)
            weights[node.output[0]] = np.ascontiguousarray(turned)
            graph.node.remove(node)


def fold_norms(graph: onnx.GraphProto, weights: dict[str, NDArray[np.generic]]) -> None:
    """Fold every batch normalisation into the convolution before it."""
    makers = {node.output[0]: node for node in graph.node}
    for node in list(graph.node):
        if node.op_type != "BatchNormalization":
            continue
        conv = makers[node.input[0]]
        if conv.op_type != "Conv" or len(conv.input) != 2:
            raise BundleError(
                f"The normalisation {node.name} follows {conv.op_type} {conv.name}: only one "
                "that follows a convolution without a bias can be folded."
            )
        scale, bias, mean, variance = (weights[name].astype(np.float64) for name in node.input[1:])
        (epsilon,) = (item.f for item in node.attribute if item.name == "epsilon")
        factor = scale / np.sqrt(variance + np.float64(epsilon))
        kernel = weights[conv.input[1]]
        folded = kernel.astype(np.float64) * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        weights[f"{conv.name}.kernel"] = folded.astype(np.float32)
        weights[f"{conv.name}.bias"] = (bias - mean * factor).astype(np.float32)
        del conv.input[1:]
        conv.input.extend([f"{conv.name}.kernel", f"{conv.name}.bias"])
        conv.output[0] = node.output[0]
        graph.node.remove(node)
