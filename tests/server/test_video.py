"""Do untrusted bytes become frames and a sound, and bad ones a clear refusal?"""

from __future__ import annotations

import asyncio
import io
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sounds
import videos
from samples import scanned
from trivium.contract import Blob, Tensor, Tier, Variant
from trivium.errors import BadInput, TooLarge, TriviumError
from trivium.hosts.server import audio
from trivium.hosts.server import video as module
from trivium.hosts.server.audio import samples
from trivium.hosts.server.host import ServerHost
from trivium.hosts.server.media import pixels
from trivium.kinds import Audio, Video

HOST = ServerHost()


def array(tensor: object) -> videos.Picture:
    assert isinstance(tensor, Tensor)
    return np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)


async def opened(blob: Blob, bound: int | None = None) -> Video:
    settings = {} if bound is None else {"shrink_above": bound}
    variant = Variant(tier=Tier.EDGE, model="none", settings=settings)
    video = await HOST.decode("video", blob, variant)
    assert isinstance(video, Video)
    return video


def seen(blob: Blob, most: int = 5, bound: int | None = None) -> videos.Seen:
    async def look() -> videos.Seen:
        video = await opened(blob, bound)
        frames = [frame async for frame in video.frames(most)]
        sound = await video.sound()
        heard = None if sound is None else np.frombuffer(array(sound.samples), np.float32)
        pictures = [array(frame.pixels) for frame in frames]
        return videos.Seen(video.seconds, [frame.at for frame in frames], pictures, heard)

    return asyncio.run(look())


def near(found: videos.Picture, number: int, off: int = 6) -> bool:
    """Is it the picture of this number, with its lighter corner in the upper left?"""
    wanted = videos.picture(number, found.shape[1], found.shape[0]).astype(int)
    high, wide = wanted.shape[0] // 8, wanted.shape[1] // 8
    return all(
        np.abs(found[y, x].astype(int) - wanted[y, x]).max() <= off
        for y, x in ((high, wide), (high, -wide), (-high, wide), (-high, -wide))
    )


@pytest.mark.parametrize("media", videos.FORMS)
def test_formats(media: str) -> None:
    """Every container and codec shows the right picture at the right time, and is heard."""
    found = seen(videos.film(media, rate=30, sound=sounds.tones(48_000, 5.0)))
    assert found.seconds == pytest.approx(5.0, abs=0.1)
    assert found.at == pytest.approx([0.5, 1.5, 2.5, 3.5, 4.5], abs=0.05)
    assert [near(each, number) for number, each in enumerate(found.pictures)] == [True] * 5
    assert found.sound is not None
    assert len(found.sound) == pytest.approx(80_000, abs=1500)
    assert found.sound.std() == pytest.approx(sounds.tones(16_000).std(), rel=0.1)


@pytest.mark.parametrize(
    ("codec", "form"),
    [
        ("libx265", "yuv420p"),
        ("libx265", "yuv420p10le"),
        ("libvpx-vp9", "yuv444p"),
        ("libx264", "yuv422p"),
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
    ],
)
def test_forms_of_pixels(codec: str, form: str) -> None:
    """Codecs and forms of colours other than the usual are decoded, too."""
    media = "video/webm" if "vpx" in codec else "video/mp4"
    found = seen(videos.film(media, 3.0, codec=codec, form=form), 3)
    assert [near(each, number) for number, each in enumerate(found.pictures)] == [True] * 3


@pytest.mark.parametrize("media", ["video/webm", "video/mp4"])
def test_times_are_the_files_own(media: str) -> None:
    """Pictures that are shown for unlike times are right at each time, and come once each."""
    cuts = [0.0, 0.1, 0.9, 4.0, 4.05]
    shown = [(at, videos.picture(number)) for number, at in enumerate(cuts)]
    found = seen(videos.saved(media, [*shown, (9.9, videos.picture(0))], 10.0), 5)
    # At 1, 3, 5, 7 and 9 seconds.
    assert found.at == pytest.approx([0.9, 4.05], abs=0.002)
    assert [near(found.pictures[0], 2), near(found.pictures[1], 4)] == [True, True]


def test_a_late_sound_is_heard_late() -> None:
    """Picture and sound are on one timeline."""
    blob = videos.film("video/webm", 4.0, sound=sounds.tones(48_000, 2.0), late=1.5)
    sound = seen(blob).sound
    assert sound is not None
    assert len(sound) == pytest.approx(56_000, abs=500)
    assert np.abs(sound[:23_500]).max() < 1e-3
    assert sound[24_500:].std() > 0.1
    # The same file, given to a function that takes a sound.
    assert np.array_equal(array(samples(blob)), sound)


def test_without_a_sound() -> None:
    assert seen(videos.film("video/mp4")).sound is None


def test_one_picture() -> None:
    found = seen(videos.saved("video/webm", [(0.0, videos.picture(3))], 1.0))
    assert found.at == [0.0]
    assert near(found.pictures[0], 3)


def test_large_frames_are_shrunk_as_pictures_are() -> None:
    """By 2, 4 or 8, with odd sides too; brightness and colours stay."""
    shown = [(0.0, videos.picture(2, 642, 482))]
    for bound, size in ((None, (482, 642, 3)), (120, (121, 161, 3)), (241, (241, 321, 3))):
        found = seen(videos.saved("video/mp4", shown, 1.0), 1, bound).pictures[0]
        assert found.shape == size
        assert near(found, 2)


