"""Do the kernel's own tests hold inside Pyodide, and what does importing it bring along?"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = Path(os.environ.get("TRIVIUM_PAGE_WHEELS", ROOT / ".trivium/page-dev"))
NODE = shutil.which("node") or shutil.which("node", path=str(ROOT / ".venv/bin"))

pytestmark = [
    pytest.mark.skipif(NODE is None, reason="no node was found"),
    pytest.mark.skipif(
        not list(WHEELS.glob("pytest-*.whl")), reason="no wheels for Pyodide: scripts/install --dev"
    ),
]


def inside(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in Pyodide on Node."""
    assert NODE is not None
    command = [NODE, str(ROOT / "wasm/page/test-kernel.mjs"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_kernel_in_pyodide() -> None:
    """Each of the kernel's tests passes in the page's Python, too."""
    done = inside("-q", "tests/wasm")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def test_modules_in_pyodide() -> None:
    """Importing the kernel adds few modules: every visit pays for each."""
    done = inside("-q", "tests/page/pyodide")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
