"""How does a TensorFlow.js graph become an ONNX graph without weights? (Developers only.)

The weights stay in their package, as external data: `assemble.py` reads them. Pictures lie as
[n, h, w, c] there and as [n, c, h, w] in ONNX, so a value is kept in ONNX's order, and beside it
how to turn it into TensorFlow's: transpositions then cost nothing until something needs them.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .draw import Drawing, Span

Axes = tuple[int, ...]

PICTURE: Axes = (0, 2, 3, 1)
"""How [n, c, h, w] becomes [n, h, w, c]."""

SIMPLE = {"Relu": "Relu", "Sigmoid": "Sigmoid", "LeakyRelu": "LeakyRelu"}
JOINING = {"Add": "Add", "AddV2": "Add", "AddN": "Add", "Mul": "Mul"}


class Value(NamedTuple):
    """A tensor of the ONNX graph; TensorFlow's axis i is its axis `axes[i]`."""

    name: str
    axes: Axes
    pads: tuple[tuple[int, int], ...] = ()  # what TensorFlow's Pad added, before and behind


class Stored(NamedTuple):
    """A constant that lies in the weights' file; whole numbers and scalars are read."""

    span: Span
    array: NDArray[Any] | None


def weights(model: Mapping[str, Any], data: bytes, member: str) -> dict[str, Stored]:
    """Return where the constants of a model.json lie in its one file of weights."""
    (group,) = model["weightsManifest"]
    found, at = {}, 0
    for entry in group["weights"]:
        half = entry.get("quantization", {}).get("dtype") == "float16"
        kind = np.dtype("<f2" if half else "<i4" if entry["dtype"] == "int32" else "<f4")
        shape = tuple(entry["shape"])
        size = kind.itemsize * math.prod(shape)
        array = None
        if kind.kind == "i" or not shape:
            array = np.frombuffer(data[at : at + size], kind).reshape(shape)
        span = Span(member, at, shape, tuple(range(len(shape))), half)
        found[entry["name"]] = Stored(span, array)
        at += size
    if at != len(data):
        raise ValueError(f"{member} has {len(data)} bytes; its model.json describes {at}.")
    return found


