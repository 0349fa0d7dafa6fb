"""The nouns, and the bytes they become."""

from __future__ import annotations

import json
import math
import random
import struct
from array import array

import msgspec
import pytest

from trivium.contract import (
    JSON,
    MSGPACK,
    Answer,
    Ask,
    Blob,
    Budget,
    Fault,
    Frames,
    Part,
    Plan,
    Problem,
    Tensor,
    Tier,
    Times,
    decode,
    encode,
    frame,
)
from trivium.errors import ERRORS, BadInput, TooLarge, TriviumError
from trivium.nouns import Box, Label, Mask


def floats(*values: float, shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(
        dtype="float32",
        shape=(len(values),) if shape is None else shape,
        data=array("f", values).tobytes(),
    )


def test_tiers_know_their_distance() -> None:
    """The page is nearest, the cloud farthest."""
    assert [tier.distance for tier in Tier] == [0, 1, 2]


def test_a_tensor_gives_nested_lists() -> None:
    """The shape decides the nesting."""
    assert floats(1, 2, 3, 4, 5, 6, shape=(2, 3)).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert floats(7, shape=()).tolist() == 7
    assert floats(shape=(0,)).tolist() == []
    assert floats(shape=(2, 0)).tolist() == [[], []]
    assert floats(*range(24), shape=(2, 3, 4)).tolist()[1][2] == [20, 21, 22, 23]
    assert Tensor(dtype="int64", shape=(1, 2), data=array("q", [5, -6]).tobytes()).tolist() == [
        [5, -6]
    ]


def test_a_tensor_is_indexed_along_its_first_axis() -> None:
    """An index drops the axis, a slice keeps it."""
    matrix = floats(1, 2, 3, 4, 5, 6, shape=(3, 2))
    assert len(matrix) == 3
    assert matrix[1].tolist() == [3, 4]
    assert matrix[-1].tolist() == [5, 6]
    assert matrix[1:].tolist() == [[3, 4], [5, 6]]
    assert matrix[2:1].shape == (0, 2)
    with pytest.raises(IndexError):
        matrix[3]
    with pytest.raises(IndexError, match="step 2"):
        matrix[::2]
    with pytest.raises(IndexError, match="no axis"):
        floats(1, shape=())[0]


def test_a_tensor_ranks_its_elements() -> None:
    """The best come first, with their labels."""
    scores = floats(0.1, 0.7, 0.2, shape=(1, 3))
    assert scores.argmax() == 1
    assert [i for i, _ in scores.topk(2)] == [1, 2]
    assert [each.label for each in scores.top(9, ["a", "b", "c"])] == ["b", "c", "a"]
    with pytest.raises(BadInput, match="2 labels do not fit"):
        scores.top(1, ["a", "b"])


def test_softmax_works_along_the_last_axis() -> None:
    """Each row sums to one, and large numbers do not overflow."""
    rows = floats(1000, 1000, 0, math.log(3), shape=(2, 2)).softmax().tolist()
    assert rows[0] == [0.5, 0.5]
    assert rows[1] == pytest.approx([0.25, 0.75])


def test_an_unknown_dtype_is_refused() -> None:
    """A tensor from elsewhere may claim anything."""
    with pytest.raises(BadInput, match="'float128' is not one of bool"):
        _ = Tensor(dtype="float128", shape=(1,), data=b"").values


@pytest.mark.parametrize("ms", [0, -1, math.nan, math.inf, -math.inf])
def test_a_budget_must_be_possible(ms: float) -> None:
    """Time is finite and above zero, on the wire as in code."""
    with pytest.raises(ValueError, match="finite number above 0"):
        Budget(ms=ms)
    with pytest.raises(BadInput, match="finite number above 0"):
        decode(msgspec.msgpack.encode({"budget": {"ms": ms}}), Ask)


@pytest.mark.parametrize("quality", [-0.1, 1.1, math.nan])
def test_a_quality_floor_is_a_share(quality: float) -> None:
    """Quality is relative to the full variant."""
    with pytest.raises(ValueError, match="from 0 to 1"):
        Budget(quality=quality)


@pytest.mark.parametrize("media", [JSON, MSGPACK])
def test_an_ask_survives_the_wire(media: str) -> None:
    """What was packed is what is unpacked."""
    ask = Ask(
        function="image.classify",
        inputs={"image": Blob(media="image/png", data=b"\x00\xff"), "text": "größer 大"},
        options={"top": 3, "deep": [1, {"a": None}]},
        budget=Budget(ms=12.5, quality=0.5, reach=Tier.EDGE),
        tiers=(Tier.EDGE,),
    )
    assert decode(encode(ask, media), Ask, media) == ask


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"budget": {"reach": "moon"}}', "moon"),
        (b'{"inputs": {"text": 7}}', r"\$.inputs"),
        (b'{"function": "\xff"}', "utf-8|UTF-8"),
        (b"[" * 100_000, "recursion|Expected"),
    ],
)
def test_bad_json_names_its_place(body: bytes, said: str) -> None:
    """The message says what is wrong and where."""
    with pytest.raises(BadInput, match=said):
        decode(body, Ask, JSON)


