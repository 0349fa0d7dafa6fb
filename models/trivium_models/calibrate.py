"""How does a convolutional network become INT8 whose answers are the same on every machine?

Run once by a developer, with real photos; the result is committed. Four things make it agree to
the last bit between a server, an old CPU and WebAssembly, and keep it near the full model:

- Everything up to the logits is integer arithmetic; the logits are floats.
- No sum of two products of a byte and a weight passes 16 bits (weights of matrix products stay
  within ±64): CPUs without VNNI saturate there, and nobody else does.
- In an addition, both inputs' scales are a 255th part of the output's: no result lies near the
  middle between two integers, where a fused multiply-add rounds another way than WebAssembly.
- Rounding errors of weights are passed on to the weights not yet rounded (GPTQ), and what is
  left of a layer's mean error is taken out of its bias.
"""

from __future__ import annotations

import math
import mimetypes
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from trivium.contract import Blob
from trivium.hosts.server.media import IMAGES, pixels

Floats = NDArray[np.float64]
Feed = dict[str, NDArray[np.generic]]

EXACT, SAFE = 127, 64
QUANTISED = ["Conv", "Add", "Clip", "GlobalAveragePool", "Flatten", "Gemm"]
PLACES = 96  # positions of a feature map that are looked at: more adds nothing


