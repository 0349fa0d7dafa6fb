"""Is a medical picture sorted, are places found where they are, and is nothing told of persons?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image as Pictures

from trivium import Asker, Blob, Image, Models, Tensor
from trivium.contract import Variant
from trivium.errors import BadInput, ModelNotReady
from trivium.function import Loaded
from trivium.hosts.server.host import ServerHost
from trivium_models import author

HERE = Path(__file__).parent
function: Any = author.load(HERE / "function.py")
PICTURE = Image(Tensor(dtype="uint8", shape=(1, 1, 3), data=b"abc"), Blob(media="", data=b"x"))
KINDS = ["something else", "radiology", "retina", "stained tissue"]


def model(**outputs: Any) -> Any:
    """Return a model that gives the same always."""

    class Model:
        async def run(self, _: Any) -> Any:
            return outputs

    return Model()


def flat(*rows: list[float]) -> Tensor:
    return Tensor.of("float32", (len(rows), len(rows[0])), [each for row in rows for each in row])


class Ask(Asker):
    """Gives a vector, and a page with writing on it."""

    def __init__(self, text: str = "", *without: str) -> None:
        self.text = text
        self.without = without

    async def __call__(self, function: str, /, **_: Any) -> Any:
        if function in self.without:
            raise ModelNotReady(f"{function} is not there")
        return [1.0] * 384 if function == "image.embed" else [{"text": self.text}]


def sorted_as(*shares: float, ask: Asker | None = None, **options: Any) -> Any:
    spots = [[0.5, 0.25, 0.2], [0.01, 0.99, 0.14], [0.3, 0.3, 0.1]]
    brown = [[1.0] * 32] + [[0.0] * 32] * 31
    models = Models(
        Loaded(
            {
                "kinds": model(shares=flat(list(shares))),
                "locate": model(
                    disc=Tensor.of("float32", (3,), [0.2, 0.5, 1.4]), spots=flat(*spots)
                ),
                "stain": model(brown=flat(*brown)),
            },
            KINDS,
        ),
        lambda: 0.0,
    )
    return asyncio.run(function.triage(PICTURE, ask or Ask(), models, **options))


@pytest.mark.parametrize("shares", [*np.eye(4).tolist(), [0.4, 0.3, 0.2, 0.1]])
def test_every_answer_says_what_it_is_not(shares: list[float]) -> None:
    found = sorted_as(*shares)
    assert (
        found.notice
        == "A demonstration, not a diagnosis: no part of this may guide anybody's care."
    )
    assert found.report.endswith(found.notice)


def test_a_retina_is_looked_at() -> None:
    """The disc and what is dark enough, in boxes within the picture."""
    found = sorted_as(0, 0, 0.9, 0.1)
    assert [each.label for each in found.places] == ["optic disc", "dark spot", "dark spot"]
    assert found.urgency == "a person should look at the marked places"
    assert "2 small dark spots" in found.report
    for box in found.places:
        assert 0 <= box.x < box.x + box.width <= 1
        assert 0 <= box.y < box.y + box.height <= 1


def test_stained_tissue_is_measured() -> None:
    found = sorted_as(0, 0, 0.1, 0.9)
    (mask,) = found.areas
    assert mask.runs == [0, 32, 992]
    assert "3 % of the picture are brown" in found.report


def test_what_is_not_known_is_left_to_a_person() -> None:
    """And what is unclear, too; only what is something else is not medical."""
    assert sorted_as(0, 1, 0, 0).urgency == "a person must look"
    unclear = sorted_as(0.4, 0.3, 0.2, 0.1)
    assert (unclear.kind, unclear.urgency) == ("", "a person must look")
    assert sorted_as(1, 0, 0, 0).urgency == "not medical"


def test_writing_is_told_of_and_not_repeated() -> None:
    found = sorted_as(0, 1, 0, 0, ask=Ask("DOE JANE 1970-01-01"))
    assert found.writing is True
    assert "DOE" not in str(found)
    assert sorted_as(0, 1, 0, 0, ask=Ask("R")).writing is False
    assert sorted_as(0, 1, 0, 0, ask=Ask("DOE JANE", "document.read")).writing is None
    assert sorted_as(0, 1, 0, 0, writing=False).writing is None


def test_a_dicom_file_is_refused_without_a_word_of_it() -> None:
    """Its fields never reach the function."""
    data = b"\0" * 128 + b"DICM" + b"PN\x08\0DOE^JANE" * 20
    host, variant = ServerHost(), Variant(tier="cloud", model="")  # type: ignore[arg-type]
    for media in ("application/dicom", "image/png"):
        with pytest.raises(BadInput) as caught:
            asyncio.run(host.decode("image", Blob(media=media, data=data), variant))
        assert "DOE" not in str(caught.value)
    host.close()


def looked(picture: NDArray[Any]) -> list[Any]:
    session = onnxruntime.InferenceSession(HERE / "locate.onnx")
    feed = picture.astype(np.float32).transpose(2, 0, 1)[None]
    return session.run(["disc", "spots"], {"image": feed})


def test_dark_spots_are_found_where_they_were_drawn() -> None:
    """Other ones than the threshold was chosen on; the vessels of the real photo are hardly."""
    photo = Pictures.open(HERE / "retina.jpg").convert("RGB").resize((512, 512))
    chance = np.random.default_rng(11)
    hits = drawn = others = 0
    for number in range(12):
        pixels = np.asarray(photo.rotate(number * 29), np.float32).copy()
        true: list[NDArray[Any]] = []
        while len(true) < 4:
            at = chance.uniform(70, 440, 2)
            if np.hypot(*(at - 256)) < 190 and all(np.hypot(*(at - each)) > 30 for each in true):
                true.append(at)
        y, x = np.mgrid[:512, :512]
        for at in true:
            size, depth = chance.uniform(1.2, 3), chance.uniform(0.3, 0.5)
            spot = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * size**2))
            pixels *= 1 - depth * spot[..., None] * np.array([0.3, 1.0, 0.6])
        _, spots = looked(pixels.round())
        found = [512 * each[:2] for each in spots if each[2] >= function.SPOT]
        hits += sum(any(np.hypot(*(at - each)) < 6 for each in found) for at in true)
        others += sum(all(np.hypot(*(at - each)) >= 6 for at in true) for each in found)
        drawn += 4
    assert hits / drawn > 0.6
    assert others / 12 < 1


def test_the_optic_disc_is_found_in_the_photo() -> None:
    """Which was looked for by eye: left of the middle, as it is a left eye's."""
    photo = Pictures.open(HERE / "retina.jpg").convert("RGB").resize((512, 512))
    (x, y, level), _ = looked(np.asarray(photo))
    assert (x, y) == (pytest.approx(0.17, abs=0.04), pytest.approx(0.46, abs=0.04))
    assert level >= function.DISC


def test_brown_is_found_in_glands() -> None:
    session = onnxruntime.InferenceSession(HERE / "stain.onnx")
    shares = []
    for name in ("tissue.jpg", "retina.jpg"):
        photo = Pictures.open(HERE / name).convert("RGB").resize((512, 512))
        feed = np.asarray(photo, np.float32).transpose(2, 0, 1)[None]
        (brown,) = session.run(None, {"image": feed})
        shares.append(brown)
    tissue, _ = shares
    assert tissue.shape == (32, 32)
    assert tissue[:8, :8].mean() > 0.8  # glands
    assert tissue[20:28, 12:15].mean() < 0.3  # what lies between them
