"""What are numbers with a shape, on this side and on a session's?"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from .errors import BadInput, RunFailed
from .loops import fastest
from .nouns import Label, Noun

CODES = {
    "bool": "?",
    "uint8": "B",
    "int8": "b",
    "int32": "i",
    "int64": "q",
    "float32": "f",
    "float64": "d",
}


class Tensor(Noun, frozen=True, kw_only=True):
    """Numbers in C order, little-endian; `data` is any contiguous buffer of the right size."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview[Any]

    @classmethod
    def of(cls, dtype: str, shape: Sequence[int], values: Iterable[float]) -> Tensor:
        """Return numbers as a tensor: `Tensor.of("int64", (1, 2), [7, 9])`."""
        if dtype not in CODES:
            raise BadInput(f"dtype {dtype!r} is not one of {', '.join(CODES)}")
        truths = dtype == "bool"
        flat: array[Any] = array(
            "B" if truths else CODES[dtype], map(bool, values) if truths else values
        )
        if len(flat) != math.prod(shape):
            raise BadInput(f"{len(flat)} numbers do not fill the shape {tuple(shape)}")
        # A view without elements can't be cast, so that nobody could read it.
        return cls(dtype=dtype, shape=tuple(shape), data=memoryview(flat) if flat else b"")

    @property
    def values(self) -> memoryview[Any]:
        """Return all elements as one flat, typed view without copying."""
        if self.dtype not in CODES:
            raise BadInput(f"dtype {self.dtype!r} is not one of {', '.join(CODES)}")
        code: Any = CODES[self.dtype]
        view: memoryview[Any] = memoryview(self.data).cast("B").cast(code)
        return view

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> Tensor:
        """Return one item (an axis less) or a range along the first axis."""
        if not self.shape:
            raise IndexError("a tensor of shape () has no axis to index")
        step = math.prod(self.shape[1:])
        if isinstance(index, slice):
            first, last, stride = index.indices(self.shape[0])
            if stride != 1:
                raise IndexError(f"slice step {stride} is not supported; use 1")
            shape = (max(0, last - first), *self.shape[1:])
        else:
            first = range(self.shape[0])[index]
            last = first + 1
            shape = self.shape[1:]
        return Tensor(dtype=self.dtype, shape=shape, data=self.values[first * step : last * step])

    def tolist(self) -> Any:
        """Return nested lists of numbers, or one number for shape ()."""
        flat: list[Any] = self.values.tolist()
        if not self.shape:
            return flat[0]
        for axis in range(len(self.shape) - 1, 0, -1):
            size, rows = self.shape[axis], math.prod(self.shape[:axis])
            flat = [flat[i * size : (i + 1) * size] for i in range(rows)]
        return flat

    def topk(self, k: int) -> list[tuple[int, float]]:
        """Return the `k` largest as (index, value); of equals the first first, and NaN last."""
        values = self.values
        return fastest(values).topk(values, max(0, min(k, len(values))))

    def top(self, k: int, labels: Sequence[str]) -> list[Label]:
        """Return the `k` best labels with their scores, the best first."""
        if len(labels) != math.prod(self.shape):
            raise BadInput(f"{len(labels)} labels do not fit scores of shape {self.shape}")
        return [Label(label=labels[i], score=value) for i, value in self.topk(k)]

    def argmax(self) -> int:
        """Return the flat index of the largest element, the first of equals."""
        return self.topk(1)[0][0]

    def softmax(self) -> Tensor:
        """Return exp(x) / sum(exp(x)) along the last axis, as float32."""
        values, width = self.values, (1, *self.shape)[-1]
        if math.prod(self.shape) != len(values):
            raise BadInput(f"{len(values)} numbers do not fill the shape {self.shape}")
        data = fastest(values).softmax(values, max(1, min(width, len(values))))
        return Tensor(dtype="float32", shape=self.shape, data=data)

    def mean(self, mask: Tensor | Resident | None = None) -> Tensor:
        """Return the mean of a text's vectors, [t, d] or [1, t, d], as float32 of shape [d].

        Vectors where `mask` is 0 do not count. A resident mask is a tokenizer's, all ones: one
        text is not padded.
        """
        values = self.values
        shape = self.shape[1:] if len(self.shape) == 3 and self.shape[0] == 1 else self.shape
        if len(shape) != 2 or min(shape) < 1 or math.prod(shape) != len(values):
            raise BadInput(f"shape {self.shape} is not of vectors, [t, d] or [1, t, d]")
        rows, width = shape
        if isinstance(mask, Tensor):
            kept = bytes(map(bool, mask.values))
        else:
            kept = b"\1" * (rows if mask is None else math.prod(mask.shape))
        if len(kept) != rows:
            raise BadInput(f"a mask of {len(kept)} does not fit {rows} vectors")
        data = fastest(values).mean(values, kept)
        return Tensor(dtype="float32", shape=(width,), data=data)


class Resident:
    """A tensor that stays on its session's side; this tier only, never serialised."""

    __slots__ = ("dtype", "handle", "shape")

    def __init__(self, dtype: str, shape: tuple[int, ...], handle: object) -> None:
        self.dtype = dtype
        self.shape = shape
        self.handle = handle

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice) -> Resident:
        """Return a range along the first axis, without a copy, where the host can cut it."""
        raise RunFailed(f"a resident {self.dtype} of shape {self.shape} can't be cut here")
