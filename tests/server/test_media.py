"""Pictures of every kind, and bytes that are none."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from samples import claims, scanned, screenless
from trivium.contract import Blob, Tensor
from trivium.errors import BadInput, TooLarge
from trivium.hosts.server.media import IMAGES, MOST_BYTES, pixels

Pixels = NDArray[np.uint8]

MEDIA = {form: media for media, form in IMAGES.items()}
RED, WHITE = (255, 0, 0), (255, 255, 255)


def saved(image: Image.Image, form: str, **options: Any) -> Blob:
    """Return an image as a caller would send it."""
    file = io.BytesIO()
    image.save(file, form, **options)
    return Blob(media=MEDIA[form], data=file.getvalue())


def array(tensor: Tensor) -> Pixels:
    """Return a tensor's pixels for comparing."""
    assert tensor.dtype == "uint8"
    return np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)


def decoded(image: Image.Image, form: str = "PNG", **options: Any) -> Pixels:
    """Return what is left of an image after it was saved and decoded."""
    return array(pixels(saved(image, form, **options)))


def picture(width: int, height: int, seed: int = 1) -> Image.Image:
    """Return smooth colours, as photos have."""
    dice = np.random.default_rng(seed)
    small = Image.fromarray(dice.integers(0, 255, (5, 7, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_ends_upright(orientation: int) -> None:
    """A camera held in any way gives the same picture."""
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, :, 0] = 255
    upright[:, 0, 1] = 255
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(Image.fromarray(np.ascontiguousarray(turned)), exif=exif)
    assert np.array_equal(found, upright)


@pytest.mark.parametrize(
    ("mode", "clear", "opaque"),
    [("RGBA", (0, 0, 0, 0), (*RED, 255)), ("LA", (0, 0), (80, 255))],
)
def test_alpha_is_composed_on_white(mode: str, clear: Any, opaque: Any) -> None:
    """What is clear is white, and not the black that lies below it."""
    image = Image.new(mode, (2, 1), clear)
    image.putpixel((1, 0), opaque)
    left, right = decoded(image)[0].tolist()
    assert tuple(left) == WHITE
    assert tuple(right) == (RED if mode == "RGBA" else (80, 80, 80))


def test_alpha_is_composed_all_the_way_down() -> None:
    """In strips, of which the last is a part of one."""
    image = picture(7, 600)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    assert np.array_equal(decoded(image), expected)


def test_half_clear_is_mixed_with_white() -> None:
    """Alpha is a share, not a switch."""
    assert decoded(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).tolist() == [[[255, 127, 127]]]


def test_a_palettes_clear_colour_is_white() -> None:
    """Palettes with tRNS hide one of their colours."""
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((1, 0), 1)
    assert decoded(image, transparency=0).tolist() == [[list(WHITE), list(RED)]]
    assert decoded(image).tolist() == [[[0, 0, 255], list(RED)]]


@pytest.mark.parametrize(
    ("mode", "value", "grey"), [("I;16", 0x8012, 0x80), ("1", 1, 255), ("L", 7, 7)]
)
def test_greys_of_any_depth_are_spread_over_three_channels(
    mode: str, value: int, grey: int
) -> None:
    """Sixteen bits lose their lower eight, and are not clipped."""
    assert decoded(Image.new(mode, (1, 1), value)).tolist() == [[[grey] * 3]]


def test_an_inkjets_jpeg_becomes_rgb() -> None:
    """CMYK is converted, with Adobe's inverted inks understood."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decoded(image, "JPEG", quality=95)[8, 8].tolist()
    assert red > 200
    assert max(green, blue) < 60


def test_a_colour_profile_is_applied() -> None:
    """Wide colours become those of sRGB; sRGB's own and a broken profile change nothing."""
    image = Image.new("RGB", (4, 4), (200, 100, 50))
    plain = decoded(image)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decoded(image, icc_profile=srgb), plain)
    assert np.array_equal(decoded(image, icc_profile=b"not a profile"), plain)
    warm = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    assert decoded(image, icc_profile=warm).shape == plain.shape


def test_a_gif_gives_its_first_frame() -> None:
    """Later frames are left alone."""
    frames = [Image.new("P", (3, 2)) for _ in range(2)]
    for frame, colour in zip(frames, (RED, WHITE), strict=True):
        frame.putpalette([*colour])
    found = decoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert found.tolist() == [[list(RED)] * 3] * 2


@pytest.mark.parametrize(
    ("size", "above", "factor"),
    [
        ((640, 480), None, 1),
        ((640, 480), 481, 1),
        ((640, 480), 480, 1),
        ((640, 480), 240, 2),
        ((640, 480), 121, 2),
        ((640, 480), 120, 4),
        ((640, 480), 60, 8),
        ((640, 480), 1, 8),
        ((641, 481), 241, 2),
        ((641, 481), 242, 1),
        ((643, 485), 61, 8),
        ((333, 999), 42, 8),
        ((17, 999), 3, 8),
        ((15, 9), 2, 8),
    ],
)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_shrink_while_the_short_side_stays_above_the_bound(
    form: str, size: tuple[int, int], above: int | None, factor: int
) -> None:
    """Sides become ceil(side / factor), by the JPEG decoder itself where it is one."""
    width, height = size
    blob = saved(picture(width, height), form)
    found = array(pixels(blob, above))
    assert found.shape == (-(-height // factor), -(-width // factor), 3)
    if above is not None:
        assert min(found.shape[:2]) >= min(above, width, height)
    full = Image.fromarray(array(pixels(blob)))
    off = np.abs(found.astype(int) - np.asarray(full.reduce(factor)).astype(int))
    assert off.mean() < (3 if min(size) > 100 else 10)


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (71, 63), (321, 243)])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_jpeg_is_shrunk_by_its_decoder(size: tuple[int, int], factor: int) -> None:
    """The same bytes as libjpeg's own scaling gives, odd sides included."""
    width, height = size
    blob = saved(picture(*size), "JPEG", quality=90)
    with Image.open(io.BytesIO(blob.data)) as image:
        image.draft(None, (width // factor, height // factor))
        expected = np.asarray(image)
    bound = -(-min(size) // factor)
    assert expected.shape == (-(-height // factor), -(-width // factor), 3)
    assert np.array_equal(array(pixels(blob, bound)), expected)


def test_a_turned_jpeg_shrinks_too() -> None:
    """Orientation comes after shrinking, and swaps the sides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pixels(saved(picture(401, 301), "JPEG", exif=exif), 100).shape == (201, 151, 3)


@pytest.mark.parametrize("media", IMAGES)
def test_a_bomb_is_refused_before_it_is_decoded(media: str) -> None:
    """Sixty bytes may claim ten gigabytes: the header alone is read."""
    if media == "image/png":
        data = claims(60000, 60000)
    elif media == "image/gif":
        data = b"GIF89a\x60\xea\x60\xea\x00\x00\x00,\x00\x00\x00\x00\x60\xea\x60\xea\x00\x08"
    elif media == "image/jpeg":
        small = saved(picture(8, 8), "JPEG").data
        at = small.index(b"\xff\xc0") + 5
        data = small[:at] + b"\xea\x60\xea\x60" + small[at + 4 :]
    else:
        data = (
            b"RIFF\x1e\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x5f\xea\x00\x5f\xea\x00"
        )
        data += b"VP8 \x00\x00\x00\x00"
    with pytest.raises((TooLarge, BadInput)) as caught:
        pixels(Blob(media=media, data=data))
    if media != "image/webp":  # its library wants to see a frame before it says the size
        assert caught.value.message == (
            "the image has 60000 x 60000 pixels; at most 50000000 are allowed"
        )


def test_a_jpeg_is_gone_over_64_times_at_most() -> None:
    """100,000 times in 8 MB would take an hour; what only looks so, in its notes, is no scan."""
    assert pixels(Blob(media="image/jpeg", data=scanned(64))).shape == (64, 64, 3)
    for count in (65, 100_000):
        with pytest.raises(TooLarge, match="the JPEG has over 64 scans, which is too many"):
            pixels(Blob(media="image/jpeg", data=scanned(count)))
    behind = saved(picture(64, 64), "JPEG").data + b"\xff\xda" * 1000
    assert pixels(Blob(media="image/jpeg", data=behind)).shape == (64, 64, 3)


def test_a_gif_is_as_large_as_its_first_frame() -> None:
    """Whatever its screen is said to be."""
    assert pixels(Blob(media="image/gif", data=screenless(30, 20))).shape == (20, 30, 3)
    with pytest.raises(TooLarge, match="the image has 8000 x 7000 pixels; at most 50000000"):
        pixels(Blob(media="image/gif", data=screenless(8000, 7000)))


@pytest.mark.parametrize("size", [(16_000, 1), (1, 16_000), (101, 1), (40, 4_001)])
def test_a_line_is_no_picture(size: tuple[int, int]) -> None:
    """Brought to a short side of 256, the first would have four million columns."""
    file = io.BytesIO()
    Image.new("L", size).save(file, "PNG")
    said = f"the image has {size[0]} x {size[1]} pixels; a side is allowed to be at most 100 times"
    with pytest.raises(TooLarge, match=said):
        pixels(Blob(media="image/png", data=file.getvalue()))


@pytest.mark.parametrize("size", [(100, 1), (40, 4_000), (1, 1)])
def test_a_strip_is_one(size: tuple[int, int]) -> None:
    """Long receipts and panoramas are taken."""
    file = io.BytesIO()
    Image.new("L", size).save(file, "PNG")
    assert pixels(Blob(media="image/png", data=file.getvalue())).shape == (*size[::-1], 3)


def test_too_many_bytes_are_refused_unread() -> None:
    """The limit is named."""
    with pytest.raises(TooLarge, match=f"{MOST_BYTES + 1} bytes; at most {MOST_BYTES} are allowed"):
        pixels(Blob(media="image/png", data=bytes(MOST_BYTES + 1)))


@pytest.mark.parametrize("media", ["image/tiff", "image/svg+xml", "text/plain", "", "PNG"])
def test_an_unknown_type_lists_the_known(media: str) -> None:
    """The media type decides, not the bytes."""
    with pytest.raises(BadInput, match=f"is not one of {', '.join(IMAGES)}"):
        pixels(Blob(media=media, data=saved(picture(2, 2), "PNG").data))


def test_bytes_of_another_type_are_refused() -> None:
    """A PNG that says it is a JPEG is not opened as a PNG."""
    with pytest.raises(BadInput, match="not a readable image/jpeg"):
        pixels(Blob(media="image/jpeg", data=saved(picture(2, 2), "PNG").data))
    with pytest.raises(BadInput, match="the image is empty"):
        pixels(Blob(media="image/jpeg", data=b""))


def test_damaged_notes_do_not_spoil_a_picture() -> None:
    """EXIF that can't be read says nothing about the orientation."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    image = picture(40, 30)
    blob = saved(image, "JPEG", exif=exif)
    at = blob.data.index(b"MM\0*" if b"MM\0*" in blob.data else b"II*\0")
    for offset in range(40):
        data = bytearray(blob.data)
        data[at + offset] = 0xFF
        found = pixels(Blob(media=blob.media, data=bytes(data)))
        assert sorted(found.shape) == [3, 30, 40]


SAMPLES = {form: saved(picture(40, 30), form) for form in MEDIA}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_picture_is_bad_input(form: str) -> None:
    """At whatever byte the upload ended."""
    blob = SAMPLES[form]
    for length in range(1, len(blob.data) - 12, max(1, len(blob.data) // 60)):
        cut = Blob(media=blob.media, data=blob.data[:length])
        with pytest.raises(BadInput, match=r"damaged or truncated|not a readable"):
            pixels(cut)


def tamed(blob: Blob) -> None:
    """Decode what may be anything; only refusals that the caller understands may come of it."""
    for above in (None, 4):
        try:
            found = pixels(blob, above)
        except (BadInput, TooLarge):
            continue
        assert found.shape[2] == 3


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    media=st.sampled_from(list(IMAGES)),
    head=st.sampled_from([b"", *(blob.data[:30] for blob in SAMPLES.values())]),
    rest=st.binary(max_size=300),
)
def test_random_bytes_are_refused(media: str, head: bytes, rest: bytes) -> None:
    """With and without a believable beginning."""
    tamed(Blob(media=media, data=head + rest))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_damaged_pictures_are_decoded_or_refused(form: str) -> None:
    """Some bytes of a real file are others, anywhere in it."""
    dice = random.Random(form)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if form == "GIF" else {"exif": exif}
    blob = saved(picture(40, 30), form, **options)
    for _ in range(150):
        data = bytearray(blob.data)
        for _ in range(dice.randint(1, 6)):
            data[dice.randrange(min(len(data), dice.choice((60, 200, 5000))))] = dice.randrange(256)
        tamed(Blob(media=blob.media, data=bytes(data)))
