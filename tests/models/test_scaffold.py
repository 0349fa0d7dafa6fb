"""Is a new function whole from the first moment?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle
from trivium.kinds import KINDS
from trivium_models.command import main as models
from trivium_models.scaffold import main, new

ROOT = Path(__file__).parents[2]
GRAPH = ROOT / "models/zoo/image.classify/model.fp32.onnx"
LABELS = ROOT / "models/functions/image.classify/labels.txt"


def checked(folder: Path) -> None:
    """Hold a new folder to what our own are held to: lint, types, its test, its build."""
    tools = [
        [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml")],
        [sys.executable, "-m", "ruff", "format", "--check", "--line-length", "100"],
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"],
    ]
    for tool in tools:
        done = subprocess.run(
            [*tool, str(folder)], check=False, capture_output=True, text=True, cwd=folder
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert models(["build", str(folder), "--quick", "--out", str(folder / "bundle")]) == 0
    (bundle,) = (folder / "bundle").iterdir()
    Bundle(bundle).verify()


@pytest.mark.parametrize("modality", KINDS)
def test_a_new_function_passes_its_own_test_and_is_built(
    modality: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["measure_it", "--modality", modality]) == 0
    checked(tmp_path / "measure_it")


@pytest.mark.parametrize("named", [True, False])
def test_a_new_function_around_a_model(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = new("image.see", "image", tmp_path, GRAPH, LABELS if named else None)
    checked(folder)


@pytest.mark.parametrize(
    ("name", "modality", "model", "said"),
    [
        ("Shout", "text", None, "can't be the name"),
        ("image.shout", "text", None, "can't be the name of a function that takes text"),
        ("../up", "text", None, "can't be the name"),
        ("there", "text", None, "is there already"),
        ("fresh", "text", GRAPH, "use --modality image"),
        ("fresh", "image", LABELS, "can't be read as ONNX"),
        ("fresh", "image", ROOT / "models/zoo/text.embed/model.int8.onnx", "takes input_ids"),
    ],
)
def test_what_can_not_be_new_leaves_nothing(
    tmp_path: Path, name: str, modality: str, model: Path | None, said: str
) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BundleError, match=said):
        new(name, modality, tmp_path, model)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
