"""How does the page ask the edge, by JavaScript's fetch?

`gateway` is the object of `wasm/page` by this name; JavaScript's errors become ours here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from msgspec.structs import replace
from pyodide.ffi import JsException, to_js

from ..contract import (
    FRAMES,
    JSON,
    MSGPACK,
    Answer,
    Ask,
    Blob,
    Fault,
    Frames,
    Part,
    Refusal,
    Road,
    Tier,
    decode,
    encode,
)
from ..errors import ERRORS, BadInput, RunFailed, TierError, TriviumError

ROADS_MS = 3_000.0
"""How old the edge's advertised roads may be before they are fetched again."""

PATIENCE_S = 2.0
"""How long they are waited for: a link that is silent is no road."""


class Buffer(Protocol):
    """A JavaScript typed array."""

    def __len__(self) -> int: ...
    def to_bytes(self) -> bytes: ...


class Reply(Protocol):
    """A `Response` of the page's fetch."""

    status: int
    body: Any

    def bytes(self) -> Awaitable[Buffer]: ...


class Call(Protocol):
    """A request under way."""

    reply: Awaitable[Reply]

    def abort(self) -> None: ...


class Advert(Protocol):
    """The roads as the edge tells them, and the milliseconds to get there."""

    json: str
    hop: float


class Gateway(Protocol):
    """What speaks with the edge: `gateway.ts`."""

    def ask(self, name: str, body: object, accept: str, trace: str) -> Call: ...
    def roads(self) -> Awaitable[Advert]: ...


def translated(error: JsException) -> TriviumError:
    """Return our error for one of JavaScript's; ours carry their code through."""
    kind = ERRORS.get(str(getattr(error, "code", "")), RunFailed)
    return kind(str(error.message))


def taken(blob: Blob) -> bytes:
    """Return the blob's bytes; where they are JavaScript's, a copy."""
    data: Any = blob.data
    return data if isinstance(data, bytes) else data.to_bytes()


class FetchUpstream:
    """The edge, by the page's fetch."""

    def __init__(self, gateway: Gateway, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self._clock = clock
        self.known = False
        self._roads: dict[str, list[Road]] = {}
        self._seen = -ROADS_MS
        self._fetching: asyncio.Task[None] | None = None

    def roads(self, function: str) -> Sequence[Road]:
        """Return the roads as last advertised; old ones are fetched again meanwhile."""
        if self._clock() - self._seen >= ROADS_MS and self._fetching is None:
            self._fetching = asyncio.ensure_future(self.refresh())
        return self._roads.get(function, ())

    def functions(self) -> Sequence[str]:
        """Return the names for which roads are advertised."""
        return list(self._roads)

    async def refresh(self) -> None:
        """Fetch the advertised roads; while the edge can't be reached none of them is ready."""
        try:
            # At the start there is nothing else to go by, however long it takes.
            async with asyncio.timeout(PATIENCE_S if self.known else None):
                advert = await self._gateway.roads()
            found = decode(advert.json.encode(), dict[str, list[Road]], JSON)
            self.known = True
            self._roads = {
                name: [road.behind(advert.hop) for road in roads] for name, roads in found.items()
            }
        except (JsException, TriviumError, TimeoutError):
            self._roads = {
                name: [replace(road, ready=False) for road in roads]
                for name, roads in self._roads.items()
            }
        finally:
            self._seen = self._clock()
            self._fetching = None

    async def infer(self, ask: Ask) -> Answer:
        """Ask the edge."""
        call = self._call(ask, MSGPACK)
        try:
            reply = await call.reply
            body = (await reply.bytes()).to_bytes()
        except JsException as error:
            raise translated(error) from error
        except asyncio.CancelledError:
            call.abort()
            raise
        if reply.status >= 400:
            raise _failure(reply.status, body)
        return decode(body, Answer)

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        """Ask the edge for parts."""
        call = self._call(ask, FRAMES)
        frames = Frames()
        try:
            reply = await call.reply
            if reply.status >= 400:
                raise _failure(reply.status, (await reply.bytes()).to_bytes())
            reader = reply.body.getReader()
            while not (chunk := await reader.read()).done:
                for part in frames.feed(chunk.value.to_bytes()):
                    if isinstance(part, Fault):
                        raise part.error()
                    yield part
        except JsException as error:
            raise translated(error) from error
        finally:
            call.abort()

    def _call(self, ask: Ask, accept: str) -> Call:
        inputs = {
            name: value if isinstance(value, str) else replace(value, data=taken(value))
            for name, value in ask.inputs.items()
        }
        body = to_js(encode(replace(ask, inputs=inputs)))
        return self._gateway.ask(ask.function, body, accept, ask.trace)


def _failure(status: int, body: bytes) -> TriviumError:
    try:
        return decode(body, Refusal).error.error()
    except BadInput:
        return TierError(f"the edge answered {status} in a form unknown here", tier=Tier.EDGE)
