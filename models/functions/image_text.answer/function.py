"""What answers a customer's question about a picture, and what does the answer rest on?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from operator import mul
from typing import Annotated, Any, Literal

from trivium import Asker, Box, Image, Meta, Text, Unanswered, function
from trivium.errors import BadInput, TooLarge
from trivium.nouns import Noun

LEAST = 0.25
"""How near the best evidence must be to count as an answer: chosen on pictures not held out."""

WORD = 0.3
"""What it is worth that all of a question's own words stand in a passage."""

NUMBER = 0.15
"""What a digit is worth to who asks for a number."""

COUNTED = re.compile(
    r"\b(when|until|how (much|many|long|often|hot|big|far|old)|what time|number|price|cost|pay)\b"
    r"|多少|几|何时|什么时候|号码"
)

SEEN = ("What does the picture show?", "What is this thing?", "What do you see in the photo?")
"""Questions that what is seen answers, in whatever words."""

LINES = 40
"""So many lines of a picture are weighed."""

_FEW = """
a an and any are as at be been can could did do does for from get had has have how i if in is it its
may me my not of on or our should so that the their them there they this to was we were what when
where which who why will with would you your much many please tell about
"""
FEW = frozenset(_FEW.split())
"""English words that say nothing of what is asked for."""

Source = Literal["the picture's writing", "what the picture shows", "the passages given"]


class Evidence(Noun, frozen=True, kw_only=True):
    """A passage, where it is from, and how near the question it is, 0 to about 1.

    `at` is the line's place in the picture, or the passage's number, from 1.
    """

    text: str
    source: Source
    score: float
    at: Box | int | None = None


class Reply(Noun, frozen=True, kw_only=True):
    """An answer, whether it is one, how it was written, and what it rests on, the nearest first."""

    answer: str
    found: bool
    written: Literal["composed", "by text.generate", "nothing found"]
    evidence: list[Evidence]
    basis: list[str]


Passage = Annotated[str, Meta(min_length=1, max_length=1000)]


@function("image_text.answer")
async def answer(
    image: Image,
    text: Text,
    ask: Asker,
    passages: Annotated[list[Passage], Meta(max_length=32)] = [],  # noqa: B006 # never changed
    generate: bool = False,
) -> Reply:
    """Answer a question about a picture by what it says and shows, and by passages given.

    The answer quotes its evidence. With `generate` text.generate words it where it can be asked;
    what it writes is kept only if all its words stand in the evidence or the question.
    """
    (lines, how_read), (shown, how_seen), meaning = await ask.together(
        read(image, ask), seen(image, ask), near(str(text), ask, "question")
    )
    pool = [*lines, *shown]
    pool += [
        Evidence(text=each, source="the passages given", score=0.0, at=number)
        for number, each in enumerate(passages, 1)
    ]
    scores = await ask.together(*(score(each, str(text), meaning, ask) for each in pool))
    ranked = sorted(
        (
            Evidence(text=each.text, source=each.source, score=value, at=each.at)
            for each, value in zip(pool, scores, strict=True)
        ),
        key=lambda each: -each.score,
    )
    best = ranked[:3]
    basis = [f"writing: {how_read}", f"seen: {how_seen}"]
    if passages:
        basis.append(f"passages: {len(passages)} given with the question")
    if not best or best[0].score < LEAST:
        said = "Nothing in the picture" + (" or the passages" if passages else "")
        return Reply(
            answer=f"{said} answers that as far as can be told; please ask a person.",
            found=False,
            written="nothing found",
            evidence=best,
            basis=basis,
        )
    written = await worded(str(text), best, ask, basis) if generate else ""
    return Reply(
        answer=written or composed(best[0]),
        found=True,
        written="by text.generate" if written else "composed",
        evidence=best,
        basis=basis,
    )


