"""Spans on their way to a real collector."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, StatusCode

from trivium.hosts.server.telemetry import Export, configured, convert, emitter
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
    if not expected:
        assert emitter(environ) is None


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
    assert dict(made.attributes or {}) == SPAN.attributes
    assert made.kind is SpanKind.CLIENT
    assert (made.status.status_code, made.status.description) == (StatusCode.ERROR, "run_failed")
    root = convert(ROOT, resource)
    assert root.parent is None
    assert root.kind is SpanKind.INTERNAL
    assert root.status.status_code is StatusCode.UNSET


def test_spans_reach_a_collector(collector: Collector) -> None:
    """As OTLP over HTTP, each under the service that it belongs to."""
    export = Export(OTLPSpanExporter(f"{collector.url}/v1/traces"))
    export(SPAN)
    export(ROOT)
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
    export = emitter({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert export is not None
    tracer = Tracer("cloud", export)
    with tracer.span("infer text.count") as outer, tracer.span("run", outer.header):
        pass
    with tracer.span("unsampled", f"00-{TRACE}-{OWN}-00"):
        pass
    export.close()
    spans = {span.name: span for span in collector.spans()["trivium-cloud"]}
    assert set(spans) == {"infer text.count", "run"}
    assert spans["run"].parent_span_id == spans["infer text.count"].span_id
    assert spans["run"].trace_id == spans["infer text.count"].trace_id


@pytest.mark.parametrize("value", [1 << 70, -(1 << 70), "\ud800"])
def test_a_strangers_attribute_does_not_spoil_a_batch(collector: Collector, value: object) -> None:
    """What has no form in OTLP is left out, and all others arrive."""
    export = Export(OTLPSpanExporter(f"{collector.url}/v1/traces"))
    export(SPAN)
    export(replace(ROOT, attributes={"n": value}))
    export.close()
    assert set(collector.spans()) == {"trivium-edge", "trivium-page"}


def test_a_dead_collector_stops_nobody() -> None:
    """Spans are lost, and asks go on."""
    export = Export(OTLPSpanExporter("http://127.0.0.1:9/v1/traces", timeout=0.1))
    export(SPAN)
    export.close()
