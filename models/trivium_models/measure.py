"""How near do a bundle's variants come to its full one, on real inputs?"""

from __future__ import annotations

import mimetypes
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from trivium.contract import Blob, Tier, Variant
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.media import IMAGES, pixels

Array = NDArray[Any]
Feed = dict[str, Array]


class Chain:
    """A variant's only model, on one thread: graphs that run in a row."""

    def __init__(self, bundle: Bundle, variant: Variant) -> None:
        if len(variant.models) != 1:
            raise BundleError(
                f"{bundle.name} on {variant.tier} has {len(variant.models)} models; only "
                "variants with one model can be compared."
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        (graphs,) = variant.models.values()
        self._sessions = [
            ort.InferenceSession(bundle.read(graph), options, providers=["CPUExecutionProvider"])
            for graph in graphs
        ]

    def run(self, feed: Feed) -> Array:
        """Return the last graph's only output."""
        values = dict(feed)
        for session in self._sessions:
            names = [node.name for node in session.get_outputs()]
            wanted = {node.name: values[node.name] for node in session.get_inputs()}
            values |= zip(names, session.run(names, wanted), strict=True)
        answer: Array = values[names[0]][0]
        return answer


def report(folder: Path, inputs: Path, say: Callable[[str], None]) -> None:
    """Say how each variant's answers and times compare with the cloud's."""
    bundle = Bundle(folder)
    full = bundle.manifest.variant(Tier.CLOUD)
    if full is None:
        raise BundleError(f"{bundle.name} has no variant for the cloud to compare with.")
    feeds = list(texts(bundle, inputs) if inputs.is_file() else photos(inputs))
    wanted, ms = answers(Chain(bundle, full), feeds)
    say(f"{bundle.name} on {len(feeds)} inputs of {inputs}")
    say(f"{full.model}: {spread(ms)} ms")
    others = {variant.model: variant for variant in bundle.manifest.variants}
    for variant in others.values():
        if variant.models == full.models:
            continue
        given, ms = answers(Chain(bundle, variant), feeds)
        compare = top_labels if bundle.manifest.labels else cosines
        name, scores, details = compare(wanted, given)
        low, high = interval(scores)
        say(f"{variant.model}: {spread(ms)} ms; {details}")
        say(f"# {name}, mean and 95 % interval by bootstrap")
        say(f"quality = {scores.mean():.4f}\nquality_low = {low:.4f}\nquality_high = {high:.4f}")


def texts(bundle: Bundle, path: Path) -> Iterator[Feed]:
    """Yield each line of a file as the model's tokens."""
    if bundle.manifest.tokenizer is None:
        raise BundleError(f"{bundle.name} has no tokenizer; give a folder of photos.")
    tokenizer = Tokenizer.from_str(bundle.text(bundle.manifest.tokenizer))
    for line in path.read_text("utf-8").splitlines():
        ids = np.array([tokenizer.encode(line).ids], np.int64)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def photos(folder: Path) -> Iterator[Feed]:
    """Yield each photo of a folder, whole and as its lower right four fifths."""
    found = False
    for path in sorted(folder.glob("*")):
        media = mimetypes.guess_type(path.name)[0] or ""
        if media not in IMAGES:
            continue
        found = True
        tensor = pixels(Blob(media=media, data=path.read_bytes()))
        whole = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
        height, width = (side // 5 for side in whole.shape[:2])
        yield {"pixels": whole}
        yield {"pixels": np.ascontiguousarray(whole[height:, width:])}
    if not found:
        raise BundleError(f"{folder} has no photo; these types are read: {', '.join(IMAGES)}.")


def answers(chain: Chain, feeds: Sequence[Feed]) -> tuple[Array, Array]:
    """Return a model's answers and the milliseconds each took."""
    results, ms = [], []
    chain.run(feeds[0])
    for feed in feeds:
        started = time.perf_counter()
        results.append(chain.run(feed))
        ms.append(1000 * (time.perf_counter() - started))
    return np.stack(results), np.array(ms)


def cosines(wanted: Array, given: Array) -> tuple[str, Array, str]:
    """Compare vectors by their angle."""
    sizes = np.linalg.norm(wanted, axis=1) * np.linalg.norm(given, axis=1)
    scores = (wanted * given).sum(1) / sizes
    return "cosine", scores, f"cosine at least {scores.min():.4f}"


def top_labels(wanted: Array, given: Array) -> tuple[str, Array, str]:
    """Compare probabilities by the labels they put first."""
    five, other = (np.argsort(-scores)[:, :5] for scores in (wanted, given))
    agree = (five[:, 0] == other[:, 0]).astype(float)
    sure = wanted.max(1) > 0.3
    within = np.mean([row[0] in rest for row, rest in zip(five, other, strict=True)])
    shared = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(five, other, strict=True)])
    details = (
        f"same first label {agree.mean():.4f} ({agree[sure].mean():.4f} where the full model is "
        f"over 0.3 sure), first label within five {within:.4f}, shared of five {shared:.4f}"
    )
    return "same first label", agree, details


def interval(scores: Array) -> tuple[float, float]:
    """Return where 95 % of the means of resampled scores lie."""
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(scores), (2000, len(scores)))
    low, high = np.quantile(scores[picks].mean(1), (0.025, 0.975))
    return float(low), float(high)


def spread(ms: Array) -> str:
    """Return the 5th, 50th and 95th percentile as text."""
    return " / ".join(f"{value:.1f}" for value in np.quantile(ms, (0.05, 0.5, 0.95)))
