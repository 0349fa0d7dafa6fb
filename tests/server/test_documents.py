"""Files of any kind, as a function is given them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import toys
from trivium.contract import Ask, Blob, Input, Tier, Variant
from trivium.errors import BadInput, TooLarge, TriviumError
from trivium.hosts import limits
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
