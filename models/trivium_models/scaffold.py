"""What does a new function's folder start with?"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from trivium.contract import Tier
from trivium.errors import BundleError

from .package import write
from .starts import STARTS, Start

NAME = re.compile(r"[a-z][a-z0-9_]*")

FUNCTION = '''"""{question}"""

from __future__ import annotations

from typing import Annotated

from trivium import {imports}, function{errors}


@function("{full}")
async def {name}(
    {parameters},
) -> {result}:
    """{doc}"""
    {body}
'''

TEST = '''"""Does the function do what its sample says?"""

from __future__ import annotations

{needs}

from trivium import {tested}

HERE = Path(__file__).parent
{name}: Any = runpy.run_path(str(HERE / "function.py"))["{name}"]


def test_the_sample() -> None:
    {test}
'''

NEEDS = ("import asyncio", "import runpy", "from pathlib import Path", "from typing import Any")

RECIPE = """\
version = "1.0.0"
licence = "Apache-2.0"
{variants}
[[samples]]
{sample}
"""

MODEL = """\
version = "1.0.0"
licence = "{licence}"                     # of the weights, and what you add
lineage = ["{file}, as it was found"]  # say where it comes from
{labels}
# A picture of any size becomes what the model takes. mean and std are for values from 0 to 255.
[files."prepare.onnx"]
prepare.crop = {crop}
prepare.mean = [127.5]
prepare.std = [127.5]
prepare.layout = "{layout}"
prepare.output = "{input}"

[[variants]]
tier = "page"
model = "{name}"
models.net = ["prepare.onnx", "model.onnx"]

[[variants]]
tier = "edge"
model = "{name}"
models.net = ["prepare.onnx", "model.onnx"]

[[variants]]
tier = "cloud"
model = "{name}"
models.net = ["prepare.onnx", "model.onnx"]

[[samples]]
inputs.image = "sample.png"

# To run a smaller model in the page: make it, name it in the page's variant above, and say how
# near it must come. Without `form`, all forms are tried and the fastest that passes is taken.
#
# [files."small.onnx"]
# quantise = "model.onnx"
#
# [gate]
# metric = "{metric}"
# data = "held-out"       # a folder of pictures that training did not see
# floor = 0.98
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `trivium new` and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="trivium new",
        description="Write the folder of a new function: its code, its recipe, a sample, a test.",
    )
    parser.add_argument("name", help="such as shout, or text.shout")
    parser.add_argument(
        "--modality", choices=list(STARTS), default="text", help="what it takes (%(default)s)"
    )
    parser.add_argument("--model", type=Path, help="an ONNX model that it runs on a picture")
    parser.add_argument("--labels", type=Path, help="names of the model's scores, a line each")
    parser.add_argument(
        "--into", type=Path, default=Path(), help="where the folder goes (default: here)"
    )
    given = parser.parse_args(arguments)
    folder = new(given.name, given.modality, given.into, given.model, given.labels)
    print(  # noqa: T201
        f"{folder} is ready. Next:\n"
        f"  trivium models build {folder} --out {folder}/bundle\n"
        f"  scripts/serve --functions {folder}",
        file=sys.stderr,
    )
    return 0


def new(
    name: str, modality: str, into: Path, model: Path | None = None, labels: Path | None = None
) -> Path:
    """Write a function's folder, and return it.

    Raises:
        BundleError: the name can't be one, the folder is there, or the model can't be used.
    """
    stated, _, short = name.rpartition(".")
    if not NAME.fullmatch(short) or stated not in ("", modality):
        raise BundleError(
            f"{name!r} can't be the name of a function that takes {modality}; "
            f"write it as {modality}.NAME or NAME, in small letters, digits and underscores."
        )
    folder = into / short
    if folder.exists():
        raise BundleError(f"{folder} is there already; nothing was written.")
    if model is not None and modality != "image":
        raise BundleError("--model is for functions that take an image; use --modality image.")
    start = STARTS[modality]
    files = _plain(short, f"{modality}.{short}", start)
    if model is not None:
        files |= _with_model(short, f"{modality}.{short}", model, labels)
    folder.mkdir(parents=True)
    for file, text in files.items():
        write(folder / file, text.encode())
    start.draw(folder)
    if model is not None:
        shutil.copyfile(model, folder / "model.onnx")
    if labels is not None:
        shutil.copyfile(labels, folder / "labels.txt")
    return folder


