"""Which pictures does image.embed's student look at, and what does its trunk make of them?

    python views.py SVGS MODELS FONT ICONS PHOTOS … -- PACKAGES …

SVGS and MODELS are data.py's, whose vectors.npz is read. The trunk is the first twelve of the
backbone's sixteen blocks with INT8 weights, which the student keeps. FONT is NotoColorEmoji.ttf of
Debian's fonts-noto-color-emoji 2.042, ICONS a folder of @iconify-json's npm packages (here openmoji
1.2.29, twemoji 1.2.5, fxemoji 1.2.2, fluent-emoji-flat 1.2.6, game-icons 1.2.4, streamline-emojis
1.2.4, flat-color-icons 1.2.3 and meteocons 1.2.4), PHOTOS are folders (here 292 pictures of
gcompris-qt-data 3.1 and 32 of gnome- and mate-backgrounds), PACKAGES what photos.py found in others
(packages.tsv), a folder a package. Writes trunk.onnx, views.npy, what it makes of each view,
views.txt, one line a view: its picture's number, its kind and which of its views it is, and
photos.npz, on which a student is chosen beside the drawings: what the teacher and the trunk make of
the pictures of some packages, from which nothing is learnt.

Of the drawings only those of the training split are looked at, of these and the icons none that is
like a row of the other two (cosine of the backbone's features above 0.9), and no text at all. Of
the packages' pictures none that is like such a row, like any of tuxpaint's stamps, or nearly one
before it (0.95), and no pages. Each picture gives the view that a caller's would, then others: a
part of it, turned over, in other colours, on another ground, or beside another one. Seed 0.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import sys
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import resvg_py
from data import PAIRS, drawn, session
from numpy.typing import NDArray
from onnx.utils import extract_model
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from trivium_models.quantise import quantise

HERE = Path(__file__).parent
ALIKE, TWICE, SHORT, SIDE, LARGEST, EMOJI = 0.9, 0.95, 256, 224, 512, 109
INSIDE, PART = "batchnormalization_137", 64  # the last block's sums
VIEWS = {"drawing": 4, "emoji": 3, "icon": 2, "photo": 10, "thing": 12}
ICONS, MOST = 2304, 1200
"""So many icons are looked at, of each set at most so many, in turns."""

PAGES = {"web site", "comic book", "menu", "crossword puzzle", "book jacket", "oscilloscope"}
PAGE = 0.3  # how likely one of these
ONE = 700  # of a package so many are looked at
JUDGED = set(
    "deb-budgie-backgrounds deb-kalzium-data deb-labelme-examples deb-lomiri-wallpapers-16.04 "  # noqa: SIM905
    "deb-scratch npm-material-kit npm-openui5-sap.ui.documentation npm-paper-kit-2 "
    "npm-startbootstrap-creative npm-uikit pypi-foolbox".split()
)

STAMPS = Path("/usr/share/tuxpaint/stamps")
SIGNS = [(0x1F300, 0x1F3FB), (0x1F400, 0x1F650), (0x1F680, 0x1F700), (0x1F900, 0x1FAFF)]
TRUNK: ort.InferenceSession
LETTERS: ImageFont.FreeTypeFont
GROUNDS: list[Image.Image]
"""What each process has, made when it starts."""

Picture = Image.Image
Work = tuple[int, str, str]  # a picture's number, its kind, and where it is
Found = tuple[str, str]  # its package, and where it is


def drawings(root: Path) -> Iterator[str]:
    """Yield where the drawings are that may be learnt from."""
    rows, features, taught = known()
    near = (features @ features[~taught].T).max(1)
    for row, own, like in zip(rows, taught, near, strict=True):
        if own and like <= ALIKE:
            yield str(root / row[0])


def known() -> tuple[list[list[str]], NDArray[np.float32], NDArray[np.bool_]]:
    """Return all rows, the backbone's features of their drawings, and which are to be taught."""
    rows = [line.split("\t") for line in PAIRS.read_text("utf-8").splitlines()]
    features = np.load(HERE / "vectors.npz")["features"].astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return rows, features, np.array([row[1] == "train" for row in rows])


