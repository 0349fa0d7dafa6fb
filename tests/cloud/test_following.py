"""Tasks over a real server: asked for, heard of by many at once, and never by strangers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

import stores
from servers import work
from trivium.contract import Tier
from trivium.hosts.server.serve import Process
from trivium.hosts.server.valkey import Valkey
from trivium_cloud.ledger import Place
from trivium_cloud.listeners import MOST_WAITING
from trivium_cloud.tasks import Tasks
from working import CALLER, Site, until

HEADERS = {"authorization": "Bearer key"}


class Cloud(Site):
    """A site whose cloud answers at `url`."""

    url: str

    def client(self) -> httpx.AsyncClient:
        """Return a client that may ask."""
        return httpx.AsyncClient(base_url=self.url, headers=HEADERS, timeout=30, trust_env=False)

    def socket(self, path: str, **more: Any) -> Any:
        """Open a WebSocket."""
        return websockets.connect(self.url.replace("http", "ws") + path, proxy=None, **more)

    async def ask_for(
        self, client: httpx.AsyncClient, function: str, text: str, **more: Any
    ) -> str:
        """Have a task accepted, and return its id."""
        options = {**more, **({} if function == "text.drip" else {"marks": str(self.marks)})}
        wanted = {"function": function, "text": text, "options": options, "async": True}
        response = await client.post("/v1/multimodal", json=wanted)
        assert response.status_code == 202, response.text
        name: str = response.json()["task_id"]
        assert response.headers["location"] == f"/v1/tasks/{name}"
        return name


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Return a site with a cloud and a worker."""
    folder = tmp_path_factory.mktemp("cloud")
    with Valkey(folder / "store") as valkey:
        made = Cloud(folder, valkey.url)
        process = Process(Tier.CLOUD, "127.0.0.1", stores.port(), made.environ())
        made.url = process.url
        with process, made.worker():
            process.wait()
            yield made


