"""What callers send wrongly, and what they are told."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from samples import claims
from servers import Room, Servers, chunks, said
from trivium.contract import JSON, MSGPACK, Answer, Fault, Plan, Tier, Times, decode
from trivium.errors import BadInput
from trivium.hosts.server.web import MOST_BODY, Incoming, masked

TEXT = {"text": "one two three"}
IMAGE_TYPES = "image/jpeg, image/png, image/webp, image/gif"

Send = Callable[[Room], httpx.Response]


def asked(name: str = "text.count", media: str = JSON, **fields: Any) -> Send:
    """Return a sender of an Ask with the fields given."""
    return lambda room: room.ask(name, {"inputs": TEXT, **fields}, media)


def raw(text: str | bytes, name: str = "text.count", query: str = "", **headers: str) -> Send:
    """Return a sender of a raw text."""
    return lambda room: room.text(name + query, text, **headers)


def blob(media: str, data: bytes, form: str) -> Send:
    """Return a sender of an image inside an Ask."""
    body: Any = {"media": media, "data": data}
    if form == JSON:
        body["data"] = base64.b64encode(data).decode()
    return lambda room: room.ask("image.size", {"inputs": {"image": body}}, form)


GIGANTIC = claims(60000, 60000)

BAD: dict[str, tuple[Send, str]] = {
    "unknown function": (
        raw("a", "text.cuont"),
        "404 unknown_function: there is no function 'text.cuont'; there are: image.size, text.any",
    ),
    "unknown function, JSON": (asked("text.cuont"), "404 unknown_function: there is no function"),
    "another function in the body": (
        asked(function="text.fail"),
        "400 bad_input: the body asks for 'text.fail', the path for 'text.count'",
    ),
    "wrong type": (
        raw("a", content_type="audio/ogg"),
        "400 bad_input: content type 'audio/ogg' is none that text.count takes: text/plain, "
        "application/json, application/msgpack",
    ),
    "no type": (raw("a", content_type=""), "400 bad_input: content type '' is none that"),
    "empty body": (raw(b""), "400 bad_input: the body is empty; it should be the text"),
    "empty JSON": (
        raw(b"", content_type=JSON),
        "400 bad_input: the body is empty; it should be an Ask as application/json",
    ),
    "empty MessagePack": (raw(b"", content_type=MSGPACK), "400 bad_input: the body is empty"),
    "blank text": (raw("  \n"), "400 bad_input: the text is empty"),
    "blank text, JSON": (asked(inputs={"text": ""}), "400 bad_input: the text is empty"),
    "not UTF-8": (raw(b"caf\xe9"), "400 bad_input: the text is not UTF-8: unexpected end of data"),
    "other charset": (
        raw("a", content_type="text/plain; charset=latin1"),
        "400 bad_input: charset 'latin1' is not utf-8",
    ),
    "not UTF-8, JSON": (
        raw(b'{"inputs":{"text":"caf\xe9"}}', content_type=JSON),
        "400 bad_input: the JSON is not a valid Ask: 'utf-8' codec can't decode",
    ),
    "not UTF-8, MessagePack": (
        raw(b"\x81\xa6inputs\x81\xa4text\xa2\xff\xfe", content_type=MSGPACK),
        "400 bad_input: the MessagePack is not a valid Ask",
    ),
    "lone surrogate": (
        raw(b'{"inputs":{"text":"\\ud800x"}}', content_type=JSON),
        "400 bad_input: the JSON is not a valid Ask",
    ),
    "over-long text": (
        raw("x" * (1 << 20) + "x"),
        "413 too_large: the text has 1048577 characters; at most 1048576 are allowed",
    ),
    "too many tokens": (
        raw("one two three one two", "text.words"),
        "413 too_large: the text has 5 tokens; at most 4 are allowed",
    ),
    "too long to count tokens": (
        raw("one " * 500, "text.words"),
        "413 too_large: the text has 2000 characters; at most 4 tokens are allowed",
    ),
    "bad JSON": (raw(b"{", content_type=JSON), "400 bad_input: the JSON is not a valid Ask"),
    "JSON of another shape": (raw(b"[1]", content_type=JSON), "400 bad_input: the JSON is not a"),
    "bad MessagePack": (
        raw(b"\xc1", content_type=MSGPACK),
        "400 bad_input: the MessagePack is not a valid Ask",
    ),
    "input of a wrong kind": (asked(inputs={"text": 7}), "400 bad_input: the JSON is not a valid"),
    "image for text": (
        asked(inputs={"text": {"media": "image/png", "data": "AAAA"}}),
        "400 bad_input: text is given as a string, not as image/png",
    ),
    "text for an image": (
        asked("image.size", inputs={"image": "cat.jpg"}),
        "400 bad_input: an image is given as media and data, not as a string",
    ),
    "bad base64": (
        asked("image.size", inputs={"image": {"media": "image/png", "data": "!!"}}),
        "400 bad_input: the JSON is not a valid Ask: Invalid base64",
    ),
    "no input": (asked(inputs={}), "400 bad_input: text.count takes the inputs: text; the ask has"),
    "unknown input": (
        asked(inputs={**TEXT, "sound": "a"}),
        "400 bad_input: text.count takes the inputs: text; the ask has: text, sound",
    ),
    "budget 0": (raw("a", trivium_ms="0"), "400 bad_input: the Trivium- headers are not valid: ms"),
    "budget below 0": (raw("a", trivium_ms="-3"), "400 bad_input: the Trivium- headers are not"),
    "budget NaN": (raw("a", trivium_ms="nan"), "ms is nan; it must be a finite number above 0"),
    "budget inf": (raw("a", trivium_ms="inf"), "ms is inf; it must be a finite number above 0"),
    "budget text": (raw("a", trivium_ms="soon"), "400 bad_input: the Trivium- headers are not"),
    "budget 0, JSON": (asked(budget={"ms": 0}), "ms is 0.0; it must be a finite number above 0"),
    "budget -1, JSON": (asked(budget={"ms": -1}), "ms is -1.0; it must be a finite number"),
    "budget NaN, JSON": (
        raw(b'{"inputs":{"text":"a"},"budget":{"ms":NaN}}', content_type=JSON),
        "400 bad_input: the JSON is not a valid Ask",
    ),
    "budget 1e999, JSON": (
        raw(b'{"inputs":{"text":"a"},"budget":{"ms":1e999}}', content_type=JSON),
        "400 bad_input: the JSON is not a valid Ask: Number out of range",
    ),
    "budget NaN, MessagePack": (
        asked(media=MSGPACK, budget={"ms": float("nan")}),
        "400 bad_input: the MessagePack is not a valid Ask: ms is nan",
    ),
    "budget inf, MessagePack": (
        asked(media=MSGPACK, budget={"ms": float("inf")}),
        "400 bad_input: the MessagePack is not a valid Ask: ms is inf",
    ),
    "budget text, JSON": (asked(budget={"ms": "9"}), "Expected `float | null`, got `str`"),
    "quality 2": (raw("a", trivium_quality="2"), "quality is 2.0; it must be from 0 to 1"),
    "quality NaN": (raw("a", trivium_quality="nan"), "quality is nan; it must be from 0 to 1"),
    "quality -1, JSON": (asked(budget={"quality": -1}), "quality is -1.0; it must be from 0 to 1"),
    "unknown reach": (raw("a", trivium_reach="moon"), "Invalid enum value 'moon'"),
    "unknown reach, JSON": (asked(budget={"reach": "moon"}), "Invalid enum value 'moon'"),
    "unknown tier": (raw("a", trivium_tiers="edge,moon"), "Invalid enum value 'moon'"),
    "unknown tier, JSON": (asked(tiers=["moon"]), "Invalid enum value 'moon'"),
    "out of reach": (
        asked("text.any", budget={"reach": "page"}),
        "403 not_allowed: text.any runs on cloud; the ask allows any tier within reach page",
    ),
    "unknown option": (
        raw("a", query="?most=1"),
        "400 bad_input: options of text.count: Object contains unknown field `most` "
        "(options: least)",
    ),
    "unknown option, JSON": (asked(options={"most": 1}), "unknown field `most` (options: least)"),
    "option of a wrong type": (raw("a", query="?least=few"), "Expected `int`, got `str`"),
    "option out of range": (asked(options={"least": 0}), "Expected `int` >= 1 - at `$.least`"),
    "older version": (
        raw("a", trivium_version="0.9.0"),
        "409 conflict: version 0.9.0 of text.count is not served; served: 1.0.0",
    ),
    "older version, MessagePack": (
        asked(media=MSGPACK, version="0.9.0"),
        "409 conflict: version 0.9.0 of text.count is not served; served: 1.0.0",
    ),
    "huge body": (
        raw(b"x" * (MOST_BODY + 1)),
        f"413 too_large: the request is too large; at most {MOST_BODY} bytes are allowed",
    ),
    "huge body of unknown length": (
        lambda room: room.send(
            "POST",
            "/v1/infer/text.count",
            content=chunks(*[b"x" * (1 << 22)] * 13),
            headers={"content-type": "text/plain"},
        ),
        f"413 too_large: the request is too large; at most {MOST_BODY} bytes are allowed",
    ),
    "deep nesting": (raw(b"[" * 10**6, content_type=JSON), "the JSON is not a valid Ask"),
    "deep options": (
        raw(
            b'{"inputs":{"text":"a"},"options":{"what":' + b"[" * 5000 + b"]" * 5000 + b"}}",
            "text.any",
            content_type=JSON,
        ),
        "400 bad_input: the JSON is not a valid Ask: maximum recursion depth",
    ),
    "wrong method": (
        lambda room: room.get("/v1/infer/text.count"),
        "405 bad_ask: GET is not allowed at '/v1/infer/text.count'; use POST",
    ),
    "unknown path": (
        lambda room: room.get("/v2/infer/text.count"),
        "404 not_found: there is nothing at '/v2/infer/text.count'",
    ),
    "beside the path": (
        lambda room: room.send("POST", "/v1/infertext.count"),
        "404 not_found: there is nothing at '/v1/infertext.count'",
    ),
    "below the path": (
        lambda room: room.send("POST", "/v1/infer/text.count/more"),
        "404 not_found: there is nothing at '/v1/infer/text.count/more'",
    ),
    "no name": (
        lambda room: room.send("POST", "/v1/infer"),
        "404 not_found: there is nothing at '/v1/infer'",
    ),
    "image of another type": (
        lambda room: room.image(b"x", "image/tiff"),
        f"400 bad_input: content type 'image/tiff' is none that image.size takes: {IMAGE_TYPES}",
    ),
    "image of another type, JSON": (
        blob("image/tiff", b"II*\0", JSON),
        f"400 bad_input: media type 'image/tiff' is not one of {IMAGE_TYPES}",
    ),
    "empty image": (blob("image/png", b"", MSGPACK), "400 bad_input: the image is empty"),
    "no image": (
        lambda room: room.image(b"hello", "image/png"),
        "400 bad_input: the image is not a readable image/png",
    ),
    "truncated image": (
        lambda room: room.image(GIGANTIC[:20]),
        "400 bad_input: the image",
    ),
    "gigantic image": (
        lambda room: room.image(GIGANTIC),
        "413 too_large: the image has 60000 x 60000 pixels; at most 50000000 are allowed",
    ),
    "gigantic image, JSON": (
        blob("image/png", GIGANTIC, JSON),
        "413 too_large: the image has 60000 x 60000 pixels; at most 50000000 are allowed",
    ),
}


@pytest.mark.parametrize("room", ["edge", "cloud"])
@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_told_in_one_shape(shared: Servers, case: str, room: str) -> None:
    """Edge and cloud name the value that was wrong, and what is allowed."""
    send, expected = BAD[case]
    response = send(getattr(shared, room))
    assert 400 <= response.status_code < 500
    assert expected in said(response)


@pytest.mark.parametrize("header", ["", "Basic dTpw", "Bearer", "Bearer  ", "Bearer wrong", "é"])
def test_nobody_asks_without_a_key(shared: Servers, header: str) -> None:
    """A missing key, another scheme and a wrong key are all 401, whatever the ask."""
    for room in shared.rooms:
        for name in ("text.count", "text.cuont"):
            response = room.send(
                "POST",
                f"/v1/infer/{name}",
                key=None,
                content=b"a",
                headers=[(b"authorization", header.encode())] if header else [],
            )
            assert said(response).startswith("401 unauthenticated: ")
            assert response.headers["www-authenticate"] == "Bearer"
            assert room.key not in response.text


def test_errors_are_messagepack_for_whoever_reads_that(shared: Servers) -> None:
    """The shape is the same in both encodings."""
    for room in shared.rooms:
        response = room.ask("text.cuont", {"inputs": TEXT}, MSGPACK, accept=MSGPACK)
        assert response.headers["content-type"] == MSGPACK
        assert decode(response.content, dict[str, Fault])["error"].code == "unknown_function"


def test_a_client_that_leaves_is_not_answered_with_half_its_body() -> None:
    """What came before a disconnect is no ask."""
    messages = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        return messages.pop(0)

    scope: Any = {"headers": [(b"content-type", b"text/plain")], "query_string": b""}
    with pytest.raises(BadInput, match="left after 4 bytes"):
        asyncio.run(Incoming(scope, receive).body())


def test_others_are_served_while_a_long_answer_is_masked() -> None:
    """What tells of people is looked for beside the event loop."""
    output = "call +44 20 7946 0958 or write to anna@b.example; " * 400
    answer = Answer(
        function="text.any",
        version="1",
        output=output,
        tier=Tier.CLOUD,
        model="",
        plan=Plan(tiers=(Tier.CLOUD,), reason=""),
        ms=Times(),
    )

    async def run() -> int:
        served, masking = 0, asyncio.ensure_future(masked(answer))
        while not masking.done():
            await asyncio.sleep(0)
            served += 1
        hidden = masking.result()
        assert hidden.output == "call [phone] or write to [email]; " * 400
        return served

    assert asyncio.run(run()) > 2
