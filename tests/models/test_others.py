"""Can a pipeline be measured, with what it asks answered by built bundles?"""

from __future__ import annotations

from pathlib import Path

import pytest

from trivium.contract import Sample, Tier, Variant
from trivium.errors import BundleError
from trivium_models.build import Workshop
from trivium_models.command import main, say
from trivium_models.measured import stated

COUNT = """
from trivium import Text, function

@function("text.count")
async def count(text: Text) -> int:
    return len(text.split())
"""

MORE = """
from trivium import Asker, Text, function

@function("text.more")
async def more(text: Text, ask: Asker) -> int:
    return await ask("text.count", text=text) + await ask("text.count", text=text)
"""

RECIPE = """
version = "1.0.0"
licence = "Apache-2.0"

[gate]
metric = "exact"
data = "rows.txt"
floor = 1.0

[[variants]]
tier = "cloud"
model = "by text.count"
"""


def written(folder: Path, code: str, recipe: str) -> Path:
    folder.mkdir()
    (folder / "function.py").write_text(code)
    (folder / "recipe.toml").write_text(recipe)
    (folder / "rows.txt").write_text("one two\nthree\n")
    return folder


def test_a_pipeline_is_measured_by_what_it_asks(tmp_path: Path) -> None:
    """Its answers are the real ones, and its time is that of its steps."""
    count = written(tmp_path / "count", COUNT, 'version = "1.0.0"\nlicence = "MIT"\n')
    more = written(tmp_path / "more", MORE, RECIPE)
    out = ["--out", str(tmp_path / "zoo"), "--cache", str(tmp_path / "cache")]
    main(["build", str(count), *out])
    main(["build", str(more), "--targets", "cpu", *out])
    found = stated(more)
    assert found is not None
    (row,) = found.rows
    assert (row.tier, row.quality, row.size, row.gate) == (Tier.CLOUD, 1.0, 0, "passed")
    assert row.latency_ms == 1.0  # twice what is expected of a function without models


def test_a_step_that_is_not_built_is_named(tmp_path: Path) -> None:
    shop = Workshop(written(tmp_path / "more", MORE, RECIPE), tmp_path, say)
    variant = Variant(tier=Tier.CLOUD, model="by text.count")
    with pytest.raises(BundleError, match="no tier has a function 'text.count'"):
        shop.subject().run(variant, {}, [Sample(inputs={"text": "a"})], zoo=tmp_path / "zoo")
