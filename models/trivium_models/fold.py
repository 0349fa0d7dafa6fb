"""Which fixed arithmetic goes into graphs, so that no Python does it in the page?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import onnx
from msgspec import Meta
from onnx import TensorProto, helper, numpy_helper

from trivium.errors import BundleError

OPSET = 20
IR_VERSION = 10

Side = Annotated[int, Meta(ge=1, le=4096)]


class Prepare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a picture of any size becomes what a model takes: a square, antialiased, in one way.

    - `crop`: its short side becomes `short` pixels, and a square of `crop` is cut from the middle.
    - `fit`: the whole picture is put into the middle of a square of `fit`, black around it. A
      second output, `frame`, says where: left, top, width and height, in pixels of the square.
    - `stretch`: both sides become `stretch` pixels.

    Then each channel becomes (value - mean) / std, of values from 0 to 255, in the order of
    `channels`.
    """

    crop: Side = 0
    short: Side = 0
    fit: Side = 0
    stretch: Side = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    input: str = "pixels"
    output: str = "image"


def prepare(step: Prepare) -> onnx.ModelProto:
    """Return the graph: uint8 [h, w, 3] to float32 [1, 3, side, side], or [1, side, side, 3].

    A byte a value until the picture is small, and resized in place: a float copy of a photo, or
    a transposed one, would be the peak of the page's memory.
    """
    if len(step.mean) not in (1, 3) or len(step.std) not in (1, 3) or 0 in step.std:
        raise BundleError(
            f"prepare: mean and std have 1 or 3 values, and none of std is 0; "
            f"they are {step.mean} and {step.std}."
        )
    ways = {name: getattr(step, name) for name in ("crop", "fit", "stretch")}
    if len([side for side in ways.values() if side]) != 1 or (step.short and not step.crop):
        raise BundleError(
            "prepare: say exactly one of crop, fit and stretch, and short only beside crop; they "
            f"are {', '.join(f'{name} = {side}' for name, side in ways.items())}."
        )
    side = step.crop or step.fit or step.stretch
    short = step.short or side
    sizes = {"short": [short, short], "crop": [side, side], "first": [0]}
    constants = {name: np.array(value, np.int64) for name, value in sizes.items()}
    channels = (1, -1, 1, 1) if step.layout == "nchw" else (1, 1, 1, -1)
    values = {
        name: np.array(given, np.float32).reshape(channels)
        for name, given in (("mean", step.mean), ("std", step.std))
    }
    node = helper.make_node
    nodes = [node("Unsqueeze", [step.input, "first"], ["picture"])]
    resized: dict[str, Any] = {"mode": "linear", "antialias": 1, "axes": (1, 2)}
    outputs = []
    if step.crop:
        resized["keep_aspect_ratio_policy"] = "not_smaller"
        nodes.append(node("Resize", ["picture", "", "", "short"], ["small"], **resized))
        nodes.append(node("CenterCropPad", ["small", "crop"], ["square"], axes=(1, 2)))
    elif step.fit:
        constants |= {"one": np.array([1], np.int64), "two": np.array([2], np.int64)}
        constants |= {"swap": np.array([1, 0], np.int64), "depth": np.array([3], np.int64)}
        values["fit"] = np.array(step.fit, np.float32)
        nodes += [
            node("Shape", [step.input], ["size"], start=0, end=2),
            node("Cast", ["size"], ["sides"], to=TensorProto.FLOAT),
            node("ReduceMax", ["sides"], ["long"], keepdims=0),
            node("Div", ["fit", "long"], ["scale"]),
            node("Mul", ["sides", "scale"], ["exact"]),
            node("Round", ["exact"], ["rounded"]),
            node("Cast", ["rounded"], ["whole"], to=TensorProto.INT64),
            node("Max", ["whole", "one"], ["fitting"]),  # a line of pixels stays one
            node("Resize", ["picture", "", "", "fitting"], ["small"], **resized),
            node("Sub", ["crop", "fitting"], ["left_over"]),
            node("Div", ["left_over", "two"], ["before"]),
            node("Sub", ["left_over", "before"], ["behind"]),
            node("Concat", ["first", "before", "first"], ["pads_before"], axis=0),
            node("Concat", ["first", "behind", "first"], ["pads_behind"], axis=0),
            node("Concat", ["pads_before", "pads_behind"], ["pads"], axis=0),
            node("Pad", ["small", "pads"], ["square"]),
            node("Gather", ["before", "swap"], ["corner"]),
            node("Gather", ["fitting", "swap"], ["extent"]),
            node("Concat", ["corner", "extent"], ["place"], axis=0),
            node("Cast", ["place"], ["frame"], to=TensorProto.FLOAT),
        ]
        outputs.append(helper.make_tensor_value_info("frame", TensorProto.FLOAT, [4]))
    else:
        nodes.append(node("Resize", ["picture", "", "", "crop"], ["square"], **resized))
    bytes_ = "square"
    if step.channels == "bgr":
        constants["backwards"] = np.array([2, 1, 0], np.int64)
        nodes.append(node("Gather", [bytes_, "backwards"], ["turned"], axis=3))
        bytes_ = "turned"
    if step.layout == "nchw":
        nodes.append(node("Transpose", [bytes_], ["planes"], perm=(0, 3, 1, 2)))
        bytes_ = "planes"
    nodes += [
        node("Cast", [bytes_], ["floats"], to=TensorProto.FLOAT),
        node("Sub", ["floats", "mean"], ["centred"]),
        node("Div", ["centred", "std"], [step.output]),
    ]
    shape = [1, 3, side, side] if step.layout == "nchw" else [1, side, side, 3]
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "prepare",
        [helper.make_tensor_value_info(step.input, TensorProto.UINT8, ["h", "w", 3])],
        [helper.make_tensor_value_info(step.output, TensorProto.FLOAT, shape), *outputs],
        [
            numpy_helper.from_array(array, name)
            for name, array in (constants | values).items()
            if name in used
        ],
    )
    model = helper.make_model(
        graph,
        producer_name="trivium",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model)
    return model


