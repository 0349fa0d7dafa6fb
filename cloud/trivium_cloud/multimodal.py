"""How does one request of any parts become an ask, and how is it answered?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, MethodNotAllowedException, NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec.structs import replace
from multipart import parse_options_header as split_header

from trivium.contract import JSON, MSGPACK, Ask
from trivium.errors import BadInput
from trivium.hosts.server import web
from trivium.hosts.server.beside import attended
from trivium.hosts.server.callers import Admit, Caller, asking, told
from trivium.hosts.server.described import MULTIMODAL as PATH
from trivium.hosts.server.described import Accepted
from trivium.hosts.server.server import Server
from trivium.kinds import KINDS

from .cache import Cache
from .outside import Fetcher
from .parts import (
    FORM,
    LONG,
    MOST_BYTES,
    Given,
    Piece,
    Wanted,
    assigned,
    by_name,
    read,
    read_form,
    typed,
    unwrapped,
)
from .settings import DEFAULTS
from .tasks import Tasks
from .uploads import Uploads

ANY_MIX = "*"
PATIENCE_S = 5.0
"""Seconds in which the whole answer is there, unless a request says another time."""


@dataclass(kw_only=True)
class Multimodal:
    """Answers requests by the cloud's engine, or has them done as tasks.

    `defaults` are written as DEFAULTS is.
    """

    server: Server
    admit: Admit
    cache: Cache
    fetcher: Fetcher
    tasks: Tasks
    uploads: Uploads
    defaults: str = DEFAULTS
    _defaults: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self._defaults = read_defaults(self.defaults)

    def route(self) -> ASGIRouteHandler:
        """Return the handler for POST at PATH."""

        @asgi(PATH, copy_scope=False)
        async def multimodal(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == ScopeType.WEBSOCKET:
                raise NotFoundException
            if scope["method"] != "POST":
                raise MethodNotAllowedException(headers={"allow": "POST"})
            caller = await self.admit(scope)
            asking.set(caller)
            with web.Incoming(scope, receive) as request:
                respond = await self.answer(caller, request)
                await respond(scope, receive, send)

        return multimodal

    async def answer(self, caller: Caller, request: web.Incoming) -> ASGIApp:
        """Return the response to one request of a caller who was let in."""
        wanted, parts = await self._read(request)
        caller.check("tasks" if wanted.later or wanted.allow_async else "infer")
        pieces = [await self._piece(caller, where, each) for where, each in parts]
        function = wanted.function or self._inferred(pieces)
        schema = self.server.schema(function)
        above, tracer = request.headers.get("traceparent", ""), self.server.engine.tracer
        ask = Ask(
            function=function,
            version=wanted.version,
            inputs=assigned(schema, pieces) if schema else by_name(pieces),
            options=wanted.options,
            budget=wanted.budget,
            trace=request.traced(tracer, above, told(caller), PATH, function),
        )
        if wanted.later or wanted.allow_async:
            return await self._task(caller, request, wanted, ask)
        patience = 1e3 * (wanted.timeout or PATIENCE_S)
        ms = min(patience, ask.budget.ms or patience)
        ask = replace(ask, budget=replace(ask.budget, ms=ms))
        if web.streaming(request):
            return await web.stream(request, self.server.engine.stream(ask))
        control = request.headers.get("cache-control", "")
        answer = await attended(request.receive, self.cache.infer(caller, ask, control=control))
        return await web.respond(request, answer)

    async def _task(
        self, caller: Caller, request: web.Incoming, wanted: Wanted, ask: Ask
    ) -> ASGIApp:
        task = await self.tasks.accept(
            caller,
            ask,
            idempotency=request.headers.get("idempotency-key", ""),
            webhook=wanted.webhook,
            seconds=wanted.timeout if wanted.later else None,
        )
        if not wanted.later:
            patience = wanted.timeout or PATIENCE_S
            task = await self.tasks.wait(caller, task.task_id, patience)
            if task.status == "done" and task.answer is not None:
                return await web.respond(request, task.answer)
            if task.error is not None:
                raise task.error.error()
        accepted = Accepted(task_id=task.task_id, status=task.status)
        headers = {"location": f"/v1/tasks/{task.task_id}"}
        return web.reply(request, accepted, headers, 202)

    async def _read(self, request: web.Incoming) -> tuple[Wanted, list[tuple[str, Given]]]:
        packed = request.headers.get("content-encoding", "identity")
        if packed != "identity":
            raise ClientException(
                f"content encoding {packed[:20]!r} is not unpacked; send the body as it is",
                status_code=415,
            )
        said = request.headers.get("content-type", "")
        form, parameters = split_header(said)
        if form in (JSON, MSGPACK):
            body = b"".join([piece async for piece in request.pieces()])
            if len(body) < LONG:
                return read(body, form)
            return await self.server.host.work(lambda: read(body, form))
        if form == FORM:
            return await read_form(request, parameters.get("boundary", ""))
        raise BadInput(
            f"content type {form[:100]!r} is none of {JSON}, {FORM} and {MSGPACK}; "
            "a request is one of them"
        )

    async def _piece(self, caller: Caller, where: str, given: Given) -> Piece:
        """Return a part with its bytes, wherever they come from."""
        sources = {
            name: value
            for name in ("data", "text", "upload", "url")
            if (value := getattr(given, name)) is not None
        }
        if len(sources) != 1:
            raise BadInput(
                f"{where} has {', '.join(sources) or 'nothing'}; "
                "it must have one of data, text, upload and url"
            )
        (source,) = sources
        stated, value = given.media.lower(), b""
        kind: str | None = given.kind
        if source == "text":
            kind = kind or "text"
            if kind in ("text", "table", "series"):
                return Piece(where=where, kind=kind, name=given.name, value=sources[source])
            if kind != "document":
                raise BadInput(f"{where} is text, which no {kind} is; send data")
            try:
                stated, value = stated or "text/plain", sources[source].encode()
            except UnicodeEncodeError as error:
                raise BadInput(f"{where} is no Unicode text: {error.reason}") from error
        elif source == "data":
            most = MOST_BYTES[kind] if kind else max(MOST_BYTES.values())
            data = sources[source]
            if isinstance(data, str) and len(data) > LONG:
                inline = await self.server.host.work(lambda: unwrapped(where, data, most))
            else:
                inline = unwrapped(where, data, most)
            stated, value = stated or inline.media, inline.data
        else:
            if source == "upload":
                blob = await self.uploads.blob(caller, sources[source])
            else:
                blob = await self.fetcher.get(sources[source])
            stated, value = stated or blob.media, blob.data
        return typed(where, kind, given.name, stated, value)

    def _inferred(self, pieces: Sequence[Piece]) -> str:
        """Return the function that takes parts of such kinds, by the cloud's defaults."""
        kinds = "+".join(sorted({each.kind for each in pieces}))
        if not kinds:
            raise BadInput("the request has no part; send text, image, audio, video or document")
        served = [
            each
            for each in (*self._defaults.get(kinds, ()), *self._defaults.get(ANY_MIX, ()))
            if each in self.server.bundles and self.server.engine.roads(each)
        ]
        for name in served:
            schema = self.server.bundles[name].manifest.function
            try:
                assigned(schema, pieces)
            except BadInput:
                continue
            return name
        if served:
            return served[0]
        known = ", ".join(self._defaults) or "none"
        raise BadInput(
            f"no function answers {kinds} by itself here; name one as function "
            f"(by themselves are answered: {known})"
        )


def read_defaults(text: str) -> dict[str, tuple[str, ...]]:
    """Return which functions answer which kinds, or any others; raise ValueError."""
    found = {}
    for each in filter(None, (each.strip() for each in text.split(","))):
        kinds, equals, names = each.partition("=")
        mix = sorted(kind.strip() for kind in kinds.split("+"))
        if not equals or not names or (mix != [ANY_MIX] and not set(mix) <= KINDS.keys()):
            raise ValueError(f"{each!r} is no default; one is written image+text=FUNCTION|FUNCTION")
        found["+".join(mix)] = tuple(name.strip() for name in names.split("|"))
    return found
