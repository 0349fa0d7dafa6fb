"""Only what is the same has the same name."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from trivium.contract import Ask, Blob, Tier
from trivium_cloud import names


def test_names_cannot_be_made_to_collide() -> None:
    """What moves from one field to the next, or only looks alike, is another name."""
    of = ("text.count", "digest", (), ("cloud", "m", "1"), {"a": 1}, (0.0, ()))

    def name(tenant: str = "t", of: Any = of, **inputs: Any) -> str | None:
        return names.digest(tenant, Ask(function="f", inputs=inputs), of, {})

    blob = Blob(media="image/png", data=b"x")
    different = [
        name(),
        name("t\0"),
        name("T"),
        name(a="b"),
        name(b="a"),
        name(a="b", c=""),
        name(a="bc"),
        name(**{"a\0": "b"}),
        name(a=blob),
        name(a=Blob(media="image/PNG", data=b"x")),
        name(a=Blob(media="image/pn", data=b"gx")),
        name(a=Blob(media="", data=b"image/pngx")),
        name(a="x"),
        name(of=(*of[:4], {"a": "1"}, of[5])),
        name(of=(*of[:4], {"a": True}, of[5])),
        name(of=(*of[:4], {"a": 1.0}, of[5])),
        name(of=(*of[:4], {"a": None}, of[5])),
        name(of=(*of[:4], {"a": float("nan")}, of[5])),
        name(of=(*of[:4], {"a": [1]}, of[5])),
        name(of=(*of[:4], {"a": 1, "b": None}, of[5])),
        name(of=(*of[:4], {}, of[5])),
        name(of=(*of[:5], (0.0, (Tier.CLOUD,)))),
    ]
    assert len(set(different)) == len(different)
    # The order in which a caller writes things is no difference.
    assert name(a="1", b="2") == name(b="2", a="1")
    assert name(of=(*of[:4], {"x": 1, "y": 2}, of[5])) == name(
        of=(*of[:4], {"y": 2, "x": 1}, of[5])
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), JSON_VALUES),
    st.dictionaries(st.text(max_size=3), JSON_VALUES),
)
def test_two_asks_have_one_name_only_if_they_are_equal(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whatever their options."""

    def name(options: dict[str, Any]) -> str | None:
        return names.digest("t", Ask(), ("f", options), {})

    if name(one) == name(other):
        assert repr(sorted(one.items())) == repr(sorted(other.items())) or one == other
