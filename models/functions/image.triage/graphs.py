"""What finds places in a medical picture? `python graphs.py` draws locate.onnx and stain.onnx.

Both are classical operations on the picture brought to 512 x 512, and nothing was learnt for them.

locate.onnx is for a photo of the retina: `disc` is where the green channel is brightest over some
40 pixels within the field of view; `spots` are darker than each of 16 places on four rings around
them, which a vessel is not along its own way. stain.onnx is for tissue: how much of each of 32 x 32
cells is brown, by Ruifrok and Johnston's separation of haematoxylin, eosin and DAB (2001).
"""

from __future__ import annotations

from math import cos, pi, sin
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
SIDE = 512
SPOTS = 32
RADII = (5, 7, 9, 11)


class Graph:
    """Nodes and weights, as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def put(self, value: Any, kind: Any = np.float32) -> str:
        """Return the name of a constant."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(value, kind), name))
        return name

    def __call__(
        self, kind: str, *inputs: str, outputs: int = 1, out: str = "", **more: Any
    ) -> Any:
        """Return the name of what a node gives."""
        names = [out or f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **more))
        return names[0] if outputs == 1 else names

    def pool(self, kind: str, what: str, side: int) -> str:
        """Return a pool over a square of odd side around each pixel."""
        return self(kind, what, kernel_shape=[side, side], pads=[side // 2] * 4)

    def mean(self, what: str, side: int) -> str:
        return self.pool("AveragePool", what, side)

    def shifted(self, what: str, right: int, down: int) -> str:
        """Return the picture moved, its edges repeated."""
        far = max(abs(right), abs(down))
        pads = self.put([0, 0, far, far, 0, 0, far, far], np.int64)
        wide = self("Pad", what, pads, mode="edge")
        starts = self.put([far - down, far - right], np.int64)
        ends = self.put([far - down + SIDE, far - right + SIDE], np.int64)
        return self("Slice", wide, starts, ends, self.put([2, 3], np.int64))

    def broad(self, what: str) -> str:
        """Return a mean over some 64 pixels around each, without a pool that large."""
        cells = self("AveragePool", what, kernel_shape=[8, 8], strides=[8, 8])
        sizes = self.put([1, 1, SIDE, SIDE], np.int64)
        none = self.put([], np.float32)
        return self("Resize", self.mean(cells, 9), none, none, sizes, mode="linear")

    def save(self, name: str, outputs: dict[str, list[int]]) -> None:
        """Write the graph of a picture [1, 3, 512, 512] of 0 to 255."""
        shape = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            name,
            [shape("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [shape(each, TensorProto.FLOAT, dims) for each, dims in outputs.items()],
            self.weights,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 8
        onnx.checker.check_model(made, full_check=True)
        onnx.save(made, HERE / f"{name}.onnx")


def places(g: Graph, flat: str) -> tuple[str, str]:
    """Return x and y, as fractions, of indices into a picture."""
    side = g.put(SIDE, np.int64)
    x = g("Cast", g("Mod", flat, side), to=TensorProto.FLOAT)
    y = g("Cast", g("Div", flat, side), to=TensorProto.FLOAT)
    half, scale = g.put(0.5), g.put(1 / SIDE)
    return tuple(g("Mul", g("Add", each, half), scale) for each in (x, y))  # type: ignore[return-value]


def hollow(g: Graph, small: str, radius: float) -> str:
    """Return how much darker each place is than the least dark of 16 places around it."""
    around = [
        g.shifted(small, round(radius * cos(pi * way / 8)), round(radius * sin(pi * way / 8)))
        for way in range(16)
    ]
    return g("Sub", g("Min", *around), small)  # type: ignore[no-any-return]


def locate() -> None:
    """Draw what finds the disc and small dark spots."""
    g = Graph()
    axis = g.put([1], np.int64)
    green = g("Slice", "image", g.put([1], np.int64), g.put([2], np.int64), axis)
    light = g("ReduceMean", "image", axes=[1])
    field = g("Cast", g("Greater", g.mean(light, 9), g.put(25)), to=TensorProto.FLOAT)
    inner = g("Sub", g.put(1), g.pool("MaxPool", g("Sub", g.put(1), field), 31))
    weight = g("Max", g.broad(field), g.put(1e-3))
    around = g("Max", g("Div", g.broad(g("Mul", green, field)), weight), g.put(1))
    # The disc, brightest.
    bright = g("Mul", g.mean(g.mean(g.mean(green, 15), 15), 15), inner)
    flat = g("Reshape", bright, g.put([1, -1], np.int64))
    best, where = g("TopK", flat, g.put([1], np.int64), outputs=2)
    x, y = places(g, where)
    level = g("Div", best, g("Max", g("ReduceMax", around, keepdims=0), g.put(1)))
    g("Squeeze", g("Concat", x, y, level, axis=1), g.put([0], np.int64), out="disc")
    # Spots, darker than all that is around them; a vessel is as dark along its own way.
    small = g.mean(green, 3)
    dark = g("Min", *(hollow(g, small, radius) for radius in RADII))
    least = g("Div", g("Mul", dark, inner), around)
    peak = g("Cast", g("Equal", g.pool("MaxPool", least, 13), least), to=TensorProto.FLOAT)
    flat = g("Reshape", g("Mul", least, peak), g.put([1, -1], np.int64))
    scores, where = g("TopK", flat, g.put([SPOTS], np.int64), outputs=2)
    x, y = places(g, where)
    last = g.put([2], np.int64)
    columns = [g("Unsqueeze", each, last) for each in (x, y, scores)]
    g("Squeeze", g("Concat", *columns, axis=2), g.put([0], np.int64), out="spots")
    g("ReduceMean", field, axes=[0, 1, 2, 3], keepdims=0, out="field")
    g.save("locate", {"disc": [3], "spots": [SPOTS, 3], "field": []})


def stain() -> None:
    """Draw what separates the stains of tissue."""
    g = Graph()
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    apart = np.linalg.inv(stains / np.linalg.norm(stains, axis=1, keepdims=True))
    dense = g("Neg", g("Log", g("Div", g("Add", "image", g.put(1)), g.put(256))))
    each = g("Conv", dense, g.put(apart.T.reshape(3, 3, 1, 1)))
    axis = g.put([1], np.int64)
    brown = g("Slice", each, g.put([2], np.int64), g.put([3], np.int64), axis)
    dark = g("Cast", g("Greater", brown, g.put(0.35)), to=TensorProto.FLOAT)
    cells = g("AveragePool", dark, kernel_shape=[16, 16], strides=[16, 16])
    g("Squeeze", cells, g.put([0, 1], np.int64), out="brown")
    g.save("stain", {"brown": [32, 32]})


if __name__ == "__main__":
    locate()
    stain()
