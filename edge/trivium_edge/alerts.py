"""What should somebody look at now: since when is it so, and what has it done to asks?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from operator import lt, not_
from typing import Any

import msgspec

from . import views
from .figures import told
from .history import COARSE, FINE, History
from .reading import Cells

Read = Callable[[str, float, float, int], Cells]
"""Reads cells as a history does: of one kind, between two times, by steps of so many seconds."""

QUEUE_MS = 1000.0
"""From so many milliseconds in a queue on it is told; these are Prometheus' rules, too."""

SCRAPE_S = 10.0
"""How often the tiers' own figures are looked at."""

COUNTED = ("burn", "quality", "version")
"""What is told of asks themselves; all else is of figures that are looked at."""

TASKS_S = 60.0
"""So long may the oldest task wait for a worker."""

BACK_S = 6 * 3600.0
"""So far back it is looked for when something began."""

SLOWER, SLOWER_MS = 3.0, 50.0
"""A link is slow that takes so many times as long as usual, and so many milliseconds more."""

PAUSE_S = 60
"""What was good for so long began anew when it broke again."""

GONE_S = 60.0
"""A replica that was not seen for so long, behind a balancer, is gone."""


TOLD: dict[str, tuple[str, Callable[[float], bool], str]] = {
    "trivium_bundle_refused": (
        "bundle",
        bool,
        "{place} does not run {of}: it is altered, or nobody trusted has signed it",
    ),
    "trivium_queue_ms": (
        "queue",
        lambda ms: ms > QUEUE_MS,
        "an ask waits {value:.0f} ms at {place}",
    ),
    "trivium_task_oldest_seconds": (
        "tasks",
        lambda s: s > TASKS_S,
        "the oldest task waits {value:.0f} s for a worker",
    ),
    "trivium_task_workers": ("tasks", not_, "there is no worker to do them"),
    "trivium_store_up": ("store", not_, "the store of {of} does not answer {place}"),
    "trivium_store_full": ("store", bool, "the store of {of} is full and takes nothing more"),
}
"""What is told of a replica's figures: as what, when they are bad, and in which words."""


class Source(msgspec.Struct):
    """What one replica of a tier said of itself when it was seen last."""

    tier: str
    seen: float
    samples: list[tuple[str, dict[str, str], float]]
    started: float = 0.0
    up: bool = True


class Alert(msgspec.Struct, kw_only=True):
    """Something to look at; what it has done since then is its `toll`."""

    what: str
    said: str
    function: str = ""
    since: float | None = None
    toll: dict[str, Any] | None = None


def due(
    history: History,
    sources: dict[str, Source],
    cloud: bool,
    present: Mapping[str, Any],
    now: float,
) -> list[Alert]:
    """Return what is due at `now`, from what `views.present` gave of it.

    `cloud` says whether there is one to be reached.
    """

    # Several alerts look at the same hours.
    @cache
    def cells(kind: str, start: float, end: float, step: int) -> Cells:
        return history.cells(start, end, kind, step)

    found = [
        *_tiers(history, sources, cloud, now),
        *_told(history, sources, now),
        *_burning(cells, present["slo"], now),
        *_quality(history, cells, present["quality"], now),
        *_changes(present["changes"]),
    ]
    if history.trouble:
        said = f"the history can't be written: {history.trouble}"
        found.append(Alert(what="history", said=said))
    for alert in found:
        if alert.since is not None:
            # What is looked at now and then broke after it was looked at last.
            begun = alert.since - (0.0 if alert.what in COUNTED else SCRAPE_S)
            alert.toll = toll(cells, begun, now, alert.function)
    return found


def toll(cells: Read, since: float, now: float, function: str = "") -> dict[str, Any]:
    """Return what became of asks since then, of one function or all, beside the time before."""
    step = FINE if now - since <= 600 else COARSE[0]
    long = min(3600.0, max(2.0 * step, now - since))
    since -= since % step

    def mine(kind: str, start: float, end: float) -> Cells:
        return cells(kind, start, end, step).where(
            lambda key: function in ("", key[0]) and key[2] not in ("shadow", "feedback")
        )

    total = _sum(mine("road", since, now + step))
    before = _sum(mine("road", since - long, since - 1))
    callers = mine("caller", since, now + step)
    whom = []
    for who, data, _ in callers.by(lambda i: callers.keys[i][2]):
        said = told(data)
        hurt = said["failed"] + said["late"]
        if hurt >= 1:
            whom.append({"who": who, "hurt": hurt})
    return {
        "asks": total["asks"],
        "failed": total["failed"],
        "late": total["late"],
        "fallback": total["fallback"],
        "p95": total["p95"],
        "p95_before": before["p95"],
        "spent": total["spent"] / total["asks"] if total["asks"] else None,
        "spent_before": before["spent"] / before["asks"] if before["asks"] else None,
        "callers": sorted(whom, key=lambda each: -each["hurt"])[:20],
    }


