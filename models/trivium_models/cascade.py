"""How sure must a small variant's answer be to be kept, where the full one could be asked?

A recipe says where in the output a confidence stands, how often answers must agree with the full
variant's, and on which data that is fitted: data that neither the gate nor the making looked at.
The confidence is scaled (Platt: a temperature and an offset) to the likelihood of agreeing. The
threshold is the least that keeps the promise on the fitted rows, one row more counted as wrong
(conformal risk control: it holds on average for rows of the same kind). Figures are of the gate's.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trivium.contract import Cascade, Sample, Tier, Variant
from trivium.errors import BundleError

from . import measure
from . import recipe as recipes
from .build import Workshop
from .package import write
from .recipe import Unsure

FILE = "cascade.json"
RESAMPLES = 2000

Array = NDArray[Any]


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What was fitted of each tier's variant, on so many rows, and the key of what it is of."""

    key: str
    date: str
    rows: int
    held_out: int
    tiers: dict[Tier, Cascade]


def of(workshop: Workshop, bundle: Path, may_fit: bool = False) -> dict[Tier, Cascade]:
    """Return what is known of each tier's variant, fitted first if it `may_fit`."""
    if workshop.recipe.cascade is None:
        return {}
    found = known(workshop, bundle)
    if found is None and may_fit:
        found = fit(workshop, bundle)
    return found.tiers if found else {}


def known(workshop: Workshop, bundle: Path | None = None) -> Fitted | None:
    """Return what the folder's cascade.json says, if it is of these very files."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        found = msgspec.json.decode((workshop.folder / FILE).read_bytes(), type=Fitted)
        return found if found.key == key(workshop, bundle) else None
    return None


def key(workshop: Workshop, bundle: Path | None = None) -> str:
    """Return the hash of what a fit depends on, the data's content aside."""
    recipe = workshop.recipe
    roads = recipes.variants(recipe)
    files = {name for road in roads for chain in road.models.values() for name in chain}
    files |= {"function.py", *filter(None, (recipe.labels, recipe.tokenizer))}
    told = {
        "cascade": msgspec.to_builtins(recipe.cascade),
        "gate": msgspec.to_builtins(recipe.gate),
        "variants": [(road.tier, road.models, road.settings) for road in roads],
        "files": {name: workshop.digest(workshop.path(name, bundle)) for name in sorted(files)},
    }
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()[:32]


def fit(workshop: Workshop, bundle: Path | None = None) -> Fitted:
    """Fit a threshold for each variant that is not the full one, and keep them beside the recipe.

    Raises:
        BundleError: there is no gate to tell the figures on, or the output has no such number.
    """
    recipe = workshop.recipe
    stated = recipe.cascade
    assert stated is not None
    if recipe.gate is None:
        raise BundleError(
            f"{workshop.folder / 'recipe.toml'}: a [cascade] needs a [gate], on whose rows its "
            "figures are told"
        )
    found: list[Sample] = []
    for place in stated.data:
        found += measure.rows(Path(place), workshop.schema, stated.most, workshop.folder)
    held_out = workshop.rows(recipe.gate)
    roads = recipes.variants(recipe)
    full = max(roads, key=lambda road: road.tier.distance)
    tiers: dict[Tier, Cascade] = {}
    answers: dict[str, list[Any]] = {}

    def name(each: Variant) -> str:
        # The same models answer otherwise where what they ask does.
        return f"{each.models} {each.settings} {each.tier if workshop.schema.asks else ''}"

    for road in roads:
        if name(road) == name(full):
            continue
        for each in (full, road):
            if name(each) not in answers:
                workshop.say(f"{workshop.schema.name}: {each.model}: how sure it is")
                answers[name(each)] = _answers(workshop, each, [*found, *held_out], bundle)
        sure, right = agreeing(stated.confidence, answers[name(full)], answers[name(road)])
        tiers[road.tier] = fitted(stated, sure, right, len(found))
    result = Fitted(
        key=key(workshop, bundle),
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        rows=len(found),
        held_out=len(held_out),
        tiers=tiers,
    )
    raw = msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"
    write(workshop.folder / FILE, raw)
    return result


