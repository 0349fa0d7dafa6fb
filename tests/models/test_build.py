"""Are files made once, gated, measured and never half-written?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from trivium.contract import JSON, Manifest, decode
from trivium.errors import BundleError
from trivium_models.build import Workshop
from trivium_models.command import main
from trivium_models.measured import known
from trivium_models.report import HEAD

Write = Callable[..., Path]

CODE = '''
from __future__ import annotations

from trivium import Image, Label, Models, function


@function("image.tint")
async def tint(image: Image, models: Models) -> list[Label]:
    """Name the tint of a picture."""
    scores = await models.net.run(pixels=image.pixels)
    return scores.softmax().top(2, labels=models.labels)
'''

RECIPE = """
labels = "labels.txt"

[gate]
metric = "accuracy"
data = "rows"
about = "noise around one of three colours, seed 1"
floor = {floor}

[files."prepare.onnx"]
prepare = {{ crop = 8, std = [255] }}

[files."small.onnx"]
quantise = "full.onnx"
{form}

[[variants]]
tier = "edge"
model = "tint-small"
models.net = ["prepare.onnx", "small.onnx"]
prefer = "{prefer}"

[[variants]]
tier = "cloud"
model = "tint"
models.net = ["prepare.onnx", "full.onnx"]
"""
COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


def net() -> bytes:
    """Return a net that compares colours: flattened picture times one column a colour."""
    generator = np.random.default_rng(1)
    planes = np.repeat(np.eye(3), 64, axis=0) / 16
    weights = (planes + generator.normal(0, 0.002, planes.shape)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"], name="flat"),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"], name="product"),
        ],
        "tint",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="t"
    )
    return bytes(model.SerializeToString())


@pytest.fixture
def tint(folder: Write) -> Callable[..., Path]:
    """Write the folder of a function that has data, and a full model of its own."""

    def write(floor: float = 0.9, form: str = 'form = "weights"', prefer: str = "size") -> Path:
        recipe = RECIPE.format(floor=floor, form=form, prefer=prefer)
        place = folder(CODE, recipe, labels__txt=b"red\ngreen\nblue\n", full__onnx=net())
        generator = np.random.default_rng(1)
        for label, colour in COLOURS.items():
            (place / "rows" / label).mkdir(parents=True, exist_ok=True)
            for number in range(6):
                noise = generator.normal(colour, 20, (12, 10, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noise).save(place / "rows" / label / f"{number}.png")
        return place

    return write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest]:
    """Run a verb on a folder, briefly, and return the manifest it leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trivium_models.target.RUN_S", 0.05)
    monkeypatch.setitem(__import__("trivium_models.target").target.WARM_S, "cpu", 0.0)

    def verb(name: str, place: Path, *more: str) -> Manifest:
        said = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
        assert main([name, str(place), *said, *more]) == 0
        return decode(
            (tmp_path / "out" / "image.tint" / "manifest.json").read_bytes(), Manifest, JSON
        )

    return verb


CPU = ("--targets", "cpu")


