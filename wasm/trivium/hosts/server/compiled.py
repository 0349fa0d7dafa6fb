"""Where are the engines kept that TensorRT compiled, for minutes, for this very GPU?

onnxruntime writes them where it is told to, and not atomically. So each process has a folder of its
own, which begins as a copy of what is kept; what it compiled is kept as a whole folder or not at
all. What is not as it was written, or not this user's, is left aside.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

FOLDER = Path("~/.cache/trivium/engines")
SUMS = "sums.json"
_GPU = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")


class Engines:
    """The compiled engines of one machine, described by `machine`, in a folder."""

    def __init__(self, folder: Path, machine: Sequence[str]) -> None:
        self._folder = folder.expanduser()
        self._machine = list(machine)
        self._places: dict[str, Path] = {}
        self._own: tempfile.TemporaryDirectory[str] | None = None

    def name(self, graph: bytes) -> str:
        """Return the name of a graph's engines: other shapes of it have files of their own."""
        of = [hashlib.sha256(graph).hexdigest(), ort.__version__, *self._machine]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()

    def options(self, graph: bytes) -> dict[str, str]:
        """Return what onnxruntime's TensorRT is told: where this process's engines lie."""
        name = self.name(graph)
        if name not in self._places:
            self._own = self._own or tempfile.TemporaryDirectory(prefix="trivium-engines-")
            place = Path(self._own.name) / name
            place.mkdir(mode=0o700)
            for file, data in self._kept(name).items():
                (place / file).write_bytes(data)
            self._places[name] = place
        place = self._places[name]
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(place),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(place),
        }

    def keep(self) -> None:
        """Keep what was compiled since, for the next process; nothing is kept by halves."""
        for name, place in self._places.items():
            found = {path.name: path.read_bytes() for path in sorted(place.iterdir())}
            if found and found != self._kept(name):
                with contextlib.suppress(OSError):  # a full disk costs a later start its time
                    self._write(name, found)

    def _kept(self, name: str) -> dict[str, bytes]:
        """Return the kept files, if all are there as they were written, by this user."""
        place = self._folder / name
        try:
            if not _ours(place):
                return {}
            sums = json.loads((place / SUMS).read_bytes())
            files = {path.name: path for path in place.iterdir() if path.name != SUMS}
            if files.keys() != sums.keys() or not all(map(_plain, files.values())):
                return {}
            data = {file: path.read_bytes() for file, path in files.items()}
        except (OSError, ValueError, AttributeError):
            return {}
        return data if _sums(data) == sums else {}

    def _write(self, name: str, data: dict[str, bytes]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _ours(self._folder):
            return
        new = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".partial", dir=self._folder))
        try:
            for file, each in {**data, SUMS: json.dumps(_sums(data)).encode()}.items():
                (new / file).write_bytes(each)
            old = new.with_suffix(".old")
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._folder / name, old)
            with contextlib.suppress(OSError):  # another process was quicker
                os.rename(new, self._folder / name)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def engines() -> Engines | None:
    """Return this machine's engines, if it has a GPU and a TensorRT at all."""
    if "TensorrtExecutionProvider" not in ort.get_available_providers():
        return None
    try:
        told = subprocess.run(_GPU, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
        version = ctypes.CDLL("libnvinfer.so.10").getInferLibVersion()
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None
    return Engines(FOLDER, [*told.stdout.splitlines(), str(version)])


def _sums(data: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(each).hexdigest() for name, each in data.items()}


def _ours(folder: Path) -> bool:
    found = folder.lstat()
    mine = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return stat.S_ISDIR(found.st_mode) and mine


def _plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)
