"""What is given again, to whom, for how long, and what happens when the stores fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from redis.asyncio import Redis

import samples
import servers
import stores
import toys
from trivium.contract import Answer, Ask, Blob, Budget, Tier
from trivium.errors import BudgetError, NotAllowed, RunFailed, TierError, TriviumError
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.server import Server
from trivium.hosts.server.valkey import Valkey
from trivium.run import Step
from trivium_cloud import cache, names, shelves
from trivium_cloud.cache import Cache
from trivium_cloud.settings import Settings

T = TypeVar("T")

ANNA = Caller(tenant="anna")
BEN = Caller(tenant="ben")

SEEDED = """
from trivium import Text, function

@function("text.seeded")
async def seeded(text: Text, seed: int | None = None) -> str:
    return str(text)
"""

VECTOR = """
from array import array
from trivium import Text, function

@function("text.embed")
async def embed(text: Text) -> list[float]:
    return array("f", [len(text) / 3, 0.25]).tolist()
"""

SHY = """
from trivium import Text, function

@function("text.shy")
async def shy(text: Text) -> str:
    return str(text)
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return functions that may be kept, and some that may not."""
    folder = samples.zoo(tmp_path_factory.mktemp("zoo"))
    seed = toys.manifest("text.seeded", "seeded", options=(samples.SEED,))
    toys.bundle(folder, SEEDED, seed)
    toys.bundle(folder, VECTOR, toys.manifest("text.embed", "embed"))
    toys.bundle(folder, SHY, toys.manifest("text.shy", "shy", settings={"cache": False}))
    return folder


@pytest.fixture(scope="module", params=["valkey", "redis-server"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a real store, for tests that leave it as it is."""
    if request.param == "valkey":
        with Valkey(tmp_path_factory.mktemp("valkey")) as valkey:
            yield valkey.url
        return
    if not stores.found("redis-server"):
        pytest.skip("Debian's redis-server is not here")
    with stores.redis_server() as address:
        yield address


class Place:
    """A cloud server's cache, and how often its functions really ran."""

    def __init__(self, server: Server, kept: Cache) -> None:
        self.server = server
        self.cache = kept
        self.ran = 0
        self.slow = 0.0
        self.error: Exception | None = None

    async def ask(
        self, ask: Ask, caller: Caller = ANNA, control: str = "", whole: bool = True
    ) -> Answer:
        """Return what the cache gives."""

        async def run() -> Answer:
            self.ran += 1
            await asyncio.sleep(self.slow)
            if self.error:
                raise self.error
            return await self.server.engine.infer(ask)

        found = await self.cache.results(caller, ask, run, control, lambda: whole)
        await self.settled()
        return found

    async def settled(self) -> None:
        """Wait until all is written."""
        while tasks := {task for task in self.cache._later if not task.done()}:
            await asyncio.wait(tasks)


@asynccontextmanager
async def place(bundles: Path, url: str, **fields: Any) -> AsyncIterator[Place]:
    """Open a server's cache."""
    server = Server(Tier.CLOUD, [bundles], toys.trust())
    given = Settings(bundles=(bundles,), keys=(), redis_url=url, **fields)
    made = Place(server, Cache(server, given))
    try:
        yield made
    finally:
        await made.cache.close()
        server.host.close()


def count(text: str = "", **fields: Any) -> Ask:
    """Return an ask; its text is new each time unless it is given."""
    return Ask(function="text.count", inputs={"text": text or os.urandom(8).hex()}, **fields)


def work(made: Callable[[], Awaitable[None]]) -> None:
    """Run what a test does."""

    async def all_of_it() -> None:
        await made()

    asyncio.run(all_of_it())


def test_an_answer_is_given_again(bundles: Path, url: str) -> None:
    """The same output, said to be kept, at no price, with this ask's own trace."""

    async def test() -> None:
        async with place(bundles, url) as here:
            ask = count()
            first, again = await here.ask(ask), await here.ask(ask)
            assert (first.cached, again.cached, here.ran) == ("miss", "hit", 1)
            assert (again.output, again.version) == (first.output, first.version)
            assert (again.spent, again.expected) == (0.0, None)
            assert again.trace
            assert again.trace != first.trace
            assert "was kept; then: " in again.plan.reason

    work(test)