@pytest.fixture
def built(
    tint: Callable[..., Path], run: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> Path:
    """Return the folder of a function that was built and measured; what was said is read."""
    place = tint()
    run("build", place, *CPU)
    capsys.readouterr()
    return place


def test_a_build_measures_and_says_so_in_the_manifest(
    tint: Callable[..., Path], run: Callable[..., Manifest]
) -> None:
    place = tint()
    manifest = run("build", place, *CPU)
    small, full = manifest.variants
    assert (full.quality, full.quality_low, full.gate) == (1.0, None, "passed")
    assert small.gate == "passed"
    assert small.quality == 1.0
    assert small.metric == "accuracy"
    assert small.data == "held-out: noise around one of three colours, seed 1"
    assert 0 < small.ms[0] <= small.ms[1] <= small.ms[2]
    assert manifest.parents["small.onnx"] == ("full.onnx",)
    assert len(manifest.recipe) == 64
    assert {"prepare.onnx", "small.onnx", "full.onnx"} < manifest.files.keys()


def test_a_second_build_makes_and_measures_nothing(
    tint: Callable[..., Path], run: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    place = tint()
    first = run("build", place, *CPU)
    capsys.readouterr()
    assert run("build", place) == first
    assert [line for line in capsys.readouterr().err.splitlines() if "ready" not in line] == []
    recipe = place / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"weights"', '"dynamic"'))
    assert run("build", place, *CPU).files != first.files
    assert "small.onnx: quantise" in capsys.readouterr().err


def test_what_a_file_was_looked_at_with_is_part_of_its_key(
    tint: Callable[..., Path], tmp_path: Path
) -> None:
    """Ranges of pictures prepared otherwise, or a choice by another metric, are another file's."""

    def key(name: str = "small.onnx") -> str:
        shop = Workshop(place, tmp_path / "cache", print)
        shop.path("prepare.onnx")
        return shop.key(shop.recipe.files[name])

    place = tint(form='form = "static"\ndata = "rows"')
    recipe = place / "recipe.toml"
    keys = [key()]
    recipe.write_text(recipe.read_text().replace("std = [255]", "std = [127]"))
    keys.append(key())
    recipe.write_text(recipe.read_text().replace('form = "static"\n', ""))
    recipe.write_text(recipe.read_text().replace('"accuracy"', '"metric.py:score"'))
    for number in (1, 0):
        (place / "metric.py").write_text(f"def score(answer, wanted):\n    return {number}\n")
        keys.append(key())
    more = '[files."net.onnx"]\nexport = "net.py:build"\n[files."hub.onnx"]\nexport = "saved"\n'
    recipe.write_text(recipe.read_text().replace("[gate]", f"{more}[gate]"))
    (place / "net.py").write_text("")
    (place / "saved").mkdir()
    for data in (b"1", b"2"):
        (place / "net.safetensors").write_bytes(data)
        (place / "saved" / "config.json").write_bytes(data)
        keys += [key("net.onnx"), key("hub.onnx")]
    assert len(set(keys)) == len(keys)


def test_the_gate_asked_for_the_impossible(
    tint: Callable[..., Path], run: Callable[..., Manifest], tmp_path: Path
) -> None:
    """No small form gives the same scores to the last bit: the best is kept aside, and marked."""
    place = tint(floor=1.0, form='form = "int4"')
    recipe = place / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"accuracy"', '"exact"'))
    with pytest.raises(BundleError) as raised:
        run("build", place, *CPU)
    said = raised.value.message
    assert "image.tint is not shipped" in said
    assert "edge: tint-small: exact 0.0000 of the full variant's [0.0000, 0.0000]" in said
    assert not (tmp_path / "out" / "image.tint").exists()
    aside = tmp_path / "cache" / "below_gate" / "image.tint" / "manifest.json"
    marked = decode(aside.read_bytes(), Manifest, JSON)
    assert [variant.gate for variant in marked.variants] == ["below_gate", "passed"]
    # What a variant may lose is its own affair.
    recipe.write_text(recipe.read_text().replace('prefer = "size"', 'prefer = "size"\nfloor = 0'))
    assert [each.gate for each in run("build", place, *CPU).variants] == ["passed", "passed"]


def test_a_page_is_judged_without_a_browser(
    tint: Callable[..., Path], run: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be timed where it will run is no better for that."""
    place = tint(form='form = "int4"')
    recipe = place / "recipe.toml"
    stated = recipe.read_text().replace('"edge"', '"page"')
    recipe.write_text(stated.replace('"accuracy"', '"exact"'))
    with pytest.raises(BundleError, match="page: tint-small: exact 0.0000 of the full variant's"):
        run("build", place, *CPU)
    assert "wasm-1 needs Chromium and playwright, which scripts/install" in capsys.readouterr().err
    recipe.write_text(stated)
    small, full = run("build", place, *CPU).variants
    assert (small.tier, small.gate, small.data) == ("page", "passed", full.data)
    row = next(row for row in stated_rows(place) if row["tier"] == "page")
    assert row["target"] == "cpu-1"
    assert small.ms[1] == pytest.approx(3 * row["latency_ms"], abs=0.01)


def stated_rows(place: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((place / "measured.json").read_bytes())["rows"]
    return rows


def test_a_form_is_chosen_by_the_gate(
    tint: Callable[..., Path], run: Callable[..., Manifest], capsys: pytest.CaptureFixture[str]
) -> None:
    run("build", tint(form=""), *CPU)
    said = capsys.readouterr().err
    assert "accuracy relative [95 %]" in said
    for form in ("float32", "weights", "dynamic", "int4", "float16"):
        assert f"\n  {form} " in said
    assert "chosen: " in said


def test_int8_that_is_not_faster_is_refused_unless_size_counts(
    tint: Callable[..., Path], run: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trivium_models import target

    def slower(place: str, chain: list[Path], feeds: Any) -> target.Timing:
        ms = 9.0 if chain[-1].name == "small.onnx" else 3.0
        return target.Timing(ms=(ms, ms, ms), memory_mb=1.0)

    monkeypatch.setattr(target, "time_on", slower)
    with pytest.raises(BundleError, match=r"int8 takes 3.00 times as long .* prefer = \"size\""):
        run("build", tint(prefer="speed"), *CPU)
    assert run("build", tint(prefer="size"), *CPU).variants[0].ms == (9.0, 9.0, 9.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('data = "rows"', 'data = "gone"'), r"accuracy can't be computed: the data .*gone"),
        (('metric = "accuracy"', 'metric = "cosine"'), "cosine can't be computed from answers"),
        (('full.onnx"\nform', 'lost.onnx"\nform'), "lost.onnx"),
        (("crop = 8", "crop = 16"), "can't answer row 1"),
        (('form = "weights"', 'form = "weights"\nexclude = ["no"]'), "no node no to exclude"),
        (("std = [255]", "std = [0]"), "none of std is 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tint: Callable[..., Path],
    run: Callable[..., Manifest],
    tmp_path: Path,
    change: tuple[str, str],
    said: str,
) -> None:
    place = tint()
    recipe = place / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(*change))
    with pytest.raises(BundleError, match=said):
        run("build", place, *CPU)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_function_that_fails_is_told_with_its_line(
    tint: Callable[..., Path], run: Callable[..., Manifest]
) -> None:
    place = tint()
    (place / "function.py").write_text(CODE.replace("labels=models.labels", "labels=1 / 0"))
    with pytest.raises(BundleError, match=r"ZeroDivisionError: .*mine/function.py, line 11\)"):
        run("build", place, *CPU)


def test_a_graph_that_the_page_must_not_run_is_refused(
    tint: Callable[..., Path], run: Callable[..., Manifest]
) -> None:
    place = tint()
    model = onnx.load_from_string(net())
    model.graph.node[0].domain = "my.own"
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    (place / "full.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError):
        run("build", place, "--quick")


def test_what_was_not_measured_is_said_to_be_so(
    tint: Callable[..., Path],
    run: Callable[..., Manifest],
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tint()
    run("build", place, "--quick")
    assert "image.tint was not measured: routers take its quality for 1" in capsys.readouterr().err
    run("build", place, *CPU)
    assert "was not measured" not in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(
    tint: Callable[..., Path],
    run: Callable[..., Manifest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    place = tint()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(BundleError, match="No space left on device; nothing half-written"):
            run("build", place, *CPU)
    assert not list(tmp_path.rglob("*.partial"))
    assert run("build", place, *CPU).variants


def test_an_interrupted_build_goes_on(tint: Callable[..., Path], tmp_path: Path) -> None:
    """A build that is killed at any moment is finished by the next one."""
    place = tint()
    command = [sys.executable, "-m", "trivium.hosts.server.command", "models", "build", str(place)]
    command += ["--quick", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    for wait in (0.3, 0.6, 0.9):
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest = tmp_path / "out" / "image.tint" / "manifest.json"
    assert decode(manifest.read_bytes(), Manifest, JSON).name == "image.tint"


def test_the_report_says_what_was_measured(
    built: Path,
    run: Callable[..., Manifest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("report", built, "--json")
    rows = json.loads(capsys.readouterr().out)
    assert {(row["tier"], row["target"]) for row in rows} == {
        ("edge", "cpu"),
        ("cloud", "cpu"),
    }
    wanted = "function tier precision size brotli_size target latency_ms latency_ratio memory_mb"
    wanted += " metric quality quality_low quality_high relative_quality gate data"
    assert set(wanted.split()) <= rows[0].keys()
    small = next(row for row in rows if row["tier"] == "edge")
    assert small["precision"] == "int8"
    assert small["size"] == sum(
        (tmp_path / "out" / "image.tint" / name).stat().st_size
        for name in ("prepare.onnx", "small.onnx")
    )
    run("report", built)
    assert capsys.readouterr().out.split()[: len(HEAD[:4])] == list(HEAD[:4])
    run("report", built, "--html", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "image.tint" in page
    assert page.count("<svg") == 1
    assert "http" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "").replace("https://matplotlib.org", "")


def test_a_report_makes_nothing(
    built: Path,
    run: Callable[..., Manifest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Models that are not here are reported as they were measured, and not made for that."""
    shutil.rmtree(tmp_path / "cache")
    run("report", built)
    said = capsys.readouterr()
    assert "shown as it was measured; " in said.err
    assert ".onnx is not made here" in said.err
    assert "tint-small" in said.out
    assert not (tmp_path / "cache").exists()


def test_tune_shows_what_nothing_beats(
    built: Path,
    run: Callable[..., Manifest],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plot = tmp_path / "plot.png"
    run("tune", built, "--metric-drop", "2%", "--target", "edge", "--plot", str(plot))
    said = capsys.readouterr().err
    assert "not beaten, and within a drop of 0.02: " in said
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_measured_figures_are_those_of_these_files_only(
    built: Path, run: Callable[..., Manifest], tmp_path: Path
) -> None:
    shop = Workshop(built, tmp_path / "cache", print)
    assert known(shop) is not None
    (built / "function.py").write_text(CODE.replace("top(2", "top(1"))
    assert known(Workshop(built, tmp_path / "cache", print)) is None


@pytest.mark.parametrize("verb", ["quantise", "fold", "export"])
def test_each_step_works_alone(verb: str, tmp_path: Path) -> None:
    source, out = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(net())
    more = {"quantise": ["--form", "dynamic"], "fold": ["--softmax", "--output", "p"], "export": []}
    assert main([verb, str(source), str(out), *more[verb]]) == 0
    onnx.checker.check_model(onnx.load(out))
    with pytest.raises(BundleError, match="no such|is no file|not"):
        main([verb, str(tmp_path / "no.onnx"), str(out), *more[verb]])


def test_help_is_there_for_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    verbs = "build measure tune report package export prune distil quantise fold keygen sign"
    said = capsys.readouterr().out
    for verb in verbs.split():
        assert verb in said
        with pytest.raises(SystemExit) as left:
            main([verb, "--help"])
        assert left.value.code == 0
