"""What kinds of input can a function take, and what does it see of them?

One class a kind; the hosts decode what an ask carries into it.
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from math import ceil
from typing import Protocol

from .contract import Blob, Resident, Tensor
from .errors import BadInput


class Text(str):
    """What a person wrote."""

    __slots__ = ()


class Decoded:
    """An input that is more than text; `blob` is what it was decoded from, where that is whole."""

    __slots__ = ("blob",)

    ALIKE = False
    """Whether each variant of each function has it decoded alike, however large it is."""

    def __init__(self, blob: str | Blob | None = None) -> None:
        self.blob = blob


class Image(Decoded):
    """A decoded picture: `pixels` is uint8 [height, width, 3], RGB, upright, alpha on white."""

    __slots__ = ("pixels",)

    def __init__(self, pixels: Tensor | Resident, blob: Blob | None = None) -> None:
        super().__init__(blob)
        self.pixels = pixels

    @property
    def height(self) -> int:
        """Return the height of the decoded picture, in pixels."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Return the width of the decoded picture, in pixels."""
        return self.pixels.shape[1]


class Series(Decoded):
    """Numbers in the order of time: `values` is float64 [n], NaN where nothing was measured.

    `times` has what stood beside each, or nothing.
    """

    __slots__ = ("times", "values")

    ALIKE = True

    def __init__(
        self, values: Tensor, times: Sequence[str] = (), blob: str | Blob | None = None
    ) -> None:
        super().__init__(blob)
        self.values = values
        self.times = times

    def __len__(self) -> int:
        return len(self.values)

    def ahead(self, steps: int) -> list[str]:
        """Return the times that come next, where the last three are evenly apart."""
        try:
            first, before, last = map(float, self.times[-3:])
        except ValueError:
            return self._dates(steps)
        step = last - before
        if abs(before - first - step) > 1e-6 * abs(step):
            return []
        return [f"{last + step * number:.10g}" for number in range(1, steps + 1)]

    def _dates(self, steps: int) -> list[str]:
        try:
            first, before, last = map(datetime.fromisoformat, self.times[-3:])
            months = 12 * (last.year - before.year) + last.month - before.month
            same = 12 * (before.year - first.year) + before.month - first.month == months
            dates = []
            for number in range(1, steps + 1):
                if months and same and first.day == before.day == last.day:
                    month = last.month - 1 + months * number
                    dates.append(last.replace(year=last.year + month // 12, month=month % 12 + 1))
                elif last - before == before - first:
                    dates.append(last + (last - before) * number)
        except (ValueError, TypeError, OverflowError):  # no dates, or a 30th of February
            return []
        return [each.isoformat()[: len(self.times[-1])] for each in dates]


LARGEST = 3.4028234e38
"""The largest number of float32."""

Cells = list[float | None] | list[str | None]


class Table(Decoded):
    """Rows of named cells: each column is all numbers or all text, None where a cell is empty."""

    __slots__ = ("columns",)

    ALIKE = True

    def __init__(self, columns: Mapping[str, Cells], blob: str | Blob | None = None) -> None:
        super().__init__(blob)
        self.columns = columns

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(next(iter(self.columns.values())))

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Return float32 [rows, names]; raise BadInput unless these are its columns, all filled."""
        missing = [name for name in names if name not in self.columns]
        unknown = [name for name in self.columns if name not in names]
        if missing or unknown:
            said = [
                f"{what}: {', '.join(map(repr, found[:5]))}{', …' if len(found) > 5 else ''}"
                for what, found in (("missing", missing), ("unknown", unknown))
                if found
            ]
            raise BadInput(
                f"the table's columns do not fit, {'; '.join(said)}; "
                f"the {len(names)} that it must have: {', '.join(names)}"
            )
        rows, width = len(self), len(names)
        flat = array("f", bytes(4 * rows * width))
        for column, name in enumerate(names):
            for row, cell in enumerate(self.columns[name]):
                if not isinstance(cell, float) or abs(cell) > LARGEST:
                    what = "empty" if cell is None else f"{str(cell)[:40]!r}, no number of float32"
                    raise BadInput(f"row {row + 1} of column {name!r} is {what}")
                flat[row * width + column] = cell
        return Tensor(dtype="float32", shape=(rows, width), data=flat.tobytes())


class Pages(Protocol):
    """What draws the pages of a file, numbered from 1."""

    async def count(self) -> int:
        """Return how many there are."""

    async def draw(self, number: int) -> Image:
        """Return a page's picture."""


class Document(Decoded):
    """A file of any kind, as it came; what its sender calls it may be wrong.

    `head` and `tail` are its first and its last bytes: uint8, at most BLOCK each. Its pages are
    drawn when they are asked for; a picture is a page.
    """

    __slots__ = ("_cut", "_pages", "head", "size", "tail")

    BLOCK = 4096

    def __init__(
        self,
        blob: Blob,
        head: Tensor,
        tail: Tensor,
        pages: Pages | None = None,
        cut: Callable[[int, int], bytes] | None = None,
    ) -> None:
        super().__init__(blob)
        self._cut = cut
        self.size = len(blob.data)
        self.head = head
        self.tail = tail
        self._pages = pages

    def text(self) -> str:
        """Return all of it as text; raise BadInput if it is no UTF-8."""
        assert self._cut is not None
        try:
            return self._cut(0, self.size).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(
                f"the document is no UTF-8 text: {error.reason} at byte {error.start}"
            ) from None

    async def count(self) -> int:
        """Return how many pages there are; raise BadInput if it can't be opened."""
        return await self._paged().count()

    async def page(self, number: int) -> Image:
        """Return the picture of a page, the first of which is 1."""
        return await self._paged().draw(number)

    def _paged(self) -> Pages:
        if self._pages is None:
            raise BadInput(
                "the document is neither a PDF nor a picture (JPEG, PNG, WebP or GIF); "
                f"it begins with {bytes(self.head.data[:12])!r}"
            )
        return self._pages


class Audio(Decoded):
    """Decoded sound: `samples` is float32 [n], mono, 16,000 a second, from -1 to 1."""

    __slots__ = ("samples",)

    ALIKE = True
    RATE = 16_000

    def __init__(self, samples: Tensor | Resident, blob: Blob | None = None) -> None:
        super().__init__(blob)
        self.samples = samples

    @property
    def seconds(self) -> float:
        """Return how long it lasts."""
        return self.samples.shape[0] / self.RATE

    def part(self, start: float, end: float) -> Audio:
        """Return what lies between two times, in seconds; the samples are not copied."""
        first, last = (max(0, round(each * self.RATE)) for each in (start, end))
        return Audio(self.samples[first:last])


class Frame(Image):
    """A picture of a video; `at` is when it begins to be shown, in seconds from the first one."""

    __slots__ = ("at",)

    def __init__(self, pixels: Tensor | Resident, at: float) -> None:
        super().__init__(pixels)
        self.at = at


class Reel(Protocol):
    """What decodes a video that was opened; `seconds` is how long it lasts."""

    seconds: float

    def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:
        """Yield the pictures that are shown at these times, which rise, each picture once."""

    async def sound(self) -> Audio | None:
        """Return the sound, which begins with the first picture, if there is any."""


class Video(Decoded):
    """Moving pictures, and perhaps a sound: nothing is decoded before it is asked for."""

    __slots__ = ("_reel",)

    MOST = 256
    """Pictures of one pass."""

    def __init__(self, reel: Reel, blob: Blob | None = None) -> None:
        super().__init__(blob)
        self._reel = reel

    @property
    def seconds(self) -> float:
        """Return how long it lasts."""
        return self._reel.seconds

    def frames(self, most: int = 16, every: float = 0.0) -> AsyncIterator[Frame]:
        """Yield pictures, evenly apart in time, one after the other: at most so many, and MOST.

        They are not nearer than `every` seconds, and each shows the middle of its part of the
        video. Where one picture is shown for longer, there are fewer.
        """
        step = max(every, self.seconds / max(1, min(most, self.MOST)), 1e-3)
        count = max(1, ceil(self.seconds / step - 1e-6))
        ends = [min(self.seconds, step * (number + 1)) for number in range(count)]
        return self._reel.frames([(step * number + end) / 2 for number, end in enumerate(ends)])

    async def sound(self) -> Audio | None:
        """Return its sound, of which second 0 is that of the first picture; None without one."""
        return await self._reel.sound()


Given = Text | Decoded
"""What a host makes of one input."""


KINDS: dict[str, type[Given]] = {
    "text": Text,
    "image": Image,
    "audio": Audio,
    "video": Video,
    "document": Document,
    "series": Series,
    "table": Table,
}
"""The types of parameters that take what an ask carries, by the name the manifest uses."""
