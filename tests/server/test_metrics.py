"""What a tier counts, as Prometheus reads it."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

import toys
from servers import CLOUD_KEY, KEY, ORIGIN, Servers
from trivium.contract import Tier
from trivium.hosts.server.metrics import SECONDS, Metrics
from trivium.hosts.server.server import Server
from trivium.hosts.server.telemetry import Telemetry
from trivium.trace import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"


def infer(function: str = "text.count", error: str = "", **said: object) -> Span:
    return Span(
        name=f"infer {function}",
        service="test",
        trace_id=TRACE,
        span_id="1" * 16,
        start_ns=1_000_000_000,
        end_ns=1_004_000_000,
        attributes={f"trivium.{name}": value for name, value in said.items()},
        error=error,
    )


class Seen:
    """A scrape's samples."""

    def __init__(self, text: str, openmetrics: bool = False) -> None:
        read = openmetrics_families if openmetrics else text_string_to_metric_families
        self.samples = [sample for family in read(text) for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of what has these labels."""
        return sum(
            float(sample.value)
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def shown(metrics: Metrics) -> Seen:
    from prometheus_client.exposition import generate_latest

    return Seen(generate_latest(metrics).decode())


def test_asks_are_counted_by_what_came_of_them() -> None:
    """Road, code, budget, detours, time and where it went."""
    metrics = Metrics("test")
    before = shown(metrics)
    metrics.take(
        [
            infer(tier="edge", budget_ms=5.0, run_ms=3.0, python_ms=1.0, spent=0.3, confidence=0.8),
            infer(tier="cloud", budget_ms=1.0, failed="edge: run_failed", hedged="cloud"),
            infer(error="over_budget", budget_ms=9.0),
            infer(inner=True, tier="edge"),
            infer("text.count", tier="edge").__class__(
                name="infer text.count",
                service="another",
                trace_id=TRACE,
                span_id="2" * 16,
                start_ns=1,
                end_ns=2,
            ),
        ]
    )
    after = shown(metrics)

    def more(name: str, **labels: str) -> float:
        return after.value(name, service="test", **labels) - before.value(
            name, service="test", **labels
        )

    assert more("trivium_asks_total") == 3
    assert more("trivium_asks_total", road="edge", code="ok") == 1
    assert more("trivium_asks_total", road="none", code="over_budget") == 1
    assert more("trivium_budgets_total", met="true") == 1
    assert more("trivium_budgets_total", met="false") == 2
    assert more("trivium_detours_total", kind="fallback") == 1
    assert more("trivium_detours_total", kind="hedge") == 1
    assert more("trivium_stage_seconds_total", stage="run") == pytest.approx(0.003)
    assert more("trivium_spent_total") == pytest.approx(0.3)
    assert more("trivium_ask_seconds_bucket", road="edge", le="0.005") == 1
    assert more("trivium_ask_seconds_bucket", road="edge", le="0.0025") == 0
    assert SECONDS[0] == 0.00025


def test_functions_that_anybody_names_become_one() -> None:
    """A label's values are bounded, whatever is asked for."""
    metrics = Metrics("test")
    metrics.take([infer(f"made.up{i}", tier="edge") for i in range(400)])
    assert len({metrics.name(f"made.up{i}") for i in range(400)}) <= 257
    assert metrics.name("made.up399") == "other"


def test_a_server_shows_requests_by_class_and_its_state(shared: Servers) -> None:
    """Routes are templates, methods and codes few; models, roads and breakers are told."""
    shared.cloud.text("text.count", "one two")
    shared.cloud.text("text.nothing", "one two")
    shared.cloud.send("GET", "/made/up", key=None)
    text = shared.cloud.get("/metrics").text
    seen = Seen(text)
    own = {"service": "cloud", "method": "POST"}
    route = "/v1/infer/{function}"
    assert seen.value("api_requests_total", status="2xx", route=route, **own) >= 1
    assert seen.value("api_requests_total", status="4xx", route=route, **own) >= 1
    assert "made/up" not in text
    assert "text.nothing" not in text
    assert seen.value("trivium_model_loaded", function="text.count", service="cloud") == 1
    assert seen.value("trivium_road_ready", function="text.count", tier="cloud") >= 1
    assert {"trivium_breaker_open", "trivium_queue_ms", "process_resident_memory_bytes"} <= {
        sample.name for sample in seen.samples
    }


def test_spans_that_are_lost_are_shown() -> None:
    """By the server whose queue was full."""
    server, spans = Server(Tier.EDGE, [], toys.trust()), Telemetry()

    async def running() -> float:
        async with server.running(spans):
            spans.lost = 3
            # Alerts look at what is first, however much was counted.
            assert next(server.metrics.collect()).name == "trivium_road_ready"
            return shown(server.metrics).value("trivium_spans_lost", service="edge")

    assert asyncio.run(running()) == 3.0


def test_openmetrics_carries_exemplars(shared: Servers) -> None:
    """A bucket leads to a trace."""
    metrics = Metrics("cloud")
    metrics.take(
        [
            Span(
                name="infer text.count",
                service="cloud",
                trace_id=TRACE,
                span_id="1" * 16,
                start_ns=1,
                end_ns=2_000_001,
                attributes={"trivium.tier": "cloud"},
            )
        ]
    )
    response = shared.cloud.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    seen = Seen(response.text, openmetrics=True)
    found = [s.exemplar.labels for s in seen.samples if s.exemplar is not None]
    assert {"trace_id": TRACE} in found


def test_metrics_are_for_those_with_a_key(shared: Servers) -> None:
    """With the scope for it, which a page's token never has: they show what others do."""
    assert shared.cloud.get("/metrics", key=None).status_code == 401
    assert shared.cloud.get("/metrics", key=CLOUD_KEY).status_code == 200
    assert shared.edge.get("/metrics", key=KEY).status_code == 200
    origin = {"origin": ORIGIN}
    token = shared.edge.send("POST", "/v1/token", key=None, headers=origin).json()["token"]
    assert shared.edge.get("/metrics", key=token, headers=origin).status_code == 403
