"""How were the models trained? (Developers only: scripts/models python train.py, with espeak-ng.)

Some minutes on a processor. Words are kept as mels and mixed with noise, moved, cut off and given
other throats anew for each step: mels of sounds that sound together all but add. Validation and
test hear sounds that prepare.onnx made mels of, each once. What is chosen is chosen on the
validation voices, and judged once on the test's.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from graphs import HOP, MELS, SIZE, filters
from network import Answer, Words, student, teacher
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from voices import LABELS, SEED, Espeak, Said, split, spoken

HERE = Path(__file__).parent
WINDOW, TIMES = 19_200, 117
OTHER, SILENCE = len(LABELS) - 2, len(LABELS) - 1
BATCH, SHARE_SILENT, SHARE_CUT = 256, 0.05, 0.08
STEPS = {"teacher": 1500, "plain": 1800, "distilled": 1800}
EVERY = 150
"""Steps from one look at the validation voices to the next."""

Floats = NDArray[np.float32]


def noise(generator: np.random.Generator, size: int, steepest: float) -> NDArray[np.float64]:
    """Return noise of power 1 that falls off with the frequency."""
    white = np.fft.rfft(generator.normal(size=size))
    made = np.fft.irfft(white / np.arange(1, size // 2 + 2) ** generator.uniform(0, steepest))
    return made / made.std()


def heard(said: list[Said], seed: int) -> tuple[Tensor, Tensor]:
    """Return each word as it will be asked about: in noise, anywhere in a window; and no words."""
    graph = ort.InferenceSession(str(HERE / "prepare.onnx"))
    generator = np.random.default_rng(seed)
    mels, labels = [], []
    for word in [*said, *[Said(SILENCE, "", np.zeros(0, np.int16))] * (len(said) // 20)]:
        sound = word.sound / 32768
        window = np.zeros(WINDOW)
        place = int(generator.integers(0, WINDOW - len(sound) + 1))
        window[place : place + len(sound)] = sound
        level = np.sqrt((sound**2).mean()) if len(sound) else 0.1
        window += noise(generator, WINDOW, 0.8) * level * 10 ** (-generator.uniform(3, 50) / 20)
        feed = {"samples": (window * 10 ** generator.uniform(-1, 0)).astype(np.float32)}
        mels.append(graph.run(None, feed)[0][0])
        labels.append(word.label)
    return torch.from_numpy(np.stack(mels)), torch.tensor(labels)


def energies(sound: NDArray[np.float64], banks: Floats) -> Floats:
    """Return a sound's mels before their logarithm, [40, times], as prepare.onnx has them."""
    window = np.zeros(SIZE)
    window[56:456] = np.hanning(401)[:400]
    frames = np.lib.stride_tricks.sliding_window_view(sound, SIZE)[::HOP] * window
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    return np.asarray((power @ banks).T, np.float32)


