"""How much may an input be, on every tier alike?"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Blob, Tensor
from ..errors import BadInput, TooLarge
from ..kinds import Document, Text

MOST_CHARACTERS = 1 << 20
MOST_DOCUMENT = 32 << 20
CHARACTERS_A_TOKEN = 64
"""Text above this many characters for each token allowed is refused without counting its tokens."""


SAMPLE_RATE = 16_000
"""Samples a second of audio, as functions get it."""

AUDIO_BYTES = 32 << 20
AUDIO_SECONDS = 3600
AUDIO_LEAST = 0.05
AUDIO_RATES = (4_000, 192_000)


def text(value: str | Blob) -> Text:
    """Return what a person wrote, if it is not empty and not beyond all bounds."""
    if not isinstance(value, str):
        raise BadInput(f"text is given as a string, not as {value.media}")
    if not value.strip():
        raise BadInput("the text is empty")
    if len(value) > MOST_CHARACTERS:
        raise TooLarge(
            f"the text has {len(value)} characters; at most {MOST_CHARACTERS} are allowed"
        )
    return Text(value)


def blob(kind: str, value: str | Blob) -> Blob:
    """Return what is not text, if it came with its media type."""
    if isinstance(value, str):
        article = "an" if kind[0] in "aeiou" else "a"
        raise BadInput(f"{article} {kind} is given as media and data, not as a string")
    return value


def document(blob: Blob, cut: Callable[[int, int], bytes]) -> Document:
    """Return a file within its limit; `cut` gives a range of its bytes."""
    size = len(blob.data)
    if size > MOST_DOCUMENT:
        raise TooLarge(f"the document has {size} bytes; at most {MOST_DOCUMENT} are allowed")
    part = min(size, Document.BLOCK)
    head, tail = (
        Tensor(dtype="uint8", shape=(part,), data=cut(start, start + part))
        for start in (0, size - part)
    )
    return Document(blob, head, tail)


def tokenizable(value: str, most: int | None) -> None:
    """Raise TooLarge for a text that can't have as few tokens as a variant takes."""
    if most and len(value) > most * CHARACTERS_A_TOKEN:
        raise TooLarge(f"the text has {len(value)} characters; at most {most} tokens are allowed")


def tokens(count: int, most: int | None) -> None:
    """Raise TooLarge for more tokens than a variant takes."""
    if most and count > most:
        raise TooLarge(f"the text has {count} tokens; at most {most} are allowed")
