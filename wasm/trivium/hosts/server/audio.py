"""How do untrusted bytes become 16 kHz mono samples, within limits that hold while decoding?"""

from __future__ import annotations

import ctypes
import io
import struct
import time
from collections.abc import Iterator
from typing import Any

import av
import av._core
import numpy as np
from av.codec import codecs_available
from av.error import FFmpegError
from av.stream import Disposition
from numpy.typing import NDArray

from ...contract import Blob, Tensor
from ...errors import BadInput, TooLarge
from ..limits import (
    AUDIO_BYTES,
    AUDIO_CHANNELS,
    AUDIO_LEAST,
    AUDIO_RATES,
    AUDIO_SECONDS,
    AUDIO_WORK,
    MP4,
    SAMPLE_RATE,
    VIDEOS,
)

WAVE = "wav"
SOUNDS = {
    "audio/wav": WAVE,
    "audio/x-wav": WAVE,
    "audio/wave": WAVE,
    "audio/vnd.wave": WAVE,
    "audio/mpeg": "mp3",
    "audio/mp3": "mp3",
    "audio/flac": "flac",
    "audio/x-flac": "flac",
    "audio/ogg": "ogg",
    "audio/opus": "ogg",
    "audio/mp4": MP4,
    "audio/m4a": MP4,
    "audio/x-m4a": MP4,
    "audio/aac": "aac",
    "audio/webm": "matroska",
    **VIDEOS,  # of which the sound is taken
}
"""The media types that are taken, and which container each is read as."""

STATES_LENGTH = ("flac", "mp4", "matroska")
"""Containers whose head says how long they are: what ends much earlier was cut off."""

ESTIMATED = ("mp3", "aac")
"""Containers whose length FFmpeg guesses from a head or a few frames: what is decoded counts."""

CODECS = ("aac", "alac", "flac", "mp3", "mp3float", "opus", "vorbis")
"""Codecs that are decoded, beside uncompressed samples (`pcm_…`)."""

GAP = 0.05
"""Seconds that a sound's times may be off before they are followed."""

PCM = tuple(each for each in codecs_available if each.startswith("pcm_"))
Floats = NDArray[np.float32]

MOST_ALLOCATED = 48 << 20
"""Bytes that FFmpeg may take at once: a frame of the largest size, or notes of two million packets.
20 kB of MP4 can state a hundred million, which were three gigabytes."""

LIMITS = {
    # What bytes name elsewhere is never opened.
    "protocol_whitelist": "none",
    "max_streams": "16",
}

# FFmpeg's own limit, of all that it does in this process; PyAV has no name for it.
_allow = ctypes.CDLL(av._core.__file__).av_max_alloc
_allow.argtypes, _allow.restype = (ctypes.c_size_t,), None
_allow(MOST_ALLOCATED)

_SCALES = {"u1": (128.0, 128.0), "i2": (0.0, 2.0**15), "i4": (0.0, 2.0**31)}


