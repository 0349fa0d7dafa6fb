"""How well does the router choose in simulated worlds, and what does a decision cost?"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench import loops, policies
from bench.play import Outcome, play
from bench.policies import Pick
from bench.record import Record, percentile
from bench.scenario import Scenario, generate, read, written
from bench.world import Asked, World
from trivium.contract import Budget, Road, Tier
from trivium.errors import BudgetError
from trivium.memory import Memory
from trivium.router import choose

ROOT = Path(__file__).parents[2]
SCENARIOS = 24
FIRST_SEED = 1_000_000
"""Seeds from here on are drawn for the figures alone; below are those that policies are made by."""

REPEATS = 3
"""How many seeds of each written scenario are played."""

ROUNDS = 20_000
FUNCTIONS = 1_000


class Play(msgspec.Struct):
    """What a policy made of one world."""

    met: float
    quality: float
    answered: float
    spend: float
    cloud: float
    p99_ms: float
    regret_ms: float
    outcomes: list[Outcome]


def run(
    scenarios: int = SCENARIOS, scenario: Path | None = None, plots: Path | None = None
) -> Iterator[Record]:
    """Play every policy in generated and written worlds, then time decisions."""
    names: dict[str, Pick] = {"router": policies.ours, "oracle": policies.oracle}
    names |= {"quick oracle": policies.quick_oracle, **policies.STATIC}
    if scenario is not None:
        try:
            given = read(scenario)
        except ValueError as error:
            raise SystemExit(f"router: {error}") from error
        yield from table("scenario", [compare(given, names)])
        return
    drawn = [compare(generate(FIRST_SEED + i), names) for i in range(scenarios)]
    yield from table("generated", drawn)
    # Neither oracle plans ahead: the better of two is the harder to reach.
    gaps = [
        100 * (max(each["oracle"].met, each["quick oracle"].met) - each["router"].met)
        for each in drawn
    ]
    yield bounded("router.met_gap.median_points", gaps, 0.5, f"{scenarios} scenarios")
    yield bounded("router.met_gap.p95_points", gaps, 0.95, f"{scenarios} scenarios")
    by_name: dict[str, list[dict[str, Play]]] = {}
    for each in written():
        needed = names if each.name == "mixed" else dict(list(names.items())[:2])
        for i in range(REPEATS):
            again = msgspec.structs.replace(each, seed=each.seed + 1000 * i)
            by_name.setdefault(each.name, []).append(compare(again, needed))
    mixed = by_name["mixed"]
    yield from table("mixed", mixed)
    static = {name: np.mean([each[name].met for each in mixed]) for name in policies.STATIC}
    best = max(static, key=lambda name: static[name])
    over = [100 * (each["router"].met - each[best].met) for each in mixed]
    yield record("router.met_over_best_static_points", over, "points", best)
    yield record(
        "router.spend_ratio",
        [each["router"].spend / each["always cloud"].spend for each in mixed],
        "ratio",
        "mixed, always cloud",
    )
    yield record(
        "router.quality_ratio",
        [each["router"].quality / each["always cloud"].quality for each in mixed],
        "ratio",
        "mixed, quality in time an ask, always cloud",
    )
    yield record(
        "router.quality_of_answers_ratio",
        [each["router"].answered / each["always cloud"].answered for each in mixed],
        "ratio",
        "mixed, quality of what came in time",
    )
    asks, seconds = {}, {}
    for each in written():
        if each.breaks_s is None or each.heals_s is None:
            continue
        plays = by_name[each.name]
        asks[each.name] = max(recovered(each, play) for play in plays)
        seconds[each.name] = max(healed(each, play) for play in plays)
    for name, found in (("router.recover_asks", asks), ("router.heal_s", seconds)):
        worst = max(found, key=lambda each: found[each])
        said = ", ".join(f"{each} {value:g}" for each, value in found.items())
        yield Record(name, round(found[worst], 1), "asks" if found is asks else "s", said)
    if plots is not None:
        draw(plots, drawn, by_name)
    yield from decisions()
    yield from in_page()


def compare(scenario: Scenario, names: dict[str, Pick]) -> dict[str, Play]:
    """Return how each policy does in a world."""
    world = World(scenario)
    found = {}
    for name, pick in names.items():
        best: list[float] = []
        found[name] = summed(play(world, noting(pick, best)), best)
    return found


def noting(pick: Pick, best: list[float]) -> Pick:
    """Return `pick`, which notes what the best road would take beside what it takes itself."""

    def noted(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
        best.append(policies.clairvoyant(world, asked, now)[1])
        return pick(world, asked, now)

    return noted


def summed(outcomes: list[Outcome], best: Sequence[float]) -> Play:
    """Return the figures of one play."""
    met = [each for each in outcomes if each.met]
    return Play(
        met=len(met) / len(outcomes),
        quality=sum(each.quality for each in met) / len(outcomes),
        answered=sum(each.quality for each in met) / max(1, len(met)),
        spend=sum(each.spend for each in outcomes) / len(outcomes),
        cloud=sum(each.began.count(Tier.CLOUD) for each in outcomes) / len(outcomes),
        p99_ms=percentile([each.ms for each in outcomes], 0.99),
        regret_ms=float(
            np.mean(
                [max(0.0, o.ms - b) for o, b in zip(outcomes, best, strict=True) if b < math.inf]
                or [0.0]
            )
        ),
        outcomes=outcomes,
    )


def table(kind: str, drawn: Sequence[dict[str, Play]]) -> Iterator[Record]:
    """Yield each policy's figures."""
    for name in drawn[0]:
        key = f"router.{kind}.{name.replace(' ', '_')}"
        plays = [each[name] for each in drawn]
        yield record(f"{key}.met_percent", [100 * each.met for each in plays], "%")
        yield record(f"{key}.quality", [each.quality for each in plays], "in time")
        yield record(f"{key}.spend", [each.spend for each in plays], "an ask")
        yield record(f"{key}.cloud_calls", [each.cloud for each in plays], "an ask")
        yield record(f"{key}.p99_ms", [each.p99_ms for each in plays], "ms")
        yield record(f"{key}.regret_ms", [each.regret_ms for each in plays], "ms")