def _sum(cells: Cells) -> dict[str, Any]:
    return told(cells.data.sum(axis=0))


def _tiers(
    history: History, sources: dict[str, Source], cloud: bool, now: float
) -> Iterator[Alert]:
    clouds = {name: each for name, each in sources.items() if each.tier == "cloud"}
    if not cloud:
        return
    if not any(each.up for each in clouds.values()):
        since = since_sample(history, "up", "cloud", now, lambda value: value < 1)
        yield Alert(what="tier", said="the cloud does not answer", since=since)
        return
    gone = {name: each.seen for name, each in clouds.items() if not each.up}
    # One that began when another ended took its place.
    born = (
        [each for each in clouds.values() if each.up and each.started > min(gone.values()) - 60]
        if gone
        else []
    )
    if len(gone) > len(born):
        said = f"not seen any more: {', '.join(sorted(gone))}"
        yield Alert(what="replica", said=said, since=min(gone.values()))


def _told(history: History, sources: dict[str, Source], now: float) -> Iterator[Alert]:
    """Tell what replicas say of themselves."""
    breakers: dict[tuple[str, str], list[tuple[str, float | None]]] = {}
    for name, source in sources.items():
        if not source.up:
            continue
        # Workers give no sign of life in a store that takes none: what it does is told already.
        shut = any(
            figure in ("trivium_store_up", "trivium_store_full")
            and labels.get("store") == "tasks"
            and TOLD[figure][1](value)
            for figure, labels, value in source.samples
        )
        for figure, labels, value in source.samples:
            since = partial(since_sample, history, figure, name, now, labels=joined(labels))
            if figure in TOLD:
                what, bad, said = TOLD[figure]
                if bad(value) and not (shut and what == "tasks"):
                    of = labels.get("store") or labels.get("bundle", "")
                    said = said.format(place=name, of=of, value=value)
                    yield Alert(
                        what=what, said=said, function=labels.get("bundle", ""), since=since(bad)
                    )
            elif figure == "trivium_breaker_open" and value:
                key = (source.tier, labels.get("tier", ""))
                breakers.setdefault(key, []).append((labels.get("function", ""), since(bool)))
            elif figure == "trivium_link_ms":
                usual = _usual(history, name, joined(labels), now)
                if usual is None or value <= (limit := SLOWER * usual + SLOWER_MS):
                    continue
                said = f"the way from the {name} to the next tier and back takes {value:.0f} ms"
                said = f"{said}, it was {usual:.0f}"
                yield Alert(what="link", said=said, since=since(partial(lt, limit)))
    for (where, tier), each in breakers.items():
        names = sorted(function for function, _ in each)
        said = f"the {where} leaves {', '.join(names)} on the {tier} alone: it failed too often"
        begun = [began for _, began in each if began is not None]
        function = names[0] if len(names) == 1 else ""
        yield Alert(
            what="breaker", said=said, function=function, since=min(begun) if begun else None
        )


