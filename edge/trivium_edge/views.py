"""What do the figures of some hours say: which roads, errors, callers, versions, and since when?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .figures import STAGES, blank, drift, told
from .history import STEPS, History
from .reading import Cells

POINTS = 400
"""At most so many points are in a chart."""

OBJECTIVES = {"answered": 0.99, "in time": 0.95}
"""What share of asks should be answered, and of those with a budget within it."""

WINDOWS = {"5m": 300.0, "1h": 3600.0, "6h": 6 * 3600.0, "3d": 3 * 86400.0}

BURNS = (("5m", "1h", 14.4), ("1h", "6h", 6.0))
"""An alert is due where both windows burn the error budget so many times as fast as they may."""

FEW = 20
"""Of fewer asks in the shorter window nothing is concluded."""

DRIFTED = 0.25
"""From this population stability index on, confidence or inputs are another than they were."""


def overview(
    history: History, start: float, end: float, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """Return all figures between two times, of one function, tier and beginning or of all."""
    step = next((each for each in STEPS if (end - start) / each <= POINTS), STEPS[-1])

    def cells(kind: str) -> Cells:
        found = history.cells(start, end, kind, step)
        if not wanted.get("function") and not wanted.get("tier"):
            return found
        return found.where(
            lambda key: all(
                not wanted.get(name) or wanted[name] == key[at]
                for at, name in enumerate(("function", "tier"))
            )
        )

    roads = cells("road")
    began = wanted.get("began", "")
    if began:
        roads = roads.where(lambda key: key[2] in (began, "shadow", "feedback"))
    asked = roads.where(lambda key: key[2] not in ("shadow", "feedback"))
    beside = roads.where(lambda key: key[2] in ("shadow", "feedback"))
    rows: dict[Any, Any] = {
        key: (data, worst) for key, data, worst in asked.by(asked.keys.__getitem__)
    }
    extra = {key: data for key, data, _ in beside.by(lambda i: beside.keys[i][:2])}
    listed = []
    for (function, tier, place), (data, worst) in rows.items():
        more = extra.pop((function, tier), None)
        listed.append(_row(data if more is None else data + more, worst, function, tier, place))
    for (function, tier), data in extra.items():
        listed.append(_row(data, "", function, tier, ""))
    listed.sort(key=lambda row: (row["function"], row["tier"], row["began"]))
    total = list(asked.by(lambda _: 0))
    return {
        "from": start,
        "to": end,
        "step": step,
        "total": told(total[0][1]) if total else None,
        "roads": listed,
        "series": _series(asked, start, end, step),
        "slo": burning(history, end, wanted.get("function", "")),
        "errors": _errors(cells("error")),
        "callers": _grouped(cells("caller")),
        "devices": _grouped(cells("device")),
        "versions": _versions(cells("version")),
        "drift": drifts(history, end),
    }


def burning(history: History, end: float, function: str) -> list[dict[str, Any]]:
    """Return how fast the error budget of one function, or of each, burns at `end`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, seconds in WINDOWS.items():
        step = STEPS[0] if seconds <= 3600 else STEPS[1]
        cells = history.cells(end - seconds, end + step, "road", step)
        for key, data, _ in cells.by([each[0] for each in cells.keys].__getitem__):
            if function in ("", key):
                said = told(data)
                rates = {"asks": said["asks"]}
                if said["asks"]:
                    rates["answered"] = said["error_rate"]
                if said["budgeted"]:
                    rates["in time"] = 1.0 - said["met"]
                found.setdefault(key, {})[name] = rates
    rows = []
    for key, windows in sorted(found.items()):
        for what, objective in OBJECTIVES.items():
            allowed = 1.0 - objective
            burn = {name: rates[what] / allowed for name, rates in windows.items() if what in rates}
            if not burn:
                continue
            rows.append(
                {
                    "function": key,
                    "what": what,
                    "objective": objective,
                    "burn": burn,
                    "left": 1.0 - burn["3d"] if "3d" in burn else None,
                    "alert": any(
                        burn.get(short, 0.0) > most
                        and burn.get(long, 0.0) > most
                        and windows[short]["asks"] >= FEW
                        for short, long, most in BURNS
                    ),
                }
            )
    return rows


