"""Does a student learn its teacher's answers, and go on where it was interrupted?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest

from trivium.errors import BundleError
from trivium_models import distil as kit
from trivium_models.distil import Distil, Distilled, distil, pace

if TYPE_CHECKING:
    from torch import Tensor, nn

torch = pytest.importorskip("torch", reason="distilling needs the kit's extra, trivium[models]")

import networks  # noqa: E402 - needs torch
from trivium_models.export import from_torch  # noqa: E402

ROWS = tuple(f"row {number} " + "of a text" * (number % 3) for number in range(120))
STEP = Distil(teacher="full.onnx", data="rows.txt", steps=60, batch=16, rate=3e-3, every=20)


def collate(rows: Sequence[str]) -> dict[str, Tensor]:
    return networks.inputs(rows, networks.nothing)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("teacher") / "full.onnx"
    model = from_torch(networks.Texts(), [collate(ROWS[:2])], "teacher", networks.axes)
    path.write_bytes(model.SerializeToString())
    return path


def student() -> nn.Module:
    torch.manual_seed(1)
    return networks.Texts()


def weights(module: nn.Module) -> np.ndarray:
    found = torch.cat([value.flatten() for value in module.state_dict().values()])
    answer: np.ndarray = found.numpy()
    return answer


@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_a_student_learns(teacher: Path, tmp_path: Path, loss: Literal["cosine", "mse"]) -> None:
    step = Distil(teacher="full.onnx", data="", loss=loss, steps=60, batch=16, rate=3e-3, every=20)
    done = distil(student(), teacher, ROWS, collate, step, tmp_path, print)
    assert done.best < 0.5 * done.before
    assert done.rows == 112


def test_probabilities_by_their_divergence(tmp_path: Path) -> None:
    def images(rows: Sequence[str]) -> dict[str, Tensor]:
        made = [np.random.default_rng(int(row)).random((3, 8, 8), np.float32) for row in rows]
        return {"image": torch.from_numpy(np.stack(made))}

    torch.manual_seed(0)
    rows = tuple(str(number) for number in range(60))
    model = from_torch(networks.Photos(), [images(rows[:2]), images(rows[:3])], "teacher")
    (tmp_path / "full.onnx").write_bytes(model.SerializeToString())
    step = Distil(teacher="full.onnx", data="", loss="kl", steps=40, batch=8, rate=1e-2)
    torch.manual_seed(1)
    done = distil(
        networks.Photos(), tmp_path / "full.onnx", rows, images, step, tmp_path / "work", print
    )
    assert done.best < 0.5 * done.before


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_every_time(
    teacher: Path, tmp_path: Path, precision: Literal["float32", "bfloat16"]
) -> None:
    step = Distil(teacher="full.onnx", data="", steps=20, batch=16, precision=precision)
    found = []
    for turn in range(2):
        module = student()
        distil(module, teacher, ROWS, collate, step, tmp_path / str(turn), print)
        found.append(weights(module))
    assert np.array_equal(found[0], found[1])


class Stopped(Exception):
    """Somebody pulled the plug."""


def test_an_interrupted_run_goes_on_exactly(teacher: Path, tmp_path: Path) -> None:
    whole = student()
    right = distil(whole, teacher, ROWS, collate, STEP, tmp_path / "whole", print)

    calls = 0

    def unplugged(rows: Sequence[str]) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        if calls > 50:
            raise Stopped
        return collate(rows)

    with pytest.raises(Stopped):
        distil(student(), teacher, ROWS, unplugged, STEP, tmp_path / "parted", print)
    said: list[str] = []
    again = student()
    done = distil(again, teacher, ROWS, collate, STEP, tmp_path / "parted", said.append)
    assert "going on at step 20 of 60" in said or "going on at step 40 of 60" in said
    assert not any("asking" in line for line in said)
    assert done == right
    assert np.array_equal(weights(again), weights(whole))


def test_another_recipe_starts_anew(teacher: Path, tmp_path: Path) -> None:
    said: list[str] = []
    for seed in (0, 1):
        step = Distil(teacher="full.onnx", data="", steps=5, batch=16, seed=seed)
        distil(student(), teacher, ROWS, collate, step, tmp_path, said.append)
    assert not any("going on" in line for line in said)


def test_every_row_once_an_epoch() -> None:
    step = Distil(teacher="", data="", batch=4)
    train = range(10, 300)
    seen = [each for number in range(64) for each in kit.batch(train, ["x"] * 300, step, number)]
    assert len(seen) == len(set(seen)) == 256
    assert set(seen) <= set(train)
    assert kit.batch(train, ["x"] * 300, step, 64) != kit.batch(train, ["x"] * 300, step, 0)


def test_the_rate_rises_and_falls() -> None:
    found = [pace(number, 100) for number in range(100)]
    assert found[0] == 0.1
    assert max(found) == found[10] == 1
    assert found[10:] == sorted(found[10:], reverse=True)
    assert found[-1] < 0.01


def test_too_few_rows(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="rows.txt has 20 rows: .* at least 24, 8 of them"):
        distil(student(), teacher, ROWS[:20], collate, STEP, tmp_path, print)


def test_inputs_a_teacher_needs(teacher: Path, tmp_path: Path) -> None:
    def less(rows: Sequence[str]) -> dict[str, Tensor]:
        return {"ids": collate(rows)["ids"]}

    with pytest.raises(BundleError, match="full.onnx takes ids, mask; .* have no mask"):
        distil(student(), teacher, ROWS, less, STEP, tmp_path, print)


def test_a_student_of_another_shape(teacher: Path, tmp_path: Path) -> None:
    class Half(networks.Texts):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return super().forward(ids, mask)[:, :16]

    with pytest.raises(BundleError, match=r"gives \[8, 16\] .* full.onnx gives \[8, 32\]"):
        distil(Half(), teacher, ROWS, collate, STEP, tmp_path, print)


def test_a_summary_is_one_line() -> None:
    done = Distilled(rows=1000, before=0.5, best=0.25, at=40)
    assert str(done) == "validation loss 0.50000 → 0.25000 at step 40, 1,000 rows"
