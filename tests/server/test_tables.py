"""Tables and series in a request, as they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import toys
from trivium.contract import Ask, Blob, Input
from trivium.errors import BadInput
from trivium.hosts.server.web import Incoming, read_ask


def read(body: bytes, media: str, kind: str) -> Ask:
    """Return the ask that a raw body makes."""
    schema = toys.manifest("some.rows", "rows", inputs=(Input(name="given", kind=kind),))
    sent: Any = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> Any:
        return sent

    scope: Any = {"headers": [(b"content-type", media.encode())], "query_string": b"horizon=3"}
    return asyncio.run(read_ask(Incoming(scope, receive), "some.rows", schema.function))


@pytest.mark.parametrize("kind", ["table", "series"])
def test_csv_is_an_input_as_it_is(kind: str) -> None:
    """With its options in the query."""
    ask = read(b"a\n1\n", "text/csv; charset=utf-8", kind)
    assert ask.inputs == {"given": Blob(media="text/csv", data=b"a\n1\n")}
    assert ask.options == {"horizon": "3"}
    with pytest.raises(BadInput, match="'text/plain' is none that some.rows takes: text/csv"):
        read(b"a\n1\n", "text/plain", kind)


def test_json_carries_either_form_as_a_string() -> None:
    """Within an ask."""
    ask = read(b'{"inputs": {"given": "[{\\"a\\": 1}]"}}', "application/json", "table")
    assert ask.inputs == {"given": '[{"a": 1}]'}
