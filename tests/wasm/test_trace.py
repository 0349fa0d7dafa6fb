"""Spans and their ids."""

from __future__ import annotations

import pytest

from trivium.errors import ModelNotReady
from trivium.trace import Span, Tracer, parse

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_valid_traceparent_is_read() -> None:
    """The example of W3C Trace Context."""
    assert parse(HEADER) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", True)
    assert parse(HEADER.replace("00-", "cc-", 1) + "-later") is not None


@pytest.mark.parametrize(
    "header",
    [
        "",
        "junk",
        HEADER.upper(),
        HEADER + "-more",
        "ff" + HEADER[2:],
        HEADER.replace("b7ad6b7169203331", "0" * 16),
        HEADER.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        HEADER[:-1],
        HEADER.replace("b7", "xy"),
    ],
)
def test_an_invalid_traceparent_starts_anew(header: str) -> None:
    """What strangers send is not trusted to be well-formed."""
    assert parse(header) is None
    assert parse(Tracer("edge").span("x", header).header) is not None


def test_children_share_the_trace() -> None:
    """A child names its parent, and errors are named by code, never by message."""
    spans: list[Span] = []
    tracer = Tracer("edge", spans.append)
    with pytest.raises(ModelNotReady), tracer.span("outer", HEADER) as outer:  # noqa: SIM117
        with tracer.span("inner", outer.header, size=3):
            raise ModelNotReady("secret text")
    inner, outer_span = spans
    assert inner.trace_id == outer_span.trace_id == HEADER[3:35]
    assert inner.parent_id == outer_span.span_id
    assert outer_span.parent_id == HEADER[36:52]
    assert inner.error == "model_not_ready"
    assert "secret" not in repr(spans)
    assert inner.attributes == {"size": 3}
    assert inner.end_ns >= inner.start_ns


def test_what_is_not_sampled_is_passed_on_and_marked() -> None:
    """The caller's choice: it is counted, and kept nowhere."""
    spans: list[Span] = []
    with Tracer("edge", spans.append).span("x", HEADER[:-1] + "0") as span:
        assert span.header.endswith("-00")
    assert [span.sampled for span in spans] == [False]


def test_strangers_spans_must_be_plausible() -> None:
    """Ids are hex, times in order, texts short."""
    good = Span(name="x", service="s", trace_id="1" * 32, span_id="2" * 16, start_ns=1, end_ns=2)
    from msgspec.structs import replace

    assert good.plausible()
    assert replace(good, parent_id="3" * 16).plausible()
    for wrong in (
        {"trace_id": "z" * 32},
        {"parent_id": "0" * 16},
        {"end_ns": 0},
        {"start_ns": 0},
        {"name": "x" * 2000},
        {"attributes": {"a": [1]}},
        {"attributes": {str(i): i for i in range(49)}},
    ):
        assert not replace(good, **wrong).plausible(), wrong
