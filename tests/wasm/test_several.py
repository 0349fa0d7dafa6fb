"""Can a function take several values of one kind?"""

from __future__ import annotations

from typing import Any

import pytest

import toys
from trivium import Blob, Image, Tensor
from trivium.contract import JSON, Ask, Input, Manifest, Tier, decode, encode
from trivium.errors import BadInput, RunFailed
from trivium.run import flat

PAGE, _, CLOUD = Tier

JOIN = """
from trivium import Image, Text, function

@function("text.join")
async def join(texts: list[Text], image: Image) -> list[object]:
    return [*map(str, texts), [image.height, image.width]]
"""
TAKEN = (Input(name="texts", kind="text", many=3), Input(name="image", kind="image"))
MADE = toys.manifest("text.join", "join", tiers=[CLOUD], inputs=TAKEN)
PICTURE = Blob(media="image/png", data=b"rgb")


def joined(**inputs: Any) -> Any:
    page, _, _ = toys.three((JOIN, MADE))
    named = {name.replace("_", "."): value for name, value in inputs.items()}
    return toys.ask(page, "text.join", inputs=named).output


def test_several_values_have_numbered_names() -> None:
    """Also over a hop: an ask has the fields it always had."""
    assert joined(texts_0="a", image=PICTURE) == ["a", [1, 1]]
    assert joined(texts_2="c", texts_0="a", texts_1="b", image=PICTURE) == ["a", "b", "c", [1, 1]]


@pytest.mark.parametrize(
    "inputs",
    [
        {"image": PICTURE},
        {"texts": "a", "image": PICTURE},
        {"texts_1": "a", "image": PICTURE},
        {"texts_0": "a", "texts_2": "b", "image": PICTURE},
        {"texts_0": "a", "texts_01": "b", "image": PICTURE},
        {"texts_0": "a"},
        {**{f"texts_{number}": "a" for number in range(4)}, "image": PICTURE},
    ],
)
def test_what_is_not_numbered_so_is_refused(inputs: dict[str, Any]) -> None:
    """None, a gap, or more than it takes."""
    with pytest.raises(BadInput, match=r"takes the inputs: texts\.0 to texts\.2, image; the ask"):
        joined(**inputs)


def test_an_unset_number_changes_no_manifest() -> None:
    """So that no bundle's version does."""
    made = toys.manifest()
    assert b"many" not in encode(made, JSON)
    assert decode(encode(MADE, JSON), Manifest, JSON).function.inputs == TAKEN


def test_a_step_takes_a_list_of_inputs() -> None:
    """A list of anything else is an option."""
    code = """
from trivium import Asker, Image, Text, function

@function("text.pipe")
async def pipe(text: Text, image: Image, ask: Asker) -> object:
    return await ask("text.join", texts=[text, Text("b")], image=image)
"""
    takes = (Input(name="text", kind="text"), Input(name="image", kind="image"))
    made = toys.manifest("text.pipe", "pipe", tiers=[PAGE], inputs=takes, asks=True)
    page, _, _ = toys.three((code, made), (JOIN, MADE))
    inputs: dict[str, str | Blob] = {"text": "a", "image": PICTURE}
    assert toys.ask(page, "text.pipe", inputs=inputs).output == ["a", "b", [1, 1]]
    assert toys.hop(page).asks[0].inputs == {"texts.0": "a", "texts.1": "b", "image": PICTURE}
    bare = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"abc"))
    given = {"images": [bare, PICTURE], "labels": ["a", "b"], "none": [], "one": bare}
    assert dict(flat(given)) == {
        "images.0": bare,
        "images.1": PICTURE,
        "labels": ["a", "b"],
        "none": [],
        "one": bare,
    }


def test_pictures_that_are_decoded_are_handed_on() -> None:
    """Each by its own name, where it has no file."""
    code = """
from trivium import Asker, Image, function

@function("image.pipe")
async def pipe(image: Image, ask: Asker) -> object:
    return await ask("image.sizes", images=[Image(image.pixels), image])
"""
    sizes = """
from trivium import Image, function

@function("image.sizes")
async def sizes(images: list[Image]) -> list[int]:
    return [len(images), *(each.width for each in images)]
"""
    one, many = Input(name="image", kind="image"), Input(name="images", kind="image", many=4)
    for tiers in ([PAGE], [CLOUD]):
        page, _, _ = toys.three(
            (code, toys.manifest("image.pipe", "pipe", tiers=[PAGE], inputs=(one,), asks=True)),
            (sizes, toys.manifest("image.sizes", "sizes", tiers=tiers, inputs=(many,))),
        )
        assert toys.ask(page, "image.pipe", inputs={"image": PICTURE}).output == [2, 1, 1]


def test_a_value_of_another_kind_is_named() -> None:
    code = """
from trivium import Asker, Image, function

@function("image.wrong")
async def wrong(image: Image, ask: Asker) -> object:
    return await ask("text.join", texts=[image], image=image)
"""
    inputs = (Input(name="image", kind="image"),)
    made = toys.manifest("image.wrong", "wrong", tiers=[CLOUD], inputs=inputs, asks=True)
    cloud = toys.engine(CLOUD, (code, made), (JOIN, MADE))
    with pytest.raises((BadInput, RunFailed)):
        toys.ask(cloud, "image.wrong", inputs={"image": PICTURE})


def test_an_ask_is_as_it_was() -> None:
    ask = Ask(function="text.join", inputs={"texts.0": "a", "image": PICTURE})
    assert decode(encode(ask), Ask) == ask
