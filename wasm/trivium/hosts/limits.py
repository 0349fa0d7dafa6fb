"""How much may an input be, on every tier alike?"""

from __future__ import annotations

from collections.abc import Callable

from ..contract import Blob, Tensor
from ..errors import BadInput, TooLarge
from ..kinds import Document, Pages, Text

MOST_CHARACTERS = 1 << 20
MOST_DOCUMENT = 32 << 20
MOST_PAGE = 16_000_000
"""Pixels of a page as it is drawn: a picture after it was shrunk, a PDF's page scaled down."""

MOST_ASPECT = 100
"""How many times as long as the other a picture's side may be: models bring the short side to a
size of theirs, and what is 16,000 x 1 would become gigabytes."""

DPI = 150
PDF = "application/pdf"
_STARTS = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
}
CHARACTERS_A_TOKEN = 64
"""Text above this many characters for each token allowed is refused without counting its tokens."""


SAMPLE_RATE = 16_000
"""Samples a second of audio, as functions get it."""

AUDIO_BYTES = 32 << 20
AUDIO_SECONDS = 3600
AUDIO_LEAST = 0.05
AUDIO_RATES = (4_000, 192_000)
AUDIO_CHANNELS = 512
AUDIO_WORK = 60
"""Seconds that decoding it may take."""

MP4, MATROSKA, AVI = "mp4", "matroska", "avi"
VIDEOS = {
    "video/mp4": MP4,
    "video/x-m4v": MP4,
    "video/quicktime": MP4,
    "video/webm": MATROSKA,
    "video/x-matroska": MATROSKA,
    "video/matroska": MATROSKA,
    "video/x-msvideo": AVI,
    "video/avi": AVI,
    "video/vnd.avi": AVI,
}
"""The media types of videos, and which container each is read as."""

VIDEO_BYTES = 32 << 20
VIDEO_SECONDS = 3600
VIDEO_PIXELS = 4096 * 2304
"""Pixels of one frame."""

VIDEO_PACKETS = 500_000
"""Coded frames in all, of which few may be looked at."""

VIDEO_WORK = 60
"""Seconds in all that decoding them may take."""


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


def document(
    blob: Blob,
    cut: Callable[[int, int], bytes],
    pages: Callable[[str], Pages | None] = lambda _: None,
) -> Document:
    """Return a file within its limit.

    `cut` gives a range of its bytes, `pages` what draws it as the type that it really has.
    """
    size = len(blob.data)
    if size > MOST_DOCUMENT:
        raise TooLarge(f"the document has {size} bytes; at most {MOST_DOCUMENT} are allowed")
    part = min(size, Document.BLOCK)
    head, tail = (
        Tensor(dtype="uint8", shape=(part,), data=cut(start, start + part))
        for start in (0, size - part)
    )
    media = drawable(bytes(head.data))
    return Document(blob, head, tail, pages(media) if media else None, cut)


def drawable(head: bytes) -> str:
    """Return the media type of what can be drawn, by its first bytes; else nothing."""
    if b"%PDF-" in head[:1024]:
        return PDF
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((media for start, media in _STARTS.items() if head.startswith(start)), "")


def sides(kind: str, width: int, height: int) -> None:
    """Raise TooLarge for a picture that is a line."""
    if 0 < MOST_ASPECT * min(width, height) < max(width, height):
        raise TooLarge(
            f"the {kind} has {width} x {height} pixels; "
            f"a side is allowed to be at most {MOST_ASPECT} times as long as the other"
        )


def page(width: int, height: int) -> None:
    """Raise TooLarge for a picture that is more than a page."""
    if width * height > MOST_PAGE:
        raise TooLarge(f"the page has {width} x {height} pixels; at most {MOST_PAGE} are allowed")


def tokenizable(value: str, most: int | None) -> None:
    """Raise TooLarge for a text that can't have as few tokens as a variant takes."""
    if most and len(value) > most * CHARACTERS_A_TOKEN:
        raise TooLarge(f"the text has {len(value)} characters; at most {most} tokens are allowed")


def tokens(count: int, most: int | None) -> None:
    """Raise TooLarge for more tokens than a variant takes."""
    if most and count > most:
        raise TooLarge(f"the text has {count} tokens; at most {most} are allowed")
