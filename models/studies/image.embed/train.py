"""Teach a head to lay pictures where text.embed lays what is said of them; judge it once.

    python train.py

Takes what data.py wrote; writes head.fp32.onnx, whose INT8 weights are image.embed's head.onnx.

The backbone and the texts' vectors are frozen. It starts as the zero-shot vector: the mean of the
1000 labels' vectors by their probabilities. The loss is contrastive both ways in batches of 690,
what says the same counting as right; the epoch is the one whose recall@10 both ways and hard
matches are best in sum on validation, looked at every five epochs. Test is looked at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
HIDDEN, WIDTH, EPOCHS, BATCH, RATE, SEED, DRAWS = 512, 384, 30, 690, 1e-3, 0, 2000


class Head(nn.Module):
    """Features and the labels' mean vector to a unit vector."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0) + 0.05)
        self.hidden, self.out = nn.Linear(1280, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.turn = nn.Linear(WIDTH, WIDTH, bias=False)
        self.drop, self.little = nn.Dropout(0.4), nn.Dropout(0.1)
        nn.init.eye_(self.turn.weight)
        nn.init.normal_(self.out.weight, std=0.003)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        x = self.drop((features - self.mean) / self.std)
        x = self.drop(functional.gelu(self.hidden(x)))
        return functional.normalize(self.out(x) + self.turn(self.little(labels)), dim=-1)


def scores(pictures: Tensor, texts: Tensor, negatives: Tensor) -> dict[str, Any]:
    """Return what each row scores."""
    near = pictures @ texts.T
    own = near.diag()
    found = {"match": own > near[torch.arange(len(near)), negatives]}
    for name, rank in (
        ("text of a picture", (near > own[:, None]).sum(1)),
        ("picture of a text", (near > own[None]).sum(0)),
    ):
        found |= {f"{name} @{k}": rank < k for k in (1, 10)}
    return {name: each.double().numpy() for name, each in found.items()}


def onnx_of(head: Head, labels: Tensor) -> onnx.ModelProto:
    """Return the head as a graph of features and probabilities, its norms folded in."""
    state = {name: each.double().numpy() for name, each in head.state_dict().items()}
    shift = state["hidden.bias"] - (state["mean"] / state["std"]) @ state["hidden.weight"].T
    constants = {
        "hidden": (state["hidden.weight"] / state["std"]).T,
        "hidden_bias": shift,
        "out": state["out.weight"].T,
        "out_bias": state["out.bias"],
        "labels": labels.numpy(),
        "turn": state["turn.weight"].T,
        "least": np.array(1e-12),
    }
    line = (
        ("MatMul", "features hidden", "h0"), ("Add", "h0 hidden_bias", "h1"),
        ("Gelu", "h1", "h2"), ("MatMul", "h2 out", "o0"), ("Add", "o0 out_bias", "o1"),
        ("MatMul", "probabilities labels", "l0"), ("ReduceL2", "l0 axis", "l1"),
        ("Div", "l0 l1", "l2"), ("MatMul", "l2 turn", "l3"), ("Add", "o1 l3", "v0"),
        ("ReduceL2", "v0 axis", "v1"), ("Max", "v1 least", "v2"), ("Div", "v0 v2", "embedding"),
    )  # fmt: skip
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, given.split(), [to], name=to) for op, given, to in line],
        "joint-head",
        [value("features", 1, [1, 1280]), value("probabilities", 1, [1, 1000])],
        [value("embedding", 1, [1, WIDTH])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in constants.items()]
        + [numpy_helper.from_array(np.array([-1]), "axis")],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, producer_name="trivium", opset_imports=opsets, ir_version=10)


def main() -> None:
    """Train, choose, judge and write."""
    torch.manual_seed(SEED)
    kept = HERE / "rows.tsv" if (HERE / "rows.tsv").is_file() else HERE / "pairs.tsv"
    rows = [line.split("\t") for line in kept.read_text("utf-8").splitlines()]
    stored = np.load(HERE / "vectors.npz")
    all_ = {name: torch.from_numpy(stored[name].astype(np.float32)) for name in stored.files}
    names = all_.pop("labels")
    places = {row[0]: number for number, row in enumerate(rows)}
    sets: dict[str, dict[str, Tensor]] = {}
    for kind in ("train", "validation", "test"):
        members = [number for number, row in enumerate(rows) if row[1] == kind]
        at = {number: place for place, number in enumerate(members)}
        part = {name: each[members] for name, each in all_.items()}
        part["labels"] = functional.normalize(part["probabilities"] @ names, dim=-1)
        if kind != "train":
            part["negative"] = torch.tensor([at[places[rows[number][3]]] for number in members])
        sets[kind] = part
    train, check, test = sets.values()
    head, scale = Head(train["features"]), nn.Parameter(torch.tensor(3.0))
    optimiser = torch.optim.AdamW([*head.parameters(), scale], lr=RATE, weight_decay=0.05)
    count = len(train["text"])
    steps = EPOCHS * (count // BATCH)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps + 1, pct_start=0.1)
    near = train["text"] @ train["text"].T
    best: tuple[float, int, dict[str, Tensor]] = (0.0, 0, {})
    for epoch in range(EPOCHS):
        head.train()
        order = torch.randperm(count)
        for start in range(0, count - BATCH + 1, BATCH):
            rows_ = order[start : start + BATCH]
            kind = torch.rand(len(rows_), 1)
            said = train["keys"][rows_]
            for bound, name in ((0.85, "mixed"), (0.6, "title"), (0.4, "text")):
                said = torch.where(kind < bound, train[name][rows_], said)
            logits = head(train["features"][rows_], train["labels"][rows_]) @ said.T
            logits = logits * scale.exp().clamp(max=50)
            same = (near[rows_][:, rows_] > 0.95).float()
            wanted = same / same.sum(1, keepdim=True)
            loss = sum(-(wanted * each.log_softmax(1)).sum(1).mean() for each in (logits, logits.T))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
        if epoch % 5 == 4:
            head.eval()
            with torch.no_grad():
                found = scores(
                    head(check["features"], check["labels"]), check["text"], check["negative"]
                )
            total = sum(
                found[n].mean() for n in ("match", "text of a picture @10", "picture of a text @10")
            )
            if total > best[0]:
                best = (
                    total,
                    epoch,
                    {name: each.clone() for name, each in head.state_dict().items()},
                )
    head.load_state_dict(best[2])
    head.eval()
    sizes = count, len(check["text"]), len(test["text"])
    print("{:,} rows taught, {:,} validate, {:,} judge; epoch {}".format(*sizes, best[1]))
    with torch.no_grad():
        after = scores(head(test["features"], test["labels"]), test["text"], test["negative"])
    before = scores(test["labels"], test["text"], test["negative"])
    picks = np.random.default_rng(0).integers(0, len(test["text"]), (DRAWS, len(test["text"])))
    for name, each in after.items():
        gain = each - before[name]
        low, high = np.quantile(gain[picks].mean(1), (0.025, 0.975))
        means = before[name].mean(), each.mean(), gain.mean()
        said = "{}: {:.4f} to {:.4f}, gain {:.4f} ({:.4f} to {:.4f})"
        print(said.format(name, *means, low, high))
    onnx.save(onnx_of(head, names), HERE / "head.fp32.onnx")


if __name__ == "__main__":
    sys.exit(main())
