"""What the gateway keeps of what happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.hosts.server.telemetry import Tail
from trivium.trace import Span
from trivium_edge.figures import AT, FIGURES, blank, drift, place, quantile, told
from trivium_edge.history import STEPS, History
from trivium_edge.views import burning, overview

NOW = 1_800_000_000.0


class Clock:
    """A clock that is turned by hand."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def trace(
    number: int, ms: float = 4.0, at: float = NOW, error: str = "", **said: Any
) -> list[Span]:
    """Return the spans of an ask at the edge that ended at `at`."""
    end = int(at * 1e9)
    trace_id = f"{number + 1:032x}"
    given = {
        "tier": "edge",
        "version": "1.0.0+3fa97c21",
        "size": 100,
        "run_ms": ms - 1.0,
        "python_ms": 0.5,
        "spent": 0.3,
        **said,
    }
    attributes = {f"trivium.{name}": value for name, value in given.items() if value is not None}

    def span(name: str, span_id: str, parent: str, attributes: dict[str, Any], **more: Any) -> Span:
        return Span(
            name=name,
            service="edge",
            trace_id=trace_id,
            span_id=span_id * 16,
            parent_id=parent,
            start_ns=end - int(ms * 1e6),
            end_ns=end,
            attributes=attributes,
            **more,
        )

    http = {"trivium.queue_ms": 0.25, "trivium.wait_ms": 0.25, "trivium.caller": "key 1234abcd"}
    return [
        span("run", "3", "2" * 16, {}),
        span("infer text.count", "2", "1" * 16, attributes, error=error),
        span("POST /v1/infer/{function}", "1", "", http),
    ]


def fill(history: History, *traces: list[Span]) -> None:
    """Have a history take traces, and write them."""
    clock = Clock(0.0)
    tail = Tail(history.take, clock=clock)
    for spans in traces:
        tail(spans)
    tail.close()
    history.flush()


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    made = History(tmp_path / "history", clock=Clock())
    yield made
    made.close()


def test_asks_are_added_up_and_found_again(history: History) -> None:
    """Times, errors, budgets, price, where the time went, and who asked."""
    fill(
        history,
        *(trace(i, budget_ms=10.0) for i in range(98)),
        trace(98, 40.0, budget_ms=10.0),
        trace(99, 2.0, error="run_failed", tier=None),
    )
    seen = overview(history, NOW - 600, NOW + 10, {})
    (good, bad) = sorted(seen["roads"], key=lambda row: -row["asks"])
    assert (good["function"], good["tier"], good["began"]) == ("text.count", "edge", "edge")
    assert (good["asks"], good["failed"], bad["failed"], bad["tier"]) == (99, 0, 1, "none")
    assert good["met"] == pytest.approx(98 / 99)
    assert good["spent"] == pytest.approx(0.3 * 99)
    assert good["p50"] == pytest.approx(4.0, rel=0.25)
    assert good["split"]["queue"] == pytest.approx(0.5)
    # A model that waits for a thread does not run.
    assert good["split"]["run"] == pytest.approx((98 * 2.5 + 38.5) / 99)
    assert good["worst"] == f"{99:032x}"
    assert [row["who"] for row in seen["callers"]] == ["key 1234abcd"]
    (error,) = seen["errors"]
    assert (error["code"], error["count"], error["first"]) == ("run_failed", 1, NOW)
    assert sum(seen["series"]["lines"]["asks"]) * seen["step"] == 100
    assert seen["total"]["asks"] == 100
    (row,) = [each for each in burning(history, NOW) if each["what"] == "answered"]
    assert row["burn"]["5m"] == pytest.approx(1.0)


