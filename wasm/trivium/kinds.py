"""What kinds of input can a function take, and what does it see of them?

One class a kind; the hosts decode what an ask carries into it.
"""

from __future__ import annotations

from .contract import Blob, Resident, Tensor


class Text(str):
    """What a person wrote."""

    __slots__ = ()


class Decoded:
    """An input that is more than text; `blob` is what it was decoded from, where that is whole."""

    __slots__ = ("blob",)

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


Given = Text | Decoded
"""What a host makes of one input."""

KINDS: dict[str, type[Given]] = {"text": Text, "image": Image}
"""The types of parameters that take what an ask carries, by the name the manifest uses."""
