"""Does the answer say what stands on the slip, or that nothing there answers the question?"""

from __future__ import annotations

from typing import Any


def said(answer: dict[str, Any], wanted: str) -> float:
    """Return 1 if the wanted words are in the answer, or it says that there are none."""
    if wanted == "(nothing)":
        return float(not answer["found"])
    return float(answer["found"] and bare(wanted) in bare(answer["answer"]))


def bare(text: str) -> str:
    """Return letters and digits alone."""
    return "".join(filter(str.isalnum, text.lower()))
