"""What does it save to keep answers, and what does it cost?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import httpx

from bench.record import Record, percentile
from bench.servers import KEY, ZOO, free_port
from trivium.contract import Tier
from trivium.hosts.server.serve import Process
from trivium.hosts.server.valkey import Valkey

FUNCTION = "image.describe"
PHOTO = Path("models/functions/image.classify/coffee.jpg")
SHARE = 0.75
"""Of the document's figure: 380 ms in place of 1.2 s at so many hits."""

ROUNDS = 40
KNOWN = 8
CROWD = 100


def run() -> Iterator[Record]:
    """Ask two clouds over one Valkey, which writes each entry to the disk before it answers."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(TemporaryDirectory())
        valkey = stack.enter_context(Valkey(Path(place)))
        ports = [stack.enter_context(cloud(valkey.url)) for _ in range(2)]
        yield from asyncio.run(measured(ports))


@contextlib.contextmanager
def cloud(redis: str) -> Iterator[int]:
    """Run a cloud in a process of its own."""
    port = free_port()
    settings = {
        "TRIVIUM_CLOUD_BUNDLES": str(ZOO),
        "TRIVIUM_CLOUD_KEYS": KEY,
        "TRIVIUM_REDIS_URL": redis,
    }
    with Process(Tier.CLOUD, "127.0.0.1", port, settings) as process:
        process.wait()
        yield port


def photo() -> bytes:
    """Return a photo that takes as long as any other and whose bytes nobody has seen."""
    data = PHOTO.read_bytes()
    comment = os.urandom(16)
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]


async def measured(ports: list[int]) -> list[Record]:
    """Return all figures; what is compared takes turns, so that a busy moment hits all."""
    async with httpx.AsyncClient(timeout=60) as client:

        async def ask(data: bytes, port: int = ports[0], control: str = "") -> tuple[str, float]:
            begun = time.perf_counter()
            response = await client.post(
                f"http://127.0.0.1:{port}/v1/multimodal",
                data={"function": FUNCTION},
                files={"image": ("photo.jpg", data, "image/jpeg")},
                headers={"authorization": f"Bearer {KEY}", "cache-control": control},
            )
            assert response.status_code == 200, response.text
            return response.headers["trivium-cache"], 1e3 * (time.perf_counter() - begun)

        known = [photo() for _ in range(KNOWN)]
        for port in ports:
            for _ in range(3):
                await ask(photo(), port, "no-store")
        for each in known:
            await ask(each)
        times: dict[str, list[float]] = {"hit": [], "miss": [], "bypass": []}
        hits = round(SHARE / (1 - SHARE))
        for _ in range(ROUNDS):
            wanted = [(random.choice(known), "", "hit") for _ in range(hits)]
            wanted += [(photo(), "", "miss"), (photo(), "no-store", "bypass")]
            random.shuffle(wanted)
            for data, control, expected in wanted:
                said, took = await ask(data, control=control)
                assert said == expected, (said, expected)
                times[said].append(took)
        crowd = photo()
        begun = time.perf_counter()
        found = await asyncio.gather(
            *(ask(crowd, ports[number % len(ports)]) for number in range(CROWD))
        )
        rush = 1e3 * (time.perf_counter() - begun)
    mixed, plain = fmean(times["hit"] + times["miss"]), fmean(times["bypass"])
    peer = f"uncached in the same run {plain:.1f} ms"
    runs = sum(said != "hit" for said, _ in found)
    return [
        Record("cache.mean_ratio_at_75", round(mixed / plain, 3), "ratio", peer),
        Record("cache.hit_p50_ms", round(percentile(times["hit"], 0.5), 2), "ms", peer),
        Record("cache.hit_p99_ms", round(percentile(times["hit"], 0.99), 2), "ms", peer),
        Record("cache.miss_over_uncached", round(fmean(times["miss"]) / plain, 3), "ratio", peer),
        Record("cache.stampede_runs", runs, "runs", f"{CROWD} equal asks of two clouds"),
        Record("cache.stampede_ms", round(rush, 1), "ms", peer),
    ]
