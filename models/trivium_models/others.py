"""Who answers what a pipeline asks while it is measured?"""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from trivium import Asker
from trivium.contract import Answer, Ask, Plan, Tier, Variant
from trivium.engine import Engine
from trivium.errors import BundleError
from trivium.hosts.server.bundles import Bundle, find
from trivium.hosts.server.host import ServerHost
from trivium.run import Pipeline, Trip


class Others(Asker):
    """The bundles that are built, each as it runs on one tier, or on the next one that has it.

    `asked` counts what was asked, by the function's name.
    """

    def __init__(self, zoo: Path, tier: Tier, host: ServerHost) -> None:
        self._engine = Engine(tier, host)
        self._host = host
        self.asked: dict[str, int] = {}
        for bundle, variant in bundles(zoo, tier):
            try:
                function = bundle.function(variant.tier)
            except BundleError:  # it is not built yet, and may not be asked
                continue
            if function is not None:
                host.know(function, bundle)
                self._engine.add(function)

    async def __call__(self, function: str, /, **values: Any) -> Any:
        """Return the other function's output."""
        return (await self.answer(function, function, **values)).output

    async def answer(self, name: str, function: str, /, **values: Any) -> Answer:
        """Return the other function's answer, as the engine's own pipeline would."""
        self.asked[function] = self.asked.get(function, 0) + 1
        with self._engine.tracer.span(f"ask {function}", "") as span:
            nothing = Plan(tiers=(), reason="")
            trip = Trip(Ask(), nothing, self._engine.tier, self._host.clock(), span)
            return await Pipeline(self._engine, trip, span).answer(name, function, **values)

    async def together(self, *works: Awaitable[Any]) -> list[Any]:
        """Return what all give, which run beside each other."""
        return await self._host.together(works)


def bundles(zoo: Path, tier: Tier) -> list[tuple[Bundle, Variant]]:
    """Return what there is, with the variant that answers an ask made on `tier`."""
    found = []
    for folder in find([zoo]):
        try:
            bundle = Bundle(folder)
        except BundleError:  # half built, which is its own build's matter
            continue
        reach = [each for each in Tier if each.distance >= tier.distance]
        roads = filter(None, (bundle.manifest.variant(each) for each in reach))
        found += [(bundle, road) for road in list(roads)[:1]]
    return found
