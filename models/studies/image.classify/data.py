"""Cut pictures of 224 pixels to distil on, out of folders with photos.

    python data.py FOLDER=VIEWS …

Every picture below each folder gives that many views into train/: a part of 40 to 100 % of its
sides, half of them mirrored. Pictures with transparency are laid on a plain random colour. Keep
what the result is measured on out of these folders.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
SIDE = 224
MEDIA = {".jpg", ".jpeg", ".png", ".webp"}


def view(picture: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Return a square part of a picture."""
    if picture.mode in ("RGBA", "LA", "P"):
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (*generator.integers(0, 256, 3).tolist(), 255))
        ground.alpha_composite(picture)
        picture = ground
    picture = picture.convert("RGB")
    side = round(min(picture.size) * generator.uniform(0.4, 1))
    left, top = (int(generator.integers(0, size - side + 1)) for size in picture.size)
    part = picture.resize((SIDE, SIDE), Image.BILINEAR, (left, top, left + side, top + side))
    return part.transpose(Image.FLIP_LEFT_RIGHT) if generator.random() < 0.5 else part


def main(folders: list[str]) -> None:
    """Write the views."""
    generator = np.random.default_rng(0)
    target = HERE / "train"
    target.mkdir(exist_ok=True)
    number = 0
    for entry in folders:
        folder, _, views = entry.rpartition("=")
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() not in MEDIA:
                continue
            picture = Image.open(path)
            if min(picture.size) < 96:
                continue
            for _ in range(int(views)):
                view(picture, generator).save(target / f"{number:05}.jpg", quality=92)
                number += 1
    print(f"{number:,} pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