def test_a_turned_video_is_upright() -> None:
    """As a telephone held upright writes it: lying, with a note that it is to be turned."""
    lying = np.ascontiguousarray(np.rot90(videos.picture(1, 96, 160)))
    data = bytearray(videos.saved("video/mp4", [(0.0, lying)], 1.0).data)
    track = data.index(b"tkhd") + 4
    matrix = [0, 1 << 16, 0, 0xFFFF0000, 0, 0, 0, 0, 1 << 30]
    data[track + 40 : track + 76] = b"".join(each.to_bytes(4, "big") for each in matrix)
    found = seen(Blob(media="video/mp4", data=bytes(data))).pictures[0]
    assert found.shape == (160, 96, 3)
    assert near(found, 1)


def test_frames_are_decoded_as_they_are_taken() -> None:
    """Who stops taking them stops the work, and two passes do not disturb each other."""

    async def look() -> tuple[float, float]:
        video = await opened(videos.film("video/webm", 20.0))
        first, second = video.frames(10), video.frames(5)
        one, other = await anext(first), await anext(second)
        await first.aclose()  # type: ignore[attr-defined]
        assert (await anext(second)).at > other.at
        return one.at, other.at

    assert asyncio.run(look()) == pytest.approx((1.0, 2.0), abs=0.11)


def test_work_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes too long is too large."""
    monkeypatch.setattr(module, "VIDEO_WORK", 0.0)
    with pytest.raises(TooLarge, match="take more than 0.0 s to decode: ask for fewer"):
        seen(videos.film("video/mp4"))


def test_packets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VIDEO_PACKETS", 20)
    with pytest.raises(TooLarge, match="over 20 packets"):
        seen(videos.film("video/mp4"))


@pytest.mark.parametrize(("blob", "code"), videos.bad().values(), ids=list(videos.bad()))
def test_bad_videos(blob: Blob, code: str) -> None:
    """What is damaged, lies or is too long or large is refused at once, and says why."""
    begun = time.monotonic()
    with pytest.raises(TriviumError) as refused:
        seen(blob)
    assert refused.value.code == code
    assert time.monotonic() - begun < 5


def test_a_motion_jpegs_frames_are_no_bombs() -> None:
    """Each is a JPEG, which may go over its pixels too often."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi") as file:
        stream: Any = file.add_stream("mjpeg", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p"
        packet = av.Packet(scanned(65))
        packet.stream, packet.pts, packet.dts, packet.time_base = stream, 0, 0, Fraction(1, 10)
        file.mux(packet)
    with pytest.raises(TooLarge, match="over 64 scans"):
        seen(Blob(media="video/avi", data=buffer.getvalue()))


def test_what_is_stated_takes_little_memory() -> None:
    """Two million packets in a hundred fragments were three gigabytes: FFmpeg holds to a limit."""
    with pytest.raises(TooLarge, match=f"than the {audio.MOST_ALLOCATED} bytes allowed"):
        seen(Blob(media="video/mp4", data=videos.stating(100_000_000)))
    with pytest.raises(TooLarge, match=f"than the {audio.MOST_ALLOCATED} bytes allowed"):
        samples(Blob(media="audio/mp4", data=videos.stating(100_000_000)))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(videos.FORMS)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=12),
    st.integers(0, 1 << 16),
)
def test_damage_is_refused_or_survived(
    media: str, changes: list[tuple[int, int]], keep: int
) -> None:
    """Changed bytes and cut-off ends give frames, or a refusal."""
    blob = Blob(media=media, data=sounds.damaged(WHOLE[media].data, changes, keep))
    try:
        found = seen(blob, 4)
    except (BadInput, TooLarge):
        return
    assert all(picture.ndim == 3 for picture in found.pictures)


WHOLE = {
    media: videos.film(media, 1.0, 30, sound=sounds.tones(48_000, 1.0)) for media in videos.FORMS
}


def test_what_goes_to_another_tier() -> None:
    """A frame becomes a picture of the same pixels, a sound one of the same samples."""

    async def sent() -> None:
        video = await opened(videos.film("video/mp4", sound=sounds.tones(48_000, 5.0)))
        async for frame in video.frames(1):
            blob = await HOST.encode(frame)
            assert np.array_equal(array(pixels(blob)), array(frame.pixels))
        sound = await video.sound()
        assert sound is not None
        assert sound.blob is video.blob
        part = sound.part(1.0, 2.0)
        again = samples(await HOST.encode(part))
        assert np.array_equal(array(again), array(part.samples))

    asyncio.run(sent())


def test_a_sound_of_a_video_that_has_none() -> None:
    with pytest.raises(BadInput, match="has no audio track"):
        samples(videos.film("video/mp4"))
    assert isinstance(asyncio.run(whole()), Audio)


async def whole() -> object:
    blob = videos.film("video/mp4", sound=sounds.tones(48_000, 5.0))
    return await HOST.decode("audio", blob, Variant(tier=Tier.EDGE, model="none"))
