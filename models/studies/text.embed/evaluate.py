"""Compare models of sentences with the full one, on the synsets of test.txt.

    python evaluate.py FULL.onnx OTHER.onnx … [wordsim353.tsv] [ELSEWHERE.txt]

Rows are shuffled by seed 0; 8,000 train a logistic probe for the 45 semantic classes, 4,000 others
are scored: the probe's hits, and how often a word finds its gloss among the 4,000 within ten.
Relative losses are paired: the interval is over rows drawn again, the same for both models.
Lines of another file, of quite other text, tell what was learnt beyond WordNet: their cosine to
the full model, and how often the nearest other line is the same one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer

Floats = NDArray[np.float64]

HERE = Path(__file__).parent
PROBE, SCORED, DRAWS = 8000, 4000, 2000
TOKENIZER = Tokenizer.from_file(str(HERE / "../../functions/text.embed/tokenizer.json"))
TOKENIZER.enable_truncation(256)


def embed(model: Path, texts: list[str]) -> NDArray[np.float32]:
    """Return each text's vector; one at a time, as INT8 wants it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found = []
    for text in texts:
        ids = np.array([TOKENIZER.encode(text).ids])
        found.append(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])
    return np.concatenate(found)


def interval(draw: Floats) -> str:
    """Return where 95 % of drawn means lie."""
    return "{:.4f} to {:.4f}".format(*np.quantile(draw, (0.025, 0.975)))


def main(models: list[Path], pairs: list[Path], others: list[Path]) -> None:
    """Print every model's scores, and its losses relative to the first."""
    rows = [line.split("\t") for line in (HERE / "test.txt").read_text("utf-8").splitlines()]
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[place] for place in order[: PROBE + SCORED]]
    kinds = np.array([int(row[0]) for row in rows])
    words, glosses = [row[1] for row in rows[PROBE:]], [row[2] for row in rows]
    picks = np.random.default_rng(0).integers(0, SCORED, (DRAWS, SCORED))
    lines = [line.split("\t") for path in pairs for line in path.read_text("utf-8").splitlines()]
    known = [line for line in lines if len(line) == 3 and not line[0].startswith("#")]
    elsewhere = [line for path in others for line in path.read_text("utf-8").splitlines()]
    right: dict[str, Floats] = {}
    for model in models:
        vectors = embed(model, glosses)
        probe = LogisticRegression(C=30, max_iter=300).fit(vectors[:PROBE], kinds[:PROBE])
        near = embed(model, words) @ vectors[PROBE:].T
        rank = (near > np.diag(near)[:, None]).sum(1)
        scores = {
            "class": (probe.predict(vectors[PROBE:]) == kinds[PROBE:]).astype(float),
            "recall@10": (rank < 10).astype(float),
        }
        print(f"\n{model.name}: {model.stat().st_size:,} bytes")
        if model is models[0]:
            right = {**scores, "vectors": vectors[PROBE:]}
        cosine = (vectors[PROBE:] * right["vectors"]).sum(1)
        print(
            f"  cosine to the full model: {cosine.mean():.4f} ({interval(cosine[picks].mean(1))})"
        )
        for name, score in scores.items():
            means, full = score[picks].mean(1), right[name][picks].mean(1)
            loss = 1 - score.mean() / right[name].mean()
            print(
                f"  {name}: {score.mean():.4f} ({interval(means)}); "
                f"relative loss {loss:.4f} ({interval(1 - means / full)})"
            )
        if known:
            first, second = (embed(model, [line[side] for line in known]) for side in (0, 1))
            scales = (first * second).sum(1), [float(line[2]) for line in known]
            ranks = [np.argsort(np.argsort(scale)) for scale in scales]
            print(f"  WordSim-353, Spearman: {np.corrcoef(*ranks)[0, 1]:.4f}")
        if elsewhere:
            found = embed(model, elsewhere)
            near = (found @ found.T - 2 * np.eye(len(found))).argmax(1)
            if model is models[0]:
                right |= {"elsewhere": found, "near": near}
            cosine, same = (found * right["elsewhere"]).sum(1), near == right["near"]
            print(
                f"  {len(found)} other lines: cosine {cosine.mean():.4f}, least {cosine.min():.4f}"
            )
            print(f"  {len(found)} other lines: same nearest one {same.mean():.4f}")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    main(*([path for path in given if path.suffix == kind] for kind in (".onnx", ".tsv", ".txt")))
