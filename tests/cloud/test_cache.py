"""What is given again, to whom and for how long, and who runs it for all who ask."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

import samples
import servers
import toys
from keeping import ANNA, BEN, VECTOR, count, embed, place, work
from trivium.contract import Answer, Ask, Budget, Tier
from trivium.errors import BudgetError, NotAllowed, RunFailed, TierError, TriviumError
from trivium.hosts.server.callers import Caller
from trivium.run import Step
from trivium_cloud import cache, shelves

T = TypeVar("T")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a store be slow, as where much runs beside these tests; what that costs is shelves'."""
    monkeypatch.setattr(shelves, "PATIENCE_S", 10.0)


def test_an_answer_is_given_again(bundles: Path, store: str) -> None:
    """The same output, said to be kept, at no price, with this ask's own trace."""

    async def test() -> None:
        async with place(bundles, store) as here:
            ask = count()
            first, again = await here.ask(ask), await here.ask(ask)
            assert (first.cached, again.cached, here.ran) == ("miss", "hit", 1)
            assert (again.output, again.version) == (first.output, first.version)
            assert (again.spent, again.expected) == (0.0, None)
            assert again.trace
            assert again.trace != first.trace
            assert "was kept; then: " in again.plan.reason

    work(test)


def test_what_is_the_same_is_one_and_what_differs_is_not(bundles: Path, store: str) -> None:
    """Defaults and their order don't count; every byte, option, tenant and version does."""

    async def test() -> None:
        async with place(bundles, store) as here:
            text = os.urandom(4).hex()
            await here.ask(count(text))
            for same in (
                count(text, options={"least": 1}),
                count(text, options={"least": "1"}),
                count(text, budget=Budget(ms=5000.0, spend=9.0)),
                count(text, version="1.0.0"),
            ):
                assert (await here.ask(same)).cached == "hit", same
            assert here.ran == 1
            for other in (
                count(text, options={"least": 2}),
                count(text + " "),
                count(text.upper() + "é"),
                count(text.upper() + "e\u0301"),
                count(text.upper() + "\u00c3\u00a9"),
                count(text, budget=Budget(quality=0.5)),
            ):
                before = here.ran
                assert (await here.ask(other)).cached == "miss", other
                assert here.ran == before + 1, other
            before = here.ran
            assert (await here.ask(count(text), BEN)).cached == "miss"
            assert here.ran == before + 1

    work(test)


def test_what_may_not_be_kept_is_not(bundles: Path, store: str) -> None:
    """By the caller's word, its reach, the function's own, or because each answer is another."""

    async def test() -> None:
        async with place(bundles, store) as here:
            near = Budget(reach=Tier.EDGE)
            text = os.urandom(4).hex()
            for asked, control in (
                (count(text), "no-store"),
                (count(text), "max-age=3, No-Store"),
                (Ask(function="text.shy", inputs={"text": text}), ""),
                (Ask(function="text.seeded", inputs={"text": text}), ""),
            ):
                for _ in range(2):
                    assert (await here.ask(asked, control=control)).cached == "bypass"
            hidden = Caller(tenant="anna", masked=True)
            for ask in (count(text), embed(text)):
                assert (await here.ask(ask, hidden)).cached == "bypass"
            assert here.ran == 10
            here.error = RunFailed("no road")
            for reach in (near, Budget(reach=Tier.PAGE)):
                for _ in range(2):
                    with pytest.raises(RunFailed):
                        await here.ask(count(text, budget=reach))
            here.error = None
            # None of these left anything behind for one that may be kept.
            assert (await here.ask(count(text))).cached == "miss"
            seeded = Ask(function="text.seeded", inputs={"text": text}, options={"seed": 3})
            assert [(await here.ask(seeded)).cached for _ in range(2)] == ["miss", "hit"]
            again = [
                (await here.ask(count(text), control=each)).cached for each in ("no-cache", "")
            ]
            assert again == ["miss", "hit"]
            # What came of a step that failed is given once.
            partly = count()
            assert [(await here.ask(partly, whole=False)).cached for _ in range(2)] == ["miss"] * 2
            large = Ask(
                function="text.seeded", inputs={"text": "x" * shelves.MOST}, options={"seed": 1}
            )
            assert [(await here.ask(large)).cached for _ in range(2)] == ["miss"] * 2

    work(test)


