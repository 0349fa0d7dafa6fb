"""Where long texts are cut: at paragraphs, sentences, clauses, words, and inside of none."""

from __future__ import annotations

import re

import pytest

from trivium.texts import split

ENGLISH = (
    "Trains run on rails. Ships sail, e.g. on rivers; some are fast.\n\n"
    'A cat said: "No!" Then it left. Dogs stayed.\nThey slept.'
)
CHINESE = "火车在铁轨上行驶。船在河上航行，有的很快；有的很慢。“不！”猫说。狗留下了。"  # noqa: RUF001


def words(text: str) -> int:
    """Count as most tokenizers do: words, marks, and each Chinese letter."""
    return len(re.findall(r"[a-zA-Z0-9]+|[^\sa-zA-Z0-9]", text))


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (99, [ENGLISH]),
        (
            22,
            [
                "Trains run on rails. Ships sail, e.g. on rivers; some are fast.",
                'A cat said: "No!" Then it left. Dogs stayed.\nThey slept.',
            ],
        ),
        (
            17,
            [
                "Trains run on rails.",
                "Ships sail, e.g. on rivers; some are fast.",
                'A cat said: "No!" Then it left. Dogs stayed.',
                "They slept.",
            ],
        ),
    ],
)
def test_english_ends_where_paragraphs_and_sentences_do(most: int, expected: list[str]) -> None:
    """The longest pieces there can be; an abbreviation ends nothing."""
    assert split(ENGLISH, words, most) == expected


def test_chinese_has_sentences_without_spaces() -> None:
    """They end at its own marks, or else at its commas."""
    assert split(CHINESE, words, 19) == [
        "火车在铁轨上行驶。",
        "船在河上航行，有的很快；有的很慢。",  # noqa: RUF001
        "“不！”猫说。狗留下了。",  # noqa: RUF001
    ]
    assert split("船在河上航行，有的很快；有的很慢。", words, 8) == [  # noqa: RUF001
        "船在河上航行，",  # noqa: RUF001
        "有的很快；",  # noqa: RUF001
        "有的很慢。",
    ]


def test_a_word_is_cut_only_if_it_must_be() -> None:
    """Clauses first, then words, then letters."""
    assert split("one two, three four five", words, 3) == ["one two,", "three four five"]
    assert split("one two three four", words, 2) == ["one two", "three four"]
    assert split("a" * 10 + " b", len, 4) == ["aaaa", "aaaa", "aa b"]
    assert split("", words, 5) == []
    assert split(" \n\n ", words, 5) == []
    with pytest.raises(ValueError, match="most is 0"):
        split("a", words, 0)


def test_a_heading_stays_with_what_it_is_of() -> None:
    """Even if that is cut."""
    assert split("Rivers\n\nThey are long. They are wide. They are deep.", words, 9) == [
        "Rivers\n\nThey are long. They are wide.",
        "They are deep.",
    ]


def test_a_long_text_takes_no_time() -> None:
    """The counter sees each letter a few times, however the text is built."""
    for text in ("word " * 40_000, "a" * 20_000, "One. " * 20_000, "\n\n" * 50_000, "- " * 50_000):
        seen = 0

        def count(piece: str) -> int:
            nonlocal seen
            seen += len(piece)
            return words(piece) + len(piece) // 50

        split(text, count, 250)
        assert seen < 40 * len(text)
