"""How much of what is said stands in the text?"""

from __future__ import annotations

import re
from typing import Any


def grounded(answer: Any, wanted: Any) -> float:
    """Return the share of an answer's longer words that the text has; `wanted` are the text's."""
    said = words(answer["text"] if isinstance(answer, dict) else answer)
    there = set(words(wanted if isinstance(wanted, str) else wanted["text"]))
    return sum(word in there for word in said) / len(said) if said else 0.0


def words(text: str) -> list[str]:
    """Return the words of four letters and more, in small letters, without an s at the end."""
    return [word.removesuffix("s") for word in re.findall(r"[a-z]{4,}", text.lower())]
