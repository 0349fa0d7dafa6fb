"""Real edge and cloud apps over small real bundles, asked from plain synchronous tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from litestar import Litestar

import toys
from trivium.contract import JSON, MSGPACK, PROBLEM, encode
from trivium.hosts.server.access import Policy
from trivium.hosts.server.callers import Limits
from trivium.trace import Span
from trivium_cloud.app import create_app as create_cloud
from trivium_cloud.settings import Settings as CloudSettings
from trivium_edge.app import create_app as create_edge
from trivium_edge.settings import Settings as EdgeSettings

T = TypeVar("T")

ORIGIN = "http://localhost:8080"
KEY = "a-key-for-the-edge"
CLOUD_KEY = "a-key-for-the-cloud"
ACCESS = Policy(key_file=Path("nowhere"))
DEFAULTS = "text=text.nope|text.count,image=image.size,image+text=mixed.tell,*=mixed.count"
TRACES_KEY = "a-key-for-other-tiers"


class Room:
    """One app, asked as any client would ask it."""

    def __init__(self, app: Litestar, key: str, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.key = key
        self.transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type] # same protocol
        self._loop = loop

    def send(
        self, method: str, path: str, *, key: str | None = "", **request: Any
    ) -> httpx.Response:
        """Return the response; without `key` the right one is sent, with none no key at all."""

        async def work() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self.transport, base_url="http://localhost"
            ) as client:
                return await client.request(method, path, headers=headers, **request)

        headers = httpx.Headers(request.pop("headers", {}))
        if key is not None and "authorization" not in headers:
            headers["authorization"] = f"Bearer {key or self.key}"
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine gives, on the loop of the servers."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def get(self, path: str, **request: Any) -> httpx.Response:
        """Return the response to a GET."""
        return self.send("GET", path, **request)

    def text(self, name: str, text: str | bytes, **headers: str) -> httpx.Response:
        """Ask `name` with a raw text; headers are written with underscores."""
        given = {each.replace("_", "-"): value for each, value in headers.items()}
        return self.send(
            "POST",
            f"/v1/infer/{name}",
            content=text if isinstance(text, bytes) else text.encode(),
            headers={"content-type": "text/plain", **given},
        )

    def image(self, data: bytes, media: str = "image/png", **request: Any) -> httpx.Response:
        """Ask for an image's size with its raw bytes."""
        return self.send(
            "POST",
            "/v1/infer/image.size",
            content=data,
            headers={"content-type": media},
            **request,
        )

    def ask(self, name: str, ask: object, media: str = JSON, **request: Any) -> httpx.Response:
        """Ask `name` with an Ask, or what is none, as JSON or MessagePack."""
        return self.send(
            "POST",
            f"/v1/infer/{name}",
            content=ask if isinstance(ask, bytes) else encode(ask, media),
            headers={"content-type": media, "accept": request.pop("accept", JSON)},
            **request,
        )


class Servers:
    """An edge in front of a cloud, and the spans that both have emitted."""

    def __init__(self, edge: Room, cloud: Room, spans: list[Span], link: Link) -> None:
        self.edge = edge
        self.cloud = cloud
        self.spans = spans
        self.link = link

    @property
    def rooms(self) -> tuple[Room, Room]:
        """Return both, for what must hold for either."""
        return self.edge, self.cloud


class Link(httpx.AsyncBaseTransport):
    """The way from the edge to the cloud; `down` makes it fail as a dead server would."""

    def __init__(self, app: Litestar) -> None:
        self.down = False
        self._way = httpx.ASGITransport(app=app)  # type: ignore[arg-type] # same protocol

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("connection refused")
        return await self._way.handle_async_request(request)


@contextlib.contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def listening(app: Litestar) -> AsyncIterator[str]:
    """Serve an app on a free port."""
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110 # uvicorn has no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


@contextlib.contextmanager
def serving(
    bundles: Sequence[Path],
    *,
    cloud_bundles: Sequence[Path] | None = None,
    page: Path = Path("nowhere"),
    development: bool = False,
    secret: str = "a secret of thirty-two characters",
    trust: Sequence[Path] = (),
    unsigned: bool = False,
    uploads: Path = Path("nowhere"),
    access: Policy = ACCESS,
    cloud_access: Policy = ACCESS,
    cloud_key: str = CLOUD_KEY,
    history: Path | None = None,
    redis_url: str = "",
    limits: str = "",
) -> Iterator[Servers]:
    """Run the real edge in front of the real cloud, without sockets.

    With a `history` the edge keeps its spans there, and hands none to the test.
    """
    spans: list[Span] = []

    async def stay(stopped: asyncio.Event, apps: Sequence[Litestar], up: threading.Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.lifespan())
            up.set()
            await stopped.wait()

    with looping() as loop:
        cloud = create_cloud(
            CloudSettings(
                bundles=tuple(bundles if cloud_bundles is None else cloud_bundles),
                keys=(CLOUD_KEY,),
                trust=(toys.keys(), *trust),
                unsigned=unsigned,
                development=development,
                access=cloud_access,
                redis_url=redis_url,
                limits=Limits.read(limits),
                defaults=DEFAULTS,
                uploads=uploads,
            ),
            spans.append,
        )
        link = Link(cloud)
        edge = create_edge(
            EdgeSettings(
                bundles=tuple(bundles),
                page=page,
                cloud_url="http://cloud",
                cloud_key=cloud_key,
                keys=(KEY,),
                origins=(ORIGIN,),
                secret=secret,
                trust=(toys.keys(), *trust),
                unsigned=unsigned,
                development=development,
                access=access,
                history=history,
                traces_keys=(TRACES_KEY,),
            ),
            None if history else spans.append,
            link,
        )
        stopped, up = asyncio.Event(), threading.Event()
        staying = asyncio.run_coroutine_threadsafe(stay(stopped, (cloud, edge), up), loop)
        staying.add_done_callback(lambda _: up.set())
        try:
            up.wait(20)
            if staying.done():
                staying.result()
            yield Servers(Room(edge, KEY, loop), Room(cloud, CLOUD_KEY, loop), spans, link)
        finally:
            loop.call_soon_threadsafe(stopped.set)
            staying.result(20)


def fault(response: httpx.Response) -> dict[str, Any]:
    """Return the error in a response after checking that it has the one shape."""
    found: dict[str, Any] = response.json()
    assert response.headers["content-type"] == PROBLEM
    assert {"kind", "type", "title", "status", "detail", "code"} <= found.keys(), found
    assert found["kind"] == "fault"
    assert found["type"] == f"urn:trivium:error:{found['code']}"
    assert found["status"] == response.status_code
    assert found["title"]
    assert found["detail"]
    assert "Traceback" not in response.text
    return {"tier": None, "where": None, "retry_after": None, **found}


def said(response: httpx.Response) -> str:
    """Return `status code: detail` of an error."""
    found = fault(response)
    return f"{response.status_code} {found['code']}: {found['detail']}"


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces, so that its length is not announced."""
    for each in data:
        yield each


def work(made: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives."""
    return asyncio.run(made)


BOTH = (JSON, MSGPACK)