def test_what_is_the_same_is_one_and_what_differs_is_not(bundles: Path, url: str) -> None:
    """Defaults and their order don't count; every byte, option, tenant and version does."""

    async def test() -> None:
        async with place(bundles, url) as here:
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


def test_names_cannot_be_made_to_collide() -> None:
    """What moves from one field to the next, or only looks alike, is another name."""
    of = ("text.count", "digest", (), ("cloud", "m", "1"), {"a": 1}, (0.0, ()))

    def name(tenant: str = "t", of: Any = of, **inputs: Any) -> str | None:
        return names.digest(tenant, Ask(function="f", inputs=inputs), of, {})

    blob = Blob(media="image/png", data=b"x")
    different = [
        name(),
        name("t\0"),
        name("T"),
        name(a="b"),
        name(b="a"),
        name(a="b", c=""),
        name(a="bc"),
        name(**{"a\0": "b"}),
        name(a=blob),
        name(a=Blob(media="image/PNG", data=b"x")),
        name(a=Blob(media="image/pn", data=b"gx")),
        name(a=Blob(media="", data=b"image/pngx")),
        name(a="x"),
        name(of=(*of[:4], {"a": "1"}, of[5])),
        name(of=(*of[:4], {"a": True}, of[5])),
        name(of=(*of[:4], {"a": 1.0}, of[5])),
        name(of=(*of[:4], {"a": None}, of[5])),
        name(of=(*of[:4], {"a": float("nan")}, of[5])),
        name(of=(*of[:4], {"a": [1]}, of[5])),
        name(of=(*of[:4], {"a": 1, "b": None}, of[5])),
        name(of=(*of[:4], {}, of[5])),
        name(of=(*of[:5], (0.0, (Tier.CLOUD,)))),
    ]
    assert len(set(different)) == len(different)
    # The order in which a caller writes things is no difference.
    assert name(a="1", b="2") == name(b="2", a="1")
    assert name(of=(*of[:4], {"x": 1, "y": 2}, of[5])) == name(
        of=(*of[:4], {"y": 2, "x": 1}, of[5])
    )


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.text(max_size=3), JSON_VALUES),
    st.dictionaries(st.text(max_size=3), JSON_VALUES),
)
def test_two_asks_have_one_name_only_if_they_are_equal(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Whatever their options."""

    def name(options: dict[str, Any]) -> str | None:
        return names.digest("t", Ask(), ("f", options), {})

    if name(one) == name(other):
        assert repr(sorted(one.items())) == repr(sorted(other.items())) or one == other


def test_what_may_not_be_kept_is_not(bundles: Path, url: str) -> None:
    """By the caller's word, its reach, the function's own, or because each answer is another."""

    async def test() -> None:
        async with place(bundles, url) as here:
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
    bundles: Path, url: str
) -> None:
    """And when the time is up; the caller's own mistakes are still told."""

    async def test() -> None:
        async with place(bundles, url, cache_s=0.2, stale_s=30.0) as here:
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


def test_of_equal_asks_one_is_run(bundles: Path, url: str) -> None:
    """By one process, or by two."""

    async def test() -> None:
        async with place(bundles, url) as here, place(bundles, url) as there:
            here.slow = there.slow = 0.2
            ask = count()
            asked = (each.ask(ask) for each in (here, there) for _ in range(50))
            found = await asyncio.gather(*asked)
            assert here.ran + there.ran == 1
            assert sorted({each.cached for each in found}) == ["hit", "miss"]
            assert [each.cached for each in found].count("miss") == 1
            assert len({each.trace for each in found}) == len(found)

    work(test)


def test_who_goes_away_takes_nobody_along(bundles: Path, url: str) -> None:
    """The first to ask may leave, or have less time; when all left, nothing runs on."""

    async def test() -> None:
        async with place(bundles, url) as here:
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
    bundles: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its lease has ended, and not before."""
    monkeypatch.setattr(cache, "LEASE_S", 0.3)

    async def test() -> None:
        async with place(bundles, url) as here:
            ask = count()
            wanted = await here.cache._name(ANNA, ask, {})
            assert wanted is not None
            redis = Redis.from_url(url)
            await redis.set(wanted.lock, "one that was killed", px=300)
            begun = asyncio.get_running_loop().time()
            assert (await here.ask(ask)).cached == "miss"
            assert asyncio.get_running_loop().time() - begun >= 0.25
            # One that lives keeps it for longer than a lease.
            here.slow = 0.8
            async with place(bundles, url) as there:
                ask = count()
                found = await asyncio.gather(here.ask(ask), there.ask(ask))
                assert (here.ran - 1, there.ran) in ((1, 0), (0, 1))
                assert sorted(each.cached for each in found) == ["hit", "miss"]
            await redis.aclose()

    work(test)


def test_a_failure_is_not_kept(bundles: Path, url: str) -> None:
    """All who wait for it are told; the next ask runs, and at once."""

    async def test() -> None:
        async with place(bundles, url) as here:
            here.slow, here.error = 0.05, RunFailed("down")
            ask = count()
            found = await asyncio.gather(*(here.ask(ask) for _ in range(9)), return_exceptions=True)
            assert [type(each) for each in found] == [RunFailed] * 9
            assert here.ran == 1
            here.error = None
            assert (await here.ask(ask)).cached == "miss"

    work(test)


def test_entries_that_were_tampered_with_are_made_anew(bundles: Path, url: str) -> None:
    """Random bytes, half an entry, one of another name, another type: none of them is given."""

    async def test() -> None:
        async with place(bundles, url) as here:
            redis = Redis.from_url(url)
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


def test_a_changed_bundle_has_no_answers_yet(tmp_path: Path, url: str) -> None:
    """Even if it says that it is the same version, and whatever the old one still finds."""

    async def test() -> None:
        async with place(samples.zoo(tmp_path), url) as here:
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


def test_without_a_store_asks_are_answered(bundles: Path) -> None:
    """None set, or none there."""

    async def test() -> None:
        for url in ("", f"redis://127.0.0.1:{stores.port()}/0"):
            async with place(bundles, url) as here:
                ask = count()
                assert [(await here.ask(ask)).cached for _ in range(6)] == ["bypass"] * 6
        async with place(bundles, url, cache_s=0.0) as here:
            assert (await here.ask(count())).cached == "bypass"

    work(test)


def test_a_store_that_is_killed_stopped_or_emptied_costs_answers_nothing(
    bundles: Path, tmp_path: Path
) -> None:
    """They go on without; when it is back, it is used again."""

    async def test() -> None:
        with Valkey(tmp_path) as valkey:
            async with place(bundles, valkey.url) as here:
                ask = count("a b")

                async def settled(cached: str) -> None:
                    for _ in range(100):
                        if (await here.ask(ask)).cached == cached:
                            return
                        await asyncio.sleep(0.05)
                    raise AssertionError(f"never a {cached}")

                assert [(await here.ask(ask)).cached for _ in range(2)] == ["miss", "hit"]
                # Killed in the middle of a run: the answer is there all the same.
                here.slow = 0.2
                asked = asyncio.ensure_future(here.ask(count("c")))
                await asyncio.sleep(0.1)
                valkey.kill()
                assert (await asked).output == {"words": 1}
                here.slow = 0.0
                assert [(await here.ask(ask)).cached for _ in range(9)] == ["bypass"] * 9
                stores.emptied(valkey, tmp_path)
                await settled("hit")
                with stores.stopped(valkey):
                    found = [(await here.ask(ask)) for _ in range(30)]
                    assert {each.cached for each in found} == {"bypass"}
                    # Some waited with all their patience, the others asked no more.
                    assert 3 <= here.cache._breaker._failures <= 8
                await settled("hit")

    work(test)


def embed(text: str) -> Ask:
    """Return an ask for a vector."""
    return Ask(function="text.embed", inputs={"text": text})


def test_vectors_are_kept_as_numbers(bundles: Path, url: str) -> None:
    """Four bytes each, given again to the same bit, and to their tenant alone."""

    async def test() -> None:
        async with place(bundles, url) as here:
            ask = embed("a" + os.urandom(4).hex())
            first, again = await here.ask(ask), await here.ask(ask)
            assert (first.cached, again.cached, here.ran) == ("miss", "hit", 1)
            assert again.output == first.output
            assert (again.version, again.model) == (first.version, first.model)
            assert (await here.ask(ask, BEN)).cached == "miss"
            wanted = await here.cache._name(ANNA, ask, {})
            assert wanted is not None
            redis = Redis.from_url(url)
            assert len(await redis.get(wanted.name) or b"") == 16 + 2 * 4
            await redis.set(wanted.name, os.urandom(24))
            assert (await here.ask(ask)).output == first.output
            await redis.aclose()

    work(test)


@pytest.mark.skipif(not stores.found("memcached"), reason="Debian's memcached is not here")
def test_vectors_are_kept_in_memcached(bundles: Path) -> None:
    """Which may be killed, stopped and started again."""

    async def test() -> None:
        with stores.memcached() as memcached:
            url = f"memcached://127.0.0.1:{memcached.port}"
            async with place(bundles, "", memcached_url=url) as here:
                ask = embed("a text")
                assert [(await here.ask(ask)).cached for _ in range(2)] == ["miss", "hit"]
                many = [embed(f"a text of {number}") for number in range(50)]
                await asyncio.gather(*(here.ask(each) for each in many))
                found = await asyncio.gather(*(here.ask(each) for each in many))
                assert {each.cached for each in found} == {"hit"}
                assert [each.output[0] for each in found] == [
                    toys.run(
                        here.server.engine.functions["text.embed"]["1.0.0"].call(
                            each.inputs["text"]
                        )
                    )[0]
                    for each in many
                ]
                memcached.kill()
                for _ in range(9):
                    assert (await here.ask(ask)).cached == "miss"
                memcached.start()
                memcached.wait()
                for _ in range(100):
                    if (await here.ask(ask)).cached == "hit":
                        break
                    await asyncio.sleep(0.05)
                with stores.stopped(memcached):
                    for _ in range(20):
                        assert (await here.ask(ask)).cached == "miss"
                    # So few waited for it; all would have.
                    assert isinstance(here.cache._vectors, shelves.InMemcached)
                    assert here.cache._vectors._breaker._failures <= 10

    work(test)


async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever comes with what no store says, then leave."""
    await reader.read(10)
    writer.write(b"VALUE x 0 99999999999\r\n" if os.urandom(1)[0] % 2 else b"\x00\xff" * 40_000)
    writer.close()


def test_a_store_that_talks_nonsense_is_none(bundles: Path) -> None:
    """Neither as a Redis nor as a Memcached."""

    async def test() -> None:
        server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        both = {"memcached_url": f"memcached://127.0.0.1:{port}"}
        async with place(bundles, f"redis://127.0.0.1:{port}", **both) as here:
            for _ in range(5):
                assert (await here.ask(count("a"))).output == {"words": 1}
                assert (await here.ask(embed("a"))).cached == "miss"
        server.close()

    work(test)


def test_the_address_of_a_memcached_is_checked(bundles: Path) -> None:
    """At start."""
    server = Server(Tier.CLOUD, [bundles], toys.trust())
    for wrong in ("localhost:11211", "redis://localhost", "memcached://"):
        with pytest.raises(ValueError, match="it should be such as memcached://HOST:11211"):
            Cache(server, Settings(bundles=(), keys=(), memcached_url=wrong))
    server.host.close()


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
    tmp_path: Path, url: str
) -> None:
    """A known vector is asked nobody for; nothing is kept of a run in which a step failed."""

    async def test() -> None:
        folder = samples.zoo(tmp_path)
        toys.bundle(folder, VECTOR, toys.manifest("text.embed", "embed"))
        toys.bundle(folder, PAIR, toys.manifest("text.pair", "pair", asks=True))
        async with place(folder, url) as here:
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
    bundles: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next takes over when the lease ends; while it lived, it was waited for."""
    monkeypatch.setattr(cache, "LEASE_S", 0.5)
    text = os.urandom(8).hex()
    command = [sys.executable, "-c", HOLDS, str(bundles), url, text, str(toys.keys())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"running\n"

        async def test() -> None:
            async with place(bundles, url) as here:
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


def test_over_http_a_tenant_is_given_its_own(tmp_path: Path, url: str) -> None:
    """The header tells; neither another tenant nor another spelling is given it."""
    with servers.serving([samples.zoo(tmp_path)], redis_url=url) as made:

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
