"""Which pictures and words is image.embed taught and judged on, in the space of text.embed?

    python data.py SVGS MODELS

SVGS is usr/share/openclipart/svg of Debian's openclipart-svg 0.18 (8,121 drawings, public domain);
MODELS holds prepare.onnx and backbone.fp32.onnx of image.embed, model.fp32.onnx and tokenizer.json
of text.embed, and labels.txt of image.classify. Needs resvg-py. Writes vectors.npz, and pairs.tsv
(path, split, text, hard negative's path) if it is not there: the one kept here was fixed before
anything was trained, and what was made since is of its rows.

A text is the drawing's title, or its file's name where the title is that of a series, and up to
three of its keywords, by their hash. Groups are what one artist drew for one folder, joined where
two drawings are nearly the same picture; a group is in one split, by its hash. Series of over 300
drawings are taught only; what says the same as a row of another split is left out of the later
one (test, then validation, then training).

A row's hard negative is the nearest text of its split whose cosine in text.embed is below 0.6.
"""

from __future__ import annotations

import collections
import hashlib
import io
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import onnxruntime as ort
import resvg_py
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

HERE = Path(__file__).parent
PAIRS = HERE / "pairs.tsv"
FIXED = PAIRS.is_file()
DC = "{http://purl.org/dc/elements/1.1/}"
SIDE, TRIMMED_BELOW, MARGIN = 320, 243, 0.04
TEST, VALIDATION, SERIES, SAME, HARD = 2330, 650, 300, 3, 0.6
NO_KEYWORDS = set(
    "hash unsorted clip_art clipart externalsource media image png svg theme icons icon ico "  # noqa: SIM905
    "computer contributed application action mapsym symbol cleanup format".split()
)
NO_TITLE = re.compile(
    r"tasto|plastik|part of the|icon ?s|iconset|icon set|theme|cliparts|untitled|^image|^\W*$|"
    r"openclipart|symbol_signs|svg|gramastar|^\d+$|clip art",
    re.IGNORECASE,
)


def said(element: Any) -> str:
    """Return an element's text on one line."""
    texts = [] if element is None else [text.strip() for text in element.itertext()]
    return re.sub(r"\s+", " ", " ".join(texts)).strip()


def plain(text: str) -> str:
    """Return a name's words."""
    return re.sub(r"\s+", " ", re.sub(r"[_\-+.]+", " ", text)).strip()


def read(root: Path, path: Path) -> dict[str, Any]:
    """Return what a drawing says of itself."""
    work = next((e for e in ElementTree.parse(path).iter() if e.tag.endswith("}Work")), None)  # noqa: S314
    row: dict[str, Any] = {"path": str(path.relative_to(root)), "keys": []}
    for name in ("title", "creator", "subject"):
        found = None if work is None else work.find(DC + name)
        if name == "subject":
            items = [] if found is None else [e for e in found.iter() if e.tag.endswith("}li")]
            row["keys"] = [said(each) for each in items]
        else:
            row[name] = said(found)
    return row


def named(row: dict[str, Any]) -> str:
    """Return the words of a drawing's file name, without its artist's."""
    name = re.sub(r"\.svgz?$", "", Path(row["path"]).name).lower()
    if "icons" in row["path"]:
        name = re.sub(
            r"(gnome|stock|mime|mimetypes?|md|bw|fs|dev|nocredit|text|x)(?=[-_])", "", name
        )
    artist = re.sub(r"[^a-z]+", "_", row["creator"].lower()).strip("_")
    for size in range(len(artist), 3, -1):
        if "_" + artist[:size] in name:
            name = name.replace("_" + artist[:size], "_")
            break
    name = re.sub(r"[_\-]?(0?\d{1,3}|r|md|v\d[\d.]*)$", "", name.strip("_"))
    return plain(re.sub(r"\d+$", "", name))