def test_kept_traces_can_be_searched_and_shown(history: History) -> None:
    """By what was slow, failed or late, and whole."""
    fill(history, trace(1), trace(2, 50.0, budget_ms=10.0), trace(3, error="over_budget"))
    found = history.asks(NOW - 60, NOW + 60)
    assert {row["trace"] for row in found} == {f"{i + 1:032x}" for i in (1, 2, 3)}
    assert [row["kept"] for row in history.asks(0, NOW + 1, late=True)] == ["late"]
    assert [row["error"] for row in history.asks(0, NOW + 1, failed=True)] == ["over_budget"]
    assert [row["ms"] for row in history.asks(0, NOW + 1, least_ms=40.0)] == [pytest.approx(50.0)]
    assert history.asks(0, NOW + 1, order="ms")[0]["ms"] == pytest.approx(50.0)
    assert history.asks(0, NOW + 1, function="' OR 1=1 --") == []
    spans = history.trace(f"{3:032x}")
    assert {span.name for span in spans} == {
        "POST /v1/infer/{function}",
        "infer text.count",
        "run",
    }


def test_shadows_and_feedback_stand_beside_their_road(history: History) -> None:
    """How far another road says the same, and what people think."""
    shadow = Span(
        name="shadow",
        service="edge",
        trace_id=f"{8:032x}",
        span_id="9" * 16,
        parent_id="2" * 16,
        start_ns=1,
        end_ns=int(NOW * 1e9),
        attributes={
            "trivium.function": "text.count",
            "trivium.tier": "edge",
            "trivium.took_ms": 8.0,
            "trivium.instead_ms": 4.0,
            "trivium.alike": 0.5,
        },
    )
    fill(history, [*trace(7), shadow])
    history.feedback("text.count", "edge", True, {}, "")
    scores = {"references": 1.0, "bleu": 50.0, "chrf": 60.0}
    history.feedback("text.count", "edge", False, scores, "")
    history.flush()
    (row,) = overview(history, NOW - 600, NOW + 10, {})["roads"]
    assert (row["shadows"], row["alike"], row["shadow_took"], row["shadow_instead"]) == (
        1,
        0.5,
        8,
        4,
    )
    assert (row["judged"], row["pass_rate"], row["bleu"], row["chrf"]) == (2, 0.5, 50, 60)


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was added up in the same minutes is not begun anew."""
    for i in range(2):
        made = History(tmp_path, clock=Clock())
        fill(made, trace(i))
        made.close()
    made = History(tmp_path, clock=Clock(NOW + 1))
    fill(made, trace(5))
    for step in STEPS:
        ((_, data, _),) = made.cells(NOW - 1, NOW + 1, "road", step).by(lambda _: 0)
        assert data[AT["asks"]] == 3
    made.close()


def test_what_is_old_or_too_much_goes(tmp_path: Path) -> None:
    """Traces by their age and the file's size; figures stay longer."""
    clock = Clock()
    made = History(tmp_path, hours=1.0, megabytes=3.0, clock=clock)
    fill(made, *(trace(i, at=NOW) for i in range(10)))
    clock.now += 7200
    fill(made, *(trace(i, at=clock.now) for i in range(10, 20)))
    assert len(made.asks(0, clock.now + 1, most=500)) == 10
    assert overview(made, NOW - 600, clock.now, {})["total"]["asks"] == 20
    for round_ in range(6):
        clock.now += 60
        many = [trace(100 + i + 3000 * round_, error="x", at=clock.now) for i in range(400)]
        fill(made, *([*spans, _long(spans)] for spans in many))
    assert made.size() < 6e6
    assert made.asks(0, clock.now + 1)
    made.close()


def _long(spans: list[Span]) -> Span:
    from msgspec.structs import replace

    return replace(spans[0], span_id="8" * 16, attributes={str(i): "x" * 500 for i in range(10)})


def test_a_broken_file_is_set_aside(tmp_path: Path) -> None:
    """A new one is begun beside it, and both are there."""
    (tmp_path / "history.sqlite").write_bytes(b"this is no database " * 1000)
    made = History(tmp_path, clock=Clock())
    fill(made, trace(1))
    made.flush()
    fill(made, trace(2))
    assert made.trouble == ""
    assert [path.name.startswith("history.broken-") for path in tmp_path.iterdir()].count(True) == 1
    assert len(made.asks(0, NOW + 1)) >= 1
    made.close()


