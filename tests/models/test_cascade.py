"""How sure an answer must be to be kept, and how that is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from trivium.contract import Tier
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle
from trivium_models import cascade
from trivium_models.build import Workshop
from trivium_models.recipe import Unsure

ROOT = Path(__file__).parents[2]
STATED = Unsure(confidence="0.score", agreement=0.95, data=("x",), about="drawn")


def drawn(rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences that are twice as sure as they may be, and who is right."""
    dice = np.random.default_rng(seed)
    odds = dice.normal(1.5, 1.2, rows)
    right = dice.random(rows) < 1 / (1 + np.exp(-odds))
    return np.clip(1 / (1 + np.exp(-2 * odds)), 1e-6, 1 - 1e-6), right.astype(float)


def test_a_temperature_is_found() -> None:
    """By which a confidence of so much is right so often."""
    scale, offset = cascade.platt(*drawn(4000))
    assert scale == pytest.approx(0.5, abs=0.06)
    assert offset == pytest.approx(0.0, abs=0.12)
    assert all(np.isfinite(cascade.platt(np.array([0.2, 0.9, 0.95]), np.array([0, 1, 1]))))


def test_a_threshold_keeps_its_promise_on_rows_it_never_saw() -> None:
    """On average over draws; and it asks no more than it must."""
    agreed, asked = [], []
    for seed in range(40):
        sure, right = drawn(900, seed)
        found = cascade.fitted(STATED, sure, right, 300)
        agreed.append(found.agreement)
        asked.append(found.rate)
        assert found.alone < found.agreement
        assert found.agreement_low <= found.agreement <= found.agreement_high
    assert np.mean(agreed) > 0.945
    assert np.mean(agreed) < 0.97
    assert np.mean(asked) < 0.6


def test_what_can_not_be_promised_is_asked_always_and_what_always_holds_never() -> None:
    """With few rows nothing can be promised: one more is counted as wrong."""
    assert cascade.threshold(np.array([0.9, 0.8]), np.array([1.0, 1.0]), 0.95) == 1.0
    many = np.linspace(0.5, 0.9, 100)
    assert cascade.threshold(many, np.ones(100), 0.95) == 0.0


def test_an_output_without_the_number_is_an_error() -> None:
    """That shows it, and where it was looked for."""
    with pytest.raises(BundleError, match=r"no number at '0\.score'"):
        cascade.agreeing("0.score", [[{"label": "a"}]], [[{"label": "a"}]])


def test_what_ships_is_what_was_fitted(tmp_path: Path) -> None:
    """The manifest has it; of other files nothing is known."""
    folder, zoo = ROOT / "models/functions/image.classify", ROOT / "models/zoo/image.classify"
    workshop = Workshop(folder, tmp_path, print, idle=True)
    found = cascade.known(workshop, zoo)
    assert found is not None
    manifest = Bundle(zoo).manifest
    for tier in (Tier.PAGE, Tier.EDGE):
        variant = manifest.variant(tier)
        assert variant is not None
        assert variant.cascade == found.tiers[tier]
    assert cascade.of(workshop, zoo) == found.tiers
    edited = tmp_path / "image.classify"
    shutil.copytree(folder, edited)
    source = edited / "function.py"
    source.write_text(source.read_text() + "\n# edited\n")
    assert cascade.of(Workshop(edited, tmp_path, print, idle=True), zoo) == {}
