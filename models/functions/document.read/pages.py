"""What do pages look like, of which one knows what stands on them?

`python pages.py --out FOLDER` draws the held-out ones with Pillow, each as a row of pages.jsonl;
`--seed 1 --half 0` draws others, of other texts and fonts, to choose by. Sizes, columns, noise
and a slight turn are drawn by the seed. Chinese texts are Django's translations (BSD-3-Clause),
English ones are text.embed's example sentences of WordNet; fonts are mplfonts' Noto (OFL 1.1).
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from trivium_models.build import CACHE
from trivium_models.fetch import fetch
from trivium_models.recipe import Package

HERE = Path(__file__).parent
PACKAGES = {
    "django": Package(
        version="5.2.19",
        sha256="5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
        licence="BSD-3-Clause",
    ),
    "mplfonts": Package(
        version="0.0.11",
        sha256="b5e05ba7fd9a59cae48d1db41f657f50e6765e6f04b8d78504438b93a66b6e13",
        licence="Apache-2.0 AND OFL-1.1",
    ),
}
FONTS = (("NotoSansCJKsc-Regular",), ("NotoSerifCJKsc-Regular", "NotoSansMonoCJKsc-Regular"))
PO = ("django/conf/locale", "django/contrib/admin/locale", "django/contrib/auth/locale")
SIZES = (16, 20, 24, 30, 36)
EDGE = 70


def texts(half: int) -> dict[str, list[str]]:
    """Return one half of the Chinese and of the English texts."""
    english = (HERE.parent / "text.embed" / "held-out.txt").read_text("utf-8").splitlines()
    chinese = []
    with ZipFile(wheel("django")) as files:
        for folder in PO:
            po = files.read(f"{folder}/zh_Hans/LC_MESSAGES/django.po").decode()
            for found in re.findall(r'^msgstr ((?:"[^"\n]*"\n)+)', po, re.M):
                text = "".join(re.findall(r'"([^"\n]*)"', found)).replace("\\n", "")
                if len(text) > 8 and not re.search(r"[\\%{]|^.{0,19}:", text):
                    chinese.append(text)
    unique = list(dict.fromkeys(chinese))
    return {"en": english[half::2], "zh": unique[half::2]}


def wheel(name: str) -> Path:
    """Return a pinned wheel."""
    return fetch(name, PACKAGES[name], CACHE / "packages", print)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Return a text cut into lines: between words, or between Chinese characters."""
    lines, line = [], ""
    pieces = re.findall(r"[\u2e80-\uffff]|[^\s\u2e80-\uffff]+\s*", text)
    if any(font.getlength(each.rstrip()) > width for each in pieces):
        return []  # it would run into the next column
    for piece in pieces:
        if line and font.getlength((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = ""
        line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def page(
    dice: random.Random, known: dict[str, list[str]], fonts: list[bytes]
) -> tuple[Image.Image, str]:
    """Return a picture, and its text in the order of reading."""
    language = dice.choice(["en", "zh", "zh", "both"])
    columns = dice.choice([1, 2])
    noisy = dice.random() < 0.5
    size = dice.choice(SIZES[:3] if columns == 2 else SIZES)
    width, height = dice.choice([(1000, 1414), (1240, 1754), (900, 1200)])
    letters = dice.choice(fonts)
    font = ImageFont.truetype(io.BytesIO(letters), size)
    head = ImageFont.truetype(io.BytesIO(letters), size * 2)
    paper, ink = dice.randint(225, 255), dice.randint(0, 70)
    image = Image.new("L", (width, height), paper)
    draw = ImageDraw.Draw(image)
    said = []
    top = EDGE

    def some() -> str:
        pick = dice.choice(["en", "zh"]) if language == "both" else language
        return dice.choice(known[pick])

    for line in wrapped(some(), head, width - 2 * EDGE)[:2]:
        draw.text((EDGE, top), line, ink, font=head)
        said.append(line)
        top += size * 3
    gap = 50
    each = (width - 2 * EDGE - gap * (columns - 1)) // columns
    for column in range(columns):
        at = top + size
        while at < height - EDGE - 4 * size:
            for line in wrapped(some(), font, each):
                if at > height - EDGE - size:
                    break
                draw.text((EDGE + column * (each + gap), at), line, ink, font=font)
                said.append(line)
                at += int(size * 1.5)
            at += size
    if noisy:
        image = image.rotate(dice.uniform(-1.2, 1.2), Image.Resampling.BICUBIC, fillcolor=paper)
        image = image.filter(ImageFilter.GaussianBlur(dice.uniform(0.3, 0.8)))
        noise = np.random.default_rng(dice.getrandbits(32))
        grain = noise.normal(0, dice.uniform(4, 14), (height, width))
        shade = np.linspace(1, dice.uniform(0.75, 1), width)[None]
        image = Image.fromarray(np.clip(np.asarray(image) * shade + grain, 0, 255).astype(np.uint8))
    return image, "\n".join(said)


def main() -> None:
    """Draw pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--half", type=int, default=1, choices=(0, 1))
    parser.add_argument("--count", type=int, default=40)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    known = texts(given.half)
    with ZipFile(wheel("mplfonts")) as files:
        fonts = [files.read(f"mplfonts/fonts/{name}.otf") for name in FONTS[given.half]]
    dice = random.Random(given.seed)  # noqa: S311 # drawing, not hiding
    rows = []
    for number in range(given.count):
        image, text = page(dice, known, fonts)
        name = f"page-{number:02}.jpg"
        image.save(given.out / name, quality=dice.choice((40, 60, 85)))
        rows.append({"inputs": {"document": name}, "output": text})
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    (given.out / "pages.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
