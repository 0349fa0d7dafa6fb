"""Which videos do tests decode? Plain colours that change, as files of every kind."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

import sounds
from trivium.contract import Blob

Picture = NDArray[np.uint8]


class Seen(NamedTuple):
    """What is in a video: each frame's time and pixels, and its sound."""

    seconds: float
    at: list[float]
    pictures: list[Picture]
    sound: sounds.Floats | None


FORMS: dict[str, tuple[str, str, str]] = {
    "video/webm": ("webm", "libvpx-vp9", "libopus"),
    "video/mp4": ("mp4", "libx264", "aac"),
    "video/x-matroska": ("matroska", "libvpx", "libopus"),
    "video/quicktime": ("mov", "libx264", "aac"),
    "video/x-msvideo": ("avi", "mpeg4", "mp3"),
}
"""The container and the codecs for each media type."""

COLOURS = [(200, 30, 30), (30, 180, 40), (40, 50, 210), (220, 200, 60), (60, 200, 210)]


def picture(number: int, width: int = 160, height: int = 120) -> Picture:
    """Return a colour with a lighter square in its upper left, which tells what is up."""
    drawn = np.empty((height, width, 3), np.uint8)
    drawn[:] = COLOURS[number % len(COLOURS)]
    drawn[: height // 4, : width // 4] = np.minimum(drawn[0, 0].astype(int) + 45, 255)
    return drawn


def saved(
    media: str,
    shown: Sequence[tuple[float, Picture]],
    seconds: float,
    sound: sounds.Floats | None = None,
    *,
    codec: str | None = None,
    late: float = 0.0,
    options: dict[str, str] | None = None,
    form: str = "yuv420p",
) -> Blob:
    """Return pictures, each from its time on, and a sound of 48 kHz that begins `late`."""
    container, usual, voice = FORMS[media]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream: Any = file.add_stream(codec or usual, rate=30, options=options or {})
        stream.height, stream.width, _ = shown[0][1].shape
        stream.pix_fmt = form
        stream.bit_rate = 400_000
        stream.codec_context.time_base = Fraction(1, 1000 if media != "video/x-msvideo" else 30)
        other: Any = None
        if sound is not None:
            other = file.add_stream(voice, rate=48_000)
            other.layout = "mono"
        packets = []
        ends = [at for at, _ in shown[1:]] + [seconds]
        base = stream.codec_context.time_base
        for (at, drawn), end in zip(shown, ends, strict=True):
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(format=form)
            frame.pts = round(at / base)
            frame.duration = round((end - at) / base)
            frame.time_base = base
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if sound is not None:
            packets += _spoken(other, sound, late)
        for packet in packets:
            file.mux(packet)
    return Blob(media=media, data=buffer.getvalue())


def _spoken(stream: Any, sound: sounds.Floats, late: float) -> list[Any]:
    frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
    frame.rate = 48_000
    size = stream.codec_context.frame_size or 960
    form = stream.codec_context.format or "s16"
    cut = av.AudioResampler(format=form, layout="mono", rate=48_000, frame_size=size)
    packets, at = [], round(late * 48_000)
    for piece in [*cut.resample(frame), *cut.resample(None)]:
        piece.pts, at = at, at + piece.samples
        packets += stream.encode(piece)
    return [*packets, *stream.encode(None)]


def film(media: str, seconds: float = 5.0, rate: int = 10, **more: Any) -> Blob:
    """Return a video whose picture changes each second."""
    count = round(seconds * rate)
    shown = [(number / rate, picture(number // rate)) for number in range(count)]
    return saved(media, shown, seconds, **more)


@cache
def bad() -> dict[str, tuple[Blob, str]]:
    """Return videos that every tier refuses, and the code that it gives."""
    webm, mp4 = film("video/webm"), film("video/mp4")
    one = [(0.0, picture(0))]
    grain = np.random.default_rng(0).integers(0, 255, (8, 120, 160, 3), np.uint8)
    long = saved("video/webm", [(at / 4, grain[at % 8]) for at in range(80)], 20.0)
    return {
        "empty": (Blob(media="video/mp4", data=b""), "bad_input"),
        "stub": (Blob(media="video/webm", data=webm.data[:30]), "bad_input"),
        "garbage": (Blob(media="video/webm", data=bytes(range(256)) * 40), "bad_input"),
        "another type": (Blob(media="video/x-flv", data=b"FLV\1"), "bad_input"),
        "a webm as mp4": (Blob(media="video/mp4", data=webm.data), "bad_input"),
        "an mp4 as webm": (Blob(media="video/webm", data=mp4.data), "bad_input"),
        "a playlist": (Blob(media="video/mp4", data=b"#EXTM3U\n#EXTINF:1,\nx.ts\n"), "bad_input"),
        "a sound": (Blob(media="video/webm", data=_sound()), "bad_input"),
        "many bytes": (Blob(media="video/mp4", data=mp4.data + bytes(32 << 20)), "too_large"),
        "ten hours": (saved("video/webm", [*one, (35_999.0, picture(1))], 36_000.0), "too_large"),
        "ten hours of mp4": (
            saved("video/mp4", [*one, (35_999.0, picture(1))], 36_000.0),
            "too_large",
        ),
        "huge frames": (huge(), "too_large"),
        "frames that lie": (lying(), "bad_input"),
        "packets of no bytes": (Blob(media="video/mp4", data=stating(100_000_000)), "too_large"),
        "truncated mp4": (
            Blob(media="video/mp4", data=mp4.data[: len(mp4.data) // 2]),
            "bad_input",
        ),
        "truncated webm": (
            Blob(media="video/webm", data=long.data[: len(long.data) // 3]),
            "bad_input",
        ),
    }


def _sound() -> bytes:
    return sounds.saved("audio/webm", sounds.tones(48_000), 48_000).data


def huge() -> Blob:
    """Return a video whose frames are a little larger than is allowed."""
    drawn = np.zeros((2200, 4400, 3), np.uint8)
    return saved("video/mp4", [(0.0, drawn)], 1.0, options={"preset": "ultrafast"})


def lying() -> Blob:
    """Return a small video whose frames state that they are 16,383 pixels wide and high."""
    data = bytearray(film("video/webm", 2.0, codec="libvpx").data)
    place = -1
    while (place := data.find(b"\x9d\x01\x2a", place + 1)) >= 0:
        data[place + 3 : place + 7] = b"\xff\x3f\xff\x3f"
    return Blob(media="video/webm", data=bytes(data))


def stating(packets: int) -> bytes:
    """Return an MP4 in fragments, the first of which states so many packets of no bytes."""
    buffer = io.BytesIO()
    movflags = {"movflags": "frag_keyframe+empty_moov"}
    whole = io.BytesIO(film("video/mp4", 2.0).data)
    with (
        av.open(whole, "r") as old,
        av.open(buffer, "w", format="mp4", options=movflags) as file,
    ):
        stream = file.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    data = bytearray(buffer.getvalue())
    struct.pack_into(">II", data, data.index(b"trun") + 4, 0, packets)
    return bytes(data)
