"""How is a task asked after over HTTP, and heard of over server-sent events and WebSockets?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Annotated, Any

from litestar import Request, Response, WebSocket, delete, get, post, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import BaseRouteHandler
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.types import ASGIApp, Receive, Scope, Send

from trivium.contract import EVENTS
from trivium.errors import BadInput, TriviumError
from trivium.hosts.server.beside import stop
from trivium.hosts.server.callers import Admit
from trivium.hosts.server.task import TICKET, WORD, Task
from trivium.nouns import Noun

from . import webhooks
from .listeners import Told, refusal
from .settings import Settings
from .tasks import TICKET_S, Listing, Tasks

KEEP_S = 15.0
"""After so long without an event, a sign that the connection is alive."""

SLOW_S = 30.0
"""After so long in which it took nothing, a connection is given up."""

AnyRequest = Request[Any, Any, Any]


class Ticket(Noun, frozen=True, kw_only=True):
    """Lets its bearer hear of one task over a WebSocket, once, within `seconds`.

    The WebSocket is opened with the protocols `trivium` and `protocol`.
    """

    protocol: str
    seconds: int = TICKET_S


class Secret(Noun, frozen=True, kw_only=True):
    """What the tenant's webhooks are signed with, by the Standard Webhooks scheme."""

    secret: str


def routes(tasks: Tasks, admit: Admit, settings: Settings) -> list[BaseRouteHandler]:
    """Return the handlers for what has been accepted."""

    @get("/v1/tasks", summary="Your tasks, newest first, without their answers")
    async def listing(
        request: AnyRequest,
        after: Annotated[str, QueryParameter(pattern="^([0-9a-f]{32})?$")] = "",
        most: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    ) -> Listing:
        return await tasks.list(await admit(request.scope), after, most)

    @get("/v1/tasks/{task_id:str}", summary="A task as it stands, with its steps and its answer")
    async def one(
        request: AnyRequest,
        task_id: FromPath[str],
        wait: Annotated[float, QueryParameter(ge=0, le=60)] = 0.0,
    ) -> Task:
        return await tasks.wait(await admit(request.scope), task_id, wait)

    @delete(
        "/v1/tasks/{task_id:str}",
        status_code=200,
        summary="Cancel a task; what is done for it stops",
    )
    async def cancel(request: AnyRequest, task_id: FromPath[str]) -> Task:
        return await tasks.cancel(await admit(request.scope), task_id)

    @post("/v1/tasks/{task_id:str}/ticket", summary="Let a page hear of a task by a WebSocket")
    async def ticket(request: AnyRequest, task_id: FromPath[str]) -> Ticket:
        made = await tasks.ticket(await admit(request.scope), task_id)
        return Ticket(protocol=TICKET + made)

    @get("/v1/webhooks/secret", summary="What your webhooks are signed with")
    async def secret(request: AnyRequest) -> Secret:
        caller = await admit(request.scope)
        caller.check("tasks")
        return Secret(secret=webhooks.secret(settings, caller.tenant))

    @get("/v1/tasks/{task_id:str}/events", summary="What happens to a task, as it happens")
    async def events(
        request: AnyRequest,
        task_id: FromPath[str],
        after: Annotated[str | None, HeaderParameter(name="last-event-id")] = None,
    ) -> Response[Any]:
        caller = await admit(request.scope)
        after = _event(after or "")
        if (await tasks.get(caller, task_id)).final and await tasks.told(caller, task_id, after):
            # Whoever asks again has heard all: an EventSource would ask for ever.
            return Response(None, status_code=204)
        return Streaming(tasks.follow(caller, task_id, after))

    @websocket("/v1/tasks/{task_id:str}/ws")
    async def ws(socket: WebSocket[Any, Any, Any], task_id: FromPath[str]) -> None:
        offered = socket.scope.get("subprotocols") or []
        ticket = next((each for each in offered if each.startswith(TICKET)), "")
        await socket.accept(WORD if WORD in offered else None)
        try:
            if ticket:
                caller = await tasks.redeem(ticket.removeprefix(TICKET), task_id)
            else:
                caller = await admit(socket.scope)
            told = tasks.follow(caller, task_id, _event(socket.query_params.get("after", "")))
        except TriviumError as error:
            told = _refused(error)
        await _tell(socket, told)

    return [listing, one, cancel, ticket, secret, events, ws]


class Streaming(Response[Any]):
    """A task's events as a response that goes on until its end."""

    def __init__(self, told: AsyncGenerator[Told, None]) -> None:
        super().__init__(None, media_type=EVENTS)
        self._told = told

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIApp:  # type: ignore[override] # it is one
        """Return what sends them."""
        return self._send

    async def _send(self, _: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"text/event-stream"),
                    (b"cache-control", b"no-store"),
                    (b"x-accel-buffering", b"no"),
                ],
            }
        )

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def put(body: bytes, more: bool) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with _until(gone(), self._told) as each:
            async for told in each:
                async with asyncio.timeout(SLOW_S):
                    await put(b": still there\n\n" if told is None else told.sse, True)
        await put(b"", False)


async def _tell(socket: WebSocket[Any, Any, Any], events: AsyncGenerator[Told, None]) -> None:
    async def gone() -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.receive_data("text")

    told: Told | None = None
    try:
        async with _until(gone(), events) as each:
            async for told in each:
                if told is not None:  # the server's own pings say that it is still there
                    async with asyncio.timeout(SLOW_S):
                        await socket.send_text(told.text)
    except (OSError, WebSocketDisconnect):  # a TimeoutError is an OSError
        return
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # he has closed it himself
        problem = told.event.data if told is not None and told.event.event == "error" else None
        await socket.close(4000 + problem.status if problem else 1000)


async def _refused(error: TriviumError) -> AsyncGenerator[Told, None]:
    yield refusal(error)


@contextlib.asynccontextmanager
async def _until(
    gone: Coroutine[Any, Any, None], events: AsyncGenerator[Told, None]
) -> AsyncIterator[AsyncIterator[Told | None]]:
    """Give events until their end, or until who hears them is `gone`; none from time to time."""
    leaving: asyncio.Future[Any] = asyncio.ensure_future(gone)
    coming: asyncio.Future[Any] | None = None

    async def each() -> AsyncIterator[Told | None]:
        nonlocal coming
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events))
                await asyncio.wait(
                    {coming, leaving}, timeout=KEEP_S, return_when=asyncio.FIRST_COMPLETED
                )
                if leaving.done():
                    return
                if not coming.done():
                    yield None
                    continue
                told = coming.result()
                coming = None
                yield told
        except StopAsyncIteration:
            return
        except TriviumError as error:
            yield refusal(error)

    try:
        yield each()
    finally:
        await stop(leaving, coming)
        await events.aclose()


def _event(given: str) -> str:
    milliseconds, _, number = given.partition("-")
    if given and not (milliseconds.isdecimal() and number.isdecimal() and len(given) < 40):
        raise BadInput(f"{given[:40]!r} is no event's id")
    return given
