"""A Llama of a few thousand weights, drawn by the same code, to test with what nobody pulled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import tokenizers
from onnx import numpy_helper
from tokenizers import decoders, models, pre_tokenizers

from trivium_models.gguf import SIZES, unpack
from trivium_models.package import load

HOME = Path(__file__).parents[1] / "models/functions/text.generate"
ENDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tokenizer() -> bytes:
    """Return a tokenizer of bytes, with the marks of turns."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {each: number for number, each in enumerate([*ENDS, *letters])}
    made = tokenizers.Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(ENDS)
    return made.to_str().encode()


def graph(form: str = "coarse", seed: int = 7) -> bytes:
    """Return the graph with weights drawn by chance; in each form they are the same."""
    draw: ModuleType = load(HOME / "draw.py")
    chance = np.random.default_rng(seed)
    drawn: dict[str, bytes] = {}

    def blocks(part: str, layout: str, count: int) -> bytes:
        if part not in drawn:
            rows = chance.integers(0, 256, (count, SIZES[layout]), np.uint8)
            rows[:, :2] = chance.uniform(0.01, 0.03, (count, 1)).astype(np.float16).view(np.uint8)
            if layout == "q4_1":
                least = chance.uniform(-0.3, -0.1, (count, 1)).astype(np.float16)
                rows[:, 2:4] = least.view(np.uint8)
            drawn[part] = rows.tobytes()
        return drawn[part]

    def weight(
        name: str, layout: str, parts: Sequence[str], shape: Sequence[int]
    ) -> onnx.TensorProto:
        if layout == "f32":
            return numpy_helper.from_array(np.ones(shape, np.float32), name)
        blocks_of, _, _ = layout.partition(".")
        ahead = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64}
        sizes = {**{k: v * 64 for k, v in ahead.items()}, "token_embd.weight": 259 * 64}
        sizes |= {"ffn_gate": 96 * 64, "ffn_up": 96 * 64, "ffn_down": 64 * 96}
        raw = b""
        for part in parts:
            key = part if part in sizes else part.split(".")[2]
            raw += blocks(part, blocks_of, sizes[key] // 32)
        data = unpack(layout, raw, tuple(shape))
        if layout.endswith("nibbles"):
            return onnx.helper.make_tensor(
                name, onnx.TensorProto.UINT4, shape, data.tobytes(), True
            )
        return numpy_helper.from_array(data, name)

    shape = draw.Shape(
        layers=2, width=64, inner=96, heads=2, pairs=1, words=259, base=1e4, epsilon=1e-5
    )
    data: bytes = draw.draw(shape, weight, form).SerializeToString(deterministic=True)
    return data
