"""When does somebody speak?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from trivium import Audio, Meta, Models, Segment, Tensor, function

WINDOW = 512
RATE = Audio.RATE
RUN = 60
"""Seconds a run: memory stays bounded, and a caller who leaves is not served for an hour."""

Ms = Annotated[int, Meta(ge=0, le=10_000)]


@function("audio.activity")
async def activity(
    audio: Audio,
    models: Models,
    threshold: Annotated[float, Meta(gt=0, lt=1)] = 0.5,
    min_speech_ms: Ms = 250,
    min_silence_ms: Ms = 100,
    pad_ms: Ms = 30,
) -> list[Segment]:
    """Say when somebody speaks: start, end and how sure, in the order of time."""
    scores: list[float] = []
    step = RUN * RATE // WINDOW * WINDOW
    size = len(audio.samples)
    feeds = {
        "context": Tensor(dtype="float32", shape=(64,), data=bytes(4 * 64)),
        "h": Tensor(dtype="float32", shape=(1, 1, 128), data=bytes(4 * 128)),
        "c": Tensor(dtype="float32", shape=(1, 1, 128), data=bytes(4 * 128)),
    }
    for first in range(0, size, step):
        last = min(size, first + step)
        made = await models.vad.run_all(samples=audio.samples[first:last], **feeds)
        scores += made["speech_probs"].tolist()
        feeds = {"context": audio.samples[last - 64 : last], "h": made["hn"], "c": made["cn"]}
    spoken = find(scores, size, threshold, min_speech_ms, min_silence_ms)
    return pad(spoken, scores, size, RATE * pad_ms // 1000)


def find(
    scores: Sequence[float], size: int, threshold: float, min_speech_ms: int, min_silence_ms: int
) -> list[tuple[int, int]]:
    """Return where speech starts and ends, in samples, as silero-vad 6.2.3 decides it.

    It starts with a window at the threshold, and ends where the score fell .15 below it and did
    not come back within the least silence.
    """
    least_speech, least_silence = RATE * min_speech_ms / 1000, RATE * min_silence_ms / 1000
    low = max(threshold - 0.15, 0.01)
    found: list[tuple[int, int]] = []
    start = quiet = None
    for number, score in enumerate(scores):
        now = number * WINDOW
        if score >= threshold:
            start = now if start is None else start
            quiet = None
        elif score < low and start is not None:
            quiet = now if quiet is None else quiet
            if now - quiet >= least_silence:
                if quiet - start > least_speech:
                    found.append((start, quiet))
                start = quiet = None
    if start is not None and size - start > least_speech:
        found.append((start, size))
    return found


def pad(
    spoken: Sequence[tuple[int, int]], scores: Sequence[float], size: int, more: int
) -> list[Segment]:
    """Return segments in seconds, each `more` samples longer on both sides where there is room.

    Two that are nearer share what lies between them; a score is the mean of the windows'.
    """
    segments = []
    for number, (start, end) in enumerate(spoken):
        before = start - spoken[number - 1][1] if number else 2 * start
        after = spoken[number + 1][0] - end if number + 1 < len(spoken) else 2 * (size - end)
        heard = scores[start // WINDOW : -(-end // WINDOW)]
        segments.append(
            Segment(
                start=(start - min(more, before // 2)) / RATE,
                end=(end + min(more, after // 2)) / RATE,
                score=sum(heard) / len(heard),
            )
        )
    return segments
