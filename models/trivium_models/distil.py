"""How does a small torch module learn to answer as a large model does?

The large model answers every row once; its answers are kept on disk by their content. Training is
a plain loop with a fixed seed: on one machine the same rows give the same module, also when it
was interrupted and went on.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from trivium.errors import BundleError

if TYPE_CHECKING:
    from torch import Tensor, nn

Say = Callable[[str], None]
Floats = NDArray[np.float32]
Collate = Callable[[Sequence[str]], "dict[str, Tensor]"]

SHARD = 4096  # rows whose answers share a file
POOL = 32  # batches whose rows are sorted by length before they are parted
FEWEST, MOST = 8, 1024  # rows that validation takes


class Distil(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Train a module to answer as `teacher`, on the lines of `data` (or a folder's photos).

    `cosine` and `mse` are for vectors, `kl` is for probabilities. One row in twenty is for
    validation: the best module on those is kept, so measure the result on other rows. Every
    `every` steps the way so far is kept. `bfloat16` halves the time where the CPU has it; weights,
    and the module, stay in float32.
    """

    teacher: str
    data: str
    loss: Literal["cosine", "kl", "mse"] = "cosine"
    steps: Annotated[int, Meta(ge=1)] = 1500
    batch: Annotated[int, Meta(ge=1)] = 64
    rate: Annotated[float, Meta(gt=0)] = 3e-4
    seed: int = 0
    every: Annotated[int, Meta(ge=1)] = 250
    precision: Literal["float32", "bfloat16"] = "float32"


class Distilled(msgspec.Struct, frozen=True, kw_only=True):
    """How training went: the loss on validation rows before it and at its best."""

    rows: int
    before: float
    best: float
    at: int

    def __str__(self) -> str:
        return (
            f"validation loss {self.before:.5f} → {self.best:.5f} at step {self.at}, "
            f"{self.rows:,} rows"
        )