class Translation:
    """A TensorFlow.js graph on its way into a drawing."""

    def __init__(
        self, draw: Drawing, model: Mapping[str, Any], stored: Mapping[str, Stored]
    ) -> None:
        self.draw = draw
        self._stored = stored
        self._nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        self._values: dict[str, Value] = {}
        draw.spans = {**draw.spans, **{name: each.span for name, each in stored.items()}}

    def feed(self, name: str, value: Value) -> None:
        """Say what an input of the graph is in the drawing."""
        self._values[name] = value

    def get(self, name: str) -> str:
        """Draw what an output needs; return it in TensorFlow's order of axes."""
        value = self._turned(self._value(name), None)
        return value.name

    def _value(self, name: str) -> Value:
        """Return a tensor, drawn with all that it needs."""
        source, _, output = name.partition(":")
        key = f"{source}:{output}" if output not in ("", "0") else source
        if key not in self._values:
            node = self._nodes[source]
            inputs = [each for each in node.get("input", ()) if not each.startswith("^")]
            self._draw(node, inputs)
        return self._values[key]

    def _draw(self, node: Mapping[str, Any], inputs: Sequence[str]) -> None:
        kind, name = node["op"], node["name"]
        attributes = {key: _plain(value) for key, value in node.get("attr", {}).items()}
        if kind in SIMPLE:
            extra = {"alpha": attributes["alpha"]} if kind == "LeakyRelu" else {}
            value = self._whole(inputs[0])
            drawn = value._replace(name=self.draw.op(SIMPLE[kind], value.name, **extra))
        elif kind in JOINING:
            drawn = self._join(JOINING[kind], inputs)
        elif kind == "SplitV":
            for number, part in enumerate(self._split(inputs)):
                self._values[f"{name}:{number}" if number else name] = part
            return
        else:
            draw: Callable[[Sequence[str], Mapping[str, Any]], Value] | None
            draw = getattr(self, f"_{kind.lower()}", None)
            if draw is None:
                raise ValueError(f"{name} is {kind}, which is not translated yet.")
            drawn = draw(inputs, attributes)
        self._values[name] = drawn

    def _whole(self, name: str) -> Value:
        value = self._value(name)
        if value.pads:
            raise ValueError(f"{name} is padded for what is neither a convolution nor a pool.")
        return value

    def _turned(self, value: Value, axes: Axes | None) -> Value:
        """Return a value whose `axes` are these, or TensorFlow's own order."""
        wanted = axes or tuple(range(len(value.axes)))
        if value.axes == wanted:
            return value
        # Ours must be transposed so that TensorFlow's axis i lies at wanted[i].
        perm = [value.axes[wanted.index(axis)] for axis in range(len(wanted))]
        return Value(self.draw.op("Transpose", value.name, perm=perm), wanted)

    def _numbers(self, name: str) -> NDArray[Any]:
        """Return whole numbers that the graph computes from constants alone."""
        if name in self._stored:
            array = self._stored[name].array
            assert array is not None, name
            return array
        node = self._nodes[name]
        given = [self._numbers(each) for each in node["input"]]
        if node["op"] in ("Add", "AddV2"):
            return np.asarray(given[0] + given[1])
        if node["op"] == "SparseToDense":
            where, shape, what, rest = given
            dense = np.full(tuple(shape), rest)
            for place, number in zip(where, what, strict=True):
                dense[tuple(place)] = number
            return dense
        raise ValueError(f"{name} is {node['op']}, not a sum of constants.")

    def _weight(self, name: str, perm: Sequence[int] = (), rank: int = 0) -> str:
        """Refer to a constant, transposed, or with axes of one behind it up to `rank`."""
        span = self.draw.spans[name]
        if rank > len(span.shape) > 0:
            shape = span.shape + (1,) * (rank - len(span.shape))
            self.draw.spans = {
                **self.draw.spans,
                name: span._replace(shape=shape, axes=tuple(range(rank))),
            }
        return self.draw.weight(name, perm)

    def _join(self, kind: str, inputs: Sequence[str]) -> Value:
        constants = [each for each in inputs if each in self._stored]
        values = [self._whole(each) for each in inputs if each not in self._stored]
        first = values[0]
        if constants:
            shape = self.draw.spans[constants[0]].shape
            if shape and first.axes != PICTURE:
                first = self._turned(first, PICTURE)
            if kind == "Add" and self._biased(first, constants[0]):
                return first
            other = self._weight(constants[0], rank=3)
        else:
            other = self._turned(values[1], first.axes).name
        return first._replace(name=self.draw.op(kind, first.name, other))

    def _biased(self, value: Value, constant: str) -> bool:
        """Make a sum part of the convolution that nothing else has seen yet."""
        node = self.draw.nodes[-1]
        ours = node.output[0] == value.name and node.op_type in ("Conv", "ConvTranspose")
        if not ours or len(node.input) != 2 or len(self.draw.spans[constant].shape) != 1:
            return False
        self.draw.nodes.pop()
        node.input.append(self._weight(constant))
        self.draw.nodes.append(node)
        return True

    def _split(self, inputs: Sequence[str]) -> list[Value]:
        value = self._whole(inputs[0])
        sizes = [int(size) for size in self._numbers(inputs[1])]
        axis = value.axes[int(self._numbers(inputs[2]))]
        first = self.draw.op("Split", value.name, self.draw.const(sizes), axis=axis)
        node = self.draw.nodes[-1]
        node.output.extend(f"{first}.{number}" for number in range(1, len(sizes)))
        return [Value(name, value.axes) for name in node.output]

    def _identity(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        return self._value(inputs[0])

    def _transpose(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        value = self._value(inputs[0])
        perm = [int(axis) for axis in self._numbers(inputs[1])]
        pads = tuple(value.pads[axis] for axis in perm) if value.pads else ()
        return Value(value.name, tuple(value.axes[axis] for axis in perm), pads)

    def _pad(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        pads = tuple((int(before), int(behind)) for before, behind in self._numbers(inputs[1]))
        value = self._whole(inputs[0])
        return value if not any(map(any, pads)) else value._replace(pads=pads)

    def _padv2(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        if float(self._numbers(inputs[2])) > -(2.0**15):
            raise ValueError(f"{inputs[0]} is padded by another number than the least.")
        return self._pad(inputs, attributes)  # only a pool may come next

    def _window(self, name: str, attributes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return a picture in ONNX's order, and how a window moves over it."""
        value = self._value(name)
        pads = value.pads or ((0, 0),) * 4
        if any(pads[0] + pads[3]):
            raise ValueError(f"{name} is padded across pictures or channels.")
        picture = self._turned(value._replace(pads=()), PICTURE)
        told: dict[str, Any] = {"strides": attributes["strides"][1:3]}
        if attributes["padding"] == "SAME":
            told["auto_pad"] = "SAME_UPPER"
        (top, bottom), (left, right) = pads[1:3]
        if value.pads:
            told["pads"] = (top, left, bottom, right)
        return picture.name, told

    def _conv2d(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        picture, told = self._window(inputs[0], attributes)
        kernel = self._weight(inputs[1], (3, 2, 0, 1))
        return Value(self.draw.op("Conv", picture, kernel, **told), PICTURE)

    def _depthwiseconv2dnative(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        picture, told = self._window(inputs[0], attributes)
        group, times = self.draw.spans[inputs[1]].shape[2:]
        if times != 1:
            raise ValueError(f"{inputs[1]} makes {times} channels of one.")
        kernel = self._weight(inputs[1], (2, 3, 0, 1))
        return Value(self.draw.op("Conv", picture, kernel, group=group, **told), PICTURE)

    def _conv2dbackpropinput(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        picture, told = self._window(inputs[2], attributes)
        sides = self.draw.spans[inputs[1]].shape[:2]
        if told.pop("auto_pad", None) and tuple(told["strides"]) != tuple(sides):
            raise ValueError(f"{inputs[1]} overlaps itself.")
        kernel = self._weight(inputs[1], (3, 2, 0, 1))
        return Value(self.draw.op("ConvTranspose", picture, kernel, **told), PICTURE)

    def _maxpool(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        picture, told = self._window(inputs[0], attributes)
        told["kernel_shape"] = attributes["ksize"][1:3]
        return Value(self.draw.op("MaxPool", picture, **told), PICTURE)

    def _avgpool(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        picture, told = self._window(inputs[0], attributes)
        told["kernel_shape"] = attributes["ksize"][1:3]
        return Value(self.draw.op("AveragePool", picture, **told), PICTURE)

    def _relu6(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        value = self._whole(inputs[0])
        limits = self.draw.const(0.0), self.draw.const(6.0)
        return value._replace(name=self.draw.op("Clip", value.name, *limits))

    def _concatv2(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        first = self._whole(inputs[0])
        parts = [self._turned(self._whole(each), first.axes).name for each in inputs[:-1]]
        axis = first.axes[int(self._numbers(inputs[-1]))]
        return first._replace(name=self.draw.op("Concat", *parts, axis=axis))

    def _reshape(self, inputs: Sequence[str], _: Mapping[str, Any]) -> Value:
        value = self._turned(self._whole(inputs[0]), None)
        shape = [int(size) for size in self._numbers(inputs[1])]
        name = self.draw.op("Reshape", value.name, self.draw.const(shape))
        return Value(name, tuple(range(len(shape))))

    def _resizebilinear(self, inputs: Sequence[str], attributes: Mapping[str, Any]) -> Value:
        if attributes["align_corners"] or not attributes["half_pixel_centers"]:
            raise ValueError(f"{inputs[0]} is resized by another rule than half pixels.")
        picture = self._turned(self._whole(inputs[0]), PICTURE)
        sides = self.draw.const([int(size) for size in self._numbers(inputs[1])])
        # All four sizes: onnxruntime's optimiser loses those that come with axes.
        kept = self.draw.op("Shape", picture.name, start=0, end=2)
        sizes = self.draw.op("Concat", kept, sides, axis=0)
        drawn = self.draw.op("Resize", picture.name, "", "", sizes, mode="linear")
        return Value(drawn, PICTURE)


def _plain(attribute: Mapping[str, Any]) -> Any:
    """Return an attribute as Python has it."""
    if "s" in attribute:
        return base64.b64decode(attribute["s"]).decode()
    if "list" in attribute:
        return [int(each) for each in attribute["list"].get("i", ())]
    return next((attribute[key] for key in ("f", "b") if key in attribute), None)
