"""Does the page see in a file what servers see?"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from page.bundles import FUNCTIONS
from page.gateway import ROOT, Gateway
from page.opened import Opened

pytestmark = pytest.mark.browser

HELD_OUT = FUNCTIONS / "document.type/held-out"


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with the functions that take documents."""
    bundles: dict[str, Mapping[str, bytes]] = {}
    for name in ("document.type",):
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
    given = {"media": media, "data": base64.b64encode(data).decode()}
    return opened.ask("document.type", document=given, tiers=["page"])


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
