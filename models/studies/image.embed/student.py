"""Make image.embed's student: the teacher's trunk as it is, and half of what follows it in 4 bits.

    scripts/models python models/studies/image.embed/student.py WHEEL [STEPS [SAMPLE]]

WHEEL is EfficientNet-Lite0's; the rest is what data.py, views.py and evaluate.py wrote. Writes
behind.onnx, what stands behind the trunk, and student.onnx, both as one. A smaller setting is fewer
STEPS and a smaller SAMPLE.

First without any training: of each block's channels those stay without which the teacher's sums
are met worst (optimal brain surgeon, in rounds), and what reads them is solved anew by least
squares, for what the smaller block before really gives. The head is solved in the same way; of the
teacher's thousand labels those that say and look alike become one of 470 kinds. Then all of it
learns, its weights rounded as they will be (each channel's scale is learnt, too), in steps of 64
views and bfloat16, of which a moving mean is kept. No step sees what another saw: views are turned
over, cut and put into each other as the trunk gives them, and the teacher answers each anew; beside
its vector, its labels', its last features and what its third block gives are learnt. Every 100
steps the way so far is kept, and validation told. Then the head learns on alone, and all of it
once more, half as long.
"""

from __future__ import annotations

import copy
import math
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from evaluate import asked, scores
from network import FEATURES, INTO, SPACE, Rest, full
from numpy.typing import NDArray
from onnx import compose, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from trivium_models.export import from_torch
from trivium_models.quantise import widen

HERE = Path(__file__).parent
WIDE, TOP, HIDDEN, KINDS = (576, 576, 576, 576), 512, 320, 470
SAMPLE, RIDGE, TOP_RIDGE, ROUND = 1200, 1e-3, 1e-2, 10
ROUNDS, LOOKS, HEAD_RIDGE = 20, 0.7, 300  # of the kinds: how often, how much looks count
STEPS, FEW, LATE, AGAIN, MEAN, KEPT, SEED = 2800, 64, 1e-3, 7e-4, 0.995, 100, 0
READ, HEADED = 30000, 2500  # the head's views, and its steps of four times as many
INSIDE, LABELS = 0.1, 0.3  # what the features and the labels count beside the vector
MIXED, LEAST = 0.5, 5  # how often views are mixed, and how small a part may be


Halves = NDArray[np.float16]


class Coarse(nn.Conv2d):
    """A convolution by whole numbers of few bits, with a scale for each channel that it makes."""

    def __init__(
        self, given: int, made: int, size: int = 1, groups: int = 1, bits: int = 4
    ) -> None:
        super().__init__(given, made, size, padding=size // 2, groups=groups)
        self.most = 2 ** (bits - 1) - 1
        self.pace = nn.Parameter(torch.zeros(made, 1, 1, 1))  # the scale's logarithm
        self.rounds = False

    @torch.no_grad()
    def begin(self) -> None:
        """Take the scales that change the weights least."""
        peak = self.weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-8) / self.most
        best, self.rounds = torch.full_like(peak, torch.inf), True
        for share in torch.linspace(0.3, 1, 36):
            whole = (self.weight / (share * peak)).round().clamp(-self.most, self.most)
            off = (whole * share * peak - self.weight).square().sum((1, 2, 3), keepdim=True)
            self.pace.copy_(torch.where(off < best, (share * peak).log(), self.pace))
            best = torch.minimum(off, best)

    def whole(self) -> Tensor:
        """Return the whole numbers; to what learns, they pass for the fractions."""
        steps = (self.weight / self.pace.exp()).clamp(-self.most, self.most)
        return steps + (steps.round() - steps).detach()

    def forward(self, x: Tensor) -> Tensor:
        weight = self.whole() * self.pace.exp() if self.rounds else self.weight
        if self.groups > 1:  # four times as fast as in bfloat16
            with torch.autocast("cpu", enabled=False):
                x = x.float()
                return functional.conv2d(x, weight, self.bias, 1, self.padding, 1, self.groups)
        return functional.conv2d(x, weight, self.bias)


