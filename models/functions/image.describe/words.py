"""How was words.txt made? `python words.py /usr/share/wordnet`, of Debian's wordnet-base 3.0.

A line for each label of image.classify and image.detect, with everyday names of what it is a kind
of, the narrowest first. ImageNet's labels are in the order of their synsets' places in WordNet,
which tells the crane that is a bird from the one that lifts.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
EVERYDAY = set(
    """
animal bird fish insect snake lizard turtle frog salamander spider crab snail dinosaur monkey ape
dog wolf fox cat bear rabbit rodent swine sheep goat antelope horse camel elephant whale seal
butterfly beetle dragonfly parrot duck goose owl penguin hen cock shark jellyfish starfish coral
worm marsupial bat deer crustacean food fruit vegetable bread dessert sandwich soup drink wine
plant flower fungus tree vehicle car truck bus van train boat ship aircraft bicycle motorcycle cart
wagon locomotive tank tractor building house church shop furniture chair table bed sofa cabinet
bench clothing hat shirt dress skirt coat sweater shoe sock glove necktie swimsuit armor mask
musical_instrument guitar drum piano flute violin tool hammer saw knife weapon gun container bottle
box bag basket pot pan cup bucket glass bowl vase machine computer person clock watch telephone
camera lamp ball toy bridge fence tower book screen mountain shore kitchen_appliance
kitchen_utensil
""".split()  # noqa: SIM905
)
OTHERWISE = {
    "edible fruit": "fruit",
    "sailing vessel": "boat",
    "beverage": "drink",
    "swine": "pig",
    "necktie": "tie",
    "place of worship": "church",
    "musical instrument": "musical instrument",
    "hen": "chicken",
    "cock": "chicken",
    "domestic fowl": "chicken",
}
"""The everyday name of a synset whose first word is none."""

# image.detect's kinds are everyday names; what WordNet would make of them is not always meant.
THINGS = {
    "person": "person",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "food": "banana apple sandwich orange broccoli carrot hot_dog pizza donut cake",
    "furniture": "chair couch bed dining_table bench",
    "container": "backpack handbag suitcase bottle wine_glass cup bowl vase",
    "machine": "tv laptop cell_phone microwave oven toaster refrigerator",
}
ALSO = {
    "airplane": "aircraft",
    "motorcycle": "motorcycle",
    "couch": "sofa",
    "dining table": "table",
    "wine glass": "glass",
    "handbag": "bag",
    "backpack": "bag",
    "suitcase": "bag",
    "laptop": "computer",
    "cell phone": "telephone",
    "tv": "screen",
    "banana": "fruit",
    "apple": "fruit",
    "orange": "fruit",
    "broccoli": "vegetable",
    "carrot": "vegetable",
    "sports ball": "ball",
    "teddy bear": "toy",
}
BROADER = {"train": ["vehicle"], "armor": ["clothing"], "church": ["building"]}


class Nouns:
    """WordNet's nouns: the words of a synset, what it is a kind of, and a word's synsets."""

    def __init__(self, folder: Path) -> None:
        self.words: dict[int, list[str]] = {}
        self.above: dict[int, list[int]] = {}
        self.senses: dict[str, list[int]] = {}
        for line in (folder / "data.noun").read_text("latin-1").splitlines():
            if not line.startswith("  "):
                head = line.split("|")[0].split()
                place, count = int(head[0]), int(head[3], 16)
                pointers = head[5 + 2 * count :]
                self.words[place] = [head[4 + 2 * i].replace("_", " ") for i in range(count)]
                self.above[place] = [
                    int(pointers[i + 1])
                    for i in range(0, len(pointers), 4)
                    if pointers[i][0] == "@"
                ]
        for line in (folder / "index.noun").read_text("latin-1").splitlines():
            if not line.startswith("  "):
                head = line.split()
                self.senses[head[0].replace("_", " ")] = [int(x) for x in head[-int(head[2]) :]]

    def kinds(self, place: int) -> list[int]:
        """Return what a synset is a kind of, the narrowest first."""
        found: list[int] = []
        line = list(self.above[place])
        while line:
            above = line.pop(0)
            if above not in found:
                found.append(above)
                line += self.above[above]
        return found


def places(labels: list[str], nouns: Nouns) -> dict[str, int]:
    """Return the labels' synsets: the longest row of them in WordNet's order."""
    rows: list[tuple[int, int, tuple[tuple[str, int], ...]]] = []
    for label in labels:
        longer = []
        for place in nouns.senses.get(label.lower(), []):
            before = max((row for row in rows if row[0] < place), key=lambda r: r[1], default=None)
            size, taken = (before[1], before[2]) if before else (0, ())
            longer.append((place, size + 1, (*taken, (label, place))))
        best: list[tuple[int, int, tuple[tuple[str, int], ...]]] = []
        for row in sorted(rows + longer, key=lambda r: (r[0], -r[1])):
            if not best or row[1] > best[-1][1]:
                best.append(row)
        rows = best
    return dict(rows[-1][2])


def main(folder: Path) -> None:
    """Write words.txt."""
    nouns = Nouns(folder)
    labels = (HERE.parent / "image.classify" / "labels.txt").read_text("utf-8").splitlines()
    found = places(labels, nouns)
    kinds: dict[str, list[str]] = {}
    everyday = {name.replace("_", " ") for name in EVERYDAY}
    for label in labels:
        names = []
        for place in nouns.kinds(found[label]) if label in found else []:
            word = nouns.words[place][0]
            name = OTHERWISE.get(word, word)
            if name != label and name not in names and (word in everyday or word in OTHERWISE):
                names.append(name)
        kinds[label] = [*names, *BROADER.get(names[-1] if names else label, [])]
    for kind, things in THINGS.items():
        for thing in (each.replace("_", " ") for each in things.split()):
            also = [name for name in (ALSO.get(thing, thing), kind) if name != thing]
            kinds[thing] = list(dict.fromkeys([*kinds.get(thing, []), *also]))
    for thing, name in ALSO.items():
        kinds.setdefault(thing, [name])
    often = Counter(name for names in kinds.values() for name in names)
    for names in kinds.values():
        if "vehicle" in names and "container" in names:
            names.remove("container")  # where WordNet keeps what has wheels
        names.sort(key=lambda name: often[name])
    lines = [f"{label}: {', '.join(names)}" for label, names in kinds.items() if names]
    (HERE / "words.txt").write_text("\n".join(lines) + "\n", "utf-8")
    print(len(lines), "of", len(kinds), "are kinds of something everyday")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
