"""How is the graph of image.detect drawn? (Developers only; its weights stay in their package.)

`python draw.py PACKAGE.tgz` writes graph.onnx: NanoDet-g as the package's model.json describes
it, and behind it what turns its distances into boxes, each thing found once.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from trivium_models.draw import Drawing
from trivium_models.tfjs import Translation, Value, weights

SIDE = 416
STRIDES = {
    8: ("Identity", "Identity_3"),
    16: ("Identity_1", "Identity_4"),
    32: ("Identity_2", "Identity_5"),
}
"""Pixels between places that are looked at, and the outputs with their scores and distances."""

STEPS = 11  # a distance is a distribution over 0 to 10 strides
OVERLAP = 0.6  # two boxes of a kind that share more are one


def draw(description: bytes, data: bytes) -> onnx.ModelProto:
    """Return the graph: a prepared picture to rows of x, y, width, height, score and kind."""
    model = json.loads(description)
    draw = Drawing({})
    op, const = draw.op, draw.const

    def array(name: str, values: object) -> str:
        draw.constants[name] = numpy_helper.from_array(np.array(values, np.float32), name)
        return name

    stored = weights(model, data, "package/models/nanodet.bin")
    network = Translation(draw, model, stored)
    network.feed("input_1", Value("image", (0, 1, 2, 3)))
    scores = op("Concat", *(network.get(name) for name, _ in STRIDES.values()), axis=1)
    reach = op("Concat", *(network.get(name) for _, name in STRIDES.values()), axis=1)
    centres, strides = [], []
    for stride in STRIDES:
        side = SIDE // stride
        numbers = op("Range", const(0.0), const(float(side)), const(1.0))
        line = op("Add", numbers, const(0.5))
        line = op("Mul", line, const(float(stride)))
        square, column = const([side, side]), const([side * side, 1])
        across = op("Reshape", op("Expand", line, square), column)
        down = op("Reshape", op("Expand", op("Unsqueeze", line, const([1])), square), column)
        centres.append(op("Concat", across, down, across, down, axis=1))
        strides.append(op("Expand", const(float(stride)), column))
    count = sum((SIDE // stride) ** 2 for stride in STRIDES)
    signs = array("signs", [-1, -1, 1, 1])

    chances = op("Softmax", op("Reshape", reach, const([count, 4, STEPS])), axis=-1)
    distances = op("MatMul", chances, array("steps", range(STEPS)))
    reached = op("Mul", distances, op("Concat", *strides, axis=0))
    corners = op("Add", op("Concat", *centres, axis=0), op("Mul", reached, signs))
    # From pixels of the square to fractions of the picture that lies in it.
    left_top = op("Slice", "frame", const([0]), const([2]))
    extent = op("Slice", "frame", const([2]), const([4]))
    inside = op("Sub", corners, op("Concat", left_top, left_top, axis=0))
    shares = op("Div", inside, op("Concat", extent, extent, axis=0))
    boxes = op("Clip", shares, const(0.0), const(1.0))

    # Each place has its surest kind: a thing is found once, not once as a cow and once as a horse.
    kinds = op("Squeeze", op("ArgMax", scores, axis=2, keepdims=0), const([0]))
    sure = op("ReduceMax", scores, const([0, 2]), keepdims=0)
    kept = op(
        "NonMaxSuppression",
        op("Unsqueeze", boxes, const([0])),
        op("Unsqueeze", sure, const([0, 1])),
        "top",
        array("overlap", [OVERLAP]),
        "least",
    )
    rows = op("Squeeze", op("Slice", kept, const([2]), const([3]), const([1])), const([1]))
    found = op("Gather", boxes, rows, axis=0)
    corner = op("Slice", found, const([0]), const([2]), const([1]))
    far = op("Slice", found, const([2]), const([4]), const([1]))
    op(
        "Concat",
        corner,
        op("Sub", far, corner),
        op("Unsqueeze", op("Gather", sure, rows), const([1])),
        op("Unsqueeze", op("CastLike", op("Gather", kinds, rows), const(1.0)), const([1])),
        axis=1,
        to="found",
    )
    return draw.model(
        "nanodet-g",
        [
            ("image", "float", (1, 3, SIDE, SIDE)),
            ("frame", "float", (4,)),
            ("least", "float", (1,)),
            ("top", "int64", (1,)),
        ],
        [("found", "float", ("n", 6))],
    )


if __name__ == "__main__":
    with tarfile.open(sys.argv[1]) as package:
        files = [package.extractfile(f"package/models/nanodet.{kind}") for kind in ("json", "bin")]
        texts = [file.read() for file in files if file]
    onnx.save(draw(*texts), Path(__file__).with_name("graph.onnx"))
