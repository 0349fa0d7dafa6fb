"""Are scenes told apart, and laid on one timeline with what is said?"""

from __future__ import annotations

import asyncio
import runpy
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Audio, Frame, Label, Segment, Speech, Tensor, Video
from trivium.errors import BadInput, NotAllowed, TierError, UnknownFunction

HERE = Path(__file__).parent
names: Any = runpy.run_path(str(HERE / "function.py"))
metric: Any = runpy.run_path(str(HERE / "metric.py"))

Scene, Said, Moment = names["Scene"], names["Said"], names["Moment"]


class Reel:
    """A video of one byte a second: what is seen then."""

    def __init__(self, shown: bytes, heard: float) -> None:
        self.seconds = float(len(shown))
        self._shown = shown
        self._heard = heard

    async def frames(self, times: Sequence[float]) -> AsyncIterator[Frame]:
        for time in times:
            data = bytes([self._shown[int(time)]] * 3)
            yield Frame(Tensor(dtype="uint8", shape=(1, 1, 3), data=data), time)

    async def sound(self) -> Audio | None:
        size = round(self._heard * Audio.RATE)
        if not size:
            return None
        return Audio(Tensor(dtype="float32", shape=(size,), data=bytes(4 * size)))


THINGS = {1: "a cat", 2: "a dog", 3: "a car"}
VECTORS = {1: [1.0, 0.0], 2: [0.0, 1.0], 3: [0.6, 0.8]}


def asked(
    shown: bytes,
    heard: float = 0.0,
    speech: Sequence[Speech] | Exception = (),
    described: bool = True,
    **options: Any,
) -> tuple[dict[str, Any], list[str]]:
    """Return the description, and what was asked for it."""
    calls: list[str] = []

    async def ask(name: str, image: Any = None, **_: object) -> Any:
        calls.append(name)
        thing = bytes(image.pixels.data)[0] if image else 0
        if name == "image.embed":
            return VECTORS[thing]
        if name == "image.describe" and described:
            return {"text": f"The picture shows {THINGS[thing]}."}
        if name == "image.classify":
            return [Label(label=THINGS[thing][2:], score=0.4)]
        if name == "audio.activity":
            return [Segment(start=1.0, end=2.0, score=0.9), Segment(start=2.2, end=3.0, score=0.9)]
        if name == "audio.transcribe":
            if isinstance(speech, Exception):
                raise speech
            return speech
        raise UnknownFunction(f"no tier has a function {name!r}")

    models = SimpleNamespace(settings={"frames": 6})
    video = Video(Reel(shown, heard))
    return asyncio.run(names["describe"](video, models, ask, **options)), calls


def said(start: float, end: float, text: str) -> Speech:
    return Speech(start=start, end=end, score=0.9, text=text, language="en")


def rows(found: Any) -> list[tuple[float, float, str, str]]:
    return [(each.start, each.end, each.seen, each.said) for each in found.timeline]


def test_like_frames_are_looked_at_once() -> None:
    """A scene lasts until the middle between its last frame and the next scene's first."""
    found, calls = asked(bytes([1, 1, 1, 2, 2, 2]))
    assert rows(found) == [
        (0.0, 3.0, "The picture shows a cat.", ""),
        (3.0, 6.0, "The picture shows a dog.", ""),
    ]
    assert calls.count("image.embed") == 6
    assert calls.count("image.describe") == 2
    assert found.summary == "6 seconds of a video show a cat, then a dog."
    assert (found.frames, found.speech) == (6, "the video has no sound")


def test_what_is_seen_again_without_a_cut_is_one_scene() -> None:
    """Frames may be unlike and show the same thing."""
    found, _ = asked(bytes([1, 1, 1, 1, 1, 1]), frames=3)
    assert len(rows(found)) == 1
    assert found.frames == 3


