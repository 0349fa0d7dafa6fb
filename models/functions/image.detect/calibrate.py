"""How does image.detect become INT8? (Developers only: run once, with real photos.)

`python calibrate.py prepare.onnx model.onnx PHOTOS` writes model.int8.onnx. As in the kit's
`calibrate`, so that it answers alike on every machine: no sum of two products of a byte and a
weight passes 16 bits, and errors of rounding are passed on to weights not yet rounded. What is
unlike: the convolutions look at 3 x 3 pixels. Sums of two scales, the last product of each scale
and all that makes boxes stay floats: a byte is too coarse for chances and distances.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from trivium_models.calibrate import EXACT, SAFE, Feed, Floats, integers, pass_on, photos

QUANTISED = ["Conv", "LeakyRelu", "MaxPool", "Concat"]
MOST = 60
PLACES = 96  # positions of a feature map that are looked at, in each photo


def feeds(prepare: Path, folder: Path) -> list[Feed]:
    """Return every second photo of a folder as the model takes it: the others may judge."""
    session = ort.InferenceSession(prepare, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    options = {"least": np.array([0.4], np.float32), "top": np.array([20], np.int64)}
    # Each photo comes whole, then in part.
    pictures = list(photos(folder))[::4][:MOST]
    return [
        {**dict(zip(names, session.run(names, each), strict=True)), **options} for each in pictures
    ]


def widened(path: Path) -> onnx.ModelProto:
    """Return the model with its weights as floats: quantisation looks for them as constants."""
    model = onnx.load(path)
    graph = model.graph
    halves = {item.name: item for item in graph.initializer}
    for node in list(graph.node):
        if node.op_type == "Cast" and node.input[0] in halves:
            half = halves[node.input[0]]
            wide = numpy_helper.to_array(half).astype(np.float32)
            graph.node.remove(node)
            graph.initializer.remove(half)
            graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
    return model


def calibrate(model: onnx.ModelProto, given: Sequence[Feed]) -> onnx.ModelProto:
    """Return the INT8 form of the model, from what it does on prepared photos."""
    nodes = list(model.graph.node)
    bent = {node.output[0] for node in nodes if node.op_type == "LeakyRelu"}
    split = {node.input[0] for node in nodes if node.op_type == "Split"}
    last = [node.name for node in nodes if node.op_type == "Conv" and node.output[0] in split]
    other = [n.name for n in nodes if n.op_type == "Concat" and not bent.intersection(n.input)]
    with TemporaryDirectory() as folder:
        full = Path(folder) / "full.onnx"
        onnx.save(model, full)
        small = integers(full, given, QUANTISED, [*last, *other])
    values = {item.name: numpy_helper.to_array(item) for item in small.graph.initializer}
    round_weights(small.graph, values, model, given)
    del small.graph.initializer[:], small.graph.value_info[:], small.metadata_props[:]
    small.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in values.items()
    )
    small.producer_name, small.producer_version = "trivium", ""
    onnx.checker.check_model(small)
    return small


def round_weights(
    graph: onnx.GraphProto,
    values: dict[str, NDArray[np.generic]],
    full: onnx.ModelProto,
    given: Sequence[Feed],
) -> None:
    """Round the full model's weights and biases anew, by what its layers see."""
    weights = {item.name: numpy_helper.to_array(item) for item in full.graph.initializer}
    layers = {node.name: node for node in full.graph.node}
    small = [node for node in graph.node if node.op_type == "QLinearConv"]
    names = [node.name.removesuffix("_quant") for node in small]
    means, moments = watch(full, [layers[name] for name in names], weights, given)
    for node, name in zip(small, names, strict=True):
        layer = layers[name]
        whole = weights[layer.input[1]].astype(np.float64)
        rows = whole.reshape(len(whole), -1)
        stem = layer.input[0] == "image"
        limit = EXACT if stem else SAFE
        scales = (np.abs(rows).max(1) / limit).astype(np.float32)
        rounded = pass_on(rows, scales.astype(np.float64), moments[name], limit)
        shift = (rounded * scales[:, None] - rows) @ means[name]
        offsets = weights[layer.input[2]].astype(np.float64) - shift
        seen = float(values[node.input[1]])
        # Unsigned weights are multiplied without saturation everywhere, only slower.
        kind, zero = (np.uint8, 128) if stem else (np.int8, 0)
        values[node.input[3]] = (rounded.reshape(whole.shape) + zero).astype(kind)
        values[node.input[4]] = scales
        values[node.input[5]] = np.full(len(scales), zero, kind)
        biases = np.round(offsets / (seen * scales.astype(np.float64)))
        values[node.input[8]] = biases.astype(np.int32)


def watch(
    full: onnx.ModelProto,
    layers: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray[np.generic]],
    given: Sequence[Feed],
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return the mean and the second moments of the patches that each layer multiplies."""
    names = sorted({layer.input[0] for layer in layers} - {"image"})
    tapped = onnx.ModelProto()
    tapped.CopyFrom(full)
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"])
    dice = np.random.default_rng(0)
    means: dict[str, Floats] = {}
    moments: dict[str, Floats] = {}
    for feed in given:
        seen = {**dict(zip(names, session.run(names, feed), strict=True)), **feed}
        for layer in layers:
            side = weights[layer.input[1]].shape[2]
            told = {each.name: list(each.ints) for each in layer.attribute}
            patches = cut(seen[layer.input[0]][0], side, told, dice)
            mean, moment = patches.mean(1), patches @ patches.T / patches.shape[1]
            means[layer.name] = means.get(layer.name, 0) + mean / len(given)
            moments[layer.name] = moments.get(layer.name, 0) + moment / len(given)
    return means, moments


def cut(
    picture: NDArray[np.generic], side: int, told: dict[str, list[int]], dice: np.random.Generator
) -> Floats:
    """Return patches of a picture as columns, from some of the places a kernel is laid on."""
    pad, step = told.get("pads", [0])[0], told.get("strides", [1])[0]
    padded = np.pad(picture, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    windows = windows[:, ::step, ::step]
    across = windows.shape[2]
    count = windows.shape[1] * across
    places = dice.choice(count, min(PLACES, count), replace=False)
    chosen = windows[:, places // across, places % across].astype(np.float64)
    return np.ascontiguousarray(chosen.transpose(0, 2, 3, 1)).reshape(-1, len(places))


if __name__ == "__main__":
    preparation, network, pictures = map(Path, sys.argv[1:4])
    made = calibrate(widened(network), feeds(preparation, pictures))
    target = Path(__file__).with_name("model.int8.onnx")
    target.write_bytes(made.SerializeToString(deterministic=True))
