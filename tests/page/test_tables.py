"""Does the page read tables and series as servers do, and answer what they answer?"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from page.bundles import FUNCTIONS
from page.gateway import ROOT, Gateway
from page.opened import Opened
from trivium.contract import Sample, Tier
from trivium.errors import TriviumError
from trivium.hosts import tabular
from trivium.hosts.server.bundles import Bundle
from trivium_models.build import CACHE, Workshop
from trivium_models.command import say

pytestmark = pytest.mark.browser

ZOO = ROOT / "models/zoo"
NAMES = ("series.forecast", "table.classify")
CELLS = (FUNCTIONS / "table.classify/cells.csv").read_text()
CO2 = (FUNCTIONS / "series.forecast/co2.csv").read_text()


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with the functions that take tables and series."""
    bundles: dict[str, Mapping[str, bytes]] = {}
    for name in NAMES:
        if not (ZOO / name / "manifest.json").is_file():
            pytest.skip(f"{name} is not built: scripts/install")
        bundles[name] = {path.name: path.read_bytes() for path in (ZOO / name).iterdir()}
    served = Gateway(bundles)
    page = headless.new_page()
    yield Opened(page, served).ready(*bundles)
    page.close()
    served.close()


def native(name: str, **given: str) -> Any:
    """Return what the page's variant answers on onnxruntime, natively."""
    shop, bundle = Workshop(FUNCTIONS / name, CACHE, say), Bundle(ZOO / name)
    variant = bundle.manifest.variant(Tier.PAGE)
    assert variant is not None
    graphs = shop.graphs(variant, bundle.folder)
    rows = [Sample(inputs=given)]
    with ThreadPoolExecutor(1) as thread:  # this one has the browser's event loop
        return thread.submit(shop.subject().run, variant, graphs, rows).result().outputs[0]


@pytest.mark.parametrize("form", ["text", "file"])
def test_forecast(opened: Opened, form: str) -> None:
    """The same numbers to 1e-4 of how far the series goes."""
    given: Any = CO2
    if form == "file":
        given = {"media": "text/csv", "data": base64.b64encode(CO2.encode()).decode()}
    answer = opened.ask("series.forecast", series=given, tiers=["page"])["output"]
    wanted = native("series.forecast", series=CO2)
    assert answer["times"] == wanted["times"]
    assert answer["times"][:2] == ["2001-12-01", "2002-01-01"]
    for step, other in zip(answer["values"], wanted["values"], strict=True):
        assert step == pytest.approx(other, abs=1e-4 * 32)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_classify(opened: Opened, form: str) -> None:
    """The same labels and scores as natively, from either form."""
    table = CELLS
    if form == "json":
        names, *rows = (line.split(",") for line in CELLS.splitlines())
        table = json.dumps([dict(zip(names, map(float, row), strict=True)) for row in rows])
    answer = opened.ask("table.classify", table=table, tiers=["page"])["output"]
    wanted = native("table.classify", table=CELLS)
    assert [each["label"] for each in answer] == [each["label"] for each in wanted]
    assert [each["score"] for each in answer] == pytest.approx(
        [each["score"] for each in wanted], abs=1e-5
    )


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (CELLS.replace("mean radius", "id", 1), "missing: 'mean radius'; unknown: 'id'"),
        (CELLS.replace("\n12.76,", "\nNaN,", 1), "column 'mean radius' is 'NaN'"),
        (CELLS.replace("\n12.76,", "\n,", 1), "column 'mean radius' is empty"),
        (CELLS + "1,2\n", "row 9 has 2 cells"),
        ("", "the table is empty"),
    ],
)
def test_bad_tables(opened: Opened, table: str, said: str) -> None:
    """Are refused by row and column."""
    refused = opened.ask("table.classify", table=table, tiers=["page"])
    assert refused["code"] == "bad_input"
    assert said in refused["message"]


@pytest.mark.parametrize(
    "series",
    ["", "value\n", "1\n2\nnan", "[1, 2, 3]", "[1, NaN]", "a,b,c\n1,2,3\n4,5,6", "1\n" * 20002],
)
def test_bad_series(opened: Opened, series: str) -> None:
    """Are refused in the words of the servers."""
    refused = opened.ask("series.forecast", series=series, tiers=["page"])
    wanted = ("bad_input", "at least 8 are needed")
    try:
        tabular.series(series)
    except TriviumError as error:
        wanted = (error.code, error.message)
    assert refused["code"] == wanted[0]
    assert wanted[1] in refused["message"]
