"""Does attention over a long text's pieces find it better than its first piece, or their mean?

    python train.py OUT HEAD.onnx

OUT is what data.py wrote. One vector a document, and its titles and headings (which it does not
hold) are to find it among all documents of its split. The head is taught on some groups of packages
(InfoNCE against text.embed's vectors of the queries), its epoch chosen on others, judged on others.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F  # noqa: N812 # as everybody calls it

PIECE = 254
WIDTH, RANK = 16, 32
EPOCHS, BATCH, RATE, DECAY, TEMPERATURE = 30, 96, 1e-3, 0.1, 0.1
HARD = 0.7
"""How many epochs have batches of one group, whose documents are alike."""

RESAMPLES = 2000


class Row(NamedTuple):
    """A document."""

    pieces: np.ndarray
    tokens: np.ndarray
    queries: np.ndarray
    group: str


def read(out: Path) -> dict[str, list[Row]]:
    """Return the documents of two pieces and more by their split."""
    found: dict[str, list[Row]] = {"train": [], "val": [], "test": []}
    vectors = np.load(out / "vectors.npz")
    for number, each in enumerate(json.loads((out / "documents.json").read_text())):
        names = ("pieces", "tokens", "queries")
        row = Row(*(vectors[f"{number}.{name}"] for name in names), each["group"])
        if len(row.pieces) > 1:
            found[each["split"]].append(row)
    return found


def padded(rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pieces [rows, n, 384] and shares of a piece's tokens [rows, n], 0 where none is."""
    most = max(len(row.pieces) for row in rows)
    pieces, tokens = torch.zeros(len(rows), most, 384), torch.zeros(len(rows), most)
    for number, row in enumerate(rows):
        pieces[number, : len(row.pieces)] = torch.tensor(row.pieces)
        tokens[number, : len(row.pieces)] = torch.tensor(row.tokens) / PIECE
    return pieces, tokens


