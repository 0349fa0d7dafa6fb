"""What does a tier count, for Prometheus and for those who look after it?

Whatever another file counts with prometheus_client is shown here too. Labels are bounded: they
are functions that are served, tiers and codes, never what a caller sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.types import Message, Scope
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest as plain
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from ...trace import Span
from .beside import beside
from .callers import Admit
from .telemetry import asking, lasted, late, mistaken

if TYPE_CHECKING:
    from .server import Server

PATH = "/metrics"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Buckets of times, from a quarter of a millisecond on."""

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)

NAMES = 256
"""So many functions are told apart; all others are `other`."""

LAG_S = 0.1
"""How often it is looked at how late the event loop is."""

REQUESTS = Counter(
    "api_requests",
    "Requests by the class of their status",
    ["service", "method", "route", "status"],
)
ASKS = Counter(
    "trivium_asks",
    "Asks by the road that answered, or none, and whether they were ok, refused or failed",
    ["service", "function", "road", "outcome", "code"],
)
ASK_S = Histogram(
    "trivium_ask_seconds", "What an ask took", ["service", "function", "road"], buckets=SECONDS
)
QUEUE_S = Histogram(
    "trivium_queue_seconds",
    "What an ask waited, from its first byte in an accepted socket on",
    ["service"],
    buckets=SECONDS,
)
STAGE_S = Counter(
    "trivium_stage_seconds", "Where the time of asks went", ["service", "function", "stage"]
)
BUDGETS = Counter("trivium_budgets", "Asks with a budget", ["service", "function", "met"])
DETOURS = Counter(
    "trivium_detours", "Fallbacks, hedges and escalations", ["service", "function", "kind"]
)
SPENT = Counter("trivium_spent", "The price of what asks began", ["service", "function"])
QUALITY = Gauge(
    "trivium_quality",
    "What the last answer's variant is measured at",
    ["service", "function", "road"],
)
CONFIDENCE = Histogram(
    "trivium_confidence", "How sure answers were", ["service", "function", "road"], buckets=SHARES
)
ALIKE = Histogram(
    "trivium_shadow_alike",
    "How far another road answered the same",
    ["service", "function", "road"],
    buckets=SHARES,
)
SHADOW_S = Counter(
    "trivium_shadow_seconds",
    "What shadows took, and what was taken instead",
    ["service", "function", "road", "which"],
)
CACHES = Counter(
    "trivium_cache", "Asks that a cache was looked up for", ["service", "function", "result"]
)
LAG = Histogram(
    "trivium_loop_lag_seconds", "How late the event loop comes", ["service"], buckets=SECONDS
)
LOST = Gauge("trivium_spans_lost", "Spans that were lost because too many came", ["service"])

STAGES = ("decode", "python", "run", "hop")


