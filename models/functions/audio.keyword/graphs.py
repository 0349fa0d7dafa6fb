"""How is prepare.onnx drawn? Run it by `scripts/models python`; what it writes is committed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from trivium_models.draw import Drawing

RATE, HOP, SIZE, MELS = 16_000, 160, 512, 40
STEP = 6400
"""Samples from one window to the next; a window has three steps: 1.2 seconds."""

Floats = NDArray[np.float64]


def filters() -> Floats:
    """Return triangles [257, 40] on the mel scale, from 20 to 8000 Hz."""

    def mel(hertz: float | Floats) -> Floats:
        return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))

    edges = 700 * (10 ** (np.linspace(mel(20.0), mel(8000.0), MELS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(SIZE, 1 / RATE)[:, None]
    low, middle, high = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return np.clip(np.minimum(rising, falling), 0, None)


def prepare() -> onnx.ModelProto:
    """Return how samples become windows of 40 logarithmic mels at 118 times."""
    draw = Drawing({})
    op, const = draw.op, draw.const
    size = op("Shape", "samples")
    # Three steps at least, and the last one filled with silence.
    over = op("Mod", op("Sub", const([0]), size), const([STEP]))
    least = op("Max", op("Add", size, over), const([3 * STEP]))
    missing = op("Concat", const([0]), op("Sub", least, size), axis=0)
    steps = op("Reshape", op("Pad", "samples", missing), const([-1, STEP]))

    def cut(first: int, last: int) -> str:
        return op("Slice", steps, const([first]), const([last]), const([0]))

    windows = op("Concat", cut(0, -2), cut(1, -1), cut(2, 2**31), axis=1)
    # Loudness is not what tells words apart.
    power = op("ReduceMean", op("Mul", windows, windows), const([1]))
    level = op("Sqrt", op("Max", power, const(1e-6)))
    even = op("Unsqueeze", op("Mul", op("Div", windows, level), const(0.1)), const([2]))
    window = np.zeros(SIZE, np.float32)
    window[56:456] = np.hanning(401)[:400]
    for name, array in (("hann", window), ("filters", filters().astype(np.float32))):
        draw.constants[name] = numpy_helper.from_array(array, name)
    spectrum = op("STFT", even, const(HOP, np.int64), "hann", to="spectrum")
    energy = op("ReduceSum", op("Mul", spectrum, spectrum), const([3]), keepdims=0)
    mels = op("Log", op("Add", op("MatMul", energy, "filters"), const(1e-3)))
    op("Transpose", mels, perm=(0, 2, 1), to="mels")
    return draw.model("mels", [("samples", "float", ("n",))], [("mels", "float", ("w", MELS, 117))])


if __name__ == "__main__":
    onnx.save(prepare(), Path(__file__).with_name("prepare.onnx"))
