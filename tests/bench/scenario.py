"""What does a scenario say, and how are a thousand of them drawn from seeds?

A scenario is a TOML file (tests/bench/scenarios/README.md lists its fields) or drawn by `generate`.

Where the links' figures come from: Wi-Fi: Sui et al., MobiSys 2016 (a median of 3 ms on the air,
20 ms at the 90th percentile, 250 ms at the 99th) over a home's line (cable, WebPageTest). LTE, 4G,
cable: WebPageTest's connectivity profiles. Slow 4G: Lighthouse's. 5G: Xu et al., SIGCOMM 2020 (near
1 Gbit/s, of which TCP uses less than a third; tens of milliseconds to a server). Between edge and
cloud: a metropolitan or continental line. How long bursts and outages last, and how often they
come, is our own guess: seconds, some a minute.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np

from trivium.contract import Tier

HERE = Path(__file__).with_name("scenarios")
FUNCTIONS = Path(__file__).parents[2] / "models/functions"


class Strict(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A misspelt field of a scenario is an error."""


Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Least = Annotated[float, msgspec.Meta(ge=0)]
SOME = msgspec.Meta(min_length=1)


class Change(Strict, frozen=True):
    """From `at_s` until `until_s` a link or tier is another.

    `times` multiplies a tier's work or a link's round trip and divides its bandwidth; `rtt` and
    `bandwidth` do one of these. `silent`: packets are lost. `offline`: that is known at once.
    """

    at_s: float
    until_s: float = 1e9
    times: float = 1.0
    rtt: float = 1.0
    bandwidth: float = 1.0
    load: float | None = None
    fails: float = 0.0
    silent: bool = False
    offline: bool = False


class Link(Strict, frozen=True):
    """A way between two tiers; `trace` holds rows of [s, rtt_ms, up_mbps, down_mbps] from 0 s on.

    `tcp`: what is sent at once shares its width, and a new connection takes a round trip more.
    """

    rtt_ms: Positive = 20.0
    up_mbps: Positive = 20.0
    down_mbps: Positive = 50.0
    jitter: float = 0.15
    drift: float = 0.2
    bursts_a_minute: float = 0.0
    burst_s: float = 1.0
    burst_times: float = 6.0
    outages_a_minute: float = 0.0
    outage_s: float = 3.0
    tcp: bool = False
    changes: tuple[Change, ...] = ()
    trace: tuple[tuple[Least, Positive, Least, Least], ...] = ()


LINKS = {
    "lan": Link(rtt_ms=1, up_mbps=500, down_mbps=500, drift=0.1),
    "wifi": Link(
        rtt_ms=12, up_mbps=20, down_mbps=80, jitter=0.4, bursts_a_minute=4, burst_times=10
    ),
    "cable": Link(rtt_ms=28, up_mbps=1, down_mbps=5, jitter=0.1, drift=0.1),
    "5g": Link(rtt_ms=30, up_mbps=40, down_mbps=280, drift=0.4, bursts_a_minute=2),
    "lte": Link(rtt_ms=70, up_mbps=12, down_mbps=12, drift=0.4, bursts_a_minute=2),
    "4g": Link(
        rtt_ms=170, up_mbps=9, down_mbps=9, drift=0.4, bursts_a_minute=3, outages_a_minute=0.2
    ),
    "slow4g": Link(
        rtt_ms=150, up_mbps=0.75, down_mbps=1.6, drift=0.5, bursts_a_minute=3, outages_a_minute=0.3
    ),
    "metro": Link(rtt_ms=8, up_mbps=1000, down_mbps=1000, jitter=0.05, drift=0.05),
    "continent": Link(rtt_ms=40, up_mbps=500, down_mbps=500, jitter=0.05, drift=0.05),
    "offline": Link(changes=(Change(at_s=0, offline=True),)),
}


