"""Tasks: accepted, done, asked after, cancelled, forgotten; by a real worker over a real store."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from servers import work
from stores import STORES, store
from trivium.contract import Ask, Fault
from trivium.errors import (
    BadInput,
    Conflict,
    NotAllowed,
    NotFound,
    QuotaExceeded,
    TierError,
    Unauthenticated,
)
from trivium.hosts.server.callers import Caller, Limits
from trivium.hosts.server.task import Task
from trivium.trace import Span, Tracer
from trivium_cloud.ledger import Place
from trivium_cloud.settings import Settings
from trivium_cloud.store import key
from trivium_cloud.tasks import Tasks
from trivium_cloud.worker import working
from working import CALLER, Site, until

OTHER = Caller(tenant="other")


def json(value: Any) -> Any:
    """Return what was told as plain data."""
    return msgspec.json.decode(msgspec.json.encode(value))


@pytest.fixture(scope="module", params=STORES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Return a site with one worker."""
    folder = tmp_path_factory.mktemp("site")
    with store(request.param, folder / "store") as url:
        made = Site(folder, url)
        with made.worker():
            yield made


def test_a_task_is_accepted_done_and_told_of(site: Site) -> None:
    """With its steps, each of which says how it went."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.nest", "a"))
            assert (task.status, task.answer, task.steps) == ("pending", None, ())
            done = await tasks.wait(CALLER, task.task_id, 20)
            assert done.status == "done", done.error
            assert done.answer is not None
            assert done.answer.output == ["A-FIRST", "A-LEFT", "A-RIGHT", "A-LAST", "A-OUTER"]
            assert {step.name: step.status for step in done.steps} == dict.fromkeys(
                ("inner", "inner/text.mark", "inner/left", "inner/right", "inner/last", "outer"),
                "done",
            )
            assert done.created <= done.started <= done.ended < done.expires  # type: ignore[operator]

    work(play())


def test_a_key_stands_for_one_task(site: Site) -> None:
    """The same content gives the same task, another one is refused; each tenant has its own."""

    async def play() -> None:
        async with site.tasks() as tasks:
            ask = site.ask("text.mark", "once")
            one = await tasks.accept(CALLER, ask, idempotency="k:1")
            two = await tasks.accept(CALLER, ask, idempotency="k:1")
            assert one.task_id == two.task_id
            await tasks.wait(CALLER, one.task_id, 20)
            three = await tasks.accept(CALLER, ask, idempotency="k:1")
            assert (three.task_id, three.status) == (one.task_id, "done")
            with pytest.raises(Conflict, match="another request"):
                await tasks.accept(CALLER, site.ask("text.mark", "other"), idempotency="k:1")
            with pytest.raises(Conflict):
                await tasks.accept(CALLER, ask, idempotency="k:1", seconds=5)
            other = await tasks.accept(OTHER, ask, idempotency="k:1")
            assert other.task_id != one.task_id
            await tasks.wait(OTHER, other.task_id, 20)
        assert sum(mark == "once" for mark, _ in site.begun()) == 2

    work(play())


def test_many_requests_at_once_with_one_key_are_one_task(site: Site) -> None:
    """Whichever comes first."""

    async def play() -> None:
        async with site.tasks() as tasks:
            ask = site.ask("text.mark", "race")
            found = await asyncio.gather(
                *(tasks.accept(CALLER, ask, idempotency="race") for _ in range(20))
            )
            assert len({task.task_id for task in found}) == 1
            await tasks.wait(CALLER, found[0].task_id, 20)
        assert sum(mark == "race" for mark, _ in site.begun()) == 1

    work(play())


def test_what_a_task_may_not_be(site: Site) -> None:
    """Each refusal says what is allowed."""

    async def play() -> None:
        async with site.tasks() as tasks:
            ask = site.ask("text.mark", "a")
            for seconds in (0.0, -1.0, 1e9, float("nan")):
                with pytest.raises(BadInput, match="86400 s"):
                    await tasks.accept(CALLER, ask, seconds=seconds)
            for key in ("a\tb", "ä", "x" * 256, "a\n"):
                with pytest.raises(BadInput, match="255"):
                    await tasks.accept(CALLER, ask, idempotency=key)
            with pytest.raises(BadInput, match="WEBHOOK_SECRET"):
                await tasks.accept(CALLER, ask, webhook="https://example.com/")
            with pytest.raises(NotAllowed, match="tasks"):
                await tasks.accept(Caller(tenant="default", scopes=frozenset({"infer"})), ask)
            few = Caller(tenant="few", limits=Limits(tasks=1))
            first = await tasks.accept(few, site.ask("text.mark", "a", seconds=30.0))
            with pytest.raises(QuotaExceeded, match="1 tasks are open"):
                await tasks.accept(few, ask)
            await tasks.cancel(few, first.task_id)
            await tasks.wait(few, (await tasks.accept(few, ask)).task_id, 20)
            await tasks.accept(few, ask)

    work(play())


def test_what_a_masked_task_gives_is_hidden_before_it_is_kept(site: Site) -> None:
    """Its answer, and the parts of one: those are not told at all. An error is hidden for all."""

    async def play() -> None:
        masked = Caller(tenant="masked", masked=True)
        async with site.tasks() as tasks:
            ask = site.ask("text.mark", "tel +44 20 7946 0958")
            task = await tasks.accept(masked, ask)
            done = await tasks.wait(masked, task.task_id, 20)
            assert done.answer is not None
            assert done.answer.output == "TEL [phone]"
            plain = await tasks.accept(CALLER, ask)
            shown = await tasks.wait(CALLER, plain.task_id, 20)
            assert shown.answer is not None
            assert shown.answer.output == "TEL +44 20 7946 0958"
            pieces = Ask(function="text.drip", inputs={"text": "write anna@b.example now"})
            task = await tasks.accept(masked, pieces)
            told = [event.event async for event in tasks.events(masked, task.task_id)]
            assert "part" not in told
            found = (await tasks.get(masked, task.task_id)).answer
            assert found is not None
            assert "b.example" not in repr(found.output)
            slow = await tasks.accept(CALLER, site.ask("text.mark", "slow", seconds=30.0))
            place = Place.of(CALLER.tenant, slow.task_id)
            error = Fault(code="bad_input", message="no number: +44 20 7946 0958")
            await tasks.open.ledger.end(place, "failed", error=error)
            failed = (await tasks.get(CALLER, place.task_id)).error
            assert failed is not None
            assert failed.detail == "no number: [phone]"

    work(play())


def test_another_tenants_task_is_none(site: Site) -> None:
    """Neither seen nor cancelled, nor heard of; and so is what can't be a task."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.mark", "own"))
            await tasks.wait(CALLER, task.task_id, 20)
            for caller, task_id in (
                (OTHER, task.task_id),
                (CALLER, "0" * 32),
                (CALLER, "*"),
                (CALLER, f"{task.task_id}:found"),
                (CALLER, task.task_id.upper() + "A"),
            ):
                for call in (tasks.get, tasks.cancel, tasks.ticket):
                    with pytest.raises(NotFound, match="there is no task"):
                        await call(caller, task_id)
                with pytest.raises(NotFound):
                    await anext(tasks.events(caller, task_id))
            assert (await tasks.list(Caller(tenant="nobody"))).tasks == ()

    work(play())


