"""State that is carried on, and text that comes token by token."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trivium.sessions import Stream, carried


def test_state_is_carried_by_name() -> None:
    """A pattern's `*` is the same text on both sides; what the graph does not give is no state."""
    state = {"past_*": "present_*", "h": "h_next", "x.*.key": "y.*.key.new"}
    inputs = ["past_0", "past_1", "past_2", "h", "x.3.key", "x.3.value", "past", "hh"]
    outputs = ["present_0", "present_1", "h_next", "y.3.key.new", "logits"]
    assert carried(state, inputs, outputs) == {
        "past_0": "present_0",
        "past_1": "present_1",
        "h": "h_next",
        "x.3.key": "y.3.key.new",
    }
    assert carried({}, inputs, outputs) == {}


class Bytes:
    """A tokenizer whose tokens are bytes; 0 is special, and 1 begins with a space unless first."""

    def decode(self, ids: Sequence[int]) -> str:
        data = b"".join(
            (b" one" if at else b"one") if each == 1 else bytes([each])
            for at, each in enumerate(ids)
            if each
        )
        return data.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "text", ["plain", "é", "naïve 日本 👩‍👩‍👧‍👦!", "\ufffd", "a\ufffd\ufffdb", "e\u0301"]
)
def test_a_character_waits_for_all_of_its_bytes(text: str) -> None:
    """No piece holds half of one, and together they are the text."""
    stream = Stream(Bytes().decode)
    pieces = [stream.add(each) for each in text.encode()]
    assert "".join([*pieces, stream.end()]) == text
    if "\ufffd" not in text:
        assert [piece for piece in pieces if piece] == list(text)


def test_what_never_becomes_a_character_is_replaced() -> None:
    """At once where it can't go on, at the end where it could have; nothing waits for ever."""
    stream = Stream(Bytes().decode)
    pieces = [stream.add(each) for each in b"a\xff\xe2\x82b\xf0\x9f"]
    assert "".join([*pieces, stream.end()]) == "a\ufffd\ufffdb\ufffd"
    assert pieces[4] == "\ufffdb"
    assert stream.end() == ""


def test_tokens_are_decoded_after_those_before() -> None:
    """Some decoders treat the first word otherwise; several tokens may come at once."""
    stream = Stream(Bytes().decode)
    assert [stream.add(1), stream.add(1), stream.add(0), stream.add(1, 33), stream.end()] == [
        "one",
        " one",
        "",
        " one!",
        "",
    ]
