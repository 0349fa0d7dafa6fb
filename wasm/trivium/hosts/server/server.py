"""What do the edge and the cloud do alike: hold bundles, keep an engine, answer asks?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from litestar import Response, get, post
from litestar.config.cors import CORSConfig
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.params import Parameter

from ...contract import Road, Tier, Upstream
from ...engine import Engine
from ...errors import BundleError, UnknownFunction
from ...function import Function
from ...trace import Span, Tracer
from . import web
from .bundles import Bundle, find
from .host import ServerHost

WATCH_S = 0.5
"""How often bundle folders are looked at for changes in development mode."""

Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]

log = logging.getLogger("trivium.server")


class Server:
    """One tier's bundles and engine, and the routes that answer asks."""

    def __init__(
        self,
        tier: Tier,
        roots: Sequence[Path],
        *,
        upstream: Upstream | None = None,
        emit: Callable[[Span], None] | None = None,
        development: bool = False,
        gpu: bool = False,
    ) -> None:
        self.host = ServerHost(gpu=gpu, log=f"trivium.{tier}")
        self.engine = Engine(
            tier,
            self.host,
            upstream=upstream,
            tracer=Tracer(tier, emit),
            development=development,
        )
        self.bundles: dict[str, Bundle] = {}
        self.broken: dict[str, BundleError] = {}
        self._roots = roots
        self._functions: dict[str, Function] = {}
        self._seen: dict[Path, tuple[int, int]] = {}
        self.sync()

    def sync(self) -> None:
        """Take in bundles that are new or changed, verified in full; let go of those removed."""
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

    async def watch(self) -> None:
        """Follow changes of the bundle folders for ever."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.sync()

    def roads(self) -> dict[str, list[Road]]:
        """Return the roads from here for every function known here or behind."""
        names = set(self.engine.functions)
        if self.engine.upstream is not None:
            names.update(self.engine.upstream.functions())
        return {name: self.engine.roads(name) for name in sorted(names) if name not in self.broken}

    def _drop(self, name: str) -> None:
        self.broken.pop(name, None)
        self.bundles.pop(name, None)
        function = self._functions.pop(name, None)
        if function is not None:
            self.engine.remove(name, function.manifest.version)
            self.host.forget(function)

    def routes(self, guard: Guard, roads_guard: Guard | None = None) -> list[HTTPRouteHandler]:
        """Return the handlers for asks, roads and health; `guard` decides who may ask."""
        server = self

        @post(
            "/v1/infer/{name:str}",
            status_code=200,
            guards=[guard],
            summary="Answer one ask",
            security=[{"bearer": []}],
        )
        async def infer(
            request: web.AnyRequest,
            name: Annotated[str, Parameter(description="the function, such as text.embed")],
        ) -> Response[Any]:
            if name in server.broken:
                # Raised anew for each ask: its traceback would keep them all alive.
                raise server.broken[name].with_traceback(None)
            bundle = server.bundles.get(name)
            schema = bundle.manifest.function if bundle else None
            if schema is None and not server.engine.roads(name):
                known = ", ".join(sorted(server.roads())) or "none"
                raise UnknownFunction(f"there is no function {name[:100]!r}; there are: {known}")
            ask = await web.read_ask(request, name, schema)
            if web.streaming(request):
                return await web.stream(request, server.engine.stream(ask))
            return web.respond(request, await server.engine.infer(ask))

        @get(
            "/v1/roads",
            guards=[roads_guard] if roads_guard else None,
            summary="The roads to each function from here",
        )
        async def roads() -> dict[str, list[Road]]:
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
        allow_methods=["GET", "POST"],
        allow_headers=[
            "authorization",
            "content-type",
            "traceparent",
            "tracestate",
            *web.ASK_HEADERS,
        ],
        expose_headers=[*web.HEADERS, "retry-after"],
        max_age=600,
    )


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        stat = (folder / "manifest.sha256").stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_size)
