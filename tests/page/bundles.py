"""Which functions do the page's tests ask? Small ones, made here as bundles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from msgspec import UNSET
from onnx import TensorProto, helper, numpy_helper

import samples
from trivium.contract import JSON, File, Input, Manifest, Option, Schema, Tier, Variant, encode

SHOUT = '''
import asyncio
from trivium import Text, function

@function("text.shout")
async def shout(text: Text, marks: int = 1) -> str:
    """Say it louder."""
    if text == "slow":
        await asyncio.sleep(60)
    if text == "fail":
        raise ValueError("asked to fail")
    return text.upper() + "!" * marks
'''

COUNT = '''
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.count")
async def count(text: Text) -> AsyncIterator[str]:
    """Give one word after the other."""
    for word in text.split():
        yield word
'''

DOUBLE = '''
import array
from trivium import Models, Tensor, Text, function

@function("text.double")
async def double(text: Text, models: Models) -> list[float]:
    """Double each number of a line, plus one."""
    values = array.array("f", map(float, text.split()))
    x = Tensor(dtype="float32", shape=(len(values),), data=memoryview(values))
    return (await models.line.run(x=x)).tolist()
'''

SAME = '''
from trivium import Image, Models, Tensor, function

@function("image.same")
async def same(image: Image, models: Models) -> Tensor:
    """Give a picture's pixels."""
    return await models.same.run(pixels=image.pixels)
'''

HEARD = '''
from trivium import Audio, Models, Tensor, function

@function("audio.heard")
async def heard(audio: Audio, models: Models, start: float = 0.0, end: float = 3600.0) -> Tensor:
    """Give a sound's samples between two times."""
    return await models.same.run(samples=audio.part(start, end).samples)
'''

SEEN = '''
from trivium import Asker, Models, Video, function

@function("video.seen")
async def seen(video: Video, models: Models, ask: Asker, most: int = 5) -> dict[str, object]:
    """Give a video's frames and its sound."""
    frames = []
    async for frame in video.frames(most):
        again = await ask("image.same", image=frame)
        frames.append([frame.at, await models.same.run(pixels=frame.pixels), again])
    sound = await video.sound()
    heard = await ask("audio.heard", audio=sound) if sound else None
    return {"seconds": video.seconds, "frames": frames, "sound": heard}
'''

TOKENS = '''
from trivium import Models, Text, function

@function("text.tokens")
async def tokens(text: Text, models: Models) -> list[list[int]]:
    """Give the tokens of each line."""
    lines = []
    for line in text.split("\\n"):
        ids = await models.same.run(ids=models.tokens.encode(line).ids)
        lines.append(ids[0].tolist())
    return lines
'''

SAID = '''
from trivium import Models, Text, function

@function("text.said")
async def said(text: Text, models: Models) -> list[list[object]]:
    """Give each line's tokens, what they say at once, and what they say one by one."""
    lines = []
    for line in text.split("\\n"):
        ids = (await models.same.run(ids=models.tokens.encode(line).ids))[0].tolist()
        stream = models.tokens.stream()
        pieces = [stream.add(each) for each in ids] + [stream.end()]
        lines.append([ids, models.tokens.decode(ids), pieces])
    return lines
'''

LOOPS = '''
from array import array
from trivium import Tensor, Text, function
from trivium.loops import compiled

@function("text.loops")
async def loops(text: Text) -> dict[str, object]:
    """Say what a line's numbers come to, and in which language."""
    values = array("f", map(float, text.split()))
    x = Tensor(dtype="float32", shape=(len(values), 1), data=memoryview(values))
    rows = {"top": x.topk(2), "mean": x.mean().tolist(), "soft": x.softmax().tolist()}
    return {"compiled": compiled is not None, **rows}
