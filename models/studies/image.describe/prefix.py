"""Does a language model that was shown pictures describe them better than a composed sentence?

    scripts/models python prefix.py VECTORS GGUF ZOO MINUTES

VECTORS is what models/studies/image.embed/data.py wrote, GGUF text.generate's source, ZOO where
image.embed, image.classify and image.detect are built. Needs transformers and WordNet.

EfficientNet-Lite0's features and probabilities become four embeddings that stand before "A picture
of" in SmolLM2-135M, which is frozen. The projection starts as the mean embedding of ImageNet's
labels by their probabilities, is taught to say the titles of image.embed's training drawings, and
is kept where it is best on the validation's; greedy, 10 tokens at most. Composed and written
sentences are judged by the same rule, once: nouns of the sentence against nouns of what is said of
the picture, on the stamps that image.describe's gate looks at and on 400 test drawings.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from trivium.contract import Blob, Tier
from trivium.hosts.server.host import ServerHost
from trivium.hosts.server.media import pixels
from trivium_models.gguf import Gguf, tokenizer, unpack
from trivium_models.others import Others

HERE = Path(__file__).parent
FUNCTION = HERE.parents[1] / "functions" / "image.describe"
sys.path.insert(0, str(FUNCTION))
from held_out import Judge, choosing, stamps  # noqa: E402

COUNT, HIDDEN, BATCH, RATE, SEED, LONGEST = 4, 256, 24, 3e-3, 0, 10
START, END = "A picture of", 0

Rows = list[tuple[str, str]]


def llama(data: bytes) -> nn.Module:
    """Return the language model, frozen, with its weights as text.generate's full one has them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    held = Gguf(data)
    facts = {name.removeprefix("llama."): value for name, value in held.facts.items()}
    heads, kept = facts["attention.head_count"], facts["attention.head_count_kv"]
    config = LlamaConfig(
        vocab_size=held.tensors["token_embd.weight"].shape[0],
        hidden_size=facts["embedding_length"],
        intermediate_size=facts["feed_forward_length"],
        num_hidden_layers=facts["block_count"],
        num_attention_heads=heads,
        num_key_value_heads=kept,
        rms_norm_eps=facts["attention.layer_norm_rms_epsilon"],
        rope_theta=facts["rope.freq_base"],
        tie_word_embeddings=True,
    )
    parts = {
        "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    state = {}
    for name, (layout, shape, offset, size) in held.tensors.items():
        raw = data[offset : offset + size]
        if layout == "f32":
            array = np.frombuffer(raw, np.float32).reshape(shape)
        elif layout == "q4_1":
            array = unpack("q4_1.values", raw, shape[::-1]).T
        else:
            array = unpack("q8_0.values", raw, shape)
        own = {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
        }.get(name, "")
        if not own:
            _, layer, part, _ = name.split(".")
            own = f"model.layers.{layer}.{parts[part]}.weight"
            if part in ("attn_q", "attn_k"):
                # GGUF keeps pairs that turn together side by side, transformers half a head apart.
                many = heads if part == "attn_q" else kept
                array = array.reshape(many, -1, 2, shape[1]).swapaxes(1, 2).reshape(shape)
        state[own] = torch.from_numpy(np.ascontiguousarray(array))
    model = LlamaForCausalLM(config)
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.eval().requires_grad_(False)


class Prefix(nn.Module):
    """Features and probabilities to embeddings."""

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("std", features.std(0) + 0.05)
        self.register_buffer("labels", labels)
        self.hidden, self.out = nn.Linear(1280, HIDDEN), nn.Linear(HIDDEN, COUNT * labels.shape[1])
        self.first = nn.Parameter(torch.zeros(COUNT, labels.shape[1]))
        self.scale = nn.Parameter(torch.ones(COUNT, 1))
        self.drop = nn.Dropout(0.2)
        nn.init.normal_(self.out.weight, std=0.003)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        x = functional.gelu(self.hidden(self.drop((features - self.mean) / self.std)))
        made = self.out(self.drop(x)).view(len(x), COUNT, -1)
        return made + self.first + self.scale * (probabilities @ self.labels)[:, None]


class Study:
    """The model, its words, and rows of features, probabilities and texts."""

    def __init__(self, data: bytes) -> None:
        self.words = Tokenizer.from_str(tokenizer(data).decode())
        self.model = llama(data)
        self.table = self.model.get_input_embeddings().weight
        self.start = self.words.encode(START).ids

    def loss(self, prefix: Prefix, features: Tensor, odds: Tensor, texts: list[str]) -> Tensor:
        """Return how unlikely the texts are, a token."""
        ids = [[*self.words.encode(f" {text}.").ids[:LONGEST], END] for text in texts]
        size = max(map(len, ids))
        padded = torch.tensor([each + [END] * (size - len(each)) for each in ids])
        wanted = torch.tensor([each + [-100] * (size - len(each)) for each in ids])
        start = self.table[torch.tensor(self.start)].expand(len(ids), -1, -1)
        given = torch.cat([prefix(features, odds), start, self.table[padded[:, :-1]]], 1)
        logits = self.model(inputs_embeds=given, logits_to_keep=size).logits
        return functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=-100)

    @torch.no_grad()
    def say(self, prefix: Prefix, features: Tensor, odds: Tensor) -> list[str]:
        """Return a sentence for each row."""
        prefix.eval()
        said = []
        start = self.table[torch.tensor(self.start)]
        for part in range(0, len(features), 32):
            rows = slice(part, part + 32)
            made = prefix(features[rows], odds[rows])
            given = torch.cat([made, start.expand(len(made), -1, -1)], 1)
            found: list[list[int]] = [[] for _ in made]
            state = None
            for _ in range(LONGEST):
                told = self.model(inputs_embeds=given, past_key_values=state, use_cache=True)
                state, best = told.past_key_values, told.logits[:, -1].argmax(1)
                for row, token in zip(found, best.tolist(), strict=True):
                    row.append(token)
                given = self.table[best][:, None]
            for row in found:
                kept = row[: row.index(END)] if END in row else row
                said.append(START + self.words.decode(kept).split("\n")[0])
        return said


