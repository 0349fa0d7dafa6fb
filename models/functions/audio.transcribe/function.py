"""What is said, and when?"""

from __future__ import annotations

import math
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from trivium import Asker, Audio, Models, Speech, Tensor, function
from trivium.errors import BadInput, Unsuited

LONGEST = 28.0
"""Whisper hears 30 seconds at once; what one piece holds stays below."""

STEP = 0.02
MOST = 220
"""Tokens of a piece; more are hardly ever spoken in half a minute."""

HARDLY = 0.5
"""A model of one language is less sure than this of others: of 20 prompts in it the least sure was
.71 (.58 in babble 10 dB below), of 77 in French, Spanish, Italian and Russian the surest .51."""

ENOUGH_S = 3.0
"""So much speech is looked at before the first of it is given."""

AGAIN = 12
"""So many tokens three times in a row are a model that has lost its way."""


@function("audio.transcribe")
async def transcribe(
    audio: Audio, models: Models, ask: Asker, language: str = ""
) -> AsyncIterator[Speech]:
    """Write down what is said, with times; `language` (en, de, …) is found out where it can be."""
    if language and language not in models.labels:
        known = ", ".join(models.labels)
        raise BadInput(f"language {language[:20]!r} is not one of {known}")
    only = models.settings.get("only")
    if only and language not in ("", only):
        raise Unsuited(
            f"this tier's model knows {only!r} alone, not {language!r}; the cloud's knows all "
            f"{len(models.labels)} languages: say tiers=cloud, or leave tiers and reach open"
        )
    spoken = await ask("audio.activity", audio=audio, min_silence_ms=400, pad_ms=200)
    sure, held = not only or bool(language), list[Speech]()
    for start, end in pieces([times(each) for each in spoken]):
        async for speech in written(audio.part(start, end), start, models, only or language):
            if sure:
                yield speech
                continue
            held.append(speech)
            if sum(each.end - each.start for each in held) >= ENOUGH_S:
                sure = understood(held, only)
                for each in held:
                    yield each
    if not sure and understood(held, only):
        for each in held:
            yield each


def understood(held: Sequence[Speech], only: str) -> bool:
    """Return that speech seems to be of the one language that is known; raise Unsuited if not."""
    weights = [each.end - each.start + STEP for each in held]
    weighed = [each.score * weight for each, weight in zip(held, weights, strict=True)]
    score = sum(weighed) / sum(weights) if held else 1.0
    if score < HARDLY:
        raise Unsuited(
            f"this tier's model knows {only!r} alone, and is not sure that it hears that (what is "
            f"said first has a score of {score:.2f}; {HARDLY:g} is the least): say tiers=cloud, or "
            f"leave tiers and reach open; language={only} has it written all the same"
        )
    return True


def times(segment: Any) -> tuple[float, float]:
    """Return start and end: what comes from another tier is plain."""
    if isinstance(segment, dict):
        return segment["start"], segment["end"]
    return segment.start, segment.end


def pieces(spoken: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield times of at most LONGEST, cut where nobody speaks if that can be."""
    held: tuple[float, float] | None = None
    for start, end in spoken:
        while end - start > LONGEST:
            if held:
                yield held
                held = None
            yield start, start + LONGEST
            start += LONGEST
        if held and end - held[0] <= LONGEST:
            held = held[0], end
        else:
            if held:
                yield held
            held = start, end
    if held:
        yield held


def whole(values: Sequence[int], *shape: int) -> Tensor:
    """Return integers as a tensor."""
    return Tensor(dtype="int64", shape=shape, data=memoryview(array("q", values)))


async def written(
    sound: Audio, begun: float, models: Models, language: str
) -> AsyncIterator[Speech]:
    """Yield each sentence of a piece as soon as the model says that it has ended.

    Tokens are chosen by Whisper's own rules: times come in pairs and never go back, and where
    all times together are likelier than the likeliest word, a time is next.
    """
    settings, languages = models.settings, list(models.labels)
    heard = await models.encoder.keep(samples=sound.samples)
    async with models.decoder.start(**heard) as steps:
        ids = [settings["start"]]
        if first := settings.get("first_language"):
            if not language:
                made = await steps.run_all(ids=whole(ids, 1, 1), floor=whole([0], 1))
                language, ids = languages[made["tongues"].argmax()], []
            ids += [first + languages.index(language), settings["transcribe"]]
        letters, sure, said = bytearray(), 0.0, 0
        chosen: list[int] = []
        opened, floor = -1, 0
        for _ in range(MOST):
            made = await steps.run_all(ids=whole(ids, 1, len(ids)), floor=whole([floor], 1))
            word, time = made["best"].tolist()
            text, end, _, all_times = made["scores"].tolist()
            if not chosen:
                # The beginning is no later than a second in.
                kind, time = "time", min(time, 50)
            elif opened >= 0 and not letters:
                kind = "word"
            elif opened < 0:
                kind = "end" if end > all_times else "time"
            else:
                kind = "time" if all_times > max(text, end) else "end" if end > text else "word"
            if kind == "word" and end > text:
                kind = "end"
            lost = chosen[-AGAIN:] * 3 == chosen[-3 * AGAIN :] and len(chosen) >= 3 * AGAIN
            if kind == "end" or lost:
                break
            if kind == "word":
                letters += bytes(made["said"].data)
                sure, said = sure + text, said + 1
                ids = [word]
            else:
                ids, floor = [settings["times"] + time], time
                if opened < 0:
                    # What is said takes a while.
                    opened, floor = time, min(time + 1, 1500)
                else:
                    speech = piece(letters, sound, begun, opened, time, sure / said, language)
                    if speech:
                        yield speech
                    letters, sure, said, opened = bytearray(), 0.0, 0, -1
            chosen.append(ids[0])
        if letters:
            last = round(sound.seconds / STEP)
            speech = piece(letters, sound, begun, max(opened, 0), last, sure / said, language)
            if speech:
                yield speech


def piece(
    letters: bytearray,
    sound: Audio,
    begun: float,
    first: int,
    last: int,
    sure: float,
    language: str,
) -> Speech | None:
    """Return a sentence, within the sound; none if there are no words in it."""
    text = letters.decode("utf-8", "replace").strip()
    if not text:
        return None
    start, end = (begun + min(STEP * each, sound.seconds) for each in (first, last))
    return Speech(start=start, end=end, score=math.exp(sure), text=text, language=language)