def icons(root: Path, backbone: ort.InferenceSession) -> Iterator[str]:
    """Yield where the icons are that may be learnt from: a file, and a name in it."""
    _, features, taught = known()
    sets = []
    for path in sorted(root.glob("*/icons.json")):
        names = sorted(name for name in read(path)["icons"] if "skin-tone" not in name)
        order = np.random.default_rng(5).permutation(len(names))[:MOST]
        sets.append([f"{path}#{names[at]}" for at in order])
    turns = [place for turn in zip_longest(*sets) for place in turn if place]
    for place in turns[:ICONS]:
        if (picture := opened("icon", place)) is not None:
            (own,) = backbone.run(["features"], {"image": prepared(plain(picture))})[0]
            if (features[~taught] @ own).max() <= ALIKE * np.linalg.norm(own):
                yield place


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length one."""
    found: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def found(folders: list[Path], backbone: ort.InferenceSession, labels: list[str]) -> list[Found]:
    """Return the packages' pictures that may be learnt from or judged on, with their packages."""
    _, features, taught = known()
    stamps = [opened("photo", str(path)) for path in sorted(STAMPS.rglob("*.png"))]
    images = [{"image": prepared(plain(each))} for each in stamps if each]
    near = unit(np.concatenate([backbone.run(["features"], each)[0] for each in images]))
    near = np.concatenate([features[~taught], near])
    seen, kept = np.zeros((0, near.shape[1]), np.float32), []
    pages = [number for number, label in enumerate(labels) if label in PAGES]
    for folder in folders:
        names = sorted(folder.glob("*.jpg"))
        for at in sorted(np.random.default_rng(5).permutation(len(names))[:ONE]):
            picture = opened("photo", str(names[at]))
            assert picture is not None
            image = {"image": prepared(plain(picture))}
            shares, own = backbone.run(["probabilities", "features"], image)
            own = unit(own)
            again = len(seen) and (seen @ own[0]).max() > TWICE
            if shares[0, pages].sum() < PAGE and (near @ own[0]).max() <= ALIKE and not again:
                seen = np.concatenate([seen, own])
                kept.append((folder.name, str(names[at])))
    return kept


def lies(path: str) -> str:
    """Return whether a picture shows a thing on white, or a photo to its edges."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    edge = np.concatenate([picture[[0, -1]].reshape(-1, 3), picture[:, [0, -1]].reshape(-1, 3)])
    return "thing" if (edge.min(1) > 240).mean() > 0.8 else "photo"


def judge(paths: list[str], models: Path) -> None:
    """Write what is made of the pictures that are judged on."""
    names = ("prepare", "backbone.fp32", "head")
    prepare, backbone, head = (session(models / f"{name}.onnx", 1) for name in names)
    made = session(HERE / "trunk.onnx", 1)
    inside, vectors, shares = [], [], []
    for path in paths:
        image = {"image": prepare.run(None, {"pixels": np.asarray(Image.open(path))})[0]}
        both = dict(zip(("probabilities", "features"), backbone.run(None, image), strict=True))
        inside.append(made.run(None, image)[0])
        vectors.append(head.run(None, both)[0])
        shares.append(both["probabilities"])
    rows = (inside, vectors, shares)
    names = ("inside", "vectors", "labels")
    np.savez(HERE / "photos.npz", **dict(zip(names, map(np.concatenate, rows), strict=True)))


@cache
def read(path: Path) -> Any:
    """Return a set of icons."""
    return json.loads(path.read_text("utf-8"))


def icon(place: str) -> Picture:
    """Draw one icon of a set on white."""
    path, _, name = place.rpartition("#")
    whole = read(Path(path))
    one = whole["icons"][name]
    wide, high = (one.get(side, whole.get(side, 16)) for side in ("width", "height"))
    box = f"{one.get('left', 0)} {one.get('top', 0)} {wide} {high}"
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{wide}" height="{high}" color="#000">{one["body"]}</svg>'
    )
    drawn_ = resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff", width=SHORT)
    return Image.open(io.BytesIO(bytes(drawn_))).convert("RGB")


def opened(kind: str, place: str) -> Picture | None:
    """Return a picture, or none where there is nothing to see."""
    if kind == "drawing":
        return drawn(Path(place))
    if kind in ("photo", "thing"):
        picture = Image.open(place)
        if picture.mode != "RGB":
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture).convert("RGB")
        picture.thumbnail((LARGEST, LARGEST))
        return picture
    if kind == "icon":
        picture = icon(place)
    else:
        picture = Image.new("RGB", (160, 160), "white")
        ImageDraw.Draw(picture).text((12, 20), chr(int(place)), font=LETTERS, embedded_color=True)
    box = ImageOps.invert(picture).getbbox()
    if box is None or np.asarray(picture).std() < 2:
        return None
    return ImageOps.expand(picture.crop(box), 6, "white")


def square(picture: Picture, share: float, x: float, y: float) -> Picture:
    """Return a square part of a picture: a share of its short side."""
    side = max(16.0, min(picture.size) * share)
    left, top = (max(0.0, size - side) * at for size, at in zip(picture.size, (x, y), strict=True))
    box = (left, top, min(left + side, picture.width), min(top + side, picture.height))
    return picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box)


def view(
    kind: str, picture: Picture, others: list[Picture], chance: np.random.Generator
) -> Picture:
    """Return a view that a caller might have sent."""
    if kind != "photo":
        edge = int(max(picture.size) * chance.uniform(0, 0.3))
        picture = ImageOps.expand(picture, edge, "white")
        if chance.random() < 0.3:  # all of it, however long
            picture = ImageOps.pad(picture, (max(picture.size),) * 2, color="white")
    least = 0.35 if kind == "photo" else 0.6
    seen = square(picture, chance.uniform(least, 1), chance.random(), chance.random())
    if chance.random() < 0.5:
        seen = ImageOps.mirror(seen)
    if kind != "photo" and chance.random() < 0.35:
        if chance.random() < 0.5:
            ground = Image.new("RGB", seen.size, tuple(chance.integers(0, 256, 3).tolist()))
        else:
            ground = square(others[chance.integers(len(others))], 1, 0.5, 0.5)
        white = np.asarray(seen).min(2) > 245
        seen.paste(ground, mask=Image.fromarray((white * 255).astype(np.uint8)))
    elif chance.random() < 0.15:
        half = square(others[chance.integers(len(others))], 1, 0.5, 0.5)
        wide = SIDE // 2
        seen.paste(half.resize((wide, SIDE)) if chance.random() < 0.5 else half, (wide, 0))
    if chance.random() < 0.4:
        for change in (ImageEnhance.Color, ImageEnhance.Brightness, ImageEnhance.Contrast):
            seen = change(seen).enhance(chance.uniform(0.5, 1.5))
    if chance.random() < 0.1:
        seen = ImageOps.grayscale(seen).convert("RGB")
    if chance.random() < 0.15:
        small = int(chance.integers(48, 160))
        seen = seen.resize((small, small)).resize((SIDE, SIDE))
    return seen


def plain(picture: Picture) -> Picture:
    """Return the view that prepare.onnx gives."""
    return square(picture, SIDE / SHORT, 0.5, 0.5)


def prepared(picture: Picture) -> NDArray[np.float32]:
    """Return a square picture as the trunk and the backbone take it."""
    return ((np.asarray(picture, np.float32) - 127) / 128).transpose(2, 0, 1)[None]


def trunk(models: Path) -> None:
    """Write the trunk, if it is not there."""
    whole, kept = HERE / "trunk.fp32.onnx", HERE / "trunk.onnx"
    if not kept.is_file():
        extract_model(models / "backbone.fp32.onnx", whole, ["image"], [INSIDE])
        onnx.save(quantise(whole, "weights"), kept)


def begin(font: Path, photos: list[str]) -> None:
    """Make what a process needs."""
    global TRUNK, LETTERS, GROUNDS
    TRUNK = session(HERE / "trunk.onnx", 1)
    LETTERS = ImageFont.truetype(font, EMOJI)
    GROUNDS = [each for place in photos if (each := opened("photo", place))]


def seen(part: list[Work]) -> tuple[NDArray[np.float16], list[str]]:
    """Return what the trunk makes of pictures' views, and their lines."""
    found, lines = [], []
    for number, kind, place in part:
        chance = np.random.default_rng((0, number))
        picture = opened(kind, place)
        for turn in range(VIEWS[kind] if picture else 0):
            assert picture is not None
            each = view(kind, picture, GROUNDS, chance) if turn else plain(picture)
            found.append(TRUNK.run(None, {"image": prepared(each)})[0])
            lines.append(f"{number} {kind} {turn}")
    return np.concatenate(found).astype(np.float16), lines


