"""Real edge and cloud apps over small real bundles, asked from plain synchronous tests."""

from __future__ import annotations

import asyncio
import contextlib
import io
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import onnx
import tokenizers
from litestar import Litestar
from onnx import TensorProto, helper
from PIL import Image
from tokenizers import models, pre_tokenizers

import toys
from trivium.contract import JSON, MSGPACK, Input, Option, Tier, encode
from trivium.trace import Span
from trivium_cloud.app import create_app as create_cloud
from trivium_cloud.settings import Settings as CloudSettings
from trivium_edge.app import create_app as create_edge
from trivium_edge.settings import Settings as EdgeSettings

T = TypeVar("T")

ORIGIN = "http://localhost:8080"
KEY = "a-key-for-the-edge"
CLOUD_KEY = "a-key-for-the-cloud"

IMAGE = Input(name="image", kind="image")
LEAST = Option(name="least", schema={"type": "integer", "minimum": 1}, default=1)

SPELL = """
from collections.abc import AsyncIterator
from trivium import Text, function

@function("text.spell")
async def spell(text: Text) -> AsyncIterator[object]:
    for letter in text:
        if letter == "!":
            raise ValueError("too loud")
        yield object() if letter == "?" else letter
"""

FAIL = """
from trivium import Text, function

@function("text.fail")
async def fail(text: Text) -> float:
    return 1 / 0
"""

ODD = """
from trivium import Text, function

@function("text.odd")
async def odd(text: Text) -> object:
    return {"big": 1 << 70, "thing": object(), "null": None}[text]
"""

LINE = """
from array import array
from trivium import Models, Tensor, Text, function

@function("text.line")
async def line(text: Text, models: Models) -> list[float]:
    numbers = array("f", map(float, text.split()))
    x = Tensor(dtype="float32", shape=(len(numbers),), data=numbers.tobytes())
    return (await models.line.run(x=x)).tolist()
"""

WORDS = """
from trivium import Models, Text, function

@function("text.words")
async def words(text: Text, models: Models) -> list[int]:
    return models.tokens.encode(text).ids.tolist()[0]
"""

SIZE = """
from trivium import Image, function

@function("image.size")
async def size(image: Image) -> list[int]:
    return [image.height, image.width]
"""

ANY = """
from trivium import Text, function

@function("text.any")
async def anything(text: Text, what: object = None) -> object:
    return what
"""


