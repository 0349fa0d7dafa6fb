"""How does the edge answer: the page and its bundles to browsers, small models to all?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import msgspec
from litestar import Litestar, Request, Response, get, post
from litestar.connection import ASGIConnection
from litestar.exceptions import InternalServerException, NotFoundException
from litestar.params import FromPath
from litestar.response import File
from litestar.static_files import create_static_files_router
from litestar.types import Message, Scope
from msgspec.structs import replace

import trivium
from trivium.contract import JSON, MSGPACK, Tier, decode
from trivium.errors import BadInput, Conflict, TooLarge, Unauthenticated, UnknownFunction
from trivium.hosts.server import logs, masking, openapi, telemetry, web
from trivium.hosts.server.access import TOKEN_S, Access, Keys, PageTokens
from trivium.hosts.server.bundles import MANIFEST, SIGNATURE
from trivium.hosts.server.callers import SCOPES, told
from trivium.hosts.server.server import Server, cors
from trivium.hosts.server.signing import Trust
from trivium.hosts.server.upstream import HttpUpstream
from trivium.trace import Span

from . import devices, wheel
from .history import History
from .ops import Ops
from .passage import Passage
from .settings import Settings

# Threads for onnxruntime in the page need a cross-origin isolated page.
ISOLATION = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_ISOLATION = [(name.encode(), value.encode()) for name, value in ISOLATION.items()]
FOREVER = "public, max-age=31536000, immutable"
MOST_SPANS = 512
MOST_SPANS_BYTES = 1 << 20
ASKS = ("infer ", "stream ")
BEACON = "text/plain"

AnyConnection = ASGIConnection[Any, Any, Any, Any]


class Listing(msgspec.Struct):
    """A bundle that pages may load; `digest` is the SHA-256 of its manifest."""

    name: str
    version: str
    digest: str


class VouchingKey(msgspec.Struct):
    """A public key whose signatures on bundles count here; `id` is the SHA-256 of its SPKI."""

    id: str
    pem: str


class Left(msgspec.Struct):
    """The last spans of a page that goes; a beacon has no headers to show a token in."""

    token: str
    spans: list[Span]


class Token(msgspec.Struct):
    """A page's token, and the seconds it is valid."""

    token: str
    expires_in: int


