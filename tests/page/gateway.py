"""What does a page need of its gateway, at the least? A stand-in for the edge with toy bundles."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import mimetypes
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from trivium.contract import (
    EVENTS,
    FRAMES,
    JSON,
    MSGPACK,
    PROBLEM,
    Ask,
    Blob,
    Fault,
    Manifest,
    Problem,
    Refusal,
    Tier,
    Variant,
    decode,
    encode,
    frame,
)
from trivium.engine import Engine
from trivium.errors import BadInput, TriviumError, Unauthenticated
from trivium.function import Function, Loaded
from trivium.hosts.server import signing
from trivium.hosts.server.bundles import SIGNATURE
from trivium.hosts.timing import Timing
from trivium.kinds import Decoded, Given, Text
from trivium_edge import wheel

ROOT = Path(__file__).parents[2]
DIST = ROOT / "wasm/page/dist"


class Bare(Timing):
    """A host without models."""

    async def open(self, function: Function) -> Loaded:
        return Loaded({}, settings=function.variant.settings)

    async def decode(self, kind: str, value: str | Blob, variant: Variant) -> Given:
        if kind != "text" or not isinstance(value, str):
            raise BadInput("this stand-in takes text alone")
        return Text(value)

    async def encode(self, value: Decoded) -> Blob:
        raise BadInput("this stand-in takes text alone")

    def report(self, error: BaseException, where: str | None) -> None:
        print(where, error)  # shown by pytest if the test fails


@dataclass
class Gateway:
    """Serves the built page and `bundles`; `seen` has each request's method and path.

    While it is `silent` it takes requests for its roads and answers none.
    A file of the page is what `replaced` has under its name; None is no such file.
    """

    bundles: dict[str, Mapping[str, bytes]]
    seen: list[tuple[str, str]] = field(default_factory=list)
    silent: bool = False
    spans: list[dict[str, object]] = field(default_factory=list)
    fresh: str = "t1"
    connections: list[socket.socket] = field(default_factory=list)
    tampered: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    key: signing.PrivateKey = field(default_factory=signing.PrivateKey.make)
    trusted: list[signing.PublicKey] = field(default_factory=list)
    replaced: dict[str, bytes | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(Tier.EDGE, Bare(), development=True)
        self.wheel = wheel.kernel()
        self.trusted.append(self.key.public)
        # msgspec learns a type when it first decodes one: if two threads do so at once, it crashes.
        sign("first", {"manifest.json": b"{}"}, self.key)
        decode(encode(Ask(function="first")), Ask)
        for name in self.bundles:
            self.serve(name, self.bundles[name])
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                gateway.connections.append(self.connection)

            def do_GET(self) -> None:
                gateway.seen.append(("GET", self.path))
                self.reply(*gateway.get(self.path.partition("?")[0]))

            def do_POST(self) -> None:
                gateway.seen.append(("POST", self.path))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.reply(*gateway.post(self.path, dict(self.headers), body))

            def reply(self, status: int, media: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", media)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cross-Origin-Opener-Policy", "same-origin")
                self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
                self.send_header("Cross-Origin-Resource-Policy", "same-origin")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the page gave up
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"

    def close(self) -> None:
        """Go away as a killed process does, kept-alive connections included."""
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def serve(self, name: str, files: Mapping[str, bytes]) -> None:
        """Serve a bundle, in place of the one of that name."""
        self.bundles[name] = files
        manifest = decode(files["manifest.json"], Manifest, JSON)
        variant = manifest.variant(Tier.EDGE)
        self.engine.functions.pop(name, None)
        if variant is not None:
            source = files["function.py"].decode()
            self.engine.add(Function(manifest, variant, source, digest(files)))

    def get(self, path: str) -> tuple[int, str, bytes]:
        if path == "/runtime/kernel.whl":
            return 200, "application/octet-stream", self.wheel
        if path == "/v1/bundles":
            rows = [
                {
                    "name": name,
                    "version": json.loads(files["manifest.json"])["version"],
                    "digest": digest(files),
                }
                for name, files in self.bundles.items()
            ]
            return 200, JSON, json.dumps(rows).encode()
        while path == "/v1/roads" and self.silent:
            time.sleep(0.05)
        if path == "/v1/roads":
            return 200, JSON, encode({n: self.engine.roads(n) for n in self.engine.functions}, JSON)
        if path.startswith("/bundles/"):
            name, _, file = path.removeprefix("/bundles/").split("/", 2)
            files = {**self.bundles[name], SIGNATURE: sign(name, self.bundles[name], self.key)}
            data = self.tampered.get((name, file), files.get(file))
            if data is None:
                return 404, "text/plain", b"no such file"
            return 200, mimetypes.guess_type(file)[0] or "application/octet-stream", data
        if path == "/v1/keys":
            keys = [{"id": key.id, "pem": key.pem.decode()} for key in self.trusted]
            return 200, JSON, json.dumps(keys).encode()
        found = DIST / (path.lstrip("/") or "index.html")
        if not found.is_file() or self.replaced.get(found.name, b"") is None:
            return 404, "text/plain", b"no such file"
        media = {".wasm": "application/wasm", ".mjs": "text/javascript"}.get(found.suffix)
        media = media or mimetypes.guess_type(found.name)[0] or "application/octet-stream"
        return 200, media, self.replaced.get(found.name) or found.read_bytes()

    def post(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
        if path == "/v1/token":
            token = {"token": self.fresh, "expires_in": 60}
            return 200, JSON, json.dumps(token).encode()
        accept = headers.get("Accept", JSON)
        try:
            if headers.get("Authorization") != f"Bearer {self.fresh}":
                raise Unauthenticated("the token is missing, wrong or expired")
            if path == "/v1/spans":
                self.spans += json.loads(body)
                return 200, JSON, b"{}"
            return 200, accept, asyncio.run(self.answer(decode(body, Ask), accept))
        except TriviumError as error:
            if accept in (MSGPACK, FRAMES):
                return error.status, MSGPACK, encode(Refusal(error=Fault.of(error)))
            return error.status, PROBLEM, encode(Problem.of(error), JSON)

    async def answer(self, ask: Ask, accept: str) -> bytes:
        if accept == FRAMES:
            return b"".join([frame(part) async for part in self.engine.stream(ask)])
        if accept == EVENTS:
            parts = [encode(part, JSON) async for part in self.engine.stream(ask)]
            return b"".join(b"event: some\ndata: " + part + b"\n\n" for part in parts)
        return encode(await self.engine.infer(ask), accept)


def digest(files: Mapping[str, bytes]) -> str:
    return hashlib.sha256(files["manifest.json"]).hexdigest()


def sign(name: str, files: Mapping[str, bytes], *keys: signing.PrivateKey) -> bytes:
    """Return the signature of a bundle's files by some keys, the last one first."""
    listed = json.loads(files["manifest.json"]).get("files", {})
    pinned = {file: each["sha256"] for file, each in listed.items()}
    marks: tuple[signing.Mark, ...] = ()
    for key in keys:
        made = signing.seal(name, {**pinned, "manifest.json": digest(files)}, key, marks)
        marks = decode(made, signing.Signature, JSON).dsse_envelope.signatures
    return made
