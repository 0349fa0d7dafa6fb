"""Spans that another tier's exporter sends."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource

from trivium.errors import BadInput, TooLarge, TriviumError
from trivium.hosts.server import otlp
from trivium.hosts.server.telemetry import convert
from trivium.trace import Span

SPAN = Span(
    name="hop",
    service="cloud",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    parent_id="00f067aa0ba902b7",
    start_ns=1_000_000,
    end_ns=3_000_000,
    attributes={"trivium.tier": "cloud", "size": 7, "share": 0.5, "good": True},
)
BODY = encode_spans(
    [convert(SPAN, Resource.create({"service.name": "trivium-cloud"}))]
).SerializeToString()


def test_what_is_sent_arrives_as_it_was() -> None:
    """Plain and packed."""
    assert otlp.read(BODY, otlp.MEDIA, "") == [SPAN]
    assert otlp.read(gzip.compress(BODY), f"{otlp.MEDIA}; x=y", "gzip") == [SPAN]


def test_what_is_not_plausible_is_left_out() -> None:
    """The rest of the batch counts."""
    wrong = Span(**{**{n: getattr(SPAN, n) for n in SPAN.__struct_fields__}, "name": "x" * 2000})
    resource = Resource.create({"service.name": "trivium-cloud"})
    body = encode_spans([convert(each, resource) for each in (SPAN, wrong)]).SerializeToString()
    assert otlp.read(body, otlp.MEDIA, "") == [SPAN]


def test_what_is_refused_says_why() -> None:
    """Wrong types, broken bodies, bombs."""
    for body, media, encoding, kind in (
        (BODY, "application/json", "", BadInput),
        (BODY, otlp.MEDIA, "br", BadInput),
        (b"\xff\xff\xff", otlp.MEDIA, "", BadInput),
        (b"no gzip", otlp.MEDIA, "gzip", BadInput),
        (gzip.compress(BODY)[:-9], otlp.MEDIA, "gzip", BadInput),
        (zlib.compress(bytes(64 << 20), wbits=31), otlp.MEDIA, "gzip", TooLarge),
    ):
        with pytest.raises(kind):
            otlp.read(body, media, encoding)


@given(st.binary(max_size=200), st.sampled_from(["", "gzip"]))
def test_any_bytes_are_read_or_refused(body: bytes, encoding: str) -> None:
    """By an error of ours."""
    with contextlib.suppress(TriviumError):
        assert all(span.plausible() for span in otlp.read(body, otlp.MEDIA, encoding))
