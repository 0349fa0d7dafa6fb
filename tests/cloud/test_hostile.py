"""What clients do to a socket that mean no good, or can't do better; the server lives on."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from PIL import Image

import samples
import toys
from servers import CLOUD_KEY, DEFAULTS, listening
from trivium_cloud.app import create_app
from trivium_cloud.settings import Settings

PATH = "/v1/multimodal"
BODY = b'{"text": "a b"}'
Send = Callable[[bytes, bool], Awaitable[bytes]]


def head(*lines: str, method: str = "POST", path: str = PATH) -> bytes:
    """Return a request's head."""
    told = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {CLOUD_KEY}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*told, *lines, "", ""]).encode()


def attacked(folder: Path, attack: Callable[[Send], Awaitable[None]]) -> None:
    """Run an attack on a real server, and ask it something right afterwards."""

    async def run() -> None:
        app = create_app(
            Settings(
                bundles=(samples.zoo(folder / "zoo"),),
                keys=(CLOUD_KEY,),
                trust=(toys.keys(),),
                defaults=DEFAULTS,
                uploads=folder / "uploads",
            )
        )
        async with listening(app) as url:
            port = int(url.rpartition(":")[2])

            async def send(data: bytes, leave: bool = False) -> bytes:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(data)
                    await writer.drain()
                    if leave:
                        return b""
                    async with asyncio.timeout(10):
                        return await reader.read(1 << 16)
                finally:
                    writer.close()

            await attack(send)
            fine = await send(head(f"Content-Length: {len(BODY)}") + BODY, False)
            assert fine.startswith(b"HTTP/1.1 200"), fine
            assert b'"words":2' in fine

    asyncio.run(run())


def test_lengths_that_lie(tmp_path: Path) -> None:
    """Longer than what comes, shorter, twice, negative, both kinds, and in odd chunks."""

    async def attack(send: Send) -> None:
        for lines, body, leave in (
            (["Content-Length: 1000"], BODY, True),
            (["Content-Length: 5"], BODY, False),
            (["Content-Length: 15", "Content-Length: 16"], BODY, False),
            (["Content-Length: -1"], BODY, False),
            (["Content-Length: 99999999999999999999"], BODY, False),
            (["Content-Length: 15", "Transfer-Encoding: chunked"], b"f\r\n" + BODY, True),
            (["Transfer-Encoding: chunked"], b"fffffffffffffffffffff\r\n" + BODY, False),
            (["Transfer-Encoding: chunked"], b"xyz\r\n" + BODY, False),
            (["Transfer-Encoding: chunked"], b"f\r\n" + BODY, True),
        ):
            said = await send(head(*lines) + body, leave)
            assert b" 500 " not in said.partition(b"\r\n")[0]
            assert b" 200 " not in said.partition(b"\r\n")[0]

    attacked(tmp_path, attack)


def test_heads_that_are_huge_or_odd(tmp_path: Path) -> None:
    """Thousands of them, of thousands of bytes, or with what has no place there."""

    async def attack(send: Send) -> None:
        length = f"Content-Length: {len(BODY)}"
        for lines in (
            [f"X-{number}: y" for number in range(3000)],
            ["X: " + "y" * 100_000],
            ["Idempotency-Key: " + "k" * 5_000],
            ["Accept: " + "text/event-stream," * 1_000],
            ["traceparent: \x00\x01"],
            ["Cache-Control: " + "no-cache," * 1_000],
            ["X-HTTP-Method-Override: TRACE"],
            ["Trivium-Tenant: a", "Trivium-Tenant: b"],
        ):
            said = await send(head(length, *lines) + BODY, False)
            assert b" 500 " not in said.partition(b"\r\n")[0], lines[0][:40]
        for path in ("//", "/v1/multimodal/../x", "/v1/uploads/%2e%2e/%2e%2e", "/%ff%fe", "*"):
            said = await send(head("Content-Length: 0", path=path), False)
            assert b" 500 " not in said.partition(b"\r\n")[0], path

    attacked(tmp_path, attack)


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """A packed body, a picture of nothing, packed text in a PNG, and a tower of brackets."""
    packed = gzip.compress(b" " * (64 << 20), 9)
    file = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(file, "PNG", compress_level=9)
    large = base64.b64encode(file.getvalue()).decode()
    chunk = b"zTXtnote\x00\x00" + zlib.compress(b"a" * (64 << 20), 9)
    png = samples.png(3, 2)
    noted = png[:33] + (len(chunk) - 4).to_bytes(4, "big") + chunk
    noted += zlib.crc32(chunk).to_bytes(4, "big") + png[33:]

    async def attack(send: Send) -> None:
        said = await send(
            head(f"Content-Length: {len(packed)}", "Content-Encoding: gzip") + packed, False
        )
        assert b" 415 " in said.partition(b"\r\n")[0]
        for body, status in (
            (json.dumps({"image": large}).encode(), b"413"),
            (json.dumps({"image": base64.b64encode(noted).decode()}).encode(), b"400"),
            (b'{"options": ' + b"[" * 1_000_000, b"400"),
            (b'{"text": "' + b"\\u0041" * 3_000_000 + b'"}', b"413"),
            (b'{"a": 1' + b"0" * 1_000_000 + b"}", b"400"),
        ):
            said = await send(head(f"Content-Length: {len(body)}") + body, False)
            assert said.split(b" ")[1] == status, (body[:40], said[:400])

    attacked(tmp_path, attack)


def test_many_who_leave_in_the_middle(tmp_path: Path) -> None:
    """Nothing of them stays."""

    async def attack(send: Send) -> None:
        data = head("Content-Length: 100000") + b'{"text": "'
        await asyncio.gather(*(send(data + b"a" * 1_000, True) for _ in range(200)))
        for _ in range(200):
            waiting = [each for each in asyncio.all_tasks() if "run_asgi" in str(each.get_coro())]
            if not waiting:
                break
            await asyncio.sleep(0.02)
        assert not waiting

    attacked(tmp_path, attack)


def test_truncated_base64_is_named(tmp_path: Path) -> None:
    """And a picture that ends too early, though its base64 is whole."""
    whole = base64.b64encode(samples.png(40, 40)).decode()

    async def attack(send: Send) -> None:
        for image in (*(whole[:-cut] for cut in (1, 2, 3, 5, 50)), whole[: len(whole) // 8 * 4]):
            body = json.dumps({"image": image}).encode()
            said = await send(head(f"Content-Length: {len(body)}") + body, False)
            assert said.startswith(b"HTTP/1.1 400"), said

    attacked(tmp_path, attack)
