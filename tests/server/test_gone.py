"""What becomes of a stream whose client is gone?"""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import httpx
import pytest

import samples
import toys
from servers import CLOUD_KEY, KEY, listening
from trivium.contract import EVENTS
from trivium.hosts.server.session import OrtSequence
from trivium_cloud.app import create_app as create_cloud
from trivium_cloud.settings import Settings as CloudSettings
from trivium_edge.app import create_app as create_edge
from trivium_edge.settings import Settings as EdgeSettings


def held() -> int:
    """Return how many sequences have state now."""
    return sum(bool(each.state()) for each in gc.get_objects() if isinstance(each, OrtSequence))


async def until(count: int) -> None:
    """Wait until so many sequences have state."""
    begun = time.monotonic()
    while held() != count:
        assert time.monotonic() - begun < 10, f"{held()} sequences have state"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_its_function_ends_and_its_cache_is_let_go(tmp_path: Path, tier: str) -> None:
    """On the tier that was asked, and behind it: a client's end crosses hops."""
    bundles = (samples.zoo(tmp_path),)

    async def journey() -> None:
        cloud = create_cloud(
            CloudSettings(bundles=bundles, keys=(CLOUD_KEY,), trust=(toys.keys(),))
        )
        async with listening(cloud) as there:
            edge = create_edge(
                EdgeSettings(
                    bundles=bundles,
                    page=Path("nowhere"),
                    cloud_url=there,
                    cloud_key=CLOUD_KEY,
                    keys=(KEY,),
                    trust=(toys.keys(),),
                )
            )
            async with listening(edge) as here, httpx.AsyncClient(base_url=here) as client:
                headers = {
                    "authorization": f"Bearer {KEY}",
                    "accept": EVENTS,
                    "content-type": "text/plain",
                    "trivium-tiers": tier,
                }
                request = client.stream(
                    "POST",
                    "/v1/infer/text.total?times=1000000000",
                    content="1",
                    headers=headers,
                    timeout=20,
                )
                async with request as response:
                    assert response.status_code == 200, await response.aread()
                    lines = response.aiter_lines()
                    for _ in range(9):
                        await anext(lines)
                    assert held() == 1
                await until(0)
                async with client.stream(
                    "POST", "/v1/infer/text.total", content="1 2", headers=headers
                ) as response:
                    last = [line async for line in response.aiter_lines() if "answer" in line][-1]
                    assert '"output":[1.0,3.0]' in last
                await until(0)

    asyncio.run(journey())
