"""A program asks through a real gateway: tasks, events, WebSockets, uploads, and a cloud away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shlex
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import samples
import stores
import toys
import working
from servers import CLOUD_KEY, KEY, listening
from trivium import Budget, Client, TriviumError
from trivium.contract import Input
from trivium.errors import NotFound
from trivium_cloud.app import create_app as create_cloud
from trivium_cloud.settings import Settings as CloudSettings
from trivium_edge.app import create_app as create_edge
from trivium_edge.settings import Settings as EdgeSettings

DEFAULTS = "text=text.count,image=image.size,image+text=mixed.both"

BOTH = """
from trivium import Image, Text, function

@function("mixed.both")
async def both(image: Image, text: Text) -> dict:
    return {"size": list(image.pixels.shape[:2]), "text": str(text)}
"""

EXAMPLES = """
curl -X POST \u201chttps://api.example.com/v1/multimodal\u201c \\
-H \u201cContent-Type: application/json\u201d \\
-d \u2018{\u201cimage\u201d:\u201dbase64\u2026\u201d, \
\u201ctext\u201d:\u201d\u63cf\u8ff0\u2026\u201d, \u201casync\u201d:true}\u2019
---
curl \u201chttps://api.example.com/v1/tasks/abc123\u201c
"""
"""The document's own, with the quotation marks that its typesetter made."""


def command(example: str, here: str) -> list[str]:
    """Return an example as a shell reads it, with host and credentials added."""
    plain = str.maketrans({"\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'"})
    line = example.translate(plain).replace("\\\n", " ")
    words = shlex.split(line.replace("https://api.example.com", here))
    return [*words, "-sS", "-w", "\n%{http_code}", "-H", f"Authorization: Bearer {KEY}"]


async def curl(*words: str) -> tuple[int, Any]:
    """Return the status and the JSON that a command is answered with."""
    pipe = asyncio.subprocess.PIPE
    done = await asyncio.create_subprocess_exec(*words, stdout=pipe)
    body, _, status = (await done.communicate())[0].decode().rpartition("\n")
    return int(status), json.loads(body)


@contextlib.asynccontextmanager
async def gateway(folder: Path, url: str) -> AsyncIterator[tuple[str, working.Site]]:
    """Run a cloud, a worker and a gateway before them, and give the gateway's address."""
    site = working.Site(folder, url)
    samples.zoo(site.settings.bundles[0])
    both = (Input(name="image", kind="image"), Input(name="text", kind="text"))
    toys.bundle(site.settings.bundles[0], BOTH, toys.manifest("mixed.both", "both", inputs=both))
    cloud = create_cloud(
        CloudSettings(
            bundles=site.settings.bundles,
            keys=(CLOUD_KEY,),
            trust=(toys.keys(),),
            redis_url=url,
            uploads=folder / "uploads",
            defaults=DEFAULTS,
        )
    )
    async with listening(cloud) as there:
        edge = create_edge(
            EdgeSettings(
                bundles=(folder / "none",),
                page=Path("nowhere"),
                cloud_url=there,
                cloud_key=CLOUD_KEY,
                keys=(KEY,),
                trust=(toys.keys(),),
            )
        )
        with site.worker():
            async with listening(edge) as here:
                yield here, site


def run(folder: Path, journey: Any) -> None:
    """Run a journey over a store, a cloud, a worker and a gateway."""

    async def go(url: str) -> None:
        async with gateway(folder, url) as (here, site), Client(here, KEY) as client:
            await journey(here, site, client)

    with stores.store("valkey", folder / "store") as url:
        asyncio.run(go(url))


def test_a_program_asks_submits_and_listens(tmp_path: Path) -> None:
    """The whole of the client, over real sockets."""

    async def journey(here: str, site: working.Site, client: Client) -> None:
        marks = {"marks": str(site.marks)}
        assert (await client.ask("a b")).output == {"words": 2}
        task = await client.submit("hi", function="text.walk", options=marks)
        steps = [
            (event.data["name"], event.data["status"])
            async for event in task.events()
            if event.event == "step"
        ]
        assert ("last", "done") in steps
        answer = await task.result()
        assert answer.output == ["HI-FIRST", "HI-LEFT", "HI-RIGHT", "HI-LAST"]
        # A key stands for one task, whoever sends it again.
        same = [await client.submit("a", function="text.count", idempotency="k") for _ in range(2)]
        assert same[0].task_id == same[1].task_id
        failed = await client.submit("x", function="text.mark", options=marks | {"fail": True})
        with pytest.raises(TriviumError, match="ValueError"):
            await failed.result()
        slow = await client.submit("z", function="text.mark", options=marks | {"seconds": 60})
        async for event in slow.events():
            if event.data["status"] == "running":
                break
        assert (await slow.cancel()).status in ("running", "cancelled")
        with pytest.raises(TriviumError):
            await slow.result()
        with pytest.raises(NotFound):
            await client.task("0" * 32).state()
        upload = await client.upload(samples.png(3, 2), media="image/png")
        pieces = client.stream("ab", function="text.spell")
        assert [each.output async for each in pieces] == ["a", "b", ["a", "b"]]
        later = await client.submit(upload, budget=Budget(ms=20_000))
        assert (await later.result()).output == [2, 3]

    run(tmp_path, journey)


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_documents_own_examples_work(tmp_path: Path) -> None:
    """By curl itself, with host and credentials added, and a picture in the place of one."""

    async def journey(here: str, site: working.Site, client: Client) -> None:
        submit, look = (command(each, here) for each in EXAMPLES.split("---"))
        status, said = await curl(*submit)
        assert (status, said["code"]) == (400, "bad_input")
        assert said["detail"].startswith("image is no base64: ")
        photo = base64.b64encode(samples.png(3, 2)).decode()
        status, said = await curl(*(each.replace("base64\u2026", photo) for each in submit))
        assert (status, said) == (202, {"task_id": said["task_id"], "status": "pending"})
        status, task = await curl(*(each.replace("abc123", said["task_id"]) for each in look))
        assert (status, task["task_id"]) == (200, said["task_id"])
        while task["status"] in ("pending", "running"):
            await asyncio.sleep(0.05)
            status, task = await curl(*(each.replace("abc123", said["task_id"]) for each in look))
        assert task["answer"]["output"] == {"size": [2, 3], "text": "\u63cf\u8ff0\u2026"}
        status, said = await curl(*look)
        assert (status, said["code"]) == (404, "not_found")

    run(tmp_path, journey)


