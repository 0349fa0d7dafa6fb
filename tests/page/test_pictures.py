"""Are an image's pixels in the page the very bytes that servers decode?"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import page.bundles as bundles
from page.gateway import ROOT, Gateway
from page.opened import Opened, crossing
from samples import scanned, screenless
from trivium.contract import Blob
from trivium.errors import TriviumError
from trivium.hosts.server import media

pytestmark = pytest.mark.browser

BOUND = 448
PHOTO = bundles.FUNCTIONS / "image.classify/coffee.jpg"


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with a function that gives the very pixels."""
    served = Gateway(dict([bundles.same(BOUND)]))
    page = headless.new_page()
    yield Opened(page, served).ready("image.same")
    page.close()
    served.close()


def photo(width: int, height: int) -> Image.Image:
    """Return a real photo at a size of one's own."""
    return Image.open(PHOTO).convert("RGB").resize((width, height))


def saved(picture: Image.Image, form: str, **how: Any) -> Blob:
    """Return the picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **how)
    return Blob(media=f"image/{form.lower()}", data=buffer.getvalue())


def faded(picture: Image.Image) -> Image.Image:
    """Return the picture with an alpha that runs from 0 to 255."""
    alpha = np.linspace(0, 255, picture.width).astype(np.uint8)
    picture.putalpha(Image.fromarray(np.tile(alpha, (picture.height, 1))))
    return picture


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x112] = orientation
    return made


def send(opened: Opened, blob: Blob, name: str = "image.same") -> Any:
    return opened.ask(name, image=crossing(blob.media, blob.data), tiers=["page"])


def pixels(opened: Opened, blob: Blob) -> NDArray[np.uint8]:
    """Return what the page decodes."""
    output = send(opened, blob)["output"]
    data = base64.b64decode(output["data"])
    return np.frombuffer(data, np.uint8).reshape(output["shape"])


def same(opened: Opened, blob: Blob) -> None:
    """Assert that page and servers decode to the same bytes."""
    expected = np.asarray(media.pixels(blob, BOUND).values).reshape(media.pixels(blob, BOUND).shape)
    found = pixels(opened, blob)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() == 0


@pytest.mark.parametrize("size", [(600, 400), (1200, 900), (1201, 903), (2016, 1793), (4032, 3024)])
def test_jpeg_sizes(opened: Opened, size: tuple[int, int]) -> None:
    """JPEG is decoded at a half, a quarter or an eighth, odd sizes included."""
    same(opened, saved(photo(*size), "JPEG", quality=85))


@pytest.mark.parametrize("size", [(600, 400), (1000, 903)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(opened: Opened, orientation: int, size: tuple[int, int]) -> None:
    """Photos are upright whichever way the camera was held."""
    same(opened, saved(photo(*size), "JPEG", exif=exif(orientation)))


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(saved(photo(500, 300).convert("L"), "JPEG"), id="grey-jpeg"),
        pytest.param(saved(photo(500, 300).convert("CMYK"), "JPEG"), id="cmyk-jpeg"),
        pytest.param(saved(photo(500, 300), "JPEG", progressive=True), id="progressive-jpeg"),
        pytest.param(saved(photo(500, 300), "JPEG", subsampling=0), id="444-jpeg"),
        pytest.param(saved(photo(500, 300), "PNG"), id="png"),
        pytest.param(saved(photo(1999, 1001), "PNG"), id="large-png"),
        pytest.param(saved(photo(4001, 1999), "PNG"), id="larger-png"),
        pytest.param(saved(faded(photo(500, 300)), "PNG"), id="alpha-png"),
        pytest.param(saved(faded(photo(1001, 1003)), "PNG"), id="large-alpha-png"),
        pytest.param(saved(photo(500, 300).quantize(16), "PNG"), id="palette-png"),
        pytest.param(saved(photo(500, 300).convert("LA"), "PNG"), id="grey-alpha-png"),
        pytest.param(saved(photo(500, 300), "PNG", exif=exif(6)), id="turned-png"),
        pytest.param(saved(photo(500, 300), "WEBP", lossless=True), id="webp-lossless"),
        pytest.param(saved(photo(1001, 900), "WEBP", quality=80), id="webp"),
        pytest.param(saved(faded(photo(500, 300)), "WEBP", lossless=True), id="webp-alpha"),
        pytest.param(saved(photo(500, 300).quantize(64), "GIF"), id="gif"),
        pytest.param(
            Blob(media="image/gif", data=screenless(500, 300)), id="gif-beyond-its-screen"
        ),
        pytest.param(Blob(media="image/jpeg", data=scanned(64)), id="64-scans"),
    ],
)
def test_formats(opened: Opened, blob: Blob) -> None:
    """Each format gives the bytes that Pillow gives."""
    same(opened, blob)


@pytest.mark.parametrize(
    "blob",
    [
        pytest.param(Blob(media="image/jpeg", data=b""), id="empty"),
        pytest.param(Blob(media="image/jpeg", data=b"\xff\xd8\xff"), id="stub"),
        pytest.param(Blob(media="image/png", data=b"not an image"), id="text"),
        pytest.param(Blob(media="image/bmp", data=b"BM"), id="bmp"),
        pytest.param(Blob(media="image/png", data=PHOTO.read_bytes()), id="jpeg-as-png"),
        pytest.param(Blob(media="image/jpeg", data=PHOTO.read_bytes()[:9000]), id="truncated"),
        pytest.param(
            Blob(media="image/png", data=saved(photo(300, 200), "PNG").data[:9000]),
            id="truncated-png",
        ),
        pytest.param(saved(Image.new("L", (10_000, 5_001)), "PNG"), id="gigantic"),
        pytest.param(saved(Image.new("L", (4_001, 40)), "PNG"), id="a-line"),
        pytest.param(Blob(media="image/jpeg", data=bytes((32 << 20) + 1)), id="many-bytes"),
        pytest.param(Blob(media="image/jpeg", data=scanned(65)), id="65-scans"),
        pytest.param(Blob(media="image/gif", data=screenless(8000, 7000)), id="beyond-its-screen"),
    ],
)
def test_bad_images(opened: Opened, blob: Blob) -> None:
    """Bad images are refused with the code that servers give."""
    with pytest.raises(TriviumError) as refused:
        media.pixels(blob, BOUND)
    found = send(opened, blob)
    assert found["code"] == refused.value.code
    assert found["message"].split(":")[0] == refused.value.message.split(":")[0]


def test_heap(headless: Any) -> None:
    """A photo of 12 megapixels adds less than 64 MB to ONNX Runtime's memory, in each format."""
    folder = ROOT / "models/zoo/image.classify"
    if not (folder / "manifest.json").is_file():
        pytest.skip("image.classify is not built: scripts/install")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    served = Gateway({"image.classify": files})
    page = headless.new_page()
    opened = Opened(page, served).ready("image.classify")
    before = opened.run("return await trivium.memory()")
    large = photo(4000, 3000)
    for blob in (saved(large, "JPEG"), saved(large, "PNG"), saved(large, "WEBP", quality=90)):
        answer = send(opened, blob, "image.classify")
        assert "espresso" in {each["label"] for each in answer["output"]}
        assert opened.run("return await trivium.memory()") - before < 64 << 20
    page.close()
    served.close()
