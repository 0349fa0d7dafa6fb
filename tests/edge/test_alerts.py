"""What somebody should look at, since when, and what it has done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trivium.hosts.server.telemetry import Trace
from trivium.trace import Span
from trivium_edge import views
from trivium_edge.alerts import Alert, Source, due
from trivium_edge.history import FINE, STEPS, History

NOW = time.time() // 300 * 300 + 250
"""Of a time at which both steps of figures have something to say."""


clock = [NOW]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path, clock=lambda: clock[0])
    clock[0] = NOW
    yield made
    made.close()


def ask(history: History, at: float, **said: Any) -> None:
    """Take one ask that ended then."""
    name, error, ms = said.pop("function", "text.embed"), said.pop("error", ""), said.pop("ms", 10)
    trace, clock[0] = Trace(f"{int(at * 1e3):032x}", 0.0), at
    end = int(at * 1e9)
    caller = {"trivium.caller": said.pop("caller", "acme")}
    attributes = {"trivium.tier": "edge", **caller, **{f"trivium.{k}": v for k, v in said.items()}}
    trace.spans.append(
        Span(
            name=f"infer {name}",
            service="edge",
            trace_id=trace.trace_id,
            span_id="1" * 16,
            start_ns=end - int(ms * 1e6),
            end_ns=end,
            error=error,
            attributes=attributes,
        )
    )
    history.take(trace)


def look(history: History, sources: dict[str, Source] | None = None) -> dict[str, Alert]:
    """Return what is due now, by what it is."""
    clock[0] = NOW
    history.flush()
    found = due(history, sources or {}, bool(sources), views.present(history, NOW), NOW)
    return {alert.what: alert for alert in found}


def cloud(*samples: tuple[str, dict[str, str], float], **said: Any) -> Source:
    return Source("cloud", said.pop("seen", NOW), list(samples), **said)


def test_what_burns_is_told_with_its_beginning_and_its_toll(history: History) -> None:
    """A single failure long before does not count as the beginning."""
    for ago in range(590, 0, -5):
        failed = ago == 400 or ago < 100
        error = "tier_unreachable" if failed else ""
        who = "globex" if failed and ago % 2 else "acme"
        ask(history, NOW - ago, error=error, caller=who, spent=0.1 if failed else 1.0, ms=50)
    found = look(history)
    assert set(found) == {"burn"}
    alert = found["burn"]
    assert alert.function == "text.embed"
    assert alert.since is not None
    assert alert.since == pytest.approx(NOW - 95, abs=FINE)
    toll = alert.toll
    assert toll is not None
    assert 18 <= toll["failed"] <= toll["asks"] <= 20
    assert toll["spent"] == pytest.approx(0.1, abs=0.05)
    assert toll["spent_before"] == pytest.approx(1.0, abs=0.05)
    assert {each["who"] for each in toll["callers"]} == {"acme", "globex"}


def test_budgets_that_are_missed_burn_too(history: History) -> None:
    """All of them, as well as some; it is no failure to answer late."""
    for ago in range(200, 0, -5):
        ask(history, NOW - ago, budget_ms=100.0, ms=500)
    alert = look(history)["burn"]
    assert "in time" in alert.said
    assert "100 %" in alert.said
    assert alert.since == pytest.approx(NOW - 200, abs=FINE)
    assert alert.toll is not None
    assert alert.toll["late"] == alert.toll["asks"] == 40
    assert alert.toll["failed"] == 0


def test_an_ask_that_failed_hurts_but_once(history: History) -> None:
    """What failed had a budget, too, and was not answered late."""
    for ago in range(200, 0, -5):
        error = "over_budget" if ago % 2 else ""
        ask(history, NOW - ago, budget_ms=100.0, ms=500, error=error)
    toll = look(history)["burn"].toll
    assert toll is not None
    assert (toll["asks"], toll["failed"], toll["late"]) == (40, 20, 20)
    assert [each["hurt"] for each in toll["callers"]] == [40]


def test_what_has_become_well_is_told_with_its_beginning_while_it_burns(history: History) -> None:
    """The last minutes are well, and so is half of the five minutes before."""
    for ago in range(600, 0, -1):
        ask(history, NOW - ago, error="tier_unreachable" if 400 > ago > 270 else "")
    alert = look(history)["burn"]
    assert "in the last 60 minutes" in alert.said
    assert alert.since == pytest.approx(NOW - 399, abs=FINE)
    assert alert.toll is not None
    assert alert.toll["failed"] == 129


def test_what_failed_before_it_was_an_ask_is_counted_as_one(history: History) -> None:
    """A task that the store did not take; a caller's own mistake is none."""
    for ago in range(90, 0, -3):
        trace, at = Trace(f"{ago:032x}", 0.0), int((NOW - ago) * 1e9)
        error = "bad_input" if ago % 2 else "tier_failed"
        said = {"trivium.caller": "acme", "trivium.function": "text.embed"}
        for service in ("edge", "cloud"):
            trace.spans.append(
                Span(
                    name="POST /v1/multimodal",
                    service=service,
                    trace_id=trace.trace_id,
                    span_id="1" * 16,
                    start_ns=at - 1000 * len(service),
                    end_ns=at,
                    error=error if service == "cloud" else "",
                    attributes=said if service == "cloud" else {"trivium.caller": "acme"},
                )
            )
        history.take(trace)
        ask(history, NOW - ago)
    alert = look(history)["burn"]
    assert alert.function == "text.embed"
    assert alert.toll is not None
    assert (alert.toll["asks"], alert.toll["failed"]) == (45, 15)
    assert [each["who"] for each in alert.toll["callers"]] == ["acme"]


