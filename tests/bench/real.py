"""Do asks fare on the running system as the simulator says, over the same drawn links?

Real: a headless Chromium, the gateway and the cloud as processes, and two proxies that are the
drawn links in real time. Simulated: the same scenario, with what was measured here straight before,
by asks at the scenario's pace: each tier's work, what comes beside it, and the bytes on the way.
"""

from __future__ import annotations

import asyncio
import base64
import selectors
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
from msgspec.structs import replace

from bench import policies
from bench.link import Shaped
from bench.play import play
from bench.record import Record, percentile
from bench.scenario import Scenario, Work, read
from bench.servers import KEY, ZOO, free_port
from bench.world import Way, World
from trivium.contract import MSGPACK, Ask, Blob, Tier, encode
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import FLAGS, browser
from trivium.hosts.server.serve import Process

HERE = Path(__file__).with_name("scenarios") / "real"
PHOTO = Path("models/functions/image.classify/coffee.jpg")
PHOTO_BYTES = 200_000
TEXT = "The quick brown fox jumps over the lazy dog while the cat looks on from the warm roof. " * 4
SIZES = {"text.embed": len(TEXT), "image.classify": PHOTO_BYTES}
AS = {"Authorization": f"Bearer {KEY}"}
WARM, ROUNDS = 4, 20
GAP_MS = 350
"""Asks come one by one in the scenarios, too: what runs without a pause is quicker."""

LEAD_MS = 6_000.0
"""So long the links are as they begin before the first ask: both tiers look how the next one is."""

NOBODY = "text.nobody"
"""A function that is nowhere: an ask for it makes a page look, and teaches it nothing else."""

# Asks at their times, whatever became of those before.
ASK = """async ([asks, text, photo]) => {
  const bytes = Uint8Array.from(atob(photo), (c) => c.charCodeAt(0));
  const given = {
    "text.embed": () => ({ text }),
    "image.classify": () => ({ image: new Blob([bytes], { type: "image/jpeg" }) }),
  };
  const begun = performance.now();
  return Promise.all(asks.map(async ({ at, name, budget, tiers }) => {
    await new Promise((wake) => setTimeout(wake, at - (performance.now() - begun)));
    const started = performance.now();
    try {
      const { tier, ms } = await trivium.infer(name, given[name](), { budget, tiers });
      const work = ms.decode + ms.python + ms.run;
      return { tier, work, hop: ms.hop, ms: performance.now() - started };
    } catch (error) {
      return { tier: "", work: 0, hop: 0, ms: performance.now() - started, said: String(error) };
    }
  }));
}"""


class Fared(msgspec.Struct):
    """How one ask fared: who answered, and after how many milliseconds seen from the page."""

    tier: str
    work: float
    hop: float
    ms: float
    said: str = ""


