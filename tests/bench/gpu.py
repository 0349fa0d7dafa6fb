"""How quick are the full models on a GPU and on this machine's CPU, in batches, fp32 and fp16?"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

from bench.record import Record
from trivium_models.quantise import Form, quantise
from trivium_models.target import available, time_on

BATCHES = (1, 8, 32)
FORMS: tuple[Form, ...] = ("float32", "float16")
TOKENS = 32
ZOO = Path("models/zoo")


def run() -> Iterator[Record]:
    """Time each full model: milliseconds of a batch, and the MiB that its session added."""
    there = [place for place in ("cuda", "cpu") if place in available()]
    if "cuda" not in there:
        print("gpu: no CUDA here; the CPU alone is timed", file=sys.stderr)
    generator = np.random.default_rng(0)
    with TemporaryDirectory() as place:
        for name in ("text.embed", "image.classify"):
            for form in FORMS:
                graph = Path(place) / f"{name}.{form}.onnx"
                model = batched(quantise(ZOO / name / "model.fp32.onnx", form))
                graph.write_bytes(model.SerializeToString())
                for batch in BATCHES:
                    feed = {
                        "text.embed": {
                            "input_ids": generator.integers(1000, 20000, (batch, TOKENS)),
                            "attention_mask": np.ones((batch, TOKENS), np.int64),
                        },
                        "image.classify": {
                            "image": generator.normal(0, 1, (batch, 3, 224, 224)).astype("float32")
                        },
                    }[name]
                    for target in there:
                        timing = time_on(target, [graph], [feed])
                        key = f"gpu.{target}.{name.replace('.', '_')}.{form}.b{batch}"
                        yield Record(f"{key}_ms", round(timing.ms[1], 2), "ms")
                        yield Record(f"{key}_mb", round(timing.memory_mb), "MiB")


def batched(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of batch 1 as one of any batch."""
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_param = "b"
    return model
