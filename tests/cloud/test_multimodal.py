"""One request of any parts: its forms, its limits, what it becomes, and how it is answered."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import samples
import servers
import toys
from servers import Room, chunks, fault, said
from trivium.contract import EVENTS, JSON, MSGPACK, Input, Option, encode
from trivium.errors import BadInput, TooLarge
from trivium.hosts.server.described import MULTIMODAL as PATH
from trivium_cloud.multimodal import read_defaults
from trivium_cloud.parts import MOST_DEPTH, MOST_PARTS, SHORT, Given, Wanted, read
from trivium_cloud.settings import DEFAULTS

PNG = samples.png(3, 2)
PHOTO = base64.b64encode(PNG).decode()
FORM = "multipart/form-data; boundary=here"

TELL = """
from trivium import Document, Image, Text, function

@function("mixed.tell")
async def tell(image: Image, text: Text, second: Document, loud: bool = False) -> dict[str, object]:
    said = str(text.upper() if loud else text)
    return {"size": [image.height, image.width], "text": said, "bytes": second.size}
"""


MANY = """
from trivium import Document, Text, function

@function("mixed.count")
async def tally(text: Text, documents: list[Document]) -> list[object]:
    return [str(text), *(each.size for each in documents)]
"""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Return a cloud with one function more, which takes three kinds of parts."""
    zoo = samples.zoo(tmp_path_factory.mktemp("zoo"))
    inputs = (
        samples.IMAGE,
        Input(name="text", kind="text"),
        Input(name="second", kind="document"),
    )
    loud = (Option(name="loud", schema={"type": "boolean"}, default=False),)
    toys.bundle(zoo, TELL, toys.manifest("mixed.tell", "tell", inputs=inputs, options=loud))
    several = (Input(name="text", kind="text"), Input(name="documents", kind="document", many=3))
    toys.bundle(zoo, MANY, toys.manifest("mixed.count", "tally", inputs=several))
    with servers.serving([zoo]) as made:
        yield made.cloud


def post(room: Room, content: Any, media: str = JSON, **headers: str) -> httpx.Response:
    """Send a body; what is neither bytes nor text is encoded."""
    if not isinstance(content, bytes | str):
        content = encode(content, media)
    given = {each.replace("_", "-"): value for each, value in headers.items()}
    return room.send("POST", PATH, content=content, headers={"content-type": media, **given})


def form(*segments: tuple[str, str, bytes]) -> bytes:
    """Return a form of segments: what follows `name=`, further headers, and the data."""
    lines = b""
    for name, more, data in segments:
        head = f"--here\r\nContent-Disposition: form-data; name={name}\r\n{more}\r\n"
        lines += head.encode() + data + b"\r\n"
    return lines + b"--here--\r\n"


def answered(response: httpx.Response) -> Any:
    """Return the output of an answer."""
    assert response.status_code == 200, response.text
    return response.json()["output"]


@pytest.mark.parametrize(
    "image",
    [
        PHOTO,
        [PHOTO],
        f"data:image/png;base64,{PHOTO}",
        {"data": PHOTO},
        {"data": PHOTO, "media": "image/png"},
        {"media": "IMAGE/PNG; q=1", "data": f"data:;base64,{PHOTO}"},
    ],
)
def test_a_picture_is_answered_by_its_kind(cloud: Room, image: Any) -> None:
    """Base64, a data URL or an object, under its kind or as a part; its bytes say its type."""
    assert answered(post(cloud, {"image": image})) == [2, 3]
    assert answered(post(cloud, {"images": image})) == [2, 3]
    if isinstance(image, dict):
        assert answered(post(cloud, {"parts": [{"kind": "image", **image}]})) == [2, 3]


def test_messagepack_holds_bytes_as_they_are(cloud: Room) -> None:
    """No base64 is needed where bytes have a form."""
    for parts in ({"image": PNG}, {"parts": [{"media": "image/png", "data": PNG}]}):
        assert answered(post(cloud, parts, MSGPACK)) == [2, 3]
    packed = post(cloud, {"image": PNG}, MSGPACK, accept=MSGPACK)
    assert packed.headers["content-type"] == MSGPACK
    assert msgspec.msgpack.decode(packed.content)["output"] == [2, 3]


