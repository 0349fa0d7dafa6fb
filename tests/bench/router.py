"""What does a routing decision cost on CPython?"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator

from bench.record import Record, percentile
from trivium.contract import Budget, Road, Tier
from trivium.errors import BudgetError
from trivium.router import Memory, choose

ROUNDS = 20_000


def run() -> Iterator[Record]:
    """Decide over three roads with a full memory, under changing budgets."""
    dice = random.Random(1)
    roads = [
        Road(tier=tier, version="1", model="m", quality=0.9 + 0.05 * i, ms=(5.0, 10.0 + i, 40.0))
        for i, tier in enumerate(Tier)
    ]
    memory = Memory()
    for road in roads:
        for _ in range(200):
            memory.measured("f.x", road, 1000, dice.expovariate(0.05), 0.0)
    asks = [
        Budget(ms=dice.choice([None, 20.0, 100.0, 1000.0]), quality=dice.choice([0.0, 0.92, 0.98]))
        for _ in range(1000)
    ]
    costs = []
    gc.collect()
    for i in range(ROUNDS + 1000):
        budget = asks[i % len(asks)]
        started = time.perf_counter_ns()
        try:
            choose("f.x", roads, budget, memory, size=1000)
        except BudgetError:
            continue
        if i >= 1000:
            costs.append((time.perf_counter_ns() - started) / 1e3)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield Record(f"router.decision.{name}_us", round(percentile(costs, share), 2), "µs")
