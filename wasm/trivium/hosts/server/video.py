"""How do untrusted bytes become the frames and the sound of a video, within limits?

What is in a file is counted by its packets before anything is decoded; times are theirs, too.
"""

from __future__ import annotations

import io
import math
import threading
import time
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from ...contract import Blob, Tensor
from ...errors import BadInput, TooLarge
from ...kinds import Audio, Frame, Video
from .. import limits
from ..limits import (
    VIDEO_BYTES,
    VIDEO_PACKETS,
    VIDEO_PIXELS,
    VIDEO_SECONDS,
    VIDEO_WORK,
    VIDEOS,
)
from . import audio, media
from .session import Lanes

CODECS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1", "mpeg4", "mjpeg")
"""Codecs whose frames are decoded; those of sounds are audio.py's."""

OPTIONS = {
    **audio.LIMITS,
    "codec_whitelist": ",".join((*CODECS, *audio.CODECS, *audio.PCM)),
    "max_pixels": str(VIDEO_PIXELS),
}

THREADS = 2
"""Threads that decode one video: each may hold frames of its own."""

HALVED = {
    "yuv420p": (1, 1),
    "yuvj420p": (1, 1),
    "yuva420p": (1, 1),
    "yuv422p": (1, 0),
    "yuvj422p": (1, 0),
    "yuv444p": (0, 0),
    "yuvj444p": (0, 0),
}
"""Forms of pixels, and how often their colours are halved across and down."""

BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
KR_KB = {1: BT709, 5: BT601, 6: BT601, 9: BT2020, 10: BT2020}
"""The weights of red and blue in what is bright, by FFmpeg's number of a colour space."""

SMALL = 576
"""Lines up to which BT.601 is meant where nothing is said."""

FULL = 2
LEAST_SECONDS = 0.001
Plane = NDArray[np.int32]


