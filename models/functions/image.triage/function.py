"""What kind of medical picture is this, what is conspicuous where, and who should look at it?

A demonstration, not a diagnosis: every answer says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from trivium import Asker, Box, Image, Mask, Models, Tensor, Unanswered, function
from trivium.errors import BadInput, TooLarge
from trivium.nouns import Noun

NOTICE = "A demonstration, not a diagnosis: no part of this may guide anybody's care."

SURE = 0.6
"""How likely a kind must be to be told."""

SPOT = 0.13
"""How much darker than all around a spot must be: chosen on drawn spots."""

DISC = 1.2
"""How much brighter than the brightest ground the optic disc must be."""

STAINED, CELLS, SIDE = 0.5, 32, 0.03
RADIOLOGY, RETINA, TISSUE = "radiology", "retina", "stained tissue"
SPOTTED = "dark spot"

Urgency = Literal["a person should look at the marked places", "a person must look", "not medical"]


class Triage(Noun, frozen=True, kw_only=True):
    """A report: what kind of picture, what is where, and what it rests on.

    `kind` is empty where none is likely enough. `writing` says that there is writing in the
    picture, which may be about a person and is not repeated.
    """

    report: str
    notice: str
    kind: str
    kind_score: float
    urgency: Urgency
    places: list[Box]
    areas: list[Mask]
    writing: bool | None
    basis: list[str]


@function("image.triage")
async def triage(image: Image, ask: Asker, models: Models, writing: bool = True) -> Triage:
    """Sort a medical picture: its kind, conspicuous places, a report. Not a diagnosis.

    Knows photos of the retina, stained tissue and radiology's pictures (X-ray, CT, MR,
    ultrasound), of which it looks into the first two only. Without `writing` nothing is read.
    """
    (kind, score), read = await ask.together(
        classified(image, ask, models), written(image, ask, writing)
    )
    basis = ["kind: image.embed and a head trained on a handful of pictures"]
    places: list[Box] = []
    areas: list[Mask] = []
    urgency: Urgency = "a person must look"
    if kind == RETINA:
        places, said = await retina(image, models)
        if any(each.label == SPOTTED for each in places):
            urgency = "a person should look at the marked places"
        basis.append("places: classical operations for the optic disc and small dark spots")
    elif kind == TISSUE:
        areas, said = await tissue(image, models)
        basis.append("area: colour deconvolution for brown (DAB) stain")
    elif kind == RADIOLOGY:
        said = "A picture of radiology. Nothing was looked for in it: no model here is for that."
    elif kind:
        said = "This does not look like a medical picture of a kind that is known here."
        urgency = "not medical"
    else:
        said = "The kind of picture is unclear, so nothing was looked for in it."
    if read:
        said += " There is writing in the picture, which may be about a person; it is not repeated."
    if writing:
        how = "document.read" if read is not None else "could not be looked for"
        basis.append(f"writing: {how}")
    return Triage(
        report=f"{said} {NOTICE}",
        notice=NOTICE,
        kind=kind,
        kind_score=score,
        urgency=urgency,
        places=places,
        areas=areas,
        writing=read,
        basis=basis,
    )


async def classified(image: Image, ask: Asker, models: Models) -> tuple[str, float]:
    """Return the likeliest kind if it is likely enough, and how likely it is."""
    vector = await ask.step("classify", "image.embed", image=image)
    shares = await models.kinds.run(vector=Tensor.of("float32", (1, len(vector)), vector))
    score, kind = max(zip(shares[0].tolist(), models.labels, strict=True))
    return (kind if score >= SURE else ""), score


async def written(image: Image, ask: Asker, wanted: bool) -> bool | None:
    """Return whether there is writing of some length, if that can be found out."""
    if not wanted or image.blob is None:
        return None
    try:
        (page,) = await ask.step("read", "document.read", document=image.blob, plain=True)
    except (BadInput, TooLarge, *Unanswered):
        return None
    return sum(map(str.isalnum, page["text"])) >= 6


async def retina(image: Image, models: Models) -> tuple[list[Box], str]:
    """Return where the optic disc and small dark spots are, and a sentence on them."""
    found = await models.locate.run_all(pixels=image.pixels)
    (x, y, level), spots = found["disc"].tolist(), found["spots"].tolist()
    places = [around("optic disc", min(1.0, level / 2), x, y, 0.12)] if level >= DISC else []
    dark = [around(SPOTTED, score, *at, SIDE) for *at, score in spots if score >= SPOT]
    said = (
        "the brightest place, probably the optic disc, is marked" if places else "no disc is seen"
    )
    if dark:
        many = f"{len(dark)} small dark spot{'s' if len(dark) > 1 else ''}"
        said += f", and {many}, which may be vessels, dirt or something to look at"
    else:
        said += "; no conspicuous small dark spot was found, which says nothing about health"
    return places + dark, f"A photo of the retina: {said}."


def around(label: str, score: float, x: float, y: float, side: float) -> Box:
    """Return a box around a place, within the picture."""
    left, top = max(0.0, x - side / 2), max(0.0, y - side / 2)
    width, height = min(1.0, x + side / 2) - left, min(1.0, y + side / 2) - top
    return Box(label=label, score=score, x=left, y=top, width=width, height=height)


async def tissue(image: Image, models: Models) -> tuple[list[Mask], str]:
    """Return where tissue is stained brown, and a sentence on how much is."""
    brown = (await models.stain.run(pixels=image.pixels)).tolist()
    flat = [share >= STAINED for row in brown for share in row]
    share = sum(map(sum, brown)) / CELLS**2
    said = f"Stained tissue: {100 * share:.0f} % of the picture are brown (DAB)."
    if not any(flat):
        return [], said
    return [Mask(label="brown stain", width=CELLS, height=CELLS, runs=runs(flat))], said


def runs(cells: Sequence[bool]) -> list[int]:
    """Return the lengths of runs outside and inside, in turn."""
    row, inside = [0], False
    for each in cells:
        if each != inside:
            row.append(0)
            inside = each
        row[-1] += 1
    return row