def test_a_file_that_breaks_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    """Its pages are overwritten; asks are counted on."""
    made = History(tmp_path, clock=Clock())
    fill(made, trace(1))
    made._open().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "history.sqlite").open("r+b") as file:
        file.write(b"\xff" * 20_000)
    for i in range(2, 6):
        fill(made, trace(i))
    assert made.trouble == ""
    assert overview(made, NOW - 600, NOW + 10, {})["total"]["asks"] == 5
    made.close()


def test_a_full_disk_loses_traces_and_says_so(tmp_path: Path) -> None:
    """Figures are kept in memory, and written when there is room again."""
    made = History(tmp_path, clock=Clock())
    fill(made, trace(1))
    # SQLite's own limit gives the very error of a disk without room.
    (pages,) = made._open().execute("PRAGMA page_count").fetchone()
    made._open().execute(f"PRAGMA max_page_count = {pages}")
    spans = trace(2, error="x")
    fill(made, [*spans, _long(spans), *[_again(spans[0], i) for i in range(60)]])
    assert "full" in made.trouble
    assert made.lost == 1
    made._retry = 0.0
    fill(made, trace(3))
    assert made.trouble == ""
    assert overview(made, NOW - 600, NOW + 10, {})["total"]["asks"] == 3
    made.close()


def _again(span: Span, i: int) -> Span:
    from msgspec.structs import replace

    return replace(_long([span]), span_id=f"{i + 1:016x}")


def test_a_folder_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """It is said, and nothing is read."""
    (tmp_path / "file").write_text("no folder")
    made = History(tmp_path / "file" / "history", clock=Clock())
    fill(made, trace(1))
    assert made.trouble
    assert made.asks(0, NOW + 1) == []
    assert overview(made, NOW - 600, NOW, {})["total"] is None
    made.close()


def test_a_database_of_another_kind_is_set_aside(tmp_path: Path) -> None:
    """Of another version of this program."""
    with sqlite3.connect(tmp_path / "history.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    made = History(tmp_path, clock=Clock())
    fill(made, trace(1))
    fill(made, trace(2))
    assert made.trouble == ""
    assert made.asks(0, NOW + 1)
    made.close()


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_quantiles_are_as_fine_as_their_bins(times: list[float], share: float) -> None:
    """A quarter off at most, within what bins cover."""
    data = blank()
    for ms in times:
        data[AT[place(ms)]] += 1
    found = quantile(data, share)
    assert found is not None
    true = float(np.quantile(times, share, method="inverted_cdf"))
    if 0.25 < true < 40_000:
        assert true / 1.3 <= found <= true * 1.3


def test_drift_is_told_where_there_is_enough_to_tell() -> None:
    """Nothing of few, little of the same, much of something else."""
    one, other, few = blank(), blank(), blank()
    for i in range(10):
        one[AT[f"sure_{i}"]] = 10 * i
        other[AT[f"sure_{i}"]] = 10 * (9 - i)
        few[AT[f"sure_{i}"]] = 1
    assert drift(one, one)["sure"] == pytest.approx(0.0, abs=1e-9)
    assert (drift(one, other)["sure"] or 0) > 0.25
    assert drift(one, few) == {"sure": None, "size": None}


def test_a_cell_that_is_empty_says_nothing() -> None:
    """No share of nothing."""
    said = told(blank())
    assert said["asks"] == 0
    assert said["p50"] is said["met"] is said["pass_rate"] is None
    assert len(FIGURES) == len(blank())


def test_strangers_attributes_do_no_harm(history: History) -> None:
    """Whatever types a page sends."""
    odd = trace(1, tier=7, size="x", budget_ms="soon", confidence=float("nan"), spent=True)
    far = trace(2, at=5.0)
    fill(history, odd, far, trace(3))
    assert overview(history, NOW - 600, NOW + 10, {})["total"]["asks"] == 3
