"""How was kinds.onnx made, and what is held out? `python train.py FOLDER` trains and scores.

FOLDER holds the unpacked wheels of scikit-image 0.26.0 (retina.jpg and ihc.png, CC0), pydicom
3.0.2 and pydicom-data 1.0.0 (MIT); what is no medical picture is Debian's tuxpaint-stamps-default
2022.06.04, in colour and in grey. Of 15 pictures of radiology (one a source) those in HELD are not
trained on, and one stamp in two; retina and tissue are one picture each, of which tissue's right
half is held out and nothing of the retina's. The head is logistic, on image.embed's vector. It
needs pydicom, and writes held-out/ as well. `python train.py FOLDER --each` leaves each source out
in turn and writes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageOps

from trivium import Blob, Tier
from trivium.hosts.server.host import ServerHost
from trivium_models.others import Others

HERE = Path(__file__).parent
STAMPS = Path("/usr/share/tuxpaint/stamps")
KINDS = ("something else", "radiology", "retina", "stained tissue")
SOURCES = [
    "693_J2KR",
    "CT_small",
    "J2K_pixelrep_mismatch",
    "eCT_Supplemental",
    "explicit_VR-UN",
    "MR-SIEMENS-DICOM-WithOverlays",
    "MR2_J2KR",
    "RG1_UNCR",
    "RG3_UNCR",
    "OBXXXX1A",
    "US1_UNCR",
    "color-pl",
    "color3d_jpeg_baseline",
    "gdcm-US-ALOKA-16",
    "JPEG2000",
]
HELD = ("693_J2KR", "explicit_VR-UN", "MR2_J2KR", "RG3_UNCR", "color3d_jpeg_baseline")
"""One of each kind of device, by the lot."""

Array = np.ndarray[Any, Any]


def files(folder: Path, pattern: str) -> dict[str, Path]:
    """Return files by their names."""
    return {path.stem: path for path in sorted(folder.rglob(pattern))}


def rendered(path: Path) -> Image.Image:
    """Return a DICOM file's first picture, its middle 98 % stretched to grey or in its colours."""
    import pydicom

    pixels = pydicom.dcmread(path, force=True).pixel_array
    while pixels.ndim > 3 or (pixels.ndim == 3 and pixels.shape[2] != 3):
        pixels = pixels[0]
    if pixels.dtype != np.uint8:
        low, high = np.percentile(pixels, [1, 99])
        pixels = (255 * np.clip((pixels - low) / max(1, high - low), 0, 1)).astype(np.uint8)
    image = Image.fromarray(pixels).convert("RGB")
    image.thumbnail((400, 400))
    return image


def opaque(path: Path) -> Image.Image:
    """Return a stamp on white."""
    image = Image.open(path).convert("RGBA")
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.split()[3])
    ground.thumbnail((400, 400))
    return ground


def varied(image: Image.Image, count: int, chance: random.Random) -> list[Image.Image]:
    """Return a picture, and parts of it, turned, mirrored and lit otherwise."""
    row = [image]
    wide, high = image.size
    while len(row) < count:
        share = chance.uniform(0.75, 1)
        x, y = chance.uniform(0, 1 - share) * wide, chance.uniform(0, 1 - share) * high
        part = image.crop((int(x), int(y), int(x + share * wide), int(y + share * high)))
        part = part.rotate(chance.choice([0, 0, 90, 180, 270]), expand=True)
        part = ImageOps.mirror(part) if chance.random() < 0.5 else part
        light = chance.uniform(0.7, 1.3)
        row.append(part.point([min(255, int(value * light)) for value in range(256)] * 3))
    return row


def half(path: Path) -> bool:
    """Return whether a stamp is trained on."""
    return hashlib.sha256(f"triage{path.name}".encode()).digest()[0] < 128


def fitted(vectors: Array, kinds: Array, weights: Array) -> Array:
    """Return a logistic model's weights, the last row its bias."""
    x = np.c_[4 * vectors, np.ones(len(vectors))]
    wanted = np.eye(len(KINDS))[kinds]
    found, slow, fast = (np.zeros((x.shape[1], len(KINDS))) for _ in range(3))
    for step in range(1, 601):
        slope = x.T @ ((shares(found, vectors) - wanted) * weights[:, None]) / weights.sum()
        slope[:-1] += 1e-4 * found[:-1]
        slow, fast = 0.9 * slow + 0.1 * slope, 0.99 * fast + 0.01 * slope**2
        found -= 0.05 * slow / (1 - 0.9**step) / (np.sqrt(fast / (1 - 0.99**step)) + 1e-8)
    return found


