"""Where do finished spans go: to an OpenTelemetry collector, where one is configured?"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ...trace import Span


def configured(environ: Mapping[str, str]) -> bool:
    """Return whether OpenTelemetry's standard variables name an endpoint for traces."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    off = off or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none"
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return not off and any(environ.get(name) for name in endpoints)


class Export:
    """Takes our spans and sends them in batches; several services may share one."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())
        self._resources: dict[str, Resource] = {}

    def __call__(self, span: Span) -> None:
        """Queue one span."""
        resource = self._resources.get(span.service)
        if resource is None:
            resource = Resource.create({"service.name": f"trivium-{span.service}"})
            self._resources[span.service] = resource
        self._processor.on_end(convert(span, resource))

    def close(self) -> None:
        """Send what is queued."""
        self._processor.shutdown()  # type: ignore[no-untyped-call] # untyped in the SDK


def convert(span: Span, resource: Resource) -> ReadableSpan:
    """Return our span as the SDK's."""
    trace_id = int(span.trace_id, 16)
    sampled = TraceFlags(TraceFlags.SAMPLED)
    parent = None
    if span.parent_id:
        parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=True)
    return ReadableSpan(
        name=span.name,
        context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=sampled),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        kind=SpanKind.CLIENT if span.name == "hop" else SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
        start_time=span.start_ns,
        end_time=span.end_ns,
    )


def emitter(environ: Mapping[str, str]) -> Export | None:
    """Return the export that the environment configures, or none: tracing is off by default."""
    return Export() if configured(environ) else None
