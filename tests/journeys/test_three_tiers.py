"""The built-in functions over the real servers: an ask begins at a page's engine and travels."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec.structs import replace

import toys
from servers import CLOUD_KEY, KEY, Servers, serving
from trivium.contract import MSGPACK, Answer, Ask, Blob, Budget, Manifest, Tier, decode
from trivium.engine import Engine
from trivium.errors import BadInput, Conflict, TierUnreachable
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.check import agrees, read
from trivium.hosts.server.host import ServerHost
from trivium.hosts.server.upstream import HttpUpstream
from trivium.trace import Span, Tracer

ZOO = Path("models/zoo")
KEYS = Path(".trivium/keys")
PAGE, EDGE, CLOUD = Tier
FUNCTIONS = (
    "text.embed",
    "text.classify",
    "image.classify",
    "image.embed",
    "match.image_text",
    "image.describe",
    "audio.activity",
    "audio.keyword",
    "image.product",
    "image.triage",
    "image_text.answer",
    "document.graph",
)


class Watch(httpx.AsyncBaseTransport):
    """The way to the next server, with the asks that went along it."""

    def __init__(self, way: httpx.AsyncBaseTransport) -> None:
        self.asks: list[Ask] = []
        self._way = way

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.headers["content-type"] == MSGPACK:
            self.asks.append(decode(await request.aread(), Ask))
        return await self._way.handle_async_request(request)


class Journey:
    """A page's engine on this interpreter, in front of the real edge and cloud."""

    def __init__(self, servers: Servers, zoo: Path = ZOO) -> None:
        self.servers = servers
        self.watch = Watch(servers.edge.transport)
        self.upstream = HttpUpstream("http://edge", KEY, EDGE, self.watch)
        self.host = ServerHost()
        self.spans: list[Span] = []
        self.engine = Engine(
            PAGE, self.host, upstream=self.upstream, tracer=Tracer("page", self.spans.append)
        )
        for folder in zoo.iterdir():
            bundle = Bundle(folder)
            if bundle.absent:
                continue
            function = bundle.function(PAGE)
            if function is None:
                continue  # a page asks the edge
            self.host.know(function, bundle)
            self.engine.add(function)
        self.run(self.upstream.poll())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.servers.edge._loop).result(60)

    def infer(self, ask: Ask) -> Answer:
        answer: Answer = self.run(self.engine.infer(ask))
        return answer


@pytest.fixture(scope="module")
def journey() -> Iterator[Journey]:
    """The built-in functions, everywhere."""
    with serving([ZOO], trust=[KEYS]) as servers:
        made = Journey(servers)
        yield made
        made.run(made.upstream.__aexit__())
        made.host.close()


def asks(name: str, **fields: Any) -> list[tuple[Ask, Any]]:
    bundle = Bundle(ZOO / name)
    return [
        (Ask(function=name, inputs=read(bundle, sample), options=sample.options, **fields), sample)
        for sample in bundle.manifest.samples
    ]


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_answers_on_each_tier(journey: Journey, name: str, tier: Tier) -> None:
    """The same samples, the same answers."""
    for ask, sample in asks(name, tiers=(tier,)):
        answer = journey.infer(ask)
        assert answer.tier == tier
        variant = Bundle(ZOO / name).manifest.variant(tier)
        assert variant is not None
        assert agrees(_plain(answer.output), sample.output, variant.quality)


@pytest.mark.parametrize("name", ["image.classify", "image.embed", "audio.activity"])
def test_the_same_artifact_agrees_wherever_it_runs(journey: Journey, name: str) -> None:
    """Page and edge run the same graphs, to 1e-4."""
    for ask, _ in asks(name):
        here = _numbers(journey.infer(replace(ask, tiers=(PAGE,))).output)
        there = _numbers(journey.infer(replace(ask, tiers=(EDGE,))).output)
        assert max(abs(a - b) for a, b in zip(here, there, strict=True)) < 1e-4