def _plain(name: str, full: str, start: Start) -> dict[str, str]:
    errors = f"\nfrom trivium.errors import {start.fails}" if start.fails else ""
    code = FUNCTION.format(name=name, full=full, errors=errors, **start._asdict())
    tiers = [f'\n[[variants]]\ntier = "{tier}"\n{start.models}\n' for tier in Tier]
    return {
        "function.py": code,
        "recipe.toml": RECIPE.format(
            variants="".join(tiers) if start.models else "", sample=start.sample
        ),
        f"test_{name}.py": _test(name, start.needs, start.tested, start.test.format(name=name)),
    }


def _test(name: str, needs: Sequence[str], tested: str, test: str) -> str:
    """Return the test of a function, its imports in the order that is checked."""

    def place(line: str) -> tuple[bool, str]:
        return line.startswith("from"), line.split()[1]

    told = "\n".join(sorted({*NEEDS, *needs}, key=place))
    return TEST.format(name=name, needs=told, tested=tested, test=test)


def _with_model(name: str, full: str, model: Path, labels: Path | None) -> dict[str, str]:
    """Return the files of a function that runs a model on a picture."""
    take, shape = _input(model)
    layout = "nchw" if shape[1] == 3 else "nhwc"
    body = "scores = await models.net.run(pixels=image.pixels)\n    return scores{}"
    parts = {
        "question": f"What does {model.stem} say of a picture?",
        "parameters": "image: Image,\n    models: Models"
        + (",\n    top: Annotated[int, Meta(ge=1, le=100)] = 5" if labels else ""),
        "result": "list[Label]" if labels else "list[float]",
        "doc": "Name what a picture shows." if labels else "Return what the model gives.",
        "body": body.format(".top(top, labels=models.labels)" if labels else "[0].tolist()"),
        "imports": "Image, Label, Meta, Models" if labels else "Image, Models",
    }
    code = FUNCTION.format(name=name, full=full, errors="", **parts)
    test = (
        "async def run(**_: Any) -> Tensor:\n"
        '        data = array("f", [0.25, 0.75]).tobytes()\n'
        '        return Tensor(dtype="float32", shape=(1, 2), data=data)\n\n'
        '    models = SimpleNamespace(net=SimpleNamespace(run=run), labels=["cat", "dog"])\n'
        '    picture = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=bytes(3)))\n'
        f"    answer = asyncio.run({name}(picture, models))\n"
        + (
            '    assert [each.label for each in answer] == ["dog", "cat"]'
            if labels
            else "    assert answer == [0.25, 0.75]"
        )
    )
    needs = ("from array import array", "from types import SimpleNamespace")
    return {
        "function.py": code if labels else code.replace("from typing import Annotated\n\n", ""),
        "recipe.toml": MODEL.format(
            name=model.stem.replace('"', ""),
            file=model.name.replace('"', ""),
            licence="unknown",
            labels='labels = "labels.txt"\n' if labels else "",
            crop=shape[2],
            layout=layout,
            input=take,
            metric="top1" if labels else "cosine",
        ),
        f"test_{name}.py": _test(name, needs, "Image, Tensor", test),
    }


def _input(model: Path) -> tuple[str, list[int]]:
    """Return the name and shape of a model's only input, if it is one square picture."""
    try:
        graph = onnx.load(model, load_external_data=False).graph
    except Exception as error:  # whatever is wrong with the file
        raise BundleError(f"{model} can't be read as ONNX: {error}") from error
    weights = {item.name for item in graph.initializer}
    inputs: list[Any] = [each for each in graph.input if each.name not in weights]
    shapes = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in inputs]
    if (
        len(inputs) == 1
        and inputs[0].type.tensor_type.elem_type == TensorProto.FLOAT
        and len(shapes[0]) == 4
        and 3 in (shapes[0][1], shapes[0][3])
    ):
        shape = shapes[0] if shapes[0][1] == 3 else [shapes[0][0], 0, *shapes[0][1:3]]
        if shape[2] == shape[3] > 0:
            return inputs[0].name, shape
    told = ", ".join(f"{each.name} {shape}" for each, shape in zip(inputs, shapes, strict=True))
    raise BundleError(
        f"{model} takes {told}; a new function can be written for one float32 picture of shape "
        "[1, 3, side, side] or [1, side, side, 3]. Start without --model for anything else."
    )
