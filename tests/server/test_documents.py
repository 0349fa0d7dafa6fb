"""Files of any kind, as a function is given them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples
import toys
from trivium.contract import Ask, Blob, Input, Tier, Variant
from trivium.errors import BadInput, TooLarge, TriviumError
from trivium.hosts import limits
from trivium.hosts.server import documents
from trivium.hosts.server.host import ServerHost
from trivium.hosts.server.web import Incoming, read_ask
from trivium.kinds import Document

VARIANT = Variant(tier=Tier.EDGE, model="toy")
SCHEMA = toys.manifest("document.size", "size", inputs=(Input(name="file", kind="document"),))


def decoded(value: str | Blob) -> Document:
    """Return what a server's function is given."""
    host = ServerHost()
    try:
        document = asyncio.run(host.decode("document", value, VARIANT))
    finally:
        host.close()
    assert isinstance(document, Document)
    return document


@given(st.binary(max_size=9000))
def test_a_document_has_its_ends_at_hand(data: bytes) -> None:
    """Whatever it is: nothing of it is read before the function asks."""
    document = limits.document(Blob(media="x", data=data), lambda a, b: data[a:b])
    assert bytes(document.head.data) == data[:4096]
    assert bytes(document.tail.data) == data[-4096:]
    assert document.head.shape == (len(document.head),)
    assert document.size == len(data)


def test_a_document_is_read_as_text() -> None:
    """All of it, if it is UTF-8; a mark at its begin is no letter."""
    long = "ä" * 10_000
    assert decoded(Blob(media="", data="\ufeff".encode() + long.encode())).text() == long
    assert decoded(Blob(media="", data=b"")).text() == ""
    with pytest.raises(BadInput, match="no UTF-8 text: invalid start byte at byte 2"):
        decoded(Blob(media="", data=b"ab\xff")).text()


def test_documents_have_a_limit() -> None:
    assert decoded(Blob(media="", data=b"")).size == 0
    with pytest.raises(TooLarge, match="33554433 bytes; at most 33554432 are allowed"):
        decoded(Blob(media="application/pdf", data=bytes((32 << 20) + 1)))
    with pytest.raises(BadInput, match="a document is given as media and data, not as a string"):
        decoded("letter.pdf")


def read(body: bytes, media: str | None) -> Ask:
    """Return the ask that a raw body makes."""
    headers = [] if media is None else [(b"content-type", media.encode())]

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    scope: Any = {"headers": headers, "query_string": b"most=3"}
    return asyncio.run(read_ask(Incoming(scope, receive), "document.size", SCHEMA.function))


@pytest.mark.parametrize(
    "media",
    [
        "application/pdf",
        "image/png",
        "application/octet-stream",
        "text/plain",
        "x/y; a=b",
        "",
        None,
    ],
)
def test_a_body_of_any_type_is_a_document(media: str | None) -> None:
    """What it is called may be wrong: that is what document.type is for."""
    ask = read(b"\xffbytes", media)
    expected = (media or "").partition(";")[0]
    assert ask.inputs == {"file": Blob(media=expected, data=b"\xffbytes")}
    assert ask.options == {"most": "3"}
    assert read(b"", media).inputs["file"] == Blob(media=expected, data=b"")


def test_json_is_still_an_ask() -> None:
    with pytest.raises(TriviumError, match="not a valid Ask"):
        read(b"[]", "application/json")


