"""What stands in the history, for whoever asks?"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trivium.trace import Span

from .figures import FIGURES


class Reading:
    """The reading side of a history at `path`, for any thread: each has a connection of its own.

    What can't be read is nothing: that the file is broken is told where it is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def _reading(self) -> sqlite3.Connection:
        at: int = self.path.stat().st_ino if self.path.exists() else 0
        if getattr(self._local, "at", None) != at:
            self._local.database = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)
            self._local.at = at
        database: sqlite3.Connection = self._local.database
        return database

    def cells(self, start: float, end: float, kind: str, step: int) -> Cells:
        """Return the figures of one kind between two times."""
        try:
            rows = self._reading().execute(
                "SELECT at, function, tier, who, data, worst, worst_ms FROM cells"
                " WHERE step = ? AND at >= ? AND at <= ? AND kind = ?",
                (step, int(start) // step * step, end, kind),
            )
            found = rows.fetchall()
        except (sqlite3.Error, OSError):
            found = []  # `trouble` says so, if it lasts
        return Cells(found)

    def times(
        self, kind: str, step: int, start: float = 0.0
    ) -> dict[tuple[str, str, str], tuple[int, int]]:
        """Return when each key of one kind is found first and last."""
        with contextlib.suppress(sqlite3.Error, OSError):
            rows = self._reading().execute(
                "SELECT function, tier, who, min(at), max(at) FROM cells"
                " WHERE step = ? AND kind = ? AND at >= ? GROUP BY function, tier, who",
                (step, kind, start),
            )
            return {row[:3]: row[3:] for row in rows}
        return {}

    def asks(
        self, start: float, end: float, most: int = 100, order: str = "at", **wanted: Any
    ) -> list[dict[str, Any]]:
        """Return kept asks between two times, the newest or slowest first."""
        where, values = ["at >= ?", "at < ?"], [start, end]
        for name in ("function", "began", "tier", "caller", "device", "kept", "error"):
            if wanted.get(name):
                where.append(f"{name} = ?")
                values.append(wanted[name])
        if wanted.get("least_ms"):
            where.append("ms >= ?")
            values.append(wanted["least_ms"])
        if wanted.get("most_ms"):
            where.append("ms <= ?")
            values.append(wanted["most_ms"])
        if wanted.get("failed"):
            where.append("error != ''")
        if wanted.get("late"):
            where.append("late = 1")
        if wanted.get("trace"):
            where.append("trace = ?")
            values.append(wanted["trace"])
        column = "ms" if order == "ms" else "at"
        try:
            # The words are ours; values are bound.
            query = f"SELECT * FROM asks WHERE {' AND '.join(where)} ORDER BY {column} DESC LIMIT ?"  # noqa: S608
            cursor = self._reading().execute(query, (*values, min(most, 500)))
            names = [each[0] for each in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        except (sqlite3.Error, OSError):
            return []

    def trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace, the earliest first."""
        found: dict[str, Span] = {}
        with contextlib.suppress(sqlite3.Error, OSError):
            for (data,) in self._reading().execute(
                "SELECT data FROM spans WHERE trace = ?", (trace_id,)
            ):
                found |= {span.span_id: span for span in _unpack(data)}
        return sorted(found.values(), key=lambda span: span.start_ns)

    def series(
        self, name: str, start: float, end: float, step: int = 1
    ) -> list[tuple[int, str, str, float]]:
        """Return samples of one name between two times: when, of whom, labels, value.

        Of those in the same `step` seconds it is the highest.
        """
        with contextlib.suppress(sqlite3.Error, OSError):
            return list(
                self._reading().execute(
                    "SELECT at / ?1 * ?1 AS time, tier, labels, max(value) FROM samples"
                    " WHERE name = ?2 AND at >= ?3 AND at < ?4"
                    " GROUP BY time, tier, labels ORDER BY time LIMIT 50000",
                    (step, name, start, end),
                )
            )
        return []

    def size(self, database: sqlite3.Connection | None = None) -> int:
        """Return the bytes that are in use in the file."""
        connection = database or self._reading()
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        found: int = (pages - free) * page
        return found


class Cells:
    """Figures, to be added up by what their keys have in common."""

    def __init__(self, rows: Sequence[tuple[Any, ...]]) -> None:
        self.at = np.array([row[0] for row in rows], dtype=np.int64)
        self.keys = [row[1:4] for row in rows]
        data = bytearray().join([row[4] for row in rows])
        self.data: NDArray[np.float64] = np.array(
            np.frombuffer(data) if data else (), dtype=np.float64
        ).reshape(-1, len(FIGURES))
        self.worst = [(row[6], row[5]) for row in rows]

    def where(self, wanted: Callable[[tuple[str, str, str]], bool]) -> Cells:
        """Return those whose key (function, tier, who) is wanted."""
        take = [i for i, key in enumerate(self.keys) if wanted(key)]
        made = Cells([])
        made.at, made.data = self.at[take], self.data[take]
        made.keys = [self.keys[i] for i in take]
        made.worst = [self.worst[i] for i in take]
        return made

    def by(self, name: Callable[[int], Any]) -> Iterator[tuple[Any, NDArray[np.float64], str]]:
        """Yield each group by the name of its rows, its sum, and the trace of its slowest ask."""
        places: dict[Any, int] = {}
        index = np.array([places.setdefault(name(i), len(places)) for i in range(len(self.keys))])
        sums = np.zeros((len(places), len(FIGURES)))
        if len(index):
            order = np.argsort(index, kind="stable")
            starts = np.searchsorted(index[order], np.arange(len(places)))
            sums = np.add.reduceat(self.data[order], starts, axis=0)
        worst = [(0.0, "")] * len(places)
        for i, group in enumerate(index):
            worst[group] = max(worst[group], self.worst[i])
        for group, at in places.items():
            yield group, sums[at], worst[at][1]


# Made here and not by the threads that read: two that learn one type at once crash msgspec.
_unpack = msgspec.msgpack.Decoder(list[Span]).decode