def test_facts_come_in_headers_as_with_an_ask(cloud: Room) -> None:
    """Tier, model, plan and trace."""
    response = post(cloud, {"text": "a b"}, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    assert answered(response) == {"words": 2}
    assert response.headers["trivium-tier"] == "cloud"
    assert response.headers["traceparent"].split("-")[1] == "a" * 32


def test_parts_go_to_inputs_by_name_then_by_kind(cloud: Room) -> None:
    """A document is any file, and a text where no other input takes one."""
    text = {"kind": "text", "text": "hello"}
    photo = {"media": "image/png", "data": PHOTO}
    for parts in (
        [text, {**photo, "name": "image"}, {**photo, "name": "second"}],
        [photo, text, photo],
        [{**text, "name": "text"}, {"kind": "document", "data": PHOTO}, {**photo, "kind": "image"}],
    ):
        found = answered(post(cloud, {"function": "mixed.tell", "parts": parts}))
        assert found == {"size": [2, 3], "text": "hello", "bytes": len(PNG)}
    mixed = {"image": PHOTO, "texts": ["one", "two"], "options": {"loud": True}}
    found = answered(post(cloud, mixed))  # inferred, too
    assert found == {"size": [2, 3], "text": "ONE", "bytes": 3}


def test_an_input_may_take_several_parts(cloud: Room) -> None:
    """In their order, and no more than it takes."""
    ask = {"function": "mixed.count", "texts": ["hello", "abc"], "documents": [PHOTO, PHOTO]}
    assert answered(post(cloud, ask)) == ["hello", 3, len(PNG), len(PNG)]
    named = [
        {"name": "documents", "text": "ab"},
        {"text": "hello"},
        {"kind": "document", "text": "a"},
    ]
    assert answered(post(cloud, {"function": "mixed.count", "parts": named})) == ["hello", 2, 1]
    # For a mix that has no default of its own there is one for all others.
    assert answered(post(cloud, {"text": "x", "document": PHOTO})) == ["x", len(PNG)]
    large = post(cloud, ask | {"documents": [PHOTO] * 3})
    assert "document, which mixed.count has no room for" in fault(large)["detail"]
    none = post(cloud, {"function": "mixed.count", "text": "a"})
    assert "mixed.count needs documents (1 to 3 of document)" in fault(none)["detail"]


def test_a_form_carries_fields_and_files(cloud: Room) -> None:
    """As curl's -F and browsers send it."""
    body = form(
        ('"function"', "", b"mixed.tell"),
        ('"options"', "", b'{"loud": true}'),
        ('"image"; filename="a.png"', "Content-Type: image/png\r\n", PNG),
        ('"text"', "", "\u00e9t\u00e9".encode()),
        ('"second"; filename="x"', "Content-Type: application/octet-stream\r\n", b"\x00" * 9),
    )
    wanted = {"size": [2, 3], "text": "\u00c9T\u00c9", "bytes": 9}
    assert answered(post(cloud, body, FORM)) == wanted
    # In pieces of seven bytes, so that each boundary is cut somewhere.
    body = b"before\r\n" + body + b"after"  # which a reader is to ignore
    pieces = chunks(*(body[i : i + 7] for i in range(0, len(body), 7)))
    response = cloud.send("POST", PATH, content=pieces, headers={"content-type": FORM})
    assert answered(response) == wanted
    typed = form(('"image"; filename="a"', "", PNG), ('"timeout"', "", b"3"))
    assert answered(post(cloud, typed, FORM)) == [2, 3]
    encoded = form(('"image"', "", PHOTO.encode()), ('"async"', "", b"false"))
    assert answered(post(cloud, encoded, FORM)) == [2, 3]


def test_answers_stream_to_whoever_wants_parts(cloud: Room) -> None:
    """Events, as with an ask."""
    response = post(cloud, {"function": "text.spell", "text": "ab"}, accept=EVENTS)
    assert response.headers["content-type"].startswith(EVENTS)
    assert response.text.count("event: part\n") == 2


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, "the request has no part"),
        ({"text": None}, "the request has no part"),
        ({"audio": PHOTO}, "audio begins like no audio that is taken"),
        ({"image": "a"}, "image is no base64: "),
        ({"image": PHOTO[:-1]}, "image is no base64: "),
        ({"image": "\u2026"}, "image is no base64: "),
        ({"image": 7}, "image is int; it must be a string or an object"),
        ({"image": {"kind": "text", "data": PHOTO}}, "image is image already"),
        ({"image": {}}, "image has nothing; it must have one of data, text, upload and url"),
        ({"image": {"data": PHOTO, "text": "a"}}, "image has data, text; it must have one of"),
        ({"image": {"text": "a"}}, "image is text, which no image is"),
        ({"image": {"media": "audio/wav", "data": PHOTO}}, "image is 'audio/wav', which is no"),
        ({"image": {"media": "a\nb", "data": PHOTO}}, "image has the media type 'a"),
        ({"image": "data:image/png"}, "image is no data URL"),
        ({"image": {"data": True}}, "image has data that is bool"),
        ({"image": "http://localhost/a.png"}, "fetched"),
        ({"image": "upload:1"}, "upload"),
        ({"sound": "a"}, "unknown field `sound`"),
        ({"parts": [{"sort": "image"}]}, "unknown field `sort` - at `$.parts[0]`"),
        ({"parts": [{"kind": "smell", "data": ""}]}, "Invalid enum value 'smell'"),
        ({"text": "a", "timeout": 0}, "timeout is 0.0 s; it must be above 0"),
        ({"text": "a", "timeout": "soon"}, "Expected `float | null`, got `str` - at `$.timeout`"),
        ({"text": "a", "budget": {"ms": -1}}, "ms is -1"),
        ({"text": "a", "async": "yes"}, "Expected `bool`"),
        ({"image": PHOTO, "audio": PHOTO}, "audio begins like no audio"),
        ({"image": PHOTO, "document": PHOTO}, "mixed.count needs text (text)"),
        ({"function": "image.size", "text": "a"}, "text is text, which image.size has no room for"),
        ({"function": "text.count", "image": PHOTO}, "takes: text (text)"),
        ({"function": "text.count", "texts": ["a", "b"]}, "texts[1] is text, which text.count"),
        ({"function": "mixed.tell", "text": "a"}, "mixed.tell needs image (image), second (doc"),
        ({"function": "text.count", "parts": [{"name": "x", "text": "a"}]}, "input 'x'"),
        ([], "is no object"),
    ],
)
def test_what_is_wrong_is_named(cloud: Room, body: Any, expected: str) -> None:
    """The field, its value and what is allowed."""
    response = post(cloud, body)
    assert response.status_code in (400, 403, 404)
    assert expected in fault(response)["detail"]


