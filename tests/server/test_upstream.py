"""The next hop: dead, garbled, cut off, and well."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from toys import collect
from trivium.contract import (
    FRAMES,
    JSON,
    MSGPACK,
    Answer,
    Ask,
    Blob,
    Budget,
    Fault,
    Part,
    Plan,
    Refusal,
    Road,
    Tier,
    Times,
    decode,
    encode,
    frame,
)
from trivium.errors import ERRORS, TierUnreachable, TriviumError
from trivium.hosts.server.upstream import HttpUpstream

SECRET = "the-key-nobody-may-read"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ASK = Ask(function="text.count", inputs={"text": "a"}, trace=TRACE)
ROADS = {
    "text.count": [
        Road(tier=Tier.CLOUD, version="1.0.0", model="toy", quality=1.0, ms=(1.0, 2.0, 3.0))
    ]
}
ANSWER = Answer(
    function="text.count",
    version="1.0.0",
    output={"words": 1},
    tier=Tier.CLOUD,
    model="toy",
    plan=Plan(tiers=(Tier.CLOUD,), reason="r"),
    ms=Times(run=1.0),
)

Handler = Callable[[httpx.Request], httpx.Response]


def upstream(handler: Handler) -> HttpUpstream:
    """Return the hop to a server that answers as `handler` does."""
    return HttpUpstream("http://cloud", SECRET, "cloud", httpx.MockTransport(handler))


def giving(status: int, body: bytes, media: str = MSGPACK) -> HttpUpstream:
    """Return the hop to a server that always answers alike."""
    return upstream(lambda _: httpx.Response(status, content=body, headers={"content-type": media}))


def infer(hop: HttpUpstream, ask: Ask = ASK) -> Answer:
    """Return what the hop answers."""
    return asyncio.run(hop.infer(ask))


def stream(hop: HttpUpstream, ask: Ask = ASK) -> list[Part | Answer]:
    """Return all parts that the hop gives."""
    return asyncio.run(collect(hop.stream(ask)))


def failure(work: Callable[[], object]) -> TriviumError:
    """Return the error that an ask ends with; it never tells the key."""
    with pytest.raises(TriviumError) as caught:
        work()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r} {error} {getattr(error, '__notes__', '')}"
        error = error.__cause__ or error.__context__
    return caught.value


def test_an_ask_crosses_whole() -> None:
    """As MessagePack with the key and the trace; the answer comes back as it was."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=encode(ANSWER))

    ask = Ask(
        function="image.size",
        inputs={"image": Blob(media="image/png", data=b"\0\xff")},
        options={"top": 3},
        budget=Budget(ms=70.5, quality=0.5, reach=Tier.CLOUD),
        tiers=(Tier.CLOUD,),
        trace=TRACE,
    )
    assert infer(upstream(handler), ask) == ANSWER
    (request,) = seen
    assert (request.method, request.url.path) == ("POST", "/v1/infer/image.size")
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["content-type"] == request.headers["accept"] == MSGPACK
    assert request.headers["traceparent"] == TRACE
    assert decode(request.content, Ask) == ask


def test_a_refused_connection_is_a_tier_out_of_reach() -> None:
    """Nobody listens: the error says which tier, and when to try again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hop = HttpUpstream(f"http://127.0.0.1:{port}", SECRET, "cloud")
    for ask in (infer, stream):
        error = failure(lambda ask=ask: ask(hop))  # type: ignore[misc] # bound at once
        assert isinstance(error, TierUnreachable)
        assert error.message == "the cloud tier did not answer (ConnectError)"
        assert (error.tier, error.retry_after) == ("cloud", 2.0)


@pytest.mark.parametrize(
    "kind", [httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.WriteError, httpx.PoolTimeout]
)
def test_a_broken_connection_is_a_tier_out_of_reach(kind: type[httpx.TransportError]) -> None:
    """In whatever way it broke."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise kind(f"while sending {SECRET}", request=request)

    for ask in (infer, stream):
        hop = upstream(handler)
        with pytest.raises(TierUnreachable, match=kind.__name__) as caught:
            ask(hop)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        b"\xc1",
        encode(Part(output=1)),
        encode({"kind": "answer"}),
        b"{}",
        b"\x91" * 5000,
    ],
)
def test_a_garbled_answer_is_a_tier_out_of_reach(body: bytes) -> None:
    """It may be another program's port."""
    error = failure(lambda: infer(giving(200, body)))
    assert isinstance(error, TierUnreachable)
    assert error.message.startswith("the cloud's answer is not understood: ")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        b"\0\0\x13\x88" + b"\x91" * 5000,
    ],
)
def test_garbled_parts_are_a_tier_out_of_reach(body: bytes) -> None:
    """They are not the caller's mistake, however long they claim to be."""
    error = failure(lambda: stream(giving(200, body, "text/html")))
    assert isinstance(error, TierUnreachable)
    assert error.message.startswith("the cloud's parts are not understood: ")