def _errors(cells: Cells) -> list[dict[str, Any]]:
    rows = []
    for key, data, worst in cells.by(cells.keys.__getitem__):
        times = cells.at[[i for i, each in enumerate(cells.keys) if each == key]]
        rows.append(
            {
                "function": key[0],
                "where": key[1],
                "code": key[2],
                "count": float(data[0]),
                "first": int(times.min()),
                "last": int(times.max()),
                "worst": worst,
            }
        )
    return sorted(rows, key=lambda row: -row["count"])


def _versions(cells: Cells) -> list[dict[str, Any]]:
    rows = []
    for key, data, worst in cells.by(cells.keys.__getitem__):
        first = min(int(at) for at, each in zip(cells.at, cells.keys, strict=True) if each == key)
        row = {"function": key[0], "tier": key[1], "version": key[2], "first": first}
        rows.append({**row, "worst": worst, **told(data)})
    return sorted(rows, key=lambda row: (row["function"], row["tier"], row["first"]))


def drifts(history: History, end: float) -> list[dict[str, Any]]:
    """Compare the last hour with the day before it."""
    step = STEPS[1]
    lately = history.cells(end - 3600, end + step, "road", step)
    before = history.cells(end - 25 * 3600, end - 3600, "road", step)
    was = {key: data for key, data, _ in before.by(lambda i: before.keys[i][0])}
    rows = []
    for key, data, _ in lately.by(lambda i: lately.keys[i][0]):
        moved = drift(data, was.get(key, np.zeros_like(data)))
        rows.append({"function": key, **moved})
    return rows


def since_when(history: History, function: str, what: str, now: float) -> float | None:
    """Return when the asks of a function began to miss the objective, without a pause."""
    step = STEPS[0]
    cells = history.cells(now - 6 * 3600, now + step, "road", step)
    times = {}
    mine = cells.where(lambda key: key[0] == function)
    for at, data, _ in mine.by(lambda i: int(mine.at[i])):
        said = told(data)
        bad = said["error_rate"] if what == "answered" else said["met"] and 1 - said["met"]
        if bad is not None:
            times[at] = bad > 1 - OBJECTIVES[what]
    since = None
    for at in sorted(times, reverse=True):
        if not times[at]:
            break
        since = at
    return since


def down(
    history: History, name: str, tier: str, now: float, labels: str = "", good: float = 1.0
) -> float | None:
    since = None
    for at, place, said, value in reversed(history.series(name, now - 6 * 3600, now + 1)):
        if place == tier and said == labels:
            if value == good:
                break
            since = at
    return since


def _row(data: Any, worst: str, function: str, tier: str, began: str) -> dict[str, Any]:
    place = {"function": function, "modality": function.partition(".")[0], "tier": tier}
    return {**place, "began": began, "worst": worst, **told(data)}


def _grouped(cells: Cells) -> list[dict[str, Any]]:
    rows = [
        {"who": key, "worst": worst, **told(data)}
        for key, data, worst in cells.by(lambda i: cells.keys[i][2])
    ]
    return sorted(rows, key=lambda row: -row["asks"])[:200]


def _series(cells: Cells, start: float, end: float, step: int) -> dict[str, Any]:
    found = {at: (data, worst) for at, data, worst in cells.by(lambda i: int(cells.at[i]))}
    first = int(start) // step * step
    times, slowest = [], []
    names = ("asks", "failed", "late", "spent", "p50", "p95", "p99", *STAGES)
    lines: dict[str, list[float | None]] = {name: [] for name in names}
    for at in range(first, int(end) + 1, step):
        data, worst = found.get(at, (None, ""))
        times.append(at)
        slowest.append(worst)
        said = told(blank() if data is None else data)
        late = said["budgeted"] * (1.0 - (said["met"] or 0.0))
        for name, value in (("asks", said["asks"]), ("failed", said["failed"]), ("late", late)):
            lines[name].append(value / step)
        lines["spent"].append(said["spent"])
        for name in ("p50", "p95", "p99"):
            lines[name].append(said[name])
        for name in STAGES:
            lines[name].append(said["split"][name] if said["asks"] else None)
    return {"at": times, "worst": slowest, "lines": lines}
