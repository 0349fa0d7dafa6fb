"""Are a video's frames and its sound in the page those that servers decode?"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import page.bundles as bundles
import sounds
import videos
from page.gateway import Gateway
from page.opened import Opened
from trivium.contract import Blob, Tensor, Tier, Variant
from trivium.errors import TriviumError
from trivium.hosts.server.host import ServerHost
from trivium.kinds import Video

pytestmark = pytest.mark.browser

HOST = ServerHost()


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with functions that give the very frames and samples."""
    served = Gateway(dict([bundles.seen(), bundles.same(), bundles.heard()]))
    page = headless.new_page()
    yield Opened(page, served).ready("video.seen", "image.same", "audio.heard")
    page.close()
    served.close()


def send(opened: Opened, blob: Blob, **options: float) -> Any:
    data = {"media": blob.media, "data": base64.b64encode(blob.data).decode()}
    return opened.ask("video.seen", video=data, options=options, tiers=["page"])


def numbers(tensor: Any) -> Any:
    data = np.frombuffer(base64.b64decode(tensor["data"]), tensor["dtype"])
    return data.reshape(tensor["shape"])


def here(opened: Opened, blob: Blob, most: int = 5) -> videos.Seen:
    """Return what the page decodes; what it hands on is what it has."""
    answer = send(opened, blob, most=most)
    assert "output" in answer, answer
    output = answer["output"]
    assert all(again == pixels for _, pixels, again in output["frames"])
    sound = output["sound"] and numbers(output["sound"])
    pictures = [numbers(pixels) for _, pixels, _ in output["frames"]]
    return videos.Seen(output["seconds"], [at for at, _, _ in output["frames"]], pictures, sound)


def there(blob: Blob, most: int = 5) -> videos.Seen:
    """Return what a server decodes."""

    async def look() -> videos.Seen:
        video = await HOST.decode("video", blob, Variant(tier=Tier.EDGE, model="none"))
        assert isinstance(video, Video)
        at, pictures = [], []
        async for frame in video.frames(most):
            at.append(frame.at)
            pictures.append(array(frame.pixels))
        sound = await video.sound()
        return videos.Seen(
            video.seconds, at, pictures, None if sound is None else array(sound.samples)
        )

    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, look()).result()


def array(tensor: object) -> Any:
    assert isinstance(tensor, Tensor)
    return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)


CASES = {
    "vp9": lambda: videos.film("video/webm", sound=sounds.tones(48_000, 5.0)),
    "vp8": lambda: videos.film("video/x-matroska", 3.0),
    "vp9, 4:4:4": lambda: videos.film("video/webm", 2.0, form="yuv444p"),
    "h264": lambda: videos.film("video/mp4", sound=sounds.tones(48_000, 5.0)),
    "mov": lambda: videos.film("video/quicktime", 2.0),
    "odd sides": lambda: videos.saved("video/webm", [(0.0, videos.picture(2, 643, 481))], 1.0),
    "uneven times": lambda: videos.saved(
        "video/mp4",
        [(at, videos.picture(number)) for number, at in enumerate([0.0, 0.1, 0.9, 4.0, 4.05])],
        10.0,
        options={"bf": "0"},
    ),
    "a late sound": lambda: videos.film(
        "video/webm", 4.0, sound=sounds.tones(48_000, 2.0), late=1.5
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_frames_are_the_servers(opened: Opened, case: str) -> None:
    """To the byte, at the same times, whatever the codec; the sound lies where theirs does."""
    blob = CASES[case]()
    found, wanted = here(opened, blob), there(blob)
    assert found.seconds == pytest.approx(wanted.seconds, abs=1e-3)
    assert found.at == pytest.approx(wanted.at, abs=1e-4)
    for ours, theirs in zip(found.pictures, wanted.pictures, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() == 0
    assert (found.sound is None) == (wanted.sound is None)
    if found.sound is not None and wanted.sound is not None:
        assert abs(len(found.sound) - len(wanted.sound)) < 1600
        first = [int(np.argmax(np.abs(each) > 0.05)) for each in (found.sound, wanted.sound)]
        assert abs(first[0] - first[1]) < 160


@pytest.mark.parametrize(("blob", "code"), videos.bad().values(), ids=list(videos.bad()))
def test_bad_videos(opened: Opened, blob: Blob, code: str) -> None:
    """Bad videos are refused with the code that servers give."""
    with pytest.raises(TriviumError) as refused:
        there(blob)
    assert refused.value.code == code
    assert send(opened, blob).get("code") == code


def test_what_the_page_can_not_read_is_for_servers(opened: Opened) -> None:
    """An AVI file is no fault of the caller's."""
    assert send(opened, videos.film("video/x-msvideo", rate=30))["code"] == "unsuited"