def graph(given: str, result: str, *nodes: tuple[str, str, float, str]) -> bytes:
    """Return a graph over float32 [n]; a node is (operator, input, constant, output)."""
    constants = [
        helper.make_tensor(f"{out}_constant", TensorProto.FLOAT, [1], [value])
        for _, _, value, out in nodes
    ]
    made = helper.make_graph(
        [helper.make_node(op, [x, f"{out}_constant"], [out]) for op, x, _, out in nodes],
        "toy",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n"])],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def first_graph() -> bytes:
    """Return y = 2x + 1, in two nodes."""
    return graph("x", "y", ("Mul", "x", 2.0, "doubled"), ("Add", "doubled", 1.0, "y"))


def second_graph() -> bytes:
    """Return z = 10y, in one node."""
    return graph("y", "z", ("Mul", "y", 10.0, "z"))


def tokenizer() -> bytes:
    """Return a `tokenizer.json` that knows three words."""
    made = tokenizers.Tokenizer(
        models.WordLevel({"[UNK]": 0, "one": 1, "two": 2, "three": 3}, unk_token="[UNK]")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made.to_str().encode()


def png(width: int, height: int) -> bytes:
    """Return a white PNG."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(file, "PNG")
    return file.getvalue()


def claims(width: int, height: int) -> bytes:
    """Return the start of a PNG that claims a size and holds no pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
    return start + struct.pack(">I", zlib.crc32(head)) + struct.pack(">I", 1 << 20) + b"IDAT"


def zoo(folder: Path) -> Path:
    """Fill `folder` with one small bundle for each thing that a function can do."""
    line = ("first.onnx", "second.onnx")
    toys.bundle(folder, toys.COUNT, toys.manifest(options=(LEAST,)))
    toys.bundle(folder, SPELL, toys.manifest("text.spell", "spell", streams=True))
    toys.bundle(folder, FAIL, toys.manifest("text.fail", "fail"))
    toys.bundle(folder, ODD, toys.manifest("text.odd", "odd"))
    toys.bundle(
        folder,
        LINE,
        toys.manifest("text.line", "line", models={"line": line}),
        **dict(zip(line, (first_graph(), second_graph()), strict=True)),
    )
    toys.bundle(
        folder,
        SIZE,
        toys.manifest("image.size", "size", inputs=(IMAGE,)),
    )
    anything = (Option(name="what", schema={}),)
    toys.bundle(
        folder,
        ANY,
        toys.manifest("text.any", "anything", tiers=[Tier.CLOUD], options=anything),
    )
    words = toys.manifest("text.words", "words", wants_models=True, settings={"max_tokens": 4})
    toys.bundle(
        folder,
        WORDS,
        toys.having(words, tokenizer="tokenizer.json"),
        **{"tokenizer.json": tokenizer()},
    )
    return folder


class Room:
    """One app, asked as any client would ask it."""

    def __init__(self, app: Litestar, key: str, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.key = key
        self.transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type] # same protocol
        self._loop = loop

    def send(
        self, method: str, path: str, *, key: str | None = "", **request: Any
    ) -> httpx.Response:
        """Return the response; without `key` the right one is sent, with none no key at all."""

        async def work() -> httpx.Response:
            async with httpx.AsyncClient(
                transport=self.transport, base_url="http://localhost"
            ) as client:
                return await client.request(method, path, headers=headers, **request)

        headers = httpx.Headers(request.pop("headers", {}))
        if key is not None and "authorization" not in headers:
            headers["authorization"] = f"Bearer {key or self.key}"
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(20)

    def get(self, path: str, **request: Any) -> httpx.Response:
        """Return the response to a GET."""
        return self.send("GET", path, **request)

    def text(self, name: str, text: str | bytes, **headers: str) -> httpx.Response:
        """Ask `name` with a raw text; headers are written with underscores."""
        given = {each.replace("_", "-"): value for each, value in headers.items()}
        return self.send(
            "POST",
            f"/v1/infer/{name}",
            content=text if isinstance(text, bytes) else text.encode(),
            headers={"content-type": "text/plain", **given},
        )

    def image(self, data: bytes, media: str = "image/png", **request: Any) -> httpx.Response:
        """Ask for an image's size with its raw bytes."""
        return self.send(
            "POST",
            "/v1/infer/image.size",
            content=data,
            headers={"content-type": media},
            **request,
        )

    def ask(self, name: str, ask: object, media: str = JSON, **request: Any) -> httpx.Response:
        """Ask `name` with an Ask, or what is none, as JSON or MessagePack."""
        return self.send(
            "POST",
            f"/v1/infer/{name}",
            content=ask if isinstance(ask, bytes) else encode(ask, media),
            headers={"content-type": media, "accept": request.pop("accept", JSON)},
            **request,
        )


class Servers:
    """An edge in front of a cloud, and the spans that both have emitted."""

    def __init__(self, edge: Room, cloud: Room, spans: list[Span], link: Link) -> None:
        self.edge = edge
        self.cloud = cloud
        self.spans = spans
        self.link = link

    @property
    def rooms(self) -> tuple[Room, Room]:
        """Return both, for what must hold for either."""
        return self.edge, self.cloud


class Link(httpx.AsyncBaseTransport):
    """The way from the edge to the cloud; `down` makes it fail as a dead server would."""

    def __init__(self, app: Litestar) -> None:
        self.down = False
        self._way = httpx.ASGITransport(app=app)  # type: ignore[arg-type] # same protocol

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("connection refused")
        return await self._way.handle_async_request(request)


@contextlib.contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def serving(
    bundles: Sequence[Path],
    *,
    cloud_bundles: Sequence[Path] | None = None,
    page: Path = Path("nowhere"),
    development: bool = False,
    secret: str = "a secret of thirty-two characters",
) -> Iterator[Servers]:
    """Run the real edge in front of the real cloud, without sockets."""
    spans: list[Span] = []

    async def stay(stopped: asyncio.Event, apps: Sequence[Litestar], up: threading.Event) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for app in apps:
                await stack.enter_async_context(app.lifespan())
            up.set()
            await stopped.wait()

    with looping() as loop:
        cloud = create_cloud(
            CloudSettings(
                bundles=tuple(bundles if cloud_bundles is None else cloud_bundles),
                keys=(CLOUD_KEY,),
                development=development,
            ),
            spans.append,
        )
        link = Link(cloud)
        edge = create_edge(
            EdgeSettings(
                bundles=tuple(bundles),
                page=page,
                cloud_url="http://cloud",
                cloud_key=CLOUD_KEY,
                keys=(KEY,),
                origins=(ORIGIN,),
                secret=secret,
                development=development,
            ),
            spans.append,
            link,
        )
        stopped, up = asyncio.Event(), threading.Event()
        staying = asyncio.run_coroutine_threadsafe(stay(stopped, (cloud, edge), up), loop)
        staying.add_done_callback(lambda _: up.set())
        try:
            up.wait(20)
            if staying.done():
                staying.result()
            yield Servers(Room(edge, KEY, loop), Room(cloud, CLOUD_KEY, loop), spans, link)
        finally:
            loop.call_soon_threadsafe(stopped.set)
            staying.result(20)


def fault(response: httpx.Response) -> dict[str, Any]:
    """Return the error in a response after checking that it has the one shape."""
    body: dict[str, dict[str, Any]] = response.json()
    assert response.headers["content-type"] == JSON
    assert set(body) == {"error"}, body
    found = body["error"]
    assert set(found) == {"type", "code", "message", "tier", "where", "retry_after"}, found
    assert found["type"] == "fault"
    assert found["message"]
    assert "Traceback" not in response.text
    return found


def said(response: httpx.Response) -> str:
    """Return `status code: message` of an error."""
    found = fault(response)
    return f"{response.status_code} {found['code']}: {found['message']}"


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    """Yield a body in pieces, so that its length is not announced."""
    for each in data:
        yield each


def work(made: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives."""
    return asyncio.run(made)


BOTH = (JSON, MSGPACK)
