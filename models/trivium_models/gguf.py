"""What does a GGUF file hold, and how do its blocks of coarse numbers become tensors?"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from trivium.errors import BundleError

Array = NDArray[Any]

BLOCK = 32
"""How many weights share a scale, in the two layouts that are read here."""

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
SIZES = {"f32": 128, "q8_0": 34, "q4_1": 20}
"""The bytes of 32 weights, by layout."""

LAYOUTS = {0: "f32", 3: "q4_1", 8: "q8_0"}
CONTROL = 3
"""The type of a token that is not text."""


class Held(NamedTuple):
    """Where a tensor lies in the file, and what it is."""

    layout: str
    shape: tuple[int, ...]
    offset: int
    length: int


class Gguf:
    """A GGUF file's facts and the places of its tensors."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        magic, version, tensors, facts = self._read("<4sIQQ")
        if (magic, version) != (b"GGUF", 3):
            raise BundleError(f"this is no GGUF file of version 3: {magic!r}, {version}")
        self.facts = {self._text(): self._value(self._read("<I")[0]) for _ in range(facts)}
        found = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // 32) * 32
        self.tensors = {name: held._replace(offset=start + held.offset) for name, held in found}

    def _read(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return values

    def _text(self) -> str:
        (size,) = self._read("<Q")
        self._at += size
        return self._data[self._at - size : self._at].decode()

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            inner, count = self._read("<IQ")
            return [self._value(inner) for _ in range(count)]
        return self._read(f"<{SCALARS[kind]}")[0]

    def _tensor(self) -> tuple[str, Held]:
        name = self._text()
        (axes,) = self._read("<I")
        shape = tuple(reversed(self._read(f"<{axes}Q")))
        kind, offset = self._read("<IQ")
        layout = LAYOUTS.get(kind, "")
        if not layout:
            raise BundleError(f"the tensor {name} is of type {kind}; read are {LAYOUTS}")
        size = int(np.prod(shape)) // BLOCK * SIZES[layout]
        return name, Held(layout, shape, offset, size)


def unpack(form: str, raw: bytes, shape: tuple[int, ...]) -> Array:
    """Return blocks as an array: `form` is a layout and what of it, such as `q4_1.codes`.

    `values` are the weights themselves in float32, transposed for a product where the layout is
    q4_1; `codes` the integers as MatMulNBits has them, `nibbles` the same as the bytes of a uint4
    tensor; `high` and `low` are the two halves of those of eight bits, `signed` those themselves;
    `scales` and `least` are float16.
    Nothing is rounded but `values`, once: the same bits everywhere.
    """
    layout, what = form.split(".")
    rows = np.frombuffer(raw, np.uint8).reshape(-1, SIZES[layout])
    scales = np.ascontiguousarray(rows[:, :2]).view(np.float16)
    if layout == "q8_0":
        codes = rows[:, 2:].view(np.int8)
        if what in ("high", "low"):
            raised = (codes.astype(np.int16) + 128).astype(np.uint8)
            halves = raised >> 4 if what == "high" else raised & 15
            return paired(halves).reshape(shape)
        if what == "scales":
            return scales.reshape(shape)
        if what == "signed":
            return codes.reshape(shape)
        return (codes.astype(np.float32) * scales.astype(np.float32)).reshape(shape)
    least = np.ascontiguousarray(rows[:, 2:4]).view(np.float16)
    # The first sixteen weights of a block are low halves, the others high ones.
    nibbles = np.concatenate([rows[:, 4:] & 15, rows[:, 4:] >> 4], axis=1)
    if what == "codes":
        return paired(nibbles).reshape(shape)
    if what == "nibbles":
        return paired(nibbles).reshape(-1)
    if what == "values":
        values = nibbles.astype(np.float32) * scales.astype(np.float32) + least.astype(np.float32)
        return np.ascontiguousarray(values.reshape(shape[::-1]).T)
    return (scales if what == "scales" else least).reshape(shape)


def paired(halves: Array) -> Array:
    """Return two halves a byte, the first one low."""
    packed: Array = halves[:, ::2] | halves[:, 1::2] << 4
    return packed


def tokenizer(data: bytes) -> bytes:
    """Return the `tokenizer.json` of a file whose tokens are pairs of bytes, GPT-2's way."""
    facts = Gguf(data).facts
    known = (facts["tokenizer.ggml.model"], facts["tokenizer.ggml.pre"])
    if known != ("gpt2", "smollm"):
        raise BundleError(f"tokens of the kind {known} can't be read; known is ('gpt2', 'smollm')")
    tokens, kinds = facts["tokenizer.ggml.tokens"], facts["tokenizer.ggml.token_type"]
    special = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind == CONTROL
    ]
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    made = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**bytewise, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**bytewise, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [each.split(" ") for each in facts["tokenizer.ggml.merges"]],
        },
    }
    return msgspec.json.encode(made)