def _dot(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def test_int8_is_near_fp32(journey: Journey) -> None:
    """On inputs that no recipe names."""
    for text in ("Where can I buy a used bicycle?", "Der Hund schläft.", "x" * 200, "1 + 1 = 2"):
        ask = Ask(function="text.embed", inputs={"text": text})
        small = journey.infer(replace(ask, tiers=(EDGE,))).output
        full = journey.infer(replace(ask, tiers=(CLOUD,))).output
        assert math.fsum(a * b for a, b in zip(small, full, strict=True)) > 0.98


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"labels": ["one"]},
        {"labels": ["one", ""]},
        {"labels": [str(each) for each in range(65)]},
        {"labels": ["one", 2]},
        {"labels": ["one", "two"], "template": "no place for it"},
    ],
)
def test_labels_that_nothing_can_be_said_of(
    journey: Journey, tier: Tier, options: dict[str, Any]
) -> None:
    ask = Ask(function="text.classify", inputs={"text": "a"}, options=options, tiers=(tier,))
    with pytest.raises(BadInput, match="options of text.classify"):
        journey.infer(ask)


@pytest.mark.parametrize("tier", list(Tier))
def test_pictures_and_texts_find_each_other(journey: Journey, tier: Tier) -> None:
    """By their vectors alone, either way."""
    texts = {"coffee.jpg": "espresso", "cat.jpg": "a cat"}
    asked = {ask.inputs["image"]: sample for ask, sample in asks("image.embed", tiers=(tier,))}
    pictures = {
        sample.inputs["image"]: journey.infer(
            Ask(function="image.embed", inputs={"image": blob}, tiers=(tier,))
        ).output
        for blob, sample in asked.items()
    }
    words = {
        text: journey.infer(Ask(function="text.embed", inputs={"text": text}, tiers=(tier,))).output
        for text in texts.values()
    }
    for name, text in texts.items():
        near = {each: _dot(pictures[name], words[each]) for each in words}
        assert max(near, key=lambda each: near[each]) == text
        back = {each: _dot(pictures[each], words[text]) for each in pictures}
        assert max(back, key=lambda each: back[each]) == name


def test_one_trace_joins_all_tiers(journey: Journey) -> None:
    """From the page's first span to the cloud's model."""
    journey.spans.clear()
    journey.servers.spans.clear()
    answer = journey.infer(asks("text.embed", tiers=(CLOUD,))[0][0])
    spans = [*journey.spans, *journey.servers.spans]
    assert {span.service for span in spans} == {"page", "edge", "cloud"}
    assert {span.trace_id for span in spans} == {answer.trace[3:35]}
    ids = {span.span_id for span in spans}
    assert len([span for span in spans if span.parent_id not in ids]) == 1
    run = next(span for span in spans if span.name == "run")
    assert run.attributes == {"trivium.model": "minilm-l6"}


def test_the_budget_shrinks_on_its_way(journey: Journey) -> None:
    """What the edge is told is less than what the page had."""
    journey.watch.asks.clear()
    journey.infer(asks("text.embed", tiers=(CLOUD,), budget=Budget(ms=30_000))[0][0])
    (sent,) = journey.watch.asks
    assert sent.budget.ms is not None
    assert sent.budget.ms < 30_000


def test_quality_and_reach_pick_the_road(journey: Journey) -> None:
    """Full quality is in the cloud; what may not leave stays."""
    ask = asks("image.classify")[0][0]
    assert journey.infer(replace(ask, budget=Budget(quality=1))).tier == CLOUD
    journey.watch.asks.clear()
    assert journey.infer(replace(ask, budget=Budget(reach=PAGE))).tier == PAGE
    assert journey.watch.asks == []


def test_a_dead_cloud_is_survived(journey: Journey) -> None:
    """The edge answers what it can, and says plainly what it can't."""
    ask = asks("text.embed")[0][0]
    journey.servers.link.down = True
    try:
        answer = journey.infer(replace(ask, tiers=(CLOUD, EDGE)))
        assert answer.tier == EDGE
        with pytest.raises(TierUnreachable, match="the cloud tier did not answer"):
            journey.infer(replace(ask, budget=Budget(quality=1)))
    finally:
        journey.servers.link.down = False
    deadline = 100
    while deadline:
        try:
            assert journey.infer(replace(ask, budget=Budget(quality=1))).tier == CLOUD
            return
        except TierUnreachable:
            journey.run(asyncio.sleep(0.1))
            deadline -= 1
    raise AssertionError("the cloud is back, and nobody noticed")


