"""Where do finished spans go, and which traces are worth keeping?

An ask only appends its spans to a queue. A thread takes them from there to what counts, keeps or
exports them, so that a slow or dead backend is in nobody's way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import log

from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ...errors import ERRORS, BudgetError
from ...trace import Span
from . import masking

EVERY_S = 0.25
"""How often the queue of finished spans is emptied."""

MOST = 50_000
"""Spans in the queue; beyond that the oldest are lost, and counted."""

QUIET_S = 2.0
"""A trace is complete when nothing was added for so long."""

PATIENCE_S = 120.0
"""A trace to which nothing is added for so long is complete even if its ask never ended."""

OPEN = 20_000
"""Traces that may be waited for at once, and that are remembered once they are decided."""

KEEP_A_SECOND = 20.0
"""Of ordinary traces so many are kept; of more a share, the same traces on every tier."""

REMARKABLE_A_SECOND = 100.0
"""The same for traces with errors, missed budgets or slow asks."""

log_ = logging.getLogger("trivium.telemetry")

Taker = Callable[[Sequence[Span]], None]


class Telemetry:
    """The queue between asks and whatever takes their spans, in a thread of its own."""

    def __init__(self, *takers: Taker, close: Callable[[], None] | None = None) -> None:
        self.lost = 0
        self._takers = takers
        self._close = close
        self._waiting: deque[Span] = deque(maxlen=MOST)
        self._ended = threading.Event()
        self._failed: set[Taker] = set()
        self._thread = threading.Thread(target=self._work, name="trivium-telemetry", daemon=True)
        self._thread.start()

    def __call__(self, span: Span) -> None:
        """Queue one span; never waits."""
        if len(self._waiting) == MOST:
            self.lost += 1
        self._waiting.append(span)

    def flush(self) -> None:
        """Hand on what is queued now."""
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        for taker in self._takers:
            try:
                taker(batch)
                self._failed.discard(taker)
            except Exception:  # a taker's fault is no ask's
                if taker not in self._failed:
                    log_.exception("spans could not be taken")
                self._failed.add(taker)

    def close(self) -> None:
        """Hand on what is queued, and end."""
        self._ended.set()
        self._thread.join(5.0)
        if self._close is not None:
            self._close()

    def _work(self) -> None:
        while not self._ended.wait(EVERY_S):
            self.flush()
        self.flush()


def asking(span: Span) -> str:
    """Return the function that a span is an ask for, if it is one and no step of a pipeline."""
    verb, _, name = span.name.partition(" ")
    if verb == "cache":
        # What was kept is an answer; what was not is followed by a run.
        return name if span.attributes.get("trivium.cached") in ("hit", "stale") else ""
    if verb not in ("infer", "stream") or "trivium.inner" in span.attributes:
        return ""
    return name


def mistaken(span: Span) -> bool:
    """Return whether it was the caller's mistake that an ask failed, and nobody else's."""
    kind = ERRORS.get(span.error)
    return kind is not None and kind.status < 500 and not issubclass(kind, BudgetError)


def unasked(span: Span) -> bool:
    """Return whether it is a request that failed, maybe before it was an ask: as a task, say."""
    return span.name == "POST /v1/multimodal" and span.error in ERRORS and not mistaken(span)


def lasted(span: Span) -> float:
    """Return a span's milliseconds."""
    return (span.end_ns - span.start_ns) / 1e6


def late(span: Span) -> bool | None:
    """Return whether an ask missed its budget; nothing without one."""
    budget = span.attributes.get("trivium.budget_ms")
    if not isinstance(budget, int | float) or mistaken(span):
        return None
    return bool(span.error) or lasted(span) > budget


class Trace:
    """All that is known of one trace: its spans, the asks that began it, and why it is `kept`.

    `weight` is how many like it stand behind it, where only a share is kept. What came after it
    was decided is `more`.
    """

    __slots__ = ("begun", "kept", "more", "seen", "spans", "trace_id", "weight")

    def __init__(self, trace_id: str, now: float) -> None:
        self.trace_id = trace_id
        self.spans: list[Span] = []
        self.begun = self.seen = now
        self.kept = ""
        self.weight = 1.0
        self.more = False

    def asks(self) -> list[Span]:
        """Return the asks that no other ask of the trace stands above."""
        known = {span.span_id: span for span in self.spans}
        asks = [span for span in self.spans if asking(span)]
        return [span for span in asks if not any(map(asking, _above(span, known)))]


