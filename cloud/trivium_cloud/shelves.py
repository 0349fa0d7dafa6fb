"""Where are answers and vectors kept, and what if that is gone?"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

VECTORS_S = 86_400.0
"""How long vectors are kept: what they are of is in their name, so that they never grow stale."""

MOST = 256 << 10
"""Bytes of the largest answer that is kept."""

PATIENCE_S = 0.25
"""How long a cache may take to say what it has."""

OPEN_S = 1.0
"""How long a cache that failed thrice is not asked."""

FAILURES = (RedisError, OSError, EOFError, ValueError, LookupError, asyncio.LimitOverrunError)
"""What a store that is gone, or answers nonsense, leads to; a TimeoutError is an OSError."""

T = TypeVar("T")
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]

log = logging.getLogger("trivium.cloud.cache")


def connect(url: str) -> Redis:
    """Return a pool of connections that fail soon and are not tried again."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=32,
        timeout=PATIENCE_S,
        socket_timeout=PATIENCE_S,
        socket_connect_timeout=PATIENCE_S,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis(connection_pool=pool)


class Breaker:
    """Asks what may be gone: with little patience, and not at all for a while after failures."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failures = 0
        self._until = 0.0

    async def ask(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `work` gives, or nothing if it fails or would take too long."""
        now = time.monotonic()
        if self._failures >= 3:
            if now < self._until:
                return None
            # One finds out; all others go on without.
            self._until = now + OPEN_S
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await work()
        except FAILURES as error:
            self._failures += 1
            self._until = time.monotonic() + OPEN_S
            if self._failures == 3:
                log.warning("%s does not answer (%s); going on without", self._what, type(error))
            return None
        if self._failures >= 3:
            log.warning("%s answers again", self._what)
        self._failures = 0
        return found


class Vectors(Protocol):
    """Where vectors are kept."""

    async def get(self, name: str) -> bytes:
        """Return what is kept by this name, or nothing."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep it for VECTORS_S."""

    async def close(self) -> None:
        """Let the connections go."""


class InRedis:
    """Vectors beside the answers."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._breaker = Breaker("the vectors' Redis")

    async def get(self, name: str) -> bytes:
        """Return what is kept by this name, or nothing."""

        async def work() -> bytes:
            found = await self._redis.get(name)
            return found if isinstance(found, bytes) else b""

        return await self._breaker.ask(work) or b""

    async def put(self, name: str, data: bytes) -> None:
        """Keep it for VECTORS_S."""
        await self._breaker.ask(lambda: self._redis.set(name, data, ex=int(VECTORS_S)))

    async def close(self) -> None:
        """Leave the connections to the answers."""


class InMemcached:
    """Vectors in a Memcached; `url` is such as memcached://localhost:11211.

    Two commands by hand: aiomcache 0.8.2 stops the event loop for ever when the server goes away
    (https://github.com/aio-libs/aiomcache/issues/502).
    """

    def __init__(self, url: str) -> None:
        found = urlsplit(url)
        if found.scheme != "memcached" or not found.hostname:
            raise ValueError(
                f"TRIVIUM_MEMCACHED_URL is {url!r}; it should be such as memcached://HOST:11211"
            )
        self._host, self._port = found.hostname, found.port or 11211
        self._breaker = Breaker("Memcached")
        self._idle: list[Line] = []

    async def get(self, name: str) -> bytes:
        """Return what is kept by this name, or nothing."""

        async def work() -> bytes:
            return await self._ask(f"get {name}\r\n".encode(), self._value)

        return await self._breaker.ask(work) or b""

    async def put(self, name: str, data: bytes) -> None:
        """Keep it for VECTORS_S."""
        command = f"set {name} 0 {int(VECTORS_S)} {len(data)}\r\n".encode()
        await self._breaker.ask(lambda: self._ask(command + data + b"\r\n", _line))

    async def stats(self) -> dict[str, str]:
        """Return what it says of itself; raise one of FAILURES if it does not."""
        said = (await self._ask(b"stats\r\n", self._all)).decode()
        return dict(line.split(" ", 2)[1:] for line in said.splitlines())

    async def _ask(
        self, command: bytes, answer: Callable[[asyncio.StreamReader], Awaitable[bytes]]
    ) -> bytes:
        reader, writer = (
            self._idle.pop()
            if self._idle
            else await asyncio.open_connection(self._host, self._port)
        )
        try:
            writer.write(command)
            found = await answer(reader)
        except BaseException:
            # Its answer may still come, and is nobody else's.
            writer.close()
            raise
        self._idle.append((reader, writer))
        return found

    @staticmethod
    async def _value(reader: asyncio.StreamReader) -> bytes:
        head = await _line(reader)
        if head == b"END":
            return b""
        size = int(head.split()[3])
        if not head.startswith(b"VALUE ") or size > MOST:
            raise ValueError(f"Memcached answered {head[:80]!r}")
        data = await reader.readexactly(size + 2)
        if await _line(reader) != b"END":
            raise ValueError("Memcached's answer has no end")
        return data[:-2]

    @staticmethod
    async def _all(reader: asyncio.StreamReader) -> bytes:
        lines = []
        while (line := await _line(reader)) != b"END":
            lines.append(line)
        return b"\n".join(lines)

    async def close(self) -> None:
        """Let the connections go."""
        for _, writer in self._idle:
            writer.close()


async def _line(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n"))[:-2]
