"""Are scores what their definitions say, and is every mistake in the data named?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivium.contract import Input, Sample, Schema
from trivium.errors import BundleError
from trivium_models.measure import quality, rows

TEXT = Schema(name="text.a", entry="a", doc="", inputs=(Input(name="text", kind="text"),))
IMAGE = Schema(name="image.a", entry="a", doc="", inputs=(Input(name="image", kind="image"),))


def labels(*names: str) -> list[dict[str, Any]]:
    return [{"label": name, "score": 0.1} for name in names]


def test_scores_by_hand() -> None:
    blank = [Sample(inputs={})] * 2
    assert quality("cosine", [[1.0, 0.0]] * 2, [[1.0, 1.0], [2.0, 0.0]], blank).value == (
        pytest.approx((math.sqrt(0.5) + 1) / 2)
    )
    full = [labels("a", "b", "c", "d", "e"), labels("a", "b", "c", "d", "e")]
    small = [labels("a", "b", "c", "d", "x"), labels("b", "a", "y", "z", "w")]
    assert quality("top1", full, small, blank).value == 0.5
    assert quality("top5", full, small, blank).value == pytest.approx((0.8 + 0.4) / 2)
    assert quality("exact", full, [full[0], small[1]], blank).value == 0.5
    stated = [Sample(inputs={}, output="a"), Sample(inputs={}, output=labels("b"))]
    score = quality("accuracy", full, small, stated)
    assert (score.value, score.relative) == (1.0, 2.0)


def test_a_metric_of_the_functions_own(tmp_path: Path) -> None:
    """It sees what the data states, else what the full variant answers; its bounds are held."""
    code = "def near(answer, wanted):\n    return 1 - abs(answer - wanted)\nclose = 1\n"
    (tmp_path / "metric.py").write_text(code)
    data = [Sample(inputs={}, output=0.5), Sample(inputs={})]
    score = quality("metric.py:near", [0.25, 0.5], [0.5, 0.75], data, tmp_path)
    assert (score.value, score.relative) == (0.875, 1.0)
    refused = {
        "metric.py:near": r"can't be computed .* gives -1.5, which is not from 0 to 1",
        "metric.py:close": "has no callable 'close'; it has near",
        "none.py:near": "none.py does not exist",
    }
    for metric, said in refused.items():
        with pytest.raises(BundleError, match=said):
            quality(metric, [0.5, 0.5], [3.0, 0.5], data, tmp_path)
    with pytest.raises(BundleError, match="near fails: TypeError"):
        quality("metric.py:near", [0.5, 0.5], ["a", 0.5], data, tmp_path)


@given(st.lists(st.booleans(), min_size=2, max_size=40))
def test_an_interval_holds_its_mean(right: list[bool]) -> None:
    data = [Sample(inputs={}, output="a")] * len(right)
    given_ = ["a" if each else "b" for each in right]
    score = quality("accuracy", ["a"] * len(right), given_, data)
    assert 0 <= score.low <= score.value <= score.high <= 1
    assert score.relative == score.value
    assert score.relative_low == score.low


@pytest.mark.parametrize(
    ("metric", "answers", "said"),
    [
        ("cosine", ["a", "b"], "cosine can't be computed from answers such as"),
        ("cosine", [[1.0], [1.0, 2.0]], "cosine can't be computed"),
        ("top1", [[], []], "top1 can't be computed"),
        ("accuracy", ["a", "b"], "not every row states its output"),
    ],
)
def test_a_metric_that_can_not_be_computed(metric: Any, answers: list[Any], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        quality(metric, [[1.0], [1.0]], answers, [Sample(inputs={})] * 2)


def test_accuracy_that_the_full_one_has_not_either() -> None:
    with pytest.raises(BundleError, match="the full variant has none of it"):
        quality("accuracy", ["b"], ["a"], [Sample(inputs={}, output="a")])


def test_rows_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {number}" for number in range(100)) + "\n\n")
    found = rows(Path("lines.txt"), TEXT, 10, tmp_path)
    assert [row.inputs["text"] for row in found] == [f"line {n}" for n in range(0, 100, 10)]


def test_rows_of_a_folder_and_of_lines_of_json(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.jpg", "dog/3.webp", "4.png", "notes.md"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"")
    found = rows(Path("data"), IMAGE, 10, tmp_path)
    assert [(Path(row.inputs["image"]).name, row.output) for row in found] == [
        ("4.png", None),
        ("1.png", "cat"),
        ("2.jpg", "cat"),
        ("3.webp", "dog"),
    ]
    stated = tmp_path / "data" / "rows.jsonl"
    stated.write_text('{"inputs": {"image": "4.png"}, "options": {"top": 1}, "output": "x"}\n')
    (row,) = rows(stated, IMAGE, 10, tmp_path)
    assert row.inputs["image"] == str(tmp_path / "data" / "4.png")
    assert (row.options, row.output) == ({"top": 1}, "x")


@pytest.mark.parametrize(
    ("name", "content", "schema", "said"),
    [
        ("gone.txt", None, TEXT, "does not exist"),
        ("a.txt", "\n", TEXT, "has no row"),
        ("a.txt", "x", IMAGE, "state rows in a .jsonl file"),
        ("a.jsonl", "{", TEXT, "line 1"),
        ("a.jsonl", '{"inputs": {"image": "a"}}', TEXT, "line 1 has the inputs image"),
    ],
)
def test_data_that_does_not_fit(
    tmp_path: Path, name: str, content: str | None, schema: Schema, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(BundleError, match=said):
        rows(Path(name), schema, 10, tmp_path)
