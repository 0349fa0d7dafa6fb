"""How far two answers say the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.hosts.likeness import likeness
from trivium.nouns import Box, Label
from trivium.tensors import Tensor

CAT, DOG = Label(label="cat", score=0.9), {"label": "dog", "score": 0.7}
BOX = Box(label="cat", score=0.9, x=0.1, y=0.1, width=0.2, height=0.2)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ([1.0, 0.0], [1.0, 0.0], 1.0),
        ([1.0, 0.0], [0.0, 1.0], 0.0),
        ([1.0, 0.0], [1.0, 0.0, 0.0], None),
        ([CAT, DOG], [{"label": "cat", "score": 0.2}], 1.0),
        ([CAT], [DOG], 0.0),
        ([BOX, BOX], [BOX], 0.5),
        ([BOX], [], 0.0),
        ([], [], 1.0),
        ("a  cat", "a cat", 1.0),
        ("a cat", "a dog", 0.0),
        (["a", "b"], ["a", "c"], 0.5),
        (2.0, 1.0, 0.5),
        (True, True, 1.0),
        ({"text": "x", "n": 1}, {"text": "x", "n": 2}, 0.75),
        ({"a": 1}, {"b": 1}, None),
        (None, "x", None),
        (Tensor.of("float32", (2,), [1.0, 2.0]), [2.0, 4.0], 1.0),
    ],
)
def test_outputs_are_compared_by_what_they_are(one: Any, other: Any, found: float | None) -> None:
    """Vectors, labels, boxes, texts, numbers; what can't be compared gives nothing."""
    assert likeness(one, other) == (None if found is None else pytest.approx(found))


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(plain, plain)
def test_whatever_is_compared_gives_a_share_or_nothing(one: Any, other: Any) -> None:
    """Never an error: what is compared are answers of strangers' functions."""
    found = likeness(one, other)
    assert found is None or 0 <= found <= 1