def test_unknown_functions_and_content_types(cloud: Room) -> None:
    """As with an ask; and a request is one of three forms."""
    response = post(cloud, {"function": "text.cuont", "text": "a"})
    assert said(response).startswith("404 unknown_function: there is no function 'text.cuont'")
    assert said(post(cloud, PNG, "image/png")).startswith("400 bad_input: content type 'image/png'")
    assert said(post(cloud, b"")).startswith("400 bad_input: the body is empty")
    assert said(post(cloud, b"{")).startswith("400 bad_input: the JSON is damaged: ")
    assert cloud.get(PATH).status_code == 405
    assert cloud.send("POST", PATH, key=None, content=b"{}").status_code == 401
    assert cloud.send("POST", f"{PATH}/more", content=b"{}").status_code == 404


def test_an_answer_that_will_not_be_in_time_is_refused(cloud: Room) -> None:
    """504 at once, for nobody would wait for it."""
    response = post(cloud, {"function": "text.any", "text": "a", "timeout": 1e-6})
    assert said(response).startswith("504 over_budget: ")


@pytest.mark.parametrize("how", ["async", "allow_async"])
def test_without_a_store_there_are_no_tasks(cloud: Room, how: str) -> None:
    """It is said, and not tried."""
    response = post(cloud, {"text": "a", how: True})
    assert said(response).startswith("503 tier_failed: tasks need a Redis or Valkey")


