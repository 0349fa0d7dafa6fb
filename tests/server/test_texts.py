"""Is any text cut without loss? Beside the other tests: Pyodide has no hypothesis."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from trivium.texts import split


def words(text: str) -> int:
    """Count as most tokenizers do: words, marks, and each Chinese letter."""
    return len(re.findall(r"[a-zA-Z0-9]+|[^\sa-zA-Z0-9]", text))


LETTERS = st.text(alphabet="ab Z.!?,;:\n。，！ \t\u3000\"'é𝔸-", max_size=200)  # noqa: RUF001


@given(LETTERS | st.text(max_size=60), st.integers(1, 30), st.sampled_from([words, len]))
def test_nothing_is_lost_and_nothing_too_long(text: str, most: int, count: object) -> None:
    """Of any text; a piece begins and ends with what is no space."""
    assert callable(count)
    pieces = split(text, count, most)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(count(piece) <= most for piece in pieces)
    assert all(piece == piece.strip() != "" for piece in pieces)


@given(st.lists(st.sampled_from(["one", "two.", "Three!", "4,"]), min_size=1), st.integers(2, 9))
def test_no_word_is_cut_that_fits(parts: list[str], most: int) -> None:
    """Each piece is made of whole words."""
    pieces = split(" ".join(parts), words, most)
    assert [word for piece in pieces for word in piece.split()] == parts