def test_a_cloud_that_is_gone_is_told_before_anything_else(history: History) -> None:
    """And since when, from what was seen of it."""
    for ago in range(120, 0, -10):
        up = float(ago > 60)
        history._samples.append((int(NOW - ago), "cloud", "up", "", up))
    ask(history, NOW - 20, error="tier_unreachable")
    alert = look(history, {"cloud a#1": cloud(up=False)})["tier"]
    assert alert.since == pytest.approx(NOW - 60, abs=1)
    assert alert.toll is not None
    assert alert.toll["failed"] == 1


def test_a_replica_that_is_gone_is_told_unless_another_took_its_place(history: History) -> None:
    """Behind a balancer the rest goes on."""
    gone = cloud(up=False, seen=NOW - 100)
    here = cloud(started=NOW - 9000)
    found = look(history, {"cloud a#1": gone, "cloud b#1": here})
    assert "cloud a#1" in found["replica"].said
    assert found["replica"].since == NOW - 100
    assert look(history, {"cloud a#1": gone, "cloud a#2": cloud(started=NOW - 95)}) == {}


@pytest.mark.parametrize(
    ("figure", "labels", "value", "what", "said"),
    [
        ("trivium_queue_ms", {"service": "cloud"}, 2500.0, "queue", "2500 ms"),
        ("trivium_task_oldest_seconds", {}, 90.0, "tasks", "90 s"),
        ("trivium_task_workers", {}, 0.0, "tasks", "no worker"),
        ("trivium_store_up", {"store": "answers"}, 0.0, "store", "answers does not answer"),
        ("trivium_store_full", {"store": "answers"}, 1.0, "store", "full"),
        ("trivium_bundle_refused", {"bundle": "text.embed"}, 1.0, "bundle", "text.embed"),
        (
            "trivium_breaker_open",
            {"function": "text.embed", "tier": "cloud"},
            1.0,
            "breaker",
            "text.embed on the cloud",
        ),
    ],
)
def test_what_a_replica_says_of_itself_is_told(
    history: History, figure: str, labels: dict[str, str], value: float, what: str, said: str
) -> None:
    """With the time at which it began to say so."""
    name = "cloud a#1"
    key = ",".join(f"{each}={labels[each]}" for each in sorted(labels))
    good = 1.0 - value if value in (0.0, 1.0) else 0.0
    for ago, seen in ((50, good), (40, value), (30, value)):
        history._samples.append((int(NOW - ago), name, figure, key, seen))
    found = look(history, {name: cloud((figure, labels, value))})
    assert said in found[what].said
    assert found[what].since == pytest.approx(NOW - 40, abs=1)
    assert look(history, {name: cloud((figure, labels, good))}) == {}


