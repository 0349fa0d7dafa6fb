"""Which fixed arithmetic goes before and after the models, so that no Python does it in the page?

`python graphs.py` writes the four graphs beside this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
IR_VERSION = 10
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8

SIDE = 1280
"""The longer side of a page as its lines are looked for in it, in pixels."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEIGHT = 48
"""The height of a line as it is read."""


class Graph:
    """Nodes written down one after the other; a name stands for what a node gives."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def const(self, value: object, kind: type = np.int64) -> str:
        """Return the name of a constant."""
        name = f"const.{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Return the name of what a node gives."""
        name = name or f"{kind}.{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def write(self, path: Path, inputs: Any, outputs: Any) -> None:
        """Write the graph; inputs and outputs are names with a type and a shape."""
        graph = helper.make_graph(
            self._nodes,
            path.stem,
            [helper.make_tensor_value_info(*each) for each in inputs],
            [helper.make_tensor_value_info(*each) for each in outputs],
            self._constants,
        )
        model = helper.make_model(
            graph,
            producer_name="trivium",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def prepare(path: Path, side: int = SIDE) -> None:
    """Make a picture of any size what the detector takes: sides up to `side`, in steps of 32."""
    g = Graph()
    size = g.op("Cast", g.op("Shape", "pixels", end=2), to=FLOAT)
    longest = g.op("ReduceMax", size, keepdims=1)
    ratio = g.op("Min", g.op("Div", g.const([side], np.float32), longest), g.const([1], np.float32))
    steps = g.op("Round", g.op("Div", g.op("Mul", size, ratio), g.const([32], np.float32)))
    steps = g.op("Max", steps, g.const([1], np.float32))
    wanted = g.op("Cast", g.op("Mul", steps, g.const([32], np.float32)), to=INT64)
    picture = g.op("Unsqueeze", "pixels", g.const([0]))
    small = g.op("Resize", picture, "", "", wanted, mode="linear", antialias=1, axes=(1, 2))
    planes = g.op("Cast", g.op("Transpose", small, perm=(0, 3, 1, 2)), to=FLOAT)
    column = (1, 3, 1, 1)
    mean = g.const(np.reshape([255 * each for each in MEAN], column), np.float32)
    std = g.const(np.reshape([255 * each for each in STD], column), np.float32)
    g.op("Div", g.op("Sub", planes, mean), std, name="x")
    g.write(path, [("pixels", UINT8, ["h", "w", 3])], [("x", FLOAT, [1, 3, "high", "wide"])])


def heat(path: Path, given: str) -> None:
    """Say how sure the detector is of each pixel, as a byte of 0 to 255."""
    g = Graph()
    scaled = g.op("Round", g.op("Mul", given, g.const(255, np.float32)))
    flat = g.op("Squeeze", g.op("Cast", scaled, to=UINT8), g.const([0, 1]))
    g.op("Identity", flat, name="heat")
    g.write(path, [(given, FLOAT, [1, 1, "high", "wide"])], [("heat", UINT8, ["high", "wide"])])


def crop(path: Path) -> None:
    """Cut one line out of a picture, turned upright, 48 pixels high and `width` wide.

    `window` is the part of the picture it lies in (top, left, bottom, right); `corners` are in
    there: the upper left one, and the ways to the upper right and to the lower left; `size` is
    how many pixels they are long.
    """
    g = Graph()
    part = g.op(
        "Slice",
        "pixels",
        g.op("Slice", "window", g.const([0]), g.const([2])),
        g.op("Slice", "window", g.const([2]), g.const([4])),
        g.const([0, 1]),
    )
    planes = g.op("Transpose", g.op("Unsqueeze", part, g.const([0])), perm=(0, 3, 1, 2))
    floats = g.op("Cast", planes, to=FLOAT)

    def steps(index: int) -> str:
        """Return the middles of as many parts of 0 to 1 as `size` says."""
        count = g.op("Gather", "size", g.const(index))
        numbers = g.op("Cast", g.op("Range", g.const(0), count, g.const(1)), to=FLOAT)
        halves = g.op("Add", numbers, g.const(0.5, np.float32))
        return g.op("Div", halves, g.op("Cast", count, to=FLOAT))

    def corner(index: int) -> str:
        return g.op("Gather", "corners", g.const(index), axis=0)

    across = g.op("Mul", g.op("Unsqueeze", steps(0), g.const([0, 2])), corner(1))
    down = g.op("Mul", g.op("Unsqueeze", steps(1), g.const([1, 2])), corner(2))
    points = g.op("Add", g.op("Add", across, down), corner(0))  # [high, wide, (x, y)]
    extent = g.op("Cast", g.op("Gather", g.op("Shape", part), g.const([1, 0])), to=FLOAT)
    # Pixels are squares: the left one's middle is at 0.5, and the whole from -1 to 1.
    scaled = g.op("Div", g.op("Mul", points, g.const(2, np.float32)), extent)
    grid = g.op("Unsqueeze", g.op("Sub", scaled, g.const(1, np.float32)), g.const([0]))
    upright = g.op("GridSample", floats, grid, mode="linear", padding_mode="border")
    wanted = g.op("Concat", g.const([HEIGHT]), "width", axis=0)
    line = g.op("Resize", upright, "", "", wanted, mode="linear", antialias=1, axes=(2, 3))
    half = g.const(127.5, np.float32)
    centred = g.op("Div", g.op("Sub", line, half), half)
    # A short line gets what is neither dark nor light behind it, as it was learnt.
    more = g.op("Max", g.op("Sub", g.const([320]), "width"), g.const([0]))
    pads = g.op("Concat", g.const([0] * 7), more, axis=0)
    g.op("Pad", centred, pads, name="x")
    g.write(
        path,
        [
            ("pixels", UINT8, ["h", "w", 3]),
            ("window", INT64, [4]),
            ("corners", FLOAT, [3, 2]),
            ("size", INT64, [2]),
            ("width", INT64, [1]),
        ],
        [("x", FLOAT, [1, 3, HEIGHT, "wide"])],
    )


def best(path: Path, given: str, classes: int) -> None:
    """Find the surest character at each place of a line, and how sure it is."""
    g = Graph()
    g.op("Cast", g.op("ArgMax", given, axis=2, keepdims=0), to=TensorProto.INT32, name="ids")
    g.op("ReduceMax", given, g.const([2]), keepdims=0, name="scores")
    g.write(
        path,
        [(given, FLOAT, [1, "places", classes])],
        [("ids", TensorProto.INT32, [1, "places"]), ("scores", FLOAT, [1, "places"])],
    )


if __name__ == "__main__":
    here = Path(__file__).parent
    prepare(here / "prepare.onnx")
    heat(here / "heat.onnx", "fetch_name_0")
    crop(here / "crop.onnx")
    best(here / "best.onnx", "fetch_name_0", 6906)