async def read(image: Image, ask: Asker) -> tuple[list[Evidence], str]:
    """Return the lines in a picture, each also with the one that follows it."""
    if image.blob is None:
        return [], "not looked for: the picture has no file of its own"
    try:
        (page,) = await ask.step("read", "document.read", document=image.blob)
    except (BadInput, TooLarge, *Unanswered) as error:
        return [], f"not looked for: {error}"
    lines = [line for line in page["lines"] if any(map(str.isalnum, line["label"]))][:LINES]
    found = [*([line] for line in lines), *map(list, pairwise(lines))]
    return [
        Evidence(
            text=" ".join(line["label"].strip() for line in group),
            source="the picture's writing",
            score=0.0,
            at=whole(group),
        )
        for group in found
    ], f"{len(lines)} lines by document.read"


def whole(lines: Sequence[dict[str, Any]]) -> Box:
    """Return the box around lines."""
    left, top = (min(line[each] for line in lines) for each in ("x", "y"))
    right = max(line["x"] + line["width"] for line in lines)
    low = max(line["y"] + line["height"] for line in lines)
    sure = min(line["score"] for line in lines)
    return Box(label="line", score=sure, x=left, y=top, width=right - left, height=low - top)


async def seen(image: Image, ask: Asker) -> tuple[list[Evidence], str]:
    """Return what a picture shows, in a sentence."""
    try:
        described = await ask.step("look", "image.describe", image=image)
    except Unanswered as error:
        return [], f"not looked at: {error}"
    return [
        Evidence(text=described["text"], source="what the picture shows", score=0.0)
    ], "image.describe"


async def near(text: str, ask: Asker, name: str) -> Sequence[float]:
    """Return a text's vector, or none if it is too long or can't be had."""
    try:
        vector: Sequence[float] = await ask.step(name, "text.embed", text=Text(text))
    except (TooLarge, *Unanswered):
        return ()
    return vector


async def score(each: Evidence, question: str, meaning: Sequence[float], ask: Asker) -> float:
    """Return how near a passage is to the question: by what it means, and by its words."""
    asked = words(question)
    said = WORD * len(asked & words(each.text)) / len(asked) if asked else 0.0
    if COUNTED.search(question.lower()) and any(map(str.isdigit, each.text)):
        said += NUMBER
    if not meaning:
        return said
    keys = SEEN if each.source == "what the picture shows" else (each.text,)
    vectors = [await near(key, ask, "passage") for key in keys]
    return max(sum(map(mul, meaning, vector)) for vector in vectors) + said


def words(text: str) -> set[str]:
    """Return a text's own words, their endings cut; of Chinese all pairs of characters."""
    found = {word[:5] for word in re.findall(r"[a-zà-ÿ0-9]+", text.lower()) if word not in FEW}
    for run in re.findall(r"[\u4e00-\u9fff]+", text):
        found |= {run[at : at + 2] for at in range(max(1, len(run) - 1))}
    return found


def composed(best: Evidence) -> str:
    """Return a sentence that quotes the best evidence and says where it is from."""
    if best.source == "the picture's writing":
        return f"In the picture it says: “{best.text}”."
    return best.text


async def worded(question: str, best: Sequence[Evidence], ask: Asker, basis: list[str]) -> str:
    """Return a sentence by text.generate if it holds to the evidence, else nothing."""
    facts = "\n".join(f"- {each.text}" for each in best)
    prompt = (
        f"Facts:\n{facts}\n\nQuestion: {question}\n"
        "Answer the question in one short sentence, with words of the facts only."
    )
    try:
        pieces = await ask.step("write", "text.generate", text=Text(prompt), max_tokens=48)
    except Unanswered as error:
        basis.append(f"composed, for text.generate can't be asked: {error}")
        return ""
    said = "".join(pieces).strip()
    invented = words(said) - words(f"{facts} {question}")
    if not said or invented:
        basis.append("composed, for what text.generate wrote was not all in the evidence")
        return ""
    basis.append("worded by text.generate, each word from the evidence or the question")
    return said