class Place(Strict, frozen=True):
    """A tier: so many run at once; `load` is the share of its time that others take.

    `times` multiplies what was measured of its models, `spend` is the price of one ask there.
    `single`: while a model runs, no ask is begun and no answer is taken.
    """

    lanes: Annotated[int, msgspec.Meta(ge=1)] = 1
    times: Positive = 1.0
    load: float = 0.0
    job_ms: Positive = 20.0
    ready_s: float = 0.0
    cold_ms: float = 0.0
    idle_s: float = 1e9
    fails: Share = 0.0
    spend: float = 0.0
    single: bool = False
    changes: tuple[Change, ...] = ()


class Work(Strict, frozen=True):
    """A function: ms p5, p50, p95 and quality by tier; `grows` is how its time follows size.

    `beside` is what a tier that an ask comes to adds to its work, `told` what bundles say of `ms`.
    """

    ms: dict[Tier, tuple[float, float, float]]
    quality: dict[Tier, float]
    size: float = 400.0
    spread: float = 0.8
    grows: float = 0.3
    answer: float = 2000.0
    beside: dict[Tier, float] = {}
    told: dict[Tier, tuple[float, float, float]] = {}


class Asks(Strict, frozen=True):
    """A share of the asks: what is asked, within what."""

    function: str
    share: Positive = 1.0
    budgets_ms: Annotated[tuple[Positive, ...], SOME] = (200.0,)
    qualities: Annotated[tuple[Share, ...], SOME] = (0.0,)
    reaches: Annotated[tuple[Tier, ...], SOME] = (Tier.CLOUD,)
    spend: float | None = None


class Scenario(Strict, frozen=True, kw_only=True):
    """A world and what is asked in it; `advert` is the bytes of each function's roads."""

    name: str
    about: str = ""
    seed: int = 0
    seconds: Positive = 120.0
    asks_a_second: Positive = 2.5
    bursty: Share = 0.0
    asks: Annotated[tuple[Asks, ...], SOME]
    functions: dict[str, Work] = {}
    advert: float = 300.0
    page: Place = Place()
    edge: Place = Place(lanes=4, spend=0.3)
    cloud: Place = Place(lanes=16, spend=1.0)
    near: Link | str = "wifi"
    far: Link | str = "metro"
    breaks_s: float | None = None
    heals_s: float | None = None

    def link(self, which: str) -> Link:
        """Return the link `near` (page to edge) or `far` (edge to cloud)."""
        link: Link | str = getattr(self, which)
        return LINKS[link] if isinstance(link, str) else link

    def work(self, name: str) -> Work:
        """Return the function `name`: the scenario's own, else what was measured of ours."""
        return self.functions.get(name) or measured()[name]


SHAPES = {
    # modality: bytes of an input, their spread, growth of time with size, bytes of an answer
    "text": (400.0, 0.9, 0.5, 4000.0),
    "image": (600e3, 0.8, 0.15, 800.0),
    "audio": (160e3, 0.7, 0.9, 600.0),
    "video": (4e6, 0.8, 0.8, 3000.0),
    "document": (300e3, 0.9, 0.6, 4000.0),
}
DRAWN = ("text.embed", "image.classify", "audio.madeup")
"""What `generate` draws from; another one would change every drawn scenario."""

COLUMNS = ("s", "rtt_ms", "up_mbps", "down_mbps")
_known: dict[str, Work] = {}


