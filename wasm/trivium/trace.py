"""What happened during an ask, on which tier, and for how long?

Spans and ids follow W3C Trace Context (`traceparent`) and OpenTelemetry's model, without its SDK:
a tier hands finished spans to `emit`, and its host exports them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .nouns import Noun


class Span(Noun, frozen=True, kw_only=True):
    """A finished piece of work; times are nanoseconds since 1970, ids are hex.

    What is not `sampled` is counted and never kept: that was the caller's choice.
    """

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str = ""
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = {}
    error: str = ""
    sampled: bool = True

    def plausible(self) -> bool:
        """Return whether a span sent by a stranger has valid ids, few attributes, short texts."""
        texts = [
            self.name,
            self.error,
            *map(str, self.attributes),
            *map(str, self.attributes.values()),
        ]
        return (
            parse(f"00-{self.trace_id}-{self.span_id}-01") is not None
            and (not self.parent_id or parse(f"00-{self.trace_id}-{self.parent_id}-01") is not None)
            and 0 < self.start_ns <= self.end_ns < 1 << 63
            and len(texts) <= 98
            and all(len(text) <= 1024 for text in texts)
            and all(
                isinstance(value, bool | int | float | str) for value in self.attributes.values()
            )
        )


_HEX = frozenset("0123456789abcdef")


def parse(header: str) -> tuple[str, str, bool] | None:
    """Return (trace id, span id, sampled) of a `traceparent`, or none if it is not a valid one."""
    pieces = header.split("-")
    if len(pieces) < 4 or [len(piece) for piece in pieces[:4]] != [2, 32, 16, 2]:
        return None
    version, trace_id, span_id, flags = pieces[:4]
    if not _HEX.issuperset(version + trace_id + span_id + flags) or version == "ff":
        return None
    if (version == "00" and len(pieces) > 4) or not (trace_id.strip("0") and span_id.strip("0")):
        return None
    return trace_id, span_id, bool(int(flags, 16) & 1)


class Open:
    """A span that is still running; leave it as a context manager to emit it."""

    trace_id: str
    span_id: str
    _sampled: bool

    def __init__(
        self, tracer: Tracer, name: str, parent: Open | str, attributes: dict[str, Any]
    ) -> None:
        known: tuple[str, str, bool] | None
        if isinstance(parent, Open):
            known = parent.trace_id, parent.span_id, parent._sampled
        else:
            known = parse(parent)
        self.trace_id, self._parent_id, self._sampled = known or (os.urandom(16).hex(), "", True)
        # What nobody takes needs no name: its children go straight under its parent.
        quiet = tracer.emit is None and self._parent_id
        self.span_id = self._parent_id if quiet else os.urandom(8).hex()
        self.attributes = attributes
        self._tracer = tracer
        self._name = name
        self._start_ns = time.time_ns()

    @property
    def header(self) -> str:
        """Return the `traceparent` under which children of this span run."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self._sampled else '00'}"

    def began(self, ns: int) -> None:
        """Count from `ns` nanoseconds ago on: the work lay in a socket before it was seen."""
        self._start_ns -= ns

    def __enter__(self) -> Open:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tracer.emit is None:
            return
        self._tracer.emit(
            Span(
                name=self._name,
                service=self._tracer.service,
                trace_id=self.trace_id,
                span_id=self.span_id,
                parent_id=self._parent_id,
                start_ns=self._start_ns,
                end_ns=time.time_ns(),
                attributes=self.attributes,
                # The class alone: a message may quote what the caller sent.
                error="" if kind is None else getattr(kind, "code", kind.__name__),
                sampled=self._sampled,
            )
        )


class Tracer:
    """Opens spans of one service; without `emit` they only carry ids along."""

    def __init__(self, service: str, emit: Callable[[Span], None] | None = None) -> None:
        self.service = service
        self.emit = emit

    def span(self, name: str, parent: Open | str = "", **attributes: Any) -> Open:
        """Open a span under another or a `traceparent`; a new trace where that is not valid."""
        if self.emit is None and isinstance(parent, Open):
            return parent  # nobody takes spans, and the ids to carry along are the same
        return Open(self, name, parent, attributes)
