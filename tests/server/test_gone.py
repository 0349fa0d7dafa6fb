"""What becomes of an ask whose client is gone?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

import samples
import toys
from servers import CLOUD_KEY, KEY, listening
from trivium.contract import EVENTS, JSON
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


@contextlib.asynccontextmanager
async def asking(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run an edge in front of a cloud, over sockets, and return its client."""
    bundles = (samples.zoo(folder),)
    cloud = create_cloud(CloudSettings(bundles=bundles, keys=(CLOUD_KEY,), trust=(toys.keys(),)))
    async with listening(cloud) as there:
        settings = EdgeSettings(
            bundles=bundles,
            page=Path("nowhere"),
            cloud_url=there,
            cloud_key=CLOUD_KEY,
            keys=(KEY,),
            trust=(toys.keys(),),
        )
        async with listening(create_edge(settings)) as here:
            headers = {"authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=here, headers=headers, timeout=20) as client:
                yield client


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_its_function_ends_and_its_cache_is_let_go(tmp_path: Path, tier: str) -> None:
    """On the tier that was asked, and behind it: a client's end crosses hops."""

    async def journey() -> None:
        async with asking(tmp_path) as client:
            headers = {"accept": EVENTS, "content-type": "text/plain", "trivium-tiers": tier}
            request = client.stream(
                "POST", "/v1/infer/text.total?times=1000000000", content="1", headers=headers
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


@pytest.mark.parametrize("tier", ["edge", "cloud"])
@pytest.mark.parametrize("accept", [EVENTS, JSON])
def test_nothing_need_have_been_said(tmp_path: Path, tier: str, accept: str) -> None:
    """Whether the client waits for the first part or for all at once."""

    async def journey() -> None:
        async with asking(tmp_path) as client:
            headers = {"accept": accept, "content-type": "text/plain", "trivium-tiers": tier}
            options = "times=1000000000&quiet=1000000000"
            asked = asyncio.ensure_future(
                client.post(f"/v1/infer/text.total?{options}", content="1", headers=headers)
            )
            await until(1)
            asked.cancel()
            await until(0)

    asyncio.run(journey())


@pytest.mark.parametrize("accept", [EVENTS, JSON])
def test_a_request_of_any_parts_ends_alike(tmp_path: Path, accept: str) -> None:
    """Through the gateway, which only passes it on."""

    async def journey() -> None:
        async with asking(tmp_path) as client:
            options = {"times": 1_000_000_000, "quiet": 1_000_000_000}
            request = {"text": "1", "function": "text.total", "options": options, "timeout": 60}
            asked = asyncio.ensure_future(
                client.post("/v1/multimodal", json=request, headers={"accept": accept})
            )
            await until(1)
            asked.cancel()
            await until(0)

    asyncio.run(journey())
