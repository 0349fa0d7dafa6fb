"""What do operators see, and how do they and others tell the gateway what happened?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx
import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import BaseRouteHandler
from litestar.response import Stream
from prometheus_client import Counter, Gauge, Metric, Summary
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from trivium.contract import EVENTS, JSON, decode, encode
from trivium.errors import BadInput, TooLarge, UnknownFunction
from trivium.hosts.server import otlp
from trivium.hosts.server.beside import beside
from trivium.hosts.server.callers import Admit
from trivium.hosts.server.metrics import Metrics
from trivium.hosts.server.server import Server
from trivium.trace import Span

from . import views
from .alerts import GONE_S, SCRAPE_S, Source, due, joined
from .figures import told
from .history import STEPS, History

FORGOTTEN_S = 900.0
"""So long a replica that is gone is still shown."""

MOST_REPLICAS = 8
"""So many of the cloud's replicas are looked at each time."""

MOST_TEXT = 20_000

FEEDBACK = Counter(
    "trivium_feedback", "What people said of answers", ["service", "function", "good"]
)
BLEU = Summary("trivium_bleu", "BLEU of answers, 0 to 100", ["service", "function"])
CHRF = Summary("trivium_chrf", "chrF of answers, 0 to 100", ["service", "function"])
DRIFT = Gauge("trivium_drift", "Population stability index", ["service", "function", "what"])

log = logging.getLogger("trivium.ops")


