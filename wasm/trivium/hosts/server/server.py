"""What do the edge and the cloud do alike: hold bundles, keep an engine, answer asks?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from litestar import Response, asgi, get
from litestar.config.cors import CORSConfig
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, Receive, Scope, Send
from msgspec.structs import replace

from ...contract import Road, Schema, Tier, Upstream
from ...engine import Engine
from ...errors import BundleError, UnknownFunction
from ...function import Function
from . import web
from .beside import attended, beside
from .bundles import DIGEST, SIGNATURE, Bundle, find
from .callers import Admit, Caller, asking, told
from .host import ServerHost
from .metrics import Metrics
from .signing import Trust
from .telemetry import Telemetry

WATCH_S = 0.5
"""How often bundle folders are looked at for changes in development mode."""

log = logging.getLogger("trivium.server")


class Server:
    """One tier's bundles and engine, and the routes that answer asks."""

    def __init__(
        self,
        tier: Tier,
        roots: Sequence[Path],
        trust: Trust,
        *,
        upstream: Upstream | None = None,
        development: bool = False,
        gpu: bool = False,
    ) -> None:
        self.host = ServerHost(gpu=gpu, log=f"trivium.{tier}")
        self.engine = Engine(tier, self.host, upstream=upstream, development=development)
        self.metrics = Metrics(tier)
        self.metrics.of(self)
        self.bundles: dict[str, Bundle] = {}
        self.broken: dict[str, BundleError] = {}
        self.absent: dict[str, Bundle] = {}
        self.trust = trust
        self._roots = roots
        self._development = development
        self._functions: dict[str, Function] = {}
        self._seen: dict[Path, tuple[tuple[int, int], ...]] = {}
        self.sync()

    def sync(self) -> None:
        """Take in what is new or changed, vouched for and verified in full; let go of the rest."""
        found = {folder: _stamp(folder) for folder in find(self._roots)}
        # First, for another root may hold a bundle of the same name.
        for folder in self._seen.keys() - found.keys():
            self._drop(folder.name)
        for folder, stamp in found.items():
            if self._seen.get(folder) == stamp:
                continue
            self._drop(folder.name)
            try:
                bundle = Bundle(folder)
                if bundle.name != folder.name:
                    raise BundleError(f"{folder.name} holds the bundle of {bundle.name}")
                if bundle.absent:
                    self.absent[bundle.name] = bundle
                    continue
                self.trust.check(bundle)
                bundle.verify()
                function = bundle.function(self.engine.tier)
            except BundleError as error:
                log.error("a bundle is refused: %s", error.message)
                self.broken[folder.name] = error
                continue
            self.bundles[bundle.name] = bundle
            if function is not None:
                self.host.know(function, bundle)
                self.engine.add(function)
                self._functions[bundle.name] = function
        self._seen = found
        # What is loaded now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()

    @contextlib.asynccontextmanager
    async def running(self, spans: Telemetry | None) -> AsyncIterator[None]:
        """Follow changed bundles in development mode; at the end let threads and spans go."""
        if spans:
            self.metrics.losing(lambda: spans.lost)
        try:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(self.metrics.watching())
                if self._development:
                    await stack.enter_async_context(beside(self.watch()))
                yield
        finally:
            self.host.close()
            if spans:
                # It waits for a backend, which may be dead.
                await asyncio.to_thread(spans.close)

    async def watch(self) -> None:
        """Follow changes of the bundle folders for ever."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.sync()

    def served(self) -> Mapping[str, Function]:
        """Return the functions that run on this tier."""
        return self._functions

    def roads(self) -> dict[str, list[Road]]:
        """Return the roads from here for every function known here or behind."""
        names = set(self.engine.functions)
        if self.engine.upstream is not None:
            names.update(self.engine.upstream.functions())
        return {name: self.engine.roads(name) for name in sorted(names) if name not in self.broken}

    async def answer(self, name: str, request: web.Incoming, caller: Caller) -> ASGIApp:
        """Return the response to one ask of `caller` for the function `name`."""
        caller.check("infer")
        asking.set(caller)
        schema = self.schema(name)
        ask = await web.read_ask(request, name, schema)
        trace = request.traced(self.engine.tracer, ask.trace, told(caller), web.ROUTE)
        ask = replace(ask, trace=trace)
        if web.streaming(request):
            return await web.stream(request, self.engine.stream(ask))
        work = self.engine.infer(ask)
        # A single run can't be stopped: to look who still waits would be of no use.
        if schema is None or schema.streams or schema.asks:
            work = attended(request.receive, work)
        return await web.respond(request, await work)

    def schema(self, name: str) -> Schema | None:
        """Return what the function `name` takes, if its bundle is here; raise UnknownFunction.

        A function that only the next hops have is known without it.
        """
        if name in self.broken:
            # Raised anew for each ask: its traceback would keep them all alive.
            raise self.broken[name].with_traceback(None)
        bundle = self.bundles.get(name) or self.absent.get(name)
        if name not in self.bundles and not self.engine.roads(name):
            if name in self.absent:
                raise UnknownFunction(
                    f"{name} is optional and not on this machine; fetch it "
                    f"({self.absent[name].megabytes} MB) by: trivium models pull {name}"
                )
            known = ", ".join(sorted(self.roads())) or "none"
            raise UnknownFunction(f"there is no function {name[:100]!r}; there are: {known}")
        return bundle.manifest.function if bundle else None

    def _drop(self, name: str) -> None:
        self.broken.pop(name, None)
        self.absent.pop(name, None)
        self.bundles.pop(name, None)
        function = self._functions.pop(name, None)
        if function is not None:
            self.engine.remove(name, function.manifest.version)
            self.host.forget(function)

    def routes(self, admit: Admit, public: bool) -> list[BaseRouteHandler]:
        """Return the handlers for asks, roads and health; are the roads `public`?"""
        server = self

        # An ASGI application under a mount: a handler's machinery takes a tenth of a millisecond.
        @asgi(web.INFER, is_mount=True, copy_scope=False)
        async def infer(scope: Scope, receive: Receive, send: Send) -> None:
            # Admitted here and not by a guard: those cost a tenth of a millisecond.
            name, caller = web.asked(scope), await admit(scope)
            with web.Incoming(scope, receive) as request:
                respond = await server.answer(name, request, caller)
                await respond(scope, receive, send)

        @get(
            "/v1/roads",
            summary="The roads to each function from here",
        )
        async def roads(request: web.AnyRequest) -> dict[str, list[Road]]:
            if not public:
                await admit(request.scope)
            return server.roads()

        @get("/health/live", summary="Whether the process answers")
        async def live() -> dict[str, str]:
            return {"status": "live", "tier": server.engine.tier}

        @get("/health/ready", summary="Whether asks are taken, and what is in memory")
        async def ready() -> Response[dict[str, Any]]:
            functions = {
                name: "loaded" if server.host.loaded(function) else "on first use"
                for name, function in server._functions.items()
            }
            functions |= dict.fromkeys(server.broken, "bad_bundle")
            functions |= dict.fromkeys(server.absent, "not pulled")
            body = {
                "status": "ready" if server._functions else "empty",
                "functions": functions,
                "devices": {
                    name: server.host.devices(function)
                    for name, function in server._functions.items()
                    if server.host.devices(function)
                },
            }
            return Response(body, status_code=200 if server._functions else 503)

        return [infer, roads, live, ready]


def cors(origins: Sequence[str]) -> CORSConfig:
    """Return what pages of other origins may send and read."""
    return CORSConfig(
        allow_origins=list(origins),
        allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST"],
        allow_headers=[
            "authorization",
            "content-type",
            "traceparent",
            "tracestate",
            "idempotency-key",
            "last-event-id",
            "tus-resumable",
            "upload-checksum",
            "upload-length",
            "upload-metadata",
            "upload-offset",
            *web.ASK_HEADERS,
        ],
        expose_headers=[
            *web.HEADERS,
            "location",
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
            "tus-resumable",
            "upload-expires",
            "upload-length",
            "upload-offset",
        ],
        max_age=600,
    )


def _stamp(folder: Path) -> tuple[tuple[int, int], ...]:
    found = []
    for last in (DIGEST, SIGNATURE):  # what is written when all the rest is there
        with contextlib.suppress(OSError):
            stat = (folder / last).lstat()
            found.append((stat.st_mtime_ns, stat.st_size))
    return tuple(found)
