"""How does a model become smaller or faster by coarser numbers, the same bits on every machine?"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from trivium.errors import BundleError

from .export import quiet
from .measure import Feed

Weights = NDArray[np.float32]

Form = Literal["float32", "weights", "dynamic", "static", "int4", "float16"]
"""What of a model becomes coarse:

- `float32`: nothing.
- `weights`: weights INT8, arithmetic float32: a fourth of the size, the same answers everywhere.
- `dynamic`: activations too, scaled at run time: two to four times as fast on a CPU with VNNI.
- `static`: activations too, scaled by what calibration saw: for convolutions.
- `int4`: weights of products and tables in blocks of 32 (MatMulNBits): an eighth of the size.
- `float16`: half the size; for a GPU.
"""

BLOCK = 32


def quantise(
    model: Path,
    form: Form,
    exclude: Sequence[str] = (),
    feeds: Callable[[], Iterable[Feed]] | None = None,
) -> onnx.ModelProto:
    """Return `model` in `form`, without the nodes that `exclude` names.

    `feeds` gives the inputs that a static form is calibrated on.

    Raises:
        BundleError: there is no node of an excluded name, nothing to quantise, or no data.
    """
    names = {node.name for node in onnx.load(model, load_external_data=False).graph.node}
    unknown = [name for name in exclude if name not in names]
    if unknown:
        some = ", ".join(sorted(filter(None, names))[:8])
        raise BundleError(
            f"{model.name} has no node {', '.join(unknown)} to exclude; its first are: {some}."
        )
    if form == "float32":
        return onnx.load(model)
    if form == "weights":
        return quantise_weights(model, exclude)
    if form == "dynamic":
        small = quantise_all(model, exclude)
    elif form == "static":
        if feeds is None:
            raise BundleError(f"{model.name}: a static form needs data to be calibrated on.")
        small = quantise_static(model, exclude, feeds())
    elif form == "int4":
        small = quantise_blocks(model, exclude)
    else:
        small = halve(model, exclude)
    return anonymous(small)


def quantise_weights(model: Path, exclude: Sequence[str] = ()) -> onnx.ModelProto:
    """Keep weights as INT8 and compute in float32.

    A fourth of the download and nearly the full answers, which also agree between machines: with
    activations in INT8, one value that two machines round apart moves the whole answer.
    """
    small = onnx.load(model)
    graph = small.graph
    float32 = onnx.TensorProto.FLOAT
    weights = {item.name: item for item in graph.initializer if item.data_type == float32}
    kept = {name for node in graph.node if node.name in exclude for name in node.input}
    weights = {name: item for name, item in weights.items() if name not in kept}
    products = {n.input[1] for n in graph.node if n.op_type == "MatMul"} & weights.keys()
    kernels = {n.input[1] for n in graph.node if n.op_type == "Conv"} & weights.keys()
    # Those over pictures; the ones over time are little beside the rest of their models.
    kernels = {name for name in kernels if len(weights[name].dims) == 4}
    tables = {n.input[0] for n in graph.node if n.op_type == "Gather"} & weights.keys()
    nodes = []
    for name in sorted(products):
        # Each column of a product, and below each row of a table, has its own scale.
        keep(graph, weights[name], axis=0)
        nodes += widen(f"{name}.int8", f"{name}.scale", name)
    for name in sorted(kernels):
        # Each channel that a convolution makes has its own scale.
        keep(graph, weights[name], axis=(1, 2, 3))
        nodes += widen(f"{name}.int8", f"{name}.scale", name)
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in tables:
            name, row = node.input[0], node.output[0]
            # A table may stand upright: then its columns are looked up, each with its own scale.
            upright = [each for each in node.attribute if each.name == "axis" and each.i]
            keep(graph, weights[name], axis=0 if upright else 1)
            for part in ("int8", "scale"):
                inputs = [f"{name}.{part}", node.input[1]]
                axis = {each.name: each.i for each in upright}
                nodes.append(helper.make_node("Gather", inputs, [f"{row}.{part}"], **axis))
            nodes += widen(f"{row}.int8", f"{row}.scale", row)
        else:
            nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    if not products and not tables and not kernels:
        raise BundleError(
            f"{model.name} has no matrix product, table or picture's convolution with constant "
            "weights."
        )
    onnx.checker.check_model(small)
    return small


def keep(graph: onnx.GraphProto, weight: onnx.TensorProto, axis: int | tuple[int, ...]) -> None:
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


def quantise_all(model: Path, exclude: Sequence[str] = ()) -> onnx.ModelProto:
    """Keep weights as INT8 and turn activations into it at run time, with nothing calibrated.

    Two to four times as fast; never batch or pad it, since neighbours move its answers.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with aside(model) as (source, path):
        quantize_dynamic(
            source,
            path,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=list(exclude),
            # What onnx can't infer behind an operator of onnxruntime's own.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(path)


@contextlib.contextmanager
def aside(model: Path) -> Iterator[tuple[Path, Path]]:
    """Give onnxruntime a copy to work on: it writes beside what it reads, and checks no write."""
    with TemporaryDirectory() as folder, quiet():
        source = Path(shutil.copyfile(model, Path(folder) / model.name))
        try:
            yield source, source.with_name("int8.onnx")
        except DecodeError as error:
            raise BundleError(
                f"{model.name} can't be quantised ({error}); is {folder} on a disk that is full?"
            ) from error


def quantise_static(model: Path, exclude: Sequence[str], feeds: Iterable[Feed]) -> onnx.ModelProto:
    """Turn weights and activations into INT8, by the ranges that were seen on `feeds`."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc] # it has no types
        left = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self.left, None)

    with aside(model) as (source, path):
        quantization.quantize_static(
            source,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QOperator,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=list(exclude),
        )
        return onnx.load(path)


def quantise_blocks(model: Path, exclude: Sequence[str]) -> onnx.ModelProto:
    """Keep weights of matrix products and tables as 4 bits, each block with its own scale."""
    try:
        from onnxruntime.quantization import matmul_nbits_quantizer
    except ImportError as error:
        raise BundleError(
            f"4 bits need the package {error.name}: pip install 'trivium[models]'."
        ) from error
    small = onnx.load(model)
    quantiser = matmul_nbits_quantizer.MatMulNBitsQuantizer(
        small,
        block_size=BLOCK,
        is_symmetric=True,
        nodes_to_exclude=list(exclude),
        op_types_to_quantize=("MatMul", "Gather"),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    with quiet():
        quantiser.process()
    found: onnx.ModelProto = quantiser.model.model
    if not {"MatMulNBits", "GatherBlockQuantized"} & {node.op_type for node in found.graph.node}:
        raise BundleError(f"{model.name} has no matrix product with constant weights.")
    return found


def halve(model: Path, exclude: Sequence[str]) -> onnx.ModelProto:
    """Keep weights and compute in float16; inputs and outputs stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    found: onnx.ModelProto = convert_float_to_float16(
        onnx.load(model), keep_io_types=True, node_block_list=list(exclude)
    )
    return found


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without what tools write about themselves, which changes by version."""
    model.producer_name, model.producer_version = "trivium", ""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    return model
