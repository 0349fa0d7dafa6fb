"""How does onnxruntime run a variant's graphs?"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ...contract import CODES, Resident, Tensor
from ...errors import BundleError, RunFailed
from ...sessions import carried
from .compiled import Engines
from .graphs import inspect

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""In order of preference; what a session really got is read back from it."""

Array = NDArray[Any]

T = TypeVar("T")

WAITED: contextvars.ContextVar[list[float]] = contextvars.ContextVar("waited")
"""Where an ask adds up the milliseconds it waited for a thread."""

WARM = 8
"""The size that open dimensions have when a session is warmed."""

SHORT_S = 0.015
"""The event loop stands still no longer than this, and only while it has nothing else to do."""

UNSEEN = 15
"""How many short runs follow one that found nobody waiting, before the next looks again."""

_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
}
_NAMES = {np.dtype(name): name for name in CODES}


def open_graph(
    name: str, data: bytes, gpu: bool, engines: Engines | None = None
) -> ort.InferenceSession:
    """Return a session over a graph's bytes; raise BundleError if we or onnxruntime refuse it."""
    inspect(name, data)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    # Several asks run side by side: a thread that spins takes the core another one needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    known = ort.get_available_providers()
    wanted = [each for each in PROVIDERS if each in known] if gpu else [PROVIDERS[-1]]
    told = [engines.options(data) if engines and each == PROVIDERS[0] else {} for each in wanted]
    try:
        return ort.InferenceSession(data, options, providers=wanted, provider_options=told)
    except Exception as error:  # onnxruntime's own errors share no narrower base
        raise BundleError(f"onnxruntime can't load {name}: {error}") from error


class Lanes:
    """The threads in which work runs beside the event loop.

    Handing work over and back wakes two threads, which may cost as much as a tenth of a small
    model: work that was short the last time runs at once, if there is no other.
    """

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="trivium")
        self._running = 0
        self._present = 0
        self._unseen = 0
        self._took: dict[Hashable, float] = {}

    async def run(self, call: Callable[[], T], like: Hashable = None) -> T:
        """Return what `call` gives; `like` names work that takes about as long each time."""
        if not self._running and self._took.get(like, math.inf) < SHORT_S and await self._alone():
            return self._timed(call, like)
        self._running += 1
        try:
            loop = asyncio.get_running_loop()
            waited = WAITED.get(None)
            if waited is None:
                return await loop.run_in_executor(self.pool, self._timed, call, like)
            asked = time.perf_counter()

            def begun() -> T:
                waited[0] += (time.perf_counter() - asked) * 1e3
                return self._timed(call, like)

            return await loop.run_in_executor(self.pool, begun)
        finally:
            self._running -= 1

    async def _alone(self) -> bool:
        """Now and then, give way for two turns of the loop: who waits in a socket comes too."""
        if self._unseen:
            self._unseen -= 1
            return True
        self._present += 1
        try:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            alone = self._present == 1 and not self._running
            self._unseen = UNSEEN if alone else 0
            return alone
        finally:
            self._present -= 1

    def _timed(self, call: Callable[[], T], like: Hashable) -> T:
        begun = time.perf_counter()
        try:
            return call()
        finally:
            if like is not None:
                self._took[like] = time.perf_counter() - begun


