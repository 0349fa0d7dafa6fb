"""What does it cost to tell of every ask, and how quickly is it told again?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.record import Record, percentile
from bench.servers import KEY, ZOO, free_port, load
from trivium.contract import Tier
from trivium.hosts.server.serve import Process
from trivium.hosts.server.telemetry import Tail
from trivium.trace import Span
from trivium_edge.history import History

ROUNDS = 4
STARTS = 5
"""Single starts of one and the same code scatter by more than what telling costs."""

SECONDS = 4.0
SPANS = 1_000_000
NAMES = ("text.embed", "text.classify", "image.classify", "image.detect", "audio.keyword")


def run() -> Iterator[Record]:
    """Compare an edge that tells all with one that tells nothing, then fill a store."""
    yield from throughput()
    yield from store()


def throughput() -> Iterator[Record]:
    """Ask both over 16 connections in turns; the median start counts."""
    found = sorted(start() for _ in range(STARTS))
    ratio, without = found[len(found) // 2]
    scatter = f"{found[0][0]:.3f} to {found[-1][0]:.3f} in {STARTS} starts"
    peer = f"without any {without:.1f} /s; {scatter}"
    yield Record("telemetry.throughput_ratio", round(ratio, 3), "ratio", peer)


def start() -> tuple[float, float]:
    """Return with how many times the asks a second it tells all, and how many without."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = {on: stack.enter_context(edge(on, folder)) for on in rates}
        for port in ports.values():
            asyncio.run(load(Tier.EDGE, port, "text.embed", 1.0))
        for number in range(ROUNDS):
            for on in (True, False) if number % 2 else (False, True):
                rate, _ = asyncio.run(load(Tier.EDGE, ports[on], "text.embed", SECONDS))
                rates[on].append(rate)
    ratios = [on / off for on, off in zip(rates[True], rates[False], strict=True)]
    return percentile(ratios, 0.5), percentile(rates[False], 0.5)


@contextlib.contextmanager
def edge(on: bool, folder: Path) -> Iterator[int]:
    """Run an edge with its history and metrics, or with neither."""
    port = free_port()
    settings = {"TRIVIUM_EDGE_BUNDLES": str(ZOO), "TRIVIUM_EDGE_KEYS": KEY}
    if on:
        settings["TRIVIUM_EDGE_HISTORY"] = str(folder)
    else:
        settings["OTEL_SDK_DISABLED"] = "true"
    with Process(Tier.EDGE, "127.0.0.1", port, settings) as process:
        process.wait()
        yield port


def store() -> Iterator[Record]:
    """Give a store a million spans over some hours, and ask it for all of its views."""
    with tempfile.TemporaryDirectory() as place:
        clock = Clock(time.time() - 6 * 3600)
        history = History(Path(place), megabytes=4000, clock=clock)
        now = [0.0]
        tail = Tail(history.take, clock=lambda: now[0], a_second=1e9)
        dice = random.Random(1)
        spent, given = 0.0, 0
        while given < SPANS:
            batch = [span for _ in range(1000) for span in trace(dice, clock.now)]
            given += len(batch)
            clock.now += 6 * 3600 * len(batch) / SPANS
            now[0] += 3.0
            begun = time.process_time()
            tail(batch)
            history.flush()
            spent += time.process_time() - begun
        rate = given / spent
        yield Record("telemetry.store_spans_per_s", round(rate), "/s", "one core")
        times = views(history, clock.now)
        yield Record("telemetry.view_p95_ms", round(percentile(times, 0.95), 1), "ms")
        history.close()


def views(history: History, end: float) -> list[float]:
    """Return what each view took, in ms, several times each."""
    from trivium_edge.alerts import due
    from trivium_edge.views import overview

    def operators(hours: float) -> object:
        """What the gateway answers: figures, and what is due, of which each is an alert here."""
        found = overview(history, end - hours * 3600, end, {})
        found["slo"] = [row | {"alert": True, "window": min(row["burn"])} for row in found["slo"]]
        return due(history, {}, True, found, end)

    def search(**wanted: object) -> object:
        return history.asks(end - 6 * 3600, end, **wanted)  # type: ignore[arg-type]

    found = search(most=1)
    assert isinstance(found, list)
    steps: list[Callable[[], object]] = [
        *(partial(operators, hours) for hours in (1, 6, 24)),
        search,
        lambda: search(function="text.embed", least_ms=20.0),
        lambda: search(order="ms"),
        lambda: search(failed=True),
        lambda: search(caller="key 7", tier="cloud"),
        lambda: history.trace(found[0]["trace"]),
    ]
    times = []
    for _ in range(5):
        for step in steps:
            begun = time.perf_counter()
            step()
            times.append((time.perf_counter() - begun) * 1e3)
    return times


class Clock:
    """A clock that is turned by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def trace(dice: random.Random, at: float) -> list[Span]:
    """Return one ask's spans as an edge has them."""
    trace_id, top, root = os.urandom(16).hex(), os.urandom(8).hex(), os.urandom(8).hex()
    ms = dice.lognormvariate(2.0, 0.6)
    start, end = int(at * 1e9), int(at * 1e9 + ms * 1e6)
    function, tier = dice.choice(NAMES), dice.choice(("edge", "cloud"))
    said = {
        "trivium.plan": "edge is the cheapest of the roads that keep 50 ms in 95 of 100 asks",
        "trivium.size": dice.randrange(10, 5000),
        "trivium.budget_ms": 50.0,
        "trivium.tier": tier,
        "trivium.version": "1.0.0+3fa97c21",
        "trivium.model": "all-MiniLM-L6-v2",
        "trivium.took_ms": ms,
        "trivium.spent": 0.3,
        "trivium.decode_ms": 0.2,
        "trivium.python_ms": 0.3,
        "trivium.run_ms": ms - 0.5,
        "trivium.hop_ms": 0.0,
        "trivium.quality": 0.99,
        "trivium.expected_ms": 7.0,
        "trivium.confidence": dice.random(),
    }
    http = {
        "http.route": "/v1/infer/{function}",
        "trivium.queue_ms": 0.1,
        "trivium.wait_ms": 0.4,
        "trivium.caller": f"key {dice.randrange(20)}",
    }

    def span(name: str, parent: str, span_id: str = "", **attributes: object) -> Span:
        return Span(
            name=name,
            service="edge",
            trace_id=trace_id,
            span_id=span_id or os.urandom(8).hex(),
            parent_id=parent,
            start_ns=start,
            end_ns=end,
            attributes=attributes,
            error="run_failed" if name.startswith("infer") and dice.random() < 0.01 else "",
        )

    return [
        span("open", top),
        span("decode", top),
        span("run", top, **{"trivium.model": "all-MiniLM-L6-v2"}),
        span(f"infer {function}", root, top, **said),
        span("POST /v1/infer/{function}", "", root, **http),
    ]