def test_unknown_fields_are_skipped() -> None:
    """An older tier understands what a newer one sends."""
    assert decode(b'{"function": "a.b", "since_2030": 1}', Ask, JSON).function == "a.b"


def test_every_error_crosses_as_a_fault() -> None:
    """Code, message, tier and place arrive as the same class."""
    for code, kind in ERRORS.items():
        sent = kind("what happened", tier="edge", where="f.py, line 1", retry_after=2.0)
        back = decode(encode(Fault.of(sent)), Fault).error()
        assert type(back) is kind
        assert (back.code, back.message, back.tier) == (code, "what happened", "edge")
        assert (back.where, back.retry_after) == ("f.py, line 1", 2.0)


def test_every_error_is_told_as_a_problem() -> None:
    """RFC 9457's members, ours beside them, and the same error on the way back."""
    for code, kind in ERRORS.items():
        sent = kind("what happened", tier="edge", retry_after=2.0)
        told = json.loads(encode(Problem.of(sent), JSON))
        assert told.pop("title")
        assert told == {
            "kind": "fault",
            "type": f"urn:trivium:error:{code}",
            "status": kind.status,
            "detail": "what happened",
            "code": code,
            "tier": "edge",
            "retry_after": 2.0,
        }
        back = decode(encode(Problem.of(sent), JSON), Problem, JSON).error()
        assert type(back) is kind
        assert (back.message, back.tier, back.retry_after) == ("what happened", "edge", 2.0)
    assert Problem.of(Fault(code="melted", message="?"), 418).status == 418


def test_an_unknown_code_is_internal() -> None:
    """A newer tier may name errors we do not know."""
    assert type(Fault(code="melted", message="?").error()) is TriviumError


def an_answer() -> Answer:
    return Answer(
        function="a.b",
        version="1",
        output=[Label(label="x", score=0.5)],
        tier=Tier.EDGE,
        model="m",
        plan=Plan(tiers=(Tier.EDGE,), reason="r"),
        ms=Times(decode=1, python=2, run=3, hop=4),
    )


def test_frames_survive_any_cut() -> None:
    """However the bytes arrive, the same parts come out, in order."""
    parts: list[Part | Answer | Fault] = [Part(output=i) for i in range(20)]
    parts += [an_answer(), Fault(code="x", message="y")]
    data = b"".join(frame(part) for part in parts)
    dice = random.Random(7)
    for _ in range(100):
        frames, found, rest = Frames(), [], data
        while rest:
            cut = dice.randint(1, 40)
            found += list(frames.feed(rest[:cut]))
            rest = rest[cut:]
        assert [type(each) for each in found] == [type(each) for each in parts]
        assert [each.output for each in found[:20]] == list(range(20))  # type: ignore[union-attr]


def test_a_huge_frame_is_refused_before_it_is_kept() -> None:
    """Four bytes can claim four gigabytes."""
    with pytest.raises(TooLarge, match="above the limit of 100"):
        list(Frames(most=100).feed(b"\xff\xff\xff\xff"))


def test_a_frame_is_length_and_messagepack() -> None:
    """The golden bytes: other implementations rely on them."""
    assert frame(Part(output=1)) == struct.pack(">I", 19) + b"\x82\xa4kind\xa4part\xa6output\x01"


def test_times_add_up() -> None:
    """The split sums to the whole."""
    assert an_answer().ms.total == 10


def test_boxes_and_masks_are_plain_json() -> None:
    """As the README states them: one flat object each, nothing to decode."""
    box = Box(label="cat", score=0.5, x=0.25, y=0.5, width=0.5, height=0.125)
    assert msgspec.to_builtins(box) == {
        "label": "cat",
        "score": 0.5,
        "x": 0.25,
        "y": 0.5,
        "width": 0.5,
        "height": 0.125,
    }
    mask = Mask(label="person", width=3, height=2, runs=[1, 4, 1])
    assert decode(encode(mask, JSON), Mask, JSON) == mask


def test_a_tensor_is_made_of_numbers() -> None:
    """By dtype and shape; what does not fit is refused."""
    made = Tensor.of("int64", (1, 3), [7, 8, 9])
    assert (made.dtype, made.shape, made.tolist()) == ("int64", (1, 3), [[7, 8, 9]])
    assert Tensor.of("float32", (2, 0), []).tolist() == [[], []]
    assert Tensor.of("bool", (2,), [0, 7]).tolist() == [False, True]
    with pytest.raises(BadInput, match=r"2 numbers do not fill the shape \(3,\)"):
        Tensor.of("float32", (3,), [1, 2])
    with pytest.raises(BadInput, match="dtype 'float99' is not one of bool"):
        Tensor.of("float99", (1,), [1])
