"""What is the thing in this photo called, which tags fit it, and what is like it in a catalogue?"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Annotated, Any

import msgspec

from trivium import Asker, Image, Label, Meta, Models, Tensor, Text, Unanswered, function
from trivium.errors import BadInput, TooLarge
from trivium.nouns import Noun

NEAREST = 5
"""So many things of the catalogue say which category a thing is of."""

SHARE = 0.5
"""What of their likeness must speak for a category: chosen by leaving each of them out in turn."""

MOST_TAGS = 10
VECTOR = 384
MOST_NAMED = 50
"""Things of a catalogue without a vector: each is a step of its own."""


class Thing(Noun, frozen=True, kw_only=True):
    """A thing of a catalogue: `vector` is image.embed's of its picture; without, its name's."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    category: Annotated[str, Meta(max_length=100)] = ""
    vector: Annotated[list[float], Meta(min_length=VECTOR, max_length=VECTOR)] | None = None


class Alike(Noun, frozen=True, kw_only=True):
    """A thing of the catalogue, and how near it is to the photo: a cosine."""

    name: str
    category: str
    score: float


class Product(Noun, frozen=True, kw_only=True):
    """What a shop may say of a thing; `category` is empty, and `text` too, where none was found.

    `basis` says what each of them rests on.
    """

    title: str
    description: str
    category: str
    tags: list[Label]
    text: list[str]
    recommendations: list[Alike]
    basis: list[str]


@function("image.product")
async def product(
    image: Image,
    ask: Asker,
    models: Models,
    catalogue: Annotated[list[dict[str, Any]], Meta(max_length=500)] = [],  # noqa: B006 # copied
    recommend: Annotated[int, Meta(ge=0, le=20)] = 3,
    read: bool = True,
) -> Product:
    """Describe the thing in a photo for a shop, tag it, and recommend what is like it.

    `catalogue` has things with `name`, `category` and image.embed's `vector`; without one the
    bundle's own sample is looked through. With `read` what is printed on the thing is read, too.
    """
    things = own(catalogue)
    described, printed, near = await ask.together(
        ask.step("describe", "image.describe", image=image),
        words(image, ask) if read else nothing(),
        likenesses(image, things, ask, models),
    )
    text, how_read = printed
    alike, how_near = near
    category, share = voted(alike)
    names = described["said"]
    title = titled(names, category)
    tags = [Label(label=each["label"], score=each["score"]) for each in names]
    if category:
        tags.append(Label(label=category, score=share))
    basis = ["title and tags: image.describe, whose names are of ImageNet's and COCO's things"]
    if alike:
        basis.append(f"category and recommendations: {how_near}")
    else:
        basis.append(f"no category and no recommendations: {how_near}")
    basis.append(f"text: {how_read}")
    return Product(
        title=title,
        description=sentences(described["text"], category, alike, text),
        category=category,
        tags=unlike(tags)[:MOST_TAGS],
        text=text,
        recommendations=alike[:recommend],
        basis=basis,
    )


def own(catalogue: Sequence[dict[str, Any]]) -> list[Thing]:
    """Return the caller's things; raise BadInput for what is none."""
    try:
        things = msgspec.convert(list(catalogue), list[Thing])
    except msgspec.ValidationError as error:
        raise BadInput(f"catalogue: {error}") from error
    bare = sum(each.vector is None for each in things)
    if bare > MOST_NAMED:
        raise BadInput(
            f"{bare} things of the catalogue have no vector; at most {MOST_NAMED} may: "
            "ask image.embed for those of their pictures before"
        )
    return things


async def nothing() -> tuple[list[str], str]:
    """Return what is printed on a thing that is not to be read."""
    return [], "not wanted"


async def words(image: Image, ask: Asker) -> tuple[list[str], str]:
    """Return the lines that are printed on a thing, and how they were found."""
    if image.blob is None:
        return [], "not looked for: the picture has no file of its own"
    try:
        (page,) = await ask.step("read", "document.read", document=image.blob)
    except (BadInput, TooLarge, *Unanswered) as error:
        return [], f"not looked for: {error}"
    lines = [line["label"].strip() for line in page["lines"]]
    # One letter is mostly a pattern.
    return [line for line in lines if sum(map(str.isalnum, line)) > 1], "document.read"


async def likenesses(
    image: Image, things: Sequence[Thing], ask: Asker, models: Models
) -> tuple[list[Alike], str]:
    """Return the catalogue's things, the nearest first, and by what they were compared."""
    try:
        vector = await ask.step("embed", "image.embed", image=image)
        if not things:
            near = await models.catalogue.run(vector=Tensor.of("float32", (1, VECTOR), vector))
            rows = (line.split("\t") for line in models.labels)
            found = [
                Alike(name=name, category=category, score=score)
                for (name, category), score in zip(rows, near[0].tolist(), strict=True)
            ]
            how = f"image.embed's nearest of a sample catalogue of {len(found)} things"
        else:
            found = [
                Alike(name=each.name, category=each.category, score=await score(each, vector, ask))
                for each in things
            ]
            how = f"image.embed's nearest of the {len(found)} things given"
    except Unanswered as error:
        return [], str(error)
    return sorted(found, key=lambda each: -each.score), how


async def score(thing: Thing, vector: Sequence[float], ask: Asker) -> float:
    """Return the cosine of a thing's vector, or its name's, with the photo's."""
    other = thing.vector or await ask("text.embed", text=Text(thing.name))
    length = sum(map(mul, other, other)) ** 0.5
    return sum(map(mul, vector, other)) / length if length else 0.0


def voted(alike: Sequence[Alike]) -> tuple[str, float]:
    """Return the category of most of the nearest, and its share, if it is large enough."""
    votes: dict[str, float] = {}
    for each in alike[:NEAREST]:
        votes[each.category] = votes.get(each.category, 0.0) + max(0.0, each.score)
    best = max(votes, key=votes.__getitem__, default="")
    share = votes[best] / sum(votes.values()) if best and votes[best] else 0.0
    return (best, share) if share >= SHARE else ("", 0.0)


def titled(names: Sequence[dict[str, Any]], category: str) -> str:
    """Return the first name as a title."""
    if names:
        name = names[0]["label"]
        sure = names[0]["score"] >= SHARE
        return name[:1].upper() + name[1:] if sure else f"Perhaps: {name}"
    return f"Something of {category}" if category else "Unnamed"


def sentences(seen: str, category: str, alike: Sequence[Alike], text: Sequence[str]) -> str:
    """Return what is seen, what is printed on it, and what it is like."""
    said = [seen]
    if text:
        said.append(f"It reads “{' '.join(text)[:200]}”.")
    if category:
        said.append(f"By what it looks like it is of {category}; nearest is: {alike[0].name}.")
    return " ".join(said)


def unlike(tags: Sequence[Label]) -> list[Label]:
    """Return tags without those that were there before."""
    seen: dict[str, Label] = {}
    for each in tags:
        seen.setdefault(each.label.lower(), each)
    return list(seen.values())