def _answers(
    workshop: Workshop, road: Variant, rows: Sequence[Sample], bundle: Path | None
) -> list[Any]:
    zoo = bundle.parent if bundle else measure.ZOO
    with measure.bar(road.model) as progress:
        graphs = workshop.graphs(road, bundle)
        return workshop.subject().run(road, graphs, rows, progress, zoo).outputs


def agreeing(path: str, wanted: Sequence[Any], given: Sequence[Any]) -> tuple[Array, Array]:
    """Return the confidence of each answer, and whether its first label is the full variant's."""
    plain = _cascade(path, 1.0, 0.0, 0.0)
    sure = [plain.sure(answer) for answer in given]
    if any(each is None for each in sure):
        missing = next(answer for answer, each in zip(given, sure, strict=True) if each is None)
        raise BundleError(f"the answer {str(missing)[:80]!r} has no number at {path!r}")
    same = measure.COMPARE["top1"]
    right = [same(full, answer) for full, answer in zip(wanted, given, strict=True)]
    return np.array(sure, float), np.array(right, float)


def fitted(stated: Unsure, sure: Array, right: Array, rows: int) -> Cascade:
    """Return the cascade that the first rows fit, with its figures on the others."""
    scale, offset = platt(sure[:rows], right[:rows])
    odds = scale * np.log(sure / (1 - sure)) + offset
    likely = 1 / (1 + np.exp(-odds))
    bar = threshold(likely[:rows], right[:rows], stated.agreement)
    kept = likely[rows:] >= bar
    agrees = np.where(kept, right[rows:], 1.0)
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(agrees), (RESAMPLES, len(agrees)))
    low, high = np.quantile(agrees[picks].mean(1), (0.025, 0.975))
    return _cascade(
        stated.confidence,
        scale,
        offset,
        bar,
        rate=round(float(1 - kept.mean()), 4),
        agreement=round(float(agrees.mean()), 4),
        agreement_low=round(float(low), 4),
        agreement_high=round(float(high), 4),
        alone=round(float(right[rows:].mean()), 4),
        data=stated.about,
    )


def _cascade(path: str, scale: float, offset: float, bar: float, **told: Any) -> Cascade:
    figures = dict.fromkeys(("rate", "agreement", "agreement_low", "agreement_high", "alone"), 0.0)
    return Cascade(
        confidence=path,
        scale=round(scale, 4),
        offset=round(offset, 4),
        threshold=round(bar, 4),
        **{**figures, **told},
    )


def platt(sure: Array, right: Array) -> tuple[float, float]:
    """Return scale and offset of the odds by which confidence tells best who is right (Newton)."""
    odds = np.log(sure / (1 - sure))
    # So much is a row of each kind worth that was never seen: what separates all has no finite fit.
    goal = (right * right.sum() + 1) / (right.sum() + 2)
    goal = np.where(right > 0, goal, 1 / ((1 - right).sum() + 2))
    x = np.stack([odds, np.ones_like(odds)], axis=1)
    # From a flat start the problem is convex, and no step leaves what exp can hold.
    found = np.array([0.0, np.log(goal.mean() / (1 - goal.mean()))])
    for _ in range(100):
        p = 1 / (1 + np.exp(-x @ found))
        slope = x.T @ (p - goal)
        bend = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(bend, slope)
        found = found - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return float(found[0]), float(found[1])


def threshold(likely: Array, right: Array, agreement: float) -> float:
    """Return the least likelihood to keep at which answers agree often enough.

    Those below are the full variant's own; one wrong row more is counted than was seen.
    """
    order = np.argsort(-likely)
    wrong = np.concatenate([[0.0], np.cumsum(1 - right[order])])
    fine = (wrong + 1) / (len(right) + 1) <= 1 - agreement
    kept = int(np.nonzero(fine)[0].max()) if fine.any() else 0
    if kept == len(right):
        return 0.0
    return float(likely[order[kept - 1]]) if kept else 1.0
