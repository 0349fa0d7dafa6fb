"""Spans on their way to a real collector."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

import pytest
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, StatusCode

from trivium.hosts.server.telemetry import (
    KEEP_A_SECOND,
    Export,
    Rate,
    Slow,
    Tail,
    Telemetry,
    Trace,
    configured,
    convert,
    telemetry,
)
from trivium.trace import Span, Tracer

TRACE, OWN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"

SPAN = Span(
    name="hop",
    service="edge",
    trace_id=TRACE,
    span_id=OWN,
    parent_id=PARENT,
    start_ns=1_000_000,
    end_ns=3_000_000,
    attributes={"trivium.tier": "cloud", "size": 7, "share": 0.5, "good": True},
    error="run_failed",
)
ROOT = Span(name="infer", service="page", trace_id=TRACE, span_id=PARENT, start_ns=1, end_ns=2)


def kept(*spans: Span) -> Trace:
    """Return a trace of spans that is to be kept."""
    made = Trace(TRACE, 0.0)
    made.spans, made.kept = list(spans), "share"
    return made


class Collector(HTTPServer):
    """Takes traces as any OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Take)
        self.taken: list[ExportTraceServiceRequest] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> dict[str, list[WireSpan]]:
        """Return what arrived, by service."""
        found: dict[str, list[WireSpan]] = {}
        for request in self.taken:
            for resource in request.resource_spans:
                names = {each.key: each.value.string_value for each in resource.resource.attributes}
                spans = [span for scope in resource.scope_spans for span in scope.spans]
                found.setdefault(names["service.name"], []).extend(spans)
        return found


class Take(BaseHTTPRequestHandler):
    """Reads one request."""

    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces"
        self.server.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    with Collector() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "false"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_export_is_off_until_the_standard_variables_name_an_endpoint(
    environ: dict[str, str], expected: bool
) -> None:
    """Nothing leaves a server that nobody has told to."""
    assert configured(environ) is expected


def test_a_span_becomes_the_sdks() -> None:
    """Ids, times, attributes, kind and error."""
    resource = Resource.create({"service.name": "x"})
    made = convert(SPAN, resource)
    assert made.context is not None
    assert made.parent is not None
    assert f"{made.context.trace_id:032x}" == f"{made.parent.trace_id:032x}" == TRACE
    assert (f"{made.context.span_id:016x}", f"{made.parent.span_id:016x}") == (OWN, PARENT)
    assert made.context.trace_flags.sampled
    assert (made.start_time, made.end_time) == (1_000_000, 3_000_000)
    assert dict(made.attributes or {}) == {**SPAN.attributes, "error.type": "run_failed"}
    assert made.kind is SpanKind.CLIENT
    assert (made.status.status_code, made.status.description) == (StatusCode.ERROR, "run_failed")
    root = convert(ROOT, resource)
    assert root.parent is None
    assert root.kind is SpanKind.INTERNAL
    assert root.status.status_code is StatusCode.UNSET


def test_spans_reach_a_collector(collector: Collector) -> None:
    """As OTLP over HTTP, each under the service that it belongs to."""
    export = Export(OTLPSpanExporter(f"{collector.url}/v1/traces"))
    export(kept(SPAN, ROOT))
    export.close()
    found = collector.spans()
    assert set(found) == {"trivium-edge", "trivium-page"}
    (hop,), (infer,) = found["trivium-edge"], found["trivium-page"]
    assert (hop.name, hop.trace_id.hex(), hop.span_id.hex()) == ("hop", TRACE, OWN)
    assert hop.parent_span_id == infer.span_id == bytes.fromhex(PARENT)
    assert (hop.start_time_unix_nano, hop.end_time_unix_nano) == (1_000_000, 3_000_000)
    values = {each.key: each.value for each in hop.attributes}
    assert values["trivium.tier"].string_value == "cloud"
    assert values["size"].int_value == 7
    assert values["share"].double_value == 0.5
    assert values["good"].bool_value is True
    assert (hop.status.code, hop.status.message) == (2, "run_failed")


