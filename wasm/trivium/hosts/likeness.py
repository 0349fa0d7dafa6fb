"""How far do two answers to the same ask say the same, where that can be told?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from ..tensors import Tensor


def likeness(one: Any, other: Any) -> float | None:
    """Return from 0 to 1 how far two outputs agree, and nothing where they can't be compared.

    Vectors by their cosine, lists of labels and texts by whether they are the same, lists of boxes
    and lines by their share that is.
    """
    if isinstance(one, Tensor):
        one = list(one.values)
    if isinstance(other, Tensor):
        other = list(other.values)
    one, other = _plain(one), _plain(other)
    if isinstance(one, bool) or isinstance(other, bool):
        return float(one is other)
    if isinstance(one, int | float) and isinstance(other, int | float):
        scale = max(abs(one), abs(other), 1e-9)
        return max(0.0, 1.0 - abs(one - other) / scale)
    if isinstance(one, str) and isinstance(other, str):
        return float(" ".join(one.split()) == " ".join(other.split()))
    if isinstance(one, dict) and isinstance(other, dict):
        return _mapped(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return _listed(one, other)
    return None


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return list(value) if isinstance(value, tuple) else value


def _mapped(one: dict[Any, Any], other: dict[Any, Any]) -> float | None:
    if "label" in one and "label" in other:
        return float(one["label"] == other["label"])
    found = [likeness(one[key], other[key]) for key in one.keys() & other.keys()]
    known = [each for each in found if each is not None]
    return sum(known) / len(known) if known else None


def _listed(one: list[Any], other: list[Any]) -> float | None:
    if not one or not other:
        return float(not one and not other)
    if all(isinstance(each, int | float) for each in [*one, *other]):
        return _cosine(one, other)
    first, second = _plain(one[0]), _plain(other[0])
    if isinstance(first, dict) and "label" in first and isinstance(second, dict):
        if "x" not in first:
            return _mapped(first, second)  # the likeliest come first: that one counts
        labels = [sorted(str(_plain(each).get("label")) for each in some) for some in (one, other)]
        both = sum(min(labels[0].count(each), labels[1].count(each)) for each in set(labels[0]))
        return both / max(len(one), len(other))
    pairs = [likeness(a, b) for a, b in zip(one, other, strict=False)]
    known = [each for each in pairs if each is not None]
    return sum(known) / max(len(one), len(other)) if known else None


def _cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    if len(one) != len(other):
        return None
    if len(one) == 1:
        return likeness(one[0], other[0])
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    norms = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return max(0.0, min(1.0, dot / norms)) if norms else None
