"""How fast, large and hungry are models, compared with the first? One thread, one ask at a time.

    python speed.py FULL.onnx OTHER.onnx …

Models take turns, so that other work on the machine meets them alike: first after each ask, where
each finds the processor's caches full of another model's weights, then after twenty, where most
find their own. Times are the least and the median. Memory is what a new process grows by for the
session and a run.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

ASKS, AFTER, LENGTHS = 100, (1, 20), (16, 32, 128)
PAGE = resource.getpagesize()


def session(model: Path) -> ort.InferenceSession:
    """Return a session on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feed(graph: ort.InferenceSession, length: int) -> dict[str, NDArray[Any]]:
    """Return inputs: tokens of that length, or a picture."""
    given: dict[str, NDArray[Any]] = {}
    for node in graph.get_inputs():
        sizes = [
            size if isinstance(size, int) else (1, length)[axis]
            for axis, size in enumerate(node.shape)
        ]
        generator = np.random.default_rng(0)
        if node.name == "input_ids":
            given[node.name] = generator.integers(1000, 20000, sizes)
        elif "int64" in node.type:
            given[node.name] = np.ones(sizes, np.int64)
        else:
            given[node.name] = generator.uniform(-1, 1, sizes).astype(np.float32)
    return given


def resident() -> int:
    """Return this process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def hunger(model: Path) -> None:
    """Print by how much this process grows for a session and a run, in bytes."""
    before = resident()
    graph = session(model)
    graph.run(None, feed(graph, 32))
    print(resident() - before)


def main(models: list[Path]) -> None:
    """Print the table."""
    graphs = [session(model) for model in models]
    words = any(isinstance(size, str) for node in graphs[0].get_inputs() for size in node.shape)
    for length in LENGTHS if words else (0,):
        feeds = [feed(graph, length) for graph in graphs]
        for row in AFTER:
            times: list[list[float]] = [[] for _ in graphs]
            for turn in range(ASKS // row + 1):
                for graph, given, found in zip(graphs, feeds, times, strict=True):
                    for ask in range(row + (row > 1)):
                        started = time.perf_counter()
                        graph.run(None, given)
                        if turn and (ask or row == 1):
                            found.append(1000 * (time.perf_counter() - started))
            for model, found in zip(models, times, strict=True):
                least, median = min(found), float(np.median(found))
                name = f"{model.name}, {length} tokens" if words else model.name
                gains = min(times[0]) / least, np.median(times[0]) / median
                print(
                    f"{name}, turns of {row}: {least:.2f} / {median:.2f} ms; "
                    f"{gains[0]:.2f} / {gains[1]:.2f} times"
                )
    grown = []
    for model in models:
        command = [sys.executable, __file__, "--hunger", str(model)]
        found = [
            int(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(3)
        ]
        grown.append(sorted(found)[1])
        print(
            f"{model.name}: {model.stat().st_size / 1e6:.2f} MB on disk "
            f"({models[0].stat().st_size / model.stat().st_size:.2f} times smaller), "
            f"{grown[-1] / 1e6:.1f} MB of memory ({grown[-1] / grown[0]:.1%} of the first's)"
        )


if __name__ == "__main__":
    if sys.argv[1] == "--hunger":
        hunger(Path(sys.argv[2]))
    else:
        main([Path(argument) for argument in sys.argv[1:]])
