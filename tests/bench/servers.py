"""How much do edge and cloud add to raw onnxruntime, and how much throughput do they keep?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import tokenizers

from bench.record import Record, percentile
from trivium.contract import Blob, Tier
from trivium.hosts.server import media
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.serve import Process
from trivium.hosts.server.session import open_graph

HERE = Path(__file__).parent
ZOO = Path("models/zoo")
SENTENCE = "The quick brown fox jumps over the lazy dog while the cat looks on."
PHOTO = Path("models/functions/image.classify/coffee.jpg")
KEY = "bench"
WARM = 150
ROUNDS = 200
STARTS = 3
"""Where a process lies in memory and on which cores moves its figures: the median start counts."""

SECONDS = 8.0
CONNECTIONS = 16

NAMES = {"text.embed": "text_embed", "image.classify": "image_classify"}


def run() -> Iterator[Record]:
    """Measure both functions on both servers, each against raw and bare in the same run."""
    found: dict[str, list[Record]] = {}
    for _ in range(STARTS):
        with contextlib.ExitStack() as stack:
            edge = stack.enter_context(server(Tier.EDGE))
            cloud = stack.enter_context(server(Tier.CLOUD))
            for tier, port in ((Tier.EDGE, edge), (Tier.CLOUD, cloud)):
                bare = stack.enter_context(plain(tier))
                for name in NAMES:
                    for record in overhead(tier, port, bare, name):
                        found.setdefault(record.name, []).append(record)
    for records in found.values():
        yield sorted(records, key=lambda record: record.value)[len(records) // 2]
    with contextlib.ExitStack() as stack:
        edge = stack.enter_context(server(Tier.EDGE))
        cloud = stack.enter_context(server(Tier.CLOUD))
        for tier, port in ((Tier.EDGE, edge), (Tier.CLOUD, cloud)):
            for name in NAMES:
                yield from throughput(tier, port, name)


def overhead(tier: Tier, port: int, bare: int, name: str) -> Iterator[Record]:
    """Take turns at our server, the bare one and raw onnxruntime, one connection each."""
    media_type, body = given(name)
    raw = work(tier, name)
    ours = Client(port, f"/v1/infer/{name}", media_type, tier)
    plain = Client(bare, f"/{name}", media_type, tier)
    hand = Client(bare, f"/by-hand/{name}", media_type, tier)
    times: dict[str, list[float]] = {"ours": [], "bare": [], "raw": [], "hand": []}
    steps: list[tuple[str, Callable[[], object]]] = [
        ("ours", lambda: ours.post(body)),
        ("bare", lambda: plain.post(body)),
        ("raw", lambda: raw(body)),
        ("hand", lambda: hand.post(body)),
        ("raw", lambda: raw(body)),  # so that what is before us is before the one by hand, too
    ]
    for _ in range(WARM):
        for _, step in steps:
            step()
    for _ in range(ROUNDS):
        for what, step in steps:
            started = time.perf_counter()
            step()
            times[what].append((time.perf_counter() - started) * 1e3)
    p50 = {what: percentile(each, 0.5) for what, each in times.items()}
    p99 = {what: percentile(each, 0.99) for what, each in times.items()}
    before = "tokeniser" if name == "text.embed" else "decoder"
    peer = f"bare Litestar {p50['bare']:.3f} ms + {before} and onnxruntime {p50['raw']:.3f} ms"
    key = NAMES[name]
    yield Record(
        f"overhead.{tier}.{key}.c1_ms",
        round(p50["ours"] - p50["bare"] - p50["raw"], 3),
        "ms",
        peer,
    )
    yield Record(
        f"overhead.{tier}.{key}.c1_by_hand_ms",
        round(p50["hand"] - p50["bare"] - p50["raw"], 3),
        "ms",
        f"a handler of Litestar that runs the session; {peer}",
    )
    yield Record(f"latency.{tier}.{key}.c1_p50_ms", round(p50["ours"], 3), "ms", peer)
    peer = f"bare Litestar {p99['bare']:.3f} ms + {before} and onnxruntime {p99['raw']:.3f} ms"
    yield Record(f"latency.{tier}.{key}.c1_p99_ms", round(p99["ours"], 3), "ms", peer)


def throughput(tier: Tier, port: int, name: str) -> Iterator[Record]:
    """Compare asks a second over 16 connections with a bare loop in this process."""
    raw = work(tier, name)
    _, body = given(name)
    loops, rates, latencies = [], [], []
    for _ in range(3):  # in turns, so that a busy moment hits both
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS / 3:
            raw(body)
            count += 1
        loops.append(count / (time.perf_counter() - started))
        rate, found = asyncio.run(load(tier, port, name, SECONDS / 3))
        rates.append(rate)
        latencies += found
    loop, rate = percentile(loops, 0.5), percentile(rates, 0.5)
    key = NAMES[name]
    peer = f"bare loop of decoding and onnxruntime {loop:.1f} /s"
    yield Record(f"throughput.{tier}.{key}.c16_ratio", round(rate / loop, 3), "ratio", peer)
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        yield Record(
            f"latency.{tier}.{key}.c16_{label}_ms", round(percentile(latencies, share), 2), "ms"
        )


def given(name: str) -> tuple[str, bytes]:
    """Return the media type and bytes that are sent."""
    if name == "text.embed":
        return "text/plain", SENTENCE.encode()
    return "image/jpeg", PHOTO.read_bytes()


def work(tier: Tier, name: str) -> Callable[[bytes], np.ndarray]:
    """Return what is done with a body, on the sessions that the server opens too.

    It begins where an ask does: with the text, which is tokenised, or the file, which is decoded.
    """
    bundle = Bundle(ZOO / name)
    variant = bundle.manifest.variant(tier)
    assert variant is not None
    graphs = next(iter(variant.models.values()))
    sessions = [open_graph(each, bundle.read(each), tier == Tier.CLOUD) for each in graphs]
    if name == "text.embed":
        tokenizer = tokenizers.Tokenizer.from_str(bundle.text("tokenizer.json"))

        def embed(body: bytes) -> np.ndarray:
            ids = np.array([tokenizer.encode(body.decode()).ids], dtype=np.int64)
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            found: np.ndarray = sessions[0].run(None, feeds)[0]
            return found

        return embed
    bound = variant.settings["shrink_above"]

    def classify(body: bytes) -> np.ndarray:
        tensor = media.pixels(Blob(media="image/jpeg", data=body), bound)
        pixels = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
        (image,) = sessions[0].run(None, {"pixels": pixels})
        scores: np.ndarray = sessions[1].run(None, {sessions[1].get_inputs()[0].name: image})[0]
        return scores

    return classify


@cache
def labels() -> list[str]:
    """Return what image.classify calls things."""
    return Bundle(ZOO / "image.classify").text("labels.txt").splitlines()


class Client:
    """One kept connection that does no more with a response than find its end.

    A library's parsing of headers would cost as much as what is measured, and more for ours.
    """

    def __init__(self, port: int, path: str, media_type: str, tier: Tier) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._path, self._media_type, self._tier = path, media_type, tier

    def post(self, body: bytes) -> bytes:
        """Send one body and return the answer's."""
        self._socket.sendall(message(self._path, self._media_type, self._tier, body))
        head, found, rest = b"", b"", b""
        while not found:
            head += self._socket.recv(1 << 16)
            start, found, rest = head.partition(b"\r\n\r\n")
        assert start.startswith(b"HTTP/1.1 200"), head
        size = length(start)
        while len(rest) < size:
            rest += self._socket.recv(1 << 16)
        return rest