def measured() -> dict[str, Work]:
    """Return the built-in functions as the kit measured them, and two that are made up.

    The page's times are those of a desktop, the quicker of one thread and several, for what else
    ran while it was measured slows several more; servers have one an ask. What no `measured.json`
    holds as yet, sound and video, is stated here by hand, so that the mix is one.
    """
    if _known:
        return _known
    best = {
        Tier.PAGE: ("wasm", "wasm-1"),
        Tier.EDGE: ("cpu-1", "cpu"),
        Tier.CLOUD: ("cpu-1", "cpu"),
    }
    for path in sorted(FUNCTIONS.glob("*/measured.json")):
        found = {
            (row["tier"], row["target"]): row
            for row in json.loads(path.read_text())["rows"]
            if row.get("latency_ms")
        }
        rows = []
        for tier, targets in best.items():
            # Not all were measured everywhere.
            known = [found[tier, target] for target in targets if (tier, target) in found]
            if tier == Tier.PAGE:
                known.sort(key=lambda row: row["latency_ms"])
            rows += known[:1]
        shape = SHAPES.get(path.parent.name.split(".")[0], SHAPES["document"])
        if {row["tier"] for row in rows} != set(Tier):
            continue
        _known[path.parent.name] = Work(
            ms={
                row["tier"]: (row["latency_p5_ms"], row["latency_ms"], row["latency_p95_ms"])
                for row in rows
            },
            quality={row["tier"]: min(1.0, row["relative_quality"]) for row in rows},
            size=shape[0],
            spread=shape[1],
            grows=shape[2],
            answer=shape[3],
        )
    for name, page, quality in (("audio.madeup", 120.0, 0.96), ("video.madeup", 900.0, 0.9)):
        size, spread, grows, answer = SHAPES[name.split(".")[0]]
        _known[name] = Work(
            ms={
                tier: (page / share * 0.9, page / share, page / share * 1.5)
                for tier, share in ((Tier.PAGE, 1.0), (Tier.EDGE, 3.0), (Tier.CLOUD, 8.0))
            },
            quality={Tier.PAGE: quality, Tier.EDGE: (1 + quality) / 2, Tier.CLOUD: 1.0},
            size=size,
            spread=spread,
            grows=grows,
            answer=answer,
        )
    return _known


def read(path: Path) -> Scenario:
    """Return the scenario of a file, whose name it has.

    Raises:
        ValueError: it is no such file; the message says where, and what is allowed.
    """
    try:
        raw = tomllib.loads(path.read_text())
        for which in ("near", "far"):
            if which in raw:
                raw[which] = _link(raw[which], path.parent)
        scenario = msgspec.convert({"name": path.stem, **raw}, Scenario)
        for name in {each.function for each in scenario.asks} - scenario.functions.keys():
            _one_of(name, measured(), "function")
        for which in ("near", "far"):
            times = [row[0] for row in scenario.link(which).trace]
            if times and (times[0] != 0 or sorted(times) != times):
                raise ValueError(f"{which}: a trace begins at 0 s, and its rows are in order")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return scenario


def _link(said: Any, folder: Path) -> Any:
    """Return a link as its fields; a table may begin from a kind, and name a file with a trace."""
    if isinstance(said, str):
        said = {"kind": said}
    if not isinstance(said, dict):
        return said
    if "kind" in said:
        kind = _one_of(said["kind"], LINKS, "link")
        said = msgspec.to_builtins(LINKS[kind]) | {k: v for k, v in said.items() if k != "kind"}
    if isinstance(said.get("trace"), str):
        said["trace"] = _traced(folder / said["trace"])
    return said