class Metrics:
    """Counts one server's spans and responses, and shows them."""

    def __init__(self, service: str) -> None:
        self.service = service
        self._names: set[str] = set()
        self._requests: dict[tuple[str, str, int], Counter] = {}
        self._server: Server | None = None
        self.shown: list[Callable[[], Iterable[Metric]]] = []

    def of(self, server: Server) -> None:
        """Show the state of `server` too."""
        self.shown.append(lambda: state(self.service, server))

    def losing(self, lost: Callable[[], float]) -> None:
        """Show how many spans were lost."""
        LOST.labels(self.service).set_function(lost)

    def name(self, function: str) -> str:
        """Return the function's name as a label."""
        if function not in self._names:
            if len(self._names) >= NAMES:
                return "other"
            self._names.add(function)
        return function

    async def sent(self, message: Message, scope: Scope) -> None:
        """Count a response when it begins."""
        if message["type"] != "http.response.start":
            return
        status, method = message["status"], str(scope.get("method"))
        route = scope.get("path_template") or "none"
        known = self._requests.get((method, route, status))
        if known is None:
            # A method is any word that a client chose.
            word = method if method in METHODS else "other"
            labels = (self.service, word, route, f"{status // 100}xx")
            known = self._requests[method, route, status] = REQUESTS.labels(*labels)
            if len(self._requests) > 2000:
                self._requests.clear()
        known.inc()

    def take(self, spans: Sequence[Span]) -> None:
        """Count the spans of this server's own."""
        for span in spans:
            if span.service != self.service:
                continue
            verb, _, rest = span.name.partition(" ")
            if verb == "shadow":
                self._shadow(span)
            elif verb == "cache":
                result = str(span.attributes.get("trivium.cached", "failed"))
                CACHES.labels(self.service, self.name(rest), result).inc()
            elif verb == "POST":
                waits = [span.attributes.get(f"trivium.{each}_ms", 0.0) for each in WAITS]
                QUEUE_S.labels(self.service).observe(sum(waits) / 1e3)
            if name := asking(span):
                self._ask(span, self.name(name))

    def _ask(self, span: Span, name: str) -> None:
        said, service = span.attributes, self.service
        road = str(said.get("trivium.tier", "cache" if "trivium.cached" in said else "none"))
        outcome = "refused" if mistaken(span) else "failed" if span.error else "ok"
        ASKS.labels(service, name, road, outcome, span.error or "ok").inc()
        exemplar = {"trace_id": span.trace_id} if span.sampled else None
        ASK_S.labels(service, name, road).observe(lasted(span) / 1e3, exemplar)
        missed = late(span)
        if missed is not None:
            BUDGETS.labels(service, name, str(not missed).lower()).inc()
        for kind, key in DETOUR.items():
            if key in said:
                DETOURS.labels(service, name, kind).inc()
        if span.error:
            return
        for stage in STAGES:
            STAGE_S.labels(service, name, stage).inc(said.get(f"trivium.{stage}_ms", 0.0) / 1e3)
        SPENT.labels(service, name).inc(said.get("trivium.spent", 0.0))
        if "trivium.quality" in said:
            QUALITY.labels(service, name, road).set(said["trivium.quality"])
        if "trivium.confidence" in said:
            CONFIDENCE.labels(service, name, road).observe(said["trivium.confidence"], exemplar)

    def _shadow(self, span: Span) -> None:
        said = span.attributes
        if "trivium.took_ms" not in said:
            return
        labels = (
            self.service,
            self.name(str(said.get("trivium.function", ""))),
            str(said.get("trivium.tier")),
        )
        SHADOW_S.labels(*labels, "shadow").inc(said["trivium.took_ms"] / 1e3)
        SHADOW_S.labels(*labels, "taken").inc(said["trivium.instead_ms"] / 1e3)
        if "trivium.alike" in said:
            ALIKE.labels(*labels).observe(said["trivium.alike"])

    def collect(self) -> Iterator[Metric]:
        """Yield all there is, first how the server is now: views keep so many samples of it."""
        for each in self.shown:
            yield from each()
        yield from REGISTRY.collect()

    @contextlib.asynccontextmanager
    async def watching(self) -> Any:
        """While it is open, look how late the event loop comes."""
        lag = LAG.labels(self.service)

        async def watch() -> None:
            loop = asyncio.get_running_loop()
            while True:
                begun = loop.time()
                await asyncio.sleep(LAG_S)
                lag.observe(max(0.0, loop.time() - begun - LAG_S))

        async with beside(watch()):
            yield

    def route(self, admit: Admit) -> HTTPRouteHandler:
        """Return the handler for Prometheus, for operators and gateways."""

        @get(PATH, summary="What this server counts, as OpenMetrics or Prometheus' text")
        async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
            caller = await admit(request.scope)
            if "behalf" not in caller.scopes:
                caller.check("ops")
            if "openmetrics" in request.headers.get("accept", ""):
                body, media = openmetrics(self), CONTENT_TYPE_LATEST  # type: ignore[no-untyped-call] # the library
            else:
                body, media = plain(self), PLAIN
            return Response(body, media_type=media, headers={"cache-control": "no-store"})

        return metrics


REPLICA, STARTED = f"{socket.gethostname()}#{os.getpid()}", time.time()
"""What a process is called where a balancer stands before it and its like."""

METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
WAITS = ("queue", "wait")
DETOUR = {
    "fallback": "trivium.failed",
    "hedge": "trivium.hedged",
    "escalation": "trivium.escalated",
}
"""Which attribute of an ask tells of which detour."""