def caption(row: dict[str, Any], titles: Any, keywords: Any) -> tuple[str, list[str]]:
    """Return a drawing's title in plain words, and its keywords in the order of their hashes."""
    title = plain(re.sub(r"\(.*?\)", "", row["title"])).strip(" ,;:")
    often = titles[row["title"].strip().lower()] > 12
    if not title or often or NO_TITLE.search(title) or len(title) > 90:
        title = named(row)
    title = re.sub(
        r"clipart by nicu buculei( w\b)?|rpg map elements|\b(nicu|ganson|bw)\b", "", title.lower()
    )
    title = re.sub(r"(?<=[a-z])\d+\b", "", title)
    title = plain(re.sub(r"\s+\d+$", "", title.strip()))
    artist = plain(row["creator"].lower())
    keys = dict.fromkeys(
        plain(key.lower())
        for key in row["keys"]
        if key.lower() not in NO_KEYWORDS
        and keywords[key.lower()] >= 2
        and not re.search(r"^0x|theme|icon|\d|@", key)
        and len(key) < 30
    )
    kept = [key for key in keys if key and key not in title and key not in artist]
    return title, sorted(kept, key=lambda key: hashlib.sha1(key.encode()).digest())  # noqa: S324


def drawn(path: Path) -> Image.Image | None:
    """Return a drawing on white with a narrow margin, or none if there is nothing to see."""
    try:
        raw = resvg_py.svg_to_bytes(svg_path=str(path), background="#ffffff", width=SIDE, dpi=96.0)
        whole = Image.open(io.BytesIO(bytes(raw))).convert("RGB")
    except (ValueError, OSError):
        return None
    ink = (np.asarray(whole) < TRIMMED_BELOW).any(2)
    if np.asarray(whole).std() < 2 or not ink.any():
        return None
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    edge = int(MARGIN * max(right - left, bottom - top)) + 2
    picture = Image.new("RGB", (right - left + 2 * edge, bottom - top + 2 * edge), "white")
    picture.paste(whole.crop((left, top, right, bottom)), (edge, edge))
    return picture if 1 / 8 <= picture.width / picture.height <= 8 else None


class Groups:
    """Sets that are joined."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def of(self, each: int) -> int:
        """Return which set something is in."""
        while self._above[each] != each:
            self._above[each] = self._above[self._above[each]]
            each = self._above[each]
        return each

    def join(self, one: int, other: int) -> None:
        """Make one set of two."""
        self._above[self.of(one)] = self.of(other)


def grouped(rows: list[dict[str, Any]], features: Any, small: Any) -> dict[int, list[int]]:
    """Return the groups: an artist's folder, and drawings that are nearly the same."""
    groups = Groups(len(rows))
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for start in range(0, len(rows), 1000):
        near = unit[start : start + 1000] @ unit.T
        for one, other in zip(*np.nonzero(near > 0.93), strict=True):
            apart = np.abs(small[start + one] - small[other]).mean()
            if start + one < other and (near[one, other] > 0.97 or apart < 8):
                groups.join(start + int(one), int(other))
    first: dict[tuple[str, Path], int] = {}
    for number, row in enumerate(rows):
        groups.join(number, first.setdefault((row["creator"], Path(row["path"]).parent), number))
    found = collections.defaultdict(list)
    for number in range(len(rows)):
        found[groups.of(number)].append(number)
    return found


def split(rows: list[dict[str, Any]], groups: dict[int, list[int]]) -> None:
    """Say of each row which split it is in, if any."""
    kinds: dict[str, list[int]] = {"test": [], "validation": [], "train": []}

    def order(group: list[int]) -> str:
        return hashlib.sha256(f"joint{rows[min(group)]['path']}".encode()).hexdigest()

    for group in sorted(groups.values(), key=order):
        kind = "train"
        if len(group) < SERIES:
            full = len(kinds["test"]) >= TEST, len(kinds["validation"]) >= VALIDATION
            kind = "train" if all(full) else "validation" if full[0] else "test"
        kinds[kind] += group
    seen: set[str] = set()
    for kind, members in kinds.items():
        times = collections.Counter[str]()
        for number in sorted(members):
            text = rows[number]["text"]
            times[text] += 1
            if text not in seen and (kind == "train" or times[text] <= SAME):
                rows[number]["split"] = kind
        seen |= set(times)


