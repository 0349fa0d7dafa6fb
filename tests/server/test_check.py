"""When does an answer agree with what was expected, and how is that shown?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import toys
from samples import IMAGE, SIZE, png
from trivium.contract import Blob, Sample, Tier
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import Checker, Row, agrees, read, show

CAT, DOG = {"label": "cat", "score": 0.9}, {"label": "dog", "score": 0.1}


@pytest.mark.parametrize(
    ("output", "expected", "held"),
    [
        ([1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], True),
        ([1.0, 0.1, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], True),
        ([1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], False),
        ([-1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], False),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], False),
        ([0.0] * 4, [1.0, 0.0, 0.0, 0.0], False),
        ([], [1.0, 0.0, 0.0, 0.0], False),
        (None, [1.0, 0.0, 0.0, 0.0], False),
        ([CAT, DOG], [CAT, DOG], True),
        ([{"label": "cat", "score": 0.5}], [CAT, DOG], True),
        ([DOG, CAT], [CAT, DOG], False),
        ([], [CAT], False),
        ({"words": 3}, {"words": 3}, True),
        ({"words": 2}, {"words": 3}, False),
        (CAT, CAT | {"score": 0.5}, True),
        (DOG, CAT, False),
        ([{"page": 1, "text": "a", "lines": []}], [{"page": 1, "text": "a"}], True),
        ([{"page": 1, "text": "b", "lines": []}], [{"page": 1, "text": "a"}], False),
        ([{"page": 1, "text": "a"}] * 2, [{"page": 1, "text": "a"}], False),
        ({"said": [CAT, DOG], "text": "A cat."}, {"said": [CAT]}, True),
        ({"said": [DOG], "text": "A dog."}, {"said": [CAT]}, False),
        ("A cat.", {"said": [CAT]}, False),
        ({"kind": "retina", "places": [], "on": True}, {"kind": "retina", "on": True}, True),
        ({"kind": "tissue", "on": True}, {"kind": "retina", "on": True}, False),
        ({"kind": "retina"}, {"kind": "retina", "on": True}, False),
        ({"relations": [{"of": "a", "at": [1]}]}, {"relations": [{"of": "a"}]}, True),
        ({"relations": [{"of": "b", "at": [1]}]}, {"relations": [{"of": "a"}]}, False),
        ({"relations": [{"of": "a"}] * 2}, {"relations": [{"of": "a"}]}, False),
        ("a", "a", True),
        ([1, 2, 3], [1, 2, 3], True),
        ([1, 2, 4], [1, 2, 3], False),
        (0, False, True),
        ([{"start": 1.0, "end": 2.0, "score": 0.5}], [{"start": 1.05, "end": 2.0}], True),
        ([{"start": 1.0, "end": 2.0}], [{"start": 1.0, "end": 2.2}], False),
        (
            [{"start": 1.0, "end": 2.0, "text": "All four words, here"}],
            [
                {"start": 1.0, "end": 1.4, "text": "all"},
                {"start": 2, "end": 3, "text": "four words"},
            ],
            True,
        ),
        (
            [{"start": 1.0, "end": 2.0, "text": "others"}],
            [{"start": 1.0, "end": 2.0, "text": "words"}],
            False,
        ),
        ([{"start": 1.0}], [{"start": 1.0, "end": 2.0}], False),
        ([], [{"start": 1.0, "end": 2.0}], False),
    ],
)
def test_answers_agree_as_far_as_a_small_model_must(output: Any, expected: Any, held: bool) -> None:
    """Vectors by their direction, labels by the first, all else by being equal."""
    assert agrees(output, expected) is held


def test_a_vector_may_be_as_far_off_as_its_variant_is() -> None:
    """A student's samples are judged by what it was measured to keep."""
    output, expected = [0.6, 0.8, 0.0, 0.0], [0.85, 0.52, 0.0, 0.0]
    assert not agrees(output, expected)
    assert not agrees(output, expected, 0.99)
    assert agrees(output, expected, 0.95)
    assert not agrees([0.0, 0.0, 1.0, 0.0], expected, 0.95)