class Reel:
    """A video whose packets were counted: each pass over its frames opens it anew."""

    def __init__(self, blob: Blob, bound: int | None, lanes: Lanes) -> None:
        self._blob = blob
        self._bound = bound
        self._lanes = lanes
        self._form = VIDEOS.get(blob.media)
        self._shown = array("q")
        self._keys = array("q")
        self._base = Fraction(1)
        self._sounds = False
        self.seconds = 0.0
        if self._form is None:
            raise BadInput(f"media type {blob.media!r} is not one of {', '.join(VIDEOS)}")
        if not blob.data:
            raise BadInput("the video is empty")
        if len(blob.data) > VIDEO_BYTES:
            raise TooLarge(
                f"the video has {len(blob.data)} bytes; at most {VIDEO_BYTES} are allowed"
            )
        with self._container() as container:
            self._count(container, _picture(container))

    async def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:
        """Yield the frames that are shown at these times, decoded when they are taken."""
        ended = threading.Event()
        walk = self._walk(times, ended)
        try:
            while (frame := await self._lanes.run(lambda: next(walk, None))) is not None:
                yield frame
        finally:
            # A thread that still decodes for us sees it before its next packet.
            ended.set()
            with suppress(ValueError):
                walk.close()

    async def sound(self) -> Audio | None:
        """Return the sound, if there is any."""
        if not self._sounds:
            return None
        samples = await self._lanes.run(self._sound)
        return Audio(samples, self._blob) if len(samples) else None

    def _sound(self) -> Tensor:
        with self._container() as container:
            data = audio.decoded(container, "", float(self._shown[0] * self._base))
        return Tensor(dtype="float32", shape=(len(data) // 4,), data=memoryview(data))

    @contextmanager
    def _container(self) -> Iterator[Any]:
        try:
            with av.open(io.BytesIO(self._blob.data), format=self._form, options=OPTIONS) as opened:
                yield opened
        except MemoryError as error:
            raise TooLarge(audio.vast(self._blob.media)) from error
        except FFmpegError as error:
            what = f"the {self._blob.media} is damaged or not readable: {error.strerror}"
            raise BadInput(what) from error
        except (ValueError, OverflowError) as error:
            raise BadInput(f"the {self._blob.media} is damaged: {error}") from error

    def _count(self, container: Any, stream: Any) -> None:
        """Note when each frame is shown, and which packet it is decoded from on."""
        stated = (container.duration or 0) / 1e6
        if stated > VIDEO_SECONDS:
            raise TooLarge(_long(stated))
        sound = next(iter(container.streams.audio), None)
        self._sounds = sound is not None and sound.codec_context is not None
        rows: list[tuple[int, int]] = []
        number, key, last, end = 0, 0, -math.inf, -math.inf
        for count, packet in enumerate(_packets(container, stream, sound)):
            if count == VIDEO_PACKETS:
                raise TooLarge(f"the video has over {VIDEO_PACKETS} packets, which is too many")
            at = _at(packet)
            last = max(last, float(at * packet.time_base))
            end = max(end, float((at + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index == stream.index:
                key = number if packet.is_keyframe else key
                if not packet.is_discard:
                    rows.append((at, key))
                number += 1
        if not rows:
            raise BadInput("the video has no frames")
        rows.sort()
        self._shown = array("q", (at for at, _ in rows))
        self._keys = array("q", (key for _, key in rows))
        self._base = stream.time_base
        first = float(rows[0][0] * self._base)
        self.seconds = max(stated, last - first, LEAST_SECONDS)
        if self.seconds > VIDEO_SECONDS:
            raise TooLarge(_long(self.seconds))
        if end - first < 0.9 * stated - 0.5:
            raise BadInput(
                f"the video ends after {end - first:.1f} of the {stated:.1f} seconds "
                "its head states"
            )

    def _walk(self, times: Sequence[float], ended: threading.Event) -> Generator[Frame, None, None]:
        """Yield a frame for each time, reading the file once: what lies between is passed over."""
        begun, spent = time.monotonic(), 0.0
        with self._container() as container:
            stream = _picture(container)
            decoded = _Decoded(stream, _packets(container, stream))
            for place in dict.fromkeys(self._place(each) for each in times):
                wanted = self._shown[place]
                decoded.go(self._keys[place])
                while (found := decoded.take(wanted)) is None:
                    if ended.is_set():
                        return
                    if spent + time.monotonic() - begun > VIDEO_WORK:
                        raise TooLarge(
                            f"the video's frames take more than {VIDEO_WORK} s to decode: "
                            "ask for fewer, or make it smaller"
                        )
                    decoded.feed()
                at = float((self._shown[place] - self._shown[0]) * self._base)
                frame = Frame(_pixels(found, self._bound), at)
                spent += time.monotonic() - begun
                yield frame
                begun = time.monotonic()

    def _place(self, seconds: float) -> int:
        """Return which frame is shown at a time."""
        ticks = self._shown[0] + math.floor((seconds + 1e-6) / self._base)
        return max(0, bisect_right(self._shown, ticks) - 1)


class _Decoded:
    """The frames of a stream, decoded from any of its packets on."""

    def __init__(self, stream: Any, packets: Iterator[Any]) -> None:
        self._stream = stream
        self._packets = enumerate(packets)
        self._fed = -1
        self._ready: deque[Any] = deque()
        self._last: Any = None
        self._done = False
        self._damaged = 0

    def go(self, key: int) -> None:
        """Pass over what lies before a packet, if that was not fed yet."""
        if key > self._fed + 1:
            while self._fed < key - 1:
                self._fed, _ = next(self._packets, (key - 1, None))
            self._stream.codec_context.flush_buffers()
            self._ready.clear()
            self._last = None

    def take(self, wanted: int) -> Any:
        """Return the frame shown at `wanted` once it is decoded, the nearest where it is lost."""
        while self._ready:
            frame = self._ready[0]
            if frame.pts is not None and frame.pts > wanted and self._last is not None:
                return self._last
            self._last = self._ready.popleft()
            if frame.pts is not None and frame.pts >= wanted:
                return frame
        if self._done:
            if self._last is None:
                raise BadInput("the video's frames can't be decoded")
            return self._last
        return None

    def feed(self) -> None:
        """Decode one packet more; a few damaged ones are left out."""
        self._fed, packet = next(self._packets, (self._fed, None))
        self._done = packet is None
        if packet is not None and self._stream.codec_context.name == "mjpeg":
            media.scans(bytes(packet))
        try:
            self._ready.extend(packet.decode() if packet else self._stream.decode(None))
        except FFmpegError:
            self._damaged += 1
            if self._damaged > 100:
                raise


def _picture(container: Any) -> Any:
    stream = audio.film(container)
    if stream is None:
        raise BadInput("the file has no video track")
    context = stream.codec_context
    if context is None:
        raise BadInput("the video's codec is unknown")
    if context.name not in CODECS:
        raise BadInput(f"the codec {context.name!r} is not one of {', '.join(CODECS)}")
    _small(context.width, context.height)
    context.options = {"max_pixels": OPTIONS["max_pixels"]}
    context.thread_count = THREADS
    return stream


def _packets(container: Any, *streams: Any) -> Iterator[Any]:
    for packet in container.demux([each for each in streams if each is not None]):
        if packet.size and _at(packet) is not None:
            yield packet


def _at(packet: Any) -> Any:
    return packet.dts if packet.pts is None else packet.pts


def _pixels(frame: Any, bound: int | None) -> Tensor:
    """Return uint8 [height, width, 3], upright, by integers alone: the page has the same."""
    _small(frame.width, frame.height)
    full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    unsaid = BT601 if min(frame.width, frame.height) <= SMALL else BT709
    weights = KR_KB.get(frame.colorspace, unsaid)
    turned = frame.rotation
    if frame.format.name not in HALVED:
        frame = frame.reformat(format="yuv420p")
    shrink = media.shrink(min(frame.width, frame.height), bound)
    across, down = HALVED[frame.format.name]
    high, wide = -(-frame.height // shrink), -(-frame.width // shrink)
    bright = _mean(_plane(frame.planes[0]), shrink, shrink)
    blue, red = (
        _mean(_plane(plane), max(1, shrink >> down), max(1, shrink >> across))
        for plane in frame.planes[1:3]
    )
    if shrink == 1:
        blue, red = (
            plane.repeat(1 + down, 0).repeat(1 + across, 1)[:high, :wide] for plane in (blue, red)
        )
    rgb = _rgb(bright, blue[:high, :wide], red[:high, :wide], weights, full)
    upright = np.ascontiguousarray(np.rot90(rgb, round(turned / 90)))
    return Tensor(dtype="uint8", shape=upright.shape, data=upright.data)


def _plane(plane: Any) -> NDArray[np.uint8]:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]


def _mean(plane: NDArray[np.uint8], down: int, across: int) -> Plane:
    """Return the means of blocks; what lies beyond the edge is as the edge is."""
    if down == across == 1:
        return plane.astype(np.int32)
    high, wide = plane.shape
    whole = np.pad(plane, ((0, -high % down), (0, -wide % across)), "edge").astype(np.int32)
    sums: Plane = whole.reshape(len(whole) // down, down, -1, across).sum((1, 3), dtype=np.int32)
    return (sums + down * across // 2) // (down * across)


def _rgb(
    bright: Plane, blue: Plane, red: Plane, weights: tuple[float, float], full: bool
) -> NDArray[np.uint8]:
    kr, kb = weights
    kg = 1 - kr - kb
    gain, reach = (1.0, 1.0) if full else (255 / 219, 255 / 224)
    y = (bright - (0 if full else 16)) * _whole(gain) + (1 << 15)
    u, v = blue - 128, red - 128
    rgb = np.empty((*bright.shape, 3), np.uint8)
    for place, value in enumerate((
        y + v * _whole(2 * (1 - kr) * reach),
        y - u * _whole(2 * kb * (1 - kb) / kg * reach) - v * _whole(2 * kr * (1 - kr) / kg * reach),
        y + u * _whole(2 * (1 - kb) * reach),
    )):  # fmt: skip
        rgb[..., place] = np.clip(value >> 16, 0, 255)
    return rgb


def _whole(value: float) -> int:
    return math.floor(value * (1 << 16) + 0.5)


def _small(width: int, height: int) -> None:
    if width * height > VIDEO_PIXELS:
        raise TooLarge(
            f"the video has {width} x {height} pixels a frame; at most {VIDEO_PIXELS} are allowed"
        )
    limits.sides("video", width, height)


def _long(seconds: float) -> str:
    return f"the video lasts {seconds:.0f} seconds; at most {VIDEO_SECONDS} are allowed"


async def opened(blob: Blob, bound: int | None, lanes: Lanes) -> Video:
    """Return a video whose packets were counted, and none decoded; raise BadInput or TooLarge."""
    return Video(await lanes.run(lambda: Reel(blob, bound, lanes)), blob)