def events(text: str) -> list[tuple[str, str, Any]]:
    """Return id, kind and data of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.split("\n") if line[:1] not in ("", ":")
        )
        if "event" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


def test_a_task_from_its_begin_to_its_end(cloud: Cloud) -> None:
    """As curl would do it."""

    async def play() -> None:
        async with cloud.client() as client:
            name = await cloud.ask_for(client, "text.walk", "w")
            task = (await client.get(f"/v1/tasks/{name}", params={"wait": 20})).json()
            assert (task["status"], task["error"]) == ("done", None)
            assert task["answer"]["output"] == ["W-FIRST", "W-LEFT", "W-RIGHT", "W-LAST"]
            assert [step["status"] for step in task["steps"]] == ["done"] * 4
            told = events((await client.get(f"/v1/tasks/{name}/events")).text)
            assert [kind for _, kind, _ in told] == ["state"] * 2 + ["step"] * 8 + ["state"]
            assert told[-1][2] == task
            rest = await client.get(
                f"/v1/tasks/{name}/events", headers={"last-event-id": told[-3][0]}
            )
            assert events(rest.text) == told[-2:]
            done = await client.get(
                f"/v1/tasks/{name}/events", headers={"last-event-id": told[-1][0]}
            )
            assert (done.status_code, done.text) == (204, "")
            listing = (await client.get("/v1/tasks", params={"most": 1})).json()
            assert [each["task_id"] for each in listing["tasks"]] == [name]

    work(play())


def test_what_is_wrong_is_said_as_everywhere(cloud: Cloud) -> None:
    """Problem details, and no more than that there is nothing."""

    async def play() -> None:
        async with cloud.client() as client:
            for method, path, status in (
                ("GET", "/v1/tasks/none", 404),
                ("GET", f"/v1/tasks/{'0' * 32}", 404),
                ("DELETE", f"/v1/tasks/{'0' * 32}", 404),
                ("POST", f"/v1/tasks/{'0' * 32}/ticket", 404),
                ("GET", f"/v1/tasks/{'0' * 32}/events", 404),
                ("GET", "/v1/tasks?most=0", 400),
                ("GET", "/v1/tasks?most=9999", 400),
                ("GET", "/v1/tasks?after=x", 400),
                ("GET", f"/v1/tasks/{'0' * 32}?wait=1e9", 400),
                ("GET", f"/v1/tasks/{'0' * 32}?wait=nan", 400),
                ("POST", "/v1/tasks", 405),
                ("GET", "/v1/webhooks/secret", 404),
            ):
                response = await client.request(method, path)
                assert response.status_code == status, (path, response.text)
                assert response.headers["content-type"] == "application/problem+json"
                stranger = await client.request(method, path, headers={"authorization": "Bearer x"})
                assert stranger.status_code in (400, 401, 405)
            name = await cloud.ask_for(client, "text.mark", "a")
            wrong = await client.get(f"/v1/tasks/{name}/events", headers={"last-event-id": "a b"})
            assert wrong.status_code == 400

    work(play())


def test_a_cancelled_task_by_http(cloud: Cloud) -> None:
    """Twice is as once."""

    async def play() -> None:
        async with cloud.client() as client:
            name = await cloud.ask_for(client, "text.mark", "long", seconds=20.0)
            await until(lambda: any(mark == "long" for mark, _ in cloud.begun()), "it began")
            for _ in range(2):
                response = await client.delete(f"/v1/tasks/{name}")
                assert (response.status_code, response.json()["status"]) == (200, "cancelled")

    work(play())


def test_a_websocket_tells_the_same(cloud: Cloud) -> None:
    """With credentials, or with a ticket, which is good once; strangers are told why not."""

    async def hear(connection: Any) -> list[Any]:
        found = []
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for message in connection:
                found.append(json.loads(message))
        return found

    async def play() -> None:
        async with cloud.client() as client:
            name = await cloud.ask_for(client, "text.drip", "a b", seconds=0.2)
            path = f"/v1/tasks/{name}/ws"
            async with cloud.socket(path, additional_headers=HEADERS) as connection:
                told = await hear(connection)
                assert connection.close_code == 1000
            assert [each["event"] for each in told] == ["state", "state", "part", "part", "state"]
            assert told[-1]["data"]["answer"]["output"] == ["a", "b"]
            ticket = (await client.post(f"/v1/tasks/{name}/ticket")).json()
            protocols = ["trivium", ticket["protocol"]]
            async with cloud.socket(
                f"{path}?after={told[1]['id']}", subprotocols=protocols
            ) as connection:
                assert connection.subprotocol == "trivium"
                assert [each["id"] for each in await hear(connection)] == [
                    each["id"] for each in told[2:]
                ]
            for where, more, code in (
                (path, {"subprotocols": protocols}, 4401),
                (path, {}, 4401),
                (path, {"additional_headers": {"authorization": "Bearer wrong"}}, 4401),
                (f"/v1/tasks/{'0' * 32}/ws", {"additional_headers": HEADERS}, 4404),
                (f"{path}?after=x", {"additional_headers": HEADERS}, 4400),
            ):
                async with cloud.socket(where, **more) as connection:
                    (said,) = await hear(connection)
                    assert said["event"] == "error"
                    assert said["data"]["status"] == code - 4000
                    assert connection.close_code == code

    work(play())


def test_many_hear_every_event(cloud: Cloud) -> None:
    """Over one subscription; those that come late, too."""

    async def play() -> None:
        async with cloud.client() as client:
            words = " ".join(map(str, range(20)))
            name = await cloud.ask_for(client, "text.drip", words, seconds=0.1)

            async def hear(late: float) -> list[str]:
                await asyncio.sleep(late)
                path = f"/v1/tasks/{name}/ws"
                async with cloud.socket(path, additional_headers=HEADERS) as connection:
                    return [json.loads(message)["id"] async for message in connection]

            found = await asyncio.gather(*(hear(number / 100) for number in range(100)))
            assert len(found[0]) == 23
            assert all(each == found[0] for each in found)
        async with cloud.tasks() as tasks:
            channels = await tasks.open.ledger.redis.pubsub_channels("trivium:told*")
            # The other one is this test's own.
            assert channels == [b"trivium:told"]
            assert dict(await tasks.open.ledger.redis.pubsub_numsub("trivium:told")) == {
                b"trivium:told": 2
            }

    work(play())


def test_one_who_does_not_listen_is_given_up_and_slows_nobody(cloud: Cloud) -> None:
    """He is told so, and may go on after the last event that came."""

    async def play() -> None:
        async with cloud.tasks() as tasks:
            task = await tasks.accept(CALLER, cloud.ask("text.mark", "slow", seconds=20.0))
            where = Place.of(CALLER.tenant, task.task_id)
            slow = tasks.follow(CALLER, task.task_id)
            quick = tasks.follow(CALLER, task.task_id)
            for each in (slow, quick):
                assert (await anext(each)).status == "pending"
                assert (await anext(each)).status == "running"
            waiting = [asyncio.ensure_future(anext(each)) for each in (slow, quick)]
            topics = tasks.open.listeners._topics
            await until(lambda: str(where) in topics, "they listen")
            async with asyncio.timeout(20):
                await topics[str(where)].ready.wait()
            # Then they read once more what was before.
            await asyncio.sleep(0.5)
            for number in range(MOST_WAITING + 50):
                await tasks.open.ledger.change(where, event=("part", b'{"output":1}'))
                if number == 0:
                    await asyncio.gather(*waiting)
                else:
                    async with asyncio.timeout(5):
                        await anext(quick)
            told = await anext(slow)
            assert (told.event.event, told.last) == ("error", True)
            assert told.event.data.code == "tier_overloaded"
            with pytest.raises(StopAsyncIteration):
                await anext(slow)
            await quick.aclose()
            await tasks.cancel(CALLER, task.task_id)

    work(play())


async def followed(tasks: Tasks, name: str, wanted: int) -> None:
    """Wait until so many of this process hear of a task, as the Redis has it."""
    channel = f"trivium:told:{Place.of('default', name)}"
    # A WebSocket that was cut is found out by a ping after 20 s at the latest.
    redis = tasks.open.ledger.redis
    async with asyncio.timeout(60):
        while dict(await redis.pubsub_numsub(channel))[channel.encode()] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_one_who_leaves_leaves_nothing_behind(cloud: Cloud) -> None:
    """Neither a subscription nor a listener, whether he says so or not."""

    async def play() -> None:
        async with cloud.client() as client, cloud.tasks() as tasks:
            name = await cloud.ask_for(client, "text.mark", "gone", seconds=90.0)
            for _ in range(3):
                async with client.stream("GET", f"/v1/tasks/{name}/events") as response:
                    told = response.aiter_text()
                    await anext(told)
                    await followed(tasks, name, 1)
                await followed(tasks, name, 0)
                connection = await cloud.socket(f"/v1/tasks/{name}/ws", additional_headers=HEADERS)
                await connection.recv()
                await followed(tasks, name, 1)
                connection.transport.abort()
                await followed(tasks, name, 0)
            await client.delete(f"/v1/tasks/{name}")

    work(play())


def test_one_who_is_cut_short_leaves_nothing_behind(cloud: Cloud) -> None:
    """Cancelled again while he leaves, as often as one likes."""

    async def play() -> None:
        async with cloud.client() as client, cloud.tasks() as tasks:
            name = await cloud.ask_for(client, "text.mark", "cut", seconds=90.0)

            async def listen() -> None:
                async for _ in tasks.events(CALLER, name):
                    pass

            for times in range(1, 12):
                listening = asyncio.ensure_future(listen())
                await followed(tasks, name, 1)
                for _ in range(times):
                    listening.cancel()
                    await asyncio.sleep(0)
                await asyncio.wait({listening})
                await followed(tasks, name, 0)
            await client.delete(f"/v1/tasks/{name}")

    work(play())


def test_a_restarted_store_is_heard_again(tmp_path: Path) -> None:
    """What happened meanwhile is told once it is back."""

    async def play() -> None:
        async with site.tasks() as tasks:
            task = await tasks.accept(CALLER, site.ask("text.drip", "a b c d e f", seconds=0.3))
            found = []
            async for event in tasks.events(CALLER, task.task_id):
                found.append(event)
                if len(found) == 4:
                    valkey.kill()
                    valkey.start()
                    await asyncio.to_thread(valkey.wait)
            parts = [json.loads(bytes(each.data)) for each in found if each.event == "part"]
            assert [part["output"] for part in parts] == [*"abcdef"]
            assert found[-1].data.status == "done"

    with Valkey(tmp_path / "store") as valkey:
        site = Site(tmp_path, valkey.url)
        with site.worker():
            work(play())
