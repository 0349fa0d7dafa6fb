"""Does the page see in a file what servers see?"""

from __future__ import annotations

import base64
import zlib
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


def pdf(objects: list[bytes], names: bytes, content: bytes, box: bytes = b"612 792") -> bytes:
    """Return a PDF of one page, whose `names` stand for `objects` from number 5 on."""
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %s] /Contents 4 0 R /Resources %s >>"
    whole = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        page % (box, names),
        b"<< /Length %d >> stream\n%s\nendstream" % (len(content), content),
        *objects,
    ]
    # Without a table of where they are: it is made anew.
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (at, each) for at, each in enumerate(whole, 1))
    return b"%PDF-1.7\n" + body + b"trailer << /Size %d /Root 1 0 R >>" % (len(whole) + 1)


def forms(deep: int, often: int, draw: bytes, group: bytes = b"") -> bytes:
    """Return a PDF whose forms each use the next one so often; all `draw`."""
    name = b"<< /XObject << /F %d 0 R >> >>"
    made = []
    for number in range(deep):
        content = draw + b" /F Do" * often * (number < deep - 1)
        head = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] %s /Resources %s /Length %d"
        filled = head % (group, name % (6 + number), len(content))
        made.append(b"<< %s >> stream\n%s\nendstream" % (filled, content))
    return pdf(made, name % 5, b"/F Do")


def pictures(count: int, side: int) -> bytes:
    """Return a PDF of so many white pictures, each some kilobytes."""
    data = zlib.compress(b"\xff" * (side * side // 8), 9)
    head = b"/Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 1"
    filled = b"%s /Width %d /Height %d /Filter /FlateDecode" % (head, side, side)
    made = [b"<< %s /Length %d >> stream\n%s\nendstream" % (filled, len(data), data)] * count
    names = b" ".join(b"/I%d %d 0 R" % (each, 5 + each) for each in range(count))
    content = b" ".join(b"/I%d Do" % each for each in range(count))
    return pdf(made, b"<< /XObject << %s >> >>" % names, content)


GROUP = b"/Group << /S /Transparency /I true >>"
UNFOLDS = ("takes over 256 MiB to draw", "for 4 s nothing came of it", "can't be drawn within 10 s")
"""Which of these comes first depends on how quick the machine is."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (forms(9, 10, b"0 0 9 9 re f"), UNFOLDS),
        (forms(9, 10, b"0 0 m " + 500 * b"9 9 l " + b"f"), UNFOLDS),
        (pictures(60, 3992), UNFOLDS),
        (forms(30, 2, b"0 0 9 9 re f", GROUP), UNFOLDS),
        (
            forms(99, 1, b"0 0 600 700 re f", b"/Group << /S /Transparency /K true >>"),
            ("pixels to", *UNFOLDS),
        ),
        (pdf([], b"<< >>", b"", b"20000 1"), ("a side is allowed to be at most 100 times as",)),
    ],
    ids=["forms", "lines", "pictures", "groups", "canvases", "sides"],
)
def test_what_unfolds_is_refused_on_its_way(
    opened: Opened, data: bytes, said: tuple[str, ...]
) -> None:
    """Before it takes gigabytes, and what comes next is read."""
    assert len(data) < 200_000
    refused = read(opened, data)
    assert refused["code"] == "too_large"
    assert any(each in refused["message"] for each in said), refused
    fine = read(opened, forms(3, 9, b"0 0 9 9 re f", GROUP))
    assert fine["output"][0]["text"] == ""


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
