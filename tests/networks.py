"""Two small torch modules that the compile kit's tests export, prune and distil."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 32

axes = {"ids": {0: "b", 1: "t"}, "mask": {0: "b", 1: "t"}}
outputs = ("embedding",)


class Attention(nn.Module):  # type: ignore[misc] # torch is not there for mypy
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value, self.dense = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        seen = (query @ key.transpose(2, 3) + hidden).softmax(-1) @ value
        return self.dense(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):  # type: ignore[misc] # torch is not there for mypy
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.wide, self.narrow = nn.Linear(WIDTH, 64), nn.Linear(64, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x = self.norm(x + self.attention(x, hidden))
        return self.last(x + self.narrow(functional.gelu(self.wide(x))))


class Texts(nn.Module):  # type: ignore[misc] # torch is not there for mypy
    """Two layers of a transformer over the letters of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(128, WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = (1 - mask.float()[:, None, None]) * -1e4
        x = self.letters(ids)
        for layer in self.layers:
            x = layer(x, hidden)
        return functional.normalize((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))


class Photos(nn.Module):  # type: ignore[misc] # torch is not there for mypy
    """Three convolutions, one of them depthwise, a residual connection and ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.wide, self.each = nn.Conv2d(16, 64, 1), nn.Conv2d(64, 64, 3, 1, 1, groups=64)
        self.narrow, self.classes = nn.Conv2d(64, 16, 1), nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.norm(self.stem(image)).relu()
        x = x + self.narrow(self.each(self.wide(x).relu()).relu())
        return self.classes(x.mean((2, 3))).softmax(-1)


def nothing(_member: str) -> bytes:
    """Read a file of a package, for networks that need none."""
    return b""


def texts(_read: Callable[[str], bytes]) -> nn.Module:
    return Texts()


def photos(_read: Callable[[str], bytes]) -> nn.Module:
    return Photos()


def inputs(rows: Sequence[str], _read: Callable[[str], bytes]) -> dict[str, Tensor]:
    rows = rows or ["one row", "and another one"]
    longest = max(map(len, rows))
    ids = torch.tensor([[ord(letter) % 128 for letter in row.ljust(longest)] for row in rows])
    mask = torch.tensor([[int(place < len(row)) for place in range(longest)] for row in rows])
    return {"ids": ids, "mask": mask}