def test_the_standard_variables_name_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an operator sets them; a tracer's own spans arrive with their nesting."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    counted: list[Span] = []
    export = telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, counted.extend)
    assert export is not None
    tracer = Tracer("cloud", export)
    with tracer.span("infer text.count") as outer, tracer.span("run", outer.header):
        pass
    with tracer.span("infer text.count", f"00-{TRACE}-{OWN}-00"):
        pass
    export.close()
    assert [span.sampled for span in counted] == [True, True, False]
    spans = {span.name: span for span in collector.spans()["trivium-cloud"]}
    assert set(spans) == {"infer text.count", "run"}
    assert spans["run"].parent_span_id == spans["infer text.count"].span_id
    assert spans["run"].trace_id == spans["infer text.count"].trace_id


@pytest.mark.parametrize("value", [1 << 70, -(1 << 70), "\ud800"])
def test_a_strangers_attribute_does_not_spoil_a_batch(collector: Collector, value: object) -> None:
    """What has no form in OTLP is left out, and all others arrive."""
    export = Export(OTLPSpanExporter(f"{collector.url}/v1/traces"))
    export(kept(SPAN, replace(ROOT, attributes={"n": value})))
    export.close()
    assert set(collector.spans()) == {"trivium-edge", "trivium-page"}


def test_a_dead_collector_stops_nobody() -> None:
    """Spans are lost, and asks go on."""
    export = Export(OTLPSpanExporter("http://127.0.0.1:9/v1/traces", timeout=0.1))
    export(kept(SPAN))
    export.close()


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def infer(trace: int, ms: float = 1.0, *, parent: str = "", **fields: Any) -> Span:
    """Return an ask's span of a trace of this number."""
    given = {"name": "infer text.count", "service": "edge", "span_id": OWN, **fields}
    # Its last digits decide which share it falls into.
    trace_id = f"{trace + 1:024x}{trace * 2654435761 % (1 << 32):08x}"
    end = 1_000_000_000 + int(ms * 1e6)
    return Span(trace_id=trace_id, parent_id=parent, start_ns=1_000_000_000, end_ns=end, **given)


def through(*spans: Span, a_second: float = KEEP_A_SECOND) -> list[Trace]:
    """Return the traces that come out when all came in at once and nothing later."""
    clock, found = Clock(), list[Trace]()
    tail = Tail(found.append, clock=clock, a_second=a_second)
    tail(spans)
    assert found == [], "complete before its time"
    clock.now += 3.0
    tail([])
    return found


def test_a_trace_is_complete_when_nothing_comes_any_more() -> None:
    """Whatever the order in which its spans came; the asks at its top are those that count."""
    hop = Span(
        name="hop",
        service="page",
        trace_id=infer(1).trace_id,
        span_id="2" * 16,
        parent_id="3" * 16,
        start_ns=1,
        end_ns=2,
    )
    below = infer(1, parent="2" * 16)
    top = infer(1, service="page", span_id="3" * 16)
    step = infer(1, span_id="4" * 16, parent=OWN, attributes={"trivium.inner": True})
    (trace,) = through(below, step, hop, top)
    assert trace.asks() == [top]
    assert trace.kept == "share"
    assert len(trace.spans) == 4


def test_what_is_worth_a_look_is_kept_and_of_the_rest_a_share() -> None:
    """Errors and missed budgets whatever their share; the caller's word is the last."""
    plain = [infer(i) for i in range(400)]
    failed = [infer(i, error="run_failed") for i in range(400, 410)]
    late = [infer(i, 9.0, attributes={"trivium.budget_ms": 5.0}) for i in range(410, 420)]
    quiet = [infer(i, error="run_failed", sampled=False) for i in range(420, 430)]
    found = through(*plain, *failed, *late, *quiet, a_second=2.0)
    assert len(found) == 430
    why = [trace.kept for trace in found]
    assert (why.count("error"), why.count("late")) == (10, 10)
    some = [trace for trace in found if trace.kept == "share"]
    assert 2 <= len(some) < 100
    assert all(trace.weight >= 1 for trace in some)
    assert max(trace.weight for trace in some) > 1


