"""How does the page decode a video, through JavaScript?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from pyodide.ffi import JsException, to_js

from ..contract import Blob, Resident
from ..kinds import Audio, Frame
from .fetch import translated


class Handle(Protocol):
    """A handle of what was decoded."""

    dims: Sequence[int]


class Still(Protocol):
    """A frame that was decoded."""

    at: float
    pixels: Handle


class Walk(Protocol):
    """Frames, one after the other."""

    def next(self) -> Awaitable[Still | None]: ...
    def close(self) -> None: ...


class Film(Protocol):
    """A video that was opened."""

    seconds: float

    def frames(self, times: object) -> Walk: ...
    def sound(self) -> Awaitable[Handle | None]: ...
    def close(self) -> None: ...


class Reel:
    """A video's frames and its sound, decoded in JavaScript."""

    def __init__(self, film: Film, held: Callable[[Handle], Resident], blob: Blob) -> None:
        self._film = film
        self._held = held
        self._blob = blob
        self.seconds = film.seconds

    async def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:
        """Yield the frames that are shown at these times, decoded when they are taken."""
        walk = self._film.frames(to_js(times))
        try:
            while (still := await walk.next()) is not None:
                pixels = still.pixels
                yield Frame(Resident("uint8", tuple(pixels.dims), pixels), still.at)
        except JsException as error:
            raise translated(error) from error
        finally:
            walk.close()

    async def sound(self) -> Audio | None:
        """Return the sound, if there is any."""
        try:
            samples = await self._film.sound()
        except JsException as error:
            raise translated(error) from error
        if samples is None:
            return None
        return Audio(self._held(samples), self._blob)

    def __del__(self) -> None:
        self._film.close()
