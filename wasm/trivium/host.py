"""What does a tier's world provide?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from .contract import Blob, Variant
from .function import Function, Loaded
from .kinds import Decoded, Given

T = TypeVar("T")


class Host(Protocol):
    """What a tier's world provides; the kernel itself does no I/O and owns no clock.

    `lanes` is how many asks really run at once; `shadows` the share of the asks after which
    another road may be asked as well, to learn how long it would have taken.
    """

    lanes: int
    shadows: float

    def cold(self, function: Function) -> float:
        """Return how many ms loading the function would take first; 0 if it is loaded."""

    def clock(self) -> float:
        """Return monotonic milliseconds."""

    async def open(self, function: Function) -> Loaded:
        """Return the function's sessions, loading them on first use; raise ModelNotReady."""

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        """Return the input ready for the function; raise BadInput or TooLarge."""

    async def encode(self, value: Decoded) -> Blob:
        """Return a file from which another tier decodes the same."""

    async def race(
        self,
        first: Callable[[], Awaitable[T]],
        then: Callable[[], Awaitable[T]],
        after_ms: float | None,
    ) -> T:
        """Return what comes first of `first` and `then`, and cancel the other.

        `then` starts as soon as `first` raises a TierError, or after `after_ms`.
        """

    async def limit(self, work: Awaitable[T], ms: float | None) -> T:
        """Return what `work` gives; after `ms` cancel it and raise BudgetError."""

    async def together(self, works: Sequence[Awaitable[T]]) -> list[T]:
        """Return what all `works` give; if one raises, cancel the others, and raise it then."""

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` by and by, once what was answered is on its way; nobody waits for it."""

    def alike(self, one: Any, other: Any) -> float | None:
        """Return from 0 to 1 how far two outputs agree, if they can be compared."""

    def report(self, error: BaseException, where: str | None) -> None:
        """Tell the developer, not the caller, that a function failed."""