def _above(span: Span, known: Mapping[str, Span]) -> Iterator[Span]:
    """Yield what a span stands under, as far as it is known; strangers may send circles."""
    for _ in range(64):
        above = known.get(span.parent_id)
        if above is None:
            return
        yield above
        span = above


class Slow:
    """Tells asks that take longer than 99 of 100 like them."""

    _BINS = 64

    def __init__(self) -> None:
        self._counts = [0] * self._BINS
        self._total = 0
        self._bound = float("inf")

    def add(self, ms: float) -> bool:
        """Take in one time; return whether it is among the slowest."""
        place = min(self._BINS - 1, max(0, int(4 * log(max(ms, 0.05) / 0.05))))
        self._counts[place] += 1
        self._total += 1
        if self._total % 64 == 0:
            left, bound = 0.01 * self._total, self._BINS
            while bound and left >= 0:
                bound -= 1
                left -= self._counts[bound]
            self._bound = bound
            if self._total >= 4096:
                # What was long ago counts less and less.
                self._counts = [each // 2 for each in self._counts]
                self._total = sum(self._counts)
        return place > self._bound


class Tail:
    """Puts spans together to traces, and decides which are kept once they are complete.

    Errors, missed budgets and slow asks are; of the rest a share by the trace's own number, so that
    all tiers keep the same. Each complete trace goes to all `takers`.
    """

    def __init__(
        self,
        *takers: Callable[[Trace], None],
        clock: Callable[[], float] = time.monotonic,
        a_second: float = KEEP_A_SECOND,
    ) -> None:
        self._takers = takers
        self._clock = clock
        self._open: OrderedDict[str, Trace] = OrderedDict()
        self._decided: OrderedDict[str, str] = OrderedDict()
        self._slow: dict[str, Slow] = {}
        self._failed = False
        self._plain = Rate(a_second)
        self._remarkable = Rate(REMARKABLE_A_SECOND)

    def __call__(self, spans: Iterable[Span]) -> None:
        """Take in spans of any traces, and hand on those that are complete."""
        now = self._clock()
        for span in spans:
            trace = self._open.get(span.trace_id)
            if trace is None:
                trace = self._open[span.trace_id] = Trace(span.trace_id, now)
            trace.seen = now
            trace.spans.append(span)
        ended: list[Trace] = []
        over = len(self._open) - OPEN
        for trace in self._open.values():
            if now - trace.begun < QUIET_S and len(ended) >= over:
                break  # all others came later
            age = now - trace.seen
            if len(ended) < over or (
                age >= QUIET_S
                and (
                    age >= PATIENCE_S
                    or trace.trace_id in self._decided
                    or any(asking(span) or unasked(span) for span in trace.spans)
                )
            ):
                ended.append(trace)
        for trace in ended:
            self._end(trace, now)

    def close(self) -> None:
        """Decide all that is open."""
        now = self._clock()
        for trace in list(self._open.values()):
            self._end(trace, now)

    def _end(self, trace: Trace, now: float) -> None:
        del self._open[trace.trace_id]
        before = self._decided.get(trace.trace_id)
        if before is None:
            trace.kept = self._worth(trace, now)
            self._decided[trace.trace_id] = trace.kept
            if len(self._decided) > OPEN:
                self._decided.popitem(last=False)
        else:
            trace.kept, trace.more = before, True
        if trace.kept:
            # What anybody may read of it: a page, and whoever wrote a function, may say anything.
            trace.spans = [_hidden(span) for span in trace.spans]
        for taker in self._takers:
            try:
                taker(trace)
            except Exception:  # what one stranger sent must not cost others theirs
                if not self._failed:
                    log_.exception("a trace could not be taken")
                self._failed = True

    def _worth(self, trace: Trace, now: float) -> str:
        """Return why a trace is kept, or nothing."""
        why = ""
        for ask in trace.asks():
            took = lasted(ask)
            known = self._slow.setdefault(
                f"{ask.name} {ask.attributes.get('trivium.tier')}", Slow()
            )
            slow = known.add(took)
            if len(self._slow) > 1000:
                self._slow.clear()
            why = why or ("late" if late(ask) else "slow" if slow else "")
        if any(span.error for span in trace.spans):
            why = "error"
        if not all(span.sampled for span in trace.spans):
            return ""
        share = (self._remarkable if why else self._plain).share(now)
        if int(trace.trace_id[-8:], 16) >= share * 0x100000000:
            return ""
        trace.weight = 1.0 if why else 1.0 / share
        return why or "share"


def _hidden(span: Span) -> Span:
    masker = masking.current()
    attributes = masker.data(span.attributes)
    name, error = masker.text(span.name), masker.text(span.error)
    return replace(span, name=name, attributes=attributes, error=error)


class Rate:
    """What share may be kept so that at most so many a second are."""

    def __init__(self, most: float) -> None:
        self._most = most
        self._rate = 0.0
        self._seen = float("-inf")

    def share(self, now: float) -> float:
        """Count one more, and return the share there may be."""
        gone = now - self._seen
        if gone > 5.0:
            self._rate = 0.0
        else:
            self._rate *= max(0.0, 1.0 - gone / 5.0)
        self._seen = now
        # An exponential mean over five seconds: each one counts a fifth.
        self._rate += 0.2
        return min(1.0, self._most / self._rate)


class Export:
    """Sends the traces that are kept to an OpenTelemetry collector, in batches of its thread."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())
        self._resources: dict[str, Resource] = {}

    def __call__(self, trace: Trace) -> None:
        """Queue a trace's spans, if it is kept."""
        if not trace.kept:
            return
        tops = {span.span_id for span in trace.asks()} if trace.weight > 1 else ()
        for span in trace.spans:
            resource = self._resources.get(span.service)
            if resource is None:
                resource = Resource.create({"service.name": service(span.service)})
                self._resources[span.service] = resource
            weight = {"trivium.weight": trace.weight} if span.span_id in tops else {}
            self._processor.on_end(convert(span, resource, weight))

    def close(self) -> None:
        """Send what is queued."""
        self._processor.shutdown()  # type: ignore[no-untyped-call] # untyped in the SDK


def service(name: str) -> str:
    """Return how a tier is called outside: trivium-page, trivium-edge, trivium-cloud."""
    return f"trivium-{name.removeprefix('trivium.')}"


OPERATIONS = {
    "embed": "embeddings",
    "generate": "text_completion",
    "transcribe": "generate_content",
    "describe": "generate_content",
}
"""What OpenTelemetry's conventions for generative AI call what a function does."""


def convert(
    span: Span, resource: Resource, more: Mapping[str, float] | None = None
) -> ReadableSpan:
    """Return our span as the SDK's, with the conventional names of what it says."""
    trace_id = int(span.trace_id, 16)
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = None
    if span.parent_id:
        parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=True)
    attributes = {**span.attributes, **(more or {})}
    verb, _, name = span.name.partition(" ")
    kind = SpanKind.CLIENT if verb == "hop" else SpanKind.INTERNAL
    if verb in ("GET", "POST", "DELETE", "PATCH", "HEAD"):
        kind = SpanKind.SERVER
    elif verb in ("infer", "stream"):
        what = name.rpartition(".")[2]
        attributes["gen_ai.operation.name"] = OPERATIONS.get(what, what)
        attributes["gen_ai.provider.name"] = "trivium"
        attributes["gen_ai.request.model"] = name
        if "trivium.model" in attributes:
            attributes["gen_ai.response.model"] = attributes["trivium.model"]
    if span.error:
        attributes["error.type"] = span.error
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=sampled),
        parent=parent,
        resource=resource,
        attributes=attributes,
        kind=kind,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )


def configured(environ: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's standard variables name an endpoint for traces."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return not off and any(environ.get(name) for name in endpoints)


def telemetry(
    environ: Mapping[str, str], count: Taker, *keep: Callable[[Trace], None]
) -> Telemetry | None:
    """Return what a server's spans go to: what counts them, keeps traces, and exports them.

    Nothing at all where OpenTelemetry's OTEL_SDK_DISABLED says so.
    """
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    export = Export() if configured(environ) else None
    takers: list[Callable[[Trace], None]] = [*keep, *([export] if export else [])]
    if not takers:
        return Telemetry(count)
    tail = Tail(*takers)

    def close() -> None:
        tail.close()
        if export is not None:
            export.close()

    return Telemetry(count, tail, close=close)
