"""What operators see of the real edge and cloud."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource

import samples
from servers import KEY, ORIGIN, TRACES_KEY, Servers, fault, serving
from trivium.hosts.server import otlp
from trivium.hosts.server.telemetry import QUIET_S, convert
from trivium.trace import Span


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """An edge that keeps its history, in front of a cloud."""
    zoo = samples.zoo(tmp_path_factory.mktemp("zoo"))
    with serving([zoo], history=tmp_path_factory.mktemp("history")) as made:
        yield made


def until(read: Any, good: Any) -> Any:
    """Return what is read once it is good; a trace is complete after some seconds."""
    end = time.monotonic() + QUIET_S + 15
    while not good(found := read()):
        assert time.monotonic() < end, found
        time.sleep(0.2)
    return found


def overview(seen: Servers, query: str = "") -> Any:
    response = seen.edge.get(f"/v1/ops/overview?minutes=10{query}")
    assert response.status_code == 200, response.text
    return response.json()


def trace_of(seen: Servers, text: str = "one two", **headers: str) -> str:
    response = seen.edge.text("text.count", text, **headers)
    assert response.status_code == 200, response.text
    return str(response.headers["traceparent"].split("-")[1])


def test_an_ask_is_seen_with_its_trace(seen: Servers) -> None:
    """From the request to the model, on both tiers that had a part in it."""
    trace = trace_of(seen, trivium_tiers="edge", trivium_ms="5000")
    found = until(lambda: overview(seen), lambda said: said["total"])
    row = next(row for row in found["roads"] if row["tier"] == "edge")
    assert (row["function"], row["modality"], row["began"]) == ("text.count", "text", "edge")
    assert row["asks"] >= 1
    assert row["met"] == 1
    assert found["callers"][0]["who"] == "default"
    kept = seen.edge.get(f"/v1/ops/traces?minutes=10&trace={trace}").json()
    assert [each["function"] for each in kept] == ["text.count"]
    spans = seen.edge.get(f"/v1/ops/traces/{trace}").json()
    names = {span["name"] for span in spans}
    assert {"POST /v1/infer/{function}", "infer text.count", "decode", "run"} <= names
    # What was asked and answered stands nowhere.
    assert "one two" not in str(spans) + str(found)
    (ask,) = [span for span in spans if span["name"] == "infer text.count"]
    said = ask["attributes"]
    assert said["trivium.budget_ms"] == 5000
    assert {"trivium.plan", "trivium.quality", "trivium.took_ms", "trivium.run_ms"} <= said.keys()


def test_spans_of_other_tiers_join_the_trace(seen: Servers) -> None:
    """They come later, by OTLP, and are put where they belong."""
    trace = trace_of(seen)
    until(
        lambda: seen.edge.get(f"/v1/ops/traces/{trace}"),
        lambda response: response.status_code == 200,
    )
    now = time.time_ns()
    span = Span(
        name="run",
        service="cloud",
        trace_id=trace,
        span_id="7" * 16,
        start_ns=now - 1000,
        end_ns=now,
    )
    made = convert(span, Resource.create({"service.name": "trivium-cloud"}))
    body = encode_spans([made]).SerializeToString()
    headers = {"content-type": otlp.MEDIA}
    wrong = seen.edge.send("POST", "/v1/traces", key=KEY, content=body, headers=headers)
    assert wrong.status_code == 401
    sent = seen.edge.send("POST", "/v1/traces", key=TRACES_KEY, content=body, headers=headers)
    assert sent.status_code == 200
    until(
        lambda: seen.edge.get(f"/v1/ops/traces/{trace}").json(),
        lambda spans: "cloud" in {span["service"] for span in spans},
    )


def test_errors_are_told_with_their_number_and_time(seen: Servers) -> None:
    """A caller's mistake is not the function's failure."""
    assert seen.edge.text("text.count", "one", trivium_tiers="cloud").status_code == 200
    seen.link.down, begun = True, time.time()
    try:
        assert seen.edge.text("text.count", "one", trivium_tiers="cloud").status_code == 502
    finally:
        seen.link.down = False
    assert seen.edge.ask("text.count", {"inputs": {"nothing": "x"}}).status_code == 400
    found = until(
        lambda: overview(seen),
        lambda said: {"tier_unreachable", "bad_input"} <= {e["code"] for e in said["errors"]},
    )
    assert found["total"]["failed"] == 1
    assert found["total"]["refused"] == 1
    error = next(each for each in found["errors"] if each["code"] == "tier_unreachable")
    # Times are those of the cells that figures are added up in, ten seconds each.
    assert begun // 10 * 10 <= error["first"] <= time.time()
    assert error["worst"]
    failed = seen.edge.get("/v1/ops/traces?minutes=10&failed=1").json()
    assert {each["error"] for each in failed} == {"tier_unreachable", "bad_input"}


def test_feedback_counts_by_function_and_road(seen: Servers) -> None:
    """By the trace an answer said; texts are compared and kept nowhere."""
    trace = trace_of(seen, "one two three")
    until(
        lambda: seen.edge.get(f"/v1/ops/traces?minutes=10&trace={trace}").json(), lambda rows: rows
    )

    def post(**said: Any) -> Any:
        return seen.edge.send("POST", "/v1/feedback", json=said)

    said = {"output": "the secret cat sat", "reference": "the secret cat sat"}
    response = post(trace=f"00-{trace}-{'1' * 16}-01", good=False, **said)
    assert response.status_code == 200, response.text
    assert response.json()["bleu"] == pytest.approx(100)
    assert response.json()["chrf"] == pytest.approx(100)
    assert response.json()["function"] == "text.count"
    assert post(trace="f" * 32, good=True, function="text.count", tier="cloud").status_code == 200
    found = until(
        lambda: overview(seen), lambda said: sum(row["judged"] for row in said["roads"]) == 2
    )
    rates = {row["pass_rate"] for row in found["roads"] if row["judged"]}
    assert rates == {0.0, 1.0}
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"trace": "no trace", "good": True}, 400),
        ({"trace": "f" * 32}, 400),
        ({"trace": "f" * 32, "good": True}, 404),
        ({"trace": "f" * 32, "good": True, "function": "text.nothing", "tier": "edge"}, 404),
        ({"trace": "f" * 32, "good": True, "function": "text.count", "tier": "moon"}, 400),
        ({"trace": "f" * 32, "reference": "x", "function": "text.count", "tier": "edge"}, 400),
        (
            {
                "trace": "f" * 32,
                "reference": "x" * 30_000,
                "output": "x",
                "function": "text.count",
                "tier": "edge",
            },
            413,
        ),
        ({"trace": "f" * 32, "good": "yes"}, 400),
    ],
)
def test_feedback_that_says_nothing_is_refused(
    seen: Servers, said: dict[str, Any], status: int
) -> None:
    """In the one shape of errors."""
    response = seen.edge.send("POST", "/v1/feedback", json=said)
    assert response.status_code == status
    fault(response)


def test_only_operators_look(seen: Servers) -> None:
    """Neither strangers nor pages see what others do."""
    origin = {"origin": ORIGIN}
    token = seen.edge.send("POST", "/v1/token", key=None, headers=origin).json()["token"]
    for path in ("overview", "state", "resources", "traces", f"traces/{'1' * 32}", "live"):
        assert seen.edge.get(f"/v1/ops/{path}", key=None).status_code == 401
        assert seen.edge.get(f"/v1/ops/{path}", key=token, headers=origin).status_code == 403


def test_replicas_say_how_they_are(seen: Servers) -> None:
    """As their own metrics have it, each by its name, and what that was over time."""
    said = until(
        lambda: seen.edge.get("/v1/ops/state").json(), lambda said: len(said["replicas"]) == 2
    )
    (name,) = said["replicas"].keys() - {"edge"}
    assert name.startswith("cloud ")
    cloud = said["replicas"][name]
    assert (cloud["tier"], cloud["up"]) == ("cloud", True)
    assert 0 < cloud["started"] <= cloud["seen"] <= time.time()
    names = {sample["name"] for sample in cloud["samples"]}
    assert {"trivium_model_loaded", "trivium_breaker_open", "trivium_running"} <= names
    assert "trivium_link_ms" in {each["name"] for each in said["replicas"]["edge"]["samples"]}
    assert said["history"]["trouble"] == ""
    found = until(
        lambda: seen.edge.get("/v1/ops/resources?minutes=5").json(),
        lambda found: len(found["figures"]["trivium_cpu_load"]) == 2,
    )
    assert {line["of"] for line in found["figures"]["trivium_cpu_load"]} == {"edge", name}


@pytest.mark.parametrize(
    "query", ["from=5&to=4", "minutes=x", "from=-1", "minutes=99999999", "minutes=1e99"]
)
def test_a_time_that_is_none_is_refused(seen: Servers, query: str) -> None:
    """Not guessed."""
    assert seen.edge.get(f"/v1/ops/overview?{query}").status_code == 400


def test_without_a_history_there_are_no_views(shared: Servers) -> None:
    """And nothing is written anywhere."""
    assert shared.edge.get("/v1/ops/overview").status_code == 404
    assert not Path("history.sqlite").exists()


def test_a_request_of_any_parts_is_one_trace(servers: Servers) -> None:
    """The gateway passes it on; its own span stands above the cloud's."""
    body = {"function": "text.count", "text": "one two"}
    response = servers.edge.send("POST", "/v1/multimodal", json=body)
    assert response.status_code == 200, response.text
    spans = [each for each in servers.spans if each.name == "POST /v1/multimodal"]
    cloud, edge = sorted(spans, key=lambda each: each.service)
    assert (edge.service, cloud.service) == ("edge", "cloud")
    assert cloud.parent_id == edge.span_id
    (ask,) = [each for each in servers.spans if each.name == "infer text.count"]
    assert {cloud.trace_id, ask.trace_id} == {edge.trace_id}
    assert cloud.attributes["trivium.caller"] == edge.attributes["trivium.caller"]
    assert cloud.attributes["trivium.function"] == "text.count"