def test_an_answer_that_is_no_longer_fresh_serves_when_asking_fails(
    bundles: Path, store: str
) -> None:
    """And when the time is up; the caller's own mistakes are still told."""

    async def test() -> None:
        async with place(bundles, store, cache_s=0.2, stale_s=30.0) as here:
            ask = count("a b")
            assert (await here.ask(ask, BEN)).cached in ("miss", "hit")
            await asyncio.sleep(0.3)
            for error in (RunFailed("down"), TierError("down"), BudgetError("late")):
                here.error = error
                stale = await here.ask(ask, BEN)
                assert (stale.cached, stale.output) == ("stale", {"words": 2})
                assert f"asking failed ({error.code})" in stale.plan.reason
            here.error, here.slow = None, 5.0
            limited = count("a b", budget=Budget(ms=100.0))
            assert (await here.ask(limited, BEN)).cached == "stale"
            with pytest.raises(BudgetError):
                await here.ask(count(budget=Budget(ms=100.0)), BEN)
            here.slow, here.error = 0.0, KeyError("unforeseen")
            with pytest.raises(KeyError):
                await here.ask(ask, BEN)
            here.error = RunFailed("down")
            with pytest.raises(RunFailed):
                await here.ask(ask)  # another tenant has nothing kept
            here.error = None
            assert (await here.ask(ask, BEN)).cached == "miss"

    work(test)


def test_of_equal_asks_one_is_run(bundles: Path, store: str) -> None:
    """By one process, or by two."""

    async def test() -> None:
        async with place(bundles, store) as here, place(bundles, store) as there:
            here.slow = there.slow = 0.2
            ask = count()
            asked = (each.ask(ask) for each in (here, there) for _ in range(50))
            found = await asyncio.gather(*asked)
            assert here.ran + there.ran == 1
            assert sorted({each.cached for each in found}) == ["hit", "miss"]
            assert [each.cached for each in found].count("miss") == 1
            assert len({each.trace for each in found}) == len(found)

    work(test)


def test_who_goes_away_takes_nobody_along(bundles: Path, store: str) -> None:
    """The first to ask may leave, or have less time; when all left, nothing runs on."""

    async def test() -> None:
        async with place(bundles, store) as here:
            here.slow = 0.15
            ask = count()
            first = asyncio.ensure_future(here.ask(ask))
            await asyncio.sleep(0.02)
            others = [asyncio.ensure_future(here.ask(ask)) for _ in range(3)]
            await asyncio.sleep(0.02)
            first.cancel()
            assert [each.cached for each in await asyncio.gather(*others)] == ["hit"] * 3
            assert here.ran == 1
            hurried = asyncio.ensure_future(here.ask(count("one two", budget=Budget(ms=50.0))))
            await asyncio.sleep(0.01)
            patient = await here.ask(count("one two"))
            assert patient.output == {"words": 2}
            with pytest.raises(BudgetError):
                await hurried
            alone = asyncio.ensure_future(here.ask(count()))
            await asyncio.sleep(0.02)
            alone.cancel()
            await asyncio.sleep(0.02)
            assert here.cache._flights == {}

    work(test)


