"""What do the compile kit's tests build with?"""

from __future__ import annotations

from pathlib import Path

from trivium_models.build import Workshop
from trivium_models.measured import variants
from trivium_models.package import package


def packed(workshop: Workshop, out: Path) -> Path:
    """Package a function that was not measured."""
    return package(workshop, out, variants(workshop, None))