def test_all_tiers_keep_the_same_share() -> None:
    """It is decided by the trace's own number."""
    spans = [infer(i) for i in range(300)]
    one, other = (
        [each.trace_id for each in through(*given, a_second=5.0) if each.kept]
        for given in (spans, [replace(each, service="cloud") for each in spans])
    )
    assert one == other


def test_what_comes_late_follows_what_was_decided() -> None:
    """A page's spans, and those of another tier's next batch."""
    clock, found = Clock(), list[Trace]()
    tail = Tail(found.append, clock=clock)
    for span in (infer(1), infer(1, span_id="5" * 16, name="run")):
        tail([span])
        clock.now += 3.0
        tail([])
    first, second = found
    assert (first.kept, first.more) == ("share", False)
    assert (second.kept, second.more) == ("share", True)
    tail.close()


def test_a_circle_of_spans_ends() -> None:
    """Strangers may send anything."""
    one = infer(1, span_id="1" * 16, parent="2" * 16)
    other = infer(1, span_id="2" * 16, parent="1" * 16)
    (trace,) = through(one, other)
    assert trace.asks() == []


def test_the_slowest_of_a_hundred_are_told() -> None:
    """Once enough was seen to tell."""
    slow = Slow()
    assert not any(slow.add(5.0 + i % 7 / 10) for i in range(640))
    assert slow.add(50.0)
    assert not slow.add(5.1)


def test_a_share_keeps_a_rate() -> None:
    """All of few, and of many as many as may be."""
    rate = Rate(10.0)
    assert all(rate.share(float(i)) == 1.0 for i in range(20))
    shares = [rate.share(100 + i / 1000) for i in range(20_000)]
    assert 0.005 < shares[-1] < 0.02


def test_a_taker_that_fails_is_in_nobodys_way() -> None:
    """Others get their spans, and so does it when it is well again."""
    taken: list[Span] = []

    def broken(_: object) -> None:
        raise OSError("no space left on device")

    queue = Telemetry(broken, taken.extend)
    queue(SPAN)
    queue(ROOT)
    queue.close()
    assert taken == [SPAN, ROOT]


def test_nothing_is_collected_where_it_is_switched_off() -> None:
    """By OpenTelemetry's own variable."""
    assert telemetry({"OTEL_SDK_DISABLED": "true"}, lambda _: None) is None


def test_an_ask_is_told_by_the_conventions_for_generative_ai() -> None:
    """As far as they fit."""
    made = convert(
        replace(infer(1), name="infer text.embed", attributes={"trivium.model": "minilm"}),
        Resource.create({}),
    )
    said = dict(made.attributes or {})
    assert said["gen_ai.operation.name"] == "embeddings"
    assert said["gen_ai.request.model"] == "text.embed"
    assert said["gen_ai.response.model"] == "minilm"
    assert convert(infer(1, name="POST /v1/infer/{function}"), Resource.create({})).kind is (
        SpanKind.SERVER
    )


class Stuck(BaseHTTPRequestHandler):
    """Takes a request and says nothing until it may."""

    begun, may = threading.Event(), threading.Event()

    def do_POST(self) -> None:
        self.begun.set()
        self.may.wait(30)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_backend_that_hangs_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it holds the first batch, asks go on, all are counted, and the rest is dropped."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stuck)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    counted: list[Span] = []
    queue = telemetry({"OTEL_EXPORTER_OTLP_ENDPOINT": url}, counted.extend)
    assert queue is not None
    export = Export(OTLPSpanExporter(f"{url}/v1/traces"))
    export(kept(*[infer(1, span_id=f"{i + 1:016x}") for i in range(600)]))
    assert Stuck.begun.wait(20)
    # More than any queue holds, and none of it waits for the backend.
    export(kept(*[infer(1, span_id=f"{i + 1:016x}") for i in range(5000)]))
    for i in range(60_000):
        queue(infer(i % 1000, span_id=f"{i + 1:016x}"))
    queue.flush()
    assert not Stuck.may.is_set()
    assert counted
    Stuck.may.set()
    queue.close()
    assert len(counted) + queue.lost >= 60_000
    export.close()
    server.shutdown()
    thread.join()
    server.server_close()