def test_tasks_are_listed_newest_first_and_by_pages(site: Site) -> None:
    """None twice, none left out, without their answers."""

    async def play() -> None:
        async with site.tasks() as tasks:
            caller = Caller(tenant="lister")
            made = [
                await tasks.accept(caller, site.ask("text.mark", f"n{number}"))
                for number in range(7)
            ]
            for task in made:
                await tasks.wait(caller, task.task_id, 20)
            found: list[Task] = []
            after = ""
            while True:
                listing = await tasks.list(caller, after, 3)
                found += listing.tasks
                if listing.next is None:
                    break
                after = listing.next
            assert [task.task_id for task in found] == [task.task_id for task in reversed(made)]
            assert all(task.answer is None and task.status == "done" for task in found)

    work(play())


def test_a_cancelled_task_stops(site: Site) -> None:
    """Running or not; one that has ended stays as it is, and what is done is not undone."""

    async def play() -> None:
        async with site.tasks() as tasks:
            running = await tasks.accept(CALLER, site.ask("text.walk", "stop", seconds=1.0))
            await until(lambda: any(mark == "stop-first" for mark, _ in site.begun()), "it began")
            stopped = await tasks.cancel(CALLER, running.task_id)
            assert (stopped.status, stopped.answer) == ("cancelled", None)
            assert (await tasks.cancel(CALLER, running.task_id)) == stopped
            done = await tasks.accept(CALLER, site.ask("text.mark", "quick"))
            await tasks.wait(CALLER, done.task_id, 20)
            assert (await tasks.cancel(CALLER, done.task_id)).status == "done"
            await asyncio.sleep(1.5)
            assert (await tasks.get(CALLER, running.task_id)).status == "cancelled"
            last = [event async for event in tasks.events(CALLER, running.task_id)][-1]
            assert last.data.status == "cancelled"
        assert [mark for mark, _ in site.begun() if mark.startswith("stop")] == ["stop-first"]

    work(play())