class Mixer:
    """Gives words of the training voices as they might sound elsewhere."""

    def __init__(self, said: list[Said], seed: int) -> None:
        generator = np.random.default_rng(seed)
        banks = filters().astype(np.float32)
        self.labels = torch.tensor([word.label for word in said])
        self.loud = torch.tensor([float(((w.sound / 32768) ** 2).mean()) for w in said])
        self.long = torch.tensor([len(word.sound) for word in said])
        self.words = torch.zeros(len(said), MELS, TIMES, dtype=torch.float16)
        for number, word in enumerate(said):
            sound = np.concatenate([np.zeros(SIZE), word.sound / 32768, np.zeros(SIZE)])
            made = energies(sound, banks)[:, :TIMES]
            # Halves hold the logarithm well, and the number badly.
            self.words[number, :, : made.shape[1]] = torch.from_numpy(np.log(made + 1e-9))
            self.words[number, :, made.shape[1] :] = float(np.log(1e-9))
        made = [energies(noise(generator, WINDOW, 1.5), banks) for _ in range(400)]
        self.noises = torch.from_numpy(np.stack([each[:, :TIMES] for each in made]))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return mels [n, 40, 117] and labels."""
        rows = torch.randint(len(self.labels), (BATCH,))
        labels = self.labels[rows].clone()
        words = self.words[rows].float().exp()
        # Other throats: all frequencies a little higher or lower.
        places = torch.arange(MELS).float()
        bent = (places * (1 + 0.12 * (2 * torch.rand(BATCH, 1) - 1))).clamp(0, MELS - 1)
        low = bent.floor().long().clamp(max=MELS - 2)
        part = (bent - low)[:, :, None]
        index = low[:, :, None].expand(-1, -1, TIMES)
        words = words.gather(1, index) * (1 - part) + words.gather(1, index + 1) * part
        # And another room: some frequencies louder than others.
        tilt = torch.randn(BATCH, 1, 1) * (places[None, :, None] / MELS - 0.5) * 1.2
        words = words * (tilt + torch.randn(BATCH, MELS, 1) * 0.25).exp()
        # Anywhere in the window; or half outside, and then it is no word.
        frames = 3 + self.long[rows] // HOP
        room = (TIMES - frames).clamp(min=1)
        shift = (torch.rand(BATCH) * room).long() - 2
        cut = torch.rand(BATCH) < SHARE_CUT
        out = (frames * (0.5 + 0.35 * torch.rand(BATCH))).long()
        side = torch.rand(BATCH) < 0.5
        shift = torch.where(cut, torch.where(side, -out, TIMES - frames + out), shift)
        labels[cut] = OTHER
        times = torch.arange(TIMES)[None] - shift[:, None]
        inside = (times >= 0) & (times < TIMES)
        moved = times.clamp(0, TIMES - 1)[:, None].expand(-1, MELS, -1)
        words = words.gather(2, moved) * inside[:, None]
        noises = self.noises[torch.randint(len(self.noises), (BATCH,))]
        # Noise that comes and goes, too.
        waves = torch.rand(BATCH, 1, 1) * torch.sin(
            torch.arange(TIMES) * torch.rand(BATCH, 1, 1) * 0.3 + 6.3 * torch.rand(BATCH, 1, 1)
        )
        noises = noises * (1 + waves)
        silent = torch.rand(BATCH) < SHARE_SILENT
        labels[silent] = SILENCE
        level = self.loud[rows] * 10 ** (-(3 + 47 * torch.rand(BATCH)) / 10)
        level[silent] = 1.0
        kept = (~silent).float()
        made = words * kept[:, None, None] + noises * level[:, None, None]
        # prepare.onnx makes every window equally loud.
        power = kept * self.loud[rows] * (self.long[rows] / WINDOW).clamp(max=1) + level
        mels = (made * (0.01 / power)[:, None, None] + 1e-3).log()
        empty = silent & (torch.rand(BATCH) < 0.2)
        mels[empty] = float(np.log(1e-3))
        for axis, most in ((1, 6), (2, 15)):
            width = torch.randint(0, most, (BATCH, 1))
            first = (torch.rand(BATCH, 1) * (mels.shape[axis] - width)).long()
            at = torch.arange(mels.shape[axis])[None]
            gone = (at >= first) & (at < first + width)
            mels = mels.masked_fill(gone[:, :, None] if axis == 1 else gone[:, None], 1.0)
        return mels, labels


def fit(
    name: str,
    model: Words,
    mixer: Mixer,
    judged: tuple[Tensor, Tensor],
    kept: Path,
    master: Words | None = None,
) -> tuple[Words, float]:
    """Train, by a teacher or without; return what was best on validation. What is kept goes on."""
    total = STEPS[name]
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3, weight_decay=1e-2)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=total, pct_start=0.15)
    best, chosen, done = 0.0, copy.deepcopy(model.state_dict()), 0
    file = kept / f"{name}.pt"
    if file.is_file():
        found = torch.load(file)
        model.load_state_dict(found["model"])
        optimiser.load_state_dict(found["optimiser"])
        pace.load_state_dict(found["pace"])
        best, chosen, done = found["best"], found["chosen"], found["done"]
    torch.manual_seed(SEED + done)
    while done < total:
        model.train()
        mels, labels = mixer.batch()
        logits = model(mels)
        loss = functional.cross_entropy(logits, labels, label_smoothing=0.05)
        if master is not None:
            with torch.no_grad():
                soft = functional.log_softmax(master(mels) / 2, 1)
            mine = functional.log_softmax(logits / 2, 1)
            told = functional.kl_div(mine, soft, reduction="batchmean", log_target=True)
            loss = 0.3 * loss + 2.8 * told
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pace.step()
        done += 1
        if done % EVERY == 0 or done == total:
            score = right(model, judged)
            print(f"  {name} {done}: {loss.item():.3f}, {score:.4f}", flush=True)
            if score >= best:
                best, chosen = score, copy.deepcopy(model.state_dict())
            torch.save(
                {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "pace": pace.state_dict(),
                    "best": best,
                    "chosen": chosen,
                    "done": done,
                },
                file,
            )
    model.load_state_dict(chosen)
    return model.eval(), best


@torch.no_grad()
def told(model: Words, mels: Tensor) -> Tensor:
    """Return the labels that a model gives."""
    model.eval()
    return torch.cat([model(part).argmax(1) for part in mels.split(512)])


def right(model: Words, part: tuple[Tensor, Tensor]) -> float:
    """Return the share of windows whose label is right."""
    return float((told(model, part[0]) == part[1]).float().mean())


def judge(model: Words, part: tuple[Tensor, Tensor]) -> list[float]:
    """Return the share that is right, and its 95 % interval."""
    hits = (told(model, part[0]) == part[1]).numpy()
    picks = np.random.default_rng(0).integers(0, len(hits), (2000, len(hits)))
    return [float(hits.mean()), *map(float, np.quantile(hits[picks].mean(1), (0.025, 0.975)))]


def save(model: Words, name: str) -> None:
    """Export to ONNX, with open number of windows."""
    torch.onnx.export(
        Answer(model).eval(),
        (torch.zeros(2, MELS, TIMES),),
        HERE / name,
        input_names=["mels"],
        output_names=["scores"],
        dynamic_shapes={"mels": {0: torch.export.Dim("w", min=1, max=100_000)}},
        opset_version=20,
        external_data=False,
    )


def main(kept: Path) -> None:
    """Speak, train, choose, judge, save; what is done is kept in a folder and not done again."""
    begun = time.time()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    espeak = Espeak()
    parts = split(espeak.variants)
    file = kept / "heard.pt"
    if not file.is_file():
        judged = {}
        for number, part in enumerate(("validation", "test"), 1):
            said = list(spoken(espeak, parts[part], SEED + number))
            judged[part] = heard(said, SEED + number)
        words = [
            word
            for turn in range(2)
            for word in spoken(espeak, parts["train"], SEED + 10 * turn, (0, 100))
        ]
        torch.save((judged, Mixer(words, SEED).__dict__), file)
    judged, mixed = torch.load(file)
    mixer = object.__new__(Mixer)
    mixer.__dict__.update(mixed)
    print(len(mixer.labels), "words to train,", {k: len(v[1]) for k, v in judged.items()})
    scores: dict[str, dict[str, object]] = {}
    models: dict[str, Words] = {}
    for name in STEPS:
        made = teacher() if name == "teacher" else student()
        master = models["teacher"] if name == "distilled" else None
        models[name], best = fit(name, made, mixer, judged["validation"], kept, master)
        scores[name] = {
            "validation": best,
            "parameters": sum(each.numel() for each in made.parameters()),
        }
        print(name, scores[name], f"{time.time() - begun:.0f} s", flush=True)
    # On a tie the simpler way.
    chosen = max(("plain", "distilled"), key=lambda name: scores[name]["validation"])
    for name, model in models.items():
        scores[name]["test"] = judge(model, judged["test"])
    print(json.dumps({"shipped": chosen, **scores}, indent=1))
    (HERE / "trained.json").write_text(json.dumps({"shipped": chosen, **scores}, indent=1) + "\n")
    save(models["teacher"], "teacher.onnx")
    save(models[chosen], "student.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