def _usual(history: History, place: str, labels: str, now: float) -> float | None:
    """Return what a link takes when it is well: the lower quartile of some hours."""
    past = [
        value
        for _, where, said, value in history.series("trivium_link_ms", now - BACK_S, now)
        if (where, said) == (place, labels)
    ]
    return sorted(past)[len(past) // 4] if len(past) >= 6 else None


def _burning(cells: Read, rows: Sequence[dict[str, Any]], now: float) -> Iterator[Alert]:
    for row in rows:
        if not row["alert"]:
            continue
        function, what, objective = row["function"], row["what"], row["objective"]

        def bad(
            said: dict[str, Any], what: str = what, objective: float = objective
        ) -> bool | None:
            good = said["met"]
            if what == "answered" and said["asks"]:
                good = 1.0 - said["error_rate"]
            return None if good is None else good < objective

        burn, long = row["burn"][row["window"]], views.WINDOWS[row["window"]]
        said = f"{function}: {100 * burn * (1 - objective):.0f} % are not {what}"
        said += f", {burn:.0f} times as many as may be, in the last {long / 60:.0f} minutes"
        since = since_cell(cells, function, now, bad, long)
        yield Alert(what="burn", said=said, function=function, since=since)


def _quality(
    history: History, cells: Read, rows: Sequence[dict[str, Any]], now: float
) -> Iterator[Alert]:
    for row in rows:
        function = row["function"]
        for what, said in (("sure", "confidence"), ("size", "size of the inputs")):
            value = row[what]
            if value is not None and value > views.DRIFTED:
                labels = joined(
                    {"service": "edge", "function": function, "what": views.WORDS[what]}
                )
                since = since_sample(
                    history,
                    "trivium_drift",
                    "edge",
                    now,
                    lambda moved: moved > views.DRIFTED,
                    labels,
                )
                text = f"{function}: the {said} is not what it was (index {value:.2f})"
                yield Alert(what="drift", said=text, function=function, since=since)
        for what, text in (
            ("alike", "roads say the same in {:.0%} only"),
            ("pass_rate", "{:.0%} of what people judged is good"),
            ("chrf", "chrF is {:.0f} against what people say is right"),
        ):
            value, least = row[what], views.LEAST[what]
            if value is None or value >= least:
                continue

            def bad(said: dict[str, Any], what: str = what, least: float = least) -> bool | None:
                return None if said[what] is None else said[what] < least

            since = since_cell(cells, function, now, bad)
            said = f"{function}: {text.format(value)}"
            yield Alert(what="quality", said=said, function=function, since=since)


def _changes(rows: Sequence[dict[str, Any]]) -> Iterator[Alert]:
    """Tell of versions that are worse than those before them."""
    for row in rows:
        was, now, moved = row["was"], row["now"], row["moved"]
        worse = []
        if moved is not None and moved > views.DRIFTED and now["sure"] < was["sure"]:
            worse.append(f"its confidence is {now['sure']:.2f}, it was {was['sure']:.2f}")
        enough = min(was["asks"], now["asks"]) >= views.MANY
        if enough and now["p95"] > views.SLOWER * was["p95"]:
            worse.append(f"95 of 100 take {now['p95']:.0f} ms, they took {was['p95']:.0f}")
        if enough and now["error_rate"] > was["error_rate"] + views.FAILS_MORE:
            worse.append(f"{now['error_rate']:.0%} fail, {was['error_rate']:.0%} did")
        if worse:
            said = f"{row['version']} of {row['function']} on the {row['tier']} is worse than"
            said += f" {row['before']}: {', '.join(worse)}"
            yield Alert(what="version", said=said, function=row["function"], since=float(row["at"]))


def joined(labels: dict[str, str]) -> str:
    """Return labels as they stand in the history."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def since_sample(
    history: History,
    name: str,
    place: str,
    now: float,
    bad: Callable[[float], bool],
    labels: str = "",
) -> float | None:
    """Return when what a replica says became bad, without a pause until now."""
    since = None
    for at, where, said, value in reversed(history.series(name, now - BACK_S, now + 1)):
        if where == place and said == labels:
            if not bad(value):
                break
            since = float(at)
    return since


def since_cell(
    cells: Read,
    function: str,
    now: float,
    bad: Callable[[dict[str, Any]], bool | None],
    long: float = 0.0,
) -> float | None:
    """Return when a function's figures became bad, without a pause until `long` seconds ago.

    It is looked for in minutes first, then to ten seconds.
    """
    step = COARSE[0]
    bad_since: list[int] = []
    for at, found in reversed(
        _judged(cells("road", now - BACK_S, now + step, step), function, bad)
    ):
        if not found:
            # What has become well since is still told while it burns.
            if bad_since or at + step <= now - long:
                break
            continue
        bad_since.append(at)
    if not bad_since:
        return None
    # What went wrong once, before it began to last, does not count.
    for first in reversed(bad_since[-2:]):
        fine, last = None, min(first + step, now)
        for at, found in reversed(_judged(cells("road", first, last, FINE), function, bad)):
            # How long it has been well again is no pause of it.
            ended = fine is None and first == bad_since[0]
            if last - at > PAUSE_S and not ended:
                break
            if found:
                fine, last = float(at), float(at)
        if fine is not None:
            return fine
    return float(bad_since[-1])


def _judged(
    cells: Cells, function: str, bad: Callable[[dict[str, Any]], bool | None]
) -> list[tuple[int, bool]]:
    mine = cells.where(lambda key: key[0] == function)
    found = [(at, bad(told(data))) for at, data, _ in mine.by(lambda i: int(mine.at[i]))]
    return sorted((at, each) for at, each in found if each is not None)
