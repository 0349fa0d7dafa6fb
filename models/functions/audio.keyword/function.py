"""Which word was spoken?"""

from __future__ import annotations

from typing import Annotated

from trivium import Audio, Label, Meta, Models, Tensor, function

STEP = 6400
"""Samples from one window to the next; a window has three steps."""

RUN = 60 * STEP


@function("audio.keyword")
async def keyword(
    audio: Audio, models: Models, top: Annotated[int, Meta(ge=1, le=22)] = 3
) -> list[Label]:
    """Name the digit or command that was spoken, the surest first; of several the clearest.

    `other` is another word, and `silence` none.
    """
    size = len(audio.samples)
    best: Tensor | None = None
    clearest = -1.0
    for first in range(0, max(1, size - 2 * STEP), RUN):
        # Windows reach two steps into the next run.
        windows = await models.words.run(
            samples=audio.samples[first : min(size, first + RUN + 2 * STEP)]
        )
        for window in (windows[number] for number in range(len(windows))):
            clear = max(window.tolist()[:-2])
            if clear > clearest:
                best, clearest = window, clear
    assert best is not None
    return best.top(top, labels=models.labels)
