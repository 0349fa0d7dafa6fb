"""How were catalogue.onnx, catalogue.txt and held-out.jsonl made? `python catalogue.py`.

Things one could sell, photographed and drawn, of Debian's tuxpaint-stamps-default 2022.06.04:
each has a line that names it, and the folder it lies in is its category. Half of each category,
by a hash of the line, is the sample catalogue: image.embed's vectors in full, as a graph that
compares them with another. The other half is what is held out. The stamps are under the GPL-2.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trivium import Blob, Tier
from trivium.hosts.server.host import ServerHost
from trivium_models.others import Others

HERE = Path(__file__).parent
STAMPS = Path("/usr/share/tuxpaint/stamps")
CATEGORIES = {
    "clothes": "clothes",
    "food/fruit": "fruit and nuts",
    "food/nuts": "fruit and nuts",
    "food/vegetables": "vegetables",
    "household": "household",
    "household/dishes": "dishes",
    "household/tools": "tools",
    "household/arttools": "tools",
    "hobbies": "sports and hobbies",
    "sports": "sports and hobbies",
    "plants/flowers": "flowers",
    "vehicles": "vehicles",
    "seasonal/christmas": "Christmas",
}


def things() -> list[tuple[str, str, Path]]:
    """Return name, category and picture of each, every name once."""
    found: dict[str, tuple[str, str, Path]] = {}
    for path in sorted(STAMPS.rglob("*.png")):
        said, folder = path.with_suffix(".txt"), path.parent.relative_to(STAMPS)
        within = [each for each in (folder, *folder.parents) if str(each) in CATEGORIES]
        if not said.is_file() or not within:
            continue
        line = said.read_text("utf-8", "replace").splitlines()[0]
        line = re.sub(r"\(.*?\)", "", line).split(".")[0].strip()
        name = re.sub(r"^(an?|the|some) ", "", line, flags=re.IGNORECASE)
        if 0 < len(name.split()) <= 5 and "!" not in name:
            found.setdefault(name.lower(), (name, CATEGORIES[str(within[0])], path))
    return list(found.values())


def kept(name: str) -> bool:
    """Return whether a thing is of the sample catalogue."""
    return hashlib.sha256(f"product{name.lower()}".encode()).digest()[0] < 128


async def vectors(paths: list[Path]) -> list[list[float]]:
    """Return what image.embed gives in the cloud."""
    ask = Others(HERE.parents[1] / "zoo", Tier.CLOUD, ServerHost())
    blobs = [Blob(media="image/png", data=path.read_bytes()) for path in paths]
    return [await ask("image.embed", image=blob) for blob in blobs]


def compare(matrix: np.ndarray) -> onnx.ModelProto:
    """Return a graph that gives each thing's cosine with a vector."""
    weights = numpy_helper.from_array(matrix.T.astype(np.float16), "things")
    nodes = [
        helper.make_node("Cast", ["things"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["vector", "wide"], ["near"]),
    ]
    graph = helper.make_graph(
        nodes,
        "catalogue",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, matrix.shape[1]])],
        [helper.make_tensor_value_info("near", TensorProto.FLOAT, [1, len(matrix)])],
        [weights],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    onnx.checker.check_model(made)
    return made


def main() -> None:
    """Write the catalogue, and a row for each thing that is not in it."""
    every = things()
    mine = [each for each in every if kept(each[0])]
    matrix = np.array(asyncio.run(vectors([path for *_, path in mine])), np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    onnx.save(compare(matrix), HERE / "catalogue.onnx")
    lines = [f"{name}\t{category}" for name, category, _ in mine]
    (HERE / "catalogue.txt").write_text("\n".join(lines) + "\n")
    rows = [
        json.dumps({"inputs": {"image": str(path)}, "output": category})
        for name, category, path in every
        if not kept(name)
    ]
    (HERE / "held-out.jsonl").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
