"""What does a picture show, in one sentence, and what was that made of?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from trivium import Asker, Box, Image, Label, Models, function
from trivium.nouns import Noun

# How likely a name must be to be said, and to be said with `perhaps`; and the same for boxes,
# whose scores are no probabilities. Chosen on pictures that the gate does not look at.
SURE, PERHAPS = 0.5, 0.2
SEEN, GLIMPSED = 0.45, 0.3

ALONE = 0.6
"""How sure a box must be that nothing else speaks for, to be told of at all."""

WHOLE = 0.7
"""How much of a picture a thing may cover and yet be missed by whoever names the whole of it."""

MOST = 5
"""Kinds of things in one sentence."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLURALS = {
    "person": "people",
    "sheep": "sheep",
    "bison": "bison",
    "fish": "fish",
    "mouse": "mice",
    "knife": "knives",
    "skis": "pairs of skis",
    "scissors": "pairs of scissors",
    "broccoli": "pieces of broccoli",
}
COUNTED = {
    "scissors": "pair of",
    "skis": "pair of",
    "sunglasses": "pair of",
    "swimming trunks": "pair of",
    "binoculars": "pair of",
    "jean": "pair of",
    "clothing": "piece of",
    "furniture": "piece of",
    "food": "piece of",
    "fruit": "piece of",
    "broccoli": "piece of",
}
"""What stands before a name that takes no article."""


class Description(Noun, frozen=True, kw_only=True):
    """A sentence; the names in it and how likely each is; what it was made of."""

    text: str
    said: list[Label]
    labels: list[Label]
    boxes: list[Box]


class Thing(Label, frozen=True, kw_only=True):
    """What a sentence names: sure or not, where it was seen, and perhaps what kind of it it is."""

    sure: bool
    boxes: tuple[Box, ...] = ()
    kind: Label | None = None


@function("image.describe")
async def describe(image: Image, ask: Asker, models: Models) -> Description:
    """Say in one sentence what a picture shows, and where; what is guessed is said so."""
    labels = of(list[Label], await ask("image.classify", image=image, top=50))
    boxes = of(list[Box], await ask("image.detect", image=image, least=GLIMPSED))
    lines = (line.partition(": ") for line in models.labels)
    wider = {label: names.split(", ") for label, _, names in lines}
    things = merged(path(labels, wider), detected(boxes), wider)
    things = sorted(things, key=lambda each: not each.sure)[:MOST]
    said = [each for thing in things for each in (thing, thing.kind) if each]
    return Description(
        text=sentence(things),
        said=[Label(label=each.label, score=each.score) for each in said],
        labels=labels[:5],
        boxes=boxes,
    )


def of(kind: Any, output: Any) -> Any:
    """Return what another function said as `kind`, whether it ran here or came over a wire."""
    return msgspec.convert(output, kind, from_attributes=True)


def path(labels: Sequence[Label], wider: dict[str, list[str]]) -> list[Label]:
    """Return names for the likeliest thing, the widest first.

    A wide name is as likely as all it holds together: many breeds make a dog.
    """
    names = {each.label: [each.label, *wider.get(each.label, [])] for each in labels}
    likely: dict[str, float] = {}
    width: dict[str, int] = {}
    for each in labels:
        for place, name in enumerate(names[each.label]):
            likely[name] = likely.get(name, 0.0) + each.score
            width[name] = max(width.get(name, 0), place)
    row: list[Label] = []
    left = list(labels)
    while within := {name for each in left for name in names[each.label]} - {e.label for e in row}:
        best = max(within, key=lambda name: (likely[name], width[name], name))
        row.append(Label(label=best, score=min(1.0, likely[best])))
        left = [each for each in left if best in names[each.label]]
    return row


def detected(boxes: Sequence[Box]) -> list[Thing]:
    """Return what was seen where, each kind once, the surest first."""
    things = []
    for label in dict.fromkeys(box.label for box in boxes):
        alike = [box for box in boxes if box.label == label]
        sure = [box for box in alike if box.score >= SEEN]
        # One that is surely there does not vouch for another.
        things.append(
            Thing(
                label=label,
                score=alike[0].score,
                sure=bool(sure),
                boxes=tuple(sure or alike[:1]),
            )
        )
    return things


