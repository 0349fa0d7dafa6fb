"""Does a TensorFlow.js graph do the same in ONNX? The built-in ones were held to tfjs itself."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from trivium_models.assemble import fill
from trivium_models.draw import Drawing
from trivium_models.tfjs import PICTURE, Translation, Value, weights

WEIGHTS: dict[str, np.ndarray] = {
    "kernel": np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("<f2"),
    "bias": np.array([1, -2, 3, 0.5], "<f2"),
    "half": np.array(0.5, "<f2"),
    "pads": np.array([[0, 0], [1, 1], [1, 1], [0, 0]], "<i4"),
    "turn": np.array([0, 3, 1, 2], "<i4"),
    "axis": np.array(1, "<i4"),
    "shape": np.array([1, 8, 25], "<i4"),
}


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def node(name: str, op: str, *inputs: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def model(*nodes: dict[str, Any]) -> dict[str, Any]:
    entries = []
    for name, array in WEIGHTS.items():
        half = {"quantization": {"dtype": "float16", "original_dtype": "float32"}}
        kind = "int32" if array.dtype.kind == "i" else "float32"
        entry = {"name": name, "shape": list(array.shape), "dtype": kind}
        entries.append(entry | (half if kind == "float32" else {}))
    return {
        "modelTopology": {"node": [node("x", "Placeholder"), *nodes]},
        "weightsManifest": [{"paths": ["w.bin"], "weights": entries}],
    }


DATA = b"".join(array.tobytes() for array in WEIGHTS.values())
STEPS = {"strides": {"list": {"i": ["1", "1", "1", "1"]}}, "padding": text("VALID")}


def translated(described: dict[str, Any], output: str, picture: np.ndarray) -> np.ndarray:
    """Return what the ONNX graph gives for [n, h, w, c], in TensorFlow's order."""
    draw = Drawing({})
    network = Translation(draw, described, weights(described, DATA, "w.bin"))
    network.feed("x", Value("image", PICTURE))
    last = network.get(output)
    draw.op("Identity", last, to="out")
    shape = (1, 2, *picture.shape[1:3])
    graph = draw.model("net", [("image", "float", shape)], [("out", "float", ("n", "a", "b"))])
    for tensor in graph.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            fill(tensor, lambda _: DATA)
    session = ort.InferenceSession(graph.SerializeToString())
    found: np.ndarray = session.run(None, {"image": picture.transpose(0, 3, 1, 2)})[0]
    return found


def test_the_same_comes_out() -> None:
    """A padded convolution and its bias, turned, joined to its own half and laid flat."""
    described = model(
        node("padded", "Pad", "x", "pads"),
        node("conv", "Conv2D", "padded", "kernel", **STEPS),
        node("sum", "Add", "conv", "bias"),
        node("bent", "LeakyRelu", "sum", alpha={"f": 0.1}),
        node("halved", "Mul", "half", "bent"),
        node("planes", "Transpose", "bent", "turn"),
        node("others", "Transpose", "halved", "turn"),
        node("both", "ConcatV2", "planes", "others", "axis"),
        node("flat", "Reshape", "both", "shape"),
    )
    picture = np.random.default_rng(1).normal(size=(1, 5, 5, 2)).astype(np.float32)
    kernel, bias = WEIGHTS["kernel"].astype(float), WEIGHTS["bias"].astype(float)
    padded = np.pad(picture[0], ((1, 1), (1, 1), (0, 0)))
    seen = np.array(
        [
            [np.einsum("hwi,hwio->o", padded[y : y + 3, x : x + 3], kernel) for x in range(5)]
            for y in range(5)
        ]
    )
    bent = np.where(seen + bias > 0, seen + bias, 0.1 * (seen + bias)).transpose(2, 0, 1)
    wanted = np.concatenate([bent, bent / 2]).reshape(1, 8, 25)
    assert np.allclose(translated(described, "flat", picture), wanted, atol=1e-4)


def test_what_is_not_known_is_named() -> None:
    """Rather than drawn as something else."""
    picture = np.zeros((1, 5, 5, 2), np.float32)
    with pytest.raises(ValueError, match="roll is Roll, which is not translated yet"):
        translated(model(node("roll", "Roll", "x")), "roll", picture)
    padded = model(node("padded", "Pad", "x", "pads"), node("bent", "Relu", "padded"))
    with pytest.raises(ValueError, match="padded for what is neither a convolution nor a pool"):
        translated(padded, "bent", picture)
