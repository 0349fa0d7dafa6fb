"""Does the function keep to magika's rules, beside its model?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trivium import Blob, Document, Tensor
from trivium.hosts import limits

detect: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["detect"]
LABELS = ["pdf\tapplication/pdf\tdocument\tbinary\t0.5", "sql\ttext/x-sql\tcode\ttext\t0.9"]


def asked(data: bytes, *scores: float) -> tuple[Any, list[int]]:
    """Return the answer to a file, and what its model was given."""
    fed: list[int] = []

    async def run(**feeds: Tensor) -> Tensor:
        fed.extend(feeds["bytes"].values)
        return Tensor(dtype="float32", shape=(1, 2), data=array("f", scores).tobytes())

    models = SimpleNamespace(types=SimpleNamespace(run=run), labels=LABELS)
    document = limits.document(Blob(media="", data=data), lambda a, b: data[a:b])
    assert isinstance(document, Document)
    return asyncio.run(detect(document, models)), fed


def test_a_type_has_its_name_media_type_and_group() -> None:
    found, fed = asked(b"%PDF-1.7 and so on", 0.75, 0.25)
    assert (found.label, found.mime, found.group) == ("pdf", "application/pdf", "document")
    assert found.score == 0.75
    assert len(fed) == 2048


def test_space_is_stripped_at_the_outer_ends_and_the_middle_padded() -> None:
    _, fed = asked(b"  \n12345678\t ", 1, 0)
    assert fed == [*b"12345678\t ", *[256] * (2048 - 21), *b"  \n12345678"]


def test_a_large_file_is_seen_at_both_its_ends() -> None:
    _, fed = asked(b" " + b"a" * 5000 + b"b" * 5000 + b" ", 1, 0)
    assert fed == [*b"a" * 1024, *b"b" * 1024]


def test_what_is_not_sure_enough_is_text_or_unknown() -> None:
    assert asked(b"select 1 from a", 0.2, 0.8)[0].label == "txt"
    assert asked(b"select 1 from a", 0.05, 0.95)[0].label == "sql"
    found, _ = asked(b"select 1 from a", 0.4, 0.1)
    assert (found.label, found.mime) == ("unknown", "application/octet-stream")
    assert found.score == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"", "empty"),
        (b"abc", "txt"),
        (b"\xff\xfe", "unknown"),
        (b" " * 9000, "txt"),
        (b" \n" * 20 + "é".encode(), "txt"),
        (b" " * 20 + b"\xe9", "unknown"),
    ],
)
def test_of_too_few_bytes_the_model_is_not_asked(data: bytes, label: str) -> None:
    found, fed = asked(data)
    assert (found.label, found.score, fed) == (label, 1.0, [])
