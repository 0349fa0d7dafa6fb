"""What do the figures of some hours say: which roads, errors, callers, versions?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .figures import STAGES, blank, drift, told
from .history import KEEP_S, STEPS, History
from .reading import Cells

POINTS = 400
"""At most so many points are in a chart."""

OBJECTIVES = {"answered": 0.99, "in time": 0.95}
"""What share of asks should be answered, and of those with a budget within it."""

WINDOWS = {"5m": 300.0, "1h": 3600.0, "6h": 6 * 3600.0, "3d": 3 * 86400.0}

BURNS = {
    "answered": (("5m", "1h", 14.4), ("1h", "6h", 6.0)),
    "in time": (("5m", "1h", 2.0),),
}
"""An alert is due where both windows burn the error budget so many times as fast as they may: the
same as Prometheus' rules say."""

FEW = 20
"""Of fewer asks in the shorter window nothing is concluded."""

DRIFTED = 0.25
"""From this population stability index on, confidence or inputs are another than they were."""

LEAST = {"alike": 0.9, "pass_rate": 0.8, "chrf": 30.0}
"""Below these a function's quality is doubtful: of the last hour, and what people say of a day."""

MANY, SLOWER, FAILS_MORE = 50, 2.0, 0.05
"""A version is worse, of so many asks, that takes so many times as long, or fails so much more."""

COUNTED = {"alike": "alike_n", "pass_rate": "judged", "chrf": "references"}
TEN = 10
"""Of fewer than so many nothing is concluded."""

WORDS = {"sure": "confidence", "size": "size"}
"""What drifts is called so in the metrics."""


RESOURCES = (
    *("trivium_cpu_load", "process_resident_memory_bytes", "trivium_link_ms"),
    "trivium_queue_ms",
    *("trivium_task_waiting", "trivium_task_running", "trivium_cache_total"),
    *("trivium_store_bytes", "trivium_gpu_use", "trivium_gpu_memory_bytes", "trivium_gpu_watts"),
)
"""What is drawn over time of the replicas themselves."""


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
        **present(history, end),
        "errors": _errors(cells("error")),
        "callers": _grouped(cells("caller")),
        "devices": _grouped(cells("device")),
        "versions": _versions(history, cells("version")),
    }


def present(history: History, end: float) -> dict[str, Any]:
    """Return what says whether all is well at `end`."""
    return {
        "slo": burning(history, end),
        "quality": quality(history, end),
        "changes": changes(history, end),
    }


