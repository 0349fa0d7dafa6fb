"""How does onnxruntime run a variant's graphs?"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ...contract import CODES, Resident, Tensor
from ...errors import BundleError, RunFailed
from .graphs import inspect

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""In order of preference; what a session really got is read back from it."""

Array = NDArray[Any]

T = TypeVar("T")

WARM = 8
"""The size that open dimensions have when a session is warmed."""

SHORT_S = 0.015
"""The event loop stands still no longer than this, and only while it has nothing else to do."""

UNSEEN = 15
"""How many short runs follow one that found nobody waiting, before the next looks again."""

_DTYPES = {
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
}
_NAMES = {np.dtype(name): name for name in CODES}


def open_graph(name: str, data: bytes, gpu: bool) -> ort.InferenceSession:
    """Return a session over a graph's bytes; raise BundleError if we or onnxruntime refuse it."""
    inspect(name, data)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = min(4, os.cpu_count() or 1)
    # Several asks run side by side: a thread that spins takes the core another one needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    known = ort.get_available_providers()
    wanted = [each for each in PROVIDERS if each in known] if gpu else [PROVIDERS[-1]]
    try:
        return ort.InferenceSession(data, options, providers=wanted)
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
            return await loop.run_in_executor(self.pool, self._timed, call, like)
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

    def __init__(self, graphs: Sequence[ort.InferenceSession], lanes: Lanes) -> None:
        self.graphs = graphs
        self._lanes = lanes
        self._wanted = [{each.name: each for each in graph.get_inputs()} for graph in graphs]
        self._given = [[each.name for each in graph.get_outputs()] for graph in graphs]

    @property
    def providers(self) -> list[str]:
        """Return what the last graph really runs on, best first."""
        names: list[str] = self.graphs[-1].get_providers()
        return names

    def warm(self) -> None:
        """Run once on zeros, so that the first ask does not pay for lazy initialisation."""
        zeros = {
            name: np.zeros(
                [size if isinstance(size, int) else WARM for size in each.shape],
                _DTYPES.get(each.type, "float32"),
            )
            for name, each in self._wanted[0].items()
        }
        # Zeros may not be what the graph can take; then the first ask warms it.
        with contextlib.suppress(RunFailed):
            self._run(zeros)

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the last graph's outputs by name; raise RunFailed with onnxruntime's message."""
        arrays: dict[str, Array] = {name: _array(name, feed) for name, feed in feeds.items()}
        size = sum(array.size for array in arrays.values()).bit_length()
        outputs = await self._lanes.run(lambda: self._run(arrays), (id(self), size))
        return {name: tensor(array) for name, array in outputs.items()}

    def _run(self, arrays: dict[str, Array]) -> dict[str, Array]:
        given = arrays
        for graph, wanted, names in zip(self.graphs, self._wanted, self._given, strict=True):
            missing = [name for name in wanted if name not in arrays]
            if missing:
                raise RunFailed(
                    f"the model takes {', '.join(wanted)}; missing: {', '.join(missing)} "
                    f"(given: {', '.join(given)})"
                )
            try:
                values = graph.run(names, {name: arrays[name] for name in wanted})
            except Exception as error:  # onnxruntime's own errors share no narrower base
                raise RunFailed(f"the model failed: {error}") from error
            outputs = dict(zip(names, values, strict=True))
            arrays = {**arrays, **outputs}
        return outputs


def _array(name: str, feed: Tensor | Resident) -> Array:
    if isinstance(feed, Resident):
        raise RunFailed(f"{name} is resident on another tier")
    try:
        return np.frombuffer(feed.data, dtype=feed.dtype).reshape(feed.shape)
    except (TypeError, ValueError) as error:
        raise RunFailed(f"{name} is no {feed.dtype} of shape {feed.shape}: {error}") from error


def tensor(array: Array) -> Tensor:
    """Return an array as a tensor over the same memory."""
    array = np.ascontiguousarray(array)
    # A view without elements can't be cast, so that nobody could read it.
    data = array.data if array.size else b""
    return Tensor(dtype=_NAMES.get(array.dtype) or array.dtype.name, shape=array.shape, data=data)
