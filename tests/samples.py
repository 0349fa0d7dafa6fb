"""Small bundles for the servers' tests: one for each thing that a function can do."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import onnx
import tokenizers
from msgspec.structs import replace
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import models, pre_tokenizers

import toys
from trivium.contract import Input, Manifest, Option, Tier

IMAGE = Input(name="image", kind="image")
LEAST = Option(name="least", schema={"type": "integer", "minimum": 1}, default=1)

SEED = Option(name="seed", schema={"anyOf": [{"type": "integer"}, {"type": "null"}]})

FAIL = """
from trivium import Text, function

@function("text.fail")
async def fail(text: Text) -> float:
    return 1 / 0
"""

ODD = """
from trivium import Text, function

@function("text.odd")
async def odd(text: Text) -> object:
    return {"big": 1 << 70, "thing": object(), "null": None}[text]
"""

LINE = """
from array import array
from trivium import Models, Tensor, Text, function

@function("text.line")
async def line(text: Text, models: Models) -> list[float]:
    numbers = array("f", map(float, text.split()))
    x = Tensor(dtype="float32", shape=(len(numbers),), data=numbers.tobytes())
    return (await models.line.run(x=x)).tolist()
"""

WORDS = """
from trivium import Models, Text, function

@function("text.words")
async def words(text: Text, models: Models) -> list[int]:
    return models.tokens.encode(text).ids.tolist()[0]
"""

SIZE = """
from trivium import Image, function

@function("image.size")
async def size(image: Image) -> list[int]:
    return [image.height, image.width]
"""

ANY = """
from trivium import Text, function

@function("text.any")
async def anything(text: Text, what: object = None) -> object:
    return what
"""


TOTAL = """
from collections.abc import AsyncIterator
from trivium import Models, Tensor, Text, function

@function("text.total")
async def total(
    text: Text, models: Models, times: int = 1, quiet: int = 0
) -> AsyncIterator[float]:
    async with models.total.start() as steps:
        for number in range(times):
            for each in text.split():
                x = Tensor.of("float32", (1, 1), [float(each)])
                said = (await steps.run(x=x)).tolist()[0]
                if number >= quiet:
                    yield said
"""


def total_graph() -> bytes:
    """Return total = the sum of `x` and of all before it, which are its state."""
    kind = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("Concat", ["past_x", "x"], ["present_x"], axis=1),
            helper.make_node("ReduceSum", ["present_x", "axis"], ["total"], keepdims=0),
        ],
        "toy",
        [kind("x", TensorProto.FLOAT, [1, "t"]), kind("past_x", TensorProto.FLOAT, ["b", "past"])],
        [kind("total", TensorProto.FLOAT, [1]), kind("present_x", TensorProto.FLOAT, ["b", "all"])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def graph(given: str, result: str, *nodes: tuple[str, str, float, str]) -> bytes:
    """Return a graph over float32 [n]; a node is (operator, input, constant, output)."""
    constants = [
        helper.make_tensor(f"{out}_constant", TensorProto.FLOAT, [1], [value])
        for _, _, value, out in nodes
    ]
    made = helper.make_graph(
        [helper.make_node(op, [x, f"{out}_constant"], [out]) for op, x, _, out in nodes],
        "toy",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n"])],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def first_graph() -> bytes:
    """Return y = 2x + 1, in two nodes."""
    return graph("x", "y", ("Mul", "x", 2.0, "doubled"), ("Add", "doubled", 1.0, "y"))


def second_graph() -> bytes:
    """Return z = 10y, in one node."""
    return graph("y", "z", ("Mul", "y", 10.0, "z"))


def tokenizer() -> bytes:
    """Return a `tokenizer.json` that knows three words."""
    made = tokenizers.Tokenizer(
        models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made.to_str().encode()


def png(width: int, height: int) -> bytes:
    """Return a white PNG."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "PNG")
    return file.getvalue()


def scanned(count: int, width: int = 64, height: int = 64) -> bytes:
    """Return a JPEG that goes over its pixels `count` times, notes that look so aside."""
    file = io.BytesIO()
    Image.new("L", (width, height), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    begins = [place for place in range(len(data)) if data.startswith(b"\xff\xda", place)]
    notes = b"\xff\xe5" + struct.pack(">H", 2002) + b"\xff\xda" * 1000
    more = data[begins[-1] : -2] * (count - len(begins))
    return data[:2] + notes + data[2:-2] + more + data[-2:]


def screenless(width: int, height: int) -> bytes:
    """Return a GIF whose screen has one pixel, and whose frame has more."""
    file = io.BytesIO()
    Image.new("P", (width, height)).save(file, "GIF")
    data = file.getvalue()
    return data[:6] + struct.pack("<HH", 1, 1) + data[10:]


def claims(width: int, height: int) -> bytes:
    """Return the start of a PNG that claims a size and holds no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
    return start + struct.pack(">I", zlib.crc32(head)) + struct.pack(">I", 1 << 20) + b"IDAT"


def total() -> Manifest:
    """Return what describes a function whose model has state."""
    times = Option(name="times", schema={"type": "integer"}, default=1)
    quiet = Option(name="quiet", schema={"type": "integer"}, default=0)
    made = toys.manifest(
        "text.total",
        "total",
        streams=True,
        models={"total": ("total.onnx",)},
        options=(times, quiet),
    )
    state = {"past_*": "present_*"}
    return toys.having(made, variants=tuple(replace(each, state=state) for each in made.variants))


def zoo(folder: Path) -> Path:
    """Fill `folder` with one small bundle for each thing that a function can do."""
    line = ("first.onnx", "second.onnx")
    toys.bundle(folder, toys.COUNT, toys.manifest(options=(LEAST,)))
    toys.bundle(folder, *toys.SPELLED)
    toys.bundle(folder, TOTAL, total(), **{"total.onnx": total_graph()})
    toys.bundle(folder, FAIL, toys.manifest("text.fail", "fail"))
    toys.bundle(folder, ODD, toys.manifest("text.odd", "odd"))
    toys.bundle(
        folder,
        LINE,
        toys.manifest("text.line", "line", models={"line": line}),
        **dict(zip(line, (first_graph(), second_graph()), strict=True)),
    )
    toys.bundle(
        folder,
        SIZE,
        toys.manifest("image.size", "size", inputs=(IMAGE,)),
    )
    anything = (Option(name="what", schema={}),)
    toys.bundle(
        folder,
        ANY,
        toys.manifest("text.any", "anything", tiers=[Tier.CLOUD], options=anything),
    )
    words = toys.manifest("text.words", "words", wants_models=True, settings={"max_tokens": 4})
    toys.bundle(
        folder,
        WORDS,
        toys.having(words, tokenizer="tokenizer.json"),
        **{"tokenizer.json": tokenizer()},
    )
    return folder
