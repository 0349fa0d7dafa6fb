"""Which networks tell words apart? Convolutions over time, with the mels as channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 22


class Block(nn.Module):
    """A depthwise convolution over time and a pointwise one, beside a shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 9, stride, 4, groups=width, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, out, 1, bias=False),
            nn.BatchNorm1d(out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if (width, stride) != (out, 1):
            self.shortcut = nn.Sequential(
                nn.Conv1d(width, out, 1, stride, bias=False), nn.BatchNorm1d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, out, t / stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


class Words(nn.Module):
    """Mels [n, 40, 117] to logits [n, 22]."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        rows: list[nn.Module] = [
            nn.Conv1d(40, width, 5, 2, 2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        ]
        for number in range(blocks):
            rows.append(Block(width, width, 2 if number in (0, 2) else 1))
        self.body = nn.Sequential(*rows)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, mels: Tensor) -> Tensor:
        """Return logits."""
        # A word fills a part of the window: the strongest moment counts as well as the whole.
        made = self.body((mels - 1.0) / 4.0)
        return self.head(made.mean(2) + made.amax(2))


def teacher() -> Words:
    """Return the larger network."""
    return Words(96, 6)


def student() -> Words:
    """Return the smaller network."""
    return Words(48, 4)


class Answer(nn.Module):
    """Scores of each window: what ships."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words

    def forward(self, mels: Tensor) -> Tensor:
        """Return [w, 22]."""
        return torch.softmax(self.words(mels), 1)
