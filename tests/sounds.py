"""Which sounds do tests decode? Two tones that rise, as files of every kind."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from trivium.contract import Blob

Floats = NDArray[np.float32]

FORMS: dict[str, tuple[str, str]] = {
    "audio/wav": ("wav", "pcm_s16le"),
    "audio/flac": ("flac", "flac"),
    "audio/mpeg": ("mp3", "mp3"),
    "audio/ogg": ("ogg", "libopus"),
    "audio/webm": ("webm", "libopus"),
    "audio/mp4": ("mp4", "aac"),
    "audio/aac": ("adts", "aac"),
}
"""The container and the codec for each media type."""


def tones(rate: int, seconds: float = 2.0) -> Floats:
    """Return two tones that rise, as loud as speech."""
    t = np.arange(round(rate * seconds)) / rate
    low = 0.3 * np.sin(2 * np.pi * 440 * t * (1 + t / 10))
    high = 0.15 * np.sin(2 * np.pi * 1500 * t)
    sound: Floats = (low + high).astype(np.float32)
    return sound


def saved(
    media: str, sound: Floats, rate: int, channels: int = 1, codec: str | None = None
) -> Blob:
    """Return `sound` as a file; the second channel is half as loud as the first."""
    container, usual = FORMS[media]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream: Any = file.add_stream(codec or usual, rate=rate)
        stream.layout = "stereo" if channels == 2 else "mono"
        rows = np.stack([sound / (1 + channel) for channel in range(channels)])
        frames = []
        for start in range(0, rows.shape[1], 1 << 20):
            part = np.ascontiguousarray(rows[:, start : start + (1 << 20)])
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=stream.layout.name)
            frame.rate = rate
            frames.append(frame)
        size = stream.codec_context.frame_size or 1024
        form = stream.codec_context.format or "s16"
        cut = av.AudioResampler(format=form, layout=stream.layout.name, rate=rate, frame_size=size)
        for piece in [*(each for frame in [*frames, None] for each in cut.resample(frame)), None]:
            for packet in stream.encode(piece):
                file.mux(packet)
    return Blob(media=media, data=buffer.getvalue())


def wav(data: bytes, rate: int = 16_000, stated: int | None = None, channels: int = 1) -> Blob:
    """Return 16-bit samples as a WAV file that states so many bytes of data."""
    size = len(data) if stated is None else stated
    form = struct.pack("<HHI", 1, channels, rate)
    form += struct.pack("<IHH", 2 * rate * channels, 2 * channels & 0xFFFF, 16)
    head = b"RIFF" + struct.pack("<I", min(36 + size, 0xFFFFFFFF)) + b"WAVE"
    head += b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", size)
    return Blob(media="audio/wav", data=head + data)


@cache
def bad() -> dict[str, tuple[Blob, str]]:
    """Return sounds that every tier refuses, and the code that it gives."""
    spoken = saved("audio/wav", tones(16_000), 16_000)
    return {
        "empty": (Blob(media="audio/wav", data=b""), "bad_input"),
        "stub": (Blob(media="audio/wav", data=spoken.data[:20]), "bad_input"),
        "head alone": (wav(b""), "bad_input"),
        "too short": (wav(bytes(100)), "bad_input"),
        "garbage": (Blob(media="audio/mpeg", data=bytes(range(256)) * 40), "bad_input"),
        "another type": (Blob(media="audio/midi", data=b"MThd"), "bad_input"),
        "a wav as ogg": (Blob(media="audio/ogg", data=spoken.data), "bad_input"),
        "truncated wav": (Blob(media="audio/wav", data=spoken.data[:9000]), "bad_input"),
        "ten hours stated": (wav(bytes(3200), stated=10 * 3600 * 32_000), "bad_input"),
        "ten hours": (wav(bytes(10 * 3600 * 800), rate=400), "bad_input"),
        "over an hour": (wav(bytes(4000 * 3700 * 2), rate=4000), "too_large"),
        "rate of a gigahertz": (wav(bytes(32_000), rate=1_000_000_000), "bad_input"),
        "no rate": (wav(bytes(3200), rate=0), "bad_input"),
        "no channels": (wav(bytes(3200), channels=0), "bad_input"),
        "many channels": (wav(bytes(3200), channels=65_535), "bad_input"),
        "over an hour of opus": (hours(1.1), "too_large"),
        "over an hour of opus that lies": (hours(1.1, step=1), "too_large"),
        "many bytes": (wav(bytes(32 << 20)), "too_large"),
        "truncated flac": (cut("audio/flac"), "bad_input"),
        "truncated m4a": (cut("audio/mp4"), "bad_input"),
        "truncated webm": (cut("audio/webm"), "bad_input"),
    }


def hours(count: float, step: int = 2880) -> Blob:
    """Return silence as Opus, 6 MB for ten hours; packets lie `step` samples apart, it says."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as file:
        stream: Any = file.add_stream("libopus", rate=48_000)
        stream.layout, stream.options = "mono", {"frame_duration": "60"}
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2880), np.float32), "flt", "mono")
        frame.rate, frame.pts = 48_000, 0
        data = bytes([*stream.encode(frame), *stream.encode(None)][0])
        for number in range(round(count * 60_000)):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, stream.codec_context.time_base
            packet.pts = packet.dts = step * number
            packet.duration = step
            file.mux(packet)
    return Blob(media="audio/ogg", data=buffer.getvalue())


def misstated() -> Blob:
    """Return two seconds of MP3 whose head states two years."""
    data = bytearray(saved("audio/mpeg", tones(16_000), 16_000).data)
    struct.pack_into(">I", data, max(data.find(b"Xing"), data.find(b"Info")) + 8, 0x7FFFFFFF)
    return Blob(media="audio/mpeg", data=bytes(data))


def cut(media: str) -> Blob:
    """Return the first third of a file."""
    whole = saved(media, tones(48_000, 6.0), 48_000)
    return Blob(media=media, data=whole.data[: len(whole.data) // 3])


def damaged(data: bytes, changes: Sequence[tuple[int, int]], keep: int) -> bytes:
    """Return a file with changed bytes and a part of its end cut off."""
    made = bytearray(data)
    for place, value in changes:
        made[place % len(made)] = value
    return bytes(made[: len(made) - keep % len(made) // 2])
