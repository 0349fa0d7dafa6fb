"""What tells of a person is found, in texts that were written for it and in some that were not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from trivium.hosts.server.personal import KINDS, found

TEXTS = Path(__file__).parent / "personal"
MARK = re.compile(r"\{(" + "|".join(KINDS) + r"):([^{}]+)\}")


@dataclass
class Score:
    """How much of a text's personal data was found, by kind, and what else was taken for it."""

    right: Counter[str]
    missed: Counter[str]
    wrong: list[str]

    def recall(self, *kinds: str) -> float:
        """Return the share that was found."""
        right = sum(self.right[each] for each in kinds or KINDS)
        return right / (right + sum(self.missed[each] for each in kinds or KINDS))

    @property
    def precision(self) -> float:
        """Return the share of what was found that is personal."""
        right = sum(self.right.values())
        return right / (right + len(self.wrong))


def score(name: str) -> Score:
    """Read a marked text, and compare."""
    text, truth = "", []
    marked, at = (TEXTS / f"{name}.txt").read_text(), 0
    for match in MARK.finditer(marked):
        text += marked[at : match.start()]
        truth.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        at = match.end()
    text += marked[at:]
    hidden = [False] * len(text)
    places, end = [], 0
    for place in sorted(found(text), key=lambda each: (each[0], -each[1])):
        if place[0] >= end:
            places.append(place)
            end = place[1]
            hidden[place[0] : end] = [True] * (end - place[0])
    right: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    for start, end, kind in truth:
        (right if all(hidden[start:end]) else missed)[kind] += 1
    wrong = [
        text[start:end]
        for start, end, _ in places
        if not any(start < other and before < end for before, other, _ in truth)
    ]
    return Score(right, missed, wrong)


NUMBERS = ("card", "date", "email", "iban", "id", "patient", "phone", "secret")


@pytest.mark.parametrize("name", ["english", "chinese"])
def test_what_it_was_made_for_is_found(name: str) -> None:
    """All of it, and nothing else: neither vectors, nor times, nor versions, nor words."""
    seen = score(name)
    assert (seen.missed, seen.wrong) == (Counter(), [])


def test_texts_that_nothing_was_made_for() -> None:
    """Numbers are found; a name needs something beside it that says so."""
    fresh = score("fresh")
    assert fresh.recall(*NUMBERS) >= 0.9
    assert fresh.recall("name") >= 0.5
    assert fresh.precision >= 0.85


def test_texts_that_taught_what_was_missed() -> None:
    """What was found in them at first was less: they are no measure any more."""
    later = score("later")
    assert later.recall() >= 0.95
    assert later.wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "1" * 20_000,
        "1 " * 10_000,
        "1." * 10_000,
        "a@" * 10_000,
        "a@" + "a." * 10_000,
        "Aa " * 7_000,
        "AA11 " * 4_000,
        "a^" * 10_000,
        "张" * 20_000,
        "患者张" * 7_000,
        "eyJa." * 4_000,
        "PatientID:" * 2_000,
        "(0010,0010) " * 2_000,
        "+1 " * 7_000,
        "Dr. " * 5_000,
        "Dr Aa" + " van" * 5_000,
        "姓名:张" + "·张" * 5_000,
        "born on 1 a " * 2_000,
        "phone: 1 " * 2_000,
        "name of " * 3_000,
        "password" + " " * 20_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_hostile_text_costs_what_its_length_costs(text: str) -> None:
    """Twice as much of it takes about twice as long: no pattern tries all ways."""
    import time

    def cost(part: str) -> float:
        best = 1e9
        for _ in range(3):
            begun = time.process_time()
            list(found(part))
            best = min(best, time.process_time() - begun)
        return best

    half, whole = cost(text[: len(text) // 2]), cost(text)
    assert whole < 4 * half + 0.02