def test_what_is_done_in_time_comes_at_once(tmp_path: Path) -> None:
    """Else it goes on as a task, where that is allowed."""

    async def journey(here: str, site: working.Site, _: Client) -> None:
        told = {"authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=here, headers=told, timeout=30) as http:
            body = {"text": "\u63cf\u8ff0\u2026", "async": True}
            accepted = await http.post("/v1/multimodal", json=body)
            assert accepted.status_code == 202
            said = accepted.json()
            assert said == {"task_id": said["task_id"], "status": "pending"}
            assert accepted.headers["location"] == f"/v1/tasks/{said['task_id']}"
            task = (await http.get(f"/v1/tasks/{said['task_id']}?wait=20")).json()
            assert (task["status"], task["answer"]["output"]) == ("done", {"words": 1})
            # What is done in time comes at once, what is not goes on as a task.
            marks = {"marks": str(site.marks)}
            for seconds, status in ((0.0, 200), (3.0, 202)):
                body = {
                    "function": "text.mark",
                    "text": f"t{seconds}",
                    "options": marks | {"seconds": seconds},
                    "allow_async": True,
                    "timeout": 10.0 if seconds == 0 else 0.5,
                }
                response = await http.post("/v1/multimodal", json=body)
                assert response.status_code == status, response.text
            assert response.json()["status"] in ("pending", "running")
            where = response.headers["location"]
            assert (await http.get(f"{where}?wait=30")).json()["answer"]["output"] == "T3.0"

    run(tmp_path, journey)


def test_websockets_go_through_the_gateway(tmp_path: Path) -> None:
    """Both ways, with their ends; by key or by ticket, and who has neither is told."""

    async def journey(here: str, site: working.Site, client: Client) -> None:
        task = await client.submit("a b c", function="text.drip", options={"seconds": 0.05})
        ws = f"{here.replace('http', 'ws')}/v1/tasks/{task.task_id}/ws"
        heard = []
        told = {"authorization": f"Bearer {KEY}"}
        async with connect(ws, additional_headers=told, proxy=None) as socket:
            async for message in socket:
                heard.append(json.loads(message))
        assert socket.close_code == 1000
        assert [each["data"] for each in heard if each["event"] == "part"][-1:]
        assert heard[-1]["data"]["status"] == "done"
        async with httpx.AsyncClient(base_url=here, headers=told) as http:
            ticket = (await http.post(f"/v1/tasks/{task.task_id}/ticket")).json()
        offered = ["trivium", ticket["protocol"]]
        async with connect(ws, subprotocols=offered, proxy=None) as socket:
            assert socket.subprotocol == "trivium"
            assert json.loads(await socket.recv())["event"] == "state"
        async with connect(ws, proxy=None) as socket:
            said = json.loads(await socket.recv())
            assert said["data"]["code"] == "unauthenticated"
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 4401

    run(tmp_path, journey)


def test_a_listener_who_leaves_is_let_go_on_both_tiers(tmp_path: Path) -> None:
    """The cloud need not wait for the task's end to notice."""

    async def journey(here: str, site: working.Site, client: Client) -> None:
        options = {"marks": str(site.marks), "seconds": 30}
        task = await client.submit("a", function="text.mark", options=options)
        async with contextlib.aclosing(task.events()) as events:
            assert (await anext(events)).event == "state"
        async with client._client.stream("GET", "/health/live") as response:
            assert response.status_code == 200
        for _ in range(200):
            waiting = [
                each for each in asyncio.all_tasks() if "Passage._forward" in str(each.get_coro())
            ]
            if not waiting:
                break
            await asyncio.sleep(0.02)
        assert not waiting
        await task.cancel()

    run(tmp_path, journey)


def test_a_websocket_to_a_cloud_that_is_away(tmp_path: Path) -> None:
    """It is told in the one shape."""

    async def journey() -> None:
        edge = create_edge(
            EdgeSettings(
                bundles=(tmp_path,),
                page=Path("nowhere"),
                cloud_url="http://127.0.0.1:9",
                cloud_key=CLOUD_KEY,
                keys=(KEY,),
            )
        )
        async with listening(edge) as here:
            told = {"authorization": f"Bearer {KEY}"}
            ws = f"{here.replace('http', 'ws')}/v1/tasks/{'0' * 32}/ws"
            async with connect(ws, additional_headers=told, proxy=None) as socket:
                said = json.loads(await socket.recv())
                assert (said["event"], said["data"]["code"]) == ("error", "tier_unreachable")
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
            assert socket.close_code == 4502

    asyncio.run(journey())
