"""A tensor's loops: what they give, and that C gives the same bits."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from trivium.contract import CODES, Resident, Tensor
from trivium.errors import BadInput
from trivium.loops import Loops, Python, compiled, fastest, python, use

numpy: Loops | None
try:
    from trivium.hosts.server.loops import NumPy
except ImportError:  # in the page
    numpy = None
else:
    numpy = NumPy()

OTHERS = {"trivium_loops": compiled, "numpy": numpy}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38]


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> Loops:
    """Return the loops that are not in Python, each where it is."""
    found = OTHERS[request.param]
    if found is None:
        pytest.skip(f"{request.param} is not here")
    return found


@pytest.fixture(params=["python", *OTHERS])
def loops(request: pytest.FixtureRequest) -> Loops:
    """Return the loops in Python, then the others."""
    found = {"python": python, **OTHERS}[request.param]
    if found is None:
        pytest.skip(f"{request.param} is not here")
    return found


def floats(*values: float) -> memoryview[float]:
    """Return a view as a tensor has it."""
    return memoryview(array("f", values).tobytes()).cast("B").cast("f")


def cases(count: int, most: int) -> Iterator[tuple[random.Random, memoryview[float]]]:
    """Yield numbers of every size, with ties, and now and then what isn't a usual number."""
    dice = random.Random(20261122)
    for i in range(count):
        size = dice.randint(0, most)
        kind = i % 4
        if kind == 0:
            values = [dice.gauss(0, 10) for _ in range(size)]
        elif kind == 1:
            values = [float(dice.randint(-3, 3)) for _ in range(size)]
        elif kind == 2:
            values = [dice.choice([dice.gauss(0, 1), dice.choice(SPECIAL)]) for _ in range(size)]
        else:
            # Any bits at all; unaligned as well.
            data = b"\0" + dice.randbytes(4 * size)
            yield dice, memoryview(data)[1:].cast("f")
            continue
        yield dice, floats(*values)


def bits(data: bytes) -> list[int | None]:
    """Return float32 as bits; NaN, whose sign and payload mean nothing, as None."""
    numbers, words = array("f", data), array("I", data)
    return [None if math.isnan(x) else word for x, word in zip(numbers, words, strict=True)]


def pairs(found: list[tuple[int, float]]) -> list[tuple[int, str]]:
    """Return what can be compared though NaN is in it, and -0.0."""
    return [(i, repr(value)) for i, value in found]


def test_topk_is_a_stable_sort_with_nan_last(loops: Loops) -> None:
    """The largest first, of equals the first first, whatever the numbers are."""
    for dice, values in cases(400, 80):
        order = sorted(range(len(values)), key=lambda i: (values[i] != values[i], -values[i], i))
        order = [i for i in order if values[i] == values[i]]
        order += [i for i in range(len(values)) if values[i] != values[i]]
        k = dice.choice([0, 1, 5, len(values), dice.randint(0, len(values))])
        k = min(k, len(values))
        assert pairs(loops.topk(values, k)) == pairs([(i, float(values[i])) for i in order[:k]])


def test_softmax_sums_to_one_or_is_nan(loops: Loops) -> None:
    """One number that is none spoils its row, and no other."""
    rows = floats(1000, 1000, 0, math.log(3), math.nan, 0, math.inf, 0, -math.inf, 0)
    found = array("f", loops.softmax(rows, 2))
    assert found[:2].tolist() == [0.5, 0.5]
    assert found[2:4].tolist() == pytest.approx([0.25, 0.75])
    assert all(map(math.isnan, found[4:8]))
    assert found[8:].tolist() == [0, 1]
    for _, values in cases(100, 300):
        if len(values) and all(map(math.isfinite, values)):
            assert sum(array("f", loops.softmax(values, len(values)))) == pytest.approx(1)


def test_mean_takes_what_the_mask_keeps(loops: Loops) -> None:
    """As sentence-transformers: the sum of what is kept by its count; of nothing, zeros."""
    vectors = floats(1, 2, 3, 5, math.nan, math.inf)
    assert array("f", loops.mean(vectors, b"\1\1\0")).tolist() == [2, 3.5]
    assert array("f", loops.mean(vectors, b"\0\1\0")).tolist() == [3, 5]
    assert array("f", loops.mean(vectors, b"\0\0\0")).tolist() == [0, 0]
    assert bits(loops.mean(vectors, b"\1\1\1")) == [None, 0x7F800000]


def test_all_give_the_same_bits(other: Loops) -> None:
    """The arithmetic is the same, in double and in the same order: there is no tolerance."""
    for dice, values in cases(600, 120):
        size = len(values)
        for k in (0, 1, 5, size, dice.randint(0, size)):
            k = min(k, size)
            assert pairs(other.topk(values, k)) == pairs(python.topk(values, k))
        width = dice.choice([n for n in range(1, size + 2) if size % n == 0])
        assert bits(other.softmax(values, width)) == bits(python.softmax(values, width))
        mask = bytes(dice.choice([0, 1, 1, 255]) for _ in range(width))
        assert bits(other.mean(values, mask)) == bits(python.mean(values, mask))
    dice = random.Random(1)
    large = floats(*(dice.gauss(0, 100) for _ in range(300 * 64)))
    assert pairs(other.topk(large, 9)) == pairs(python.topk(large, 9))
    mask = bytes(dice.choice([0, 1]) for _ in range(300))
    assert bits(other.mean(large, mask)) == bits(python.mean(large, mask))