def state(service: str, server: Server) -> Iterator[Metric]:
    """Yield how a server is now: its models, roads, breakers, queue and device."""
    engine, host = server.engine, server.host
    labels = ["service", "function", "tier"]
    ready = GaugeMetricFamily("trivium_road_ready", "Whether a road is ready", labels=labels)
    opened = GaugeMetricFamily("trivium_breaker_open", "Whether a breaker is open", labels=labels)
    loaded = GaugeMetricFamily(
        "trivium_model_loaded",
        "Whether a function's models are in memory, and on what",
        labels=["service", "function", "model", "device"],
    )
    size = GaugeMetricFamily(
        "trivium_model_bytes", "The size of the models that are in memory", labels=labels[:2]
    )
    now = host.clock()
    for name, roads in server.roads().items():
        for road in roads:
            closed = engine.memory.closed(name, road.tier, now)
            ready.add_metric([service, name, road.tier], float(road.ready and not closed))
            opened.add_metric([service, name, road.tier], float(closed))
    for name, function in server.served().items():
        here = host.loaded(function)
        devices = host.devices(function)
        device = ", ".join(sorted(set(devices.values()))).removesuffix("ExecutionProvider")
        loaded.add_metric([service, name, function.variant.model, device or "none"], float(here))
        if here:
            files = {each for graphs in function.variant.models.values() for each in graphs}
            known = function.manifest.files
            total = sum(known[each].size for each in files if each in known)
            size.add_metric([service, name], float(total))
    running = GaugeMetricFamily("trivium_running", "Asks that run", labels=["service"])
    running.add_metric([service], float(engine.running))
    queue = GaugeMetricFamily(
        "trivium_queue_ms", "What an ask begun now would wait", labels=["service"]
    )
    queue.add_metric([service], engine.queue())
    broken = GaugeMetricFamily(
        "trivium_bundle_refused", "Bundles that are not run", labels=["service", "bundle"]
    )
    for name in server.broken:
        broken.add_metric([service, name], 1.0)
    started = GaugeMetricFamily(
        "trivium_started_seconds", "Since when a replica runs", labels=["service", "replica"]
    )
    started.add_metric([service, REPLICA], STARTED)
    load = GaugeMetricFamily("trivium_cpu_load", "Load of a core, a minute's mean")
    load.add_metric([], os.getloadavg()[0] / (os.cpu_count() or 1))
    if engine.upstream is not None:
        link = GaugeMetricFamily(
            "trivium_link_ms", "What the way to the next tier and back takes", labels=["service"]
        )
        link.add_metric([service], engine.memory.link.ms(0, now))
        yield link
    yield from (ready, opened, loaded, size, running, queue, broken, started, load)
    yield from GPUS.collect()


class Gpus:
    """What NVIDIA's own library says of the GPUs; nothing where it is not there."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        with contextlib.suppress(OSError):
            self._library = ctypes.CDLL("libnvidia-ml.so.1")
            if self._library.nvmlInit_v2():
                self._library = None

    def collect(self) -> Iterator[Metric]:
        """Yield use, memory and power of each."""
        if self._library is None:
            return
        nvml, labels = self._library, ["gpu", "name"]
        use = GaugeMetricFamily("trivium_gpu_use", "Share of time that it worked", labels=labels)
        used = GaugeMetricFamily("trivium_gpu_memory_bytes", "Memory in use", labels=labels)
        total = GaugeMetricFamily("trivium_gpu_memory_total_bytes", "Memory", labels=labels)
        power = GaugeMetricFamily("trivium_gpu_watts", "Power drawn", labels=labels)
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
                continue
            said = ctypes.create_string_buffer(96)
            nvml.nvmlDeviceGetName(handle, said, 96)
            each = [str(index), said.value.decode(errors="replace")]
            rates, memory, watts = (
                (ctypes.c_uint * 2)(),
                (ctypes.c_ulonglong * 3)(),
                ctypes.c_uint(),
            )
            if not nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(rates)):
                use.add_metric(each, rates[0] / 100)
            if not nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                total.add_metric(each, float(memory[0]))
                used.add_metric(each, float(memory[2]))
            if not nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(watts)):
                power.add_metric(each, watts.value / 1e3)
        yield from (use, used, total, power)


GPUS = Gpus()
