"""The kernel as a page gets it."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import trivium
from trivium_edge import wheel


@pytest.fixture(scope="module")
def archive() -> zipfile.ZipFile:
    """Return the opened wheel."""
    return zipfile.ZipFile(io.BytesIO(wheel.kernel()))


def test_the_same_code_gives_the_same_bytes() -> None:
    """Caches and digests rely on it."""
    assert wheel.kernel() == wheel.kernel()


def test_it_holds_the_kernel_and_the_pages_host_alone(archive: zipfile.ZipFile) -> None:
    """Nothing of a server, and nothing that is not Python."""
    names = archive.namelist()
    for name in ("errors", "contract", "trace", "function", "router", "engine", "hosts/browser"):
        assert f"trivium/{name}.py" in names
    assert not [name for name in names if "server" in name]
    info = f"trivium-{trivium.__version__}.dist-info"
    assert {name.partition("/")[0] for name in names} == {"trivium", info}


def test_its_files_are_those_that_run_here(archive: zipfile.ZipFile) -> None:
    """The page runs what the gateway runs."""
    root = Path(trivium.__file__).parent.parent
    for name in archive.namelist():
        if name.startswith("trivium/"):
            assert archive.read(name) == (root / name).read_bytes()


def test_its_record_is_true(archive: zipfile.ZipFile) -> None:
    """As an installer checks it."""
    record = f"trivium-{trivium.__version__}.dist-info/RECORD"
    rows = {
        path: (digest, size)
        for path, digest, size in csv.reader(archive.read(record).decode().splitlines())
    }
    assert set(rows) == set(archive.namelist())
    for path, (digest, size) in rows.items():
        if path != record:
            data = archive.read(path)
            hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={hashed}", str(len(data)))


def test_it_is_imported_from_the_archive_with_msgspec_alone(tmp_path: Path) -> None:
    """No other package is there, and none is missed."""
    path = tmp_path / "kernel.whl"
    path.write_bytes(wheel.kernel())
    code = (
        "import sys, importlib.util\n"
        "spec = importlib.util.find_spec('msgspec')\n"
        "from pathlib import Path\n"
        "site = Path(spec.submodule_search_locations[0]).parent\n"
        "class Only:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        top = name.partition('.')[0]\n"
        "        if (site / top).exists() and top not in ('msgspec', 'trivium'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Only())\n"
        f"sys.path.insert(0, {str(path)!r})\n"
        "import trivium, trivium.engine, trivium.router, trivium.hosts.timing\n"
        "print(trivium.__file__)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert found.stdout.strip() == f"{path}/trivium/__init__.py"
