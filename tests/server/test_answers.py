"""The forms of an answer: whole, in parts, too late, and one that can't be sent."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servers import BOTH, Servers, fault, said
from trivium.contract import (
    EVENTS,
    FRAMES,
    JSON,
    MSGPACK,
    Answer,
    Fault,
    Frames,
    Part,
    Problem,
    Refusal,
    decode,
)
from trivium.errors import ERRORS
from trivium.trace import parse

HEADERS = st.dictionaries(
    st.sampled_from(
        ["accept", "traceparent", "origin", "content-encoding", "x-forwarded-for"]
        + [f"trivium-{each}" for each in ("ms", "quality", "reach", "tiers", "version")]
    ),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
)
ASKS = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.dictionaries(st.sampled_from(["text", "image"]), st.text() | st.none()),
        "options": st.dictionaries(
            st.text(max_size=5), st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text()
        ),
        "budget": st.dictionaries(
            st.sampled_from(["ms", "quality", "reach"]), st.floats() | st.text(max_size=5)
        ),
        "tiers": st.lists(st.sampled_from(["page", "edge", "cloud", "moon"])),
        "version": st.text(max_size=5),
        "trace": st.text(),
    },
)


def packed(ask: object) -> bytes:
    """Return an ask as MessagePack; an integer that has no place there makes it empty."""
    try:
        return msgspec.msgpack.encode(ask)
    except OverflowError:
        return b""


BODIES = st.binary(max_size=200) | ASKS.map(msgspec.json.encode) | ASKS.map(packed)


@settings(
    max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(
    name=st.sampled_from(["text.count", "text.words", "image.size", "text.any"])
    | st.text(
        st.characters(min_codepoint=33, exclude_characters="/?#%", codec="utf-8"), max_size=9
    ),
    media=st.sampled_from([JSON, MSGPACK, "text/plain", "image/png", "image/jpeg", "image/gif"]),
    body=BODIES,
    headers=HEADERS,
)
def test_whatever_is_sent_the_answer_has_a_known_shape(
    shared: Servers, name: str, media: str, body: bytes, headers: dict[str, str]
) -> None:
    """Random bytes, types and headers never meet an internal error."""
    for room in shared.rooms:
        response = room.send(
            "POST",
            f"/v1/infer/{quote(name, safe='')}",
            content=body,
            headers=[
                (b"content-type", media.encode()),
                *((key.encode(), value.encode("latin-1")) for key, value in headers.items()),
            ],
        )
        if response.status_code == 200:
            continue
        code = (
            decode(response.content, Refusal).error.code
            if response.headers["content-type"] == MSGPACK
            else fault(response)["code"]
        )
        assert code != "internal"
        assert response.status_code in (ERRORS[code].status, 404, 405)


@pytest.mark.parametrize("media", BOTH)
def test_an_answer_comes_as_it_is_accepted(shared: Servers, media: str) -> None:
    """JSON for people, MessagePack for programs; facts in headers as in the body."""
    for room in shared.rooms:
        response = room.ask("text.line", {"inputs": {"text": "1 2"}}, media, accept=media)
        assert response.headers["content-type"] == media
        answer = decode(response.content, Answer, media)
        assert answer.output == [30.0, 50.0]
        assert response.headers["trivium-tier"] == answer.tier
        assert response.headers["trivium-model"] == answer.model == f"toy-{answer.tier}"
        assert response.headers["trivium-plan"] == answer.plan.reason
        assert response.headers["traceparent"] == answer.trace
        timing = response.headers["server-timing"].split(", ")
        assert [each.split(";dur=")[0] for each in timing] == ["decode", "python", "run", "hop"]
        assert float(timing[2].split("=")[1]) == pytest.approx(answer.ms.run, abs=1e-3)


def test_a_trace_is_carried_on(servers: Servers) -> None:
    """The caller's trace id holds on both tiers and comes back; a bad one starts a new trace."""
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = servers.edge.text("text.count", "a", traceparent=given, trivium_tiers="cloud")
    assert response.headers["traceparent"].split("-")[1] == given.split("-")[1]
    assert {span.trace_id for span in servers.spans} == {given.split("-")[1]}
    assert {span.service for span in servers.spans} == {"edge", "cloud"}
    assert parse(
        servers.edge.text("text.count", "a", traceparent="00-0-0-0").headers["traceparent"]
    )


def test_parts_come_as_events(servers: Servers) -> None:
    """People read server-sent events; the last is the answer."""
    for room in servers.rooms:
        response = room.text("text.spell", "ab", accept=EVENTS)
        assert response.headers["content-type"].startswith(EVENTS)
        assert response.headers["cache-control"] == "no-store"
        events = [event.split("\ndata: ") for event in response.text.strip().split("\n\n")]
        assert [kind for kind, _ in events] == ["event: part", "event: part", "event: answer"]
        assert decode(events[-1][1].encode(), Answer, JSON).output == ["a", "b"]


