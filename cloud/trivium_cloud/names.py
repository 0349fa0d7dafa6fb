"""By which name is an answer kept?"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b, sha256
from typing import Any

import msgspec

from trivium.contract import Answer, Ask, Tensor
from trivium.kinds import Audio, Decoded, Image

FORM = "1"
"""Changed whenever entries of before could be misread."""

Held = Mapping[str, Decoded]


class Name:
    """By which name an answer is kept, and what it depends on beside its inputs."""

    def __init__(self, name: str, vector: bool, of: tuple[Any, ...]) -> None:
        self.name = name
        self.lock = f"{name}:making"
        self.vector = vector
        self.of = of

    def entry(self, body: bytes) -> bytes:
        """Return what is written: a checksum that is right under this name alone, and `body`."""
        return self._sum(body) + body

    def checked(self, data: bytes) -> bytes:
        """Return the body of an entry, or nothing if it is not one of ours, whole, by this name."""
        body = data[16:]
        return body if data[:16] == self._sum(body) else b""

    def read(self, data: bytes) -> Answer | None:
        """Return the answer in an entry, or nothing if it is corrupt."""
        try:
            return msgspec.msgpack.decode(self.checked(data), type=Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            return None

    def _sum(self, body: bytes) -> bytes:
        return blake2b(body, digest_size=16, key=self.name[-64:].encode()).digest()


def digest(tenant: str, ask: Ask, of: tuple[Any, ...], held: Held) -> str | None:
    """Return the hash of all that an answer depends on; MessagePack leaves no two ways to read it.

    Nothing is made alike before: another spelling, media type or order of bytes is another ask.
    """
    inputs: dict[str, Any] = {}
    for name, value in ask.inputs.items():
        inputs[name] = (
            ("text", sha256(value.encode()).digest())
            if isinstance(value, str)
            else ("file", value.media, sha256(value.data).digest())
        )
    for name, given in held.items():
        if name in inputs:
            continue
        if isinstance(given, Image):
            numbers = given.pixels
        elif isinstance(given, Audio):
            numbers = given.samples
        else:
            return None
        if not isinstance(numbers, Tensor):
            return None
        inputs[name] = (numbers.dtype, numbers.shape, sha256(numbers.data).digest())
    everything = (FORM, tenant, of, inputs)
    return sha256(msgspec.msgpack.encode(everything, order="deterministic")).hexdigest()