def message(path: str, media_type: str, tier: Tier, body: bytes) -> bytes:
    """Return a whole request."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {len(body)}",
        f"Content-Type: {media_type}",
        f"Authorization: Bearer {KEY}",
        f"Trivium-Tiers: {tier}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def length(head: bytes) -> int:
    """Return the content length that a response's head states."""
    return int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])


async def load(tier: Tier, port: int, name: str, seconds: float) -> tuple[float, list[float]]:
    """Return asks a second and their latencies in ms, over 16 kept connections."""
    media_type, body = given(name)
    request = message(f"/v1/infer/{name}", media_type, tier, body)
    latencies: list[float] = []
    started = time.perf_counter()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() - started < seconds:
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(length(head))
            latencies.append((time.perf_counter() - begun) * 1e3)
        writer.close()

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return len(latencies) / (time.perf_counter() - started), latencies


@contextlib.contextmanager
def server(tier: Tier) -> Iterator[int]:
    """Run one of our servers by itself."""
    port = free_port()
    prefix = f"TRIVIUM_{tier.upper()}"
    settings = {f"{prefix}_BUNDLES": str(ZOO), f"{prefix}_KEYS": KEY}
    with Process(tier, "127.0.0.1", port, settings) as process:
        process.wait()
        yield port


@contextlib.contextmanager
def plain(tier: Tier) -> Iterator[int]:
    """Run the bare Litestar and the one by hand, on the same event loop and parser as ours."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.bare:app", "--app-dir", str(HERE.parent)]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--log-level", "warning", "--no-access-log"]
    process = subprocess.Popen(command, env={**os.environ, "BARE_TIER": tier})
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
