"""What must a host provide so that a function's models and tokenizers run?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from .contract import Resident, Tensor


class Session(Protocol):
    """One model, loaded on this tier."""

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the outputs by name."""

    async def keep(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Resident]:
        """Return the outputs by name without their numbers: they stay on the session's side."""

    def start(self, first: Mapping[str, Tensor | Resident]) -> Runs:
        """Begin a sequence of runs: with empty state, or with what `first` gives.

        What `first` gives beyond state is given to each run again.
        """


class Runs(Protocol):
    """Runs of one session, each of which begins with the state that the last one left."""

    async def run(self, feeds: Mapping[str, Tensor | Resident]) -> dict[str, Tensor]:
        """Return the outputs that are not state, by name."""

    def close(self) -> None:
        """Let the state go, at once or when the run that uses it ends."""


def carried(
    state: Mapping[str, str], inputs: Iterable[str], outputs: Iterable[str]
) -> dict[str, str]:
    """Return which inputs are state, and the outputs that are their next values."""
    there = set(outputs)
    found: dict[str, str] = {}
    for name in inputs:
        for pattern, next_one in state.items():
            head, star, tail = pattern.partition("*")
            middle = name[len(head) : len(name) - len(tail)]
            if head + middle * bool(star) + tail == name:
                target = next_one.replace("*", middle)
                if target in there:
                    found[name] = target
    return found


class Tokens(Protocol):
    """What `models.tokens.encode` gives: both tensors are int64 of shape [1, t]."""

    @property
    def ids(self) -> Tensor | Resident: ...
    @property
    def mask(self) -> Tensor | Resident: ...


class Tokenizer(Protocol):
    """The same `tokenizer.json` on every tier."""

    def encode(self, text: str) -> Tokens:
        """Return the tokens of `text`; over the variant's `max_tokens` raise TooLarge."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones; what is no UTF-8 becomes U+FFFD."""


class Stream:
    """A text that comes token by token; a character waits until all of its bytes are there."""

    __slots__ = ("_context", "_decode", "_held", "_said")

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._held: list[int] = []
        self._context = self._said = 0

    def add(self, *ids: int) -> str:
        """Return the text that is complete with these tokens; it may be empty."""
        said = self._said
        self._held += ids
        text = self._decode(self._held)
        if text.endswith(_PARTIAL):
            ready = text[: -len(_PARTIAL)]
            self._said = max(said, len(ready))
            return ready[said:]
        # What came last is kept to decode what follows it: some decoders treat a start otherwise.
        del self._held[: self._context]
        self._context = len(self._held)
        self._said = len(self._decode(self._held))
        return text[said:]

    def end(self) -> str:
        """Return what waited in vain, as U+FFFD."""
        rest = self._decode(self._held)[self._said :]
        self._held = []
        self._context = self._said = 0
        return rest


_PARTIAL = "\ufffd"