def test_sizes_that_do_not_fit_are_refused(loops: Loops) -> None:
    """A width may come from anywhere."""
    for width in (-(2**31), -1, 0, 2, 4, 2**31 - 1):
        with pytest.raises(ValueError, match=f"3 numbers do not make rows of {width}"):
            loops.softmax(floats(1, 2, 3), width)
    for mask in (b"", b"\1\1", b"\1" * 4):
        with pytest.raises(ValueError, match=f"3 numbers do not make {len(mask)} rows"):
            loops.mean(floats(1, 2, 3), mask)
    assert loops.softmax(floats(), 7) == b""
    assert loops.mean(floats(), b"\1\1") == b""
    assert loops.topk(floats(), 0) == loops.topk(floats(1, math.nan), -1) == []


@pytest.mark.skipif(compiled is None, reason="trivium_loops is not installed")
def test_c_takes_nothing_but_float32() -> None:
    """Another buffer is refused before it is read."""
    assert compiled is not None
    strange: list[Any] = [None, "text", 1.5, b"12345678", array("d", [1.0]), array("i", [1])]
    strange.append(memoryview(array("f", range(8)))[::2])
    for each in strange:
        calls: list[tuple[Callable[..., object], object]]
        calls = [(compiled.topk, 1), (compiled.softmax, 1), (compiled.mean, b"\1")]
        for call, other in calls:
            with pytest.raises((TypeError, BufferError)):
                call(each, other)
    one = floats(1)
    with pytest.raises(TypeError):
        compiled.mean(one, bytearray(1))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        compiled.topk(one, 1.0)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        compiled.topk(one, 2**80)
    assert compiled.topk(one, 2**30) == compiled.topk(one, 1) == [(0, 1.0)]


@pytest.mark.parametrize("dtype", CODES)
def test_every_dtype_has_its_loops(dtype: str) -> None:
    """What C does not take is Python's."""
    data = array({"?": "B"}.get(CODES[dtype], CODES[dtype]), [0, 1, 1, 0]).tobytes()
    tensor = Tensor(dtype=dtype, shape=(2, 2), data=data)
    assert dtype == "float32" or fastest(tensor.values) is python
    assert tensor.topk(3) == [(1, 1.0), (2, 1.0), (0, 0.0)]
    assert tensor.argmax() == 1
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    assert tensor.softmax().tolist() == [pytest.approx([low, high]), pytest.approx([high, low])]
    assert tensor.mean().tolist() == [0.5, 0.5]


def test_a_world_brings_its_own_loops() -> None:
    """Only float32 is computed by them."""
    before = fastest(floats(1))
    mine = Python()
    use(mine)
    try:
        assert fastest(floats(1)) is mine
        assert fastest(memoryview(array("d", [1.0]))) is python
    finally:
        use(before)


def test_a_tensor_takes_any_count() -> None:
    """More than there are is all of them; below zero is none."""
    tensor = Tensor(dtype="float32", shape=(2,), data=array("f", [1, 2]).tobytes())
    assert tensor.topk(2**80) == [(1, 2.0), (0, 1.0)]
    assert tensor.topk(-(2**80)) == []
    with pytest.raises(IndexError):
        Tensor(dtype="float32", shape=(0,), data=b"").argmax()


def test_softmax_takes_any_shape() -> None:
    """Without elements there is nothing to do, and one number is sure."""
    assert Tensor(dtype="float32", shape=(2, 0), data=b"").softmax().tolist() == [[], []]
    assert Tensor(dtype="float32", shape=(0, 2**80), data=b"").softmax().data == b""
    with pytest.raises(BadInput, match="2 numbers do not fill the shape"):
        Tensor(dtype="float32", shape=(2**80,), data=bytes(8)).softmax()
    one = Tensor(dtype="float32", shape=(), data=array("f", [3]).tobytes())
    assert one.softmax().tolist() == 1


def test_a_texts_vectors_are_averaged() -> None:
    """With the tokenizer's mask or without, and with the batch's axis or without."""
    data = array("f", [1, 2, 3, 4, 50, 60]).tobytes()
    mask = Tensor(dtype="int64", shape=(1, 3), data=array("q", [1, 1, 0]).tobytes())
    for shape in ((3, 2), (1, 3, 2)):
        vectors = Tensor(dtype="float32", shape=shape, data=data)
        pooled = vectors.mean(mask)
        assert (pooled.dtype, pooled.shape, pooled.tolist()) == ("float32", (2,), [2, 3])
        assert vectors.mean().tolist() == [18, 22]
        assert vectors.mean(Resident("int64", (1, 3), None)).tolist() == [18, 22]
        with pytest.raises(BadInput, match="a mask of 2 does not fit 3 vectors"):
            vectors.mean(Resident("int64", (1, 2), None))


@pytest.mark.parametrize(
    ("shape", "kept"),
    [
        ((6,), 6), ((), 1), ((2, 3, 1), 2), ((1, 1, 3, 2), 3),
        ((3, 2), 2), ((3, 2), 4), ((0, 2), 0), ((3, 3), 3), ((2**40, 2**40), 3), ((-3, -2), 3),
    ],
)  # fmt: skip
def test_vectors_and_mask_must_fit(shape: tuple[int, ...], kept: int) -> None:
    """Both may come from anywhere."""
    vectors = Tensor(dtype="float32", shape=shape, data=bytes(24))
    mask = Tensor(dtype="uint8", shape=(kept,), data=b"\1" * kept)
    with pytest.raises(BadInput, match="is not of vectors|does not fit"):
        vectors.mean(mask)


def test_a_shape_claims_no_memory() -> None:
    """Without a mask nothing is as long as the shape says before its numbers are counted."""
    for shape in ((2**60, 0), (0, 2**60), (2**30, 2**30)):
        with pytest.raises(BadInput, match="is not of vectors"):
            Tensor(dtype="float32", shape=shape, data=b"").mean()
