"""How is the graph of image.segment drawn? (Developers only; its weights stay in their package.)

`python draw.py PACKAGE.tgz` writes graph.onnx: the selfie model as the package's model.json
describes it, and behind it what counts the cells inside and outside, row by row.
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
from trivium_models.tfjs import PICTURE, Translation, Value, weights

SIDE = 256


def draw(description: bytes, data: bytes) -> onnx.ModelProto:
    """Return the graph: a prepared picture to the lengths of its runs."""
    model = json.loads(description)
    draw = Drawing({})
    op, const = draw.op, draw.const
    stored = weights(model, data, "package/models/selfie.bin")
    network = Translation(draw, model, stored)
    network.feed("input_1", Value("image", PICTURE))
    sure = op("Reshape", network.get("activation_10"), const([-1]))
    inside = op("GreaterOrEqual", sure, "least")
    draw.constants["outside"] = numpy_helper.from_array(np.array([False]), "outside")
    before = op("Concat", "outside", op("Slice", inside, const([0]), const([-1])), axis=0)
    changes = op("Squeeze", op("NonZero", op("Xor", inside, before)), const([0]))
    ends = op("Concat", changes, const([SIDE * SIDE]), axis=0)
    starts = op("Concat", const([0]), changes, axis=0)
    op("Sub", ends, starts, to="runs")
    return draw.model(
        "selfie",
        [("image", "float", (1, 3, SIDE, SIDE)), ("least", "float", (1,))],
        [("runs", "int64", ("n",))],
    )


if __name__ == "__main__":
    with tarfile.open(sys.argv[1]) as package:
        files = [package.extractfile(f"package/models/selfie.{kind}") for kind in ("json", "bin")]
        texts = [file.read() for file in files if file]
    onnx.save(draw(*texts), Path(__file__).with_name("graph.onnx"))
