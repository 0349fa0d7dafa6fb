"""Which spans does a request of another tier's exporter carry?"""

from __future__ import annotations

import zlib
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ...errors import BadInput, TooLarge
from ...trace import Span

PATH = "/v1/traces"
MEDIA = "application/x-protobuf"

MOST_BYTES = 16 << 20
"""Bytes of one request, unpacked."""

MOST_SPANS = 20_000


def read(body: bytes, media: str, encoding: str) -> list[Span]:
    """Return the spans of an OTLP request in protobuf, plain or gzipped.

    Those that are not plausible are left out. Raises BadInput, or TooLarge above MOST_BYTES and
    MOST_SPANS.
    """
    if media.partition(";")[0].strip().lower() != MEDIA:
        raise BadInput(f"content type {media[:100]!r} is not {MEDIA}")
    if encoding not in ("", "identity", "gzip"):
        raise BadInput(f"content encoding {encoding[:40]!r} is neither gzip nor identity")
    if encoding == "gzip":
        body = _unpacked(body)
    if len(body) > MOST_BYTES:
        raise TooLarge(f"{len(body)} bytes of spans were sent; at most {MOST_BYTES} are allowed")
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except DecodeError as error:
        raise BadInput("the body is no ExportTraceServiceRequest") from error
    found: list[Span] = []
    for each in request.resource_spans:
        said = {pair.key: pair.value.string_value for pair in each.resource.attributes}
        service = said.get("service.name", "").removeprefix("trivium-")[:64]
        for scope in each.scope_spans:
            if len(found) + len(scope.spans) > MOST_SPANS:
                raise TooLarge(f"more than {MOST_SPANS} spans were sent")
            found += [span for wire in scope.spans if (span := _span(wire, service)).plausible()]
    return found


def _unpacked(body: bytes) -> bytes:
    packed = zlib.decompressobj(wbits=31)
    try:
        data = packed.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise BadInput(f"the body is no gzip: {error}") from None
    if len(data) <= MOST_BYTES and not packed.eof:
        raise BadInput("the gzip ends too early")
    return data


def _span(wire: Any, service: str) -> Span:
    attributes = {}
    for pair in wire.attributes:
        kind = pair.value.WhichOneof("value")
        if kind in ("string_value", "bool_value", "int_value", "double_value"):
            attributes[pair.key] = getattr(pair.value, kind)
    error = ""
    if wire.status.code == wire.status.STATUS_CODE_ERROR:
        error = wire.status.message or "error"
    return Span(
        name=wire.name,
        service=service,
        trace_id=wire.trace_id.hex(),
        span_id=wire.span_id.hex(),
        parent_id=wire.parent_span_id.hex(),
        start_ns=wire.start_time_unix_nano,
        end_ns=wire.end_time_unix_nano,
        attributes=attributes,
        error=error,
    )
