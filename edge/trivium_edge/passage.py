"""How does the gateway pass on what only the cloud answers: any parts, tasks, uploads?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import httpx
from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import HTTPScope, Receive, Scope, Send, WebSocketScope
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from trivium.contract import JSON, Problem, encode
from trivium.errors import TierUnreachable, TriviumError, Unauthenticated
from trivium.hosts.server import web
from trivium.hosts.server.callers import HEADERS, Admit, behalf, told
from trivium.hosts.server.task import TICKET, Event
from trivium.trace import Tracer

ASKED = "/v1/multimodal"
PATHS = (ASKED, "/v1/tasks", "/v1/uploads", "/v1/webhooks")

PATIENCE_S = 660.0
"""Seconds without a byte from the cloud after which it is given up: longer than any answer."""

MOST_MESSAGE = 8 << 20
"""Bytes of one message of a WebSocket."""

CREDENTIALS = frozenset({"authorization", "x-api-key", "cookie"})
_HOP = frozenset(
    {
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OWN = frozenset({"date", "server"})
_SOCKET = "sec-websocket-"

log = logging.getLogger("trivium.passage")


class Passage:
    """Passes requests on to the cloud at `url`, for those who are let in here with `key`.

    Who is unknown here is passed on as they came, for the cloud may know them; but not over a
    `secure` connection of the gateway's own, whose certificate would then count as theirs.
    """

    def __init__(
        self,
        url: str,
        key: str,
        admit: Admit,
        transport: httpx.AsyncBaseTransport | None = None,
        secure: ssl.SSLContext | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._url = url.rstrip("/")
        self._key = key
        self._admit = admit
        self._secure = secure
        self._client = httpx.AsyncClient(
            verify=True if secure is None else secure,
            timeout=httpx.Timeout(PATIENCE_S, connect=2.0, pool=10.0),
            # Listeners stay for long.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            transport=transport,
            trust_env=False,
        )
        self._client.headers.clear()

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    def routes(self) -> list[ASGIRouteHandler]:
        """Return a handler for each of PATHS, and for all that is under it."""

        def route(mount: str) -> ASGIRouteHandler:
            @asgi(mount, is_mount=True, copy_scope=False)
            async def passage(scope: Scope, receive: Receive, send: Send) -> None:
                path = scope["path"].rstrip("/")
                scope["path"] = mount + path
                scope["path_template"] = mount
                if {".", ".."} & {*path.split("/")}:
                    # Who resolves such steps on the way would lead out of what is passed on.
                    raise NotFoundException
                if scope["type"] == ScopeType.WEBSOCKET:
                    await self._socket(scope, receive, send)
                else:
                    await self._request(scope, receive, send)

            return passage

        return [route(each) for each in PATHS]

    async def _onward(self, scope: Scope) -> tuple[dict[str, str], str]:
        """Return the headers for the cloud, and for whom they are if they are the gateway's own."""
        headers = web.said(scope)
        named = {each.strip().lower() for each in headers.get("connection", "").split(",")}
        onward = {
            name: value
            for name, value in headers.items()
            if name not in _HOP and name not in named and name not in HEADERS
        }
        try:
            caller = await self._admit(scope)
        except Unauthenticated:
            offered: Any = scope.get("subprotocols") or ()
            # A ticket is the cloud's own, and all that it looks at.
            if self._secure is not None and not any(TICKET in each for each in offered):
                raise
            return onward, ""
        onward = {
            name: value
            for name, value in onward.items()
            # It speaks for itself; where its page comes from was looked at here.
            if name not in CREDENTIALS and name != "origin"
        }
        own = {"authorization": f"Bearer {self._key}"}
        return onward | own | behalf(caller), told(caller)

    def _where(self, scope: Scope) -> str:
        # As it was sent: what was decoded once could mean something else.
        raw = scope.get("raw_path") or scope["path"].encode()
        path = raw.split(b"?")[0].decode("latin-1")
        query = scope["query_string"].decode("latin-1")
        return self._url + path + (f"?{query}" if query else "")

    async def _request(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        headers, whose = await self._onward(scope)
        with web.Incoming(scope, receive) as request:
            if self._tracer is not None and (scope["method"], scope["path"]) == ("POST", ASKED):
                above = headers.get("traceparent", "")
                headers["traceparent"] = request.traced(self._tracer, above, whose, ASKED)
            await self._pass(scope, request, headers, bool(whose), send)

    async def _pass(
        self,
        scope: HTTPScope,
        request: web.Incoming,
        headers: dict[str, str],
        own: bool,
        send: Send,
    ) -> None:
        receive, read = request.receive, asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            async for piece in request.pieces():
                yield piece
            read.set()

        content = None
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
            content = body()
        else:
            read.set()

        async def gone() -> None:
            await read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            onward = self._client.build_request(
                scope["method"], self._where(scope), headers=headers, content=content
            )
        except httpx.InvalidURL as error:
            raise TierUnreachable("the path can't be passed on", tier="cloud") from error
        # Whoever leaves ends what is done for them: a task's listener would else stay for ever.
        await _first(self._forward(onward, own, send), gone())

    async def _forward(self, onward: httpx.Request, own: bool, send: Send) -> None:
        begun = False
        try:
            response = await self._client.send(onward, stream=True)
            async with contextlib.aclosing(response):
                if own and response.status_code == 401:
                    raise TierUnreachable("the cloud refuses this tier's key", tier="cloud")
                begun = True
                await send(
                    {
                        "type": "http.response.start",
                        "status": response.status_code,
                        "headers": _back(response),
                    }
                )
                async for piece in response.aiter_raw():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if begun:
                # The status was sent; a connection that breaks off says the rest.
                log.warning("the cloud's answer broke off: %s", type(error).__name__)
                raise
            raise _unreachable(error) from error

    async def _socket(self, scope: WebSocketScope, receive: Receive, send: Send) -> None:
        await receive()
        headers, own = await self._onward(scope)
        url = "ws" + self._where(scope).removeprefix("http")
        headers = {name: value for name, value in headers.items() if not name.startswith(_SOCKET)}
        secure: dict[str, Any] = {"ssl": self._secure} if self._secure is not None else {}
        offered = [Subprotocol(each) for each in scope.get("subprotocols") or []]
        try:
            there = await connect(
                url,
                additional_headers=headers,
                subprotocols=offered or None,
                max_size=MOST_MESSAGE,
                open_timeout=10,
                compression=None,
                user_agent_header=None,
                proxy=None,
                **secure,
            )
        except InvalidStatus as error:
            status = error.response.status_code
            if own and status in (401, 403):
                await _deny(send, TierUnreachable("the cloud refuses this tier's key"))
            else:
                await send({"type": "websocket.close", "code": 4000 + status, "reason": ""})
            return
        except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
            await _deny(send, _unreachable(error))
            return
        async with there:
            await send(
                {
                    "type": "websocket.accept",
                    "subprotocol": there.subprotocol,
                    "headers": [],
                }
            )
            await _first(_down(there, send), _up(receive, there))


async def _down(there: ClientConnection, send: Send) -> None:
    """Give the client what the cloud says, and its end."""
    try:
        async for message in there:
            text, data = (message, None) if isinstance(message, str) else (None, message)
            await send({"type": "websocket.send", "text": text, "bytes": data})
    except ConnectionClosed:
        pass
    code = there.close_code or 1011
    # 1005 and 1006 say that none was sent: they can't be.
    code = {1005: 1000, 1006: 1011}.get(code, code)
    await send({"type": "websocket.close", "code": code, "reason": there.close_reason or ""})


async def _up(receive: Receive, there: ClientConnection) -> None:
    """Give the cloud what the client says, and its end."""
    while True:
        message: Any = await receive()
        if message["type"] != "websocket.receive":
            await there.close(message.get("code") or 1000)
            return
        text = message.get("text")
        try:
            await there.send(text if text is not None else message.get("bytes") or b"")
        except ConnectionClosed:
            return


async def _deny(send: Send, error: TriviumError) -> None:
    """Tell a WebSocket's client what is wrong, in the one shape, and end it."""
    await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
    told = encode(Event(id="", event="error", data=Problem.of(error)), JSON).decode()
    await send({"type": "websocket.send", "text": told, "bytes": None})
    await send({"type": "websocket.close", "code": 4000 + error.status, "reason": error.code})


async def _first(work: Coroutine[Any, Any, None], end: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it is done or `end` has come, and raise what it raises."""
    doing, ending = asyncio.ensure_future(work), asyncio.ensure_future(end)
    try:
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        for each in (doing, ending):
            each.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)


def _back(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    named = {each.strip().lower() for each in response.headers.get("connection", "").split(",")}
    return [
        (name.lower(), value)
        for name, value in response.headers.raw
        if (text := name.decode("latin-1").lower()) not in _HOP
        and text not in _OWN
        and text not in named
    ]


def _unreachable(error: Exception) -> TierUnreachable:
    return TierUnreachable(
        f"the cloud tier did not answer ({type(error).__name__})", tier="cloud", retry_after=2.0
    )