DEEP = b'{"text": "a", "options": {"least": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
NESTED = b'{"text": "a", "options": {"least": ' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}}"


@pytest.mark.parametrize(
    ("body", "media", "expected"),
    [
        (DEEP, JSON, "400 bad_input: the JSON is damaged"),
        (NESTED, JSON, f"400 bad_input: the request is nested deeper than {MOST_DEPTH}"),
        (b"\x91" * 100_000, MSGPACK, "400 bad_input: the MessagePack is damaged"),
        (
            encode({"texts": ["a"] * (MOST_PARTS + 1)}, JSON),
            JSON,
            f"413 too_large: the request has more than {MOST_PARTS} parts",
        ),
        (
            encode({"parts": [{"text": "a"}] * (MOST_PARTS + 1)}, JSON),
            JSON,
            f"413 too_large: the request has more than {MOST_PARTS} parts",
        ),
        (
            encode({"table": "data:," + "a" * (7 << 20)}, JSON),
            JSON,
            "413 too_large: table is larger than 2097152 bytes",
        ),
        (
            encode({"table": {"data": "A" * (4 << 20)}}, JSON),
            JSON,
            "413 too_large: table has 4194304 characters of base64; at most 2097152 bytes",
        ),
        (
            form(*[('"text"', "", b"a")] * 5_000),
            FORM,
            "413 too_large: the form is above a limit: ",
        ),
        (
            form(*[(f'"{i}"; filename="a"', "", b"a") for i in range(MOST_PARTS + 3)]),
            FORM,
            f"413 too_large: the form has more than {MOST_PARTS} parts",
        ),
        (
            form(('"options"', "", b"a" * 300_000)),
            FORM,
            "413 too_large: the field options is above",
        ),
        (
            form(('"text"', "X: " + "y" * 9_000 + "\r\n", b"a")),
            FORM,
            "413 too_large: the form is above a limit: ",
        ),
        (
            form(('"text"', "X: y\r\n" * 30, b"a")),
            FORM,
            "413 too_large: the form is above a limit: ",
        ),
        (form(('"text"', "", b"a"))[:-6], FORM, "400 bad_input: the form is damaged"),
        (b"there is none", FORM, "400 bad_input: the form is damaged"),
        (b"", FORM, "400 bad_input: the form is damaged"),
        (b"--here\r\n\r\na\r\n--here--", FORM, "400 bad_input: the form is damaged"),
        (form(('"text"', "", b"\xff")), FORM, "400 bad_input: the form's field text is not UTF-8"),
        (form(('"async"', "", b"yes")), FORM, "400 bad_input: the form's field async is not valid"),
        (form(('"options"', "", b"{")), FORM, "400 bad_input: the form's field options is not"),
        (
            form(('"options"', "", b"{}"), ('"options"', "", b"{}")),
            FORM,
            "400 bad_input: the form has the field options twice",
        ),
        (form(('"text"', "", b"a")), "multipart/form-data", "400 bad_input: the form's boundary"),
        (
            form(('"text"', "", b"a")),
            f"multipart/form-data; boundary={'b' * 71}",
            "400 bad_input: the form's boundary must have 1 to 70",
        ),
    ],
)
def test_hostile_bodies_are_refused(cloud: Room, body: bytes, media: str, expected: str) -> None:
    """Before anything of them is decoded, with a sentence that says why."""
    assert said(post(cloud, body, media)).startswith(expected)


