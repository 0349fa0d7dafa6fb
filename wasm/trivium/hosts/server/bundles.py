"""Is this bundle what its manifest says, and what is in it?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...contract import JSON, Manifest, Tier, decode
from ...errors import BadInput, BundleError
from ...function import Function


class Bundle:
    """A folder whose manifest was checked; each file is checked whenever it is read.

    Raises:
        BundleError: the manifest is missing, malformed or altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        raw = self.raw = self._own("manifest.json")
        stated = self._own("manifest.sha256").decode("ascii", "replace").strip()
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

    @property
    def name(self) -> str:
        """Return the function's name."""
        return self.manifest.name

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raise BundleError unless they are those the manifest pins."""
        pinned = self.manifest.files.get(name)
        if pinned is None or Path(name).name != name:
            raise BundleError(f"{self.name}: the manifest does not list {name!r}")
        path = self.folder / name
        try:
            if path.is_symlink():
                raise BundleError(
                    f"{self.name}/{name} is a symbolic link; bundles hold plain files"
                )
            size = path.stat().st_size
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
        """Read every file; raise BundleError for the first that differs."""
        for name in self.manifest.files:
            self.read(name)

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
        try:
            return (self.folder / name).read_bytes()
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
