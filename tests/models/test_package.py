"""Does a user's folder become a bundle, and is every mistake in a function named?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kit import packed
from trivium.contract import Input, Option
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle
from trivium_models.build import Workshop
from trivium_models.command import main
from trivium_models.package import describe

Write = Callable[..., Path]

HEAD = """
from __future__ import annotations
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated
from trivium import Asker, Image, Label, Meta, Models, Text, function
"""


def silent(line: str) -> None:
    """Say nothing."""


def shop(folder: Path) -> Workshop:
    """Return a folder's workshop, with a cache beside it."""
    return Workshop(folder, folder.parent / "cache", silent)


def test_a_folder_of_pure_python(folder: Write, tmp_path: Path) -> None:
    sample = '[[samples]]\ninputs.text = "one two"\noutput = { words = 2 }'
    made = packed(shop(folder(recipe=sample)), tmp_path / "out")
    bundle = Bundle(made)
    bundle.verify()
    assert made.name == "text.count"
    assert bundle.manifest.function.doc == "Count the words of a text."
    assert bundle.manifest.function.inputs == (Input(name="text", kind="text"),)
    assert bundle.manifest.function.options == (
        Option(name="least", schema={"type": "integer"}, default=1),
    )
    assert bundle.manifest.samples[0].output == {"words": 2}
    assert list(bundle.manifest.files) == ["function.py"]


def test_files_are_copied_and_a_second_run_changes_nothing(folder: Write, tmp_path: Path) -> None:
    place = folder(recipe='labels = "labels.txt"', labels__txt=b"cat\ndog\n")
    made = packed(shop(place), tmp_path / "out")
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    (made / "labels.txt").write_bytes(b"cow\n")
    packed(shop(place), tmp_path / "out")
    Bundle(made).verify()
    after = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    assert before.keys() == after.keys() == {*Bundle(made).manifest.files, *before}
    assert before["function.py"] == after["function.py"]


def test_the_command_builds_a_folder(folder: Write, tmp_path: Path) -> None:
    assert main(["build", str(folder()), "--out", str(tmp_path / "out")]) == 0
    Bundle(tmp_path / "out" / "text.count").verify()
    with pytest.raises(BundleError, match=r"neither a folder .* nor one of: .*image\.classify"):
        main(["build", "no.such"])


def test_all_roles_of_parameters(folder: Write) -> None:
    code = """
@function("image.tell")
async def tell(
    photo: Image, note: Text, nets: Models, ask: Asker,
    most: Annotated[int, Meta(ge=1)], style: str | None = None,
) -> AsyncIterator[Label]:
    '''Tell a story.

    A long one.
    '''
    yield Label(label="", score=0.0)
"""
    schema = describe(folder(HEAD + code))
    assert [(each.name, each.kind) for each in schema.inputs] == [
        ("photo", "image"),
        ("note", "text"),
    ]
    assert [(each.name, each.required) for each in schema.options] == [
        ("most", True),
        ("style", False),
    ]
    assert (schema.models, schema.asks, schema.streams) == ("nets", "ask", True)
    assert schema.doc == "Tell a story."
    assert "Label" in str(schema.output)


def test_a_list_of_inputs_takes_several_values(folder: Write) -> None:
    """So many as its hint says, else 16; a list of anything else is an option."""
    code = """
@function("image.several")
async def several(
    images: list[Image],
    texts: Annotated[list[Text], Meta(max_length=3)],
    words: list[str] = [],
) -> int:
    return len(images) + len(texts)
"""
    schema = describe(folder(HEAD + code))
    assert schema.inputs == (
        Input(name="images", kind="image", many=16),
        Input(name="texts", kind="text", many=3),
    )
    assert [each.name for each in schema.options] == ["words"]


MISTAKES = {
    "can't be loaded: ZeroDivisionError": "1 / 0",
    "0 functions marked": "",
    "2 functions marked": "@function('a.b')\nasync def f() -> int: ...\n"
    "@function('a.c')\nasync def g() -> int: ...",
    "must be an async function": "@function('a.b')\ndef f() -> int: ...",
    "parameter 'x' has no hint": "@function('a.b')\nasync def f(x) -> int: ...",
    "'Missing' of parameter 'x' can't be resolved": "if TYPE_CHECKING: from no import Missing\n"
    "@function('a.b')\nasync def f(x: Missing) -> int: ...",
    "the result has no hint": "@function('a.b')\nasync def f(): ...",
    "parameter 'x' has no JSON form": "@function('a.b')\nasync def f(x: Path) -> int: ...\n"
    "from pathlib import Path",
    "default of parameter 'x' does not fit": "@function('a.b')\n"
    "async def f(x: int = 'a') -> int: ...",
    "any number of values": "@function('a.b')\nasync def f(*x: int) -> int: ...",
    "annotated AsyncIterator[T]": "@function('a.b')\nasync def f() -> int: yield 1",
}


@pytest.mark.parametrize("said", MISTAKES)
def test_a_mistake_is_named(folder: Write, said: str) -> None:
    with pytest.raises(BundleError) as raised:
        describe(folder(f"{HEAD}\n{MISTAKES[said]}\n"))
    assert said in raised.value.message
    assert "function.py" in raised.value.message


def test_a_sample_must_fit_the_function(folder: Write, tmp_path: Path) -> None:
    place = folder(recipe='[[samples]]\ninputs.image = "a.jpg"')
    with pytest.raises(BundleError, match="text.count takes text"):
        packed(shop(place), tmp_path / "out")
