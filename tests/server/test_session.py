"""Real graphs on onnxruntime."""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Iterator

import msgspec
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from samples import first_graph, graph, second_graph, total_graph
from trivium.contract import Resident, Tensor
from trivium.errors import BundleError, RunFailed
from trivium.hosts.server.session import Lanes, OrtSession, open_graph


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    """Return the threads that graphs run in."""
    made = Lanes()
    yield made
    made.pool.shutdown()


def floats(*values: float) -> Tensor:
    """Return float32 [n]."""
    return Tensor(dtype="float32", shape=(len(values),), data=array("f", values).tobytes())


def session(lanes: Lanes, *graphs: bytes, gpu: bool = False) -> OrtSession:
    """Return a session over graphs that run in a row."""
    return OrtSession([open_graph("toy.onnx", data, gpu) for data in graphs], lanes)


def test_a_graph_answers_by_name(lanes: Lanes) -> None:
    """Outputs come as tensors, in C order."""
    outputs = asyncio.run(session(lanes, first_graph()).run({"x": floats(1, 2)}))
    assert list(outputs) == ["y"]
    assert outputs["y"].tolist() == [3.0, 5.0]
    assert (outputs["y"].dtype, outputs["y"].shape) == ("float32", (2,))


def test_a_single_number_has_no_axis(lanes: Lanes) -> None:
    """As in the page: an author writes `.tolist()` and has a number."""
    made = helper.make_graph(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
        "toy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    opsets = [helper.make_opsetid("", 17)]
    data = helper.make_model(made, opset_imports=opsets, ir_version=8).SerializeToString()
    total = asyncio.run(session(lanes, data).run({"x": floats(1, 2)}))["y"]
    assert (total.shape, total.tolist(), total.argmax()) == ((), 3.0, 0)
    assert total.softmax().tolist() == 1.0
    assert msgspec.msgpack.encode(total)


def test_graphs_in_a_row_feed_each_other(lanes: Lanes) -> None:
    """The first one's output is the second one's input, and only the last one's come out."""
    outputs = asyncio.run(session(lanes, first_graph(), second_graph()).run({"x": floats(1, 2)}))
    assert {name: each.tolist() for name, each in outputs.items()} == {"z": [30.0, 50.0]}


def test_a_later_graph_may_take_what_was_given(lanes: Lanes) -> None:
    """An input that is no output of an earlier graph comes from the caller."""
    tail = graph("x", "w", ("Add", "x", 100.0, "w"))
    made = session(lanes, first_graph(), tail)
    assert asyncio.run(made.run({"x": floats(1)}))["w"].tolist() == [101.0]


def test_a_missing_input_is_named(lanes: Lanes) -> None:
    """So are those that it takes, and those it was given."""
    made = session(lanes, first_graph(), second_graph())
    with pytest.raises(RunFailed, match=r"takes x; missing: x \(given: pixels\)"):
        asyncio.run(made.run({"pixels": floats(1)}))
    apart = session(lanes, second_graph(), first_graph())
    with pytest.raises(RunFailed, match=r"takes x; missing: x \(given: y\)"):
        asyncio.run(apart.run({"y": floats(1)}))


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        (Tensor(dtype="float32", shape=(1, 1), data=bytes(4)), "Invalid rank for input: x"),
        (Tensor(dtype="int64", shape=(1,), data=bytes(8)), "Unexpected input data type"),
        (Tensor(dtype="float32", shape=(3,), data=bytes(4)), r"x is no float32 of shape \(3,\)"),
        (Tensor(dtype="float32", shape=(1,), data=bytes(3)), r"x is no float32 of shape \(1,\)"),
        (Tensor(dtype="float99", shape=(1,), data=bytes(4)), "x is no float99"),
        (Tensor(dtype="object", shape=(1,), data=bytes(8)), "x is no object"),
        (Resident("float32", (1,), object()), "x is resident on another tier"),
    ],
)
def test_a_wrong_tensor_is_named(lanes: Lanes, feed: Tensor | Resident, said: str) -> None:
    """Rank, type and size are checked before or by onnxruntime, and never crash it."""
    with pytest.raises(RunFailed, match=said):
        asyncio.run(session(lanes, first_graph()).run({"x": feed}))


@pytest.mark.parametrize("data", [b"", b"garbage", first_graph()[:-20], b"\x08\x08" + bytes(500)])
@pytest.mark.parametrize("gpu", [True, False])
def test_garbage_is_no_graph(data: bytes, gpu: bool) -> None:
    """The file is named."""
    with pytest.raises(BundleError, match=r"toy\.onnx (is no ONNX graph|has IR version 0)"):
        open_graph("toy.onnx", data, gpu)


def test_a_graph_that_onnxruntime_refuses_is_named() -> None:
    """What is well-formed may still make no sense."""
    with pytest.raises(BundleError, match=r"onnxruntime can't load toy\.onnx: "):
        open_graph("toy.onnx", first_graph().replace(b"Mul", b"Mol"), False)


def test_the_device_is_what_the_session_got(lanes: Lanes) -> None:
    """Where a GPU is wanted and none is there, the processor is said to be used."""
    assert session(lanes, first_graph()).providers == ["CPUExecutionProvider"]
    wanted = session(lanes, first_graph(), gpu=True).providers
    assert wanted[-1] == "CPUExecutionProvider"
    assert set(wanted) <= set(ort.get_available_providers())