class Small(nn.Module):
    """What the trunk makes of a picture to a unit vector, narrower than the teacher's."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.ModuleList(Coarse(INTO, wide) for wide in WIDE)
        self.look = nn.ModuleList(
            Coarse(wide, wide, width, groups=wide, bits=8)
            for wide, width in zip(WIDE, (5, 5, 5, 3), strict=True)
        )
        # The last one makes the teacher's features at once: nothing stands between both products.
        self.narrow = nn.ModuleList(
            Coarse(wide, out) for wide, out in zip(WIDE, (INTO, INTO, INTO, TOP), strict=True)
        )
        self.hidden, self.out = Coarse(TOP, HIDDEN), Coarse(HIDDEN, SPACE)
        # The teacher's labels, those that say and look like each other as one kind.
        self.choose, self.kinds = Coarse(TOP, KINDS), Coarse(KINDS, SPACE)
        self.turn = nn.Parameter(torch.ones(1))
        self.register_buffer("top", torch.zeros(TOP, dtype=torch.long))  # which of the teacher's

    def seen(self, number: int, x: Tensor) -> Tensor:
        """Return what a block looks at its channels for."""
        return functional.relu6(self.look[number](functional.relu6(self.widen[number](x))))

    def features(self, inside: Tensor) -> Tensor:
        """Return what of the teacher's features it has."""
        return self.parts(inside)[1]

    def parts(self, inside: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the third block gives, the features, the vector, and the kinds'."""
        x = inside
        for number in range(3):
            x = x + self.narrow[number](self.seen(number, x))
        made = functional.relu6(self.narrow[3](self.seen(3, x))).mean((2, 3), keepdim=True)
        return x, made, *self.said(made)

    def said(self, made: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vector that features give, and the kinds' alone."""
        kinds = functional.normalize(self.kinds(self.choose(made).softmax(1)), dim=1)
        found = self.out(functional.gelu(self.hidden(made))) + self.turn * kinds
        return functional.normalize(found.flatten(1), dim=-1), kinds.flatten(1)

    def forward(self, inside: Tensor) -> Tensor:
        return self.parts(inside)[2]


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
    small.top.copy_(top)
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


def grouped(points: Tensor, weights: Tensor) -> Tensor:
    """Return which kind each label is of, by k-means."""
    order = weights.argsort(descending=True)
    means = points[order[:KINDS]]
    for _ in range(ROUNDS):
        kind = torch.cdist(points, means).argmin(1)
        belongs = functional.one_hot(kind, KINDS).T * weights
        total = belongs.sum(1, keepdim=True)
        means = torch.where(total > 0, belongs @ points / total.clamp(min=1e-12), means)
    return kind


def line(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights and bias of the product that makes one of the other best."""
    mean, spread, middle = given.mean(0), given.std(0) + 0.02, wanted.mean(0)
    scaled = (given - mean) / spread
    near = scaled.T @ scaled + HEAD_RIDGE * torch.eye(scaled.shape[1])
    weight = torch.linalg.solve(near, scaled.T @ (wanted - middle)).T / spread
    return weight, middle - weight @ mean


@torch.no_grad()
def head(small: Small, teacher: Rest, made: Tensor, features: Tensor) -> None:
    """Solve the head: what the teacher's makes of its features, of those that are made."""
    logits = teacher.choose(features[..., None, None]).flatten(1)
    share = logits.softmax(1).mean(0) + 1e-5
    says = (teacher.turn.weight.flatten(1) @ teacher.labels.weight.flatten(1)).T
    rows_ = teacher.choose.weight.flatten(1) * features.std(0)
    looks = functional.normalize(rows_ - rows_.mean(0), dim=1)
    points = torch.cat([functional.normalize(says, dim=1), LOOKS * looks], 1)
    kind = grouped(points, share)
    belongs = functional.one_hot(kind, KINDS).T.bool()
    sums = [
        logits[:, each].logsumexp(1) if each.any() else logits.new_full((len(logits),), -9.0)
        for each in belongs
    ]
    fill(small.choose, *shaped(line(made, torch.stack(sums, 1))))
    weighed = belongs * share
    means = weighed @ says / weighed.sum(1, keepdim=True).clamp(min=1e-12)
    fill(small.kinds, means.T[..., None, None], torch.zeros(SPACE))
    small.turn.fill_(teacher.turn(teacher.labelled(features[..., None, None])).norm(dim=1).mean())
    thought = functional.gelu(teacher.hidden(features[..., None, None])).flatten(1)
    out = teacher.out.weight.flatten(1)
    stay = chosen(gram(thought, TOP_RIDGE), out.T, HIDDEN)
    weight, bias = teacher.hidden.weight.flatten(1)[stay], teacher.hidden.bias[stay]
    fill(small.hidden, *shaped(line(made, features @ weight.T + bias)))
    ours = functional.gelu(small.hidden(made[..., None, None])).flatten(1)
    fill(small.out, *shaped(line(ours, thought @ out.T + teacher.out.bias)))


def shaped(found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a product's weights as those of a convolution."""
    return found[0][..., None, None], found[1]


def mixed(inside: Tensor, chance: torch.Generator) -> Tensor:
    """Return views that nobody saw: turned over, a part of them, parts of others put into them."""

    def some(*size: int) -> Tensor:
        return torch.rand(*size, generator=chance)

    def part() -> tuple[slice, slice]:
        sides = [LEAST + int(some(1) * (8 - LEAST)) for _ in range(2)]
        starts = [int(some(1) * (8 - side)) for side in sides]
        down, along = (slice(at, at + side) for at, side in zip(starts, sides, strict=True))
        return down, along

    turn = some(len(inside), 1, 1, 1) < MIXED
    inside = torch.where(turn, inside.flip(3), inside)
    if some(1) < MIXED:
        place = torch.zeros(1, 1, 7, 7, dtype=torch.bool)
        down, along = part()
        if some(1) < MIXED:
            down = slice(0, 7)
        place[:, :, down, along] = True
        put = (some(len(inside), 1, 1, 1) < MIXED) & ~place
        inside = torch.where(put, inside.roll(1, 0), inside)
    if some(1) < MIXED:
        down, along = part()
        inside = inside[:, :, down, along]
    return inside.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def answered(teacher: Rest, inside: Tensor, top: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the teacher's third block gives, its features of those kept, and both vectors."""
    x = teacher.enter(inside)
    for block in teacher.blocks[:3]:
        x = block(x)
    made = functional.relu6(teacher.top(teacher.blocks[3](x))).mean((2, 3), keepdim=True)
    labels = functional.normalize(teacher.turn(teacher.labelled(made)).flatten(1).float(), dim=-1)
    return x.float(), made[:, top].float(), teacher.said(made.float()), labels


def off(found: Tensor, wanted: Tensor) -> Tensor:
    """Return how much of what channels tell apart is missed."""
    aims = wanted.transpose(0, 1).flatten(1)
    missed = (found.float().transpose(0, 1).flatten(1) - aims).square().mean(1)
    return (missed / (aims.var(1) + 1e-3)).mean()


def taught(
    small: Small,
    teacher: Rest,
    inside: Halves,
    steps: int,
    judge: Callable[[Small], str],
    again: bool = False,
) -> Small:
    """Teach all of it; return the moving mean, and go on where it was stopped."""
    late, seed, name = (AGAIN, SEED + 7, "again.pt") if again else (LATE, SEED, "way.pt")
    small = small.to(memory_format=torch.channels_last)
    teacher = teacher.to(memory_format=torch.channels_last)
    for layer in small.modules():
        if isinstance(layer, Coarse) and not layer.rounds:
            layer.begin()
    mean, way = copy.deepcopy(small).eval(), HERE / name
    print(judge(mean), flush=True)
    optimiser = torch.optim.AdamW(small.parameters(), late, weight_decay=0)
    done = 0
    if way.is_file():
        kept = torch.load(way)
        done = kept["step"]
        for part, name in ((small, "small"), (mean, "mean"), (optimiser, "optimiser")):
            part.load_state_dict(kept[name])
    epoch = len(inside) // FEW
    for step in range(done, steps):
        picked = batches(len(inside), FEW, seed + 1000 + step // epoch)[step % epoch]
        chance = torch.Generator().manual_seed(seed + step)
        given = mixed(torch.from_numpy(inside[picked.numpy()].astype(np.float32)), chance)
        for group in optimiser.param_groups:
            fall = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            group["lr"] = late * min(1, (step + 1) / 50) * fall
        with torch.autocast("cpu", torch.bfloat16):
            stream, features, vectors, labels = answered(teacher, given, small.top)
            found = small.parts(given)
        miss = far(found[2], vectors)
        loss = miss + LABELS * far(found[3], labels)
        loss = loss + INSIDE * (off(found[0], stream) + off(found[1], features))
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
            print(f"step {step + 1} of {steps}: {miss.item():.4f}; {judge(mean)}", flush=True)
    return mean


def headed(small: Small, teacher: Rest, inside: Halves, judge: Callable[[Small], str]) -> None:
    """Teach the head alone, which is quick: what it reads is made once."""
    taken = np.sort(np.random.default_rng(SEED + 1).permutation(len(inside))[:READ])
    some, all_ = inside[taken], torch.arange(FEATURES)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = told(lambda x: small.features(x).float(), some)
        vectors = told(lambda x: answered(teacher, x, all_)[2], some)
    ours = [small.hidden, small.out, small.choose, small.kinds]
    learnt = [each for layer in ours for each in layer.parameters()] + [small.turn]
    optimiser = torch.optim.AdamW(learnt, LATE, weight_decay=0)
    for step in range(HEADED):
        picked = torch.randint(
            len(made), (4 * FEW,), generator=torch.Generator().manual_seed(SEED + step)
        )
        for group in optimiser.param_groups:
            fall = 0.5 + 0.5 * math.cos(math.pi * step / HEADED)
            group["lr"] = LATE * min(1, (step + 1) / 50) * fall
        loss = far(small.said(made[picked].float()[..., None, None])[0], vectors[picked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 500 == 0:
            print(f"head {step + 1} of {HEADED}: {loss.item():.4f}; {judge(small)}", flush=True)


def judged(small: Small) -> str:
    """Return how a student does on validation, drawings and photos, beside the teacher."""
    texts, negatives = asked("validation")
    kept = np.load(HERE / "validation.npz")
    with torch.no_grad():
        ours = parted(small, torch.from_numpy(kept["inside"])).numpy()
    found, teacher = (scores(each, texts, negatives) for each in (ours, kept["vectors"]))
    shares = [f"{name} {found[name].mean() / teacher[name].mean():.3f}" for name in found]
    drawn = f"cosine {(ours * kept['vectors']).sum(1).mean():.4f}, of the teacher's "
    return f"{drawn}{', '.join(shares)}; {photographed(small)}"


def photographed(small: Small) -> str:
    """Return how a student does on photos: near its teacher, near the text of what it shows."""
    kept, labels = np.load(HERE / "photos.npz"), np.load(HERE / "vectors.npz")["labels"]
    with torch.no_grad():
        ours = parted(small, torch.from_numpy(kept["inside"])).numpy()
    shown = labels[kept["labels"].argmax(1)].astype(np.float32)
    rows_ = list(range(len(shown)))
    found, teacher = (scores(each, shown, rows_) for each in (ours, kept["vectors"]))
    names = ("text of a picture", "picture of a text")
    shares = " and ".join(f"{found[name].mean() / teacher[name].mean():.3f}" for name in names)
    return f"photos: cosine {(ours * kept['vectors']).sum(1).mean():.4f}, {shares}"


def packed(small: Small, example: Tensor) -> onnx.ModelProto:
    """Return a student as a model that keeps whole numbers in their bits, and their scales."""
    layers = {name: each for name, each in small.named_modules() if isinstance(each, Coarse)}
    kept = {}
    with torch.no_grad():
        for name, layer in layers.items():
            kept[f"{name}.weight"] = layer.whole().numpy().astype(np.int8), layer.pace.exp().numpy()
            layer.weight.copy_(layer.whole() * layer.pace.exp())
            layer.rounds = False
    model = from_torch(small, [{"inside": example}], "student.py", {}, ("embedding",))
    graph, most = model.graph, {f"{name}.weight": each.most for name, each in layers.items()}
    nodes = []
    for item in [each for each in graph.initializer if each.name in kept]:
        whole, scale = kept[item.name]
        graph.initializer.remove(item)
        if most[item.name] == 7:
            low, high = whole.reshape(-1, 2).view(np.uint8).T & 15
            raw = (low | high << 4).tobytes()
            stored = helper.make_tensor(
                f"{item.name}.int4", onnx.TensorProto.INT4, whole.shape, raw, raw=True
            )
        else:
            stored = numpy_helper.from_array(whole, f"{item.name}.int8")
        graph.initializer.append(stored)
        graph.initializer.append(numpy_helper.from_array(scale, f"{item.name}.scale"))
        nodes += widen(stored.name, f"{item.name}.scale", item.name)
    nodes += [onnx.NodeProto.FromString(each.SerializeToString()) for each in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import[0].version = 21  # the first that casts 4 bits
    onnx.checker.check_model(model)
    return model


def joined(trunk: onnx.ModelProto, behind: onnx.ModelProto) -> None:
    """Write the trunk and what stands behind it as one model, its values named shortly."""
    for part in (trunk, behind):
        part.opset_import[0].version, part.ir_version = 21, behind.ir_version
        del part.graph.value_info[:]
    behind = compose.add_prefix(behind, "behind.")
    inside = trunk.graph.output[0].name
    model = compose.merge_models(trunk, behind, [(inside, "behind.inside")])
    names = {"image": "image", "behind.embedding": "embedding"}
    for node in model.graph.node:
        node.name = ""
        for values in (node.input, node.output):
            values[:] = [each and names.setdefault(each, f"v{len(names)}") for each in values]
    for item in (*model.graph.initializer, *model.graph.output):
        item.name = names[item.name]
    model.graph.name, model.producer_name = "model", "trivium"
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    (HERE / "student.onnx").write_bytes(model.SerializeToString(deterministic=True))


def main(wheel: Path, steps: int = STEPS, sample: int = SAMPLE) -> None:
    """Solve, teach and write."""
    torch.manual_seed(SEED)
    with zipfile.ZipFile(wheel) as package:
        teacher = full(package.read).eval().requires_grad_(False)
    inside: Halves = np.load(HERE / "views.npy")
    small, start = Small(), HERE / "start.pt"
    if not start.is_file():
        taken = np.random.default_rng(SEED).permutation(len(inside))
        some = torch.from_numpy(inside[taken[:sample]].astype(np.float32))
        first, all_ = inside[taken[: 5 * sample]], torch.arange(FEATURES)
        features = told(lambda x: answered(teacher, x, all_)[1], first)
        small = begun(teacher, some, features)
        with torch.no_grad():
            made = told(small.features, first)
        head(small, teacher, made, features)
        print(judged(small), flush=True)
        torch.save(small.state_dict(), start)
    small.load_state_dict(torch.load(start))
    small = taught(small, teacher, inside, steps, judged)
    headed(small, teacher, inside, judged)
    small = taught(small, teacher, inside, steps // 2, judged, again=True)
    small = small.to(memory_format=torch.contiguous_format)
    model = packed(small, torch.from_numpy(inside[:1].astype(np.float32)))
    onnx.save(model, HERE / "behind.onnx")
    joined(onnx.load(HERE / "trunk.onnx"), model)


def told(run: Callable[[Tensor], Tensor], inside: Halves) -> Tensor:
    """Return what is made of all views, a row a view."""
    parts = (inside[at : at + 256] for at in range(0, len(inside), 256))
    found = [parted(run, torch.from_numpy(each.astype(np.float32))) for each in parts]
    return torch.cat(found).flatten(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *(int(each) for each in sys.argv[2:]))
