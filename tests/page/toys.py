"""Which functions do the page's tests ask? Small ones, made here as bundles."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivium.contract import JSON, File, Input, Manifest, Option, Schema, Tier, Variant, encode

SHOUT = '''
from trivium import Text, function

@function("text.shout")
async def shout(text: Text, marks: int = 1) -> str:
    """Say it louder."""
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

MEAN = '''
from trivium import Image, Models, function

@function("image.mean")
async def mean(image: Image, models: Models) -> list[float]:
    """Give a picture's mean colour."""
    return (await models.mean.run(pixels=image.pixels)).tolist()
'''


def bundle(
    name: str,
    source: str,
    schema: Schema,
    *,
    version: str = "1",
    tiers: tuple[Tier, ...] = (Tier.PAGE, Tier.EDGE),
    models: dict[str, tuple[str, ...]] | None = None,
    files: dict[str, bytes] | None = None,
    settings: dict[str, object] | None = None,
) -> dict[str, bytes]:
    """Return a bundle's files; the variant for the page alone has models."""
    content = {"function.py": source.encode(), **(files or {})}
    manifest = Manifest(
        name=name,
        version=version,
        function=schema,
        variants=tuple(
            Variant(
                tier=tier,
                model="toy",
                models=models or {},
                settings=settings or {},
                ms=(0.1, 1.0, 5.0) if tier == Tier.PAGE else (1.0, 5.0, 20.0),
            )
            for tier in tiers
        ),
        licence="Apache-2.0",
        files={
            file: File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
            for file, data in content.items()
        },
    )
    return {"manifest.json": encode(manifest, JSON), **content}


def shout(version: str = "1", source: str = SHOUT) -> dict[str, bytes]:
    schema = Schema(
        name="text.shout",
        entry="shout",
        doc="Say it louder.",
        inputs=(Input(name="text", kind="text"),),
        options=(Option(name="marks", schema={"type": "integer"}, default=1),),
    )
    return bundle("text.shout", source, schema, version=version)


def count() -> dict[str, bytes]:
    schema = Schema(
        name="text.count",
        entry="count",
        doc="Give one word after the other.",
        inputs=(Input(name="text", kind="text"),),
        streams=True,
    )
    return bundle("text.count", COUNT, schema)


def double() -> dict[str, bytes]:
    """Two graphs in a row: y = x * 2, z = y + 1."""
    schema = Schema(
        name="text.double",
        entry="double",
        doc="Double each number of a line, plus one.",
        inputs=(Input(name="text", kind="text"),),
        models="models",
    )
    files = {"twice.onnx": graph("Mul", "x", "y", 2.0), "more.onnx": graph("Add", "y", "z", 1.0)}
    row = {"line": ("twice.onnx", "more.onnx")}
    return bundle("text.double", DOUBLE, schema, tiers=(Tier.PAGE,), models=row, files=files)


def mean(shrink_above: int | None = None) -> dict[str, bytes]:
    """The mean colour of uint8 pixels of any size."""
    schema = Schema(
        name="image.mean",
        entry="mean",
        doc="Give a picture's mean colour.",
        inputs=(Input(name="image", kind="image"),),
        models="models",
    )
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["h", "w", 3])
    colour = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [3])
    nodes = [
        helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["mean"], keepdims=0),
    ]
    axes = numpy_helper.from_array(np.array([0, 1], np.int64), "axes")
    model = helper.make_model(
        helper.make_graph(nodes, "mean", [pixels], [colour], [axes]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    return bundle(
        "image.mean",
        MEAN,
        schema,
        tiers=(Tier.PAGE,),
        models={"mean": ("mean.onnx",)},
        files={"mean.onnx": model.SerializeToString()},
        settings={} if shrink_above is None else {"shrink_above": shrink_above},
    )


def graph(operator: str, source: str, target: str, value: float) -> bytes:
    """Return a graph of one node: `target = source (operator) value`."""
    node = helper.make_node(operator, [source, "value"], [target])
    model = helper.make_model(
        helper.make_graph(
            [node],
            operator,
            [helper.make_tensor_value_info(source, TensorProto.FLOAT, ["n"])],
            [helper.make_tensor_value_info(target, TensorProto.FLOAT, ["n"])],
            [numpy_helper.from_array(np.array(value, np.float32), "value")],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()