def shares(weights: Array, vectors: Array) -> Array:
    """Return how likely each kind is."""
    powers = np.exp(np.c_[4 * vectors, np.ones(len(vectors))] @ weights)
    return powers / powers.sum(1, keepdims=True)


def graph(weights: Array) -> onnx.ModelProto:
    """Return the model as a graph of a vector."""
    numbers = {"weights": 4 * weights[:-1], "bias": weights[-1]}
    drawn = helper.make_graph(
        [
            helper.make_node("Gemm", ["vector", "weights", "bias"], ["sums"]),
            helper.make_node("Softmax", ["sums"], ["shares"], axis=1),
        ],
        "kinds",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, [1, len(weights) - 1])],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, len(KINDS)])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in numbers.items()],
    )
    made = helper.make_model(drawn, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 8
    return made


async def main(folder: Path, each: bool) -> None:
    """Train on what is not held out, and say how good it is on the rest."""
    chance = random.Random(1)  # noqa: S311 # no secret
    ask = Others(HERE.parents[1] / "zoo", Tier.CLOUD, ServerHost())

    async def vectors(images: list[Image.Image]) -> Array:
        rows = []
        for image in images:
            file = io.BytesIO()
            image.save(file, "PNG")
            blob = Blob(media="image/png", data=file.getvalue())
            rows.append(await ask("image.embed", image=blob))
        return np.array(rows)

    found = files(folder, "*.dcm")
    pictures = {name: rendered(found[name]) for name in SOURCES}
    radiology = {name: await vectors(varied(image, 8, chance)) for name, image in pictures.items()}
    data = folder / "skimage" / "data"
    retina, tissue = (Image.open(data / name).convert("RGB") for name in ("retina.jpg", "ihc.png"))
    retina.thumbnail((700, 700))
    left, right = tissue.crop((0, 0, 256, 512)), tissue.crop((256, 0, 512, 512))
    eye = await vectors(varied(retina, 16, chance))
    cells = await vectors(varied(left, 16, chance))
    stamps = list(files(STAMPS, "*.png").values())
    chosen = [path for path in stamps if half(path)]
    plain = [opaque(path) for path in chosen]
    others = await vectors(plain + [ImageOps.grayscale(image).convert("RGB") for image in plain])

    def trained(without: tuple[str, ...]) -> Array:
        kept = [rows for name, rows in radiology.items() if name not in without]
        parts = [(others, 0, 1.5), *((rows, 1, 1 / len(kept)) for rows in kept)]
        parts += [(eye, 2, 0.5), (cells, 3, 0.5)]
        weights = [np.full(len(rows), weight / len(rows)) for rows, _, weight in parts]
        kinds = [np.full(len(rows), kind) for rows, kind, _ in parts]
        every = [rows for rows, _, _ in parts]
        return fitted(*(np.concatenate(column) for column in (every, kinds, weights)))

    if each:
        for name in SOURCES:
            print(name, shares(trained((name,)), radiology[name][:1])[0, 1].round(2))
        return
    onnx.save(graph(trained(HELD)), HERE / "kinds.onnx")
    (HERE / "kinds.txt").write_text("\n".join(KINDS) + "\n")
    (HERE / "held-out").mkdir(exist_ok=True)
    rows = [(str(path), KINDS[0]) for path in [each for each in stamps if not half(each)][::4]]
    for name, image in [*((name, pictures[name]) for name in HELD), ("tissue", right)]:
        image.thumbnail((256, 256))
        image.save(HERE / "held-out" / f"{name}.png", optimize=True)
        rows.append((f"held-out/{name}.png", KINDS[3 if name == "tissue" else 1]))
    lines = [
        json.dumps({"inputs": {"image": path}, "options": {"writing": False}, "output": kind})
        for path, kind in rows
    ]
    (HERE / "held-out.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), "--each" in sys.argv))