def test_an_old_page_in_front_of_new_servers(tmp_path: Path) -> None:
    """It answers by itself with what it has; the servers name the versions they serve."""
    toys.bundle(tmp_path / "old", toys.COUNT, toys.manifest(version="1.0.0"))
    toys.bundle(tmp_path / "new", toys.COUNT, toys.manifest(version="2.0.0"))
    with serving([tmp_path / "new"]) as servers:
        journey = Journey(servers, tmp_path / "old")
        ask = Ask(function="text.count", version="1.0.0", inputs={"text": "a b"})
        assert journey.infer(ask).tier == PAGE
        with pytest.raises(Conflict, match=r"version 1\.0\.0 .*; served: 2\.0\.0"):
            journey.run(journey.upstream.infer(ask))
        assert journey.infer(replace(ask, version="2.0.0")).version == "2.0.0"
        journey.run(journey.upstream.__aexit__())


def test_a_new_cloud_behind_an_old_edge(tmp_path: Path) -> None:
    """Without a version in the ask each tier answers with its own."""
    toys.bundle(tmp_path / "old", toys.COUNT, toys.manifest(version="1.0.0"))
    toys.bundle(tmp_path / "new", toys.COUNT, toys.manifest(version="2.0.0"))
    with serving([tmp_path / "old"], cloud_bundles=[tmp_path / "new"]) as servers:
        response = servers.edge.text("text.count", "a b", trivium_tiers="cloud")
        assert response.json()["version"] == "2.0.0"
        response = servers.edge.text("text.count", "a b", trivium_version="2.0.0")
        assert (response.json()["tier"], response.json()["version"]) == ("cloud", "2.0.0")


@pytest.mark.parametrize("file", ["manifest.json", "function.py", "model.int8.onnx", "labels.txt"])
def test_a_changed_byte_stops_a_bundle(tmp_path: Path, file: str) -> None:
    """Whichever it is, and on edge and cloud alike."""
    home = tmp_path / "image.classify"
    home.mkdir()
    for path in (ZOO / "image.classify").iterdir():
        data = bytearray(path.read_bytes())
        if path.name == file:
            data[len(data) // 2] ^= 1
        (home / path.name).write_bytes(data)
    photo = (home / "cat.jpg").read_bytes()
    with serving([tmp_path], trust=[KEYS]) as servers:
        for room in servers.rooms:
            response = room.send(
                "POST",
                "/v1/infer/image.classify",
                content=photo,
                headers={"content-type": "image/jpeg"},
            )
            assert response.status_code == 500
            assert response.json()["code"] == "bad_bundle"
            assert file in response.json()["detail"]


def test_text_travels_as_it_is(journey: Journey) -> None:
    """In any script, through every hop."""
    for text in ("größer", "大きい", "🙂" * 3, "a\u0000b", "\u202egnirts"):
        ask = Ask(function="text.embed", inputs={"text": text})
        full = journey.infer(replace(ask, tiers=(CLOUD,)))
        assert full.tier == CLOUD
        assert len(full.output) == 384


def test_an_image_travels_as_it_came(journey: Journey) -> None:
    """The cloud decodes the very bytes that the page was given."""
    ask = asks("image.classify", tiers=(CLOUD,))[0][0]
    journey.watch.asks.clear()
    journey.infer(ask)
    assert journey.watch.asks[0].inputs == ask.inputs
    assert isinstance(ask.inputs["image"], Blob)


def test_the_cloud_alone_may_be_asked_with_its_own_key(journey: Journey) -> None:
    """The edge's key is not the cloud's."""
    cloud = journey.servers.cloud
    assert cloud.text("text.embed", "x").status_code == 200
    assert cloud.send("GET", "/v1/roads", key=KEY).status_code == 401
    assert cloud.send("GET", "/v1/roads", key=CLOUD_KEY).status_code == 200


def test_the_manifests_are_those_committed() -> None:
    """Set-up makes the very bytes that were measured."""
    for name in FUNCTIONS:
        bundle = Bundle(ZOO / name)
        bundle.verify()
        assert isinstance(bundle.manifest, Manifest)
        assert bundle.manifest.licence


def _plain(output: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(output)


def _numbers(output: Any) -> list[float]:
    plain = _plain(output)
    return [each["score"] if isinstance(each, dict) else each for each in plain]
