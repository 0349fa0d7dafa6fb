"""How much may each tenant and each key ask, counted over all servers?

All that a request takes is taken by one script in Redis, or nothing. While Redis is away nothing is
counted and everybody is let in: a lost counter is a smaller harm than a lost service.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from litestar.types import Message, Scope
from prometheus_client import Counter
from redis.exceptions import RedisError

from trivium.errors import BadInput, QuotaExceeded
from trivium.hosts.server.callers import Admit, Caller, Limits
from trivium.hosts.server.web import INFER

from .store import connect, key

PATIENCE_S = 1.0
"""How long Redis may take to count; after that it is away."""

MOST_AT_ONCE = 64
"""Requests that are counted at once: a crowd of them waits, and must not seem a Redis that is away,
or it would be let in."""

REST_S = 1.0
"""How long Redis is left alone that did not answer."""

WINDOWS = {"minute": 60, "day": 86400, "bytes": 86400}
"""The seconds in which each limit holds."""

_ASKS = (INFER, "/v1/multimodal")
_FREE = ("/v1/roads", "/health/")
_STATE = "trivium.ratelimit"
_SCRIPT = (Path(__file__).parent / "quotas.lua").read_text()

REFUSED = Counter(
    "trivium_quota_refused", "Requests that a limit of a tenant or key refused", ["whose", "limit"]
)
UNCOUNTED = Counter("trivium_quota_uncounted", "Requests let in while nothing could be counted")

log = logging.getLogger("trivium.quotas")


class Quotas:
    """Counts what callers take, by `limits` for each tenant and by a key's own for that key.

    A Redis that does not count within `patience` seconds is away.
    """

    def __init__(self, url: str, limits: Limits, patience: float = PATIENCE_S) -> None:
        self._limits = limits
        self._patience = patience
        self._redis = connect(url) if url else None
        self._script = self._redis.register_script(_SCRIPT) if self._redis is not None else None
        self._gate = asyncio.Semaphore(MOST_AT_ONCE)
        self._rest = 0.0

    @property
    def counts(self) -> bool:
        """Return whether there is a store to count in."""
        return self._redis is not None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._redis is not None:
            await self._redis.aclose()

    def admitting(self, admit: Admit) -> Admit:
        """Return what admits as `admit` does, and counts."""

        async def counted(scope: Scope) -> Caller:
            caller = await admit(scope)
            if self._script is not None and (caller.limits or self._limits):
                await self._take(scope, caller)
            return caller

        return counted

    async def tell(self, message: Message, scope: Scope) -> None:
        """Add to a response what is left; for `before_send`."""
        told: Any = scope.get(_STATE)
        if told and message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *told]

    async def _take(self, scope: Scope, caller: Caller) -> None:
        if scope["path"].startswith(_FREE):
            return
        buckets = list(self._buckets(scope, caller))
        if not buckets:
            return
        if time.monotonic() < self._rest:
            UNCOUNTED.inc()
            return
        assert self._script is not None
        try:
            async with self._gate, asyncio.timeout(self._patience):
                found: Any = await self._script(
                    keys=[key("quota", whose, kind) for whose, kind, _, _ in buckets],
                    args=[each for bucket in buckets for each in bucket[1:]],
                )
        except (RedisError, OSError, TimeoutError) as error:
            self._rest = time.monotonic() + REST_S
            UNCOUNTED.inc()
            log.warning("nothing is counted while Redis is away: %s", type(error).__name__)
            return
        told = [each.decode() for each in found[1:]]
        _note(scope, buckets, told[1:])
        if found[0]:
            whose, kind, limit, _ = buckets[int(found[0]) - 1]
            window = "a minute" if kind == "minute" else "a day (UTC)"
            REFUSED.labels(whose.partition(":")[0], kind).inc()
            what = "bytes of requests" if kind == "bytes" else "requests"
            raise QuotaExceeded(
                f"this {whose.partition(':')[0]} may send {limit} {what} in {window}",
                retry_after=math.ceil(float(told[0])),
            )

    def _buckets(self, scope: Any, caller: Caller) -> Iterator[tuple[str, str, int, int]]:
        """Yield whose each bucket is, its kind, its limit and what this request takes."""
        asks = scope["type"] == "http" and scope["method"] == "POST"
        asks = asks and scope["path"].startswith(_ASKS)
        for whose, limits in (
            (f"tenant:{caller.tenant}", self._limits),
            (f"key:{caller.key}", caller.limits),
        ):
            if limits.minute:
                yield whose, "minute", limits.minute, 1
            if limits.day and asks:
                yield whose, "day", limits.day, 1
            if limits.bytes and (size := _size(scope)):
                yield whose, "bytes", limits.bytes, size


def _size(scope: Scope) -> int:
    """Return the bytes of a request's body; raise BadInput if it does not say."""
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        raise BadInput("send Content-Length: there is a quota of bytes")
    said = headers.get(b"content-length", b"0")
    return int(said) if said.isdigit() else 0


def _note(scope: Any, buckets: list[tuple[str, str, int, int]], told: list[str]) -> None:
    """Keep what the response will say, as draft-ietf-httpapi-ratelimit-headers has it."""
    policies, states = [], []
    for (whose, kind, limit, _), left, reset in zip(buckets, told[::2], told[1::2], strict=True):
        name = f'"{whose.partition(":")[0]}-{kind}"'
        unit = ';qu="content-bytes"' if kind == "bytes" else ""
        policies.append(f"{name};q={limit};w={WINDOWS[kind]}{unit}")
        states.append(f"{name};r={left};t={math.ceil(float(reset))}")
    scope[_STATE] = [
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(states).encode()),
    ]
