"""Does the page see in a file what servers see?"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from page.bundles import FUNCTIONS
from page.gateway import ROOT, Gateway
from page.opened import Opened, crossing
from trivium.contract import Sample
from trivium.hosts.server.check import agrees
from trivium_models import recipe

pytestmark = pytest.mark.browser


def samples(name: str) -> tuple[Sample, ...]:
    """Return a function's samples."""
    return recipe.samples(recipe.read(FUNCTIONS / name))


HELD_OUT = FUNCTIONS / "document.type/held-out"


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with the functions that take documents."""
    bundles: dict[str, Mapping[str, bytes]] = {}
    for name in ("document.type", "document.read"):
        folder = ROOT / "models/zoo" / name
        if not (folder / "manifest.json").is_file():
            pytest.skip(f"{name} is not built: scripts/install")
        bundles[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    served = Gateway(bundles)
    page = headless.new_page()
    yield Opened(page, served).ready(*bundles)
    page.close()
    served.close()


def typed(opened: Opened, data: bytes, media: str = "") -> Any:
    return opened.ask("document.type", document=crossing(media, data), tiers=["page"])


@pytest.mark.parametrize("path", sorted(HELD_OUT.glob("*/*")), ids=lambda path: path.name)
def test_types(opened: Opened, path: Path) -> None:
    """The type is what the folder says, whatever the sender calls it."""
    answer = typed(opened, path.read_bytes(), "image/png")
    assert answer["output"]["label"] == path.parent.name


@pytest.mark.parametrize(
    ("data", "label"),
    [(b"", "empty"), (b"  \\n", "txt"), (b"\xff", "unknown"), (b" " * 9000, "txt")],
)
def test_small_files(opened: Opened, data: bytes, label: str) -> None:
    """Too few bytes for the model have magika's own answers."""
    assert typed(opened, data)["output"]["label"] == label


def test_a_file_above_the_limit(opened: Opened) -> None:
    """It is refused in the words of the servers."""
    refused = typed(opened, bytes((32 << 20) + 1))
    assert refused["code"] == "too_large"
    assert "33554433 bytes; at most 33554432" in refused["message"]


READ = FUNCTIONS / "document.read"


def read(opened: Opened, data: bytes, **options: Any) -> Any:
    given = {"media": "", "data": base64.b64encode(data).decode()}
    return opened.ask("document.read", document=given, tiers=["page"], options=options)


@pytest.mark.parametrize("sample", samples("document.read"), ids=lambda each: str(each.inputs))
def test_pages_are_read(opened: Opened, sample: Sample) -> None:
    """A picture and a PDF are read as on servers, by the page alone."""
    data = (READ / sample.inputs["document"]).read_bytes()
    answer = read(opened, data, **sample.options)
    assert "output" in answer, answer
    assert agrees(answer["output"], sample.output), answer["output"]
    assert opened.elsewhere == []


def test_pages_stream(opened: Opened) -> None:
    """A PDF's pages come one by one, in the order of reading."""
    data = base64.b64encode((READ / "letter.pdf").read_bytes()).decode()
    given = {"media": "application/pdf", "data": data}
    said = opened.ask("document.read", stream=True, document=given, tiers=["page"])
    assert [each["kind"] for each in said] == ["part", "part", "answer"]
    text = said[0]["output"]["text"]
    assert text.index("leave the house.") < text.index("Large models know more.")
    assert abs(said[0]["output"]["width"] - 1240) <= 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "neither a PDF nor a picture"),
        (b"PK\x03\x04", "neither a PDF nor a picture"),
        (b"%PDF-1.7\n" + b"\xff" * 9000, "the PDF is damaged"),
        ((ROOT / "tests/server/encrypted.pdf").read_bytes(), "the PDF is encrypted"),
        ((READ / "columns.png").read_bytes()[:3000], "the image/png is damaged"),
    ],
)
def test_bad_documents(opened: Opened, data: bytes, said: str) -> None:
    """They are refused in the words of the servers."""
    refused = read(opened, data)
    assert refused["code"] == "bad_input"
    assert said in refused["message"]


def test_pages_beyond_the_end(opened: Opened) -> None:
    """Which pages may be asked for is said."""
    refused = read(opened, (READ / "letter.pdf").read_bytes(), first=3)
    assert refused["message"] == "the document has 2 pages; first is 3"


def test_playground(opened: Opened) -> None:
    """A sample is read when it is clicked, and its pages are shown as text."""
    page = opened.page
    page.get_by_label("document.read").check()
    page.get_by_role("button", name="Ask about letter").click()
    page.wait_for_selector("#result pre:has-text('The second page')")
    assert page.get_by_label("first").input_value() == "2"
    assert page.locator("#result .sheet .box.written").count() > 0