def test_speech_lies_on_the_same_timeline() -> None:
    """What is said across a cut stands on both sides, and short pauses do not end it."""
    speech = [said(1.0, 2.0, " Good"), said(2.2, 4.0, "morning."), said(5.0, 5.5, "Bye.")]
    found, _ = asked(bytes([1, 1, 1, 2, 2, 2]), 6.0, speech)
    cat, dog = "The picture shows a cat.", "The picture shows a dog."
    assert rows(found) == [
        (0.0, 1.0, cat, ""),
        (1.0, 2.2, cat, "Good"),
        (2.2, 3.0, cat, "morning."),
        (3.0, 4.0, dog, "morning."),
        (4.0, 5.0, dog, ""),
        (5.0, 5.5, dog, "Bye."),
        (5.5, 6.0, dog, ""),
    ]
    assert found.summary.endswith("show a cat, then a dog; “Good morning. Bye.” is said.")
    assert found.speech == "by audio.transcribe"


@pytest.mark.parametrize(
    "error",
    [UnknownFunction("no tier has it"), NotAllowed("not within reach"), TierError("it is busy")],
)
def test_without_a_transcript_it_is_told_when_somebody_speaks(error: Exception) -> None:
    """And said why."""
    found, _ = asked(bytes([1] * 6), 6.0, error)
    assert [(start, end, words) for start, end, _, words in rows(found)] == [
        (0.0, 1.0, ""),
        (1.0, 3.0, "(somebody speaks)"),
        (3.0, 6.0, ""),
    ]
    assert str(error) in found.speech
    assert "only when somebody speaks" in found.speech
    assert found.summary == "6 seconds of a video show a cat; somebody speaks for 2 of them."


def test_the_callers_mistakes_are_the_callers() -> None:
    with pytest.raises(BadInput):
        asked(bytes([1] * 6), 6.0, BadInput("no"))


def test_nothing_is_heard_unless_it_is_wanted() -> None:
    found, calls = asked(bytes([1] * 6), 6.0, listen=False)
    assert found.speech == "not listened to"
    assert not any(each.startswith("audio") for each in calls)


def test_without_sentences_there_are_names() -> None:
    """Where image.describe is not served, the likeliest label is told."""
    found, _ = asked(bytes([2, 2]), described=False)
    assert rows(found)[0][2] == "The picture shows perhaps dog."


def test_a_long_row_of_scenes_is_cut_short_in_the_summary() -> None:
    scenes = [Scene(start=float(n), seen=f"The picture shows {n}.") for n in range(7)]
    line = names["summed"](7.0, scenes, [])
    assert line == "7 seconds of a video show 0, then 1, then 2, then 3, then 4 and 2 more."


def test_what_is_unclear_is_said_so() -> None:
    lines = [
        "It is hard to say what the picture shows.",
        "It is hard to say what the picture shows: perhaps a cat.",
    ]
    scenes = [Scene(start=float(n), seen=line) for n, line in enumerate(lines)]
    line = names["summed"](2.0, scenes, [])
    assert line == "2 seconds of a video show something unclear, then perhaps a cat."


def test_the_metric() -> None:
    """A second counts when both are right: one of the names, and half of the words."""
    wanted = {
        "timeline": [
            {"start": 0.0, "end": 2.0, "seen": ["cat", "tabby"], "said": "one two three"},
            {"start": 2.0, "end": 4.0, "seen": ["dog"], "said": ""},
        ]
    }
    given = [
        {"start": 0.0, "end": 2.0, "seen": "It shows a tabby.", "said": "One, two, four."},
        {"start": 2.0, "end": 3.0, "seen": "It shows two dogs.", "said": ""},
        {"start": 3.0, "end": 3.5, "seen": "It shows a dog.", "said": "what"},
        {"start": 3.5, "end": 4.0, "seen": "It shows a cat.", "said": ""},
    ]
    assert metric["timeline"]({"timeline": given}, wanted) == pytest.approx(0.75)
    assert metric["timeline"]({"timeline": []}, wanted) == 0
