"""What does importing the kernel bring along, in the page's own Python?"""

from __future__ import annotations

import os
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "emscripten", reason="runs inside Pyodide")


def test_kernel_brings_array_and_the_loops() -> None:
    """Beside itself and msgspec, the kernel adds two: every module is paid at every visit."""
    added = set(os.environ["MODULES_OF_TRIVIUM"].split())
    assert {name for name in added if name.partition(".")[0] != "trivium"} <= {
        "array",
        "trivium_loops",
    }


def test_msgspec_brings_few() -> None:
    """A new msgspec that imports more is noticed."""
    added = {name.partition(".")[0] for name in os.environ["MODULES_OF_MSGSPEC"].split()}
    known = {"msgspec", "datetime", "_datetime", "decimal", "_decimal", "uuid", "numbers"}
    assert added - known == set()