def burning(history: History, end: float) -> list[dict[str, Any]]:
    """Return how fast the error budgets of each function burn at `end`."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, seconds in WINDOWS.items():
        step = STEPS[0] if seconds <= 3600 else STEPS[1]
        cells = history.cells(end - seconds, end + step, "road", step)
        for key, data, _ in cells.by([each[0] for each in cells.keys].__getitem__):
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
            window = next(
                (
                    short
                    for short, long, most in BURNS[what]
                    if burn.get(short, 0.0) > most
                    and burn.get(long, 0.0) > most
                    and windows[short]["asks"] >= FEW
                ),
                None,
            )
            rows.append(
                {
                    "function": key,
                    "what": what,
                    "objective": objective,
                    "burn": burn,
                    "left": 1.0 - burn["3d"] if "3d" in burn else None,
                    "alert": window is not None,
                    "window": window,
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


def _versions(history: History, cells: Cells) -> list[dict[str, Any]]:
    # When one was seen first is not to be found in the hours that are looked at alone.
    times = history.times("version", STEPS[-1])
    rows = []
    for key, data, worst in cells.by(cells.keys.__getitem__):
        here = min(int(at) for at, each in zip(cells.at, cells.keys, strict=True) if each == key)
        long, _ = times.get(key, (here, here))
        row = {"function": key[0], "tier": key[1], "version": key[2]}
        row["first"] = long if long + STEPS[-1] <= here else here
        rows.append({**row, "worst": worst, **told(data)})
    return sorted(rows, key=lambda row: (row["function"], row["tier"], row["first"]))


def changes(history: History, end: float) -> list[dict[str, Any]]:
    """Return which versions took others' places in the last day, and what both were like.

    `moved` is how far the confidence is from that of the version before.
    """
    places: dict[tuple[str, str], list[int]] = {}
    times = history.times("version", STEPS[-1], end - 86400)
    for (function, tier, _), (_, last) in times.items():
        places.setdefault((function, tier), []).append(last)
    rows = []
    for place, lasts in places.items():
        if len(lasts) == 1:
            continue
        start = sorted(lasts)[-2] - 3600
        step = STEPS[0] if end - start < KEEP_S[STEPS[0]] - 600 else STEPS[1]
        cells = history.cells(start, end + step, "version", step)
        row = _change(cells.where(lambda key, place=place: key[:2] == place), step)  # type: ignore[misc]
        if row is not None:
            rows.append({"function": place[0], "tier": place[1], **row})
    return sorted(rows, key=lambda row: -row["at"])


def _change(cells: Cells, step: int) -> dict[str, Any] | None:
    seen: dict[str, list[int]] = {}
    for at, key in zip(cells.at, cells.keys, strict=True):
        seen.setdefault(key[2], []).append(int(at))
    if len(seen) < 2:
        return None
    before, version = sorted(seen, key=lambda each: (max(seen[each]), min(seen[each])))[-2:]
    # It may have been there before, too, and come back.
    at = min(each for each in seen[version] if each >= max(seen[before]) - step)
    new = cells.where(lambda key: key[2] == version)
    now = new.data[new.at >= at].sum(axis=0)
    old = cells.where(lambda key: key[2] == before)
    was = old.data.sum(axis=0)
    worst = max((each for each, when in zip(new.worst, new.at, strict=True) if when >= at))[1]
    row = {"at": at, "before": before, "version": version, "worst": worst}
    return {**row, "was": told(was), "now": told(now), "moved": drift(now, was)["sure"]}


def quality(history: History, end: float) -> list[dict[str, Any]]:
    """Return how far each function's answers are to be trusted now.

    Its confidence and inputs of the last hour beside the day before, how often another road said
    the same in that hour, and what people said in that day.
    """
    step = STEPS[1]
    lately = history.cells(end - 3600, end + step, "road", step)
    before = history.cells(end - 25 * 3600, end - 3600, "road", step)
    was = {key: data for key, data, _ in before.by(lambda i: before.keys[i][0])}
    now = {key: data for key, data, _ in lately.by(lambda i: lately.keys[i][0])}
    rows = []
    for function in sorted(was.keys() | now.keys()):
        old, new = was.get(function, blank()), now.get(function, blank())
        said = {"alike": told(new), "pass_rate": told(old + new), "chrf": told(old + new)}
        enough = {name: said[name][COUNTED[name]] >= TEN for name in said}
        row = {name: said[name][name] if enough[name] else None for name in said}
        rows.append({"function": function, **drift(new, old), **row})
    return rows


def resources(history: History, start: float, end: float) -> dict[str, Any]:
    """Return what the replicas said of themselves over time: load, memory, queues, stores, GPUs."""
    step = next((each for each in STEPS if (end - start) / each <= POINTS), STEPS[-1])
    times = list(range(int(start) // step * step, int(end) + 1, step))
    place = {at: i for i, at in enumerate(times)}
    figures = {}
    for name in RESOURCES:
        lines: dict[tuple[str, str], list[float | None]] = {}
        for at, of, labels, value in history.series(name, times[0], end + 1, step):
            line = lines.setdefault((of, labels), [None] * len(times))
            line[place[at]] = value
        figures[name] = [
            {"of": of, "labels": dict(each.split("=", 1) for each in labels.split(",") if each)}
            | {"values": _rates(values, step) if name.endswith("_total") else values}
            for (of, labels), values in lines.items()
        ]
    return {"at": times, "figures": figures}


def _rates(values: list[float | None], step: int) -> list[float | None]:
    """Return how fast a counter grew; after a restart it begins anew."""
    last: float | None = None
    made: list[float | None] = []
    for value in values:
        if value is None or last is None:
            made.append(None)
        else:
            made.append((value - last if value >= last else value) / step)
        last = last if value is None else value
    return made


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
        for name in ("asks", "failed", "late"):
            lines[name].append(said[name] / step)
        lines["spent"].append(said["spent"])
        for name in ("p50", "p95", "p99"):
            lines[name].append(said[name])
        for name in STAGES:
            lines[name].append(said["split"][name] if said["asks"] else None)
    return {"at": times, "worst": slowest, "lines": lines}