class Feedback(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What somebody thinks of an answer, by the trace that it said.

    `output` and `reference` are compared and not kept. `function` and `tier` are needed only where
    the trace was not kept.
    """

    trace: str
    good: bool | None = None
    function: str = ""
    tier: str = ""
    output: str | None = None
    reference: str | None = None


class Counted(msgspec.Struct):
    """What was counted of a feedback."""

    function: str
    tier: str
    bleu: float | None = None
    chrf: float | None = None


class Ops:
    """The operators' side of a gateway: `history`, and what tiers say of themselves."""

    def __init__(
        self,
        server: Server,
        history: History,
        cloud_url: str,
        cloud_key: str,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.history = history
        self.sources: dict[str, Source] = {}
        self._server = server
        self._metrics: Metrics = server.metrics
        self._metrics.shown.append(self._own)
        self._cloud = cloud_url
        self._transport = transport
        self._headers = {"Authorization": f"Bearer {cloud_key}"}
        self._kept: dict[str, tuple[int, float, bytes]] = {}

    def _own(self) -> Iterator[Metric]:
        good = GaugeMetricFamily("trivium_history_written", "Whether the history can be written")
        good.add_metric([], float(not self.history.trouble))
        lost = GaugeMetricFamily("trivium_history_lost", "Traces that could not be kept")
        lost.add_metric([], float(self.history.lost))
        yield from (good, lost)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While it is open, look at the tiers' figures again and again."""
        try:
            async with beside(self._watch()):
                yield
        finally:
            await asyncio.to_thread(self.history.close)

    async def _watch(self) -> None:
        way = self._transport
        async with httpx.AsyncClient(timeout=5.0, trust_env=False, transport=way) as client:
            while True:
                try:
                    await self.scrape(client)
                except Exception:  # what is only looked at must not end the looking
                    log.exception("figures could not be looked at")
                await asyncio.sleep(SCRAPE_S)

    async def scrape(self, client: httpx.AsyncClient) -> None:
        """Look once at the figures of this tier, and of the cloud's replicas that can be seen."""
        self._take("edge", self._metrics.collect())
        if self._cloud:
            # A balancer gives one or another.
            known = [each for each in self.sources.values() if each.tier == "cloud" and each.up]
            up = False
            for _ in range(max(1, min(len(known), MOST_REPLICAS))):
                up = await self._look(client) or up
            now = time.time()
            for name, source in list(self.sources.items()):
                if source.tier == "cloud":
                    source.up = up and now - source.seen < GONE_S
                    if now - source.seen > FORGOTTEN_S and (up or not source.up):
                        del self.sources[name]
            self.history.sample("cloud", [("up", "", float(up))])
        await asyncio.to_thread(self._drifted)

    async def _look(self, client: httpx.AsyncClient) -> bool:
        try:
            response = await client.get(f"{self._cloud}/metrics", headers=self._headers)
            response.raise_for_status()
        except httpx.HTTPError:
            return False
        text = response.text
        await asyncio.to_thread(lambda: self._take("cloud", text_string_to_metric_families(text)))
        return True

    def _take(self, tier: str, families: Iterable[Metric]) -> None:
        found = [
            (sample.name, dict(sample.labels), float(sample.value))
            for family in families
            for sample in family.samples
            if _shown(sample.name)
        ][:2000]
        name, started = tier, 0.0
        for figure, labels, value in found:
            if figure == "trivium_started_seconds" and labels.get("service") == tier != "edge":
                name, started = f"{tier} {labels.get('replica', '')[:100]}", value
        self.sources[name] = Source(tier, time.time(), found, started)
        self.history.sample(
            name, [(figure, joined(labels), value) for figure, labels, value in found]
        )

    def _drifted(self) -> None:
        rows = views.quality(self.history, time.time())
        DRIFT.clear()  # what is not asked any more drifts no more
        for row in rows:
            for what, word in views.WORDS.items():
                if row[what] is not None:
                    DRIFT.labels("edge", row["function"], word).set(row[what])

    # What is told.

    def overview(self, start: float, end: float, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Return all figures between two times, with what somebody should look at now."""
        found, now = views.overview(self.history, start, end, wanted), time.time()
        seen = found if end >= now - 60 else views.present(self.history, now)
        alerts = due(self.history, self.sources, bool(self._cloud), seen, now)
        return {**found, "alerts": alerts, "trouble": self.history.trouble}

    def state(self) -> dict[str, Any]:
        """Return how all replicas are now, as they say themselves."""
        return {
            "replicas": {
                name: {
                    "tier": source.tier,
                    "up": source.up,
                    "seen": source.seen,
                    "started": source.started,
                    "samples": [
                        {"name": figure, "labels": labels, "value": value}
                        for figure, labels, value in source.samples
                    ],
                }
                for name, source in self.sources.items()
            },
            "history": {
                "trouble": self.history.trouble,
                "lost": self.history.lost,
                "bytes": _size(self.history),
            },
        }

    def count(self, said: Feedback) -> Counted:
        """Count what somebody said; raise BadInput if it says nothing, or of nothing."""
        trace = re.search(r"[0-9a-f]{32}", said.trace[:200])
        if trace is None:
            raise BadInput("trace is neither a trace's 32 hex digits nor an answer's `trace`")
        if said.good is None and said.reference is None:
            raise BadInput("say `good`, true or false, or send a `reference` with the `output`")
        found = self.history.asks(0, time.time() + 60, most=1, trace=trace[0])
        function = found[0]["function"] if found else said.function
        tier = found[0]["tier"] if found else said.tier
        if function not in self._server.roads():
            raise UnknownFunction(
                f"no ask of the trace {trace[0]} was kept; say its `function` and `tier`"
                if not function
                else f"there is no function {function[:100]!r}"
            )
        if tier not in ("page", "edge", "cloud"):
            raise BadInput(f"tier is {tier[:40]!r}; it must be page, edge or cloud")
        figures: dict[str, float] = {}
        if said.reference is not None:
            if said.output is None:
                raise BadInput("a `reference` needs the `output` that it is compared with")
            for name, text in (("output", said.output), ("reference", said.reference)):
                if len(text) > MOST_TEXT:
                    raise TooLarge(f"{name} has {len(text)} characters; at most {MOST_TEXT}")
            bleu, chrf = scores(said.output, said.reference)
            figures = {"references": 1.0, "bleu": bleu, "chrf": chrf}
            BLEU.labels("edge", function).observe(bleu)
            CHRF.labels("edge", function).observe(chrf)
        if said.good is not None:
            FEEDBACK.labels("edge", function, str(said.good).lower()).inc()
        kept = trace[0] if found else ""
        self.history.feedback(function, tier, said.good, figures, kept)
        return Counted(
            function=function, tier=tier, bleu=figures.get("bleu"), chrf=figures.get("chrf")
        )

    # Where it is told.

    def routes(
        self,
        admit: Admit,
        sender: Callable[[Mapping[str, str]], None],
        emit: Callable[[Span], None] | None,
    ) -> list[BaseRouteHandler]:
        """Return the handlers: for operators, for feedback, and for tiers that send spans."""
        ops = self

        async def operator(request: AnyRequest) -> None:
            (await admit(request.scope)).check("ops")

        async def shown(request: AnyRequest, work: Callable[[], Any]) -> Response[bytes]:
            await operator(request)
            key, now = str(request.url), time.monotonic()
            kept = ops._kept.get(key)
            if kept is None or kept[0] != ops.history.version or now - kept[1] > 5:
                body = await asyncio.to_thread(lambda: encode(work(), JSON))
                if len(ops._kept) > 64:
                    ops._kept.clear()
                kept = ops._kept[key] = (ops.history.version, now, body)
            return Response(kept[2], media_type=JSON, headers={"cache-control": "no-store"})

        @get("/v1/ops/overview", summary="All figures of some hours")
        async def overview(request: AnyRequest) -> Response[bytes]:
            start, end = _range(request)
            wanted = {
                key: request.query_params.get(key, "") for key in ("function", "tier", "began")
            }
            return await shown(request, lambda: ops.overview(start, end, wanted))

        @get("/v1/ops/state", summary="How the tiers are now")
        async def state(request: AnyRequest) -> Response[bytes]:
            return await shown(request, ops.state)

        @get("/v1/ops/resources", summary="What the replicas said of themselves over time")
        async def resources(request: AnyRequest) -> Response[bytes]:
            start, end = _range(request)
            return await shown(request, lambda: views.resources(ops.history, start, end))

        @get("/v1/ops/traces", summary="Asks whose traces are kept")
        async def traces(request: AnyRequest) -> Response[bytes]:
            start, end = _range(request)
            said = request.query_params
            words = ("function", "began", "tier", "caller", "device", "kept", "error", "trace")
            wanted: dict[str, Any] = {key: said.get(key, "") for key in words}
            wanted |= {key: _float(said, key) for key in ("least_ms", "most_ms")}
            wanted |= {key: said.get(key) == "1" for key in ("failed", "late")}
            order, most = said.get("order", "at"), int(_float(said, "most") or 100)
            return await shown(request, lambda: ops.history.asks(start, end, most, order, **wanted))

        @get("/v1/ops/traces/{trace:str}", summary="The spans of a trace")
        async def trace(request: AnyRequest) -> Response[bytes]:
            await operator(request)
            name = request.path_params["trace"]
            spans = await asyncio.to_thread(lambda: ops.history.trace(name))
            if not spans:
                raise UnknownFunction(f"no trace {name[:64]!r} is kept")
            return Response(encode(spans, JSON), media_type=JSON)

        @get("/v1/ops/live", summary="An event whenever there is something new")
        async def live(request: AnyRequest) -> Stream:
            await operator(request)
            headers = {"cache-control": "no-store"}
            return Stream(ops._ticks(), media_type=EVENTS, headers=headers)

        @post("/v1/feedback", status_code=200, summary="What somebody thinks of an answer")
        async def feedback(request: AnyRequest) -> Counted:
            (await admit(request.scope)).check("feedback")
            said = decode(await request.body(), Feedback, JSON)
            return await asyncio.to_thread(lambda: ops.count(said))

        @post(otlp.PATH, status_code=200, summary="Spans of other tiers, as OTLP in protobuf")
        async def received(request: AnyRequest) -> Response[bytes]:
            sender(request.headers)
            media = request.headers.get("content-type", "")
            encoding = request.headers.get("content-encoding", "")
            body = await request.body()
            spans = await asyncio.to_thread(lambda: otlp.read(body, media, encoding))
            if emit is not None:
                for span in spans:
                    emit(span)
            return Response(b"", media_type=otlp.MEDIA)

        return [overview, state, resources, traces, trace, live, feedback, received]

    async def _ticks(self) -> AsyncIterator[bytes]:
        seen, quiet = -1, 0.0
        while True:
            if self.history.version != seen:
                seen, quiet = self.history.version, 0.0
                now = time.time()
                read = self.history.cells
                cells = await asyncio.to_thread(read, now - 60, now + 10, "road", STEPS[0])
                total = [data for _, data, _ in cells.by(lambda _: 0)]
                said = told(total[0]) if total else None
                data = encode({"version": seen, "at": now, "minute": said}, JSON)
                yield b"event: tick\ndata: " + data + b"\n\n"
            elif quiet >= 15.0:
                quiet = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(1.0)
            quiet += 1.0


AnyRequest = Request[Any, Any, Any]


def scores(output: str, reference: str) -> tuple[float, float]:
    """Return BLEU and chrF of a text, each from 0 to 100."""
    # 50 ms to import, for what most gateways never do.
    from sacrebleu.metrics.bleu import BLEU as Bleu  # noqa: N811 # ours is the metric
    from sacrebleu.metrics.chrf import CHRF as Chrf  # noqa: N811

    chinese = any("\u4e00" <= each <= "\u9fff" for each in reference)
    bleu = Bleu(effective_order=True, tokenize="zh" if chinese else "13a")
    return (
        float(bleu.sentence_score(output, [reference]).score),
        float(Chrf().sentence_score(output, [reference]).score),
    )


def _range(request: AnyRequest) -> tuple[float, float]:
    """Return the times that are asked for: `from` and `to`, or the last `minutes` (60)."""
    said, now = request.query_params, time.time()
    end = _float(said, "to") or now
    start = _float(said, "from") or end - 60 * (_float(said, "minutes") or 60.0)
    if not start < end or end - start > 90 * 86400:
        raise BadInput(f"from {start:.0f} to {end:.0f} is not a time of up to 90 days")
    return start, end


def _float(said: Mapping[str, Any], name: str) -> float | None:
    text = said.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e11:
        raise BadInput(f"{name} is {text[:40]!r}; it must be a number, 0 or above")
    return value


def _shown(name: str) -> bool:
    kept = name.startswith(("trivium_", "process_", "api_", "docket_"))
    return kept and not name.endswith(("_bucket", "_created"))


def _size(history: History) -> int | None:
    with contextlib.suppress(Exception):
        return history.size()
    return None