@pytest.mark.parametrize("status", [204, 302, 404, 500, 502, 503])
@pytest.mark.parametrize("body", [b"", b"<html>Bad Gateway</html>", b'{"detail": "no"}'])
def test_an_answer_of_a_proxy_is_a_tier_out_of_reach(status: int, body: bytes) -> None:
    """What stands between speaks HTML."""
    for ask in (infer, stream):
        hop = giving(status, body, "text/html")
        error = failure(lambda ask=ask, hop=hop: ask(hop))  # type: ignore[misc] # bound at once
        assert isinstance(error, TierUnreachable)
        assert f"the cloud answered {status} in a form" in error.message


@pytest.mark.parametrize("code", sorted(set(ERRORS) - {"unauthenticated"}))
def test_an_error_is_rebuilt(code: str) -> None:
    """With all that the other tier said of it."""
    sent = Fault(
        code=code, message="what happened", tier="cloud", where="f.py, line 1", retry_after=3.0
    )
    body = encode(Refusal(error=sent))
    for ask in (infer, stream):
        hop = giving(ERRORS[code].status, body)
        error = failure(lambda ask=ask, hop=hop: ask(hop))  # type: ignore[misc] # bound at once
        assert type(error) is ERRORS[code]
        assert Fault.of(error) == sent


def test_a_refused_key_is_not_the_callers() -> None:
    """The caller was let in; this tier was not."""
    body = encode(Refusal(error=Fault(code="unauthenticated", message="no")))
    error = failure(lambda: infer(giving(401, body)))
    assert isinstance(error, TierUnreachable)
    assert error.message == "the cloud refuses this tier's key"


def test_parts_arrive_one_by_one() -> None:
    """However the bytes are cut, and with an error in MessagePack accepted."""
    data = frame(Part(output="a")) + frame(Part(output="b")) + frame(ANSWER)

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == f"{FRAMES}, {MSGPACK}"

        async def body() -> AsyncIterator[bytes]:
            for i in range(0, len(data), 7):
                yield data[i : i + 7]

        return httpx.Response(200, content=body())

    assert stream(upstream(handler)) == [Part(output="a"), Part(output="b"), ANSWER]


def cut(error: httpx.HTTPError | None) -> Handler:
    """Return a server that dies after the first part, with an error or without."""

    def handler(_: httpx.Request) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            yield frame(Part(output="a")) + frame(ANSWER)[:9]
            if error is not None:
                raise error

        return httpx.Response(200, content=body())

    return handler


def test_a_stream_that_is_cut_ends_in_an_error() -> None:
    """What came before the cut is kept."""
    found: list[Any] = []

    async def work() -> None:
        async for part in upstream(cut(httpx.ReadError("gone"))).stream(ASK):
            found.append(part)

    with pytest.raises(TierUnreachable, match="ReadError"):
        asyncio.run(work())
    assert found == [Part(output="a")]
    assert stream(upstream(cut(None))) == [Part(output="a")]


def test_a_fault_in_a_stream_is_raised() -> None:
    """After the parts before it."""
    body = frame(Part(output="a")) + frame(Fault(code="run_failed", message="too loud"))
    error = failure(lambda: stream(giving(200, body, FRAMES)))
    assert (error.code, error.message) == ("run_failed", "too loud")


def test_roads_go_when_the_hop_dies_and_come_back() -> None:
    """They stay known, so that a plan can say why they were not taken."""
    alive = True

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        if not alive:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=encode(ROADS, JSON))

    async def work() -> None:
        nonlocal alive
        async with upstream(handler) as hop:
            assert list(hop.functions()) == ["text.count"]
            assert hop.roads("text.cuont") == []
            (road,) = hop.roads("text.count")
            assert road.ready
            extra = road.ms[0] - 1.0
            assert extra > 0
            assert road.ms == pytest.approx((1 + extra, 2 + extra, 3 + 2 * extra))
            alive = False
            await hop.poll()
            await hop.poll()
            assert [road.ready for road in hop.roads("text.count")] == [False]
            alive = True
            await hop.poll()
            assert [road.ready for road in hop.roads("text.count")] == [True]

    asyncio.run(work())


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"a": [{"tier": "moon"}]}', b"[" * 9999])
@pytest.mark.parametrize("status", [200, 401, 500])
def test_garbled_roads_are_none(status: int, body: bytes) -> None:
    """The tier starts all the same."""

    async def work() -> None:
        async with giving(status, body, JSON) as hop:
            assert hop.functions() == []

    asyncio.run(work())