def distil(
    student: nn.Module,
    teacher: Path,
    rows: Sequence[str],
    collate: Collate,
    step: Distil,
    work: Path,
    say: Say,
) -> Distilled:
    """Train a module in place; `work` keeps the teacher's answers and the way so far."""
    import torch

    held = min(max(FEWEST, len(rows) // 20), MOST)
    if len(rows) < held + step.batch:
        raise BundleError(
            f"{step.data} has {len(rows)} rows: distilling in batches of {step.batch} needs at "
            f"least {held + step.batch}, {held} of them for validation."
        )
    work.mkdir(parents=True, exist_ok=True)
    mixed = np.random.default_rng(step.seed).permutation(len(rows)).tolist()
    rows = [rows[place] for place in mixed]
    answers = ask(teacher, rows, collate, step, work, say)
    train, test = range(held, len(rows)), range(held)
    learning = [weight for weight in student.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(learning, lr=step.rate, weight_decay=0.01)
    torch.manual_seed(step.seed)
    path = work / f"distil-{identity(student, step, rows, answers)}.pt"
    score = validate(student, rows, answers, test, collate, step)
    way: dict[str, Any] = {"step": 0, "before": score, "best": score, "at": 0}
    best = copied(student)
    if path.is_file():
        kept = torch.load(path, weights_only=True)
        way, best = kept["way"], kept["best"]
        student.load_state_dict(kept["student"])
        optimiser.load_state_dict(kept["optimiser"])
        torch.set_rng_state(kept["random"])
        say(f"going on at step {way['step']} of {step.steps}")
    bar = progress(step.steps, way["step"])
    for number in range(way["step"], step.steps):
        student.train()
        picked = batch(train, rows, step, number)
        given = collate([rows[each] for each in picked])
        with torch.autocast("cpu", torch.bfloat16, enabled=step.precision == "bfloat16"):
            found = student(**given)
        loss = compare(found, answers, picked, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = step.rate * pace(number, step.steps)
        optimiser.step()
        bar(loss.item())
        if (number + 1) % step.every == 0 or number + 1 == step.steps:
            score = validate(student, rows, answers, test, collate, step)
            say(f"step {number + 1} of {step.steps}: validation loss {score:.5f}")
            way["step"] = number + 1
            if score < way["best"]:
                way["best"], way["at"] = score, number + 1
                best = copied(student)
            save(path, way, best, student, optimiser)
    student.load_state_dict(best)
    return Distilled(rows=len(train), before=way["before"], best=way["best"], at=way["at"])


def ask(
    teacher: Path, rows: Sequence[str], collate: Collate, step: Distil, work: Path, say: Say
) -> Floats:
    """Return the teacher's first output for each row, from disk where it answered before."""
    import onnxruntime as ort
    import torch

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(teacher, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    fixed = session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) else step.batch
    with teacher.open("rb") as file:
        model = hashlib.file_digest(file, "sha256").digest()

    def answer(part: Sequence[str]) -> Floats:
        order = sorted(range(len(part)), key=lambda place: len(part[place]))
        found: list[Any] = [None] * len(part)
        for start in range(0, len(order), size):
            places = order[start : start + size]
            given = collate([part[place] for place in places])
            if absent := set(names) - given.keys():
                raise BundleError(
                    f"{step.teacher} takes {', '.join(names)}; the module's inputs have no "
                    f"{', '.join(sorted(absent))}."
                )
            feed = {name: given[name].numpy() for name in names}
            for place, row in zip(places, session.run(None, feed)[0], strict=True):
                found[place] = row
        return np.stack(found).astype(np.float32)

    shards = []
    sample = {name: value.numpy() for name, value in collate(rows[:2]).items()}
    seen = b"".join(name.encode() + sample[name].tobytes() for name in sorted(sample))
    for start in range(0, len(rows), SHARD):
        part = rows[start : start + SHARD]
        key = hashlib.sha256(msgspec.msgpack.encode([model, seen, part])).hexdigest()[:24]
        path = work / f"answers-{key}.npy"
        if not path.is_file():
            say(f"asking {step.teacher} about rows {start + 1:,} to {start + len(part):,}")
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with partial.open("wb") as written:
                np.save(written, answer(part))
            os.replace(partial, path)
        shards.append(np.load(path))
    return np.concatenate(shards)


def batch(train: range, rows: Sequence[str], step: Distil, number: int) -> list[int]:
    """Return the rows of a step: each once an epoch, those of like length together."""
    size = min(POOL * step.batch, len(train) // step.batch * step.batch)
    pools = len(train) // size
    epoch, place = divmod(number, pools * (size // step.batch))
    mixed = np.random.default_rng((step.seed, epoch)).permutation(len(train))
    pool, turn = divmod(place, size // step.batch)
    chosen = sorted(
        (train[each] for each in mixed[pool * size : (pool + 1) * size].tolist()),
        key=lambda each: (len(rows[each]), each),
    )
    order = np.random.default_rng((step.seed, epoch, pool)).permutation(size // step.batch)
    start = int(order[turn]) * step.batch
    return chosen[start : start + step.batch]


def compare(given: Any, answers: Floats, picked: Sequence[int], step: Distil) -> Tensor:
    """Return the loss of a module's first output against the teacher's answers."""
    import torch
    from torch.nn import functional

    ours: Tensor = given
    if not isinstance(given, torch.Tensor):
        ours = next(iter(given.values() if isinstance(given, Mapping) else given))
    ours = ours.float()
    theirs = torch.from_numpy(answers[list(picked)])
    if ours.shape != theirs.shape:
        raise BundleError(
            f"The module gives {list(ours.shape)} for a batch where {step.teacher} gives "
            f"{list(theirs.shape)}: a student's outputs have its teacher's shape."
        )
    if step.loss == "cosine":
        return (1 - functional.cosine_similarity(ours.flatten(1), theirs.flatten(1))).mean()
    if step.loss == "mse":
        return functional.mse_loss(ours, theirs)
    return functional.kl_div(ours.clamp_min(1e-8).log(), theirs, reduction="batchmean")


def validate(
    student: nn.Module,
    rows: Sequence[str],
    answers: Floats,
    test: range,
    collate: Collate,
    step: Distil,
) -> float:
    """Return the loss on the rows that training does not see."""
    import torch

    student.eval()
    order = sorted(test, key=lambda each: (len(rows[each]), each))
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(order), step.batch):
            picked = order[start : start + step.batch]
            given = student(**collate([rows[each] for each in picked]))
            total += compare(given, answers, picked, step).item() * len(picked)
    return total / len(order)


def pace(number: int, steps: int) -> float:
    """Return the share of the learning rate: up for a tenth of the steps, then down a cosine."""
    warm = max(1, steps // 10)
    if number < warm:
        return (number + 1) / warm
    return (1 + math.cos(math.pi * (number - warm) / max(1, steps - warm))) / 2


def identity(student: nn.Module, step: Distil, rows: Sequence[str], answers: Floats) -> str:
    """Return what names this training and no other."""
    found = hashlib.sha256(msgspec.msgpack.encode([step, rows]))
    found.update(answers.tobytes())
    for name, value in student.state_dict().items():
        found.update(name.encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()[:24]


def copied(student: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's weights."""
    return {name: value.detach().clone() for name, value in student.state_dict().items()}


def save(
    path: Path,
    way: Mapping[str, Any],
    best: Mapping[str, Tensor],
    student: nn.Module,
    optimiser: Any,
) -> None:
    """Write the way so far, whole or not at all."""
    import torch

    partial = path.with_suffix(f".{os.getpid()}.partial")
    kept = {
        "way": dict(way),
        "best": dict(best),
        "student": student.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(kept, partial)
    os.replace(partial, path)


def progress(steps: int, done: int) -> Callable[[float], None]:
    """Return what shows a step's loss: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        return lambda _: None
    from tqdm import tqdm

    bar = tqdm(total=steps, initial=done, unit="step")

    def show(loss: float) -> None:
        bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        bar.update()
        if bar.n == steps:
            bar.close()

    return show
