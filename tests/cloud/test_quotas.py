"""How much each tenant and key may ask, counted in a real store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from trivium.errors import BadInput, QuotaExceeded
from trivium.hosts.server.callers import Caller, Limits
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.quotas import REST_S, Quotas
from trivium_cloud.settings import Settings


@pytest.fixture
def url(store: str) -> str:
    """Return the address of a store that is empty."""
    with contextlib.closing(Redis.from_url(store)) as redis:
        redis.flushall()
    return store


def request(method: str = "POST", path: str = "/v1/infer/text.count", **headers: str) -> Any:
    """Return a request's scope."""
    listed = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    return {"type": "http", "method": method, "path": path, "headers": listed}


class Counted:
    """Quotas over what lets everybody in; one loop for all that is asked."""

    def __init__(self, url: str, limits: str = "", caller: Caller | None = None) -> None:
        self.caller = caller or Caller(tenant="acme", key="one")
        # A busy machine's store is slow, and not away.
        self.quotas = Quotas(url, Limits.read(limits), patience=30.0)
        self.admit = self.quotas.admitting(self._everybody)

    async def _everybody(self, _: Any) -> Caller:
        return self.caller

    async def ask(self, scope: Any = None) -> dict[str, str]:
        """Return what the response would say of limits, or raise."""
        scope = scope or request()
        try:
            await self.admit(scope)
        finally:
            message: Any = {"type": "http.response.start", "headers": []}
            await self.quotas.tell(message, scope)
            self.told = {name.decode(): value.decode() for name, value in message["headers"]}
        return self.told


def test_a_minute_s_requests_are_counted_down(url: str) -> None:
    """And told; then it says when to come again."""

    async def check() -> None:
        counted = Counted(url, "minute=5")
        for left in (4, 3, 2, 1, 0):
            told = await counted.ask()
            assert told["ratelimit-policy"] == '"tenant-minute";q=5;w=60'
            assert told["ratelimit"].startswith(f'"tenant-minute";r={left};t=')
        with pytest.raises(
            QuotaExceeded, match=r"this tenant may send 5 requests in a minute"
        ) as no:
            await counted.ask()
        assert 1 <= (no.value.retry_after or 0) <= 12
        assert counted.told["ratelimit"].startswith('"tenant-minute";r=0;t=')

    asyncio.run(check())


def test_a_bucket_leaks(url: str) -> None:
    """Evenly: what was used comes back bit by bit, and no more than was allowed."""

    async def check() -> None:
        counted = Counted(url, "minute=1200")
        for _ in range(1200):
            await counted.ask()
        used = 0
        for _ in range(2000):
            try:
                await counted.ask()
            except QuotaExceeded:
                used += 1
        assert used > 0
        await asyncio.sleep(0.2)
        await counted.ask()

    asyncio.run(check())


def test_servers_count_together_and_exactly(url: str) -> None:
    """As many as are allowed are let in, whoever asks where at the same time."""

    async def check() -> None:
        servers = [Counted(url, "day=50") for _ in range(4)]
        asked = [servers[number % 4].ask() for number in range(120)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(not isinstance(each, Exception) for each in found) == 50
        assert all(isinstance(each, dict | QuotaExceeded) for each in found)

    asyncio.run(check())


def test_a_crowd_is_counted_too(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """More requests at once than there are connections: none of them slips in uncounted."""

    async def check() -> None:
        counted = Counted(url, "day=50")
        asked = [counted.ask() for _ in range(1000)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(each, QuotaExceeded) for each in found) == 950
        assert "away" not in caplog.text

    asyncio.run(check())


def test_a_key_has_limits_of_its_own(url: str) -> None:
    """Beside its tenant's; what one of them refuses is taken from neither."""

    async def check() -> None:
        small = Caller(tenant="acme", key="small", limits=Limits(day=2))
        one, two = Counted(url, "day=5", small), Counted(url, "day=5")
        for left in (1, 0):
            told = await one.ask()
            assert told["ratelimit-policy"] == '"tenant-day";q=5;w=86400, "key-day";q=2;w=86400'
            assert f'"key-day";r={left};' in told["ratelimit"]
        with pytest.raises(QuotaExceeded, match="this key may send 2 requests in a day"):
            await one.ask()
        for _ in range(3):
            await two.ask()
        with pytest.raises(QuotaExceeded, match="this tenant"):
            await two.ask()
        other = Counted(url, "day=5", Caller(tenant="other", key="small"))
        assert '"tenant-day";r=4;' in (await other.ask())["ratelimit"]

    asyncio.run(check())


def test_bytes_are_counted_as_they_are_announced(url: str) -> None:
    """Who announces none is told to; what is too much at once takes nothing."""

    async def check() -> None:
        counted = Counted(url, "bytes=1000")
        told = await counted.ask(request(content_length="600"))
        assert told["ratelimit-policy"] == '"tenant-bytes";q=1000;w=86400;qu="content-bytes"'
        with pytest.raises(QuotaExceeded, match="1000 bytes of requests in a day"):
            await counted.ask(request(content_length="401"))
        assert (
            '"tenant-bytes";r=0;' in (await counted.ask(request(content_length="400")))["ratelimit"]
        )
        with pytest.raises(BadInput, match="send Content-Length"):
            await counted.ask(request(transfer_encoding="chunked"))
        await counted.ask(request("GET", "/v1/tasks"))

    asyncio.run(check())


def test_what_asks_nothing_is_not_counted_as_an_ask(url: str) -> None:
    """A day's asks are asks; a gateway's look at the roads is not counted at all."""

    async def check() -> None:
        counted = Counted(url, "day=1,minute=100")
        for _ in range(3):
            assert (await counted.ask(request("GET", "/v1/roads"))) == {}
            told = await counted.ask(request("GET", "/v1/tasks/1"))
            assert '"tenant-minute"' in told["ratelimit-policy"]
            assert "day" not in told["ratelimit-policy"]
        await counted.ask(request(path="/v1/multimodal"))
        with pytest.raises(QuotaExceeded):
            await counted.ask()

    asyncio.run(check())


def test_without_a_limit_no_store_is_asked() -> None:
    """There need not be one."""

    async def check() -> None:
        assert await Counted("redis://localhost:1").ask() == {}
        assert await Counted("", "day=1").ask() == {}

    asyncio.run(check())


def test_a_store_that_is_away_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left alone for a while, the log says so, and counting goes on when it is back."""

    async def check() -> None:
        counted = Counted(f"unix://{tmp_path / 'nobody'}", "day=1")
        for _ in range(50):
            assert await counted.ask() == {}
        assert caplog.text.count("nothing is counted while Redis is away") == 1
        with Valkey(tmp_path / "data") as valkey:
            back = Counted(valkey.url, "day=1")
            back.quotas._rest = time.monotonic() + REST_S
            assert await back.ask() == {}
            await asyncio.sleep(REST_S)
            assert "ratelimit" in await back.ask()

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())


def test_limits_are_a_setting() -> None:
    """One that is none stops the start."""
    found = Settings.from_env({"TRIVIUM_CLOUD_LIMITS": "minute=600,tasks=3"})
    assert found.limits == Limits(minute=600, tasks=3)
    with pytest.raises(ValueError, match="'hour=3' is no limit"):
        Settings.from_env({"TRIVIUM_CLOUD_LIMITS": "hour=3"})
