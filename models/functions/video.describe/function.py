"""What is seen and said in a video, and when?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import Annotated, Any

import msgspec

from trivium import Asker, Audio, Frame, Image, Meta, Models, Video, function
from trivium.errors import BudgetError, NotAllowed, TierError, UnknownFunction
from trivium.nouns import Noun

ALIKE = 0.8
"""From this cosine on, two frames show the same: chosen on pictures that the gate has not."""

PAUSE = 0.6
"""Seconds without a word that do not end what is said."""

SPOKEN = "(somebody speaks)"
WORDS = 20
"""So many words of all that is said stand in the summary."""


class Moment(Noun, frozen=True, kw_only=True):
    """A piece of the timeline: what is seen, and what is said, from when until when in seconds."""

    start: float
    end: float
    seen: str
    said: str


class Description(Noun, frozen=True, kw_only=True):
    """A video in one sentence and as a timeline; `speech` says how what is said was found out."""

    summary: str
    seconds: float
    timeline: list[Moment]
    speech: str
    frames: int


class Scene(Noun, frozen=True, kw_only=True):
    """What is seen from a time on."""

    start: float
    seen: str


class Said(Noun, frozen=True, kw_only=True):
    """What is said between two times."""

    start: float
    end: float
    text: str


@function("video.describe")
async def describe(
    video: Video,
    models: Models,
    ask: Asker,
    frames: Annotated[int, Meta(ge=1, le=64)] | None = None,
    listen: bool = True,
) -> Description:
    """Say what is seen and said in a video, and when: a timeline, and one sentence for all of it.

    So many `frames` are looked at, evenly apart, or as many as this tier can afford; without
    `listen` nothing is heard.
    """
    most = frames or int(models.settings["frames"])
    step = video.seconds / most
    scenes: list[Scene] = []
    before: Sequence[float] = ()
    count = 0
    async for frame in video.frames(most):
        count += 1
        vector = await ask("image.embed", image=frame)
        if before and sum(map(mul, vector, before)) >= ALIKE:
            before = vector
            continue
        before = vector
        seen = await look(frame, ask)
        if not scenes or seen != scenes[-1].seen:
            # It began between the frame before and this one.
            scenes.append(Scene(start=max(0.0, frame.at - step / 2) if scenes else 0.0, seen=seen))
    said: list[Said] = []
    speech = "not listened to"
    if listen:
        said, speech = await hear(await video.sound(), ask)
    return Description(
        summary=summed(video.seconds, scenes, said),
        seconds=round(video.seconds, 2),
        timeline=aligned(video.seconds, scenes, said),
        speech=speech,
        frames=count,
    )


async def look(frame: Frame, ask: Asker) -> str:
    """Return what a frame shows, in a sentence."""
    try:
        described = msgspec.to_builtins(await ask("image.describe", image=frame))
        return str(described["text"])
    except UnknownFunction:
        return await name(frame, ask)


async def name(image: Image, ask: Asker) -> str:
    """Return the likeliest label of a picture as a sentence."""
    best = msgspec.to_builtins(await ask("image.classify", image=image, top=1))[0]
    sure = "" if best["score"] >= 0.5 else "perhaps "
    return f"The picture shows {sure}{best['label']}."


async def hear(sound: Audio | None, ask: Asker) -> tuple[list[Said], str]:
    """Return what is said and when, and how that was found out."""
    if sound is None or sound.seconds < 0.1:
        return [], "the video has no sound"
    try:
        found = await ask("audio.transcribe", audio=sound)
        return join(read(found)), "by audio.transcribe"
    except (UnknownFunction, NotAllowed, BudgetError, TierError) as error:
        why = str(error)
    found = await ask("audio.activity", audio=sound)
    how = f"only when somebody speaks, by audio.activity: audio.transcribe can't be asked ({why})"
    return join(read(found)), how


def read(found: Any) -> list[Said]:
    """Return segments, whose text may be unknown, from this tier or over a wire."""
    return [
        Said(start=each["start"], end=each["end"], text=each.get("text", "").strip() or SPOKEN)
        for each in msgspec.to_builtins(found)
    ]


def join(said: Sequence[Said]) -> list[Said]:
    """Return speech with its short pauses filled."""
    row: list[Said] = []
    for each in said:
        if row and each.start - row[-1].end < PAUSE:
            last = row.pop()
            if last.text == each.text == SPOKEN:
                each = Said(start=last.start, end=each.end, text=SPOKEN)
            else:
                row.append(Said(start=last.start, end=each.start, text=last.text))
        row.append(each)
    return row


def aligned(seconds: float, scenes: Sequence[Scene], said: Sequence[Said]) -> list[Moment]:
    """Return pieces in which both what is seen and what is said stay the same.

    What is said across a cut stands on both sides of it.
    """
    times = {0.0, seconds, *(scene.start for scene in scenes)}
    times |= {time for each in said for time in (each.start, each.end)}
    cuts = sorted(round(time, 2) for time in times if 0 <= time <= seconds)
    row: list[Moment] = []
    for start, end in pairwise(cuts):
        if start == end:
            continue
        middle = (start + end) / 2
        seen = next((scene.seen for scene in reversed(scenes) if scene.start <= middle), "")
        words = next((each.text for each in said if each.start <= middle < each.end), "")
        if row and (row[-1].seen, row[-1].said) == (seen, words):
            start = row.pop().start
        row.append(Moment(start=start, end=end, seen=seen, said=words))
    return row


def summed(seconds: float, scenes: Sequence[Scene], said: Sequence[Said]) -> str:
    """Return one sentence for all of it."""
    things = list(dict.fromkeys(bare(scene.seen) for scene in scenes))
    shown = things[0] if things else "nothing"
    if len(things) > 1:
        shown = ", then ".join(things[:5])
    if len(things) > 5:
        shown += f" and {len(things) - 5} more"
    words = " ".join(each.text for each in said if each.text != SPOKEN).split()
    heard = ""
    if words:
        more = " …" if len(words) > WORDS else ""
        heard = f"; “{' '.join(words[:WORDS])}{more}” is said"
    elif said:
        heard = f"; somebody speaks for {sum(each.end - each.start for each in said):.0f} of them"
    return f"{max(1, round(seconds))} seconds of a video show {shown}{heard}."


def bare(sentence: str) -> str:
    """Return what a sentence says a picture shows."""
    unsure, sure = "It is hard to say what the picture shows", "The picture shows "
    said = sentence.removesuffix(".")
    if said.startswith(unsure):
        return said.removeprefix(unsure).removeprefix(": ") or "something unclear"
    return said.removeprefix(sure)
