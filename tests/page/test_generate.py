"""Does the page write what a server writes?"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import llama
import page.bundles as bundles
from page.gateway import Gateway
from trivium.contract import Tier
from trivium.function import Loaded, Models
from trivium.hosts.server.host import Tokenizer
from trivium.hosts.server.session import Lanes, OrtSession, open_graph
from trivium_models.package import describe, load

pytestmark = pytest.mark.browser

SETTINGS = {"max_tokens": 1500, "context": 1900, "ends": [0, 1, 2]}
STATE = {"past_*": "present_*"}
FORM = {
    "type": "object",
    "properties": {"a": {"type": "string", "maxLength": 6}, "b": {"type": "integer"}},
}
OPTIONS: list[dict[str, Any]] = [
    {"max_tokens": 24},
    {"max_tokens": 24, "temperature": 1.2, "top_k": 50, "seed": 9},
    {"max_tokens": 60, "schema": FORM},
]


def written(graph: bytes, tokenizer: str, options: dict[str, Any]) -> list[str]:
    """Return what a server writes."""

    async def work() -> list[str]:
        lanes = Lanes()
        try:
            session = OrtSession([open_graph("tiny", graph, False)], lanes, STATE)
            held = Loaded({"llama": session}, (), Tokenizer(tokenizer, 1500), SETTINGS)
            call = load(llama.HOME / "function.py").generate
            return [piece async for piece in call("Hi!", Models(held, lambda: 0.0), **options)]
        finally:
            lanes.pool.shutdown()

    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as other:
        return other.submit(lambda: asyncio.run(work())).result()


def test_a_tiny_llama_writes_the_same(visit: Any, gateway: Gateway) -> None:
    """Token by token, by chance with a seed, and as JSON; aborted, it leaves nothing behind."""
    graph, tokenizer = llama.graph("unpacked"), llama.tokenizer()
    made = bundles.bundle(
        (llama.HOME / "function.py").read_text(),
        describe(llama.HOME),
        models={"llama": ("tiny.onnx",)},
        files={"tiny.onnx": graph, "tokenizer.json": tokenizer},
        settings=SETTINGS,
        state=STATE,
        tokenizer="tokenizer.json",
        tiers=(Tier.PAGE,),
    )
    gateway.bundles[made.name] = made.files
    page = visit(gateway).ready(made.name)
    for options in OPTIONS:
        said = page.ask(made.name, stream=True, text="Hi!", tiers=["page"], options=options)
        assert said[-1]["kind"] == "answer", said
        assert said[-1]["output"] == written(graph, tokenizer.decode(), options)
        assert [each["output"] for each in said[:-1]] == said[-1]["output"]
    found = json.loads("".join(said[-1]["output"]))
    assert list(found) == ["a", "b"]
    aborted = page.run("""
        const control = new AbortController();
        const settings = { signal: control.signal, tiers: ["page"], options: { max_tokens: 1000 } };
        try {
            for await (const _ of trivium.stream("text.generate", { text: "x" }, settings)) {
                control.abort();
            }
        } catch (error) {
            return error.name;
        }
    """)
    assert aborted == "AbortError"
    again = page.ask(made.name, text="Hi!", tiers=["page"], options=OPTIONS[0])
    assert again["output"] == written(graph, tokenizer.decode(), OPTIONS[0])