def looked(paths: list[Path], zoo: Path) -> tuple[Tensor, Tensor]:
    """Return features and probabilities of pictures."""
    folder = zoo / "image.embed"
    prepare, backbone = (
        ort.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
        for name in ("prepare.onnx", "backbone.fp32.onnx")
    )
    names = [each.name for each in backbone.get_outputs()]
    rows = []
    for path in paths:
        tensor = pixels(Blob(media=f"image/{path.suffix[1:]}", data=path.read_bytes()))
        array = np.frombuffer(tensor.data, np.uint8).reshape(tensor.shape)
        image = prepare.run(None, {prepare.get_inputs()[0].name: array})[0]
        made = backbone.run(None, {backbone.get_inputs()[0].name: image})
        rows.append(dict(zip(names, made, strict=True)))
    return tuple(
        torch.from_numpy(np.concatenate([row[name] for row in rows]))
        for name in ("features", "probabilities")
    )  # type: ignore[return-value] # two


def composed(paths: list[Path], zoo: Path) -> list[str]:
    """Return image.describe's sentences, as the cloud says them."""

    async def ask() -> list[str]:
        host = ServerHost()
        others = Others(zoo, Tier.CLOUD, host)
        said = []
        for path in paths:
            blob = Blob(media=f"image/{path.suffix[1:]}", data=path.read_bytes())
            said.append((await others("image.describe", image=blob)).text)
        host.close()
        return said

    return asyncio.run(ask())


def judged(said: list[str], true: list[list[str]], judge: Judge) -> NDArray[np.float64]:
    """Return for each row its nouns said, those that are right, the true ones and those found."""
    rows = []
    for sentence, nouns in zip(said, true, strict=True):
        names = judge.nouns(sentence)
        right = sum(any(judge.right(name, noun) for noun in nouns) for name in names)
        found = sum(any(judge.right(name, noun) for name in names) for noun in nouns)
        rows.append((len(names), right, len(nouns), found))
    return np.array(rows, float)


