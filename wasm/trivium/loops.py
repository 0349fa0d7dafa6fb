"""What do a tensor's loops give, to the bit, where Python is fast and where it is slow?

`Python` says it. `trivium_loops` (wasm/loops) gives the same bits of float32 from C; the page has
it, and does without where it can't be loaded. The servers bring NumPy (hosts/server/loops.py).
"""

from __future__ import annotations

import heapq
import math
from array import array
from typing import Any, Protocol


class Loops(Protocol):
    """What there is in both languages."""

    def topk(self, values: memoryview[Any], k: int, /) -> list[tuple[int, float]]:
        """Return the `k` largest as (index, value); of equals the first first, and NaN last."""

    def softmax(self, values: memoryview[Any], width: int, /) -> bytes:
        """Return exp(x) / sum(exp(x)) of every `width` values in float32, computed in double."""

    def mean(self, values: memoryview[Any], mask: bytes, /) -> bytes:
        """Return the mean of the rows whose byte in `mask` isn't 0, in float32; of none, zeros."""


class Python:
    """The definition, for every dtype."""

    def topk(self, values: memoryview[Any], k: int) -> list[tuple[int, float]]:
        numbers = values.tolist()
        total = sum(numbers)
        gone: list[int] = []
        if total != total:  # then one may be NaN; looking at each takes as long as the rest
            gone = [i for i, value in enumerate(numbers) if value != value]
        order = range(len(numbers)) if not gone else sorted(set(range(len(numbers))) - set(gone))
        best = heapq.nlargest(k, order, numbers.__getitem__)
        return [(i, float(numbers[i])) for i in [*best, *gone[: max(0, k - len(best))]]]

    def softmax(self, values: memoryview[Any], width: int) -> bytes:
        if width < 1 or len(values) % width:
            raise ValueError(f"{len(values)} numbers do not make rows of {width}")
        out = array("f")
        for start in range(0, len(values), width):
            row = values[start : start + width].tolist()
            peak = max(row)
            powers = [math.exp(value - peak) for value in row]
            total = 0.0
            for power in powers:  # sum() rounds in another way since Python 3.12
                total += power
            out.extend([power / total for power in powers])
        return out.tobytes()

    def mean(self, values: memoryview[Any], mask: bytes) -> bytes:
        if not mask or len(values) % len(mask):
            raise ValueError(f"{len(values)} numbers do not make {len(mask)} rows")
        width = len(values) // len(mask)
        sums = [0.0] * width
        for row, kept in enumerate(mask):
            if kept:
                part = values[row * width : (row + 1) * width]
                sums = [total + value for total, value in zip(sums, part, strict=True)]
        count = len(mask) - mask.count(0) or 1
        return array("f", [total / count for total in sums]).tobytes()


python: Loops = Python()
try:
    import trivium_loops

    compiled: Loops | None = trivium_loops
except ImportError:
    compiled = None

_float32: Loops = compiled or python


def use(loops: Loops) -> None:
    """Compute float32 by `loops` from now on: for a world that has something faster."""
    global _float32
    _float32 = loops


def fastest(values: memoryview[Any]) -> Loops:
    """Return what computes `values` in the least time here."""
    return _float32 if values.format == "f" else python
