"""What is a new function at first, for each kind of input?"""

from __future__ import annotations

import math
import wave
from array import array
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from .draw import IR_VERSION, OPSET


class Start(NamedTuple):
    """The parts of a new function's files; `draw` writes what else lies in its folder."""

    question: str
    imports: str
    parameters: str
    result: str
    doc: str
    body: str
    sample: str
    test: str
    tested: str
    """The names of `trivium` that the test needs."""
    needs: tuple[str, ...] = ()
    """The test's other imports."""
    models: str = ""
    """What each variant runs, as its recipe says it; without it the function is plain Python."""
    fails: str = ""
    """The errors that it raises."""
    draw: Callable[[Path], None] = lambda _: None


def picture(folder: Path) -> None:
    """Draw a small picture."""
    from PIL import Image

    drawn = Image.linear_gradient("L").resize((64, 48))
    flipped = drawn.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    Image.merge("RGB", (drawn, flipped, drawn.rotate(180))).save(folder / "sample.png")


def sound(folder: Path) -> None:
    """Play a tone for a second, and draw the graph that says how loud it is."""
    tone = (round(16_000 * math.sin(math.tau * 440 * n / 16_000)) for n in range(16_000))
    with wave.open(str(folder / "sample.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(array("h", tone).tobytes())
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["samples", "samples"], ["power"]),
            helper.make_node("ReduceMean", ["power"], ["mean"], keepdims=0),
            helper.make_node("Sqrt", ["mean"], ["level"]),
        ],
        "level",
        [helper.make_tensor_value_info("samples", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("level", TensorProto.FLOAT, [])],
    )
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION),
        folder / "level.onnx",
    )