class OrtSession:
    """Graphs that run in a row, off the event loop: outputs feed the next one's inputs by name."""

    def __init__(
        self,
        graphs: Sequence[ort.InferenceSession],
        lanes: Lanes,
        state: Mapping[str, str] | None = None,
    ) -> None:
        self.graphs = graphs
        self._lanes = lanes
        self._wanted = [{each.name: each for each in graph.get_inputs()} for graph in graphs]
        self._given = [[each.name for each in graph.get_outputs()] for graph in graphs]
        inputs = {name: each for wanted in self._wanted for name, each in wanted.items()}
        outputs = [name for given in self._given for name in given]
        self.carried = carried(state or {}, inputs, outputs)
        self._empty = {name: _empty(inputs[name]) for name in self.carried}
        device = graphs[-1].get_providers()[0]
        self._device = "cpu" if device == PROVIDERS[-1] else "cuda"

    @property
    def outputs(self) -> list[str]:
        """Return the names of the last graph's outputs."""
        return self._given[-1]

    @property
    def providers(self) -> list[str]:
        """Return what the last graph really runs on, best first."""
        names: list[str] = self.graphs[-1].get_providers()
        return names

    def warm(self) -> None:
        """Run once on zeros, so that the first ask does not pay for lazy initialisation."""
        zeros = self._empty | {
            name: np.zeros(
                [size if isinstance(size, int) else WARM for size in each.shape],
                _DTYPES.get(each.type, "float32"),
            )
            for name, each in self._wanted[0].items()
            if name not in self._empty
        }
        # Zeros may not be what the graph can take; then the first ask warms it.
        with contextlib.suppress(RunFailed):
            self._run(zeros)

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the last graph's outputs by name; raise RunFailed with onnxruntime's message."""
        if any(isinstance(feed, Resident) for feed in feeds.values()):
            outputs = await self.bound({}, feeds)
            return {name: tensor(outputs[name].numpy()) for name in self._given[-1]}
        arrays = {name: _array(name, feed) for name, feed in feeds.items()}
        size = sum(array.size for array in arrays.values()).bit_length()
        found = await self._lanes.run(lambda: self._run(arrays), (id(self), size))
        return {name: tensor(array) for name, array in found.items()}

    async def keep(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Resident]:
        """Return the last graph's outputs as onnxruntime's own values, on its own device."""
        outputs = await self.bound({}, feeds, self._given[-1])
        return {name: _resident(outputs[name]) for name in self._given[-1]}

    def start(self, first: Mapping[str, Tensor | Resident]) -> OrtSequence:
        """Begin a sequence of runs."""
        return OrtSequence(self, first)

    def empty(self) -> dict[str, ort.OrtValue]:
        """Return the state that a sequence begins with: nothing on each axis that grows."""
        return {name: ort.OrtValue.ortvalue_from_numpy(each) for name, each in self._empty.items()}

    async def bound(
        self,
        known: Mapping[str, ort.OrtValue],
        feeds: Mapping[str, Tensor | Resident],
        stay: Iterable[str] = (),
    ) -> dict[str, ort.OrtValue]:
        """Run on onnxruntime's own values and return all outputs as such; `stay` on the device."""
        values = {**known, **{name: value(name, feed) for name, feed in feeds.items()}}
        stays = set(stay)
        size = sum(math.prod(each.shape()) for each in values.values()).bit_length()
        return await self._lanes.run(lambda: self._run_bound(values, stays), (id(self), size))

    def _run_bound(
        self, values: dict[str, ort.OrtValue], stays: set[str]
    ) -> dict[str, ort.OrtValue]:
        given = values
        found: dict[str, ort.OrtValue] = {}
        for graph, wanted, names in zip(self.graphs, self._wanted, self._given, strict=True):
            _check(wanted, values, given)
            binding = graph.io_binding()
            for name in wanted:
                binding.bind_ortvalue_input(name, values[name])
            for name in names:
                last = names is self._given[-1] and name not in stays
                binding.bind_output(name, "cpu" if last else self._device)
            try:
                graph.run_with_iobinding(binding)
            except Exception as error:  # onnxruntime's own errors share no narrower base
                raise RunFailed(f"the model failed: {error}") from error
            outputs = dict(zip(names, binding.get_outputs(), strict=True))
            found |= outputs
            values = {**values, **outputs}
        return found

    def _run(self, arrays: dict[str, Array]) -> dict[str, Array]:
        given = arrays
        for graph, wanted, names in zip(self.graphs, self._wanted, self._given, strict=True):
            _check(wanted, arrays, given)
            try:
                values = graph.run(names, {name: arrays[name] for name in wanted})
            except Exception as error:  # onnxruntime's own errors share no narrower base
                raise RunFailed(f"the model failed: {error}") from error
            outputs = dict(zip(names, values, strict=True))
            arrays = {**arrays, **outputs}
        return outputs


class OrtSequence:
    """Runs whose state is onnxruntime's own: on a CPU it is not copied, a GPU keeps it."""

    def __init__(self, session: OrtSession, first: Mapping[str, Tensor | Resident]) -> None:
        self._session = session
        self._held = session.empty() | {name: value(name, feed) for name, feed in first.items()}

    def state(self) -> dict[str, Resident]:
        """Return what the next run begins with."""
        return {name: _resident(each) for name, each in self._held.items()}

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the outputs that are not state, by name."""
        carried = self._session.carried
        outputs = await self._session.bound(self._held, feeds, carried.values())
        self._held = self._held | {name: outputs[carried[name]] for name in carried}
        kept = set(carried.values())
        return {
            name: tensor(outputs[name].numpy())
            for name in self._session.outputs
            if name not in kept
        }

    def close(self) -> None:
        """Let the state go."""
        self._held = {}


def _check(wanted: Iterable[str], there: Iterable[str], given: Iterable[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        raise RunFailed(
            f"the model takes {', '.join(wanted)}; missing: {', '.join(missing)} "
            f"(given: {', '.join(given)})"
        )


def _empty(each: ort.NodeArg) -> Array:
    """Return no state: of open sizes the first is one row's, all others are nothing as yet."""
    shape = [
        size if isinstance(size, int) else int(not axis) for axis, size in enumerate(each.shape)
    ]
    return np.zeros(shape, _DTYPES.get(each.type, "float32"))


def _resident(held: ort.OrtValue) -> Resident:
    return Resident(_DTYPES.get(held.data_type(), "float32"), tuple(held.shape()), held)


def value(name: str, feed: Tensor | Resident) -> ort.OrtValue:
    """Return a feed as onnxruntime's own value, without a copy on a CPU."""
    if isinstance(feed, Resident) and isinstance(feed.handle, ort.OrtValue):
        return feed.handle
    return ort.OrtValue.ortvalue_from_numpy(_array(name, feed))


def _array(name: str, feed: Tensor | Resident) -> Array:
    if isinstance(feed, Resident):
        raise RunFailed(f"{name} is resident on another tier")
    try:
        return np.frombuffer(feed.data, dtype=feed.dtype).reshape(feed.shape)
    except (TypeError, ValueError) as error:
        raise RunFailed(f"{name} is no {feed.dtype} of shape {feed.shape}: {error}") from error


def tensor(array: Array) -> Tensor:
    """Return an array as a tensor over the same memory."""
    array = np.asarray(array, order="C")  # where ascontiguousarray makes [1] of a single number
    # A view without elements can't be cast, so that nobody could read it.
    data = array.data if array.size else b""
    return Tensor(dtype=_NAMES.get(array.dtype) or array.dtype.name, shape=array.shape, data=data)
