"""Which long documents are there, what are their titles and headings, and where do they lie?

    python data.py PACKAGES OUT

PACKAGES holds a folder for each of Debian's packages (`apt-get download NAME; dpkg -x NAME_*.deb
PACKAGES/NAME`): their pages become documents of pieces, without title and headings, which are what
is searched for. OUT/documents.json says which there are, OUT/vectors.npz has text.embed's vectors.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
from collections import Counter, defaultdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tokenizers
from onnxruntime.quantization import quantize_dynamic

from trivium.texts import split

ZOO = Path("models/zoo/text.embed")
PIECE, MOST = 254, 24
WORDS = (260, 6000)
OPENSTACK = ("cinder-doc", "glance-doc", "keystone-doc", "neutron-doc", "nova-doc", "swift-doc")
PALLETS = ("python-flask-doc", "python-click-doc", "python-jinja2-doc", "python-werkzeug-doc")
GENERATED = ("linux-doc-6.1", "python-pandas-doc", "python-statsmodels-doc", "python-sklearn-doc")
CAPS = {"linux": 150, "openstack": 80, "manpages": 80}
"""Documents of a group, else 45; groups to train on give as many again twice, Linux 450."""

UNDERLINE = re.compile(r"^([=\-~`#\"^+*:.'_])\1{2,}\s*$")
KEPT = (
    "note|warning|tip|important|seealso|versionadded|versionchanged|deprecated|rubric|function|"
    "method|class|option|setting"
)
MARKS = (
    (r":[\w:+-]+:`~?!?([^`<]*?)(\s*<[^`>]*>)?`", r"\1"),
    (r"`([^`<]*?)\s*<[^`>]*>`_+", r"\1"),
    (r"``([^`]*)``", r"\1"),
    (r"`([^`]*)`_*", r"\1"),
    (r"\*\*([^*]*)\*\*", r"\1"),
    (r"\|(\w+)\|", r"\1"),
    (r"^\s*:\w[\w ]*:.*$", ""),
    ("::", ":"),
)

Lines = list[tuple[bool, str]]
"""Whether each line is a heading."""


def sphinx(text: str) -> Lines:
    """Return a page of reStructuredText as lines."""
    lines, out, at = text.splitlines(), [], 0
    while at < len(lines):
        line = lines[at]
        below = lines[at + 1] if at + 1 < len(lines) else ""
        titled = bool(UNDERLINE.match(below)) and not UNDERLINE.match(line)
        if titled and line.strip() and len(below.strip()) >= min(3, len(line.strip())):
            out.append((True, line.strip()))
            at += 2
            continue
        if UNDERLINE.match(line):
            at += 1
            continue
        if re.match(r"^\s*\.\. ", line) and not re.match(rf"^\s*\.\. ({KEPT})", line):
            indent = len(line) - len(line.lstrip())
            at += 1
            while at < len(lines) and (
                not lines[at].strip() or len(lines[at]) - len(lines[at].lstrip()) > indent
            ):
                at += 1
            out.append((False, ""))
            continue
        out.append((False, re.sub(r"^\s*\.\. (\w+)::\s*", "", line)))
        at += 1
    for mark, plain in MARKS:
        out = [(heading, re.sub(mark, plain, line)) for heading, line in out]
    return out


class Page(HTMLParser):
    """A page of HTML as lines."""

    HIDDEN = ("script", "style", "nav", "header", "footer", "pre", "table")
    HEADINGS = ("h1", "h2", "h3", "h4")
    BLOCKS = ("p", "li", "div", "dt", "dd")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.out: Lines = []
        self._held, self._hidden, self._heading = "", 0, False
        self.feed(text)
        self._flush()

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        self._hidden += tag in self.HIDDEN
        if tag in (*self.BLOCKS, *self.HEADINGS):
            self._flush()
        self._heading |= tag in self.HEADINGS

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in self.HIDDEN))
        if tag in (*self.BLOCKS, *self.HEADINGS):
            self._flush()
        self._heading &= tag not in self.HEADINGS

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._held += data

    def _flush(self) -> None:
        line = re.sub(r"\s+", " ", self._held).strip().rstrip("¶").strip()
        self._held = ""
        if line:
            self.out += [(self._heading, line), (False, "")]


def manual(text: str) -> Lines:
    """Return a manual page as lines; its title is what it says of itself after the dash."""
    out: Lines = []
    section, titled = "", False
    for line in text.splitlines():
        if found := re.match(r"\.(SH|SS)\s+(.*)", line):
            section = found[2].strip('"') if found[1] == "SH" else section
            continue
        if line.startswith((".PP", ".P", ".TP", ".LP", ".IP")):
            out.append((False, ""))
        if line.startswith("."):
            found = re.match(r"\.(B|I|BR|IR|BI|RB|RI|IB)\s+(.*)", line)
            if not found:
                continue
            line = found[2]
        line = re.sub(r"\\f.|\\s[-+]?\d|\\&|\\/|\\,|\\%|\\:", "", line)
        line = line.replace("\\-", "-").replace("\\e", "\\").replace('"', "")
        line = re.sub(r"\\\(..|\\\[[^\]]*\]|\\\*.", "", line)
        if section == "NAME":
            if line.strip() and not titled:
                out.insert(0, (True, line.split(" - ", 1)[-1].strip()))
                titled = True
        elif section not in ("SEE ALSO", "COLOPHON", "BUGS", "VERSIONS", "STANDARDS"):
            out.append((False, line))
    return out


def document(family: str, name: str, lines: Lines) -> dict[str, Any] | None:
    """Return a page that is long, and prose, as a document."""
    heads = [line for heading, line in lines if heading]
    text = "\n".join("" if heading else line for heading, line in lines)
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"\n ", "\n", re.sub(r"[ \t]+", " ", text))).strip()
    letters = sum(each.isalpha() or each.isspace() for each in text) / max(1, len(text))
    if not heads or not heads[0] or letters < 0.85:
        return None
    if not WORDS[0] <= len(text.split()) <= WORDS[1]:
        return None
    return {"family": family, "name": name, "title": heads[0], "heads": heads[1:], "text": text}


def group(family: str) -> str:
    """Return what a family is parted with."""
    if family.startswith("linux/"):
        return "linux"
    if family in OPENSTACK:
        return "openstack"
    if family in PALLETS:
        return "pallets"
    return "manpages" if family.startswith("manpages") else family


def pages(packages: Path) -> list[dict[str, Any]]:
    """Return the documents of all packages."""
    found = []
    for folder in sorted(packages.iterdir()):
        family = folder.name
        paths = sorted(folder.rglob("*.rst.txt*"))
        if family == "cmake-data":
            rooms = ("/manual/", "/guide/", "/module/", "/command/")
            paths = [
                each for each in sorted(folder.rglob("*.rst")) if any(r in str(each) for r in rooms)
            ]
        if family in GENERATED:
            left = ("generated", "/api", "translations")
            paths = [each for each in paths if not any(word in str(each) for word in left)]
        if family.startswith("manpages"):
            paths = sorted(folder.rglob("man[1-8]/*.gz"))
        elif not paths:
            paths = sorted(folder.rglob("*.html"))
            if family == "debian-handbook":
                paths = [each for each in paths if "/en-US/" in str(each)]
            if family in ("python-scipy-doc", "python-sqlalchemy-doc"):
                paths = [each for each in paths if "generated" not in str(each)]
        for path in paths:
            if not path.is_file() or path.is_symlink():
                continue
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            text = data.decode(errors="replace")
            if family.startswith("manpages"):
                lines = manual(text)
            else:
                lines = Page(text).out if path.suffix == ".html" else sphinx(text)
            room = re.search(r"_sources/([^/]+)/", str(path))
            of = f"linux/{room[1] if room else 'top'}" if family == "linux-doc-6.1" else family
            made = document(of, str(path.relative_to(folder)), lines)
            if made:
                found.append(made)
    return found


def parted(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the documents that are used, by groups: to train, to choose, to judge."""
    chance = random.Random(2026)  # noqa: S311
    groups = sorted({group(each["family"]) for each in found})
    chance.shuffle(groups)
    by: dict[str, list[dict[str, Any]]] = defaultdict(list)
    seen = set()
    for each in found:
        if each["text"][:400] not in seen:
            seen.add(each["text"][:400])
            by[group(each["family"])].append(each)
    often = Counter(head.lower() for each in found for head in set(each["heads"]))
    sizes = {name: min(len(by[name]), CAPS.get(name, 45)) for name in groups}
    use, before = {}, 0
    for name in groups:
        share = before / sum(sizes.values())
        use[name] = "test" if share < 0.28 else "val" if share < 0.43 else "train"
        before += sizes[name]
    chosen = []
    for name in groups:
        rows = by[name]
        chance.shuffle(rows)
        more = {"linux": 450}.get(name, 90) if use[name] == "train" else 0
        for each in rows[: sizes[name] + more]:
            heads = [
                head
                for head in each["heads"]
                if len(head.split()) >= 2 and len(head) < 90 and often[head.lower()] == 1
            ]
            chance.shuffle(heads)
            queries = [each["title"], *heads[:3]]
            chosen.append({**each, "group": name, "split": use[name], "queries": queries})
    return chosen


def main() -> None:
    """Write the documents and their vectors, by a dynamic INT8 text.embed: it is quick."""
    out = Path(sys.argv[2])
    chosen = parted(pages(Path(sys.argv[1])))
    tokenizer = tokenizers.Tokenizer.from_file(str(ZOO / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    quantize_dynamic(ZOO / "model.fp32.onnx", out / "quick.onnx", per_channel=True)
    session = ort.InferenceSession(out / "quick.onnx")

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    def vector(text: str) -> np.ndarray:
        ids = np.array([tokenizer.encode(text).ids[:256]], dtype=np.int64)
        found = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return np.asarray(found[0][0])

    vectors = {}
    for number, each in enumerate(chosen):
        pieces = split(each.pop("text"), count, PIECE)[:MOST]
        vectors[f"{number}.pieces"] = np.stack([vector(piece) for piece in pieces])
        vectors[f"{number}.tokens"] = np.array([count(piece) for piece in pieces], np.float32)
        vectors[f"{number}.queries"] = np.stack([vector(query) for query in each["queries"]])
    (out / "documents.json").write_text(json.dumps(chosen))
    np.savez(out / "vectors.npz", **vectors)


if __name__ == "__main__":
    main()