def main(
    svgs: Path, models: Path, font: Path, sets: Path, folders: list[Path], packages: list[Path]
) -> None:
    """Write all files, going on where it was stopped."""
    photos = [
        str(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".jpg", ".webp")
    ]
    signs = [str(code) for first, end in SIGNS for code in range(first, end)]
    backbone = session(models / "backbone.fp32.onnx", 1)
    unlike = list(icons(sets, backbone))
    all_ = {"photo": photos, "emoji": signs, "drawing": list(drawings(svgs)), "icon": unlike}
    places = [(kind, place) for kind, those in all_.items() for place in those]
    labels = (models / "labels.txt").read_text("utf-8").splitlines()
    more = found(packages, backbone, labels)
    places += [(lies(path), path) for package, path in more if package not in JUDGED]
    work = [(number, kind, place) for number, (kind, place) in enumerate(places)]
    trunk(models)
    judge([path for package, path in more if package in JUDGED], models)
    kept = HERE / "views"
    kept.mkdir(exist_ok=True)
    parts = {kept / f"{at:05}.npz": work[at : at + PART] for at in range(0, len(work), PART)}
    left = {path: part for path, part in parts.items() if not path.is_file()}
    with multiprocessing.Pool(2, begin, (font, photos[::5])) as pool:
        for path, (inside, lines) in zip(left, pool.imap(seen, left.values()), strict=True):
            np.savez(path, inside=inside, lines=np.array(lines))
            print(path.stem, len(work), flush=True)
    whole = [np.load(path) for path in parts]
    np.save(HERE / "views.npy", np.concatenate([each["inside"] for each in whole]))
    lines = [line for each in whole for line in each["lines"]]
    (HERE / "views.txt").write_text("\n".join(lines) + "\n", "utf-8")
    print(f"{len(lines):,} views")


if __name__ == "__main__":
    at = sys.argv.index("--")
    folders, packages = (
        [Path(each) for each in some] for some in (sys.argv[5:at], sys.argv[at + 1 :])
    )
    main(*(Path(each) for each in sys.argv[1:5]), folders, packages)