def test_warming_never_fails(lanes: Lanes) -> None:
    """Zeros of the open dimensions may suit a graph or not."""
    session(lanes, first_graph(), second_graph()).warm()
    session(lanes, second_graph(), first_graph()).warm()


def test_nothing_may_go_in_and_come_out(lanes: Lanes) -> None:
    """A tensor without elements is one that can be read."""
    outputs = asyncio.run(session(lanes, first_graph(), second_graph()).run({"x": floats()}))
    assert outputs["z"].shape == (0,)
    assert outputs["z"].tolist() == []


STATE = {"past_*": "present_*"}


def stateful(lanes: Lanes, gpu: bool = False) -> OrtSession:
    """Return a session that sums all it was ever given in a sequence."""
    return OrtSession([open_graph("toy.onnx", total_graph(), gpu)], lanes, STATE)


def row(*values: float) -> Tensor:
    """Return float32 [1, n]."""
    return Tensor.of("float32", (1, len(values)), values)


@pytest.mark.parametrize("gpu", [True, False])
def test_a_sequence_keeps_its_state_in_onnxruntime(lanes: Lanes, gpu: bool) -> None:
    """Only what is no state comes out; the state is onnxruntime's own value, never an array."""
    made = stateful(lanes, gpu)
    made.warm()

    async def steps(**first: Tensor) -> list[float]:
        sequence = made.start(first)
        found = []
        for values in ([1.0], [2.0, 3.0], [4.0]):
            outputs = await sequence.run({"x": row(*values)})
            assert list(outputs) == ["total"]
            found += outputs["total"].tolist()
        held = sequence.state()["past_x"]
        assert isinstance(held.handle, ort.OrtValue)
        assert held.shape == (1, 4 + 2 * len(first))
        sequence.close()
        assert sequence.state() == {}
        return found

    assert asyncio.run(steps()) == [1.0, 6.0, 10.0]
    assert asyncio.run(steps(past_x=row(5.0, 5.0))) == [11.0, 16.0, 20.0]


def test_sequences_do_not_mix(lanes: Lanes) -> None:
    """Each has its own state, side by side."""
    made = stateful(lanes)

    async def count(step: float) -> list[float]:
        sequence = made.start({})
        return [(await sequence.run({"x": row(step)}))["total"].tolist()[0] for _ in range(20)]

    async def both() -> list[list[float]]:
        return list(await asyncio.gather(count(1.0), count(2.0)))

    assert asyncio.run(both()) == [
        [float(i) for i in range(1, 21)],
        [2.0 * i for i in range(1, 21)],
    ]


def test_a_failed_step_leaves_the_state(lanes: Lanes) -> None:
    """A wrong feed is named, and the next one goes on from before."""

    async def steps() -> list[float]:
        sequence = stateful(lanes).start({})
        await sequence.run({"x": row(1.0)})
        with pytest.raises(RunFailed, match="missing: x"):
            await sequence.run({"y": row(1.0)})
        with pytest.raises(RunFailed, match="the model failed"):
            await sequence.run({"x": floats(1.0)})
        found: list[float] = (await sequence.run({"x": row(1.0)}))["total"].tolist()
        return found

    assert asyncio.run(steps()) == [2.0]


def test_outputs_may_stay_and_be_fed(lanes: Lanes) -> None:
    """To another model's run, as state to begin with, or as a fixed input of each step."""

    async def chain() -> tuple[list[float], list[float], list[float]]:
        kept = (await session(lanes, first_graph()).keep({"x": floats(1, 2)}))["y"]
        assert (kept.dtype, kept.shape) == ("float32", (2,))
        onward = await session(lanes, second_graph()).run({"y": kept})
        made = stateful(lanes)
        rows = await made.keep({"x": row(1.0), "past_x": row(2.0)})
        begun = made.start({"past_x": rows["present_x"]})
        fixed = made.start({"x": row(3.0)})
        await fixed.run({})
        return (
            onward["z"].tolist(),
            (await begun.run({"x": row(4.0)}))["total"].tolist(),
            (await fixed.run({}))["total"].tolist(),
        )

    assert asyncio.run(chain()) == ([30.0, 50.0], [7.0], [6.0])


def test_asks_side_by_side_do_not_mix(lanes: Lanes) -> None:
    """Each gets its own answer."""
    made = session(lanes, first_graph(), second_graph())

    async def many() -> list[float]:
        outputs = await asyncio.gather(*(made.run({"x": floats(i)}) for i in range(50)))
        return [each["z"].tolist()[0] for each in outputs]

    assert asyncio.run(many()) == [20.0 * i + 10 for i in range(50)]


def test_short_work_runs_at_once_if_it_is_alone(lanes: Lanes) -> None:
    """Else in a thread, as everything does the first time, so that the event loop goes on."""

    async def all_ways() -> list[bool]:
        here = threading.get_ident()

        def elsewhere() -> bool:
            return threading.get_ident() != here

        first = await lanes.run(elsewhere, "short")
        alone = await lanes.run(elsewhere, "short")
        held = threading.Event()
        long = asyncio.ensure_future(lanes.run(held.wait))
        await asyncio.sleep(0)
        beside = asyncio.ensure_future(lanes.run(elsewhere, "short"))
        await asyncio.sleep(0)
        held.set()
        await long
        unknown = await lanes.run(elsewhere)
        return [first, alone, await beside, unknown]

    assert asyncio.run(all_ways()) == [True, False, True, True]
