"""What does the bridge between Python and onnxruntime-web cost in Chromium, and wasm itself?"""

from __future__ import annotations

import base64
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import tokenizers
from PIL import Image

from bench.record import Record, percentile
from bench.servers import KEY, SENTENCE, ZOO, free_port
from trivium.contract import Tier
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import FLAGS, browser
from trivium.hosts.server.serve import Process

WARM_S = 3.0
ROUNDS = {"text.embed": 60, "image.classify": 25}

# One ask at a time; each with what onnxruntime itself took, inside the worker.
ASK = """async ([name, inputs, rounds, warm]) => {
  const given = {};
  for (const [key, value] of Object.entries(inputs)) {
    given[key] = typeof value === "string" ? value : new Blob(
      [Uint8Array.from(atob(value.data), (c) => c.charCodeAt(0))], { type: value.media });
  }
  const settings = { tiers: ["page"] };
  const until = performance.now() + warm;
  while (performance.now() < until) await trivium.infer(name, given, settings);
  const found = [];
  for (let i = 0; i < rounds; i++) {
    const before = await trivium.usage();
    const { ms } = await trivium.infer(name, given, settings);
    const after = await trivium.usage();
    found.push({ seen: ms.run, run: after.run - before.run, total: after.total - before.total,
                 tokens: after.tokens - before.tokens, decode: after.decode - before.decode });
  }
  return found;
}"""


def run() -> Iterator[Record]:
    """Ask a sentence and a 12-megapixel photo in the page, beside native onnxruntime."""
    path = browser()
    if path is None:
        print("page: skipped, no chromium was found", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    port = free_port()
    origin = f"http://localhost:{port}"
    settings = {
        "TRIVIUM_EDGE_BUNDLES": str(ZOO),
        "TRIVIUM_EDGE_KEYS": KEY,
        "TRIVIUM_EDGE_ORIGINS": origin,
    }
    with Process(Tier.EDGE, "127.0.0.1", port, settings) as edge, sync_playwright() as playwright:
        edge.wait()
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        page = chromium.new_page()
        page.set_default_timeout(300_000)
        started = time.perf_counter()
        page.goto(origin)
        page.wait_for_function("() => window.trivium")
        page.evaluate("() => window.trivium.ready")
        boot = (time.perf_counter() - started) * 1e3
        yield Record("boot.page_ms", round(boot), "ms", "from navigation until it runs functions")
        for name in ROUNDS:
            page.wait_for_function(
                "(name) => trivium.state.functions[name]?.state === 'ready'", arg=name
            )
        inputs: dict[str, dict[str, Any]] = {
            "text.embed": {"text": SENTENCE},
            "image.classify": {
                "image": {"media": "image/jpeg", "data": base64.b64encode(photo()).decode()}
            },
        }
        for name, rounds in ROUNDS.items():
            heap = page.evaluate("() => trivium.memory()")
            found = page.evaluate(ASK, [name, inputs[name], rounds, WARM_S * 1e3])
            key = name.replace(".", "_")
            inference = percentile([each["run"] for each in found], 0.5)
            bridge = percentile([each["seen"] - each["run"] for each in found], 0.5)
            around = percentile(
                [e["total"] - e["run"] - e["tokens"] - e["decode"] for e in found], 0.5
            )
            peer = f"onnxruntime-web {inference:.2f} ms"
            yield Record(f"bridge.page.{key}_ms", round(bridge, 3), "ms", peer)
            yield Record(f"python.page.{key}_ms", round(around, 3), "ms", peer)
            grown = (page.evaluate("() => trivium.memory()") - heap) / (1 << 20)
            yield Record(f"heap.page.{key}_mib", round(grown, 1), "MiB", "grown by these asks")
            if name == "text.embed":
                one = percentile(native(), 0.5)
                yield Record(
                    f"ratio.page_native.{key}",
                    round(inference / one, 2),
                    "ratio",
                    f"native onnxruntime, one thread {one:.2f} ms",
                )
        chromium.close()


def native() -> list[float]:
    """Return times of the page's own graph on onnxruntime with one thread, in ms."""
    bundle = Bundle(ZOO / "text.embed")
    variant = bundle.manifest.variant(Tier.PAGE)
    assert variant is not None
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = bundle.read(variant.models["encoder"][0])
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    ids = np.array(
        [tokenizers.Tokenizer.from_str(bundle.text("tokenizer.json")).encode(SENTENCE).ids]
    )
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    step: Callable[[], object] = lambda: session.run(None, feeds)  # noqa: E731
    times = []
    for _ in range(100):
        started = time.perf_counter()
        step()
        times.append((time.perf_counter() - started) * 1e3)
    return times[20:]


def photo() -> bytes:
    """Return a JPEG of 4000 x 3000 pixels, made of a real one."""
    source = Path("models/functions/image.classify/coffee.jpg")
    buffer = io.BytesIO()
    with Image.open(source) as image:
        image.convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=90
        )
    return buffer.getvalue()