class Head(torch.nn.Module):
    """Attention in which their mean asks the pieces, then a small step in the space.

    A piece's score is what the mean asks of it, what is always asked, and what its place, its
    length and its distance from the mean say. `attend` and `step` leave out one or the other.
    """

    def __init__(self, *, attend: bool = True, step: bool = True) -> None:
        super().__init__()
        self.attend, self.step = attend, step
        self.key = torch.nn.Linear(384, WIDTH, bias=False)
        self.query = torch.nn.Linear(384, WIDTH, bias=False)
        self.always = torch.nn.Linear(384, 1, bias=False)
        self.hidden = torch.nn.Linear(6, 16)
        self.feature = torch.nn.Linear(16, 1)
        self.down = torch.nn.Linear(384, RANK)
        self.up = torch.nn.Linear(RANK, 384, bias=False)
        for layer in (self.key, self.query):
            torch.nn.init.normal_(layer.weight, 0, 1.2 / 384**0.5)
        for layer in (self.always, self.feature, self.up):
            torch.nn.init.zeros_(layer.weight)

    def forward(self, pieces: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return a unit vector for each document."""
        there = (tokens > 0).float()
        count = there.sum(1, keepdim=True)
        mean = (pieces * there.unsqueeze(-1)).sum(1, keepdim=True) / count.unsqueeze(-1)
        norm = mean.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        unit = mean / norm
        index = there.cumsum(1) - 1
        features = [
            index / (count - 1).clamp(min=1),
            (index == 0).float(),
            (pieces * unit).sum(-1),
            tokens,
            there / count,
            there * norm.squeeze(-1),
        ]
        score = self.feature(torch.tanh(self.hidden(torch.stack(features, -1)))).squeeze(-1)
        score = score + (self.key(pieces) * self.query(unit)).sum(-1)
        score = score + 4 * self.always(pieces).squeeze(-1)
        weights = score.masked_fill(there == 0, -1e9).softmax(-1) if self.attend else there / count
        found = F.normalize((weights.unsqueeze(-1) * pieces).sum(1), dim=-1)
        if self.step:
            found = F.normalize(found + self.up(torch.tanh(self.down(found))), dim=-1)
        return found


def teach(head: Head, rows: list[Row], choose: list[Row], seed: int) -> Head:
    """Return the head as it was after its best epoch."""
    chance = np.random.default_rng(seed)
    steps = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.group, []).append(number)
    best, kept = 0.0, {}
    for epoch in range(EPOCHS):
        order = chance.permutation(len(rows))
        if chance.random() < HARD:
            order = np.concatenate(
                [chance.permutation(groups[g]) for g in chance.permutation([*groups])]
            )
        for each in steps.param_groups:
            each["lr"] = RATE * (1 - epoch / EPOCHS)
        for start in range(0, len(order) - 32, BATCH):
            some = [rows[number] for number in order[start : start + BATCH]]
            asked = [row.queries[chance.integers(len(row.queries))] for row in some]
            near = torch.tensor(np.stack(asked)) @ head(*padded(some)).T / TEMPERATURE
            right = torch.arange(len(some))
            loss = F.cross_entropy(near, right) + F.cross_entropy(near.T, right)
            steps.zero_grad()
            loss.backward()
            steps.step()
        found = float(np.concatenate(reciprocal(vectors(head, choose), choose)).mean())
        if found > best:
            best, kept = found, {name: each.clone() for name, each in head.state_dict().items()}
    head.load_state_dict(kept)
    return head


def vectors(head: Head, rows: list[Row]) -> np.ndarray:
    """Return a vector for each document."""
    with torch.no_grad():
        return head(*padded(rows)).numpy()


def reciprocal(found: np.ndarray, rows: list[Row]) -> list[np.ndarray]:
    """Return one over the rank of each document among all, for each of its queries."""
    out = []
    for number, row in enumerate(rows):
        near = row.queries @ found.T
        out.append(1 / (1 + (near > near[:, number : number + 1]).sum(1)))
    return out


def unit(found: list[np.ndarray]) -> np.ndarray:
    """Return vectors of length 1."""
    all_of_them = np.stack(found)
    return all_of_them / np.linalg.norm(all_of_them, axis=-1, keepdims=True)


def report(name: str, scores: list[np.ndarray], against: list[np.ndarray]) -> None:
    """Print mean reciprocal ranks, and the gain over others with a bootstrap of the documents."""
    chance = np.random.default_rng(0)
    sums = np.array(
        [[each.sum(), other.sum(), len(each)] for each, other in zip(scores, against, strict=True)]
    )
    picks = chance.integers(0, len(sums), (RESAMPLES, len(sums)))
    drawn = sums[picks].sum(1)
    gain = (drawn[:, 0] - drawn[:, 1]) / drawn[:, 2]
    low, high = np.quantile(gain, (0.025, 0.975))
    flat = np.concatenate(scores)
    more = flat.mean() - np.concatenate(against).mean()
    titles = np.array([each[0] for each in scores])
    heads = np.concatenate([each[1:] for each in scores])
    print(
        f"{name:24} all {flat.mean():.4f} title {titles.mean():.4f} heading {heads.mean():.4f} "
        f"within ten {(flat >= 0.1).mean():.4f}; over the mean {more:+.4f} "
        f"({low:+.4f} to {high:+.4f})",
        flush=True,
    )


def graph(head: Head) -> onnx.ModelProto:
    """Return the head as a graph: `pieces` [n, 384], `tokens` [n, 1] as shares of a piece."""
    state = {name: each.numpy() for name, each in head.state_dict().items()}
    constants: dict[str, Any] = {
        "one": np.float32([1]),
        "none": np.float32([0]),
        "least": np.float32([1e-6]),
        "rows": np.int64([0]),
        "columns": np.int64([1]),
        "down": np.int64(0),
        "key": state["key.weight"].T,
        "query": state["query.weight"].T,
        "always": 4 * state["always.weight"].T,
        "hidden": state["hidden.weight"].T,
        "hidden_bias": state["hidden.bias"],
        "feature": state["feature.weight"].T,
        "feature_bias": state["feature.bias"],
        "into": state["down.weight"].T,
        "into_bias": state["down.bias"],
        "back": state["up.weight"].T,
    }
    nodes = []

    def node(kind: str, given: str, out: str, **settings: Any) -> None:
        nodes.append(helper.make_node(kind, given.split(), [out], **settings))

    node("Mul", "tokens none", "zeros")
    node("Add", "zeros one", "ones")
    node("ReduceSum", "ones rows", "count")
    node("CumSum", "ones down", "upto")
    node("Sub", "upto one", "index")
    node("Sub", "count one", "last")
    node("Max", "last one", "last_place")
    node("Div", "index last_place", "place")
    node("Sub", "one index", "before")
    node("Relu", "before", "first")
    node("ReduceMean", "pieces", "mean", axes=[0])
    node("ReduceL2", "mean", "mean_length", axes=[1])
    node("Max", "mean_length least", "norm")
    node("Div", "mean norm", "middle")
    node("Mul", "pieces middle", "products")
    node("ReduceSum", "products columns", "cosine")
    node("Div", "ones count", "share")
    node("Mul", "ones norm", "norms")
    node("Concat", "place first cosine tokens share norms", "features", axis=1)
    node("MatMul", "features hidden", "h0")
    node("Add", "h0 hidden_bias", "h1")
    node("Tanh", "h1", "h2")
    node("MatMul", "h2 feature", "h3")
    node("Add", "h3 feature_bias", "by_feature")
    node("MatMul", "pieces key", "keys")
    node("MatMul", "middle query", "asked")
    node("Mul", "keys asked", "answers")
    node("ReduceSum", "answers columns", "by_mean")
    node("MatMul", "pieces always", "by_always")
    node("Add", "by_feature by_mean", "s0")
    node("Add", "s0 by_always", "scores")
    node("Softmax", "scores", "weights", axis=0)
    node("Mul", "pieces weights", "weighed")
    node("ReduceSum", "weighed rows", "sum")
    node("ReduceL2", "sum", "sum_length", axes=[1])
    node("Div", "sum sum_length", "fused")
    node("MatMul", "fused into", "r0")
    node("Add", "r0 into_bias", "r1")
    node("Tanh", "r1", "r2")
    node("MatMul", "r2 back", "r3")
    node("Add", "fused r3", "moved")
    node("ReduceL2", "moved", "moved_length", axes=[1])
    node("Div", "moved moved_length", "vector")
    kind = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "attention over pieces",
        [
            kind("pieces", TensorProto.FLOAT, ["n", 384]),
            kind("tokens", TensorProto.FLOAT, ["n", 1]),
        ],
        [kind("vector", TensorProto.FLOAT, [1, 384])],
        [
            numpy_helper.from_array(np.ascontiguousarray(each), name)
            for name, each in constants.items()
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Teach three heads, tell how each finds documents, and write the whole one."""
    torch.set_num_threads(1)
    found = read(Path(sys.argv[1]))
    for name, rows in found.items():
        groups = sorted({row.group for row in rows})
        pieces = sum(len(row.pieces) for row in rows)
        queries = sum(len(row.queries) for row in rows)
        print(f"{name}: {len(rows)} documents, {pieces} pieces, {queries} queries of {groups}")
    heads = {
        f"{name}, seed {seed}": (settings, seed)
        for name, settings, seeds in (
            ("attention", {"step": False}, (0,)),
            ("mean and step", {"attend": False}, (0,)),
            ("attention and step", {}, (0, 1, 2)),
        )
        for seed in seeds
    }
    taught: dict[str, Head] = {}
    for name, (settings, seed) in heads.items():
        torch.manual_seed(seed)
        taught[name] = teach(Head(**settings), found["train"], found["val"], seed)
    for name in ("val", "test"):
        rows = found[name]
        mean = reciprocal(unit([row.pieces.mean(0) for row in rows]), rows)
        weighed = [(row.pieces * row.tokens[:, None]).sum(0) for row in rows]
        print(name)
        report("first piece", reciprocal(unit([row.pieces[0] for row in rows]), rows), mean)
        report("mean", mean, mean)
        report("mean by length", reciprocal(unit(weighed), rows), mean)
        for label, head in taught.items():
            report(label, reciprocal(vectors(head, rows), rows), mean)
    whole = [head for name, head in taught.items() if name.startswith("attention and step")]
    chosen = found["val"]
    best = max(
        whole, key=lambda head: np.concatenate(reciprocal(vectors(head, chosen), chosen)).mean()
    )
    onnx.save(graph(best), sys.argv[2])


if __name__ == "__main__":
    main()