def record(name: str, values: Sequence[float], unit: str, peer: str = "") -> Record:
    """Return the mean over worlds with its 95 % interval."""
    half = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    return Record(name, round(float(np.mean(values)), 4), unit, f"± {half:.3g} {peer}".strip())


def bounded(name: str, values: Sequence[float], share: float, peer: str) -> Record:
    """Return a quantile over worlds with its 95 % interval, by bootstrap."""
    dice = np.random.default_rng(0)
    again = [float(np.quantile(dice.choice(values, len(values)), share)) for _ in range(1000)]
    low, high = np.quantile(again, [0.025, 0.975])
    value = round(float(np.quantile(values, share)), 2)
    return Record(name, value, "points", f"{low:.2f} to {high:.2f}, {peer}")


def recovered(scenario: Scenario, plays: dict[str, Play]) -> int:
    """Return after how many asks since the break nine of ten are right again."""
    assert scenario.breaks_s is not None
    assert scenario.heals_s is not None
    right = [
        ours.met or not best.met
        for ours, best in zip(plays["router"].outcomes, plays["oracle"].outcomes, strict=True)
        if scenario.breaks_s * 1e3 <= ours.asked.at < scenario.heals_s * 1e3
    ]
    return settled(right)


def healed(scenario: Scenario, plays: dict[str, Play]) -> float:
    """Return the seconds since all is well until ten asks are as right and as cheap as before."""
    assert scenario.breaks_s is not None
    assert scenario.heals_s is not None
    pairs = list(zip(plays["router"].outcomes, plays["oracle"].outcomes, strict=True))
    before = [ours.spend for ours, _ in pairs if 20e3 <= ours.asked.at < scenario.breaks_s * 1e3]
    after = [pair for pair in pairs if pair[0].asked.at >= scenario.heals_s * 1e3]
    for i, (first, _) in enumerate(after):
        window = after[i : i + 10]
        right = sum(ours.met or not best.met for ours, best in window)
        spend = sum(ours.spend for ours, _ in window) / len(window)
        if right >= 0.9 * len(window) and spend <= np.mean(before) + 0.1:
            return first.asked.at / 1e3 - scenario.heals_s
    return math.inf


def settled(right: Sequence[bool]) -> int:
    """Return the first index from which nine of ten are right."""
    for i in range(len(right)):
        window = right[i : i + 10]
        if right[i] and sum(window) >= 0.9 * len(window):
            return i
    return len(right)


