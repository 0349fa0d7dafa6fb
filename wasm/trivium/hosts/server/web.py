"""How does an HTTP request become an ask, and an answer or error a response?"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import (
    ASGIApp,
    HTTPResponseBodyEvent,
    HTTPResponseStartEvent,
    Receive,
    Scope,
    Send,
)
from msgspec.structs import replace

from ...contract import (
    EVENTS,
    FRAMES,
    JSON,
    MSGPACK,
    PROBLEM,
    Answer,
    Ask,
    Blob,
    Budget,
    Fault,
    Part,
    Problem,
    Refusal,
    Schema,
    Tier,
    decode,
    encode,
    frame,
)
from ...errors import ERRORS, BadInput, RunFailed, TooLarge, TriviumError
from ...run import closing
from ...trace import Open, Tracer
from .. import limits, tabular
from . import masking
from .audio import SOUNDS
from .beside import attended
from .callers import asking
from .media import IMAGES
from .session import WAITED
from .upstream import UNSENDABLE

log = logging.getLogger("trivium.web")

AnyRequest = Request[Any, Any, Any]
AnyConnection = ASGIConnection[Any, Any, Any, Any]

MOST_BODY = 48 << 20
"""Bytes of one request: an image at its limit still fits when a JSON body carries it in base64."""

STALL_S = 20.0
"""Seconds that a client may leave a body without a byte where its request is read in pieces."""

INFER = "/v1/infer"
"""Under this path asks are answered, each function by its name."""

ROUTE = INFER + "/{function}"
"""How such a path is called where all of them are one."""

HEADERS = (
    "trivium-tier",
    "trivium-plan",
    "trivium-model",
    "trivium-expected",
    "trivium-queue",
    "trivium-cache",
    "server-timing",
    "traceparent",
)
"""The response headers that say how an answer came about."""

ASK_HEADERS = (
    "trivium-ms",
    "trivium-quality",
    "trivium-reach",
    "trivium-spend",
    "trivium-tiers",
    "trivium-version",
)
"""The request headers that say of a raw body what an Ask's fields say of themselves."""

ACCEPTED = "trivium.accepted"
"""Where in a scope it says when the first byte of a request was read, in ns of perf_counter."""

TRACE: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="")
"""The trace that is worked for, for log lines."""

ANY = "*/*"
_LARGE = f"the request is too large; at most {MOST_BODY} bytes are allowed"
TAKEN = {
    "text": ("text/plain",),
    "image": tuple(IMAGES),
    "audio": tuple(SOUNDS),
    "video": tuple(limits.VIDEOS),
    "document": (ANY,),
    **dict.fromkeys(tabular.READ, (tabular.CSV,)),
}
"""The media types that each kind of input is taken in."""

_STATUS_CODES = {
    401: "unauthenticated",
    403: "not_allowed",
    404: "not_found",
    409: "conflict",
    413: "too_large",
    429: "quota_exceeded",
}


def asked(scope: Scope) -> str:
    """Return the function's name in the path under the mount INFER; take POST alone."""
    path = scope["path"].rstrip("/")
    # As it came, for the errors below and later.
    scope["path"] = INFER + path
    scope["path_template"] = ROUTE
    before, _, name = path.rpartition("/")
    if scope["type"] == ScopeType.WEBSOCKET or before or not name or not path.startswith("/"):
        raise NotFoundException
    if scope["method"] != "POST":
        raise MethodNotAllowedException(headers={"allow": "POST"})
    return name