def pdf(*pages: str, box: str = "0 0 200 100") -> bytes:
    """Return a PDF with a line of text on each page."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    for number, content in enumerate(pages):
        font = "<< /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents {4 + 2 * number} 0 R "
            f"/Resources << /Font {font} >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    data, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{each}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    size = len(objects) + 1
    end = f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\n"
    return data + f"{end}startxref\n{len(data)}\n%%EOF\n".encode()


def drawn(data: bytes, number: int = 1, media: str = "") -> tuple[int, Any]:
    """Return how many pages a file has, and one of them."""
    host = ServerHost()

    async def work() -> tuple[int, Any]:
        document = await host.decode("document", Blob(media=media, data=data), VARIANT)
        assert isinstance(document, Document)
        return await document.count(), await document.page(number)

    try:
        return asyncio.run(work())
    finally:
        host.close()


BLACK = "0 0 100 100 re f"


def test_a_pdfs_pages_are_drawn_at_150_dpi() -> None:
    """Whatever its sender calls it."""
    count, page = drawn(pdf("", BLACK), 2, "image/png")
    assert (count, page.height, page.width) == (2, 209, 417)
    rows = np.frombuffer(page.pixels.data, np.uint8).reshape(page.pixels.shape)
    assert rows[100, 100].tolist() == [0, 0, 0]
    assert rows[100, 300].tolist() == [255, 255, 255]


def test_a_picture_is_one_page() -> None:
    count, page = drawn(samples.png(40, 30), media="application/pdf")
    assert (count, page.height, page.width) == (1, 30, 40)


def test_a_page_of_any_size_stays_within_its_pixels() -> None:
    """A poster is drawn smaller."""
    _, page = drawn(pdf(BLACK, box="0 0 14400 14400"))
    assert 15_000_000 < page.height * page.width <= 16_100_000


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", BadInput, "neither a PDF nor a picture"),
        (b"PK\x03\x04 a zip", BadInput, "neither a PDF nor a picture .* begins with b'PK"),
        (b"%PDF-1.7\n", BadInput, "the PDF is damaged"),
        (b"%PDF-1.7\n" + b"\xff" * 9000, BadInput, "the PDF is damaged"),
        (pdf(BLACK)[:200], BadInput, "the PDF is damaged"),
        (pdf(), BadInput, "the PDF is damaged"),
        (samples.png(40, 30)[:50], BadInput, "the image/png is damaged"),
        (pdf("", box="0 0 20000 1"), TooLarge, "41667 x 3 pixels; .* at most 100 times as long"),
        (samples.claims(60_000, 60_000), TooLarge, "60000 x 60000 pixels; at most 50000000"),
    ],
)
def test_bad_documents_are_refused(data: bytes, error: type[TriviumError], said: str) -> None:
    with pytest.raises(error, match=said):
        drawn(data)


def test_a_page_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="the PDF has no page 3"):
        drawn(pdf(BLACK, BLACK), 3)


def test_an_encrypted_pdf_says_so() -> None:
    with pytest.raises(BadInput, match="the PDF is encrypted"):
        drawn((Path(__file__).parent / "encrypted.pdf").read_bytes())


def test_a_wide_picture_is_no_page() -> None:
    """It would be more pixels than a page has, though it is a picture."""
    with pytest.raises(TooLarge, match="6000 x 3000 pixels; at most 16000000"):
        drawn(samples.png(6000, 3000))


def test_a_pdf_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that draws itself twice, many deep: the time it may take ends it."""
    monkeypatch.setattr(documents, "SECONDS", 1)
    depth = 24
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [3 0 R] /Count 1 >>"]
    form = "/XObject << /X {} 0 R >>"
    content = "/X Do " * 8
    stream = f"/Length {len(content)} >>\nstream\n{content}\nendstream"
    objects.append(
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] /Contents 4 0 R /Resources << "
        + form.format(5)
        + " >> >>"
    )
    objects.append(f"<< {stream}")
    for number in range(5, 5 + depth):
        objects.append(
            "<< /Type /XObject /Subtype /Form /BBox [0 0 100 100] /Resources << "
            + form.format(number + 1)
            + f" >> {stream}"
        )
    objects.append(
        "<< /Type /XObject /Subtype /Form /BBox [0 0 9 9] /Length 0 >>\nstream\n\nendstream"
    )
    data = b"%PDF-1.4\n" + b"".join(
        f"{number} 0 obj\n{each}\nendobj\n".encode() for number, each in enumerate(objects, 1)
    )
    data += b"trailer << /Root 1 0 R >>\n"
    begun = time.monotonic()
    try:
        drawn(data)
    except TriviumError as error:
        assert "can't be drawn within 1 s" in error.message  # noqa: PT017 # or PDFium gave up itself
    assert time.monotonic() - begun < 20
