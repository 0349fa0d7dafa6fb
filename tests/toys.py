"""Small, real things to test with: bundles, engines with a fake host, a hop between two."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from trivium.contract import (
    JSON,
    Answer,
    Ask,
    Blob,
    Fault,
    File,
    Frames,
    Input,
    Manifest,
    Option,
    Part,
    Resident,
    Road,
    Schema,
    Tensor,
    Tier,
    Variant,
    decode,
    encode,
    frame,
)
from trivium.engine import Engine
from trivium.errors import TierError, TierUnreachable
from trivium.function import Function, Image, Loaded, Text

T = TypeVar("T")

TIERS = tuple(Tier)

COUNT = """
from trivium import Text, function

@function("text.count")
async def count(text: Text, least: int = 1) -> dict[str, int]:
    \"\"\"Count the words of a text.\"\"\"
    words = [word for word in text.split() if len(word) >= least]
    return {"words": len(words)}
"""


def manifest(
    name: str = "text.count",
    entry: str = "count",
    *,
    version: str = "1.0.0",
    tiers: Sequence[Tier] = TIERS,
    quality: Mapping[Tier, float] | None = None,
    ms: Mapping[Tier, tuple[float, float, float]] | None = None,
    options: tuple[Option, ...] = (),
    models: dict[str, tuple[str, ...]] | None = None,
    inputs: tuple[Input, ...] = (Input(name="text", kind="text"),),
    streams: bool = False,
    wants_models: bool = False,
    asks: bool = False,
    settings: dict[str, Any] | None = None,
    files: dict[str, File] | None = None,
) -> Manifest:
    """Return a manifest with a variant for each tier, better and slower the farther it is."""
    return Manifest(
        name=name,
        version=version,
        function=Schema(
            name=name,
            entry=entry,
            doc="A toy.",
            inputs=inputs,
            options=options,
            streams=streams,
            models="models" if wants_models or models else None,
            asks="ask" if asks else None,
        ),
        variants=tuple(
            Variant(
                tier=tier,
                model=f"toy-{tier}",
                models=models or {},
                settings=settings or {},
                quality=(quality or {}).get(tier, 0.9 + 0.05 * tier.distance),
                ms=(ms or {}).get(tier, (1.0, 10.0 * (1 + tier.distance), 50.0)),
            )
            for tier in tiers
        ),
        licence="Apache-2.0",
        files=files or {},
    )


def bundle(folder: Path, source: str, made: Manifest, **files: bytes) -> Path:
    """Write a bundle into `folder` and return its own folder."""
    home = folder / made.name
    home.mkdir(parents=True, exist_ok=True)
    contents = {"function.py": source.encode(), **files}
    for name, data in contents.items():
        (home / name).write_bytes(data)
    listed = {
        name: File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        for name, data in contents.items()
    }
    raw = encode(
        Manifest(**{f: getattr(made, f) for f in made.__struct_fields__ if f != "files"}, files=listed),
        JSON,
    )
    (home / "manifest.json").write_bytes(raw)
    (home / "manifest.sha256").write_text(hashlib.sha256(raw).hexdigest())
    return home