def _traced(path: Path) -> list[list[float]]:
    """Return the rows of a trace in a CSV file, under a line with their names."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path.name}: its first line must be {','.join(COLUMNS)}")
        try:
            return [[float(row[name]) for name in COLUMNS] for row in rows]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path.name}: line {rows.line_num} is no four numbers") from error


def _one_of(name: Any, known: Iterable[str], what: str) -> str:
    """Return a name that is known."""
    if name not in known:
        raise ValueError(f"there is no {what} {name!r}; there are {', '.join(sorted(known))}")
    return str(name)


def written() -> list[Scenario]:
    """Return the scenarios that people wrote."""
    return [read(path) for path in sorted(HERE.glob("*.toml"))]


def generate(seed: int) -> Scenario:
    """Return a scenario drawn from `seed`: the same on every machine."""
    dice = np.random.default_rng([7, seed])
    mix = list(dice.choice(DRAWN, size=int(dice.integers(1, 4)), replace=False))
    if dice.random() < 0.15:
        mix.append("video.madeup")
    near = str(dice.choice(["lan", "wifi", "cable", "5g", "lte", "4g", "slow4g", "wifi"]))
    far = str(dice.choice(["metro", "continent"]))
    device = float(dice.choice([1, 1, 2, 4, 8]))
    asks = []
    for name in mix:
        work = measured()[str(name)]
        for floor in (0.0, float(dice.choice([0.9, 0.95, 0.99])))[: int(dice.integers(1, 3))]:
            # An author sets what can be done where the function is used while nothing is wrong:
            # from barely to amply, for inputs larger than the usual.
            line, size = LINKS[near], work.size * 2.5
            ways = {
                Tier.PAGE: work.ms[Tier.PAGE][1] * device,
                Tier.EDGE: line.rtt_ms + size / (line.up_mbps * 125) + work.ms[Tier.EDGE][1],
                Tier.CLOUD: line.rtt_ms + size / (line.up_mbps * 125) + work.ms[Tier.CLOUD][1] + 30,
            }
            scale = min(ms for tier, ms in ways.items() if work.quality[tier] >= floor)
            budgets = scale * np.clip(dice.lognormal(np.log(4), 0.6, 3), 1.5, 30)
            asks.append(
                Asks(
                    function=str(name),
                    share=float(dice.uniform(0.3, 1)),
                    budgets_ms=tuple(sorted(np.maximum(30.0, budgets).tolist())),
                    qualities=(floor,),
                    reaches=(Tier.CLOUD,) * 9 + (tuple(Tier)[dice.integers(3)],),
                )
            )
    seconds = float(dice.choice([120, 180, 300]))

    def changes(link: bool) -> tuple[Change, ...]:
        found = []
        for _ in range(int(dice.poisson(0.5))):
            at = float(dice.uniform(0.1, 0.8) * seconds)
            until = at + float(dice.uniform(0.05, 0.4) * seconds)
            kind = int(dice.integers(4))
            times = float(dice.uniform(3, 20))
            if link:
                found.append(
                    (
                        Change(at_s=at, until_s=until, rtt=times),
                        Change(at_s=at, until_s=until, bandwidth=times),
                        Change(at_s=at, until_s=min(until, at + 20), silent=True),
                        Change(at_s=at, until_s=until, offline=True),
                    )[kind]
                )
            else:
                found.append(
                    (
                        Change(at_s=at, until_s=until, times=times / 2),
                        Change(at_s=at, until_s=until, load=float(dice.uniform(0.9, 1.3))),
                        Change(at_s=at, until_s=until, fails=1.0),
                        Change(at_s=at, until_s=until, fails=0.3),
                    )[kind]
                )
        return tuple(found)

    def place(
        lanes: int,
        times: float,
        spend: float,
        *,
        ready_s: float = 0.0,
        cold_ms: float = 0.0,
        idle_s: float = 1e9,
    ) -> Place:
        return Place(
            lanes=lanes,
            times=times,
            load=float(dice.beta(2, 3)) if lanes > 1 else 0.0,
            job_ms=float(dice.uniform(5, 60)),
            fails=float(dice.choice([0, 0, 0.01, 0.03])),
            spend=spend,
            changes=changes(link=False),
            ready_s=ready_s,
            cold_ms=cold_ms,
            idle_s=idle_s,
        )

    return Scenario(
        name=f"seed{seed}",
        seed=seed,
        seconds=seconds,
        asks_a_second=float(dice.uniform(150, 350) / seconds),
        bursty=float(dice.choice([0, 0, 0.5])),
        asks=tuple(asks),
        page=place(1, device, 0.0, ready_s=float(dice.choice([0, 0, 5, 20]))),
        edge=place(int(dice.choice([2, 4, 8])), float(dice.uniform(0.8, 2)), 0.3, cold_ms=800.0),
        cloud=place(
            int(dice.choice([8, 16, 32])),
            float(dice.choice([0.3, 1.0])),
            1.0,
            cold_ms=float(dice.choice([0, 2000])),
            idle_s=30.0,
        ),
        near=msgspec.structs.replace(LINKS[near], changes=changes(link=True)),
        far=msgspec.structs.replace(LINKS[far], changes=changes(link=True)),
    )
