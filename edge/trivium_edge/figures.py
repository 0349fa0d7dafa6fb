"""Which figures are added up of asks, and what do they say together?"""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 56
"""Times fall into bins, each a quarter wider than the one before: 0.25 ms to a minute."""

LOW, BIN = log(0.25), log(1.25)

SIZES = 14

FIGURES = (
    *(
        "asks",
        "failed",
        "refused",
        "budgeted",
        "met",
        "late",
        "fallback",
        "hedged",
        "escalated",
        "cached",
        "spent",
    ),
    *("ms", "queue", "transfer", "decode", "python", "run"),
    *("expected_n", "expected", "took", "quality_n", "quality", "sure_n", "sure"),
    *("shadows", "shadow_took", "shadow_instead", "alike_n", "alike"),
    *("good", "bad", "references", "bleu", "chrf"),
    *(f"sure_{each}" for each in range(10)),
    *(f"size_{each}" for each in range(SIZES)),
    *(f"ms_{each}" for each in range(BINS)),
)
"""What a cell holds, each a sum."""

AT = {name: place for place, name in enumerate(FIGURES)}
_TIMES = slice(AT["ms_0"], AT["ms_0"] + BINS)
_SURE = slice(AT["sure_0"], AT["sure_0"] + 10)
_SIZES = slice(AT["size_0"], AT["size_0"] + SIZES)

STAGES = ("queue", "transfer", "decode", "python", "run")


def blank() -> NDArray[np.float64]:
    """Return a cell's figures before anything was added."""
    return np.zeros(len(FIGURES))


def place(ms: float) -> str:
    """Return the figure that counts asks of so many milliseconds."""
    bin_ = int((log(ms) - LOW) / BIN) + 1 if ms > 0.25 else 0
    return f"ms_{min(bin_, BINS - 1)}"


def size_class(size: float) -> str:
    """Return the figure that counts asks with so many bytes: each class is four times as wide."""
    return f"size_{min(SIZES - 1, max(0, (int(max(0.0, size)).bit_length() - 2) // 2))}"


class Cell:
    """The sums of one kind of ask over some seconds, and the trace of the slowest that is kept."""

    __slots__ = ("data", "sent", "worst", "worst_ms")

    def __init__(self, data: bytes = b"", worst: str = "", worst_ms: float = 0.0) -> None:
        # A list is quicker to add to than numpy's array.
        self.data: list[float] = (np.frombuffer(data) if data else blank()).tolist()
        self.sent = np.array(self.data)
        self.worst, self.worst_ms = worst, worst_ms

    def add(self, figures: Iterable[tuple[int, float]], trace: str, ms: float) -> None:
        """Add figures by their places; `trace` is that of an ask of `ms` which is kept, if any."""
        data = self.data
        for at, value in figures:
            data[at] += value
        self.slower(trace, ms)

    def slower(self, trace: str, ms: float) -> None:
        """Remember a kept trace if its ask was the slowest."""
        if trace and ms >= self.worst_ms:
            self.worst, self.worst_ms = trace, ms

    def news(self) -> NDArray[np.float64]:
        """Return what was added since this was asked last."""
        data = np.array(self.data)
        news: NDArray[np.float64] = data - self.sent
        self.sent = data
        return news


def quantile(figures: NDArray[np.float64], share: float) -> float | None:
    """Return the milliseconds below which `share` of the asks lie; nothing without asks."""
    counts = figures[_TIMES]
    total = float(counts.sum())
    if total <= 0:
        return None
    sums = np.cumsum(counts)
    at = int(np.searchsorted(sums, share * total))
    at = min(at, BINS - 1)
    before = float(sums[at - 1]) if at else 0.0
    inside = (share * total - before) / float(counts[at]) if counts[at] else 1.0
    low = 0.0 if at == 0 else float(np.exp(LOW + BIN * (at - 1)))
    return low + inside * (float(np.exp(LOW + BIN * at)) - low)


def told(figures: NDArray[np.float64]) -> dict[str, Any]:
    """Return what a cell's sums say: shares, means and quantiles; nothing where nothing was."""
    said = dict(zip(FIGURES, figures.tolist(), strict=True))

    def share(part: str, whole: str) -> float | None:
        return said[part] / said[whole] if said[whole] else None

    asks = said["asks"]
    judged = said["good"] + said["bad"]
    return {
        "asks": asks,
        "failed": said["failed"],
        "refused": said["refused"],
        "error_rate": share("failed", "asks"),
        "budgeted": said["budgeted"],
        "met": share("met", "budgeted"),
        "late": said["late"],
        "fallback": said["fallback"],
        "hedged": said["hedged"],
        "escalated": said["escalated"],
        "cached": share("cached", "asks"),
        "spent": said["spent"],
        "p50": quantile(figures, 0.5),
        "p95": quantile(figures, 0.95),
        "p99": quantile(figures, 0.99),
        "mean": share("ms", "asks"),
        "split": {each: said[each] / asks if asks else 0.0 for each in STAGES},
        "expected": share("expected", "expected_n"),
        "took": share("took", "expected_n"),
        "quality": share("quality", "quality_n"),
        "sure": share("sure", "sure_n"),
        "shadows": said["shadows"],
        "shadow_took": share("shadow_took", "shadows"),
        "shadow_instead": share("shadow_instead", "shadows"),
        "alike_n": said["alike_n"],
        "alike": share("alike", "alike_n"),
        "judged": judged,
        "pass_rate": said["good"] / judged if judged else None,
        "references": said["references"],
        "bleu": share("bleu", "references"),
        "chrf": share("chrf", "references"),
    }


def drift(now: NDArray[np.float64], before: NDArray[np.float64]) -> dict[str, float | None]:
    """Return how far confidence and input sizes moved away from what they were.

    It is the population stability index: below 0.1 nothing, above 0.25 much has changed. Nothing
    where there are fewer than 50 asks on either side.
    """
    return {"sure": _psi(now[_SURE], before[_SURE]), "size": _psi(now[_SIZES], before[_SIZES])}


def _psi(now: NDArray[np.float64], before: NDArray[np.float64]) -> float | None:
    if now.sum() < 50 or before.sum() < 50:
        return None
    # Half an ask in each class: an empty one says little, not everything.
    one = (now + 0.5) / (now.sum() + 0.5 * len(now))
    other = (before + 0.5) / (before.sum() + 0.5 * len(before))
    return float(((one - other) * np.log(one / other)).sum())
