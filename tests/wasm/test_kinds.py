"""What does a function see of its inputs, and can it hand them on?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

import toys
from trivium import Audio, Frame, Tensor, Tier, Video
from trivium.contract import Ask, Blob, Input, Option
from trivium.engine import Engine
from trivium.errors import BadInput
from trivium.kinds import Image
from trivium.run import Step, weigh

PAGE, EDGE, CLOUD = Tier.PAGE, Tier.EDGE, Tier.CLOUD

CROP = """
from trivium import Asker, Image, Tensor, function

@function("image.crop")
async def crop(image: Image, ask: Asker, name: str = "image.bytes") -> list[int]:
    seven = Tensor(dtype="uint8", shape=(1, 1, 3), data=bytes([7, 8, 9]))
    return await ask(name, image=Image(seven))
"""

BYTES = """
from trivium import Image, function

@function("image.bytes")
async def bytes_of(image: Image) -> list[int]:
    return [image.blob is None, *bytes(image.pixels.data)]
"""

HEAR = """
from trivium import Audio, function

@function("audio.hear")
async def hear(image: Audio) -> float:
    return image.seconds
"""

GIVEN: dict[str, str | Blob] = {"image": Blob(media="image/raw", data=b"abc")}


def served(*tiers: Tier) -> Engine:
    """Return a page whose image.crop asks image.bytes, which is on `tiers`."""
    image = (Input(name="image", kind="image"),)
    crop = toys.manifest(
        "image.crop", "crop", tiers=[PAGE], inputs=image, asks=True,
        options=(Option(name="name", schema={"type": "string"}, default="image.bytes"),),
    )  # fmt: skip
    count = toys.manifest("image.bytes", "bytes_of", tiers=list(tiers), inputs=image)
    hear = toys.manifest(
        "audio.hear", "hear", tiers=[PAGE], inputs=(Input(name="image", kind="audio"),)
    )
    functions = (CROP, crop), (BYTES, count), (HEAR, hear)
    edge = toys.engine(EDGE, *functions)
    return toys.engine(PAGE, *functions, upstream=toys.Hop(edge))


def test_what_a_function_made_is_handed_on_as_it_is() -> None:
    """No file is made of it, and nothing is decoded."""
    answer = toys.run(served(PAGE).infer(Ask(function="image.crop", inputs=GIVEN)))
    assert answer.output == [True, 7, 8, 9]


def test_what_goes_to_another_tier_becomes_a_file() -> None:
    """From which that tier decodes the same."""
    answer = toys.run(served(EDGE).infer(Ask(function="image.crop", inputs=GIVEN)))
    assert answer.output == [False, 7, 8, 9]


def test_another_kind_is_refused() -> None:
    ask = Ask(function="image.crop", inputs=GIVEN, options={"name": "audio.hear"})
    with pytest.raises(BadInput, match=r"audio\.hear takes audio, not Image: image"):
        toys.run(served(PAGE).infer(ask))


def test_what_an_ask_weighs() -> None:
    """Files by their bytes, and what has none as it is decoded."""
    image = Image(Tensor(dtype="uint8", shape=(2, 5, 3), data=bytes(30)))
    audio = Audio(Tensor(dtype="float32", shape=(4,), data=bytes(16)))
    blob = Blob(media="audio/wav", data=b"1234567")
    given = Step(inputs={"text": "abc", "b": blob}, held={"a": image, "b": audio, "c": audio})
    assert weigh(given) == 3 + 7 + 30 + 16
    assert weigh(Ask(inputs={"text": "abc"})) == 3


class Reel:
    """A video of three pictures."""

    seconds = 10.0

    def __init__(self) -> None:
        self.asked: list[Sequence[float]] = []

    async def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:
        self.asked.append(times)
        for time in times:
            yield Frame(Tensor(dtype="uint8", shape=(1, 1, 3), data=bytes(3)), time)

    async def sound(self) -> Audio | None:
        return None


def times(most: int, every: float = 0.0) -> list[float]:
    video = Video(Reel())

    async def run() -> list[float]:
        return [frame.at async for frame in video.frames(most, every)]

    return toys.run(run())


def test_frames_are_spread_evenly() -> None:
    """Each in the middle of its part, not nearer than is said, and never beyond all bounds."""
    assert times(4) == [1.25, 3.75, 6.25, 8.75]
    assert times(100, 4.0) == [2.0, 6.0, 9.0]
    assert times(1) == [5.0]
    assert len(times(100_000)) == Video.MOST


def test_a_video_says_how_long_it_is_and_what_is_heard() -> None:
    video = Video(Reel())
    assert video.seconds == 10.0
    assert toys.run(video.sound()) is None