def world_of(functions: int) -> tuple[Memory, list[list[Road]], Callable[[float, float], float]]:
    """Return a memory that knows so many functions on three tiers, and their roads."""
    dice = random.Random(1)
    memory = Memory()
    all_roads = []
    for i in range(functions):
        roads = [
            Road(
                tier=tier,
                version="1",
                model="m",
                quality=0.9 + 0.05 * tier.distance,
                ms=(5.0, 10.0 + tier.distance, 40.0),
            )
            for tier in Tier
        ]
        all_roads.append(roads)
        for road in roads:
            for j in range(20):
                memory.measured(f"f.{i}", road, 1000, dice.expovariate(0.05), float(j))
    return memory, all_roads, dice.uniform


def decisions() -> Iterator[Record]:
    """Decide over three roads of one of many functions, under changing budgets."""
    memory, all_roads, _ = world_of(FUNCTIONS)
    dice = random.Random(2)
    asks = [
        Budget(ms=dice.choice([None, 20.0, 100.0, 1000.0]), quality=dice.choice([0.0, 0.92, 0.98]))
        for _ in range(1000)
    ]
    costs = []
    gc.collect()
    for i in range(ROUNDS + 1000):
        budget, which = asks[i % len(asks)], dice.randrange(FUNCTIONS)
        now = 100.0 + 0.5 * i
        started = time.perf_counter_ns()
        try:
            choose(f"f.{which}", all_roads[which], budget, memory, size=1000, now=now)
        except BudgetError:
            continue
        if i >= 1000:
            costs.append((time.perf_counter_ns() - started) / 1e3)
        # As in life, what was decided is measured, so that nothing is as it was.
        road = all_roads[which][i % 3]
        memory.measured(f"f.{which}", road, 1000, dice.expovariate(0.05), now)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Record(f"router.decision.{name}_us", round(percentile(costs, share), 2), "µs")


def in_page() -> Iterator[Record]:
    """Time the same in the page's Python."""
    code = """
import json, random, sys, time
sys.path.insert(0, "/kernel")
sys.dont_write_bytecode = True
from trivium.contract import Budget, Road, Tier
from trivium.memory import Memory
from trivium.router import choose

dice, memory = random.Random(1), Memory()
roads = [Road(tier=tier, version="1", model="m", quality=0.9 + 0.05 * tier.distance,
              ms=(5.0, 10.0 + tier.distance, 40.0)) for tier in Tier]
costs = []
for i in range(1500):
    now = 10.0 * i
    memory.measured(f"f.{i % 50}", roads[i % 3], 1000, dice.expovariate(0.05), now)
    started = time.perf_counter()
    choose(f"f.{i % 50}", roads, Budget(ms=1000.0), memory, size=1000, now=now)
    costs.append((time.perf_counter() - started) * 1e3)
# Browsers' clocks are coarse: the mean of many.
json.dumps(sum(costs[500:]) / 1000)
"""
    took = loops.in_page(code)
    if took is not None:
        yield Record("router.decision.page_ms", round(took, 4), "ms", "Pyodide on Node")


def draw(
    folder: Path, drawn: Sequence[dict[str, Play]], by_name: dict[str, list[dict[str, Play]]]
) -> None:
    """Write the plots: budgets met against spend, the gaps, and each written world."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    for name in drawn[0]:
        met = 100 * np.mean([each[name].met for each in drawn])
        spend = np.mean([each[name].spend for each in drawn])
        left.scatter(spend, met)
        left.annotate(name, (spend, met), fontsize=8)
    left.set(xlabel="spend an ask", ylabel="budget met, %", title="generated scenarios")
    gaps = sorted(100 * (each["oracle"].met - each["router"].met) for each in drawn)
    right.plot(gaps, np.linspace(0, 1, len(gaps)))
    right.set(xlabel="points behind the oracle", ylabel="share of scenarios")
    figure.tight_layout()
    figure.savefig(folder / "generated.svg")
    plt.close(figure)
    for name, plays in by_name.items():
        figure, axis = plt.subplots(figsize=(9, 3))
        for policy in ("router", "oracle"):
            outcomes = plays[0][policy].outcomes
            right_ = np.array([each.met for each in outcomes], float)
            window = np.convolve(right_, np.ones(10) / 10, "valid")
            axis.plot([each.asked.at / 1e3 for each in outcomes][9:], 100 * window, label=policy)
        axis.set(xlabel="s", ylabel="met of the last ten, %", title=name)
        axis.legend()
        figure.tight_layout()
        figure.savefig(folder / f"{name}.svg")
        plt.close(figure)
