"""How was held-out.jsonl made? `python held_out.py /usr/share/wordnet`, of wordnet-base 3.0.

Its pictures are Debian's tuxpaint-stamps-default 2022.06.04, photos and drawings, each of one
thing that a line beside it names. A row's output is for each noun of that line the names that are
right of it: the noun, what it is a kind of, and what is a kind of it. One picture in four, by a
hash of its line, chose the thresholds of function.py and is left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path

from words import HERE, Nouns

STAMPS = Path("/usr/share/tuxpaint/stamps")
NO_PICTURES = ("symbols", "cartoon", "outline")
MOST_WORDS = 8
"""Longer lines tell something about the thing."""

SENSES = 2
"""How many senses of a noun are looked at, the commonest first."""

CHUNKS = re.compile(
    r"[,.;:()!?]|\b(?:a|an|the|of|with|in|on|at|from|and|or|for|to|by|that|which|is|are|its|fills"
    r"|sitting|standing|sleeping|flying|running|walking|holding|wearing|eating|perhaps|shows|some|his|her|their|one|two|three|four|five|six|seven|eight|nine|ten)\b"
)
FRAME = set(
    "picture photo photograph image drawing left right middle top bottom background pair piece "  # noqa: SIM905
    "kind view side front part say color".split()
)
"""What is said of the picture, or of where and how much, names nothing in it."""

TOO_WIDE = set(
    "entity,physical entity,object,whole,artifact,living thing,organism,matter,substance,thing,"  # noqa: SIM905
    "instrumentality,abstraction,causal agent,causal agency,device,covering,structure,unit,part,"
    "conveyance,implement,equipment,group,attribute,relation,solid,material,body part,creation,"
    "psychological feature,state,event,act,measure,communication,shape,commodity,article,system,"
    "natural object,plant part,unit,vascular plant,chordate,vertebrate,way,line,area,region,"
    "location,point,content,cognition,property,form,construction,consumer goods,durables".split(",")
)


class Judge:
    """Says which nouns a text holds, and which names are right of a noun."""

    def __init__(self, folder: Path) -> None:
        self._nouns = Nouns(folder)
        lines = (folder / "noun.exc").read_text("latin-1").splitlines()
        self._odd = dict(line.replace("_", " ").rsplit(" ", 1) for line in lines)

    def nouns(self, text: str) -> list[str]:
        """Return the noun that each phrase of a text ends with, of up to three words."""
        found = []
        for chunk in CHUNKS.split(text.lower()):
            words = chunk.split()
            for size in (3, 2, 1):
                noun = self._plain(" ".join(words[-size:])) if len(words) >= size else ""
                if noun:
                    if noun not in FRAME and noun not in found:
                        found.append(noun)
                    break
        return found

    def right(self, said: str, true: str) -> bool:
        """Return whether one is a kind of the other, or the same, and neither too wide."""
        one, two = self._places(said), self._places(true)
        above = {kind for place in two for kind in self._nouns.kinds(place)}
        below = {kind for place in one for kind in self._nouns.kinds(place)}
        return bool(one & two or one & self._narrow(above) or two & self._narrow(below))

    def _narrow(self, places: set[int]) -> set[int]:
        return {place for place in places if self._nouns.words[place][0] not in TOO_WIDE}

    def _places(self, noun: str) -> set[int]:
        return set(self._nouns.senses.get(noun.lower(), [])[:SENSES])

    def _plain(self, word: str) -> str:
        """Return a word, or what it is the plural of, if it is a noun."""
        forms = [word, self._odd.get(word, "")]
        forms += [word.removesuffix(end) + new for end, new in ENDS if word.endswith(end)]
        return next((form for form in forms if form in self._nouns.senses), "")


ENDS = (("s", ""), ("es", ""), ("ies", "y"))


def stamps() -> list[tuple[Path, str]]:
    """Return each picture that has a line, one for each line."""
    found: dict[str, Path] = {}
    for path in sorted(STAMPS.rglob("*.png")):
        said = path.with_suffix(".txt")
        if said.is_file() and not any(each in str(path) for each in NO_PICTURES):
            line = said.read_text("utf-8", "replace").splitlines()[0].lower()
            line = re.sub(r"\(.*?\)", "", line).split(".")[0].strip()
            if line.startswith(("a ", "an ", "the ")) and len(line.split()) <= MOST_WORDS:
                found.setdefault(line, path)
    return [(path, line) for line, path in found.items()]


def choosing(line: str) -> bool:
    """Return whether a picture is one that thresholds were chosen on."""
    return hashlib.sha256(f"describe{line}".encode()).digest()[0] < 64


def main(folder: Path) -> None:
    """Write a line for each picture whose line has a noun of WordNet."""
    judge = Judge(folder)
    lines = (HERE / "words.txt").read_text("utf-8").splitlines()
    names = {name for line in lines for name in line.replace(": ", ", ").split(", ")}
    for other in ("classify", "detect"):
        names |= set((HERE.parent / f"image.{other}" / "labels.txt").read_text().splitlines())
    kept = []
    for path, line in stamps():
        if (nouns := judge.nouns(line)) and not choosing(line):
            right = [[name for name in sorted(names) if judge.right(name, true)] for true in nouns]
            kept.append(json.dumps({"inputs": {"image": str(path)}, "output": right}))
    (HERE / "held-out.jsonl").write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
