"""How much of the teacher's joint retrieval does image.embed's student keep?

    python evaluate.py SVGS MODELS SPLIT STUDENT …

SVGS, MODELS and vectors.npz are data.py's, trunk.onnx is views.py's; MODELS also holds head.onnx.
SPLIT is validation, on which a student is chosen, or test, which is looked at once. What the
teacher and the trunk make of the drawings is kept in SPLIT.npz.

A text and a picture find each other in the whole split, both ways. What is asked for counts 1 if it
comes first and less by the logarithm of its rank (nDCG, image.embed's gate); @10 is whether it is
among the first ten, and match whether a picture's own text is nearer than its hard negative. The
share that is kept is the ratio of both means, its interval a paired bootstrap's over drawings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from data import PAIRS, drawn, session
from numpy.typing import NDArray

HERE = Path(__file__).parent
DRAWS, SEED = 2000, 0

Floats = NDArray[np.float32]


def looked(svgs: Path, models: Path, rows: list[list[str]], kept: Path) -> tuple[Floats, Floats]:
    """Return the teacher's vectors of drawings, and what the trunk makes of them."""
    if not kept.is_file():
        names = ("prepare", "backbone.fp32", "head")
        prepare, backbone, head = (session(models / f"{name}.onnx", 1) for name in names)
        trunk = session(HERE / "trunk.onnx", 1)
        vectors, inside = [], []
        for row in rows:
            picture = drawn(svgs / row[0])
            assert picture is not None, row[0]
            image = {"image": prepare.run(None, {"pixels": np.asarray(picture)})[0]}
            both = dict(zip(("probabilities", "features"), backbone.run(None, image), strict=True))
            vectors.append(head.run(None, both)[0])
            inside.append(trunk.run(None, image)[0])
        np.savez(kept, vectors=np.concatenate(vectors), inside=np.concatenate(inside))
    found = np.load(kept)
    return found["vectors"], found["inside"]


def scores(pictures: Floats, texts: Floats, negatives: list[int]) -> dict[str, Floats]:
    """Return what each row scores."""
    near = pictures @ texts.T
    own = near.diagonal()
    found = {"match": (own > near[np.arange(len(near)), negatives]).astype(np.float32)}
    for name, rank in (
        ("text of a picture", (near > own[:, None]).sum(1)),
        ("picture of a text", (near > own[None]).sum(0)),
    ):
        found[name] = (1 / np.log2(2 + rank)).astype(np.float32)
        found[f"{name} @10"] = (rank < 10).astype(np.float32)
    return found


def members(split: str) -> dict[int, list[str]]:
    """Return the rows of a split, by their numbers."""
    lines = [line.split("\t") for line in PAIRS.read_text("utf-8").splitlines()]
    return {number: row for number, row in enumerate(lines) if row[1] == split}


def asked(split: str) -> tuple[Floats, list[int]]:
    """Return the texts of a split, and where each row's hard negative stands."""
    rows = members(split)
    at = {row[0]: place for place, row in enumerate(rows.values())}
    texts = np.load(HERE / "vectors.npz")["text"][list(rows)].astype(np.float32)
    return texts, [at[row[3]] for row in rows.values()]


def main(svgs: Path, models: Path, split: str, students: list[Path]) -> None:
    """Say how each student does beside the teacher."""
    rows = list(members(split).values())
    texts, negatives = asked(split)
    vectors, inside = looked(svgs, models, rows, HERE / f"{split}.npz")
    teacher = scores(vectors, texts, negatives)
    picks = np.random.default_rng(SEED).integers(0, len(rows), (DRAWS, len(rows)))
    print(f"{len(rows):,} drawings of {split}")
    for path in students:
        model = session(path, 1)
        ours = np.concatenate([model.run(None, {"inside": each[None]})[0] for each in inside])
        print(f"{path}: cosine to the teacher {(ours * vectors).sum(1).mean():.4f}")
        for name, each in scores(ours, texts, negatives).items():
            drawn_ = each[picks].mean(1) / teacher[name][picks].mean(1)
            low, high = np.quantile(drawn_, (0.025, 0.975))
            mean, theirs = each.mean(), teacher[name].mean()
            print(
                f"  {name}: {mean:.4f} of {theirs:.4f}, {mean / theirs:.3f} ({low:.3f}-{high:.3f})"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], [Path(each) for each in sys.argv[4:]])