def test_parts_come_as_frames(servers: Servers) -> None:
    """Programs read MessagePack behind its length, through as many hops as there are."""
    for tier in ("edge", "cloud"):
        response = servers.edge.text("text.spell", "ab", accept=FRAMES, trivium_tiers=tier)
        assert response.headers["content-type"].startswith(FRAMES)
        *parts, answer = Frames().feed(response.content)
        assert parts == [Part(output="a"), Part(output="b")]
        assert isinstance(answer, Answer)
        assert (answer.tier, answer.output) == (tier, ["a", "b"])


def test_an_error_before_the_first_part_is_a_plain_error(servers: Servers) -> None:
    """Nothing was sent yet, so that the status can still say it."""
    for room in servers.rooms:
        assert said(room.text("text.spell", "!", accept=EVENTS)).startswith("500 run_failed: ")
        assert said(room.text("text.spell", " ", accept=EVENTS)).startswith("400 bad_input: ")
        expected = "500 run_failed: the function gave what can't be sent"
        assert said(room.text("text.spell", "?", accept=FRAMES)).startswith(expected)


@pytest.mark.parametrize("text", ["a!", "a?"])
def test_an_error_after_the_first_part_ends_the_stream(servers: Servers, text: str) -> None:
    """A failure or a part that can't be sent is a fault in place of the answer."""
    for tier in ("edge", "cloud"):
        response = servers.edge.text("text.spell", text, accept=FRAMES, trivium_tiers=tier)
        assert response.status_code == 200
        part, last = Frames().feed(response.content)
        assert part == Part(output="a")
        assert isinstance(last, Fault)
        assert last.code == "run_failed"
        events = servers.edge.text("text.spell", text, accept=EVENTS, trivium_tiers=tier).text
        sent = events.strip().rpartition("event: fault\ndata: ")[2]
        problem = decode(sent.encode(), Problem, JSON)
        assert (problem.code, problem.status) == ("run_failed", 500)
        assert problem.type == "urn:trivium:error:run_failed"


def test_a_function_without_parts_streams_its_answer(servers: Servers) -> None:
    """Whoever asks for parts gets the answer as the only one."""
    (answer,) = Frames().feed(servers.edge.text("text.count", "a b", accept=FRAMES).content)
    assert isinstance(answer, Answer)
    assert answer.output == {"words": 2}


def test_an_output_that_cannot_be_sent_is_the_functions_fault(servers: Servers) -> None:
    """An object has no form on the wire; 71 bits have none in MessagePack."""
    for room in servers.rooms:
        failed = "500 run_failed: text.odd returned what can't be sent: "
        assert said(room.text("text.odd", "thing")).startswith(failed)
        assert room.text("text.odd", "big").json()["output"] == 1 << 70
        packed = room.ask("text.odd", {"inputs": {"text": "big"}}, accept=MSGPACK)
        assert decode(packed.content, dict[str, Fault])["error"].code == "run_failed"
        assert room.text("text.odd", "null").json()["output"] is None


def test_an_ask_that_cannot_be_sent_on_is_the_callers(shared: Servers) -> None:
    """JSON may hold what the MessagePack between two tiers can't."""
    ask = {"inputs": {"text": "a"}, "options": {"what": 1 << 70}}
    assert shared.cloud.ask("text.any", ask).json()["output"] == 1 << 70
    for accept in (JSON, EVENTS):
        response = shared.edge.ask("text.any", ask, accept=accept)
        assert said(response).startswith("400 bad_input: the ask can't be sent to the next tier: ")


def test_a_failing_function_is_left_alone_for_a_while(servers: Servers) -> None:
    """After three failures the road is closed, and the caller is told when to come back."""
    for _ in range(3):
        first = servers.cloud.text("text.fail", "a")
        assert (
            said(first) == "500 run_failed: text.fail failed on the cloud tier: ZeroDivisionError"
        )
    closed = servers.cloud.text("text.fail", "a")
    assert said(closed) == "502 tier_unreachable: text.fail is not ready on cloud"
    assert closed.headers["retry-after"] == "1"
    assert fault(closed)["retry_after"] == 1.0


def test_a_budget_nobody_meets_is_refused_at_once(shared: Servers) -> None:
    """The message says what is left, and what the quickest takes."""
    response = shared.edge.ask("text.any", {"inputs": {"text": "a"}, "budget": {"ms": 1e-6}})
    assert said(response).startswith("504 over_budget: 1e-06 ms are left, and cloud takes ")
    floor = shared.edge.text("text.count", "a", trivium_quality="1", trivium_reach="edge")
    assert said(floor) == "504 over_budget: no road reaches quality 1: the best, edge, has 0.95"
