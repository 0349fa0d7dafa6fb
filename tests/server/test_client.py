"""The client for programs: what it sends, raises, tries again, and brings through cuts."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import samples
import servers
import trivium
from servers import CLOUD_KEY, Room, work
from trivium import Blob, Budget, Client
from trivium.contract import (
    MSGPACK,
    PROBLEM,
    Answer,
    Fault,
    Part,
    Problem,
    Refusal,
    Tier,
    encode,
    frame,
)
from trivium.errors import (
    BadInput,
    BudgetError,
    Conflict,
    NotFound,
    QuotaExceeded,
    RunFailed,
    TierOverloaded,
    TierUnreachable,
    Unauthenticated,
    UnknownFunction,
)
from trivium.hosts.server import client as module
from trivium.hosts.server.client import Upload

PNG = samples.png(3, 2)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Return a cloud that takes files."""
    folder = tmp_path_factory.mktemp("cloud")
    with servers.serving([samples.zoo(folder / "zoo")], uploads=folder / "uploads") as made:
        yield made.cloud


def with_client(
    room: Room, use: Callable[[Client], Any], key: str = CLOUD_KEY, cuts: list[int] | None = None
) -> Any:
    """Return what a client of the room gives; requests whose numbers are in `cuts` break off."""
    count = 0

    class Cut(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            nonlocal count
            count += 1
            response = await room.transport.handle_async_request(request)
            if count in (cuts or ()):
                raise httpx.ReadError("cut after it was done", request=request)
            return response

    async def run() -> Any:
        async with Client("http://cloud", key, transport=Cut()) as made:
            return await use(made)

    return room.run(run())


def test_importing_trivium_brings_no_http() -> None:
    """Only who asks servers needs what that needs; a page has none of it."""
    code = "import sys, trivium; assert 'httpx' not in sys.modules; trivium.Client"
    subprocess.run([sys.executable, "-c", code + "; assert 'httpx' in sys.modules"], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Clinet'"):
        trivium.Clinet  # noqa: B018


def test_functions_are_listed_with_their_roads(cloud: Room) -> None:
    """By name."""
    found = with_client(cloud, lambda client: client.functions())
    assert found["text.count"][0].tier == Tier.CLOUD


def test_a_function_is_asked_by_inputs(cloud: Room) -> None:
    """As between tiers, in MessagePack."""

    async def use(client: Client) -> None:
        answer = await client.infer("text.count", {"text": "a b"}, options={"least": 1})
        assert (answer.output, answer.tier) == ({"words": 2}, Tier.CLOUD)
        picture = {"image": Blob(media="image/png", data=PNG)}
        assert (await client.infer("image.size", picture)).output == [2, 3]

    with_client(cloud, use)


def test_parts_of_any_kind_are_asked_about(cloud: Room, tmp_path: Path) -> None:
    """Text, bytes, files and uploads, by kind or by name."""
    (tmp_path / "a.png").write_bytes(PNG)

    async def use(client: Client) -> None:
        assert (await client.ask("a b c")).output == {"words": 3}
        assert (await client.ask(Blob(media="image/png", data=PNG))).output == [2, 3]
        assert (await client.ask(tmp_path / "a.png")).output == [2, 3]
        upload = await client.upload(tmp_path / "a.png")
        assert (await client.ask(upload, function="image.size")).output == [2, 3]
        assert (await client.ask(named={"image": upload}, function="image.size")).output == [2, 3]

    with_client(cloud, use)


def test_an_answer_comes_in_pieces(cloud: Room) -> None:
    """The last is all of it; one that does not stream comes at once."""

    async def use(client: Client) -> None:
        found = [each async for each in client.stream("ab", function="text.spell")]
        assert [each.output for each in found] == ["a", "b", ["a", "b"]]
        assert isinstance(found[-1], Answer)
        (whole,) = [each async for each in client.stream("a b c")]
        assert whole.output == {"words": 3}
        for asked, kind in (
            (client.stream("a", function="text.nope"), UnknownFunction),
            (client.stream("a", function="text.fail"), RunFailed),
            (client.stream("a", options={"what": {1, object()}}), BadInput),
        ):
            with pytest.raises(kind):
                await anext(asked)

    with_client(cloud, use)


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    """Whether it fails in the middle, is cut there, or is no stream at all."""
    part, fault = frame(Part(output="a")), frame(Fault(code="run_failed", message="no"))

    async def use(client: Client) -> list[Any]:
        found: list[Any] = []
        try:
            async for each in client.stream("a"):
                found.append(each.output)
        except trivium.TriviumError as error:
            found.append(type(error))
        return found

    for body, last in (
        (part, TierUnreachable),
        (part + fault, RunFailed),
        (part + b"\x00\x00\x00\x01\xc1", TierUnreachable),
        (part + b"\xff\xff\xff\xff", TierUnreachable),
    ):
        found, _ = answering(httpx.Response(200, content=body), use=use)
        assert found == ["a", last]
    found, _ = answering(httpx.Response(200, text="<html>"), use=use)
    assert found == [TierUnreachable]
    # What was refused unseen is asked again, as all else is.
    found, times = answering(
        refusal(TierOverloaded, 0.001), httpx.Response(200, content=part), use=use
    )
    assert (found, times) == (["a", TierUnreachable], 2)


def test_errors_are_our_own(cloud: Room) -> None:
    """With code, message and tier, however they came."""

    async def use(client: Client) -> None:
        for asked, kind in (
            (client.ask("a", function="text.nope"), UnknownFunction),
            (client.ask(Upload(id="x")), NotFound),
            (client.ask(), BadInput),
            (client.ask("a", function="text.any", seconds=1e-6), BudgetError),
            (client.infer("text.fail", {"text": "a"}), RunFailed),
            (client.infer("text.count", {}), BadInput),
            (client.infer("text.count", {"text": "a"}, budget=Budget(ms=1e-6)), BudgetError),
            (client.infer("text.any", {"text": "a"}, options={"what": 1 << 70}), BadInput),
            (client.submit("a"), trivium.TierError),
        ):
            with pytest.raises(kind) as failed:
                await asked
            assert type(failed.value) is kind
            assert failed.value.message

    with_client(cloud, use)
    with pytest.raises(Unauthenticated):
        with_client(cloud, lambda client: client.functions(), key="wrong")


@pytest.mark.parametrize("cut", range(1, 5))
def test_an_upload_goes_on_after_each_cut(
    cloud: Room, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever answer is lost, no byte is, and none comes twice."""
    monkeypatch.setattr(module, "PIECE", 30)
    monkeypatch.setattr(module, "LEAST_WAIT_S", 0.001)
    seen: list[tuple[int, int]] = []

    async def use(client: Client) -> Any:
        upload = await client.upload(PNG, media="image/png", progress=lambda *at: seen.append(at))
        return (await client.ask(upload)).output

    assert with_client(cloud, use, cuts=[cut]) == [2, 3]
    assert seen[-1] == (len(PNG), len(PNG))
    assert [here for here, _ in seen] == sorted({here for here, _ in seen})


def test_an_upload_is_taken_up_by_another_process(cloud: Room) -> None:
    """By its id alone."""

    async def begin(client: Client) -> str:
        said = base64.b64encode(b"image/png").decode()
        headers = {
            "tus-resumable": "1.0.0",
            "upload-length": str(len(PNG)),
            "content-type": "application/offset+octet-stream",
            "upload-metadata": f"filetype {said}",
        }
        made = await client._client.post("/v1/uploads", headers=headers, content=PNG[:10])
        return str(made.headers["location"].rpartition("/")[2])

    name = with_client(cloud, begin)
    seen: list[int] = []

    async def go_on(client: Client) -> Any:
        upload = await client.upload(PNG, resume=name, progress=lambda here, _: seen.append(here))
        return (await client.ask(upload)).output

    assert with_client(cloud, go_on) == [2, 3]
    assert seen == [10, len(PNG)]


def answering(*told: httpx.Response | Exception, use: Callable[[Client], Any]) -> tuple[Any, int]:
    """Return what a client gives that is told these in turn, and how often it asked."""
    waiting, count = list(told), 0

    def handle(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        each = waiting.pop(0)
        if isinstance(each, Exception):
            raise each
        return each

    async def run() -> Any:
        transport = httpx.MockTransport(handle)
        async with Client("http://cloud", "key", transport=transport, retries=2) as client:
            try:
                return await use(client)
            except trivium.TriviumError as error:
                return error

    return work(run()), count


def refusal(kind: type[trivium.TriviumError], after: float | None = None) -> httpx.Response:
    """Return an error as a server sends it."""
    body = encode(Refusal(error=Fault.of(kind("no", retry_after=after))))
    return httpx.Response(kind.status, content=body, headers={"content-type": MSGPACK})


def test_only_what_is_safe_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never sent or never begun; else what does no more when it is done twice."""
    monkeypatch.setattr(module, "LEAST_WAIT_S", 0.001)
    fine = httpx.Response(
        200,
        content=encode({"task_id": "a" * 32, "status": "pending"}),
        headers={"content-type": MSGPACK},
    )

    async def ask(client: Client) -> Answer:
        return await client.ask("a")

    async def submit(client: Client) -> str:
        return (await client.submit("a")).task_id

    lost, soon = httpx.ReadError("lost"), 0.001
    busy, spent = refusal(TierOverloaded, soon), refusal(QuotaExceeded, soon)
    for told, use, kind, count in (
        ([busy, spent, refusal(BadInput)], ask, BadInput, 3),
        ([httpx.ConnectError("no"), refusal(BadInput)], ask, BadInput, 2),
        ([httpx.ConnectError("no")] * 3, ask, TierUnreachable, 3),
        ([refusal(TierOverloaded)], ask, TierOverloaded, 1),
        ([refusal(RunFailed, 0.001)], ask, RunFailed, 1),
        ([refusal(TierUnreachable, 0.001)], ask, TierUnreachable, 1),
        ([refusal(QuotaExceeded, 3600)], ask, QuotaExceeded, 1),
        ([lost], ask, TierUnreachable, 1),
        ([lost, lost, fine], submit, str, 3),
        ([refusal(TierUnreachable, 0.001), fine], submit, str, 2),
        ([refusal(Conflict)], submit, Conflict, 1),
    ):  # fmt: skip
        found, times = answering(*told, use=use)
        assert (type(found), times) == (kind, count)


def test_what_is_no_answer_of_ours_is_unreachable() -> None:
    """Such as a proxy's page."""

    async def ask(client: Client) -> Answer:
        return await client.ask("a")

    for told, kind in (
        (httpx.Response(502, text="<html>"), TierUnreachable),
        (httpx.Response(404, text="<html>"), NotFound),
        (httpx.Response(400, text="<html>"), trivium.TriviumError),
        (httpx.Response(200, text="<html>"), TierUnreachable),
        (
            httpx.Response(
                503,
                content=encode(Problem.of(TierOverloaded("busy")), "application/json"),
                headers={"content-type": PROBLEM, "retry-after": "3600"},
            ),
            TierOverloaded,
        ),
    ):
        found, _ = answering(told, use=ask)
        assert type(found) is kind
    assert found.retry_after == 3600