class Photos(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Prepared photos, as onnxruntime's calibration asks for them."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next photo, or none."""
        return next(self._left, None)


def photos(folder: Path) -> Iterator[dict[str, NDArray[np.uint8]]]:
    """Yield each photo of a folder, whole and as its lower right four fifths."""
    for path in sorted(folder.glob("*")):
        media = mimetypes.guess_type(path.name)[0] or ""
        if media in IMAGES:
            tensor = pixels(Blob(media=media, data=path.read_bytes()))
            whole = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
            height, width = (side // 5 for side in whole.shape[:2])
            yield {"pixels": whole}
            yield {"pixels": np.ascontiguousarray(whole[height:, width:])}


def prepare(graph: Path, folder: Path) -> list[Feed]:
    """Return a folder's photos as the model takes them."""
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return [{"image": session.run(None, feed)[0]} for feed in photos(folder)]


def calibrate(full: Path, feeds: Sequence[Feed]) -> onnx.ModelProto:
    """Return the INT8 form of a model, from what it does on prepared photos."""
    small = integers(full, feeds, QUANTISED)
    values = {item.name: numpy_helper.to_array(item) for item in small.graph.initializer}
    keep_logits(small.graph)
    align_additions(small.graph, values)
    round_weights(small.graph, values, onnx.load(full), feeds)
    used = {name for node in small.graph.node for name in node.input}
    del small.graph.initializer[:], small.graph.value_info[:], small.metadata_props[:]
    small.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in values.items() if name in used
    )
    small.producer_name, small.producer_version = "trivium", ""
    onnx.checker.check_model(small)
    return small


def integers(
    full: Path, feeds: Sequence[Feed], kinds: Sequence[str], floats: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return onnxruntime's own INT8 form: nodes of such kinds, but for those named as floats."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            full,
            path,
            Photos(feeds),
            quant_format=QuantFormat.QOperator,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=kinds,
            nodes_to_exclude=floats,
        )
        return onnx.load(path)


def keep_logits(graph: onnx.GraphProto) -> None:
    """Let the last product give floats: a byte is too coarse for probabilities."""
    (product,) = (node for node in graph.node if node.op_type == "QGemm")
    (back,) = (node for node in graph.node if node.input[0] == product.output[0])
    del product.input[7:]
    product.output[0] = back.output[0]
    graph.node.remove(back)


def align_additions(graph: onnx.GraphProto, values: dict[str, NDArray[np.generic]]) -> None:
    """Widen the scales of what is added to whole 255th parts of the sum's scale."""
    for node in reversed(graph.node):
        if node.op_type == "QLinearAdd":
            total = float(values[node.input[6]])
            for name in (node.input[1], node.input[4]):
                parts = math.ceil(float(values[name]) / total * 255)
                values[name] = np.array(total * parts / 255, np.float32)


def round_weights(
    graph: onnx.GraphProto,
    values: dict[str, NDArray[np.generic]],
    full: onnx.ModelProto,
    feeds: Sequence[Feed],
) -> None:
    """Round the full model's weights and biases anew, by what its layers see."""
    weights = {item.name: numpy_helper.to_array(item) for item in full.graph.initializer}
    layers = {node.name: node for node in full.graph.node}
    means, moments = watch(full, feeds)
    for node in graph.node:
        if node.op_type not in ("QLinearConv", "QGemm"):
            continue
        layer = layers[node.name.removesuffix("_quant")]
        source, kernel, bias = layer.input
        whole = weights[kernel].astype(np.float64)
        if node.op_type == "QGemm":
            whole = whole.T
        rows = whole.reshape(len(whole), -1)
        depthwise, stem = whole.shape[1] == 1, whole.ndim == 4 and whole.shape[1:] == (3, 3, 3)
        limit = EXACT if depthwise or stem else SAFE
        offsets = weights[bias].astype(np.float64)
        seen_scale = float(values[node.input[1]])
        # A dead channel has no weights but a bias: its scale must leave that in 32 bits.
        least = (np.abs(offsets) + 1) / seen_scale / 2**29
        scales = np.maximum(np.abs(rows).max(1) / limit, least).astype(np.float32)
        if source in moments:
            rounded = pass_on(rows, scales.astype(np.float64), moments[source], limit)
        else:
            rounded = np.clip(np.round(rows / scales[:, None]), -limit, limit)
        error = (rounded * scales[:, None] - rows).reshape(*whole.shape[:2], -1).sum(2)
        seen = means[source]
        shift = error[:, 0] * seen if depthwise else error @ seen
        biases = np.round((offsets - shift) / (seen_scale * scales.astype(np.float64)))
        shaped = rounded.reshape(whole.shape)
        if node.op_type == "QGemm":
            shaped = shaped.T
        # Unsigned weights are multiplied without saturation everywhere, only slower.
        kind, zero = (np.uint8, 128) if stem else (np.int8, 0)
        values[node.input[3]] = np.ascontiguousarray(shaped + zero).astype(kind)
        values[node.input[4]] = scales
        values[node.input[5]] = np.full(len(scales), zero, kind)
        values[node.input[8 if node.op_type == "QLinearConv" else 6]] = biases.astype(np.int32)


def watch(
    full: onnx.ModelProto, feeds: Sequence[Feed]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Return the mean of what each layer sees, and its second moments where it mixes channels."""
    shapes = {item.name: item.dims for item in full.graph.initializer}
    layers = [node for node in full.graph.node if node.op_type in ("Conv", "Gemm")]
    mixing = {n.input[0] for n in layers if n.op_type == "Gemm" or shapes[n.input[1]][1] > 1}
    mixing.discard("image")
    names = [node.input[0] for node in layers if node.input[0] != "image"]
    tapped = onnx.ModelProto()
    tapped.CopyFrom(full)
    del tapped.graph.output[:]
    tapped.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(tapped.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    means: dict[str, Floats] = {}
    moments: dict[str, Floats] = {}
    for feed in feeds:
        seen = {**dict(zip(names, session.run(None, feed), strict=True)), **feed}
        for name, value in seen.items():
            columns = value[0].reshape(value.shape[1], -1).astype(np.float64)
            means[name] = means.get(name, 0) + columns.mean(1) / len(feeds)
            if name in mixing:
                if columns.shape[1] > PLACES:
                    columns = columns[:, generator.choice(columns.shape[1], PLACES, False)]
                moment = columns @ columns.T / columns.shape[1]
                moments[name] = moments.get(name, 0) + moment / len(feeds)
    return means, moments


def pass_on(rows: Floats, scales: Floats, moments: Floats, limit: int) -> Floats:
    """Round column by column, each error passed on to the columns that can make up for it."""
    rows, moments = rows.copy(), moments.copy()
    seen = np.diag(moments)
    dead = np.flatnonzero(seen <= 0)
    moments[dead, dead] = 1.0
    moments += np.eye(len(moments)) * 0.01 * seen.mean()
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T
    rounded = np.zeros_like(rows)
    for column in range(rows.shape[1]):
        rounded[:, column] = np.clip(np.round(rows[:, column] / scales), -limit, limit)
        error = (rows[:, column] - rounded[:, column] * scales) / factor[column, column]
        rows[:, column:] -= np.outer(error, factor[column, column:])
    return rounded


if __name__ == "__main__":
    preparation, network, pictures, target = (Path(argument) for argument in sys.argv[1:5])
    calibrated = calibrate(network, prepare(preparation, pictures))
    target.write_bytes(calibrated.SerializeToString(deterministic=True))
