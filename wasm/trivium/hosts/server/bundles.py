"""Is this bundle what its manifest says, and what is in it?"""

from __future__ import annotations

import hashlib
import hmac
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...contract import JSON, Manifest, Tier, decode
from ...errors import BadInput, BundleError
from ...function import Function

MANIFEST = "manifest.json"
DIGEST = "manifest.sha256"
SIGNATURE = "model.sig"
OWN = frozenset({MANIFEST, DIGEST, SIGNATURE})
"""What stands in a bundle beside the files that its manifest lists."""

HEX = re.compile("[0-9a-f]{64}")
MOST_OWN = 1 << 20
MOST_FILES = 256
MOST_SIZE = 4 << 30


class Bundle:
    """A folder whose manifest was checked; each file is checked whenever it is read.

    Who vouches for it is another question: `signing.Trust` answers it from `raw` and `signature`.

    Raises:
        BundleError: the manifest is missing, malformed or altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = self.raw = self._own(MANIFEST)
        stated = self._own(DIGEST).decode("ascii", "replace").strip()
        self.signature = self._own(SIGNATURE) if _there(folder / SIGNATURE) else None
        self.digest = hashlib.sha256(raw).hexdigest()
        if not hmac.compare_digest(self.digest.encode(), stated.encode()):
            raise BundleError(
                f"{folder.name}/manifest.json has SHA-256 {self.digest}; "
                f"manifest.sha256 says {stated[:64]!r}"
            )
        try:
            self.manifest = decode(raw, Manifest, JSON)
        except BadInput as error:
            raise BundleError(f"{folder.name}/manifest.json: {error.message}") from error
        files = self.manifest.files
        if len(files) > MOST_FILES:
            raise BundleError(
                f"{self.name} lists {len(files)} files; at most {MOST_FILES} are allowed"
            )
        for name, file in files.items():
            if not HEX.fullmatch(file.sha256):
                raise BundleError(
                    f"{self.name}/{name[:100]} is pinned by {file.sha256[:100]!r}; "
                    "64 hex digits are needed"
                )
            if not 0 <= file.size <= MOST_SIZE:
                raise BundleError(
                    f"{self.name}/{name[:100]} is to have {file.size} bytes; "
                    f"0 to {MOST_SIZE} are allowed"
                )

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.manifest.name

    @property
    def absent(self) -> bool:
        """Return whether it is optional and was not pulled: then some of its files are not here."""
        return bool(self.manifest.optional) and not all(
            _there(self.folder / Path(name).name) for name in self.manifest.files
        )

    @property
    def megabytes(self) -> int:
        """Return the size of all its files."""
        return round(sum(file.size for file in self.manifest.files.values()) / 1e6)

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raise BundleError unless they are those the manifest pins."""
        pinned = self.manifest.files.get(name)
        if pinned is None or Path(name).name != name or name in OWN:
            raise BundleError(f"{self.name}: the manifest does not list {name!r}")
        path = self.folder / name
        try:
            size = _plain(path)
            data = path.read_bytes() if size == pinned.size else b""
        except (OSError, ValueError) as error:  # ValueError: a null in the name
            said = getattr(error, "strerror", None) or error
            raise BundleError(f"{self.name}/{name} can't be read: {said}") from error
        if size != pinned.size:
            raise BundleError(
                f"{self.name}/{name} has {size} bytes; the manifest says {pinned.size}"
            )
        digest = hashlib.sha256(data).hexdigest()
        if not hmac.compare_digest(digest, pinned.sha256):
            raise BundleError(
                f"{self.name}/{name} has SHA-256 {digest}; the manifest says {pinned.sha256}"
            )
        return data

    def verify(self) -> None:
        """Read every file; raise BundleError for the first that differs or is not listed."""
        for name in self.manifest.files:
            self.read(name)
        try:
            there = sorted(self.folder.iterdir())
        except OSError as error:  # it is just being replaced
            raise BundleError(f"{self.name} can't be read: {error.strerror}") from error
        for path in there:
            # A file on its way has such a name until it is whole.
            if path.name in OWN or path.suffix == ".partial":
                continue
            if path.name not in self.manifest.files:
                raise BundleError(
                    f"{self.name}/{path.name[:100]} is not in the manifest; take it away"
                )

    def text(self, name: str) -> str:
        """Return a file's text."""
        try:
            return self.read(name).decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.name}/{name} is not UTF-8: {error}") from error

    def function(self, tier: Tier) -> Function | None:
        """Return the function as it runs on `tier`, or none; this runs the bundle's code."""
        variant = self.manifest.variant(tier)
        if variant is None:
            return None
        source = self.text("function.py")
        try:
            return Function(self.manifest, variant, source, self.digest)
        except BundleError:
            raise
        except Exception as error:  # whatever a schema that nobody could build leads to
            raise BundleError(
                f"{self.name}/manifest.json describes an impossible function: {error}"
            ) from error

    def _own(self, name: str) -> bytes:
        path = self.folder / name
        try:
            size = _plain(path)
            if size > MOST_OWN:
                raise BundleError(
                    f"{self.folder.name}/{name} has {size} bytes; at most {MOST_OWN} are allowed"
                )
            return path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{self.folder.name}/{name} can't be read: {error.strerror}"
            ) from error


def find(roots: Sequence[Path]) -> Iterator[Path]:
    """Yield the bundle folders below `roots`; a later root's bundle hides an earlier one's."""
    found = {
        manifest.parent.name: manifest.parent
        for root in roots
        for manifest in sorted(root.glob("*/manifest.json"))
    }
    yield from found.values()


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _plain(path: Path) -> int:
    """Return a plain file's size; a link leads elsewhere, and reading a pipe may never end."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no file"
        raise BundleError(f"{path.parent.name}/{path.name} is {kind}; bundles hold plain files")
    return found.st_size