def session(path: Path, threads: int = 0) -> ort.InferenceSession:
    """Return a model, on so many threads, or as many as there are cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main(root: Path, models: Path) -> None:
    """Write both files."""
    rows = [read(root, path) for path in sorted(root.rglob("*.svg*"))]
    titles = collections.Counter(row["title"].strip().lower() for row in rows)
    keywords = collections.Counter(key.lower() for row in rows for key in set(row["keys"]))
    prepare, network = session(models / "prepare.onnx"), session(models / "backbone.fp32.onnx")
    fixed = [line.split("\t") for line in PAIRS.read_text("utf-8").splitlines()] if FIXED else []
    known = {line[0]: line for line in fixed}
    kept, seen, small, stars = [], [], [], 0
    for row in rows:
        row["title"], row["keys"] = caption(row, titles, keywords)
        row["text"] = ": ".join(filter(None, [row["title"], ", ".join(row["keys"][:3])]))
        star = "shapes/stars/star_" in row["path"]
        stars += star
        if FIXED and row["path"] not in known:
            continue
        if len(re.sub("[^a-z]", "", row["title"])) < 3 or (star and stars % 20):
            continue
        picture = drawn(root / row["path"])
        if picture is None:
            continue
        image = prepare.run(None, {"pixels": np.asarray(picture)})[0]
        kept.append(row)
        seen.append(
            dict(
                zip(("probabilities", "features"), network.run(None, {"image": image}), strict=True)
            )
        )
        small.append(np.asarray(picture.resize((32, 32), Image.Resampling.BOX), np.float32))
    pictures = {name: np.concatenate([each[name] for each in seen]) for name in seen[0]}
    if FIXED:
        for row in kept:
            _, row["split"], row["text"], row["negative"] = known[row["path"]]
    else:
        split(kept, grouped(kept, pictures["features"], np.stack(small).reshape(len(kept), -1)))
    used = [number for number, row in enumerate(kept) if "split" in row]
    pairs = [kept[number] for number in used]
    tokenizer = Tokenizer.from_file(str(models / "tokenizer.json"))
    encoder = session(models / "model.fp32.onnx")

    def embed(texts: list[str]) -> NDArray[np.float32]:
        found = []
        for text in texts:
            ids = np.array([tokenizer.encode(text).ids])
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            found.append(encoder.run(None, feeds)[0][0])
        return np.stack(found)

    generator = np.random.default_rng(0)

    def some(row: dict[str, Any], least: int, most: int) -> list[str]:
        keys = generator.permutation(row["keys"]).tolist() if row["keys"] else []
        return [str(key) for key in keys[: generator.integers(least, most + 1)]]

    texts = {
        "text": [row["text"] for row in pairs],
        "title": [row["title"] for row in pairs],
        "mixed": [": ".join(filter(None, [r["title"], ", ".join(some(r, 1, 5))])) for r in pairs],
        "keys": [", ".join(some(row, 2, 5)) or f"a picture of {row['title']}" for row in pairs],
        "labels": (models / "labels.txt").read_text("utf-8").splitlines(),
    }
    vectors = {name: embed(lines) for name, lines in texts.items()}
    for kind in () if FIXED else ("validation", "test"):
        members = [number for number, row in enumerate(pairs) if row["split"] == kind]
        near = vectors["text"][members] @ vectors["text"][members].T
        for place, number in enumerate(members):
            allowed = np.where(near[place] < HARD, near[place], -1)
            pairs[number]["negative"] = pairs[members[int(allowed.argmax())]]["path"]
    names = ("path", "split", "text", "negative")
    lines = ["\t".join(row.get(name, "") for name in names) for row in pairs]
    (HERE / "rows.tsv" if FIXED else PAIRS).write_text("\n".join(lines) + "\n", "utf-8")
    chosen = {name: each[used] for name, each in pictures.items()}
    np.savez(HERE / "vectors.npz", **chosen, **vectors)  # type: ignore[arg-type] # its stub
    print(collections.Counter(row["split"] for row in pairs))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