def film(folder: Path) -> None:
    """Film four colours, half a second each."""
    import av
    from PIL import Image

    with av.open(str(folder / "sample.webm"), "w") as file:
        stream: Any = file.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            colour = ("red", "green", "blue", "white")[number // 5]
            still = np.asarray(Image.new("RGB", (96, 64), colour))
            frame = av.VideoFrame.from_ndarray(still, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def pages(folder: Path) -> None:
    """Print a wide and a high page."""
    from PIL import Image

    wide, high = (Image.new("RGB", size, "white") for size in ((200, 100), (100, 200)))
    wide.save(folder / "sample.pdf", save_all=True, append_images=[high], resolution=72)


STARTS = {
    "text": Start(
        question="How long is a text?",
        imports="Meta, Text",
        parameters="text: Text,\n    least: Annotated[int, Meta(ge=1)] = 1",
        result="dict[str, int]",
        doc="Count the words of a text that have `least` letters, and its characters.",
        body="words = [word for word in text.split() if len(word) >= least]\n"
        '    return {"words": len(words), "characters": len(text)}',
        sample='inputs.text = "one two three"\noutput = { words = 3, characters = 13 }',
        tested="Text",
        test='answer = asyncio.run({name}(Text("one two three")))\n'
        '    assert answer == {{"words": 3, "characters": 13}}',
    ),
    "image": Start(
        question="What shape has a picture?",
        imports="Image, Meta",
        parameters="image: Image,\n    digits: Annotated[int, Meta(ge=0, le=6)] = 2",
        result="dict[str, float]",
        doc="Measure a picture.",
        body="ratio = round(image.width / image.height, digits)\n"
        '    return {"width": image.width, "height": image.height, "ratio": ratio}',
        sample='inputs.image = "sample.png"\noutput = { width = 64, height = 48, ratio = 1.33 }',
        tested="Image, Tensor",
        test='picture = Image(Tensor(dtype="uint8", shape=(48, 64, 3), data=bytes(9216)))\n'
        "    answer = asyncio.run({name}(picture))\n"
        '    assert answer == {{"width": 64, "height": 48, "ratio": 1.33}}',
        draw=picture,
    ),
    "audio": Start(
        question="How long is a sound, and how loud?",
        imports="Audio, Meta, Models",
        parameters="audio: Audio,\n    models: Models,\n"
        "    digits: Annotated[int, Meta(ge=0, le=6)] = 2",
        result="dict[str, float]",
        doc="Return the seconds of a sound, and its level from 0 to 1.",
        body="# In a page the samples stay beside the models, so that a graph reads them.\n"
        "    level = await models.level.run(samples=audio.samples)\n"
        '    return {"seconds": round(audio.seconds, digits), "level": '
        "round(level.tolist(), digits)}",
        sample='inputs.audio = "sample.wav"\noutput = { seconds = 1.0, level = 0.35 }',
        tested="Audio, Tensor",
        needs=("from types import SimpleNamespace",),
        test="async def run(samples: Tensor) -> Tensor:\n"
        "        assert len(samples) == 8000\n"
        '        return Tensor.of("float32", (), [0.25])\n\n'
        "    models = SimpleNamespace(level=SimpleNamespace(run=run))\n"
        '    heard = Audio(Tensor.of("float32", (8000,), [0.25] * 8000))\n'
        "    answer = asyncio.run({name}(heard, models))\n"
        '    assert answer == {{"seconds": 0.5, "level": 0.25}}',
        models='model = "level"\nmodels.level = ["level.onnx"]',
        draw=sound,
    ),
    "video": Start(
        question="What pictures has a video?",
        imports="Meta, Video",
        parameters="video: Video,\n    most: Annotated[int, Meta(ge=1, le=64)] = 4",
        result="list[dict[str, float]]",
        doc="Look at some pictures of a video, evenly apart: when each is shown, and its size.",
        body="return [\n"
        '        {"at": round(frame.at, 2), "width": frame.width, "height": frame.height}\n'
        "        async for frame in video.frames(most)\n"
        "    ]",
        sample='inputs.video = "sample.webm"\n'
        "output = [\n"
        + "".join(f"    {{ at = {at}, width = 96, height = 64 }},\n" for at in (0.2, 0.7, 1.2, 1.7))
        + "]",
        tested="Audio, Frame, Tensor, Video",
        needs=("from collections.abc import AsyncIterator, Sequence",),
        test="class Reel:\n"
        "        seconds = 2.0\n\n"
        "        async def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:\n"
        "            for at in times:\n"
        '                yield Frame(Tensor(dtype="uint8", shape=(1, 2, 3), data=bytes(6)), at)\n\n'
        "        async def sound(self) -> Audio | None:\n"
        "            return None\n\n"
        "    answer = asyncio.run({name}(Video(Reel()), 2))\n"
        '    assert answer == [{{"at": at, "width": 2, "height": 1}} for at in (0.5, 1.5)]',
        draw=film,
    ),
    "document": Start(
        question="What shapes have a document's pages?",
        imports="Document, Meta",
        parameters="document: Document,\n    most: Annotated[int, Meta(ge=1, le=20)] = 2",
        result="list[float]",
        doc="Return the width over the height of a document's first pages.",
        body="count = min(most, await document.count())\n"
        "    pages = [await document.page(number) for number in range(1, count + 1)]\n"
        "    return [round(page.width / page.height, 1) for page in pages]",
        sample='inputs.document = "sample.pdf"\noutput = [2.0, 0.5]',
        tested="Blob, Document, Image, Tensor",
        test="class Pages:\n"
        "        async def count(self) -> int:\n"
        "            return 3\n\n"
        "        async def draw(self, number: int) -> Image:\n"
        '            return Image(Tensor(dtype="uint8", shape=(1, number, 3), data=bytes(9)))\n\n'
        '    nothing = Tensor.of("uint8", (0,), [])\n'
        '    blob = Blob(media="application/pdf", data=b"")\n'
        "    answer = asyncio.run({name}(Document(blob, nothing, nothing, Pages())))\n"
        "    assert answer == [1.0, 2.0]",
        draw=pages,
    ),
    "table": Start(
        question="What are the means of a table's columns?",
        imports="Meta, Table",
        parameters="table: Table,\n    digits: Annotated[int, Meta(ge=0, le=6)] = 2",
        result="dict[str, float]",
        doc="Return the mean of each column that has numbers.",
        body="means = {}\n"
        "    for name, cells in table.columns.items():\n"
        "        numbers = [cell for cell in cells if isinstance(cell, float)]\n"
        "        if numbers:\n"
        "            means[name] = round(sum(numbers) / len(numbers), digits)\n"
        "    return means",
        sample='inputs.table = "kind,size,price\\na,1,2.5\\nb,3,\\n"\n'
        "output = { size = 2.0, price = 2.5 }",
        tested="Table",
        test='given = Table({{"kind": ["a", "b"], "size": [1.0, 3.0], "price": [2.5, None]}})\n'
        "    answer = asyncio.run({name}(given))\n"
        '    assert answer == {{"size": 2.0, "price": 2.5}}',
    ),
    "series": Start(
        question="How would a series go on if it went on as before?",
        imports="Forecast, Meta, Series",
        parameters="series: Series,\n    steps: Annotated[int, Meta(ge=1, le=100)] = 2",
        result="Forecast",
        doc="Go on by the mean step from the first to the last number.",
        body="known = [value for value in series.values.values if value == value]  # no NaN\n"
        "    if not known:\n"
        '        raise BadInput("the series has no number")\n'
        "    change = (known[-1] - known[0]) / max(1, len(known) - 1)\n"
        "    ahead = [[known[-1] + change * step] for step in range(1, steps + 1)]\n"
        "    return Forecast(quantiles=[0.5], values=ahead, times=series.ahead(steps))",
        sample='inputs.series = "2026-01,1\\n2026-02,2\\n2026-03,4\\n2026-04,7\\n"\n'
        "output = { quantiles = [0.5], values = [[9.0], [11.0]] }",
        tested="Forecast, Series, Tensor",
        test='given = Series(Tensor.of("float64", (4,), [1, 2, 4, 7]))\n'
        "    answer = asyncio.run({name}(given, 2))\n"
        "    assert answer == Forecast(quantiles=[0.5], values=[[9.0], [11.0]])",
        fails="BadInput",
    ),
}
"""By the name of the kind, as manifests have it."""
