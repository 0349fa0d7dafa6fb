"""How often does a model's first label differ from the full model's, on photos it never saw?

    python evaluate.py PREPARE.onnx FULL.onnx OTHER.onnx … FOLDER

Each photo of the folder is seen five times: whole, and as its four corners of 80 %. There are no
true labels: the full model's answer counts as right. Intervals are by bootstrap over photos.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float64]

SURE, DRAWS = 0.3, 2000


def session(model: Path) -> ort.InferenceSession:
    """Return a session on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def views(path: Path) -> list[NDArray[np.uint8]]:
    """Return a photo's pixels, whole and as four corners."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width = (side // 5 for side in pixels.shape[:2])
    return [
        pixels,
        pixels[height:, width:],
        pixels[height:, :-width],
        pixels[:-height, width:],
        pixels[:-height, :-width],
    ]


def main(prepare: Path, models: list[Path], folder: Path) -> None:
    """Print each model's agreement with the first."""
    before = session(prepare)
    paths = sorted(folder.iterdir())
    feeds = [
        before.run(None, {"pixels": np.ascontiguousarray(view)})[0]
        for path in paths
        for view in views(path)
    ]
    picks = np.random.default_rng(0).integers(0, len(paths), (DRAWS, len(paths)))
    full: Floats | None = None
    for model in models:
        graph = session(model)
        (name,) = (node.name for node in graph.get_inputs())
        scores = np.concatenate([graph.run(None, {name: feed})[0] for feed in feeds])
        if full is None:
            full = scores
            print(
                f"{len(paths)} photos, {len(feeds)} views, {(full.max(1) > SURE).mean():.3f} sure"
            )
            continue
        same = (scores.argmax(1) == full.argmax(1)).reshape(len(paths), -1)
        sure = (full.max(1) > SURE).reshape(same.shape)
        low, high = np.quantile(same[picks].mean((1, 2)), (0.025, 0.975))
        certain = (same & sure).sum(1)[picks].sum(1) / sure.sum(1)[picks].sum(1)
        lowest, highest = np.quantile(certain, (0.025, 0.975))
        five = np.argsort(-scores)[:, :5] == full.argmax(1)[:, None]
        print(
            f"{model.name}: same first label {same.mean():.4f} ({low:.4f} to {high:.4f}); where "
            f"the full model is over {SURE} sure {same[sure].mean():.4f} ({lowest:.4f} to "
            f"{highest:.4f}); its label within five {five.any(1).mean():.4f}"
        )


if __name__ == "__main__":
    first, *others, last = (Path(argument) for argument in sys.argv[1:])
    main(first, others, last)