def samples(blob: Blob) -> Tensor:
    """Return float32 [n]: the mean of all channels at 16 kHz, from -1 to 1.

    Channels become one first; then FFmpeg's resampler works, a sinc of 32 zero crossings under a
    Kaiser window (beta 9), cut off at 0.97 of the lower rate.
    """
    form = SOUNDS.get(blob.media)
    if form is None:
        raise BadInput(f"media type {blob.media!r} is not one of {', '.join(SOUNDS)}")
    if not blob.data:
        raise BadInput("the audio is empty")
    if len(blob.data) > AUDIO_BYTES:
        raise TooLarge(f"the audio has {len(blob.data)} bytes; at most {AUDIO_BYTES} are allowed")
    if form == WAVE:
        _whole(blob.data)
    try:
        with av.open(io.BytesIO(blob.data), format=form, options=LIMITS) as container:
            shown = film(container) if blob.media in VIDEOS else None
            if shown is None:
                data = decoded(container, form)
            else:
                data = decoded(container, "", float((shown.start_time or 0) * shown.time_base))
    except MemoryError as error:
        raise TooLarge(vast(blob.media)) from error
    except FFmpegError as error:
        raise BadInput(f"the {blob.media} is damaged or not readable: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        raise BadInput(f"the {blob.media} is damaged: {error}") from error
    if len(data) < 4 * SAMPLE_RATE * AUDIO_LEAST:
        seconds = len(data) / 4 / SAMPLE_RATE
        raise BadInput(f"the audio lasts {seconds:g} seconds; at least {AUDIO_LEAST} are needed")
    return Tensor(dtype="float32", shape=(len(data) // 4,), data=memoryview(data))


def _whole(data: bytes) -> None:
    """Raise BadInput for a WAV file whose head is wrong, or that ends before the data it states."""
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == b"fmt " and at + 8 + size <= len(data) and size >= 16:
            channels, rate = struct.unpack_from("<HI", data, at + 10)
            if not 1 <= channels <= AUDIO_CHANNELS:
                raise BadInput(
                    f"the audio has {channels} channels; 1 to {AUDIO_CHANNELS} are allowed"
                )
            _allowed(rate)
        if name == b"data":
            # Who writes to a pipe knows no size, and states none or the largest.
            if size < 0xFFFF0000 and at + 8 + size > len(data):
                there = len(data) - at - 8
                raise BadInput(f"the audio ends after {there} of the {size} bytes it states")
            return
        at += 8 + size + size % 2


def vast(media: str) -> str:
    """Return what is wrong with a file whose head states far more than it has."""
    return (
        f"the {media} needs more memory at once to be read than the {MOST_ALLOCATED} bytes allowed"
    )


def film(container: Any) -> Any:
    """Return the first stream of moving pictures, or None."""
    moving = (e for e in container.streams.video if not e.disposition & Disposition.attached_pic)
    return next(moving, None)


def wav(samples: Tensor) -> Blob:
    """Return a sound as a file that decodes to the same samples."""
    data = bytes(samples.data)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return Blob(media="audio/wav", data=struct.pack("<4sI", b"RIFF", len(body)) + body)


def decoded(container: Any, form: str, begin: float | None = None) -> bytearray:
    """Return float32 at 16 kHz of an opened file; sample 0 is at `begin` seconds, where given.

    Then nothing is shifted where the file's times leave out something: there is silence.
    """
    stream = next(iter(container.streams.audio), None)
    if stream is None:
        raise BadInput("the file has no audio track")
    if stream.codec_context is None:
        raise BadInput("the audio's codec is unknown")
    codec, rate = stream.codec_context.name, stream.codec_context.sample_rate
    if codec not in CODECS and not codec.startswith("pcm_"):
        raise BadInput(f"the codec {codec!r} is not one of {', '.join(CODECS)}, pcm")
    _allowed(rate)
    stated = 0.0 if form in ESTIMATED else (container.duration or 0) / 1e6
    if stated > AUDIO_SECONDS:
        raise TooLarge(_long(f"{stated:.0f}"))
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    data, most = bytearray(), AUDIO_SECONDS * rate
    count = 0
    until = time.thread_time() + AUDIO_WORK
    for mono in _frames(container, stream, rate, begin):
        count += len(mono)
        if count > most:
            raise TooLarge(_long(f"more than {AUDIO_SECONDS}"))
        if time.thread_time() > until:
            raise TooLarge(f"the audio takes more than {AUDIO_WORK} s to decode: make it shorter")
        frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
        frame.rate = rate
        for done in resampler.resample(frame):
            data += done.to_ndarray().tobytes()
    if form in STATES_LENGTH and count < rate * (0.9 * stated - 0.5):
        raise BadInput(
            f"the audio ends after {count / rate:.1f} of the {stated:.1f} seconds its head states"
        )
    if count:
        for done in resampler.resample(None):
            data += done.to_ndarray().tobytes()
    return data


def _frames(container: Any, stream: Any, rate: int, begin: float | None) -> Iterator[Floats]:
    """Yield the mean of all channels, a frame at a time; a few damaged frames are left out."""
    whole = damaged = count = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            damaged += 1
            if damaged > 3 + whole // 20:
                raise
            continue
        for frame in frames:
            if frame.sample_rate != rate:
                raise BadInput(f"the audio changes from {rate} to {frame.sample_rate} Hz midway")
            whole += 1
            mono = _mono(frame)
            if begin is not None and frame.time is not None:
                late = round((frame.time - begin) * rate) - count
                if late > GAP * rate or not count:
                    for left in range(late, 0, -rate):
                        count += min(left, rate)
                        yield np.zeros(min(left, rate), np.float32)
                    # What came before the beginning is not heard.
                    mono = mono[max(0, -late) :]
            count += len(mono)
            yield mono


def _mono(frame: Any) -> Floats:
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if values.dtype.kind != "f":
        zero, scale = _SCALES[values.dtype.str[1:]]
        values = (values.astype(np.float64) - zero) / scale
    mono: Floats = values.mean(0).astype(np.float32)
    # Broken floats would spread through every sample around them.
    return mono if np.isfinite(mono).all() else np.nan_to_num(mono, posinf=0.0, neginf=0.0)


def _allowed(rate: int) -> None:
    least, most = AUDIO_RATES
    if not least <= rate <= most:
        raise BadInput(f"the audio has {rate} samples a second; {least} to {most} are allowed")


def _long(seconds: str) -> str:
    return f"the audio lasts {seconds} seconds; at most {AUDIO_SECONDS} are allowed"