@pytest.mark.parametrize("store", ["tasks", "answers"])
def test_a_full_store_is_told_and_not_what_it_does(history: History, store: str) -> None:
    """Workers that can give no sign of life in it may be well."""
    full = ("trivium_store_full", {"store": store}, 1.0)
    found = look(history, {"cloud a#1": cloud(("trivium_task_workers", {}, 0.0), full)})
    assert found.keys() == ({"store"} if store == "tasks" else {"store", "tasks"})


def test_a_link_is_slow_beside_what_it_was(history: History) -> None:
    """Not by a number that holds for every network."""
    labels = {"service": "edge"}
    for ago in range(200, 0, -10):
        ms = 700.0 if ago <= 50 else 5.0
        history._samples.append((int(NOW - ago), "edge", "trivium_link_ms", "service=edge", ms))
    edge = Source("edge", NOW, [("trivium_link_ms", labels, 700.0)])
    found = look(history, {"edge": edge, "cloud a#1": cloud()})
    assert "700 ms, it was 5" in found["link"].said
    assert found["link"].since == pytest.approx(NOW - 50, abs=1)
    usual = Source("edge", NOW, [("trivium_link_ms", labels, 40.0)])
    assert look(history, {"edge": usual, "cloud a#1": cloud()}) == {}


def _disagree(history: History) -> None:
    for ago in range(300, 0, -20):
        span = Span(
            name="shadow",
            service="edge",
            trace_id=f"{ago:032x}",
            span_id="2" * 16,
            start_ns=int((NOW - ago) * 1e9),
            end_ns=int((NOW - ago) * 1e9),
            attributes={
                "trivium.function": "text.embed",
                "trivium.tier": "cloud",
                "trivium.took_ms": 5.0,
                "trivium.instead_ms": 5.0,
                "trivium.alike": 0.5,
            },
        )
        trace = Trace(span.trace_id, 0.0)
        trace.spans.append(span)
        history.take(trace)


def _dislike(history: History) -> None:
    clock[0] = NOW - 30
    for i in range(12):
        history.feedback("text.embed", "edge", i % 2 == 0, {}, "")


def _miss(history: History) -> None:
    clock[0] = NOW - 30
    for _ in range(12):
        figures = {"references": 1.0, "bleu": 3.0, "chrf": 12.0}
        history.feedback("text.embed", "edge", None, figures, "")


@pytest.mark.parametrize(
    ("worsen", "said"),
    [(_disagree, "the same in 50%"), (_dislike, "50% of what people"), (_miss, "chrF is 12")],
)
def test_a_worse_model_is_told(
    history: History, worsen: Callable[[History], None], said: str
) -> None:
    """By another road's answers, by people and by what they say is right."""
    worsen(history)
    alert = look(history)["quality"]
    assert said in alert.said
    assert alert.function == "text.embed"
    assert alert.since is not None


def test_drift_is_told_since_it_is_seen(history: History) -> None:
    """The last hour's confidence beside the day before."""
    for i in range(60):
        ask(history, NOW - 3650 + i % 3, confidence=0.95)
        ask(history, NOW - 60 + i % 3, confidence=0.15)
    labels = "function=text.embed,service=edge,what=confidence"
    for ago, value in ((30, 0.1), (20, 1.0), (10, 1.2)):
        history._samples.append((int(NOW - ago), "edge", "trivium_drift", labels, value))
    alert = look(history)["drift"]
    assert "confidence" in alert.said
    assert alert.since == pytest.approx(NOW - 20, abs=1)