def test_another_takes_over_from_one_that_died(
    bundles: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its lease has ended, and not before."""
    monkeypatch.setattr(cache, "LEASE_S", 0.3)

    async def test() -> None:
        async with place(bundles, store) as here:
            ask = count()
            wanted = await here.cache._name(ANNA, ask, {})
            assert wanted is not None
            redis = Redis.from_url(store)
            await redis.set(wanted.lock, "one that was killed", px=300)
            begun = asyncio.get_running_loop().time()
            assert (await here.ask(ask)).cached == "miss"
            assert asyncio.get_running_loop().time() - begun >= 0.25
            # One that lives keeps it for longer than a lease.
            here.slow = 0.8
            async with place(bundles, store) as there:
                ask = count()
                found = await asyncio.gather(here.ask(ask), there.ask(ask))
                assert (here.ran - 1, there.ran) in ((1, 0), (0, 1))
                assert sorted(each.cached for each in found) == ["hit", "miss"]
            await redis.aclose()

    work(test)


HOLDS = """
import asyncio, sys
from pathlib import Path
import trivium_cloud.cache
from trivium.contract import Ask, Tier
from trivium.hosts.server.server import Server
from trivium.hosts.server.signing import Trust
from trivium_cloud.cache import Cache
from trivium.hosts.server.callers import Caller
from trivium_cloud.settings import Settings

async def main():
    folder, url, text, trust = sys.argv[1:]
    server = Server(Tier.CLOUD, [Path(folder)], Trust.read([Path(trust)]))
    kept = Cache(server, Settings(bundles=(), keys=(), redis_url=url))
    ask = Ask(function="text.count", inputs={"text": text})
    async def run():
        print("running", flush=True)
        await asyncio.sleep(600)
    await kept.results(Caller(tenant="anna"), ask, run)

trivium_cloud.cache.LEASE_S = 0.5
asyncio.run(main())
"""


def test_a_process_killed_in_the_middle_of_a_run_keeps_nobody_waiting(
    bundles: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next takes over when the lease ends; while it lived, it was waited for."""
    monkeypatch.setattr(cache, "LEASE_S", 0.5)
    text = os.urandom(8).hex()
    command = [sys.executable, "-c", HOLDS, str(bundles), store, text, str(toys.keys())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"running\n"

        async def test() -> None:
            async with place(bundles, store) as here:
                asked = asyncio.ensure_future(here.ask(count(text)))
                await asyncio.sleep(1.2)
                assert here.ran == 0
                holder.kill()
                assert (await asyncio.wait_for(asked, 5)).cached == "miss"
                assert here.ran == 1

        try:
            work(test)
        finally:
            holder.kill()


def test_a_failure_is_not_kept(bundles: Path, store: str) -> None:
    """All who wait for it are told; the next ask runs, and at once."""

    async def test() -> None:
        async with place(bundles, store) as here:
            here.slow, here.error = 0.05, RunFailed("down")
            ask = count()
            found = await asyncio.gather(*(here.ask(ask) for _ in range(9)), return_exceptions=True)
            assert [type(each) for each in found] == [RunFailed] * 9
            assert here.ran == 1
            here.error = None
            assert (await here.ask(ask)).cached == "miss"

    work(test)


def test_entries_that_were_tampered_with_are_made_anew(bundles: Path, store: str) -> None:
    """Random bytes, half an entry, one of another name, another type: none of them is given."""

    async def test() -> None:
        async with place(bundles, store) as here:
            redis = Redis.from_url(store)
            one, other = count("one"), count("one two")
            await here.ask(other, BEN)
            first, second = [await here.cache._name(BEN, each, {}) for each in (one, other)]
            assert first is not None
            assert second is not None
            right = await redis.get(second.name)
            assert isinstance(right, bytes)
            whole = first.entry(b"\xc1 is no MessagePack")
            for data in (b"", b"x", os.urandom(300), right, right[:-1], right + b"x", whole):
                await redis.set(first.name, data, px=3_700_000)
                found = await here.ask(one, BEN)
                assert (found.cached, found.output) == ("miss", {"words": 1}), data
                assert (await here.ask(one, BEN)).cached == "hit"
            await redis.delete(first.name)
            await redis.lpush(first.name, "a list")
            assert (await here.ask(one, BEN)).output == {"words": 1}
            await redis.aclose()

    work(test)


def test_a_changed_bundle_has_no_answers_yet(tmp_path: Path, store: str) -> None:
    """Even if it says that it is the same version, and whatever the old one still finds."""

    async def test() -> None:
        async with place(samples.zoo(tmp_path), store) as here:
            ask = count("a b c")
            assert (await here.ask(ask)).output == {"words": 3}
            again = toys.COUNT.replace("len(words)", "-len(words)")
            toys.bundle(tmp_path, again, toys.manifest(options=(samples.LEAST,)))
            here.server.sync()
            found = await here.ask(ask)
            assert (found.cached, found.output) == ("miss", {"words": -3})
            # Replaced while it ran: what came of it is nobody's.
            here.slow = 0.1
            asked = asyncio.ensure_future(here.ask(count("a")))
            await asyncio.sleep(0.05)
            toys.bundle(tmp_path, toys.COUNT, toys.manifest(options=(samples.LEAST,)))
            here.server.sync()
            await asked
            assert (await here.ask(count("a"))).output == {"words": 1}

    work(test)


PAIR = """
from trivium import Asker, Text, Unanswered, function

@function("text.pair")
async def pair(text: Text, ask: Asker) -> list[object]:
    one = await ask("text.embed", text=text)
    try:
        other = await ask("text.fail", text=text) if "!" in text else None
    except Unanswered:
        other = "failed"
    return [one, other]
"""


class Noted:
    """A journal that remembers nothing, and whom it was told of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def recall(self, name: str, step: Step) -> Answer | None:
        self.told.append(f"recall {name}")
        return None

    async def began(self, name: str, step: Step) -> None:
        self.told.append(f"began {name}")

    async def ended(self, name: str, step: Step, found: Answer | TriviumError) -> None:
        self.told.append(f"ended {name}")


def test_a_pipelines_vectors_are_kept_and_its_other_journal_is_told(
    tmp_path: Path, store: str
) -> None:
    """A known vector is asked nobody for; nothing is kept of a run in which a step failed."""

    async def test() -> None:
        folder = samples.zoo(tmp_path)
        toys.bundle(folder, VECTOR, toys.manifest("text.embed", "embed"))
        toys.bundle(folder, PAIR, toys.manifest("text.pair", "pair", asks=True))
        async with place(folder, store) as here:
            ask = Ask(function="text.pair", inputs={"text": os.urandom(4).hex()})
            first = Noted()
            made = await here.cache.infer(ANNA, ask, first)
            await here.settled()
            assert made.cached == "miss"
            assert first.told == ["recall text.embed", "began text.embed", "ended text.embed"]
            # The whole is kept, too; asked for anew, its vector need not be.
            assert (await here.cache.infer(ANNA, ask)).cached == "hit"
            again = Noted()
            found = await here.cache.infer(ANNA, ask, again, "no-cache")
            assert (found.output, again.told) == (made.output, ["recall text.embed"])
            # And who wants nothing kept is given nothing kept.
            private = Noted()
            assert (await here.cache.infer(ANNA, ask, private, "no-store")).cached == "bypass"
            assert "began text.embed" in private.told
            others = Noted()
            await here.cache.infer(BEN, ask, others)
            near = replace(ask, budget=Budget(reach=Tier.EDGE))
            for journal in (Noted(), Noted()):
                with pytest.raises(NotAllowed):
                    await here.cache.infer(ANNA, near, journal)
            assert "began text.embed" in others.told
            loud = Ask(function="text.pair", inputs={"text": "a!" + os.urandom(4).hex()})
            for _ in range(2):
                assert (await here.cache.infer(ANNA, loud)).output[1] == "failed"
                await here.settled()
                assert (await here.cache.infer(ANNA, loud)).cached == "miss"
            # Another bundle of what it asks makes it another pipeline.
            toys.bundle(folder, VECTOR.replace("0.25", "0.5"), toys.manifest("text.embed", "embed"))
            here.server.sync()
            changed = await here.cache.infer(ANNA, ask)
            assert (changed.cached, changed.output[0][1]) == ("miss", 0.5)

    work(test)


def test_over_http_a_tenant_is_given_its_own(tmp_path: Path, store: str) -> None:
    """The header tells; neither another tenant nor another spelling is given it."""
    with servers.serving([samples.zoo(tmp_path)], redis_url=store) as made:

        def ask(tenant: str, text: str, **headers: str) -> tuple[str, object]:
            response = made.cloud.send(
                "POST",
                "/v1/multimodal",
                json={"function": "text.count", "text": text},
                headers={"trivium-tenant": tenant, **headers},
            )
            assert response.status_code == 200, response.text
            body = response.json()
            assert body["cached"] == response.headers["trivium-cache"]
            return body["cached"], body["output"]

        text = f"one {os.urandom(4).hex()}"
        said = {"words": 2}
        for tenant in ("anna", "ben"):
            found = [settled(lambda: ask(tenant, text)) for _ in range(2)]  # noqa: B023
            assert found == [("miss", said), ("hit", said)], tenant
        assert ask("anna", text, **{"cache-control": "no-store"}) == ("bypass", said)
        assert ask("anna", text, **{"cache-control": "no-cache"}) == ("miss", said)
        for other in (text + " ", text.upper(), text.replace("one", "one\u200b")):
            assert ask("anna", other)[0] == "miss"


def settled(call: Callable[[], T]) -> T:
    """Return what a call gives, a moment after what came before it was written."""
    time.sleep(0.1)
    return call()
