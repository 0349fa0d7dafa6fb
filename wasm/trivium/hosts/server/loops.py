"""How does NumPy compute a tensor's loops, to the same bits as Python?"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...loops import python


class NumPy:
    """For float32; the softmax stays Python's, since NumPy's exp may differ in the last bit."""

    def topk(self, values: memoryview[Any], k: int) -> list[tuple[int, float]]:
        """Return the `k` largest as (index, value); of equals the first first, and NaN last."""
        array = np.frombuffer(values, np.float32)
        if not 0 < k <= array.size:
            return python.topk(values, k)
        least = np.partition(array, -k)[-k]
        kept = np.flatnonzero(array >= least)
        if kept.size < k:  # NaN counted among the largest
            return python.topk(values, k)
        best = kept[np.argsort(-array[kept], kind="stable")[:k]]
        return list(zip(best.tolist(), array[best].tolist(), strict=True))

    def softmax(self, values: memoryview[Any], width: int) -> bytes:
        """Return exp(x) / sum(exp(x)) of every `width` values in float32."""
        return python.softmax(values, width)

    def mean(self, values: memoryview[Any], mask: bytes) -> bytes:
        """Return the mean of the rows whose byte in `mask` isn't 0, in float32; of none, zeros."""
        width = len(values) // (len(mask) or 1)
        if width < 2 or len(values) != width * len(mask):
            return python.mean(values, mask)  # it says what is wrong; one column sums in pairs
        kept = np.frombuffer(mask, np.uint8) != 0
        rows = np.frombuffer(values, np.float32).reshape(len(mask), width)[kept]
        with np.errstate(invalid="ignore"):
            sums = np.add.reduce(rows.astype(np.float64), axis=0, initial=0.0)
        data: bytes = (sums / (len(rows) or 1)).astype(np.float32).tobytes()
        return data