def versions(history: History, *ago: tuple[int, int, str, float]) -> None:
    """Ask once a second from so many seconds ago to so many, of a version that is so sure."""
    for start, end, version, sure in ago:
        for each in range(start, end, -1):
            ask(history, NOW - each, version=version, confidence=sure)


def test_a_version_is_told_that_is_worse_than_the_one_before_it(history: History) -> None:
    """At once, from the time at which it came; what was before it is told as well."""
    versions(history, (400, 120, "1.0.0+aaaaaaaa", 0.95), (120, 0, "1.0.1+bbbbbbbb", 0.35))
    alert = look(history)["version"]
    assert "1.0.1+bbbbbbbb of text.embed on the edge is worse than 1.0.0+aaaaaaaa" in alert.said
    assert "its confidence is 0.35, it was 0.95" in alert.said
    assert alert.since == pytest.approx(NOW - 120, abs=FINE)
    (row,) = views.overview(history, NOW - 600, NOW, {})["changes"]
    assert (row["before"], row["version"]) == ("1.0.0+aaaaaaaa", "1.0.1+bbbbbbbb")
    assert row["was"]["asks"] == 280
    assert row["now"]["asks"] == pytest.approx(120, abs=FINE)


def test_a_version_is_told_whose_runs_fail_though_others_answer(history: History) -> None:
    """An ask that no version answered has none; the run that failed does."""
    versions(history, (300, 100, "1.0.0+aaaaaaaa", 0.95), (100, 0, "1.0.1+bbbbbbbb", 0.95))
    for ago in range(99, 0, -3):
        trace, at = Trace(f"{ago:032x}", 0.0), int((NOW - ago) * 1e9)
        said = {"trivium.function": "text.embed", "trivium.version": "1.0.1+bbbbbbbb"}
        trace.spans.append(
            Span(
                name="run",
                service="edge",
                trace_id=trace.trace_id,
                span_id="2" * 16,
                start_ns=at - 1000,
                end_ns=at,
                error="run_failed",
                attributes=said,
            )
        )
        history.take(trace)
    assert "25% fail, 0% did" in look(history)["version"].said


def test_a_version_that_came_back_is_the_better_one(history: History) -> None:
    """Whoever takes a version back is told no more."""
    good, bad = ("1.0.0+aaaaaaaa", 0.95), ("1.0.1+bbbbbbbb", 0.35)
    versions(history, (500, 300, *good), (300, 200, *bad), (200, 0, *good))
    assert "version" not in look(history)
    (row,) = views.changes(history, NOW)
    assert (row["before"], row["version"]) == (bad[0], good[0])
    assert row["at"] == pytest.approx(NOW - 200, abs=FINE)


def test_a_version_is_known_since_it_was_seen_first(history: History) -> None:
    """Not since the hours that are looked at begin."""
    for ago in (2 * STEPS[-1], 60):
        ask(history, NOW - ago, version="1.0.0+aaaaaaaa")
    history.flush()
    (row,) = views.overview(history, NOW - 600, NOW, {})["versions"]
    assert row["first"] <= NOW - 2 * STEPS[-1]
    assert views.changes(history, NOW) == []


def test_counters_are_told_as_rates(history: History) -> None:
    """Also where a process began anew."""
    for ago, value in ((40, 10.0), (30, 20.0), (20, 50.0), (10, 5.0)):
        at = int(NOW) - ago
        history._samples.append((at, "cloud a#1", "trivium_cache_total", "result=hit", value))
    history.flush()
    found = views.resources(history, NOW - 60, NOW)
    (line,) = found["figures"]["trivium_cache_total"]
    assert (line["of"], line["labels"]) == ("cloud a#1", {"result": "hit"})
    assert [each for each in line["values"] if each is not None] == [1.0, 3.0, 0.5]
