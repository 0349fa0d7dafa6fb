"""How much sooner is one request to a pipeline answered than the calls it replaces?

Both send a photo of 2 MB over one kept connection through a link of 10 Mbit/s and 20 ms there and
back, which is made by a proxy that lets bytes pass as late as such a link would.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import numpy as np
from PIL import Image

from bench.record import Record, percentile
from bench.servers import KEY, PHOTO, server
from trivium.contract import Tier

RATE = 10e6 / 8
"""Bytes a second, each way."""

DELAY_S = 0.010
"""One way."""

PIECE = 16 << 10
SIZE = 2_000_000
ROUNDS = 5
PIPELINE = "image.product"
CALLS = ("image.describe", "image.embed", "document.read")
"""What the pipeline asks of others."""


class Link:
    """One direction: how late its bytes arrive."""

    def __init__(self) -> None:
        self._free = 0.0

    def arrival(self, size: int) -> float:
        """Return when so many bytes that are sent now have arrived."""
        self._free = max(self._free, time.monotonic()) + size / RATE
        return self._free + DELAY_S


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: Link) -> None:
    """Let bytes pass as late as the link would."""
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

    async def deliver() -> None:
        while True:
            due, piece = await late.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    delivering = asyncio.ensure_future(deliver())
    try:
        while piece := await reader.read(PIECE):
            await late.put((link.arrival(len(piece)), piece))
        await late.put((0.0, b""))
        await delivering
    except ConnectionError:
        delivering.cancel()


@contextmanager
def shaped(port: int) -> Iterator[int]:
    """Run a link to a port; yield the port at its near end."""
    there, back = Link(), Link()
    loop = asyncio.new_event_loop()
    ready: list[int] = []
    started = threading.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far, near = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, near, there), pump(far, writer, back))

    async def serve() -> None:
        listening = await asyncio.start_server(connected, "127.0.0.1", 0, limit=PIECE)
        ready.append(listening.sockets[0].getsockname()[1])
        started.set()

    def work() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()
        open_yet = asyncio.all_tasks(loop)
        for task in open_yet:
            task.cancel()
        if open_yet:
            loop.run_until_complete(asyncio.wait(open_yet))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def photo() -> bytes:
    """Return a photo, enlarged and grained until its file has 2 MB."""
    picture = Image.open(PHOTO).convert("RGB").resize((2400, 1600), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 6, (1600, 2400, 3))
    pixels = np.clip(np.asarray(picture, np.float32) + grain, 0, 255).astype(np.uint8)
    low, high = 30, 98
    while low < high:
        quality = (low + high + 1) // 2
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        low, high = (quality, high) if file.tell() <= SIZE else (low, quality - 1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=low)
    return file.getvalue()


def run() -> Iterator[Record]:
    """Take turns at the pipeline and at the calls it replaces, one after another."""
    data, count = photo(), itertools.count()

    def taken() -> bytes:
        # What follows its end is in no picture, but no cache knows the file.
        return data + next(count).to_bytes(4, "big")

    with server(Tier.CLOUD) as port, shaped(port) as near:
        base = f"http://127.0.0.1:{near}"
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=base, headers=headers, timeout=120) as client:

            def whole() -> None:
                form = {"function": PIPELINE, "timeout": "60"}
                files = {"image": ("photo.jpg", taken(), "image/jpeg")}
                client.post("/v1/multimodal", data=form, files=files).raise_for_status()

            def each() -> None:
                jpeg = taken()
                for name in CALLS:
                    sent = {"content-type": "image/jpeg"}
                    answer = client.post(f"/v1/infer/{name}", content=jpeg, headers=sent)
                    answer.raise_for_status()

            times: dict[str, list[float]] = {"whole": [], "each": []}
            whole()  # what is loaded at first is loaded
            each()
            for _ in range(ROUNDS):
                for what, step in (("whole", whole), ("each", each)):
                    begun = time.perf_counter()
                    step()
                    times[what].append(time.perf_counter() - begun)
    one, many = (percentile(times[what], 0.5) for what in ("whole", "each"))
    peer = f"{', '.join(CALLS)} one after another {many:.2f} s"
    yield Record("api.pipeline_saving", round(1 - one / many, 3), "share", peer)
    yield Record("api.pipeline_s", round(one, 2), "s", peer)
