"""How does one server ask the next over HTTP?"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Sequence

import httpx
import msgspec
from msgspec.structs import replace

from ...contract import (
    FRAMES,
    JSON,
    MSGPACK,
    Answer,
    Ask,
    Fault,
    Frames,
    Part,
    Refusal,
    Road,
    decode,
    encode,
)
from ...errors import BadInput, TierUnreachable, TooLarge, Unauthenticated
from .beside import stop
from .callers import asking, behalf

POLL_S = 2.0
"""How often the next hop is asked for its roads."""

FIRST_POLL_S = 0.1
"""The same until it answers for the first time: at a start both may be on their way."""

PATIENCE_S = 60.0
"""How long an ask without a budget may take on the way."""

UNSENDABLE = (TypeError, OverflowError, ValueError, RecursionError)
"""What encoding raises for a value that has no form on the wire."""

log = logging.getLogger("trivium.upstream")


class HttpUpstream:
    """The next hop behind a URL, over pooled connections; `name` is what errors call it.

    Use it as a context manager: while it is open it keeps the advertised roads up to date.
    """

    def __init__(
        self,
        url: str,
        key: str,
        name: str,
        transport: httpx.AsyncBaseTransport | None = None,
        secure: ssl.SSLContext | None = None,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(PATIENCE_S, connect=2.0),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
            transport=transport,
            verify=True if secure is None else secure,
            trust_env=False,
        )
        self.known = False
        self._name = name
        self._roads: dict[str, list[Road]] = {}
        self._hop_ms = 5.0
        self._polling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HttpUpstream:
        await self.poll()
        self._polling = asyncio.create_task(self._keep_polling())
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop(self._polling)
        await self._client.aclose()

    def roads(self, function: str) -> Sequence[Road]:
        """Return the roads behind this hop as last advertised, with the way there added."""
        return [road.behind(self._hop_ms) for road in self._roads.get(function, ())]

    def functions(self) -> Sequence[str]:
        """Return the names for which roads are advertised."""
        return list(self._roads)

    async def poll(self) -> None:
        """Ask for the roads once; if nobody answers, those known are no longer ready."""
        begun = time.perf_counter()
        try:
            response = await self._client.get("/v1/roads", timeout=POLL_S)
            response.raise_for_status()
            self._roads = decode(response.content, dict[str, list[Road]], JSON)
            self.known = True
        except (httpx.HTTPError, BadInput) as error:
            if any(road.ready for roads in self._roads.values() for road in roads):
                log.warning("the %s does not answer: %s", self._name, type(error).__name__)
            self._roads = {
                name: [replace(road, ready=False) for road in roads]
                for name, roads in self._roads.items()
            }
        else:
            # As it was, not smoothed: the router weighs it.
            self._hop_ms = (time.perf_counter() - begun) * 1e3

    async def infer(self, ask: Ask) -> Answer:
        """Ask the next hop.

        Raises:
            TierUnreachable: it did not answer, or not in a form we know.
            TriviumError: the error that it answered with.
        """
        packed = _packed(ask)
        try:
            response = await self._client.post(
                f"/v1/infer/{ask.function}",
                content=packed,
                headers=_headers(ask, MSGPACK),
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        self._check(response.status_code, response.content)
        return self._read(response.content)

    async def stream(self, ask: Ask) -> AsyncIterator[Part | Answer]:
        """Ask the next hop for parts; the last is the answer. Raises what `infer` raises."""
        frames, packed = Frames(), _packed(ask)
        try:
            async with self._client.stream(
                "POST",
                f"/v1/infer/{ask.function}",
                content=packed,
                # An error before the first part is no frame.
                headers=_headers(ask, f"{FRAMES}, {MSGPACK}"),
            ) as response:
                if response.status_code != 200:
                    self._check(response.status_code, await response.aread())
                async for data in response.aiter_bytes():
                    for part in self._parts(frames, data):
                        if isinstance(part, Fault):
                            raise part.error()
                        yield part
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _check(self, status: int, body: bytes) -> None:
        if status == 200:
            return
        try:
            refusal = decode(body, Refusal)
        except BadInput:
            raise TierUnreachable(
                f"the {self._name} answered {status} in a form this tier does not know",
                tier=self._name,
            ) from None
        error = refusal.error.error()
        if isinstance(error, Unauthenticated):
            # The caller was let in: the key that is wrong is this tier's own.
            raise TierUnreachable(
                f"the {self._name} refuses this tier's key", tier=self._name
            ) from error
        raise error

    def _read(self, body: bytes) -> Answer:
        try:
            return decode(body, Answer)
        except BadInput as error:
            raise TierUnreachable(
                f"the {self._name}'s answer is not understood: {error.message}", tier=self._name
            ) from error

    def _parts(self, frames: Frames, data: bytes) -> list[Part | Answer | Fault]:
        try:
            return list(frames.feed(data))
        except (TooLarge, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TierUnreachable(
                f"the {self._name}'s parts are not understood: {error}", tier=self._name
            ) from error

    def _unreachable(self, error: httpx.HTTPError) -> TierUnreachable:
        return TierUnreachable(
            f"the {self._name} tier did not answer ({type(error).__name__})",
            tier=self._name,
            retry_after=POLL_S,
        )

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(POLL_S if self.known else FIRST_POLL_S)
            await self.poll()


def _packed(ask: Ask) -> bytes:
    try:
        return encode(ask)
    except UNSENDABLE as error:
        raise BadInput(f"the ask can't be sent to the next tier: {error}") from error


def _headers(ask: Ask, accept: str) -> dict[str, str]:
    headers = {"Content-Type": MSGPACK, "Accept": accept, "traceparent": ask.trace}
    caller = asking.get()
    return headers if caller is None else headers | behalf(caller)
