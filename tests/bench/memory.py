"""What do many small asks leave behind in a server's memory?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import samples
import toys
from bench.record import Record
from bench.servers import CONNECTIONS, KEY, free_port, length
from trivium.contract import Tier
from trivium.hosts.server.serve import Process

ASKS = 100_000
WARM = 0.1
"""Of the asks, after which share caches, pools and the interpreter's own arenas are full."""

ODD = 10
"""One ask in so many is a mistake: what an error holds on to must go as well."""


def run(asks: int = ASKS) -> Iterator[Record]:
    """Ask a cloud for any parts, an edge for a function, and the cloud through the edge."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        zoo = str(samples.zoo(Path(place) / "zoo"))
        shared = {"TRIVIUM_CLOUD_UPLOADS": f"{place}/uploads"}
        cloud = stack.enter_context(_server(Tier.CLOUD, zoo, shared))
        onward = {
            "TRIVIUM_EDGE_CLOUD_URL": f"http://127.0.0.1:{cloud.port}",
            "TRIVIUM_EDGE_CLOUD_KEY": KEY,
        }
        edge = stack.enter_context(_server(Tier.EDGE, zoo, onward))
        for name, server, path, count in (
            ("cloud.multimodal", cloud, "/v1/multimodal", asks),
            ("edge.infer", edge, "/v1/infer/text.count", asks),
            ("edge.passage", edge, "/v1/multimodal", asks // 5),
        ):
            asyncio.run(_load(server.port, path, round(count * WARM)))
            before = server.resident()
            asyncio.run(_load(server.port, path, count))
            after = server.resident()
            peer = f"{before:.1f} MB before {count} asks"
            yield Record(f"memory.{name}.growth_mb", round(after - before, 1), "MB", peer)


class _Server:
    def __init__(self, process: Process, port: int) -> None:
        self.port = port
        self._process = process

    def resident(self) -> float:
        """Return how many MB it holds in memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024


@contextlib.contextmanager
def _server(tier: Tier, zoo: str, more: dict[str, str]) -> Iterator[_Server]:
    prefix, port = f"TRIVIUM_{tier.upper()}", free_port()
    settings = {
        f"{prefix}_BUNDLES": zoo,
        f"{prefix}_KEYS": KEY,
        f"{prefix}_TRUST": str(toys.keys()),
        "TRIVIUM_CLOUD_DEFAULTS": "text=text.count",
        **more,
    }
    with Process(tier, "127.0.0.1", port, settings) as process:
        process.wait()
        yield _Server(process, port)


async def _load(port: int, path: str, count: int) -> None:
    """Send so many asks, each another, over some kept connections."""
    left = iter(range(count))
    infer = path.startswith("/v1/infer/")

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            text = f"{number} {'word ' * (number % 50)}"
            body: object = {"inputs": {"text": text}} if infer else {"text": text}
            if number % ODD == 0:
                body = {"inputs": {"txet": text}} if infer else {"txet": text}
            sent = json.dumps(body).encode()
            head = (
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Authorization: Bearer {KEY}\r\nContent-Length: {len(sent)}\r\n\r\n"
            )
            writer.write(head.encode() + sent)
            said = await reader.readuntil(b"\r\n\r\n")
            assert said[9:12] == (b"400" if number % ODD == 0 else b"200"), said
            await reader.readexactly(length(said))
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
