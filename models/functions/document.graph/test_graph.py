"""Are entities and relations found where they stand, whatever kind of document it is?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from trivium import Asker, Blob, Document
from trivium.errors import BadInput, ModelNotReady, TooLarge
from trivium.hosts import limits
from trivium_models import author

function: Any = author.load(Path(__file__).with_name("function.py"))
LINE = {"x": 0.1, "y": 0.1, "width": 0.5, "height": 0.1, "score": 0.9}
LINES = [{"label": "Bern is the", **LINE}, {"label": "capital  of\tSwitzerland.", **LINE, "y": 0.3}]
SAID = [{"start": 4.5, "end": 6.0, "text": "Anna Keller lives in Bern.", "language": "en"}]


def document(data: bytes) -> Document:
    return limits.document(Blob(media="", data=data), lambda start, end: data[start:end])


class Ask(Asker):
    """Takes a document for what its first letters say."""

    def __init__(self, *without: str) -> None:
        self.without = without

    async def __call__(self, function: str, /, **values: Any) -> Any:
        if function in self.without:
            raise ModelNotReady(f"{function} is not there")
        if function == "document.type":
            label = values["document"].data[:4].strip().decode("latin-1").lower()
            groups = {"png": "image", "wav": "audio", "pdf": "document"}
            return {"label": label, "group": groups.get(label, "text")}
        if function == "document.read":
            if b"broken" in values["document"].data:
                raise BadInput("the PDF can't be opened")
            return [{"page": 1, "lines": LINES}]
        assert function == "audio.transcribe"
        return SAID


def graphed(*texts: bytes, ask: Ask | None = None) -> Any:
    return asyncio.run(function.graph([document(each) for each in texts], ask or Ask()))


def related(text: str) -> list[tuple[str, str, str]]:
    found = graphed(text.encode()).relations
    return [(each.subject, each.relation, each.object) for each in found]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "Helvetic Lamps AG was founded in 1921 by Anna Keller.",
            [
                ("Helvetic Lamps AG", "founded in", "1921"),
                ("Anna Keller", "founded", "Helvetic Lamps AG"),
            ],
        ),
        (
            "Stein & Sons, which is headquartered in Basel, supplies Nordlicht GmbH.",
            [
                ("Stein & Sons", "located in", "Basel"),
                ("Stein & Sons", "supplies", "Nordlicht GmbH"),
            ],
        ),
        (
            "Peter Vogel studied at ETH Zurich and works for the University of Basel.",
            [
                ("Peter Vogel", "studied at", "ETH Zurich"),
                ("Peter Vogel", "works for", "University of Basel"),
            ],
        ),
        ("Dr. Vogel has led Helvetic Lamps since 2010.", [("Vogel", "leads", "Helvetic Lamps")]),
        ("Bern is the capital of Switzerland.", [("Bern", "capital of", "Switzerland")]),
        (
            "Clara Rossi painted Blue Night. In 2001 she married Paul Stein.",
            [("Clara Rossi", "painted", "Blue Night"), ("Clara Rossi", "married", "Paul Stein")],
        ),
        ("Anna met Peter in the Park. Nothing else was said.", []),
        (
            "华星公司由李明于1998年创办，总部位于深圳市。",  # noqa: RUF001
            [("李明", "founded", "华星公司"), ("华星公司", "located in", "深圳市")],
        ),
        ("华星公司与上海大学合作。", [("华星公司", "works with", "上海大学")]),
        ("《红楼梦》由曹雪芹撰写。", [("曹雪芹", "written", "《红楼梦》")]),
        ("今天天气很好。", []),
    ],
)
def test_relations_are_read_from_the_form(text: str, wanted: list[tuple[str, str, str]]) -> None:
    assert related(text) == wanted


def test_documents_of_all_kinds_are_one_graph() -> None:
    """The same name is one entity, with each place: a page and box, a second, a sentence."""
    found = graphed(b"Txt: Bern lies in Switzerland.", b"PNG", b"WAV", b"PDF")
    bern = next(each for each in found.entities if each.name == "Bern")
    assert [place.document for place in bern.places] == [1, 2, 3, 4]
    text, picture, sound, _ = bern.places
    assert (text.page, text.box, text.second) == (None, None, None)
    assert picture.page == 1
    assert (picture.box.y, picture.box.height) == (0.1, pytest.approx(0.3))
    assert sound.second == 4.5
    assert [each.read for each in found.sources] == [
        "as text",
        "document.read",
        "audio.transcribe",
        "document.read",
    ]
    relation = next(each for each in found.relations if each.relation == "capital of")
    assert [place.document for place in relation.places] == [2, 4]


def test_what_can_not_be_read_is_told() -> None:
    """And the rest is connected all the same."""
    found = graphed(b"PDF broken", b"\xff\xfe\xff", b"WAV", ask=Ask("audio.transcribe"))
    assert found.entities == found.relations == []
    assert [each.read.partition(":")[0] for each in found.sources] == ["not read"] * 3
    assert "audio.transcribe is not there" in found.sources[2].read
    untyped = graphed(b"text", ask=Ask("document.type"))
    assert untyped.sources[0].read == "not read: document.type is not there"


def test_too_many_letters_are_refused() -> None:
    with pytest.raises(TooLarge, match="document 1 has 51000 letters; at most 50000 are read"):
        graphed(b"Too long a text. " * 3000)
    with pytest.raises(TooLarge, match=r"the documents have 6.* letters; at most 50000 are"):
        graphed(*[b"Too long a text. " * 2000] * 2)


@given(some.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    """Each relation is of entities that stand in the graph."""
    found = graphed(b"txt " + text.encode("utf-8", "replace"))
    names = {each.name for each in found.entities}
    for each in found.relations:
        assert {each.subject, each.object} <= names


@pytest.mark.parametrize(
    "text", ["A " * 20_000, "Is A. " * 8_000, "的" * 49_000, "由" * 49_000, "1" * 49_000]
)
def test_no_text_takes_long(text: str) -> None:
    """Sentences are cut where they are long."""
    graphed(text.encode())
