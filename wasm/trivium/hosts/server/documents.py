"""How do untrusted files become pages, within limits that hold before anything is drawn?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ...contract import Blob, Tensor
from ...errors import BadInput, TooLarge
from ...kinds import Image
from .. import limits
from . import media
from .session import Lanes

HEADER = 12
ENCRYPTED, DAMAGED, MISSING = 10, 11, 12
SECONDS = 10
PROGRAM = str(Path(__file__).with_name("drawing.py"))


class Pages:
    """The pages of one file, drawn one at a time; `bound` shrinks pictures as it does elsewhere."""

    def __init__(self, blob: Blob, media_type: str, bound: int | None, lanes: Lanes) -> None:
        self._blob = Blob(media=media_type, data=blob.data)
        self._bound = bound
        self._lanes = lanes
        self._first: tuple[int, Image] | None = None

    async def count(self) -> int:
        """Return how many pages there are; a picture is one."""
        if self._blob.media != limits.PDF:
            return 1
        if self._first is None:
            self._first = await self._lanes.run(lambda: self._page(1))
        return self._first[0]

    async def draw(self, number: int) -> Image:
        """Return a page's picture."""
        if self._blob.media != limits.PDF:
            return await self._lanes.run(self._picture)
        if number == 1 and self._first is not None:
            return self._first[1]
        return (await self._lanes.run(lambda: self._page(number)))[1]

    def _picture(self) -> Image:
        pixels = media.pixels(self._blob, self._bound)
        limits.page(pixels.shape[1], pixels.shape[0])
        return Image(pixels)

    def _page(self, number: int) -> tuple[int, Image]:
        """Have a program of its own draw a page."""
        command = [sys.executable, "-I", PROGRAM]
        command += map(str, (number, limits.DPI, limits.MOST_PAGE, SECONDS))
        try:
            done = subprocess.run(  # noqa: S603 # our own program, and numbers
                command,
                input=self._blob.data,
                capture_output=True,
                timeout=2 * SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TooLarge(self._slow(number)) from None
        if done.returncode == ENCRYPTED:
            raise BadInput("the PDF is encrypted; only what opens without a password can be read")
        if done.returncode == DAMAGED:
            raise BadInput("the PDF is damaged, or none")
        if done.returncode == MISSING:
            raise BadInput(f"the PDF has no page {number}")
        if done.returncode or len(done.stdout) <= HEADER:
            raise TooLarge(self._slow(number))
        words = [int.from_bytes(done.stdout[at : at + 4], "little") for at in (0, 4, 8)]
        count, high, wide = words
        limits.sides("page", wide, high)
        data = memoryview(done.stdout)[HEADER:]
        return count, Image(Tensor(dtype="uint8", shape=(high, wide, 3), data=data))

    @staticmethod
    def _slow(number: int) -> str:
        return f"page {number} of the PDF can't be drawn within {SECONDS} s and 1 GiB of memory"
