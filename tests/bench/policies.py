"""What else could choose the road: the policies that the router is compared with?

Each keeps within an ask's reach, which is the caller's right and no matter of skill; where its
tier lies beyond, it takes the farthest that is allowed. None falls back or hedges: they are static.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from bench.world import Asked, World
from trivium.contract import Tier

Pick = Callable[[World, Asked, float], tuple[Tier, ...]]
"""A policy: the tiers that may answer, best first; none leaves it to the kernel's router."""

PAGE, EDGE, CLOUD = Tier
LARGE = 64_000


def within(tier: Tier, asked: Asked) -> tuple[Tier]:
    """Return `tier`, or the farthest that an ask may reach."""
    return (min(tier, asked.budget.reach, key=lambda each: each.distance),)


def ours(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Leave it to the kernel."""
    return ()


def always(tier: Tier) -> Pick:
    """Always take one tier."""
    return lambda world, asked, now: within(tier, asked)


def on_device(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take the page where it is there, else the cloud: availability alone counts."""
    there = now >= world.scenario.page.ready_s * 1e3
    return within(PAGE if there else CLOUD, asked)


def threshold(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take the page for what is small, the cloud for what is large."""
    return within(PAGE if asked.size < LARGE else CLOUD, asked)


def round_robin(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take each in turn."""
    return within(tuple(Tier)[asked.number % 3], asked)


def quality_only(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take the cheapest that is good enough, as routers between language models do."""
    quality = world.scenario.work(asked.function).quality
    enough = [tier for tier in Tier if quality[tier] >= asked.budget.quality]
    return within(enough[0] if enough else CLOUD, asked)


def oracle(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take the cheapest road that will make it, knowing how long each will take; no hedge."""
    return (clairvoyant(world, asked, now)[0],)


def quick_oracle(world: World, asked: Asked, now: float) -> tuple[Tier, ...]:
    """Take the quickest road, knowing how long each will take; no hedge."""
    return (clairvoyant(world, asked, now, quick=True)[0],)


def clairvoyant(world: World, asked: Asked, now: float, quick: bool = False) -> tuple[Tier, float]:
    """Return the oracle's road, and how long it takes if it is in time, else infinity."""
    quality = world.scenario.work(asked.function).quality
    spend = world.spend
    cap = asked.budget.spend
    allowed = [
        tier
        for tier in Tier
        if tier.distance <= asked.budget.reach.distance
        and quality[tier] >= asked.budget.quality
        and (cap is None or spend[tier] <= cap)
    ]
    takes = {tier: world.takes(asked, tier, now) for tier in allowed}
    assert asked.budget.ms is not None
    timely = [tier for tier in allowed if takes[tier] <= asked.budget.ms]
    if not timely:
        # What is lost warms a tier that is cold; it never stands in the page's way.
        cold = [
            tier
            for tier in (EDGE, CLOUD)
            if tier in allowed and world.machines[tier].cold(asked.function, now)
        ]
        return (cold or [asked.budget.reach])[0], math.inf
    best = min(timely, key=lambda tier: (0.0 if quick else spend[tier], takes[tier]))
    return best, takes[best]


STATIC: dict[str, Pick] = {
    "always page": always(PAGE),
    "always edge": always(EDGE),
    "always cloud": always(CLOUD),
    "prefer on-device": on_device,
    "static threshold": threshold,
    "round robin": round_robin,
    "quality only": quality_only,
}