'''


class Bundle(NamedTuple):
    """A bundle's name and files."""

    name: str
    files: dict[str, bytes]


def bundle(
    source: str,
    schema: Schema,
    *,
    version: str = "1",
    tiers: tuple[Tier, ...] = (Tier.PAGE, Tier.EDGE),
    models: dict[str, tuple[str, ...]] | None = None,
    files: dict[str, bytes] | None = None,
    settings: dict[str, Any] | None = None,
    state: dict[str, str] | None = None,
    tokenizer: str | None = None,
    optional: bool = False,
) -> Bundle:
    """Return a function's bundle with the same variant for each tier."""
    content = {"function.py": source.encode(), **(files or {})}
    manifest = Manifest(
        name=schema.name,
        version=version,
        function=schema,
        variants=tuple(
            Variant(
                tier=tier,
                model="toy",
                models=models or {},
                state=state or {},
                settings=settings or {},
                ms=(0.1, 1.0, 5.0) if tier == Tier.PAGE else (1.0, 5.0, 20.0),
            )
            for tier in tiers
        ),
        licence="Apache-2.0",
        tokenizer=tokenizer,
        optional=optional or UNSET,
        files={
            file: File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for file, data in content.items()
        },
    )
    return Bundle(schema.name, {"manifest.json": encode(manifest, JSON), **content})


def text(entry: str, doc: str, *options: Option, **rest: Any) -> Schema:
    """Return the schema of a function of one text."""
    inputs = (Input(name="text", kind="text"),)
    return Schema(
        name=f"text.{entry}", entry=entry, doc=doc, inputs=inputs, options=options, **rest
    )


def image(entry: str, doc: str) -> Schema:
    """Return the schema of a function of one image with models."""
    inputs = (Input(name="image", kind="image"),)
    return Schema(name=f"image.{entry}", entry=entry, doc=doc, inputs=inputs, models="models")


def audio(entry: str, doc: str, *options: Option) -> Schema:
    """Return the schema of a function of one sound with models."""
    inputs = (Input(name="audio", kind="audio"),)
    name = f"audio.{entry}"
    return Schema(name=name, entry=entry, doc=doc, inputs=inputs, options=options, models="models")


FUNCTIONS = Path(__file__).parents[2] / "models/functions"


def toys() -> list[Bundle]:
    """Return those that most tests ask."""
    return [shout(), count(), double()]


def large() -> Bundle:
    """Return a function that is loaded on request."""
    return bundle(SHOUT, text("shout", "Say it louder."), optional=True)


def shout(version: str = "1", source: str = SHOUT) -> Bundle:
    """Return a function without models."""
    marks = Option(name="marks", schema={"type": "integer"}, default=1)
    return bundle(source, text("shout", "Say it louder.", marks), version=version)


def loops() -> Bundle:
    """Return a function that computes with a tensor."""
    return bundle(LOOPS, text("loops", "Say what a line's numbers come to."))


def count() -> Bundle:
    """Return a function that streams."""
    return bundle(COUNT, text("count", "Give one word after the other.", streams=True))


def double() -> Bundle:
    """Return a function of two graphs in a row: y = x * 2, z = y + 1."""
    schema = text("double", "Double each number of a line, plus one.", models="models")
    files = {"twice.onnx": graph("Mul", "x", "y", 2.0), "more.onnx": graph("Add", "y", "z", 1.0)}
    row: dict[str, tuple[str, ...]] = {"line": ("twice.onnx", "more.onnx")}
    return bundle(DOUBLE, schema, tiers=(Tier.PAGE,), models=row, files=files)


def total() -> Bundle:
    """Return a function whose model has state."""
    times = Option(name="times", schema={"type": "integer"}, default=1)
    return bundle(
        samples.TOTAL,
        text("total", "Add up.", times, models="models", streams=True),
        models={"total": ("total.onnx",)},
        files={"total.onnx": samples.total_graph()},
        state={"past_*": "present_*"},
        tiers=(Tier.PAGE,),
    )


def said(tokenizer: bytes) -> Bundle:
    """Return a function that gives the tokens of each line, and what they say."""
    return tokens(tokenizer, "said", SAID)


def tokens(tokenizer: bytes, name: str = "tokens", source: str = TOKENS) -> Bundle:
    """Return a function that gives the tokens of each line."""
    kind = helper.make_tensor_value_info
    same = model(
        [helper.make_node("Identity", ["ids"], ["same"])],
        [kind("ids", TensorProto.INT64, [1, "t"])],
        [kind("same", TensorProto.INT64, [1, "t"])],
    )
    return bundle(
        source,
        text(name, "Give the tokens of each line.", models="models"),
        tiers=(Tier.PAGE,),
        models={"same": ("same.onnx",)},
        files={"same.onnx": same, "tokenizer.json": tokenizer},
        tokenizer="tokenizer.json",
    )


def same(shrink_above: int | None = None) -> Bundle:
    """Return a function that gives the very pixels."""
    kind = helper.make_tensor_value_info
    graph = model(
        [helper.make_node("Identity", ["pixels"], ["same"])],
        [kind("pixels", TensorProto.UINT8, ["h", "w", 3])],
        [kind("same", TensorProto.UINT8, ["h", "w", 3])],
    )
    return bundle(
        SAME,
        image("same", "Give a picture's pixels."),
        tiers=(Tier.PAGE,),
        models={"same": ("same.onnx",)},
        files={"same.onnx": graph},
        settings={} if shrink_above is None else {"shrink_above": shrink_above},
    )


def heard() -> Bundle:
    """Return a function that gives the very samples."""
    kind = helper.make_tensor_value_info
    graph = model(
        [helper.make_node("Identity", ["samples"], ["same"])],
        [kind("samples", TensorProto.FLOAT, ["n"])],
        [kind("same", TensorProto.FLOAT, ["n"])],
    )
    number = {"type": "number"}
    return bundle(
        HEARD,
        audio(
            "heard",
            "Give a sound's samples between two times.",
            Option(name="start", schema=number, default=0.0),
            Option(name="end", schema=number, default=3600.0),
        ),
        tiers=(Tier.PAGE,),
        models={"same": ("same.onnx",)},
        files={"same.onnx": graph},
    )


def seen(shrink_above: int | None = None) -> Bundle:
    """Return a function that gives the very frames, and the sound as another has it."""
    made = same(shrink_above)
    most = Option(name="most", schema={"type": "integer"}, default=5)
    return bundle(
        SEEN,
        Schema(
            name="video.seen",
            entry="seen",
            doc="Give a video's frames and its sound.",
            inputs=(Input(name="video", kind="video"),),
            options=(most,),
            models="models",
            asks="ask",
        ),
        tiers=(Tier.PAGE,),
        models={"same": ("same.onnx",)},
        files={"same.onnx": made.files["same.onnx"]},
        settings={} if shrink_above is None else {"shrink_above": shrink_above},
    )


def graph(operator: str, source: str, target: str, value: float) -> bytes:
    """Return a graph of one node: `target = source (operator) value`."""
    kind = helper.make_tensor_value_info
    return model(
        [helper.make_node(operator, [source, "value"], [target])],
        [kind(source, TensorProto.FLOAT, ["n"])],
        [kind(target, TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array(value, np.float32), "value")],
    )


def model(
    nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], fixed: Sequence[Any] = ()
) -> bytes:
    """Return a graph as ONNX."""
    made = helper.make_model(
        helper.make_graph(nodes, "toy", inputs, outputs, fixed),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data
