"""What is kept of compiled engines: whole, this machine's, this user's, or nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest

from trivium.hosts.server.compiled import SUMS, Engines, engines

MACHINE = ("NVIDIA H200, 570.1, 9.0", "101300")
GRAPH = b"a graph"


def compile_in(made: Engines, graph: bytes = GRAPH, data: bytes = b"an engine") -> Path:
    """Do as onnxruntime does: write where it was told to."""
    place = Path(made.options(graph)["trt_engine_cache_path"])
    (place / "graph_sm90.engine").write_bytes(data)
    (place / "timing.cache").write_bytes(b"times")
    return place


def there(folder: Path, machine: tuple[str, ...] = MACHINE, graph: bytes = GRAPH) -> set[str]:
    """Return the files that a new process begins with."""
    made = Engines(folder, machine)
    place = Path(made.options(graph)["trt_engine_cache_path"])
    return {path.name for path in place.iterdir()}


BOTH = {"graph_sm90.engine", "timing.cache"}


def test_what_was_compiled_is_there_for_the_next_process(tmp_path: Path) -> None:
    """For the same graph on the same machine, and in a folder of its own."""
    folder = tmp_path / "engines"
    first = Engines(folder, MACHINE)
    place = compile_in(first)
    assert there(folder) == set()
    first.keep()
    assert there(folder) == BOTH
    assert place.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    assert there(folder, graph=b"another graph") == set()
    assert there(folder, machine=("NVIDIA H100, 570.1, 9.0", "101300")) == set()
    assert there(folder, machine=(MACHINE[0], "101400")) == set()
    # What a process writes changes nothing for others until it is kept, as a whole.
    second = Engines(folder, MACHINE)
    compile_in(second, data=b"for another shape")
    third = Engines(folder, MACHINE)
    kept = Path(third.options(GRAPH)["trt_engine_cache_path"])
    assert (kept / "graph_sm90.engine").read_bytes() == b"an engine"
    second.keep()
    assert there(folder) == BOTH
    assert not [each for each in folder.iterdir() if each.name.startswith(".")]


def link(place: Path) -> None:
    """Put a link in the place of a file."""
    (place / "timing.cache").rename(place.parent / "moved")
    (place / "timing.cache").symlink_to(place.parent / "moved")


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "graph_sm90.engine").write_bytes(b"an eng"),
        lambda place: (place / "graph_sm90.engine").write_bytes(os.urandom(9)),
        lambda place: (place / "graph_sm90.engine").unlink(),
        lambda place: (place / "other.engine").write_bytes(b"a stranger's"),
        lambda place: (place / SUMS).unlink(),
        lambda place: (place / SUMS).write_bytes(b"{"),
        lambda place: (place / SUMS).write_bytes(b"[]"),
        lambda place: place.chmod(0o777),
        link,
    ],
)
def test_what_is_not_as_it_was_written_is_left_aside(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """And written anew by who compiles it next."""
    made = Engines(tmp_path / "engines", MACHINE)
    compile_in(made)
    made.keep()
    damage(tmp_path / "engines" / made.name(GRAPH))
    assert there(tmp_path / "engines") == set()
    again = Engines(tmp_path / "engines", MACHINE)
    compile_in(again)
    again.keep()
    assert there(tmp_path / "engines") == BOTH


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    """Whoever could put an engine there could run code here."""
    folder = tmp_path / "engines"
    folder.mkdir()
    folder.chmod(0o777)
    made = Engines(folder, MACHINE)
    compile_in(made)
    made.keep()
    assert list(folder.iterdir()) == []


KEEPS = """
import sys
from pathlib import Path
from trivium.hosts.server.compiled import Engines
for number in range(200):
    engines = Engines(Path(sys.argv[1]), ("gpu",))
    place = Path(engines.options(b"graph")["trt_engine_cache_path"])
    (place / "a.engine").write_bytes(sys.argv[2].encode() * 100_000)
    (place / "b.engine").write_bytes(sys.argv[2].encode() * 100_000)
    engines.keep()
"""


def test_processes_that_write_at_once_or_are_killed_leave_whole_folders(tmp_path: Path) -> None:
    """One's or the other's, never both's."""
    folder = tmp_path / "engines"
    running = [
        subprocess.Popen([sys.executable, "-c", KEEPS, str(folder), letter]) for letter in "xyz"
    ]
    made = Engines(folder, ("gpu",))
    seen = set()
    try:
        while running[0].poll() is None:
            kept = made._kept(made.name(b"graph"))
            if kept:
                seen.add((kept["a.engine"][:1], kept["b.engine"][-1:]))
            running[1].kill()
    finally:
        for each in running:
            each.kill()
            each.wait()
    assert seen
    assert all(first == last for first, last in seen)


def test_without_a_gpu_nothing_is_kept() -> None:
    """Nor asked for: a CPU's graphs load about as quickly as they were optimised."""
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        assert engines() is None
