"""Do asks fare on the running system as the simulator says, over the same drawn links?

Real: a headless Chromium, the gateway and the cloud as processes, and two proxies that are the
drawn links in real time. Simulated: the same scenario, with the times that each tier's models took
here, measured before, straight through.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from bench import policies
from bench.link import Shaped
from bench.play import play
from bench.record import Record, percentile
from bench.scenario import Scenario, Work, read
from bench.servers import KEY, ZOO, free_port
from bench.world import World
from trivium.contract import Tier
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import BROWSERS, FLAGS
from trivium.hosts.server.serve import Process

HERE = Path(__file__).with_name("scenarios") / "real"
PHOTO = Path("models/functions/image.classify/coffee.jpg")
PHOTO_BYTES = 200_000
TEXT = "The quick brown fox jumps over the lazy dog while the cat looks on from the warm roof. " * 4
SIZES = {"text.embed": len(TEXT), "image.classify": PHOTO_BYTES}
WARM, ROUNDS = 8, 24
POLL_S = 5.0
"""Both tiers have asked the next one for its roads after so long."""

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
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
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
            chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
            for path in sorted(HERE.glob("*.toml")):
                page = chromium.new_page()  # one that knows nothing of the scenario before
                page.set_default_timeout(300_000)
                page.goto(origin)
                page.wait_for_function("() => window.trivium")
                page.evaluate("() => window.trivium.ready")
                for name in SIZES:
                    page.wait_for_function(
                        "(name) => trivium.state.functions[name]?.state === 'ready'", arg=name
                    )
                scenario = measured(page, read(path))
                page.wait_for_timeout(POLL_S * 1e3)
                world = World(scenario)
                links.take({near: world.near, far: world.far})
                fared = ask(page, asked(world))
                links.take({near: None, far: None})
                page.close()
                yield from compared(world, fared)
            chromium.close()


def measured(page: Any, scenario: Scenario) -> Scenario:
    """Return the scenario with what work and ways take here, where nothing is in between."""
    functions: dict[str, Work] = {}
    hops: dict[Tier, float] = {}
    for name in {each.function for each in scenario.asks}:
        ms = {}
        for tier in Tier:
            one = {"at": 0, "name": name, "budget": {}, "tiers": [tier]}
            found = [ask(page, [one])[0] for _ in range(WARM + ROUNDS)][WARM:]
            assert not any(each.said for each in found), found
            work = [each.work for each in found]
            ms[tier] = (percentile(work, 0.05), percentile(work, 0.5), percentile(work, 0.95))
            hops[tier] = max(
                hops.get(tier, 0.0), percentile([each.ms - each.work for each in found], 0.5)
            )
        manifest = Bundle(ZOO / name).manifest
        quality = {each.tier: min(1.0, each.quality) for each in manifest.variants}
        functions[name] = Work(ms=ms, quality=quality, size=SIZES[name], spread=0, grows=0)
    near = scenario.link("near")
    far = scenario.link("far")
    return replace(
        scenario,
        functions=functions,
        # What messages cost without any link is there with one, too.
        near=replace(near, rtt_ms=near.rtt_ms + hops[Tier.EDGE]),
        far=replace(far, rtt_ms=far.rtt_ms + max(0.0, hops[Tier.CLOUD] - hops[Tier.EDGE])),
    )


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
    photo = PHOTO.read_bytes()
    photo += bytes(PHOTO_BYTES - len(photo))  # what comes after a JPEG's end is not looked at
    found = page.evaluate(ASK, [asks, TEXT, base64.b64encode(photo).decode()])
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
        self._loop = asyncio.new_event_loop()
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

    def take(self, ways: dict[Shaped, Any]) -> None:
        """Be these ways from now on."""
        for shaped, way in ways.items():
            self._loop.call_soon_threadsafe(shaped.take, way)