def said(scope: Scope) -> dict[str, str]:
    """Return the headers by lower-case name, the last of those that come twice."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


class Incoming:
    """A request as ASGI gives it: what an ask needs of one, and no more.

    `headers` are by lower-case name, the last of those that come twice. Left as a context manager,
    it ends the span that it was `traced` under.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._begun = time.perf_counter_ns()
        self._accepted: int = scope.get(ACCEPTED, self._begun)  # type: ignore[assignment] # uvicorn's, or ours
        self._span: Open | None = None
        self.headers = said(scope)
        self.query: bytes = scope["query_string"]
        self.receive = receive

    def traced(
        self, tracer: Tracer, trace: str, caller: str, route: str, function: str = ""
    ) -> str:
        """Return the `traceparent` of a span of this request, which began when its socket was read.

        It stands under `trace`, which is returned as it is where nobody takes spans.
        """
        if tracer.emit is None:
            return trace
        facts = {
            "http.request.method": "POST",
            "http.route": route,
            "trivium.queue_ms": (self._begun - self._accepted) / 1e6,
        }
        if caller:
            facts["trivium.caller"] = caller
        if function:
            facts["trivium.function"] = function
        self._span = tracer.span(f"POST {route}", trace, **facts)
        self._span.began(time.perf_counter_ns() - self._accepted)
        TRACE.set(self._span.trace_id)
        WAITED.set([0.0])
        return self._span.header

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._span is not None:
            self._span.attributes["trivium.wait_ms"] = WAITED.get([0.0])[0]
            self._span.__exit__(kind, error, traceback)

    async def body(self) -> bytes:
        """Return the whole body; raise TooLarge above MOST_BODY, before it is taken in."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > MOST_BODY:
            raise TooLarge(_LARGE)
        body = bytearray()
        while True:
            message: Any = await self.receive()
            if message["type"] != "http.request":
                raise BadInput(f"the client left after {len(body)} bytes of the body")
            if not body and not message.get("more_body"):
                return bytes(message["body"])
            body += message["body"]
            if len(body) > MOST_BODY:
                raise TooLarge(_LARGE)
            if not message.get("more_body"):
                return bytes(body)

    async def pieces(self, most: int = MOST_BODY) -> AsyncIterator[bytes]:
        """Yield the body as it comes; raise TooLarge above `most` bytes, and when it stalls."""
        large = f"the request is too large; at most {most} bytes are allowed"
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > most:
            raise TooLarge(large)
        size, more = 0, True
        while more:
            try:
                message: Any = await asyncio.wait_for(self.receive(), STALL_S)
            except TimeoutError:
                raise ClientException(
                    f"the body stalled for {STALL_S:g} s after {size} bytes", status_code=408
                ) from None
            if message["type"] != "http.request":
                raise BadInput(f"the client left after {size} bytes of the body")
            piece, more = message.get("body", b""), message.get("more_body", False)
            size += len(piece)
            if size > most:
                raise TooLarge(large)
            if piece:
                yield piece


async def read_ask(request: Incoming, name: str, schema: Schema | None) -> Ask:
    """Return the ask that a request carries, as JSON, MessagePack or the raw body of one input.

    `schema` is that of the function, where this tier knows it: a raw body needs it.
    """
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    media = media.strip().lower()
    body = await request.body()
    if media in (JSON, MSGPACK):
        if not body:
            raise BadInput(f"the body is empty; it should be an Ask as {media}")
        ask = decode(body, Ask, media)
        if ask.function not in ("", name):
            raise BadInput(f"the body asks for {ask.function!r}, the path for {name!r}")
    else:
        ask = _raw(request, media, parameters, body, name, schema)
    return replace(ask, function=name, trace=ask.trace or request.headers.get("traceparent", ""))


def _raw(
    request: Incoming, media: str, parameters: str, body: bytes, name: str, schema: Schema | None
) -> Ask:
    inputs = schema.inputs if schema else ()
    taker = next((each for each in inputs if {media, ANY} & {*TAKEN.get(each.kind, ())}), None)
    if taker is None:
        kinds = (kind for each in inputs for kind in TAKEN.get(each.kind, ()))
        allowed = [*kinds, JSON, MSGPACK]
        raise BadInput(
            f"content type {media[:100]!r} is none that {name} takes: {', '.join(allowed)}"
        )
    if not body and taker.kind != "document":
        raise BadInput(f"the body is empty; it should be the {taker.kind} as {media}")
    value: str | Blob = Blob(media=media, data=body)
    if taker.kind == "text":
        charset = parameters.partition("charset=")[2].strip(' "').lower()
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise BadInput(f"charset {charset[:40]!r} is not utf-8")
        try:
            value = body.decode()
        except UnicodeDecodeError as error:
            raise BadInput(f"the text is not UTF-8: {error.reason} at byte {error.start}") from None
    said = {name[8:]: text for name, text in request.headers.items() if name.startswith("trivium-")}
    tiers = [each.strip() for each in said.pop("tiers", "").split(",") if each.strip()]
    version = said.pop("version", "")
    try:
        return Ask(
            version=version,
            inputs={f"{taker.name}.0" if taker.many else taker.name: value},
            options=dict(parse_qsl(request.query.decode("latin-1"), True)) if request.query else {},
            budget=msgspec.convert(said, Budget, strict=False) if said else Budget(),
            tiers=msgspec.convert(tiers, tuple[Tier, ...]) if tiers else (),
        )
    except msgspec.ValidationError as error:
        raise BadInput(f"the Trivium- headers are not valid: {error}") from error


class Reply:
    """A finished response as an ASGI application: nothing is left to be negotiated or merged."""

    def __init__(
        self, body: bytes, media: str, headers: Mapping[str, str], status: int = 200
    ) -> None:
        self._body = body
        self._status = status
        self._headers = [
            (b"content-type", media.encode()),
            (b"content-length", b"%d" % len(body)),
            *((name.encode(), value.encode()) for name, value in headers.items()),
        ]

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": self._status,
            "headers": self._headers,
        }
        await send(start)
        body: HTTPResponseBodyEvent = {
            "type": "http.response.body",
            "body": self._body,
            "more_body": False,
        }
        await send(body)


async def respond(request: Incoming, answer: Answer) -> Reply:
    """Return the answer in the form the request accepts, as whoever asks may see it."""
    caller = asking.get()
    if caller is not None and caller.masked:
        answer = await masked(answer)
    media = _accepted(request.headers)
    try:
        content = encode(answer, media)
    except UNSENDABLE as error:
        raise RunFailed(
            f"{answer.function} returned what can't be sent: {error}", tier=answer.tier
        ) from error
    return Reply(content, media, _facts(answer))


def reply(request: Incoming, value: object, headers: Mapping[str, str], status: int) -> Reply:
    """Return any of our nouns in the form the request accepts."""
    media = _accepted(request.headers)
    return Reply(encode(value, media), media, headers, status)


async def masked(answer: Answer) -> Answer:
    """Return an answer without what tells of a person; others are served meanwhile."""
    output = await asyncio.to_thread(masking.current().output, answer.output)
    return replace(answer, output=output)


async def _wholes(
    parts: AsyncIterator[Part | Answer | Fault],
) -> AsyncIterator[Part | Answer | Fault]:
    """Yield what is whole: a name may begin in one part and end in the next."""
    async with closing(parts):
        async for part in parts:
            if isinstance(part, Answer):
                yield await masked(part)
            elif isinstance(part, Fault):
                yield part


async def stream(request: Incoming, parts: AsyncIterator[Part | Answer | Fault]) -> ASGIApp:
    """Return the parts as server-sent events or as frames; errors before the first are raised."""
    caller = asking.get()
    if caller is not None and caller.masked:
        parts = _wholes(parts)
    media = FRAMES if FRAMES in request.headers.get("accept", "") else EVENTS
    shape = frame if media == FRAMES else _event
    first = _packed(await attended(request.receive, anext(parts)), shape)

    async def body() -> AsyncIterator[bytes]:
        yield first
        try:
            async for part in parts:
                yield _packed(part, shape)
        except RunFailed as error:
            yield shape(Fault.of(error))

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        response = ASGIStreamingResponse(
            iterator=body(), media_type=media, headers={"cache-control": "no-store"}
        )
        # Ended at once if the client is gone: a function that is between two parts holds a cache.
        async with closing(parts):
            await response(scope, receive, send)

    return respond


def streaming(request: Incoming) -> bool:
    """Return whether the request wants the answer in parts."""
    accept = request.headers.get("accept", "")
    return EVENTS in accept or FRAMES in accept


def refuse(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Return any error as problem details, or as a Refusal to whoever reads MessagePack."""
    headers: dict[str, str] = {}
    if isinstance(error, TriviumError):
        status, fault = error.status, Fault.of(error)
        if error.retry_after is not None:
            headers["retry-after"] = str(max(1, round(error.retry_after)))
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    elif isinstance(error, HTTPException):
        status = error.status_code
        code = _STATUS_CODES.get(status, "bad_ask" if status < 500 else "internal")
        fault = Fault(code=code, message=_said(request, error))
        headers.update(error.headers or {})
    else:
        log.error("an unforeseen error", exc_info=error)
        status, fault = 500, Fault(code="internal", message="an internal error; it was logged")
    if _accepted(request.headers) == MSGPACK:
        body, media = encode(Refusal(error=fault)), MSGPACK
    else:
        body, media = encode(Problem.of(fault, status), JSON), PROBLEM
    return Response(body, status_code=status, media_type=media, headers=headers)


