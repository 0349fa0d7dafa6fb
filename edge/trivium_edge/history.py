"""What happened in the last hours, and what was it like?

SQLite, for it is there, is written by one thread, and takes a disk that is full or a file that is
broken as errors. Of each ask figures are added up by the time it came; traces worth keeping are
kept as they are, for less long. What the figures count was counted before anything was sampled.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from trivium.hosts.server.telemetry import Trace, asking, lasted, late, mistaken, unasked
from trivium.trace import Span

from .figures import AT, FIGURES, Cell, place, size_class
from .reading import Reading

STEPS = (10, 300, 3600)
"""Figures are added up over so many seconds; a view takes those that fit it."""

FINE, COARSE = STEPS[0], STEPS[1:]

KEEP_S = {10: 3 * 3600, 300: 3 * 86400, 3600: 90 * 86400}
"""For how long."""

SCHEMA = 2
FLUSH_S = 1.0
RETRY_S = 10.0
MOST_KEYS = 20_000
"""So many kinds of asks are told apart at a time; further ones are `other`."""

Figures = list[tuple[int, float]]
ONE: Figures = [(AT["asks"], 1.0)]

log = logging.getLogger("trivium.history")

TABLES = """
CREATE TABLE IF NOT EXISTS cells (
    step INTEGER, at INTEGER, kind TEXT, function TEXT, tier TEXT, who TEXT,
    data BLOB, worst TEXT, worst_ms REAL,
    PRIMARY KEY (step, kind, at, function, tier, who)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS asks (
    at REAL, trace TEXT, function TEXT, began TEXT, tier TEXT, ms REAL, error TEXT, late INTEGER,
    kept TEXT, caller TEXT, device TEXT, plan TEXT
);
CREATE INDEX IF NOT EXISTS asks_at ON asks (at);
CREATE INDEX IF NOT EXISTS asks_trace ON asks (trace);
CREATE INDEX IF NOT EXISTS asks_function ON asks (function, at);
CREATE TABLE IF NOT EXISTS spans (trace TEXT, at REAL, data BLOB);
CREATE INDEX IF NOT EXISTS spans_trace ON spans (trace);
CREATE INDEX IF NOT EXISTS spans_at ON spans (at);
CREATE TABLE IF NOT EXISTS samples (at INTEGER, tier TEXT, name TEXT, labels TEXT, value REAL);
CREATE INDEX IF NOT EXISTS samples_name ON samples (name, at);
"""

Key = tuple[str, str, str, str]
"""Of what kind figures are, of which function, on which tier, and of whom or what."""

Full = tuple[int, int, Key]
"""A key with the step and the time that its figures are of."""


class History(Reading):
    """The embedded store: takes traces and samples, and gives views of them.

    `hours` is how long traces are kept, `megabytes` how large the file may become before the oldest
    go. A file that can't be used is set aside and a new one begun; without a disk that can be
    written, what comes is lost, `trouble` says so, and it is tried again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        hours: float = 24.0,
        megabytes: float = 512.0,
        known: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(folder / "history.sqlite")
        self.trouble = ""
        self.lost = 0
        self.changed = threading.Condition()
        self.version = 0
        self._hours, self._megabytes = hours, megabytes
        self._known = known
        self._clock = clock
        self._begun = clock()
        self._cells: dict[Full, Cell] = {}
        self._dirty: set[Full] = set()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._asks: list[tuple[Any, ...]] = []
        self._spans: list[tuple[str, float, bytes]] = []
        self._samples: list[tuple[int, str, str, str, float]] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._retry = 0.0
        self._swept = 0.0
        self._thread = threading.Thread(target=self._run, name="trivium-history", daemon=True)
        self._thread.start()

    # What comes in: from the telemetry's thread.

    def take(self, trace: Trace) -> None:
        """Count a complete trace, and keep it if it is worth it."""
        with self._lock:
            asks = trace.asks()
            if trace.more:
                # An ask of a page may come long after what the edge did for it, and a worker's
                # when all that led to it is over.
                asks = [
                    each
                    for each in asks
                    if each.service == "worker"
                    or (each.service.endswith("page") and not each.parent_id)
                ]
            for ask in asks or _unasked(trace):
                self._count(ask, trace)
            if not trace.more:
                for span in trace.spans:
                    self._aside(span)
            if trace.kept and len(self._spans) < 20_000:
                at = trace.spans[0].start_ns / 1e9
                self._spans.append((trace.trace_id, at, _pack(trace.spans)))
            elif trace.kept:
                self.lost += 1

    def feedback(
        self, function: str, tier: str, good: bool | None, figures: Mapping[str, float], trace: str
    ) -> None:
        """Count what a person said of an answer."""
        said = dict(figures)
        if good is not None:
            said["good" if good else "bad"] = 1.0
        now = self._clock()
        with self._lock:
            self._add(
                now, ("road", self._name(function), tier, "feedback"), _placed(said), trace, 0.0
            )

    def sample(self, tier: str, found: Sequence[tuple[str, str, float]]) -> None:
        """Keep what a tier's gauges and counters were: name, labels, value."""
        at = int(self._clock())
        with self._lock:
            if len(self._samples) < 50_000:
                self._samples += [(at, tier, name, labels, value) for name, labels, value in found]

    def _count(self, ask: Span, trace: Trace) -> None:
        said, ms = ask.attributes, lasted(ask)
        at = ask.end_ns / 1e9
        if abs(at - self._clock()) > 3600:
            at = self._clock()  # a page's clock may be anything
        function = self._name(asking(ask) or _word(said.get("trivium.function"), ""))
        began = ask.service.removeprefix("trivium.")
        cached = said.get("trivium.cached")
        tier = _word(said.get("trivium.tier"), "cache" if cached else "none")
        https = [span for span in trace.spans if span.name.startswith("POST ")]
        caller = next((v for s in https if (v := s.attributes.get("trivium.caller"))), None)
        caller = str(caller or said.get("trivium.caller") or "")[:120]
        device = str(said.get("trivium.device") or "")[:60]
        missed = late(ask)
        waits = ("trivium.queue_ms", "trivium.wait_ms")
        queued = sum(_number(s.attributes.get(key)) for s in https for key in waits)
        weight = _number(said.get("trivium.weight")) or 1.0
        figures: dict[str, float] = {
            "asks": 1.0,
            "failed": float(bool(ask.error) and not mistaken(ask)),
            "refused": float(mistaken(ask)),
            "budgeted": float(missed is not None),
            "met": float(missed is False),
            # One that failed is not answered, neither in time nor late.
            "late": float(missed is True and not ask.error),
            "fallback": float("trivium.failed" in said),
            "hedged": float("trivium.hedged" in said),
            "escalated": float("trivium.escalated" in said),
            "cached": float(cached in ("hit", "stale")),
            "spent": _number(said.get("trivium.spent")),
            "queue": queued,
            "transfer": _number(said.get("trivium.hop_ms")),
            "decode": _number(said.get("trivium.decode_ms")),
            "python": _number(said.get("trivium.python_ms")),
            "run": max(0.0, _number(said.get("trivium.run_ms")) - queued),
            "ms": ms,
            place(ms): 1.0,
        }
        if "trivium.expected_ms" in said:
            figures["expected_n"], figures["expected"] = 1.0, _number(said["trivium.expected_ms"])
            figures["took"] = _number(said.get("trivium.took_ms"))
        if "trivium.quality" in said:
            figures["quality_n"], figures["quality"] = 1.0, _number(said["trivium.quality"])
        if "trivium.confidence" in said:
            sure = min(1.0, max(0.0, _number(said["trivium.confidence"])))
            figures["sure_n"], figures["sure"] = 1.0, sure
            figures[f"sure_{min(9, int(10 * sure))}"] = 1.0
        if "trivium.size" in said:
            figures[size_class(_number(said["trivium.size"]))] = 1.0
        added = _placed(figures, weight)
        kept = trace.trace_id if trace.kept else ""
        version = _word(said.get("trivium.version"), "")
        self._add(at, ("road", function, tier, began), added, kept, ms)
        if caller:
            self._add(at, ("caller", function, tier, caller), added, kept, ms)
        if device:
            self._add(at, ("device", function, tier, device), added, kept, ms)
        if version:
            self._add(at, ("version", function, tier, version), added, kept, ms)
        if ask.error:
            who = _word(ask.error, "error")
            self._add(at, ("error", function, began, who), ONE, kept, ms)
        if failed := _word(said.get("trivium.failed"), ""):
            self._add(at, ("error", function, "rescued", failed), ONE, kept, ms)
        if trace.kept:
            plan = str(said.get("trivium.plan", ""))[:300]
            missing = None if missed is None else int(missed)
            row = (at, trace.trace_id, function, began, tier, ms, ask.error, missing)
            self._asks.append((*row, trace.kept, caller, device, plan))

    def _aside(self, span: Span) -> None:
        """Count what is no ask: a shadow, and a version's run that failed whoever answered then."""
        said = span.attributes
        if span.name == "run" and span.error == "run_failed" and "trivium.version" in said:
            function = self._name(_word(said.get("trivium.function"), ""))
            version = _word(said["trivium.version"], "")
            tier = span.service.removeprefix("trivium.")
            # A worker does what the cloud was asked.
            key = ("version", function, "cloud" if tier == "worker" else tier, version)
            ms = lasted(span)
            figures = {"asks": 1.0, "failed": 1.0, "ms": ms, place(ms): 1.0}
            self._add(span.end_ns / 1e9, key, _placed(figures), "", 0.0)
        if span.name != "shadow" or "trivium.took_ms" not in said:
            return
        figures = {
            "shadows": 1.0,
            "shadow_took": _number(said["trivium.took_ms"]),
            "shadow_instead": _number(said.get("trivium.instead_ms")),
        }
        if "trivium.alike" in said:
            figures["alike_n"] = 1.0
            figures["alike"] = min(1.0, max(0.0, _number(said["trivium.alike"])))
        function = self._name(_word(said.get("trivium.function"), ""))
        key = ("road", function, _word(said.get("trivium.tier"), "none"), "shadow")
        self._add(span.end_ns / 1e9, key, _placed(figures), "", 0.0)

    def _add(self, at: float, key: Key, figures: Figures, trace: str, ms: float) -> None:
        full = (FINE, int(at) // FINE * FINE, key)
        cell = self._cells.get(full)
        if cell is None:
            if len(self._cells) > MOST_KEYS:
                full = (*full[:2], (key[0], "other", "other", "other"))
            cell = self._cell(full)
        cell.add(figures, trace, ms)
        self._dirty.add(full)

    def _cell(self, full: Full) -> Cell:
        cell = self._cells.get(full)
        if cell is None:
            # What was added up before this process began is in the file.
            cell = self._cells[full] = self._found(full) if full[1] <= self._begun else Cell()
        return cell

    def _found(self, full: Full) -> Cell:
        with contextlib.suppress(sqlite3.Error, OSError, ValueError):
            row = self._reading().execute(
                "SELECT data, worst, worst_ms FROM cells WHERE step = ? AND at = ? AND kind = ?"
                " AND function = ? AND tier = ? AND who = ?",
                (*full[:2], *full[2]),
            )
            for data, worst, worst_ms in row:
                return Cell(data, worst, worst_ms)
        return Cell()

    def _coarser(self) -> None:
        """Add what is new in the finest cells to the coarser ones."""
        for full in [each for each in self._dirty if each[0] == FINE]:
            cell = self._cells[full]
            news = cell.news()
            for step in COARSE:
                above = (step, full[1] // step * step, full[2])
                wide = self._cell(above)
                wide.data = (np.array(wide.data) + news).tolist()
                wide.slower(cell.worst, cell.worst_ms)
                self._dirty.add(above)

    def _name(self, function: str) -> str:
        return function if self._known(function) else "other"

    # What is written: by one thread.

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=FLUSH_S)
                if work is None:
                    self.flush()
                    return
                work()
            except queue.Empty:
                self.flush()

    def flush(self) -> None:
        """Write what has come in; on an error keep the figures and let go of the rest."""
        with self._writing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            if not (self._dirty or self._asks or self._spans or self._samples):
                return
            if self.trouble and time.monotonic() < self._retry:
                self._coarser()
                self._drop()
                return
            self._coarser()
            cells = [
                (*full[:2], *full[2], np.array(cell.data).tobytes(), cell.worst, cell.worst_ms)
                for full in self._dirty
                for cell in (self._cells[full],)
            ]
            asks, spans, samples = self._asks, self._spans, self._samples
            self._asks, self._spans, self._samples = [], [], []
            dirty, self._dirty = self._dirty, set()
        try:
            database = self._open()
            with database:
                database.executemany(
                    "INSERT OR REPLACE INTO cells VALUES (?,?,?,?,?,?,?,?,?)", cells
                )
                database.executemany("INSERT INTO asks VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", asks)
                database.executemany("INSERT INTO spans VALUES (?,?,?)", spans)
                database.executemany("INSERT INTO samples VALUES (?,?,?,?,?)", samples)
            self._sweep(database)
            if self.trouble:
                log.warning("the history is written again")
            self.trouble = ""
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            with self._lock:
                self._dirty |= dirty
                self.lost += len(spans)
        with self.changed:
            self.version += 1
            self.changed.notify_all()

    def _drop(self) -> None:
        self.lost += len(self._spans)
        self._asks, self._spans, self._samples = [], [], []
        now = self._clock()
        for full in [each for each in self._cells if each[1] < now - 2 * each[0] - 600]:
            del self._cells[full]
            self._dirty.discard(full)

    def _failed(self, error: Exception) -> None:
        first = not self.trouble
        self.trouble = f"{type(error).__name__}: {error}"
        self._retry = time.monotonic() + RETRY_S
        if first:
            log.error("the history can't be written: %s", self.trouble)
        broken = isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        )
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None
        if broken:
            # Somebody may want to look at it; what is new goes into a file beside.
            aside = self.path.with_name(f"history.broken-{int(time.time())}.sqlite")
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.replace(f"{self.path}{end}", f"{aside}{end}")
            log.error("the broken history is now %s; a new one is begun", aside.name)
            self._retry = 0.0

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, check_same_thread=False)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = NORMAL")
                database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version not in (0, SCHEMA):
                    raise sqlite3.DatabaseError(f"the history is of version {version}")
                width = 8 * len(FIGURES)
                database.executescript(TABLES)
                found = database.execute(
                    "SELECT 1 FROM cells WHERE length(data) != ? LIMIT 1", (width,)
                ).fetchone()
                if found:
                    raise sqlite3.DatabaseError("the history has other figures than these")
                database.execute(f"PRAGMA user_version = {SCHEMA}")
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _sweep(self, database: sqlite3.Connection) -> None:
        """Let go of what is old, and of the oldest where the file is too large."""
        now = self._clock()
        with self._lock:
            for full in [each for each in self._cells if each[1] < now - 2 * each[0] - 600]:
                if full not in self._dirty:
                    del self._cells[full]
        if now - self._swept < 30:
            return
        self._swept = now
        with database:
            for step, keep in KEEP_S.items():
                database.execute("DELETE FROM cells WHERE step = ? AND at < ?", (step, now - keep))
            oldest = now - self._hours * 3600
            for table in ("asks", "spans", "samples"):
                database.execute(f"DELETE FROM {table} WHERE at < ?", (oldest,))  # noqa: S608
        for _ in range(10):
            if self.size(database) <= self._megabytes * 1e6:
                break
            with database:
                # A tenth of what is there by time, until it fits.
                first, last = database.execute("SELECT min(at), max(at) FROM spans").fetchone()
                if first is None:
                    database.execute("DELETE FROM cells WHERE step = 10")
                    break
                bound = first + (last - first) / 10 + 1e-3
                for table in ("asks", "spans", "samples"):
                    database.execute(f"DELETE FROM {table} WHERE at < ?", (bound,))  # noqa: S608
        database.execute("PRAGMA incremental_vacuum(2000)")

    def close(self) -> None:
        """Write what is there, and end."""
        self._work.put(None)
        self._thread.join(10.0)
        with self._writing:
            if self._database is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._database.close()
            self._database = None


def _pack(spans: Sequence[Span]) -> bytes:
    return msgspec.msgpack.encode(spans)


def _number(value: Any) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15
    return float(value) if good else 0.0


def _unasked(trace: Trace) -> list[Span]:
    """Return the request that failed before it became an ask: its task could not be kept, say."""
    failed = filter(unasked, trace.spans)
    # The farthest tier knows the function.
    return [] if trace.more else sorted(failed, key=lambda span: span.start_ns)[-1:]


def _placed(figures: Mapping[str, float], weight: float = 1.0) -> Figures:
    return [(AT[name], value * weight) for name, value in figures.items() if value]


def _word(value: Any, other: str) -> str:
    return str(value)[:80] if value else other