def scores(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return precision, recall and F1 over all rows."""
    said, right, true, found = rows.sum(-2).T
    precision, recall = right / np.maximum(said, 1), found / true
    return np.stack(
        [precision, recall, 2 * precision * recall / np.maximum(precision + recall, 1e-9)]
    )


def report(name: str, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Print both ways' scores, and the paired difference, with 95 % intervals."""
    picks = np.random.default_rng(SEED).integers(0, len(one), (2000, len(one)))
    for who, rows, resampled in (
        ("composed", scores(one), scores(one[picks])),
        ("written", scores(other), scores(other[picks])),
        (
            "written less composed",
            scores(other) - scores(one),
            scores(other[picks]) - scores(one[picks]),
        ),
    ):
        low, high = np.quantile(resampled, (0.025, 0.975), axis=1)
        said = ", ".join(
            f"{what} {rows[i]:.3f} ({low[i]:.3f} to {high[i]:.3f})"
            for i, what in enumerate(("precision", "recall", "F1"))
        )
        print(f"{name} ({len(one)}), {who}: {said}", flush=True)


def main(vectors: Path, source: Path, zoo: Path, minutes: float) -> None:
    """Teach for so many minutes, choose, and judge both once."""
    torch.manual_seed(SEED)
    random.seed(SEED)
    torch.set_num_threads(1)
    study = Study(source.read_bytes())
    lines = (HERE.parent / "image.embed" / "pairs.tsv").read_text("utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    stored = np.load(vectors)
    features, odds = (
        torch.from_numpy(stored[name].astype(np.float32)) for name in ("features", "probabilities")
    )
    parts = {
        part: [number for number, row in enumerate(pairs) if row[1] == part]
        for part in ("train", "validation", "test")
    }
    names = (zoo / "image.classify" / "labels.txt").read_text("utf-8").splitlines()
    labels = torch.stack(
        [study.table[study.words.encode(f" {name}").ids].mean(0) for name in names]
    )
    prefix = Prefix(features[parts["train"]], labels)
    optimiser = torch.optim.AdamW(prefix.parameters(), RATE, weight_decay=0.05)
    texts = [row[2].split(":")[0] for row in pairs]
    check = parts["validation"][::4]

    @torch.no_grad()
    def missed() -> float:
        prefix.eval()
        found = [
            study.loss(prefix, features[rows], odds[rows], [texts[i] for i in rows]).item()
            for rows in (check[start : start + 50] for start in range(0, len(check), 50))
        ]
        return sum(found) / len(found)

    best, kept = missed(), copy.deepcopy(prefix.state_dict())
    print(f"untaught: {best:.3f}", flush=True)
    begun, step, order = time.monotonic(), 0, []
    while (used := (time.monotonic() - begun) / 60) < minutes:
        if len(order) < BATCH:
            order = random.sample(parts["train"], len(parts["train"]))
        rows, order = order[:BATCH], order[BATCH:]
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * max(0.02, 1 - used / minutes)
        prefix.train()
        loss = study.loss(prefix, features[rows], odds[rows], [texts[i] for i in rows])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(prefix.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 40 == 0:
            now = missed()
            print(f"{step} steps, {used:.1f} min: {loss.item():.3f}, {now:.3f}", flush=True)
            if now < best:
                best, kept = now, copy.deepcopy(prefix.state_dict())
            torch.save({"prefix": kept, "best": best, "step": step}, HERE / "prefix.pt")
    if (now := missed()) < best:
        best, kept = now, copy.deepcopy(prefix.state_dict())
    prefix.load_state_dict(kept)
    print(f"{step} steps, {step * BATCH / len(parts['train']):.1f} epochs: {best:.3f}", flush=True)
    judge = Judge(Path("/usr/share/wordnet"))
    held = [(p, judge.nouns(line)) for p, line in stamps() if not choosing(line)]
    held = [(path, nouns) for path, nouns in held if nouns]
    paths, true = [path for path, _ in held], [nouns for _, nouns in held]
    said = composed(paths, zoo), study.say(prefix, *looked(paths, zoo))
    report("stamps", *(judged(each, true, judge) for each in said))
    gallery = HERE.parents[1] / "functions" / "image.embed"
    shown = [json.loads(line) for line in (gallery / "held-out.jsonl").read_text().splitlines()]
    tests = [parts["test"][row["output"]] for row in shown]
    nouns = [judge.nouns(pairs[number][2]) for number in tests]
    rows = [number for number, each in enumerate(nouns) if each]
    tests, true = [tests[i] for i in rows], [nouns[i] for i in rows]
    drawings = [gallery / shown[i]["inputs"]["image"] for i in rows]
    written = study.say(prefix, features[tests], odds[tests])
    made = composed(drawings, zoo)
    report("drawings", judged(made, true, judge), judged(written, true, judge))
    for path, one, other in [*zip(paths, *said, strict=True)][::24]:
        print(path.name, "|", one, "|", other)
    for number, one, other in [*zip(tests, made, written, strict=True)][::40]:
        print(texts[number], "|", one, "|", other)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
