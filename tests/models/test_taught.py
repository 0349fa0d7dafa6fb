"""Does one command take a torch module to a bundle: exported, pruned, distilled, measured?"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trivium.contract import JSON, Manifest, decode
from trivium_models.command import main

pytest.importorskip("torch", reason="torch modules need the kit's extra, trivium[models]")
pytest.importorskip("torch_pruning", reason="pruning needs the kit's extra, trivium[models]")

CODE = '''
from __future__ import annotations

from trivium import Image, Models, function


@function("image.scores")
async def scores(image: Image, models: Models) -> list[float]:
    """Score a picture."""
    return (await models.net.run(image_pixels=image.pixels))[0].tolist()
'''

NETWORK = """
import numpy as np
import torch
from PIL import Image
from torch import nn

axes, outputs = {"image": {0: "b"}}, ("scores",)


def full(read):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), Pool(), nn.Linear(64, 3)
    )


class Pool(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = full(None)

    def forward(self, image):
        return self.net(image)


def build(read):
    return Named()


def inputs(rows, read):
    pictures = [np.asarray(Image.open(row).convert("RGB"), np.float32) / 255 for row in rows]
    stack = np.stack(pictures or [np.zeros((8, 8, 3), np.float32)])
    return {"image": torch.tensor(stack).permute(0, 3, 1, 2).contiguous()}
"""

RECIPE = """
[files."prepare.onnx"]
prepare = { crop = 8, std = [255], input = "image_pixels" }

[files."full.onnx"]
export = "network.py:build"

[files."student.onnx"]
export = "network.py:build"
prune = { share = 0.3 }

[files."student.onnx".distil]
teacher = "full.onnx"
data = "rows"
loss = "mse"
steps = 20
batch = 16
rate = 0.001

[gate]
metric = "cosine"
data = "held"
floor = 0.9

[[variants]]
tier = "edge"
model = "student"
models.net = ["prepare.onnx", "student.onnx"]

[[variants]]
tier = "cloud"
model = "full"
models.net = ["prepare.onnx", "full.onnx"]
"""


def test_a_torch_module_becomes_a_bundle(
    folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    place = folder(CODE, RECIPE, network__py=NETWORK.encode())
    generator = np.random.default_rng(0)
    for name, count in (("rows", 60), ("held", 10)):
        (place / name).mkdir()
        for number in range(count):
            noise = generator.integers(0, 255, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(place / name / f"{number}.png")
    command = ["build", str(place), "--targets", "cpu", "--out", str(tmp_path / "out")]
    command += ["--cache", str(tmp_path / "cache")]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "channels" in said
    assert "validation loss" in said
    bundle = tmp_path / "out" / "image.scores"
    manifest = decode((bundle / "manifest.json").read_bytes(), Manifest, JSON)
    assert manifest.variants[0].quality > 0.9
    assert manifest.parents["student.onnx"] == ("full.onnx",)
    sizes = {name: file.size for name, file in manifest.files.items()}
    assert sizes["student.onnx"] < 0.65 * sizes["full.onnx"]
    assert main(command) == 0
    assert "export" not in capsys.readouterr().err
    shutil.rmtree(tmp_path / "out")
    assert main(command) == 0
    assert decode((bundle / "manifest.json").read_bytes(), Manifest, JSON) == manifest
