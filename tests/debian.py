"""Where are programs of Debian's that a test looks at us with?"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

HOME = Path(".trivium/debian")


def program(name: str, package: str) -> Path:
    """Return a program that is installed, or unpack its package beside us; skip without either."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/usr/local/bin")
    if found:
        return Path(found)
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        # Tests run side by side: who comes second finds what the first one has unpacked.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return unpacked(name, package)


def unpacked(name: str, package: str) -> Path:
    """Return a program of a package that is unpacked beside us; skip if it can't be."""
    root = HOME / package
    for folder in ("usr/bin", "usr/sbin"):
        if (root / folder / name).exists():
            return (root / folder / name).absolute()
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip(f"{name} is not installed, and this is no Debian to fetch {package} from")
    root.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "download", package], cwd=root, capture_output=True, timeout=120, check=False
    )
    debs = list(root.glob("*.deb"))
    if done.returncode or not debs:
        pytest.skip(f"{name} is not installed, and {package} can't be downloaded by apt-get")
    subprocess.run(["dpkg", "-x", str(debs[0].name), "."], cwd=root, check=True)
    for folder in ("usr/bin", "usr/sbin"):
        if (root / folder / name).exists():
            return (root / folder / name).absolute()
    pytest.skip(f"{package} has no {name}")