def fold(
    model: Path,
    *,
    pool: str = "",
    softmax: bool = False,
    normalise: bool = False,
    output: str = "",
    tap: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return a model whose first output went through what a function would else do in Python.

    `pool = "mean"` takes the mean over the tokens that `attention_mask` marks; `softmax` and
    `normalise` (to length 1) work on the last axis; `output` renames what comes out. The other
    outputs are dropped. `tap` instead adds outputs: by their names, what products inside read.
    """
    found = onnx.load(model)
    graph = found.graph
    if tap:
        for name, inner in tap.items():
            add_output(model, graph, name, inner)
        onnx.checker.check_model(found)
        return found
    last = graph.output[0].name
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def op(kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"fold.{kind}.{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def const(value: object, kind: type) -> str:
        name = f"fold.const.{len(constants)}"
        constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    rank = len(graph.output[0].type.tensor_type.shape.dim)
    if pool:
        if "attention_mask" not in {each.name for each in graph.input} or rank != 3:
            raise BundleError(
                f"{model.name}: pool = 'mean' needs an input attention_mask and an output of "
                f"shape [b, t, d]; the output {last} has {rank} dimensions."
            )
        mask = op("Cast", "attention_mask", to=TensorProto.FLOAT)
        column = op("Unsqueeze", mask, const([-1], np.int64))
        total = op("ReduceSum", op("Mul", last, column), const([1], np.int64), keepdims=0)
        count = op("ReduceSum", column, const([1], np.int64), keepdims=0)
        last, rank = op("Div", total, op("Max", count, const(1e-9, np.float32))), 2
    if softmax:
        last = op("Softmax", last, axis=-1)
    if normalise:
        size = op("ReduceL2", last, const([-1], np.int64))
        last = op("Div", last, op("Max", size, const(1e-12, np.float32)))
    if not nodes and not output:
        raise BundleError(f"{model.name}: fold has nothing to do; say pool, softmax or normalise.")
    name = output or "output"
    if name in {each.name for each in graph.input} | {
        n for each in graph.node for n in each.output
    }:
        raise BundleError(f"{model.name}: the output's name {name!r} is taken inside the graph.")
    nodes.append(helper.make_node("Identity", [last], [name], name="fold.output"))
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    shape = graph.output[0].type.tensor_type.shape
    dims = [dim.dim_param or dim.dim_value for dim in shape.dim]
    if pool:
        del dims[1]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    versions = {each.domain: each.version for each in found.opset_import}
    if versions.get("", 0) < 18:
        raise BundleError(
            f"{model.name} is of opset {versions.get('', 0)}; folding needs 18 or later: export "
            "it again."
        )
    onnx.checker.check_model(found)
    return found


def add_output(model: Path, graph: onnx.GraphProto, name: str, inner: str) -> None:
    """Give out what a product inside reads; bytes as the floats that they stand for."""
    products = {"Gemm": 1, "QGemm": 3}
    user = next((n for n in graph.node if inner in n.input and n.op_type in products), None)
    if user is None:
        raise BundleError(f"{model.name} has no {inner!r} that a Gemm or QGemm reads, to tap.")
    kind, inputs = "Identity", [inner]
    if user.op_type == "QGemm":
        kind, inputs = "DequantizeLinear", list(user.input[:3])
    weight = user.input[products[user.op_type]]
    width = next(item.dims[0] for item in graph.initializer if item.name == weight)
    graph.node.append(helper.make_node(kind, inputs, [name], name=f"tap.{name}"))
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width]))
