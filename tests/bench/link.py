"""What does a drawn link do to real bytes? A TCP proxy on loopback, in real time.

It delays by half the round trip each way, lets no more bytes through than the link's width, holds
what is sent while the link is silent, and breaks connections while it is offline. A new connection
takes a round trip more.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from bench.world import Way

CHUNK = 8192
WATCH_S = 0.05
AHEAD_MS = 10.0
"""So far ahead of what the link has sent it takes in more: waking up late costs it no width."""


class Shaped:
    """A proxy to a local port; straight through until a way is `taken`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._way: Way | None = None
        self._begun = 0.0
        # Connections share the link: when each direction has sent what it was given.
        self._free = [-math.inf, -math.inf]
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Shaped:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        self._server.close()
        self._abort()

    def take(self, way: Way | None, after_s: float = 0.0) -> None:
        """Be this way from now on, at its first state for a while; none is straight through."""
        self._begun = time.monotonic() + after_s
        self._free = [-math.inf, -math.inf]
        self._way = way

    def _now(self) -> float:
        """Return the milliseconds since the way's begin."""
        return (time.monotonic() - self._begun) * 1e3

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _watch(self) -> None:
        """Break what is connected while there is no network."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._way is not None and self._way.is_offline(self._now()):
                self._abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = self._way
        if way is not None:
            if way.is_offline(self._now()):
                writer.transport.abort()
                return
            await asyncio.sleep(way.rtt[way.step(self._now())] / 1e3)
        try:
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, ahead}
        self._open |= pair
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, ahead, 0))
                both.create_task(self._carry(behind, writer, 1))
        except* OSError:
            pass  # one side is gone, and so the other is
        finally:
            self._open -= pair
            for each in pair:
                each.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: int
    ) -> None:
        """Carry one direction until it ends."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        giving = asyncio.create_task(self._give(line, writer))
        try:
            while data := await reader.read(CHUNK):
                way, now = self._way, self._now()
                due = now
                if way is not None:
                    free = self._free[direction] = way.sent(
                        max(now, self._free[direction]), len(data), direction
                    )
                    if free == math.inf:
                        raise ConnectionResetError
                    await asyncio.sleep(max(0.0, free - now - AHEAD_MS) / 1e3)
                    due = free + way.rtt[way.step(free)] / 2
                line.put_nowait((due, data))
            line.put_nowait((0.0, b""))
            await giving
        finally:
            giving.cancel()

    async def _give(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        """Hand on what is due, in order."""
        while True:
            due, data = await line.get()
            if not data:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            await asyncio.sleep(max(0.0, due - self._now()) / 1e3)
            writer.write(data)
            await writer.drain()
