"""Does pyodide-build make what the page loads, the same bytes again?"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from trivium_edge import wheel

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".trivium/page-build/bin/python"
BUILD = ROOT / "wasm/loops/build.py"

built = pytest.mark.skipif(
    not PYTHON.exists(), reason="pyodide-build is not there: scripts/build-page"
)


def test_lock_names_the_committed_loops() -> None:
    """By their SHA-256, which the page checks."""
    lock = json.loads((ROOT / "wasm/page/pyodide-lock.json").read_text())
    locked = lock["packages"]["trivium-loops"]
    data = (ROOT / "wasm/loops" / locked["file_name"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == locked["sha256"]


@built
@pytest.mark.skipif(shutil.which("clang-22") is None, reason="no clang-22 was found")
def test_loops_and_lock_are_built_again() -> None:
    """From the same sources come the same bytes."""
    done = subprocess.run([PYTHON, BUILD, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@built
def test_the_gateways_kernel_is_pyodide_builds(tmp_path: Path) -> None:
    """The gateway makes its wheel without pyodide-build, of the same files."""
    subprocess.run([PYTHON, BUILD, "--kernel", tmp_path], check=True)
    (path,) = tmp_path.iterdir()
    theirs, ours = zipfile.ZipFile(path), zipfile.ZipFile(io.BytesIO(wheel.kernel()))

    def files(archive: zipfile.ZipFile) -> dict[str, bytes]:
        return {
            name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name
        }

    assert files(theirs) == files(ours)
    info = {name.partition("/")[0] for name in theirs.namelist() if ".dist-info/" in name}
    assert info == {name.partition("/")[0] for name in ours.namelist() if ".dist-info/" in name}
