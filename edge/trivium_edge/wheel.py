"""Which kernel does a page run: a wheel of the very code this gateway runs."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from pathlib import Path

import trivium

_EPOCH = (1980, 1, 1, 0, 0, 0)


def kernel() -> bytes:
    """Return a wheel of `trivium` without its server host, the same bytes for the same code."""
    root = Path(trivium.__file__).parent
    name = f"trivium-{trivium.__version__}"
    files = {
        path.relative_to(root.parent).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*.py"))
        if "server" not in path.relative_to(root).parts
    }
    info = f"{name}.dist-info"
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: trivium\nVersion: {trivium.__version__}\n"
        "Requires-Dist: msgspec\n"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: trivium-edge\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{path},sha256={_hash(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