def test_a_task_expires_at_its_deadline(site: Site) -> None:
    """What is done for it stops then."""

    async def play() -> None:
        async with site.tasks() as tasks:
            late = await tasks.accept(
                CALLER, site.ask("text.walk", "late", seconds=0.8), seconds=1.2
            )
            ended = await tasks.wait(CALLER, late.task_id, 20)
            assert ended.status == "expired"
            assert ended.error is not None
            assert (ended.error.code, ended.error.detail) == (
                "over_budget",
                "the task was not done within its 1 s",
            )
            await asyncio.sleep(1.0)
        marks = {mark for mark, _ in site.begun() if mark.startswith("late")}
        assert marks == {"late-first", "late-left", "late-right"}

    work(play())


def test_a_failure_says_what_failed(site: Site) -> None:
    """The function's own, and one of a step."""

    async def play() -> None:
        async with site.tasks() as tasks:
            for name, code in (("text.mark", "run_failed"), ("text.none", "unknown_function")):
                ask = site.ask(name, "f", fail=True)
                task = await tasks.accept(CALLER, ask)
                ended = await tasks.wait(CALLER, task.task_id, 20)
                assert (ended.status, ended.answer) == ("failed", None)
                assert ended.error is not None
                assert ended.error.code == code

    work(play())


def test_parts_are_told_as_they_come(site: Site) -> None:
    """And again to whoever comes later, or goes on after one."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.drip", "a b c", seconds=0.1))
            live = [event async for event in tasks.events(CALLER, task.task_id)]
            told = [(event.event, json(event.data)) for event in live]
            assert told[:-1] == [
                ("state", {"status": "pending", "runs": 0}),
                ("state", {"status": "running", "runs": 1}),
                *(("part", {"output": each}) for each in "abc"),
            ]
            assert (told[-1][1]["status"], told[-1][1]["answer"]["output"]) == ("done", [*"abc"])
            later = [event async for event in tasks.events(CALLER, task.task_id)]
            assert [event.id for event in later] == [event.id for event in live]
            rest = [event async for event in tasks.events(CALLER, task.task_id, live[2].id)]
            assert [event.id for event in rest] == [event.id for event in live[3:]]

    work(play())


def test_a_large_input_is_kept_as_long_as_its_task_is_open(site: Site) -> None:
    """And no longer: nor one that was refused, or known already."""

    async def play() -> None:
        async with site.tasks() as tasks:
            redis = tasks.open.ledger.redis
            text = "word " * 30_000
            ask = site.ask("text.drip", text, seconds=30.0)
            task = await tasks.accept(CALLER, ask, idempotency="large")
            await tasks.accept(CALLER, ask, idempotency="large")
            (kept,) = [key async for key in redis.scan_iter("trivium:task:*:inputs")]
            assert kept.decode() == Place.of(CALLER.tenant, task.task_id).key("inputs")
            other = site.ask("text.drip", text + "!")
            few = Caller(tenant="few", limits=Limits(held=100_000))
            with pytest.raises(Conflict):
                await tasks.accept(CALLER, other, idempotency="large")
            with pytest.raises(QuotaExceeded, match="would hold more than 100000"):
                await tasks.accept(few, ask)
            await tasks.cancel(CALLER, task.task_id)
            assert await redis.hget(kept.removesuffix(b":inputs"), "ask") is None
            assert [key async for key in redis.scan_iter("trivium:task:*:inputs")] == []
            task = await tasks.accept(CALLER, site.ask("text.mark", "x" * 100_000))
            ended = await tasks.wait(CALLER, task.task_id, 20)
            assert ended.answer is not None
            assert ended.answer.output == "X" * 100_000

    work(play())


def test_a_tenant_holds_only_so_much(site: Site) -> None:
    """All of its open tasks together; whatever ends, or whose time is over, makes room."""

    async def play() -> None:
        many = Caller(tenant="many", limits=Limits(held=250_000))
        ask = site.ask("text.drip", "w" * 100_000 + " w", seconds=30.0)
        async with site.tasks() as tasks:
            made = [await tasks.accept(many, ask) for _ in range(2)]
            with pytest.raises(QuotaExceeded, match="would hold more than 250000") as failed:
                await tasks.accept(many, ask)
            assert failed.value.retry_after
            await tasks.accept(OTHER, ask)  # another's room is its own
            await tasks.cancel(many, made[0].task_id)
            short = await tasks.accept(many, ask, seconds=0.3)
            with pytest.raises(QuotaExceeded):
                await tasks.accept(many, ask)
            await tasks.wait(many, short.task_id, 20)
            last = await tasks.accept(many, ask)
            for task in (made[1], last):
                await tasks.cancel(many, task.task_id)
            held = key("held", Place.of("many", last.task_id).tenant)
            assert await tasks.open.ledger.redis.hgetall(held) == {b"all": b"0"}

    work(play())


def test_each_state_of_a_task_is_a_span(tmp_path: Path) -> None:
    """In its request's trace: how long it was pending, how long it ran, and its steps below."""
    spans: list[Span] = []
    trace = f"00-{'a' * 32}-{'b' * 16}-01"

    def asked(name: str, **options: Any) -> Ask:
        return replace(made.ask(name, "a", **options), trace=trace)

    def states(name: str) -> list[tuple[str, str]]:
        return [
            (each.name.partition(" ")[0], each.attributes["trivium.state"])
            for each in spans
            if each.name in (f"pending {name}", f"running {name}")
        ]

    async def play() -> None:
        tasks = Tasks(made.settings, Tracer("cloud", spans.append))
        async with tasks.running():
            gone = await tasks.accept(CALLER, asked("text.drip"))
            await tasks.cancel(CALLER, gone.task_id)
            late = await tasks.accept(CALLER, asked("text.mark"), seconds=0.1)
            async with working(made.settings, spans.append):
                walked = await tasks.accept(CALLER, asked("text.walk"))
                assert (await tasks.wait(CALLER, walked.task_id, 30)).status == "done"
                assert (await tasks.wait(CALLER, late.task_id, 30)).status == "expired"
                nested = await tasks.accept(CALLER, asked("text.nest", seconds=30.0))
                async for event in tasks.events(CALLER, nested.task_id):
                    if event.event == "step":
                        break
                await tasks.cancel(CALLER, nested.task_id)
                async with asyncio.timeout(30):
                    while len(states("text.nest")) < 2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

    with store("valkey", tmp_path / "store") as url:
        made = Site(tmp_path, url)
        work(play())
    assert {each.trace_id for each in spans} == {"a" * 32}
    assert states("text.drip") == [("pending", "cancelled")]
    assert states("text.walk") == [("pending", "running"), ("running", "done")]
    assert states("text.mark")[-1][1] == "expired"
    assert states("text.nest") == [("pending", "running"), ("running", "cancelled")]
    named = {each.name: each for each in spans}
    running, pending = named["running text.walk"], named["pending text.walk"]
    assert {running.parent_id, pending.parent_id} == {"b" * 16}
    assert pending.start_ns < pending.end_ns <= running.end_ns
    above = {each.span_id: each for each in spans}
    step = next(each for each in spans if each.name == "infer text.walk")
    while step.parent_id in above:
        step = above[step.parent_id]
    assert step is running


