"""Does the function hand its author's text to the encoder, and the vector back?"""

from __future__ import annotations

import asyncio
import runpy
from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trivium import Tensor, Text

embed: Any = runpy.run_path(str(Path(__file__).with_name("function.py")))["embed"]


def test_the_vector_is_what_the_encoder_gives() -> None:
    async def run(input_ids: Any, attention_mask: Any) -> Tensor:
        assert (input_ids, attention_mask) == ("ids of a cat", "mask")
        return Tensor(dtype="float32", shape=(1, 2), data=array("f", [0.5, -0.5]).tobytes())

    def encode(text: str) -> Any:
        return SimpleNamespace(ids=f"ids of {text}", mask="mask")

    models = SimpleNamespace(
        tokens=SimpleNamespace(encode=encode), encoder=SimpleNamespace(run=run)
    )
    assert asyncio.run(embed(Text("a cat"), models)) == [0.5, -0.5]
