"""What do the compile kit's tests share?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]

COUNT = '''
from __future__ import annotations

from trivium import Text, function


@function("text.count")
async def count(text: Text, least: int = 1) -> dict[str, int]:
    """Count the words of a text."""
    return {}
'''


@pytest.fixture
def folder(tmp_path: Path) -> Write:
    """Write a function's folder: its code, its recipe, and other files by name."""

    def write(code: str = COUNT, recipe: str = "", **files: bytes) -> Path:
        place = tmp_path / "mine"
        place.mkdir(exist_ok=True)
        (place / "function.py").write_text(code, "utf-8")
        stated = f'version = "1.0.0"\nlicence = "MIT"\n{recipe}'
        (place / "recipe.toml").write_text(stated, "utf-8")
        for name, data in files.items():
            (place / name.replace("__", ".")).write_bytes(data)
        return place

    return write