def test_nothing_is_kept_for_ever(site: Site) -> None:
    """Every key has a time to live, but the queue's own few."""

    async def play() -> None:
        async with site.tasks() as tasks:
            redis = tasks.open.ledger.redis
            async for key in redis.scan_iter("trivium:*"):
                if not key.startswith(b"trivium:work:"):
                    assert await redis.ttl(key) > 0, key

    work(play())


def test_a_ticket_is_good_once_and_for_one_task(site: Site) -> None:
    """And lets its bearer do no more than the caller could, with tasks alone."""

    async def play() -> None:
        async with site.tasks() as tasks:
            one = await tasks.accept(CALLER, site.ask("text.mark", "t"))
            ticket = await tasks.ticket(CALLER, one.task_id)
            found = await tasks.redeem(ticket, one.task_id)
            assert (found.tenant, found.scopes) == (CALLER.tenant, frozenset({"tasks"}))
            with pytest.raises(Unauthenticated):
                await tasks.redeem(ticket, one.task_id)
            again = await tasks.ticket(CALLER, one.task_id)
            for wrong in ("", "*", again + "x"):
                with pytest.raises(Unauthenticated):
                    await tasks.redeem(wrong, one.task_id)
            with pytest.raises(Unauthenticated):
                await tasks.redeem(again, "0" * 32)

    work(play())


def test_what_a_stranger_puts_on_the_queue_runs_nothing(site: Site, tmp_path: Path) -> None:
    """A pickle, for one: it is not read as such; and the worker goes on."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "owned",))

    async def play() -> None:
        async with site.tasks() as tasks:
            message = {
                **{"key": "x", "when": "2026-01-01T00:00:00+00:00", "function": "run"},
                **{"args": pickle.dumps((Evil(),)), "kwargs": pickle.dumps({})},
                **{"attempt": "1", "generation": "0"},
            }
            await tasks.open.ledger.redis.xadd("trivium:work:stream", message)
            await asyncio.sleep(0.5)
        assert not (tmp_path / "owned").exists()

    work(play())


def test_without_a_store_tasks_are_refused_plainly(tmp_path: Path) -> None:
    """All else goes on."""

    async def play() -> None:
        tasks = Tasks(Settings(bundles=(tmp_path,), keys=()))
        async with tasks.running():
            with pytest.raises(TierError, match="TRIVIUM_REDIS_URL"):
                await tasks.accept(CALLER, Ask(function="text.mark"))
        away = Tasks(Settings(bundles=(tmp_path,), keys=(), redis_url=f"unix://{tmp_path}/none"))
        async with away.running():
            with pytest.raises(TierError, match="try again"):
                await away.accept(CALLER, Ask(function="text.mark"))

    work(play())
