"""What is a figure, and is it as good as it should be?"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

TARGETS = Path(__file__).with_name("targets.toml")


class Record(msgspec.Struct):
    """One figure; `peer` says what it was compared with in the same run, and that one's figure."""

    name: str
    value: float
    unit: str
    peer: str = ""


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """Bounds of a figure; above `most` it is still good within `share` of the peer's."""

    most: float | None = None
    least: float | None = None
    share: float | None = None

    def met(self, record: Record) -> bool:
        """Return whether the figure keeps the bounds."""
        if self.least is not None:
            return record.value >= self.least
        most = self.most or 0.0
        if self.share is not None:
            most = max(most, self.share * float(record.peer.rsplit(" ", 2)[-2]))
        return record.value <= most


def targets() -> dict[str, Target]:
    """Return all targets by the name of their figure."""
    return msgspec.convert(tomllib.loads(TARGETS.read_text()), dict[str, Target])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]