@pytest.mark.parametrize("output", [None, 7, "cat", {"label": "cat"}, ["cat"], [None], [[]], []])
def test_an_output_of_another_shape_does_not_agree(output: Any) -> None:
    """A check never dies of what it was given."""
    assert not agrees(output, [CAT, DOG])
    assert not agrees(output, [0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
def test_numbers_that_are_none_do_not_agree(value: float) -> None:
    """A model that overflows is found out."""
    assert not agrees([value] * 4, [1.0, 0.0, 0.0, 0.0])


def row(**fields: Any) -> Row:
    """Return a row that held, but for the fields given."""
    return Row(
        **{
            "function": "text.count",
            "tier": "edge",
            "model": "toy",
            "output": "3",
            "ms": 1.25,
            "ok": True,
            **fields,
        }
    )


def test_a_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns line up, and what failed says so."""
    rows = [row(), row(tier="cloud", output="a longer one", ms=1000.0, ok=False)]
    assert show(rows, as_json=False) == 1
    out, err = capsys.readouterr()
    head, first, second = out.splitlines()
    assert head.split() == ["function", "tier", "model", "output", "ms"]
    assert first.endswith("ok")
    assert second.endswith("FAILED")
    assert first.index("1.2") + 3 == second.index("1000.0") + 6
    assert err == "1 of 2 held\n"


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line on stdout, and nothing else there."""
    assert show([row(), row(tier="cloud", output="größer\n")], as_json=True) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [list(each) for each in found] == [
        ["function", "tier", "model", "output", "ms", "ok"]
    ] * 2
    assert found[1]["output"] == "größer\n"
    assert err == "2 of 2 held\n"


def test_nothing_checked_is_nothing_held(capsys: pytest.CaptureFixture[str]) -> None:
    """No rows are a failure."""
    assert show([], as_json=True) == 1
    assert capsys.readouterr().out == ""


def test_a_refused_bundle_is_a_row_that_failed() -> None:
    """It can't be overlooked."""
    found = Row.refused("text.count", BundleError("has 3 bytes"))
    assert not found.ok
    assert (found.tier, found.output) == ("all", "bad_bundle: has 3 bytes")


def sampled(folder: Path, *samples: Sample, **files: bytes) -> Bundle:
    """Return a bundle for images with samples."""
    made = toys.manifest("image.size", "size", inputs=(IMAGE,))
    return Bundle(toys.bundle(folder, SIZE, toys.having(made, samples=samples), **files))


def test_samples_are_read_with_their_files(tmp_path: Path) -> None:
    """Names of files become blobs of the right media type."""
    files = {"cat.png": png(4, 2), "dog.jpg": b"x"}
    bundle = sampled(tmp_path, **files)
    found = read(bundle, Sample(inputs={"image": "cat.png"}))
    assert found == {"image": Blob(media="image/png", data=files["cat.png"])}
    other = read(bundle, Sample(inputs={"image": "dog.jpg"}))["image"]
    assert isinstance(other, Blob)
    assert other.media == "image/jpeg"
    with pytest.raises(BundleError, match=r"does not list '\.\./secret'"):
        read(bundle, Sample(inputs={"image": "../secret"}))
    count = Bundle(toys.bundle(tmp_path, toys.COUNT, toys.manifest()))
    assert read(count, Sample(inputs={"text": "cat.png"})) == {"text": "cat.png"}


def test_a_dead_server_gives_rows_that_failed(tmp_path: Path) -> None:
    """Each says what happened, and the check ends."""
    sample = Sample(inputs={"image": "cat.png"}, output=[2, 4])
    bundle = sampled(tmp_path, sample, sample, **{"cat.png": png(4, 2)})
    checker = Checker("http://127.0.0.1:9", "key", [bundle])
    rows = list(checker.ready(set()))
    assert [(each.tier, each.ok) for each in rows] == [(Tier.CLOUD, False), (Tier.EDGE, False)]
    assert len(list(checker.servers())) == 4
    assert rows[0].output == "no answer: ConnectError"