def named(row: Sequence[Label], boxes: tuple[Box, ...] = ()) -> list[Thing]:
    """Return the narrowest name that is likely, or guessed if none is; or nothing."""
    likely = [each for each in row if each.score >= SURE]
    guessed = [each for each in row if PERHAPS <= each.score < SURE]
    if not likely and not guessed:
        return []
    best = likely[-1] if likely else guessed[-1]
    kind = guessed[-1] if likely and guessed else None
    sure = bool(likely)
    return [Thing(label=best.label, score=best.score, sure=sure, boxes=boxes, kind=kind)]


def merged(row: list[Label], seen: list[Thing], wider: dict[str, list[str]]) -> list[Thing]:
    """Return each thing once: what both models speak of is one, by the better name."""
    names = [each.label for each in row]
    for thing in seen:
        rest = [each for each in seen if each is not thing and alone(each)]
        if thing.label in names:
            # The same thing: its box makes the name more likely, and there may be a narrower one.
            at = names.index(thing.label)
            score = max(thing.score, SURE if thing.sure else 0.0)
            known = [
                Label(label=each.label, score=max(each.score, score)) for each in row[: at + 1]
            ]
            narrower = row[at + 1 :] if len(thing.boxes) == 1 else []
            return [*(named([*known, *narrower], thing.boxes) or [thing]), *rest]
        if shared := set(names) & set(wider.get(thing.label, ())):
            # Both name a vehicle, say, and not the same one: the surer wins.
            main = named(row, thing.boxes)
            narrow = main and main[0].sure and main[0].label not in shared
            return [thing, *rest] if alone(thing) and not narrow else [*(main or [thing]), *rest]
    return [*named(row), *filter(alone, seen)]


def alone(thing: Thing) -> bool:
    """Return whether what only boxes tell of is believed; people have no name in ImageNet."""
    most = max(box.width * box.height for box in thing.boxes)
    return thing.score >= ALONE and (most < WHOLE or thing.label == "person")


def sentence(things: Sequence[Thing]) -> str:
    """Return what is said of things, those that are sure first."""
    if not things:
        return "It is hard to say what the picture shows."
    said = [phrase(thing) for thing in things]
    line = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    if not things[0].sure:
        return f"It is hard to say what the picture shows: {line}."
    return f"The picture shows {line}."


def phrase(thing: Thing) -> str:
    """Return a thing with its number, its size, its kind and its place."""
    words = [] if thing.sure else ["perhaps"]
    sizes = [box.width * box.height for box in thing.boxes]
    size = ""
    if len(sizes) == 1:
        size = "small " if sizes[0] < 0.03 else "large " if 0.4 <= sizes[0] < 0.7 else ""
    words.append(counted(thing.label, max(1, len(sizes)), size))
    if thing.kind:
        words.append(f"({'perhaps ' if thing.sure else ''}{counted(thing.kind.label)})")
    if sizes and max(sizes) >= 0.7:
        words.append("that fills the picture" if len(sizes) == 1 else "")
    else:
        places = {place(box) for box in thing.boxes}
        words.append(places.pop() if len(places) == 1 else "")
    return " ".join(filter(None, words))


def counted(label: str, count: int = 1, size: str = "") -> str:
    """Return a name with an article or a number."""
    if count > 1:
        number = NUMBERS[count] if count < len(NUMBERS) else "many"
        return f"{number} {PLURALS.get(label) or plural(label)}"
    name = " ".join(filter(None, [size.strip(), COUNTED.get(label), label]))
    vowel = name[0] in "aeiouAEIOU" and not name.lower().startswith(("uni", "eu", "one"))
    return f"{'an' if vowel else 'a'} {name}"


def plural(label: str) -> str:
    """Return the name of several."""
    if label.endswith("y") and label[-2:-1] not in "aeiou":
        return f"{label[:-1]}ies"
    if label.endswith(("s", "ch", "sh", "x")):
        return f"{label}es"
    return f"{label}s"


def place(box: Box) -> str:
    """Return where in the picture the middle of a box is."""
    across, down = box.x + box.width / 2, box.y + box.height / 2
    side = "left" if across < 0.36 else "right" if across > 0.64 else ""
    if down < 0.33:
        return f"at the top {side}".strip()
    if down > 0.67:
        return f"at the bottom {side}".strip()
    return f"on the {side}" if side else "in the middle"