def run() -> Iterator[Record]:
    """Play each scenario for real and in the simulator."""
    chrome = browser()
    if chrome is None:
        print("real: skipped, no chromium was found", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    cloud_port, edge_port = free_port(), free_port()
    cloud = Process(
        Tier.CLOUD,
        "127.0.0.1",
        cloud_port,
        {"TRIVIUM_CLOUD_BUNDLES": str(ZOO), "TRIVIUM_CLOUD_KEYS": KEY},
    )
    with cloud, Links() as links, sync_playwright() as playwright:
        cloud.wait()
        far, near = links.to(cloud_port), links.to(edge_port)
        origin = f"http://localhost:{near.port}"
        edge = Process(
            Tier.EDGE,
            "127.0.0.1",
            edge_port,
            {
                "TRIVIUM_EDGE_BUNDLES": str(ZOO),
                "TRIVIUM_EDGE_KEYS": KEY,
                "TRIVIUM_EDGE_ORIGINS": origin,
                "TRIVIUM_EDGE_CLOUD_URL": f"http://127.0.0.1:{far.port}",
                "TRIVIUM_EDGE_CLOUD_KEY": KEY,
            },
        )
        with edge:
            edge.wait()
            chromium = playwright.chromium.launch(executable_path=chrome, args=list(FLAGS))
            for path in sorted(HERE.glob("*.toml")):
                page = opened(chromium, origin)
                scenario = measured(page, edge.url, read(path))
                page.close()
                page = opened(chromium, origin)  # one that knows nothing of that
                world = World(scenario)
                links.take({near: world.near, far: world.far}, LEAD_MS)
                asks = [{"at": LEAD_MS / 2, "name": NOBODY, "budget": {}, "tiers": []}]
                asks += [each | {"at": each["at"] + LEAD_MS} for each in asked(world)]
                fared = ask(page, asks)[1:]
                links.take({near: None, far: None})
                page.close()
                yield from compared(world, fared)
            chromium.close()


def opened(chromium: Any, origin: str) -> Any:
    """Return a page whose tier can run what is asked."""
    page = chromium.new_page()
    page.set_default_timeout(300_000)
    page.goto(origin)
    page.wait_for_function("() => window.trivium")
    page.evaluate("() => window.trivium.ready")
    for name in SIZES:
        page.wait_for_function(
            "(name) => trivium.state.functions[name]?.state === 'ready'", arg=name
        )
    return page


def measured(page: Any, edge: str, scenario: Scenario) -> Scenario:
    """Return the scenario with what tiers take here, where nothing is in between."""
    asks = [
        {"name": name, "budget": {}, "tiers": [tier]}
        for _ in range(WARM + ROUNDS)
        for name in SIZES
        for tier in Tier
    ]
    fared = ask(page, [each | {"at": GAP_MS * i} for i, each in enumerate(asks)])
    assert not any(each.said for each in fared), fared
    functions: dict[str, Work] = {}
    kinds = len(SIZES) * len(Tier)
    for i, name in enumerate(SIZES):
        ms, beside, above = {}, {}, 0.0
        for j, tier in enumerate(Tier):
            found = fared[i * len(Tier) + j :: kinds][WARM:]
            work = [each.work for each in found]
            ms[tier] = (percentile(work, 0.05), percentile(work, 0.5), percentile(work, 0.95))
            all_ = percentile([each.ms - each.work for each in found], 0.5)
            beside[tier] = max(0.0, all_ - above)
            above = max(above, all_)
        variants = Bundle(ZOO / name).manifest.variants
        functions[name] = Work(
            ms=ms,
            quality={each.tier: min(1.0, each.quality) for each in variants},
            size=SIZES[name],
            spread=0,
            grows=0,
            answer=answered(edge, name),
            beside=beside,
            # Servers tell what they measured, by now.
            told={each.tier: each.ms for each in variants if each.tier == Tier.PAGE},
        )
    roads = httpx.get(f"{edge}/v1/roads", headers=AS, trust_env=False).content
    return replace(
        scenario,
        functions=functions,
        advert=len(roads) / len(functions),
        # Its Python and its models have one thread.
        page=replace(scenario.page, single=True),
        near=replace(scenario.link("near"), tcp=True),
        far=replace(scenario.link("far"), tcp=True),
    )


def answered(edge: str, name: str) -> float:
    """Return how many bytes an answer is."""
    text = name == "text.embed"
    key, given = ("text", TEXT) if text else ("image", Blob(media="image/jpeg", data=photo()))
    body = encode(Ask(function=name, inputs={key: given}))
    kinds = {"Content-Type": MSGPACK, "Accept": MSGPACK}
    reply = httpx.post(f"{edge}/v1/infer/{name}", content=body, headers=AS | kinds, trust_env=False)
    assert reply.status_code == 200, reply.text
    return len(reply.content)


def photo() -> bytes:
    """Return a photo of a usual size."""
    found = PHOTO.read_bytes()
    return found + bytes(PHOTO_BYTES - len(found))  # what comes after a JPEG's end is not looked at


def asked(world: World) -> list[dict[str, Any]]:
    """Return a world's asks as the page takes them."""
    return [
        {
            "at": each.at,
            "name": each.function,
            "budget": {
                key: value
                for key, value in msgspec.to_builtins(each.budget).items()
                if value is not None
            },
            "tiers": [],
        }
        for each in world.asks
    ]


def ask(page: Any, asks: list[dict[str, Any]]) -> list[Fared]:
    """Return how asks fare, begun at their times."""
    found = page.evaluate(ASK, [asks, TEXT, base64.b64encode(photo()).decode()])
    return msgspec.convert(found, list[Fared])


def compared(world: World, fared: list[Fared]) -> Iterator[Record]:
    """Tell how far the simulator is from what happened."""
    scenario = world.scenario
    # In a thread: the browser's driver has an event loop in this one.
    with ThreadPoolExecutor(1) as elsewhere:
        simulated = elsewhere.submit(play, world, policies.ours).result()
    real_met, alike = [], []
    for asked, found, like in zip(world.asks, fared, simulated, strict=True):
        assert asked.budget.ms is not None
        quality = scenario.work(asked.function).quality
        good = bool(found.tier) and quality[Tier(found.tier)] >= asked.budget.quality
        real_met.append(good and found.ms <= asked.budget.ms)
        alike.append(real_met[-1] == like.met)
    met = 100 * sum(real_met) / len(real_met)
    expected = 100 * sum(each.met for each in simulated) / len(simulated)
    asks = f"{len(fared)} asks"
    name = f"real.{scenario.name}"
    yield Record(f"{name}.met_percent", round(met, 1), "%", f"simulated {expected:.1f} %")
    yield Record(f"{name}.met_error_points", round(abs(met - expected), 1), "points", asks)
    yield Record(f"{name}.met_alike_percent", round(100 * sum(alike) / len(alike), 1), "%", asks)
    times = percentile([each.ms for each in fared], 0.5)
    should = percentile([each.ms for each in simulated], 0.5)
    peer = f"simulated {should:.1f} ms"
    yield Record(f"{name}.p50_ratio", round(times / should, 2), "ratio", peer)
    answered = [each.began[-1] for each in simulated if each.quality]
    for tier in Tier:
        share = 100 * sum(each.tier == tier for each in fared) / len(fared)
        peer = f"simulated {100 * answered.count(tier) / len(simulated):.1f} %"
        yield Record(f"{name}.{tier}_percent", round(share, 1), "%", peer)


class Links:
    """Proxies in a thread of their own: the browser's driver keeps this one busy."""

    def __enter__(self) -> Links:
        # epoll wakes by whole milliseconds, which is as much as a message's way.
        self._loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[Shaped] = []
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._opened:
            asyncio.run_coroutine_threadsafe(each.__aexit__(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def to(self, port: int) -> Shaped:
        """Return a proxy to a port of this machine."""
        opened = asyncio.run_coroutine_threadsafe(Shaped(port).__aenter__(), self._loop).result(10)
        self._opened.append(opened)
        return opened

    def take(self, ways: dict[Shaped, Way | None], after_ms: float = 0.0) -> None:
        """Be these ways from now on, at their first state for a while."""
        for shaped, way in ways.items():
            self._loop.call_soon_threadsafe(shaped.take, way, after_ms / 1e3)