def test_a_body_that_lies_about_its_length_is_refused_at_once(cloud: Room) -> None:
    """What is announced above the limit is not read; what grows above it is cut off."""
    huge = cloud.send(
        "POST", PATH, content=b"{}", headers={"content-type": JSON, "content-length": str(1 << 40)}
    )
    assert said(huge).startswith("413 too_large: the request is too large; at most ")
    pieces = chunks(*[b"\x00" * (1 << 20)] * 50)
    grown = cloud.send("POST", PATH, content=pieces, headers={"content-type": FORM})
    assert grown.status_code in (400, 413)
    pieces = chunks(*[b" " * (1 << 20)] * 50)
    grown = cloud.send("POST", PATH, content=pieces, headers={"content-type": JSON})
    assert said(grown).startswith("413 too_large: ")


def test_a_body_that_stalls_is_given_up(cloud: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow client holds nothing for long."""
    monkeypatch.setattr("trivium.hosts.server.web.STALL_S", 0.05)

    async def slow() -> Any:
        yield b'{"text": '
        await asyncio.sleep(1)
        yield b'"a"}'

    response = cloud.send("POST", PATH, content=slow(), headers={"content-type": JSON})
    # httpx's own transport gives the body on without delay of its own.
    assert said(response).startswith("408 bad_ask: the body stalled for 0.05 s after 9 bytes")


def test_a_small_file_that_becomes_large_is_refused(cloud: Room) -> None:
    """A picture of 50,000 x 50,000 pixels in a hundred bytes never meets a decoder."""
    bomb = base64.b64encode(samples.claims(50_000, 50_000)).decode()
    assert said(post(cloud, {"image": bomb})).startswith("413 too_large: the image has 50000 x")


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
FIELDS = st.sampled_from([*SHORT, *Wanted.__struct_encode_fields__, "kind", "data", "x"])
VALUES = st.dictionaries(
    st.sampled_from([*Given.__struct_fields__, "x"]),
    ODD | st.sampled_from(["image", "text", "image/png", PHOTO, f"data:,{PHOTO}"]),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.dictionaries(FIELDS, ODD | VALUES | st.lists(VALUES, max_size=3), max_size=5),
    media=st.sampled_from([JSON, MSGPACK]),
)
def test_whatever_a_request_holds_the_answer_has_a_known_shape(
    cloud: Room, body: dict[str, Any], media: str
) -> None:
    """Fields of any type and any mix end in an answer or the caller's error."""
    try:
        packed = encode(body, media)
    except (OverflowError, ValueError):
        return
    response = post(cloud, packed, media)
    assert response.status_code < 500 or response.status_code == 503, response.text
    if response.status_code != 200:
        fault(response)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=64), form=st.sampled_from([JSON, MSGPACK]))
def test_random_bytes_are_read_or_refused(body: bytes, form: str) -> None:
    """Nothing but our own errors comes out."""
    with contextlib.suppress(BadInput, TooLarge):
        read(body, form)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=6)), max_size=4),
)
def test_damaged_forms_are_answered_or_refused(cloud: Room, cuts: list[tuple[int, bytes]]) -> None:
    """Wherever something else stands than did."""
    body = form(
        ('"function"', "", b"image.size"),
        ('"image"; filename="a.png"', "Content-Type: image/png\r\n", PNG),
    )
    for place, data in cuts:
        body = body[:place] + data + body[place + len(data) :]
    response = post(cloud, body, FORM)
    assert response.status_code < 500, response.text


def test_defaults_are_read_or_refused() -> None:
    """Kinds in any order, functions in theirs."""
    assert read_defaults("text+image=a.b|c.d, text=e.f") == {
        "image+text": ("a.b", "c.d"),
        "text": ("e.f",),
    }
    for wrong in ("smell=a.b", "text", "text="):
        with pytest.raises(ValueError, match="is no default"):
            read_defaults(wrong)


def test_what_the_defaults_name_takes_those_kinds() -> None:
    """Of the built-in functions each takes what it is to answer."""
    zoo = Path(__file__).parents[2] / "models" / "zoo"
    for kinds, names in read_defaults(DEFAULTS).items():
        for name in names:
            manifest = zoo / name / "manifest.json"
            if manifest.is_file() and kinds != "*":
                inputs = json.loads(manifest.read_text())["function"]["inputs"]
                assert sorted(each["kind"] for each in inputs) == kinds.split("+")
