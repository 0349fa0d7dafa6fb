"""How is prepare.onnx drawn? Run it by `scripts/models python`; what it writes is committed."""

from __future__ import annotations

from pathlib import Path

import onnx

from trivium_models.draw import Drawing

WINDOW, CONTEXT = 512, 64


def prepare() -> onnx.ModelProto:
    """Return how samples become rows of 576: each window with the end of the one before it."""
    draw = Drawing({})
    op, const = draw.op, draw.const
    size = op("Shape", "samples")
    # The last window is filled with silence.
    over = op("Mod", size, const([WINDOW]))
    missing = op("Mod", op("Sub", const([WINDOW]), over), const([WINDOW]))
    padded = op("Pad", "samples", op("Concat", const([0]), missing, axis=0))
    windows = op("Reshape", padded, const([-1, WINDOW]))
    ends = op("Slice", windows, const([WINDOW - CONTEXT]), const([WINDOW]), const([1]))
    before = op("Slice", ends, const([0]), const([-1]), const([0]))
    first = op("Reshape", "context", const([1, CONTEXT]))
    op("Concat", op("Concat", first, before, axis=0), windows, axis=1, to="input")
    return draw.model(
        "windows",
        [("samples", "float", ("n",)), ("context", "float", (CONTEXT,))],
        [("input", "float", ("windows", WINDOW + CONTEXT))],
    )


if __name__ == "__main__":
    onnx.save(prepare(), Path(__file__).with_name("prepare.onnx"))