def create_app(
    settings: Settings | None = None,
    emit: Callable[[Span], None] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Litestar:
    """Return the gateway; `emit` takes spans, `transport` carries asks to the cloud, in tests."""
    settings = settings or Settings.from_env(os.environ)
    logs.configure(os.environ, Tier.EDGE)
    masking.install(masking.Masker(settings.access.mask_file))
    cloud, secure = None, settings.link()
    if settings.cloud_url:
        cloud = HttpUpstream(settings.cloud_url, settings.cloud_key, Tier.CLOUD, transport, secure)
    server = Server(
        Tier.EDGE,
        settings.bundles,
        Trust.read(settings.trust, unsigned=settings.unsigned),
        upstream=cloud,
        development=settings.development,
    )
    ops = spans_to = None
    if settings.history is not None:
        history = History(
            settings.history,
            hours=settings.history_hours,
            megabytes=settings.history_mb,
            known=lambda name: name in server.engine.functions or bool(server.engine.roads(name)),
        )
        way = transport or (httpx.AsyncHTTPTransport(verify=secure) if secure else None)
        ops = Ops(server, history, settings.cloud_url, settings.cloud_key, way)
    if emit is None:
        takers = [history.take] if ops else []
        spans_to = telemetry.telemetry(os.environ, server.metrics.take, *takers)
        emit = spans_to
    server.engine.tracer.emit = emit
    server.host.shadows = settings.shadows
    tokens = PageTokens(settings.secret, settings.origins, settings.page_tenant)
    # Who holds a plain key here is no gateway, and speaks for nobody else.
    scopes = frozenset(SCOPES) - {"behalf"}
    admit = Access(settings.access, Keys(settings.keys), scopes, tokens)
    passage = None
    if settings.cloud_url:
        passage = Passage(
            settings.cloud_url, settings.cloud_key, admit, transport, secure, server.engine.tracer
        )
    kernel = wheel.kernel()

    senders = Keys(settings.traces_keys)

    def sender(headers: Mapping[str, str]) -> None:
        if not senders.holds(headers.get("authorization", "").removeprefix("Bearer ")):
            raise Unauthenticated("the key is none of TRIVIUM_EDGE_TRACES_KEYS")

    @post("/v1/token", status_code=200, summary="A short-lived token for a page of our origins")
    async def token(request: Request[Any, Any, Any]) -> Token:
        origin = request.headers.get("origin", "")
        before = request.headers.get("authorization", "").partition(" ")[2]
        return Token(token=tokens.issue(origin, before), expires_in=TOKEN_S)

    @get("/v1/bundles", summary="The bundles that pages may load")
    async def bundles() -> list[Listing]:
        return [
            Listing(name=name, version=bundle.manifest.version, digest=bundle.digest)
            for name, bundle in server.bundles.items()
        ]

    @get("/v1/keys", summary="The public keys whose signatures on bundles count here")
    async def vouching() -> list[VouchingKey]:
        return [VouchingKey(id=key.id, pem=key.pem.decode()) for key in server.trust.keys]

    @get("/bundles/{name:str}/{digest:str}/{file:str}", include_in_schema=False)
    async def bundle_file(
        name: FromPath[str], digest: FromPath[str], file: FromPath[str]
    ) -> Response[Any]:
        if name in server.broken:
            raise server.broken[name].with_traceback(None)
        bundle = server.bundles.get(name)
        if bundle is None:
            raise UnknownFunction(f"no bundle {name!r} is served here")
        if digest != bundle.digest:
            raise Conflict(f"{name} is served with digest {bundle.digest}, not {digest[:64]!r}")
        headers = {"cache-control": FOREVER}
        if file == MANIFEST:
            return Response(bundle.raw, media_type=JSON, headers=headers)
        if file == SIGNATURE and bundle.signature is not None:
            # The same files may be signed anew, by another key.
            fresh = {"cache-control": "no-cache"}
            return Response(bundle.signature, media_type=JSON, headers=fresh)
        if file not in bundle.manifest.files:
            raise UnknownFunction(f"{name} has no file {file[:100]!r}")
        # A browser would keep altered bytes for ever.
        await server.host.work(lambda: bundle.read(file))
        return File(
            bundle.folder / file,
            filename=file,
            content_disposition_type="inline",
            headers=headers,
        )

    @get("/runtime/kernel.whl", include_in_schema=False, media_type="application/zip")
    async def kernel_wheel() -> Response[bytes]:
        return Response(kernel, headers={"cache-control": "no-cache"})

    @post("/v1/spans", status_code=204, summary="Spans of a page, afterwards")
    async def spans(request: Request[Any, Any, Any]) -> None:
        media = request.headers.get("content-type", "").partition(";")[0]
        if media not in (JSON, MSGPACK, BEACON):
            raise BadInput(f"content type {media[:100]!r} is neither {JSON} nor {MSGPACK}")
        length = request.headers.get("content-length", "")
        size = int(length) if length.isdecimal() else MOST_SPANS_BYTES + 1
        if size > MOST_SPANS_BYTES:
            raise TooLarge(f"{size} bytes were sent; at most {MOST_SPANS_BYTES} are allowed")
        if media == BEACON:
            left = decode(await request.body(), Left, JSON)
            shown = (b"authorization", f"Bearer {left.token}".encode())
            headers = [*request.scope["headers"], shown]
            caller, found = await admit({**request.scope, "headers": headers}), left.spans
        else:
            caller = await admit(request.scope)
            found = decode(await request.body(), list[Span], media)
        if len(found) > MOST_SPANS:
            raise TooLarge(f"{len(found)} spans were sent; at most {MOST_SPANS} are allowed")
        device = devices.family(request.headers.get("user-agent", ""))
        whose = {"trivium.caller": told(caller), "trivium.device": device}
        for span in found:
            if emit is not None and span.plausible():
                said = span.attributes | whose if span.name.startswith(ASKS) else span.attributes
                emit(replace(span, service=Tier.PAGE, attributes=said))

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if ops is not None:
                await stack.enter_async_context(ops.running())
            await stack.enter_async_context(server.running(spans_to))
            if cloud is not None:
                await stack.enter_async_context(cloud)
            if passage is not None:
                await stack.enter_async_context(contextlib.aclosing(passage))
            yield

    handlers: list[Any] = [
        *server.routes(admit, public=True),
        token,
        bundles,
        vouching,
        bundle_file,
        kernel_wheel,
        spans,
        openapi.route(),
        server.metrics.route(admit),
    ]
    if passage is not None:
        handlers += passage.routes()
    if ops is not None:
        handlers += ops.routes(admit, sender, emit)
    if settings.page.is_dir():
        handlers.append(
            create_static_files_router(
                "/",
                [settings.page],
                html_mode=True,
                name="page",
                # What the file system makes of a path that can't be one.
                exception_handlers={ValueError: _nothing, InternalServerException: _nothing},
            )
        )
    return Litestar(
        handlers,
        lifespan=[lifespan],
        exception_handlers={Exception: web.refuse},
        cors_config=cors(settings.origins),
        before_send=[_isolate, server.metrics.sent],
        openapi_config=openapi.config("Trivium edge", trivium.__version__),
        request_max_body_size=web.MOST_BODY,
        logging_config=None,
    )


def _nothing(request: web.AnyRequest, _: Exception) -> Response[bytes]:
    return web.refuse(request, NotFoundException())


async def _isolate(message: Message, _: Scope) -> None:
    """Add the headers to every response: errors and preflights have them too."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message.get("headers", ()), *_ISOLATION]
