"""What does a text say that is too long for a language model, in few words?"""

from __future__ import annotations

from typing import Annotated, Any

from trivium import Asker, Meta, Text, function
from trivium.errors import TooLarge, UnknownFunction
from trivium.texts import split

PIECE = 384
"""Tokens of a piece, about: with the instruction they fit the page's text.generate, too."""

MOST = 64
LEAST_NOTE, MOST_NOTE = 24, 96
"""Tokens of what is noted of a piece: as many as all notes together may have, but no fewer."""

ROUNDS = 4


@function("text.condense")
async def condense(
    text: Text,
    ask: Asker,
    instruction: Annotated[str, Meta(min_length=1, max_length=400)] = (
        "Summarize the following text in two sentences."
    ),
    max_tokens: Annotated[int, Meta(ge=16, le=256)] = 96,
) -> dict[str, Any]:
    """Note what each piece of a text says, then what the notes say: `text` and the `notes`.

    `instruction` is what is asked of each piece and of the notes.
    """
    pieces = split(text, _estimate, PIECE)
    if len(pieces) > MOST:
        raise TooLarge(
            f"the text has {len(text)} characters in {len(pieces)} pieces; at most {MOST} pieces "
            f"of about {PIECE} tokens are allowed"
        )
    try:
        notes: list[str] = []
        for _ in range(ROUNDS):
            if len(pieces) == 1:
                break
            size = max(LEAST_NOTE, min(MOST_NOTE, PIECE // len(pieces)))
            works = [_said(ask, "map", instruction, piece, size) for piece in pieces]
            found = await ask.together(*works)
            notes = notes or found
            # Each round leaves a fraction of the one before.
            pieces = split("\n\n".join(filter(None, found)) or "-", _estimate, PIECE)
        said = await _said(ask, "reduce", instruction, pieces[0], max_tokens)
    except UnknownFunction as error:
        raise UnknownFunction(
            f"text.condense asks text.generate, and that is not to be had: {error.message} "
            "(it is fetched by: trivium models pull text.generate)"
        ) from error
    return {"text": said, "notes": notes}


async def _said(ask: Asker, name: str, instruction: str, piece: str, size: int) -> str:
    """Return what text.generate says of a piece; one with more tokens than thought is halved."""
    try:
        words = await ask.step(
            name, "text.generate", text=Text(f"{instruction}\n\n{piece}"), max_tokens=size
        )
    except TooLarge:
        halves = split(piece, len, max(1, len(piece) // 2 + 1))
        if len(halves) < 2:
            raise
        return " ".join([await _said(ask, name, instruction, half, size) for half in halves])
    return "".join(words).strip()


def _estimate(piece: str) -> int:
    """Return about how many tokens a piece has: four letters of English each, or one of Chinese."""
    return len(piece.encode()) // 4 + 1
