"""How do untrusted bytes become pixels, within limits that hold before anything is decoded?"""

from __future__ import annotations

import io
import re
import struct
import warnings

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from ...contract import Blob, Tensor
from ...errors import BadInput, TooLarge
from .. import limits

IMAGES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}
MOST_BYTES = 32 << 20
MOST_PIXELS = 50_000_000
MOST_SCANS = 64
"""How often a JPEG may go over its pixels: a progressive one does so some ten times, and a hostile
one 100,000 times in 8 MB, each as slow as a picture."""

STRIP = 256

_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_SCAN, _END, _BARE = 0xDA, 0xD9, (0x01, 0xD8)

# What Pillow answers hostile bytes with.
_DAMAGE = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, EOFError, struct.error)

_TURNS = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT,
    3: Pillow.Transpose.ROTATE_180,
    4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE,
    6: Pillow.Transpose.ROTATE_270,
    7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}

# Limits are ours, and stated: Pillow's own warning would only repeat them.
Pillow.MAX_IMAGE_PIXELS = None


def pixels(blob: Blob, shrink_above: int | None = None) -> Tensor:
    """Return uint8 [height, width, 3]: RGB in sRGB, upright, alpha composed on white.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while the short side stays at or above
    `shrink_above` pixels; other pictures are averaged down by the same factor after decoding.
    """
    form = IMAGES.get(blob.media)
    if form is None:
        raise BadInput(f"media type {blob.media!r} is not one of {', '.join(IMAGES)}")
    if not blob.data:
        raise BadInput("the image is empty")
    if len(blob.data) > MOST_BYTES:
        raise TooLarge(f"the image has {len(blob.data)} bytes; at most {MOST_BYTES} are allowed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(blob.data, form, shrink_above)
    except UnidentifiedImageError as error:
        raise BadInput(f"the image is not a readable {blob.media}") from error
    except _DAMAGE as error:
        raise BadInput(f"the {blob.media} is damaged or truncated: {error}") from error


def png(pixels: Tensor) -> Blob:
    """Return a picture as a file that decodes to the same pixels."""
    height, width, _ = pixels.shape
    file = io.BytesIO()
    Pillow.frombuffer("RGB", (width, height), bytes(pixels.data), "raw", "RGB", 0, 1).save(
        file, "PNG", compress_level=1
    )
    return Blob(media="image/png", data=file.getvalue())


def _decode(data: bytes, form: str, shrink_above: int | None) -> Tensor:
    with Pillow.open(io.BytesIO(data), formats=[form]) as image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise TooLarge(
                f"the image has {width} x {height} pixels; at most {MOST_PIXELS} are allowed"
            )
        limits.sides("image", width, height)
        if form == "JPEG":
            scans(data)
        factor = shrink(min(width, height), shrink_above)
        if factor > 1:
            # Rounded down, or odd sides would make Pillow take half the factor.
            image.draft(None, (max(1, width // factor), max(1, height // factor)))
        image.load()
        drawn = _rgb(_upright(image), image.info.get("icc_profile"))
        if factor > 1 and drawn.size in ((width, height), (height, width)):
            drawn = drawn.reduce(factor)
        array = np.asarray(drawn)
    return Tensor(dtype="uint8", shape=array.shape, data=array.data)


def scans(data: bytes) -> None:
    """Raise TooLarge for a JPEG that goes over its pixels too often."""
    if data.count(b"\xff\xda") <= MOST_SCANS:
        return  # what lies in notes, or behind the picture, only looks like scans
    count, at = 0, 0
    while found := _MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END:
            return
        if marker == _SCAN and (count := count + 1) > MOST_SCANS:
            raise TooLarge(f"the JPEG has over {MOST_SCANS} scans, which is too many")
        if marker not in _BARE:
            at += int.from_bytes(data[at : at + 2], "big")


def shrink(short: int, above: int | None) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the short side at or above the bound."""
    if above is None:
        return 1
    return next((factor for factor in (8, 4, 2) if -(-short // factor) >= above), 1)


def _upright(image: Pillow.Image) -> Pillow.Image:
    try:
        turn = _TURNS.get(image.getexif().get(Base.Orientation, 1))
    except _DAMAGE:
        return image  # the notes are damaged, the pixels are not
    return image if turn is None else image.transpose(turn)


def _on_white(image: Pillow.Image) -> Pillow.Image:
    """Return a picture without alpha, made in strips: it has 200 MB, and so has each whole copy."""
    made = Pillow.new("RGB", image.size)
    for top in range(0, image.height, STRIP):
        bottom = min(image.height, top + STRIP)
        strip = image.crop((0, top, image.width, bottom)).convert("RGBA")
        white = Pillow.new("RGBA", strip.size, "white")
        made.paste(Pillow.alpha_composite(white, strip).convert("RGB"), (0, top))
    return made


def _rgb(image: Pillow.Image, profile: bytes | None) -> Pillow.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _on_white(image)
    if profile and image.mode == "RGB":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in (ImageCms.getProfileDescription(source) or ""):
                target = ImageCms.createProfile("sRGB")
                converted = ImageCms.profileToProfile(image, source, target)
                assert converted is not None
                return converted
        except (ImageCms.PyCMSError, OSError):
            return image  # a broken profile says nothing: the pixels are taken as sRGB
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit greys at 255.
        return Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