def _said(request: AnyRequest, error: HTTPException) -> str:
    if error.status_code == 404:
        return f"there is nothing at {request.url.path[:200]!r}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "")
        return f"{request.method} is not allowed at {request.url.path[:200]!r}; use {allowed}"
    if error.status_code == 413:
        return _LARGE
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        # Each names the field and what it should have been.
        told = [
            f"{each.get('key') or 'the body'}: {each.get('message')}"
            for each in error.extra
            if isinstance(each, dict)
        ]
        return "; ".join(told) or error.detail
    return error.detail


def _accepted(headers: Mapping[str, str]) -> str:
    return MSGPACK if MSGPACK in headers.get("accept", "") else JSON


def _packed(part: Part | Answer | Fault, shape: Callable[[Part | Answer | Fault], bytes]) -> bytes:
    try:
        return shape(part)
    except UNSENDABLE as error:
        raise RunFailed(f"the function gave what can't be sent: {error}") from error


def _event(part: Part | Answer | Fault) -> bytes:
    kind = type(part).__struct_config__.tag
    told = Problem.of(part) if isinstance(part, Fault) else part
    return f"event: {kind}\ndata: ".encode() + encode(told, JSON) + b"\n\n"


def _facts(answer: Answer) -> Mapping[str, str]:
    ms, expected = answer.ms, answer.expected or ()
    facts = {
        "trivium-tier": answer.tier,
        "trivium-plan": answer.plan.reason.encode("ascii", "replace").decode(),
        "trivium-model": answer.model,
        "trivium-expected": ", ".join([f"{each:.1f}" for each in expected]),
        "trivium-queue": f"{answer.queue:.1f}",
        "server-timing": (
            f"decode;dur={ms.decode:.3f}, python;dur={ms.python:.3f}, "
            f"run;dur={ms.run:.3f}, hop;dur={ms.hop:.3f}"
        ),
        "traceparent": answer.trace,
    }
    if answer.cached:
        facts["trivium-cache"] = answer.cached
    return facts


assert set(_STATUS_CODES.values()) <= ERRORS.keys()
