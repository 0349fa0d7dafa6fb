"""Files that come in pieces: by tus, through cuts and restarts, each its tenant's."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tusclient.client import TusClient

import samples
import servers
import stores
import toys
from servers import CLOUD_KEY, Room, chunks, said, work
from trivium.contract import Input
from trivium.errors import BadInput, Conflict, NotFound, QuotaExceeded, TooLarge
from trivium.hosts.server.callers import Caller
from trivium_cloud.uploads import MOST, MOST_FILES, OFFSET, PATH, SWEEP_S, Uploads

TUS = {"tus-resumable": "1.0.0"}
ONE, OTHER = Caller(tenant="one"), Caller(tenant="other")

SUM = """
import hashlib
from trivium import Document, function

@function("document.sum")
async def total(document: Document) -> str:
    return hashlib.sha256(document.blob.data).hexdigest()
"""


def zoo(folder: Path) -> Path:
    """Return a folder with a function that says what came."""
    inputs = (Input(name="document", kind="document"),)
    toys.bundle(folder, SUM, toys.manifest("document.sum", "total", inputs=inputs))
    return samples.zoo(folder)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Return a cloud that takes files."""
    folder = tmp_path_factory.mktemp("cloud")
    with servers.serving([zoo(folder / "zoo")], uploads=folder / "uploads") as made:
        yield made.cloud


def create(room: Room, size: int, content: bytes | None = None, **headers: str) -> httpx.Response:
    """Create an upload; headers are written with underscores."""
    given = {each.replace("_", "-"): value for each, value in headers.items()}
    return room.send(
        "POST", PATH, content=content, headers=TUS | {"upload-length": str(size)} | given
    )


def patch(room: Room, where: str, offset: int, content: Any, **headers: str) -> httpx.Response:
    """Send some bytes of an upload."""
    given = {each.replace("_", "-"): value for each, value in headers.items()}
    told = TUS | {"upload-offset": str(offset), "content-type": OFFSET} | given
    return room.send("PATCH", where, content=content, headers=told)


def offset(room: Room, where: str) -> int:
    """Return how much of an upload is there."""
    response = room.send("HEAD", where, headers=TUS)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    return int(response.headers["upload-offset"])


def test_it_says_what_it_can(cloud: Room) -> None:
    """To anybody, as tus wants it."""
    response = cloud.send("OPTIONS", PATH, key=None)
    assert response.status_code == 204
    assert response.headers["tus-version"] == "1.0.0"
    assert response.headers["tus-max-size"] == str(MOST)
    assert {"creation", "expiration", "termination", "checksum"} <= set(
        response.headers["tus-extension"].split(",")
    )
    assert response.headers["tus-checksum-algorithm"] == "sha1,sha256"


def test_a_file_comes_in_pieces_and_is_asked_about(cloud: Room) -> None:
    """Each piece goes where the last one ended."""
    data = random.Random(1).randbytes(100_000)
    metadata = f"filename {base64.b64encode(b'a.bin').decode()},filetype"
    made = create(cloud, len(data), upload_metadata=metadata)
    assert (made.status_code, made.headers["tus-resumable"]) == (201, "1.0.0")
    where = made.headers["location"]
    assert made.headers["upload-expires"].endswith(" GMT")
    ask = {"function": "document.sum", "document": f"upload:{where.rpartition('/')[2]}"}
    assert said(cloud.send("POST", "/v1/multimodal", json=ask)).startswith("409 conflict: of the")
    assert patch(cloud, where, 0, data[:1]).headers["upload-offset"] == "1"
    assert patch(cloud, where, 1, chunks(data[1:9], data[9:50])).headers["upload-offset"] == "50"
    assert offset(cloud, where) == 50
    for wrong in (0, 49, 51):
        refused = patch(cloud, where, wrong, b"abc")
        assert said(refused).startswith("409 conflict: the upload goes on at byte 50")
        assert refused.headers["tus-resumable"] == "1.0.0"
    assert patch(cloud, where, 50, data[50:] + b"!").status_code == 413
    # What came before the byte too many is kept: it was right.
    assert (
        patch(cloud, where, offset(cloud, where), data[offset(cloud, where) :]).status_code == 204
    )
    head = cloud.send("HEAD", where, headers=TUS)
    assert head.headers["upload-metadata"] == metadata
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(data))
    answer = cloud.send("POST", "/v1/multimodal", json=ask)
    assert answer.json()["output"] == hashlib.sha256(data).hexdigest()
    assert cloud.send("DELETE", where, headers=TUS).status_code == 204
    assert cloud.send("HEAD", where, headers=TUS).status_code == 404
    assert said(cloud.send("POST", "/v1/multimodal", json=ask)).startswith("404 not_found: ")


def test_a_file_may_come_with_its_creation(cloud: Room) -> None:
    """Then there is but one request; its type goes with it."""
    kind = base64.b64encode(b"image/png").decode()
    png = samples.png(5, 4)
    made = create(cloud, len(png), png, content_type=OFFSET, upload_metadata=f"filetype {kind}")
    assert (made.status_code, made.headers["upload-offset"]) == (201, str(len(png)))
    ask = {"parts": [{"upload": made.headers["location"].rpartition("/")[2]}]}
    assert cloud.send("POST", "/v1/multimodal", json=ask).json()["output"] == [4, 5]
    assert create(cloud, 2, b"abc", content_type=OFFSET).status_code == 413


def test_pieces_are_checked_by_their_digests(cloud: Room) -> None:
    """All of a piece is taken, or nothing."""
    where = create(cloud, 6).headers["location"]
    right = base64.b64encode(hashlib.sha1(b"abc").digest()).decode()  # as tus has it
    wrong = patch(cloud, where, 0, b"abd", upload_checksum=f"sha1 {right}")
    assert said(wrong).startswith("460 bad_ask: the sha1 of these 3 bytes is another")
    assert offset(cloud, where) == 0
    assert patch(cloud, where, 0, b"abc", upload_checksum=f"sha1 {right}").status_code == 204
    strong = base64.b64encode(hashlib.sha256(b"def").digest()).decode()
    assert patch(cloud, where, 3, b"def", upload_checksum=f"sha256 {strong}").status_code == 204
    for odd in ("md5 abc=", "sha1", "sha1 !", "sha1 YWJj"):
        refused = patch(cloud, where, 6, b"", upload_checksum=odd)
        assert said(refused).startswith("400 bad_input: upload-checksum is ")


def test_what_is_wrong_is_named(cloud: Room) -> None:
    """With the status that tus has for it."""
    where = create(cloud, 9).headers["location"]
    old = cloud.send("POST", PATH, headers={"tus-resumable": "0.2.2", "upload-length": "1"})
    assert said(old).startswith("412 bad_ask: Tus-Resumable is '0.2.2'; it must be 1.0.0")
    assert old.headers["tus-version"] == "1.0.0"
    typed = patch(cloud, where, 0, b"a", content_type="text/plain")
    assert said(typed).startswith("415 bad_ask: ")
    assert said(create(cloud, MOST + 1)).startswith("413 too_large: the upload has ")
    for length in ("", "-1", "1e3", "\u0661", "9" * 16):
        given = [(b"tus-resumable", b"1.0.0"), (b"upload-length", length.encode())]
        refused = cloud.send("POST", PATH, headers=given)
        assert said(refused).startswith("400 bad_input: upload-length is ")
    for header, value in (
        ("upload_defer_length", "1"),
        ("upload_concat", "partial"),
        ("upload_metadata", "a b, a b"),
        ("upload_metadata", "a YQ==,a YQ=="),
    ):
        assert create(cloud, 1, None, **{header: value}).status_code == 400
    assert create(cloud, 1, upload_metadata="a" * 5_000).status_code == 413
    for method, path in (("GET", where), ("PUT", PATH), ("PATCH", PATH), ("POST", where)):
        refused = cloud.send(method, path, headers=TUS)
        assert refused.status_code == 405
        assert "OPTIONS" in refused.headers["allow"]
    for name in ("x", "0" * 32, "..%2f..%2fetc", "%00", "a" * 5_000, where[-32:].upper()):
        assert cloud.send("HEAD", f"{PATH}/{name}", headers=TUS).status_code == 404
    assert cloud.send("HEAD", f"{where}/more", headers=TUS).status_code == 404
    assert cloud.send("HEAD", where, key=None, headers=TUS).status_code == 401
    instead = TUS | {"x-http-method-override": "DELETE"}
    assert cloud.send("POST", where, headers=instead).status_code == 204


def test_another_tenants_file_is_none(tmp_path: Path) -> None:
    """Neither to look at, nor to write, end or use."""
    uploads = Uploads(tmp_path, quota=100, keep_s=60)

    async def run() -> None:
        name = await uploads.create(ONE, 3)
        for again in (
            uploads.look(OTHER, name),
            uploads.append(OTHER, name, 0, chunks(b"abc")),
            uploads.end(OTHER, name),
            uploads.blob(OTHER, name),
        ):
            with pytest.raises(NotFound):
                await again
        await uploads.append(ONE, name, 0, chunks(b"abc"))
        assert (await uploads.blob(ONE, name)).data == b"abc"

    work(run())


def test_a_tenant_has_room_of_its_own(tmp_path: Path) -> None:
    """In bytes and in files; what ended or expired counts no more."""
    now = [1000.0]
    uploads = Uploads(tmp_path, quota=10, keep_s=60, clock=lambda: now[0])

    async def run() -> None:
        first = await uploads.create(ONE, 8)
        with pytest.raises(QuotaExceeded, match="1 uploads of 8 bytes are here") as refused:
            await uploads.create(ONE, 3)
        assert refused.value.retry_after == 60
        await uploads.create(OTHER, 10)
        await uploads.end(ONE, first)
        late = await uploads.create(ONE, 10)
        now[0] += 61
        with pytest.raises(NotFound):
            await uploads.look(ONE, late)
        for _ in range(MOST_FILES):
            await uploads.create(ONE, 0)
        with pytest.raises(QuotaExceeded):
            await uploads.create(ONE, 0)

    work(run())


def test_sweeping_leaves_what_is_used(tmp_path: Path) -> None:
    """What expired goes, and what a server that died left half made."""
    now = [time.time()]
    uploads = Uploads(tmp_path, quota=100, keep_s=60, clock=lambda: now[0])

    old = work(uploads.create(ONE, 3))
    now[0] += 50
    fresh = work(uploads.create(ONE, 3))
    (home,) = tmp_path.iterdir()
    for odd in ("x.data", f"{fresh}.12345678.new", "broken.json"):
        (home / odd).write_bytes(b"?")
    now[0] += 20
    uploads.sweep()
    assert not list(home.glob(f"{old}*"))
    assert not (home / "broken.json").exists()
    assert work(uploads.look(ONE, fresh)).size == 3
    now[0] += SWEEP_S
    uploads.sweep()
    assert not list(home.glob("*.data"))
    assert not list(home.glob("*.new"))


def test_two_that_write_do_not_mix(tmp_path: Path) -> None:
    """The second is told to come again; what the first wrote holds."""
    uploads = Uploads(tmp_path, quota=100, keep_s=60)

    async def run() -> None:
        name = await uploads.create(ONE, 6)
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"abc"
            await go.wait()
            yield b"def"

        first = asyncio.ensure_future(uploads.append(ONE, name, 0, slow()))
        await asyncio.sleep(0.05)
        with pytest.raises(Conflict, match="another request is writing") as refused:
            await uploads.append(ONE, name, 0, chunks(b"xyz"))
        assert refused.value.retry_after == 1
        go.set()
        assert (await first).offset == 6
        assert (await uploads.blob(ONE, name)).data == b"abcdef"

    work(run())


@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_what_came_before_a_cut_stays(tmp_path: Path, how: str) -> None:
    """But with a digest, which is of the whole piece."""
    uploads = Uploads(tmp_path, quota=100, keep_s=60)

    async def run() -> None:
        async def cut() -> AsyncIterator[bytes]:
            yield b"abc"
            if how == "left":
                raise BadInput("the client left")
            await asyncio.sleep(60)

        for digest, kept in ((None, 3), (("sha1", b"?" * 20), 0)):
            name = await uploads.create(ONE, 6)
            task = asyncio.ensure_future(uploads.append(ONE, name, 0, cut(), digest))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises((BadInput, asyncio.CancelledError)):
                await task
            assert (await uploads.look(ONE, name)).offset == kept

    work(run())


def test_bytes_that_were_not_stated_are_written_anew(tmp_path: Path) -> None:
    """As after a server that was killed between the two."""
    uploads = Uploads(tmp_path, quota=100, keep_s=60)

    name = work(uploads.create(ONE, 4))
    work(uploads.append(ONE, name, 0, chunks(b"ab")))
    (data,) = tmp_path.glob(f"*/{name}.data")
    data.write_bytes(data.read_bytes() + b"half of what came")
    work(uploads.append(ONE, name, 2, chunks(b"cd")))
    assert work(uploads.blob(ONE, name)).data == b"abcd"


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=40),
    cuts=st.lists(st.tuples(st.integers(0, 45), st.integers(0, 20)), max_size=8),
)
def test_whatever_pieces_are_sent_the_file_is_what_was_sent(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[tuple[int, int]]
) -> None:
    """In any order and of any length: what is taken is at its place."""
    uploads = Uploads(tmp_path_factory.mktemp("uploads"), quota=100, keep_s=60)

    async def run() -> None:
        name = await uploads.create(ONE, len(data))
        here = 0
        for start, size in [*cuts, (None, len(data))]:
            begin = here if start is None else start
            piece = data[begin : begin + size]
            with contextlib.suppress(Conflict, TooLarge):
                upload = await uploads.append(ONE, name, begin, chunks(piece))
                assert begin == here
                here = upload.offset
        assert (await uploads.blob(ONE, name)).data == data

    work(run())


def until(there: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < ends, "it does not come"
        time.sleep(0.01)


class Real:
    """A cloud in a process of its own, which can be killed and started again at its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        zoo(folder / "zoo")
        self.port = stores.port()
        self.url = f"http://127.0.0.1:{self.port}{PATH}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = "-m uvicorn --factory trivium_cloud.app:create_app --log-level error --port"
        self.process = subprocess.Popen(
            [sys.executable, *command.split(), str(self.port)],
            env=os.environ
            | {
                "TRIVIUM_CLOUD_BUNDLES": str(self.folder / "zoo"),
                "TRIVIUM_CLOUD_KEYS": CLOUD_KEY,
                "TRIVIUM_CLOUD_TRUST": str(toys.keys()),
                "TRIVIUM_CLOUD_UPLOADS": str(self.folder / "uploads"),
            },
        )
        until(self.listens, 60)

    def listens(self) -> bool:
        """Return whether it takes connections, which it does once it can answer."""
        assert self.process is not None
        assert self.process.poll() is None, "the cloud ended"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def kill(self, how: int = signal.SIGKILL) -> None:
        """End it, at once unless told otherwise."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(20)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Real]:
    """Return a cloud in a process of its own."""
    made = Real(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def test_an_unmodified_client_gets_through_kills(real: Real, tmp_path: Path) -> None:
    """tuspy's file arrives whole although the server is killed again and again."""
    data = random.Random(2).randbytes(12 << 20)
    (tmp_path / "file").write_bytes(data)
    client = TusClient(real.url, headers={"Authorization": f"Bearer {CLOUD_KEY}"})
    uploader = client.uploader(
        str(tmp_path / "file"), chunk_size=3 << 20, retries=200, retry_delay=0.2
    )
    stop = threading.Event()

    def kills() -> None:
        for _ in range(3):
            if stop.wait(0.15):
                return
            real.kill()
            real.start()

    killer = threading.Thread(target=kills)
    killer.start()
    try:
        uploader.upload()
    finally:
        stop.set()
        killer.join()
    assert uploader.url is not None
    ask = {"function": "document.sum", "document": f"upload:{uploader.url[-32:]}"}
    answer = httpx.post(
        real.url.replace(PATH, "/v1/multimodal"),
        json=ask,
        headers={"Authorization": f"Bearer {CLOUD_KEY}"},
        timeout=20,
    )
    assert answer.json()["output"] == hashlib.sha256(data).hexdigest()


def test_an_unmodified_client_checks_what_it_sends(real: Real, tmp_path: Path) -> None:
    """By SHA-1, which is the one that tus asks for."""
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    client = TusClient(real.url, headers={"Authorization": f"Bearer {CLOUD_KEY}"})
    uploader = client.uploader(
        str(tmp_path / "file"), chunk_size=1000, upload_checksum=True, metadata={"filetype": "a/b"}
    )
    uploader.upload()
    assert uploader.offset == 3000


def test_cut_connections_cost_no_byte_that_came(real: Real) -> None:
    """A body that ends before its announced length is there as far as it came."""
    data = random.Random(3).randbytes(200_000)
    told = TUS | {"Authorization": f"Bearer {CLOUD_KEY}"}
    made = httpx.post(real.url, headers=told | {"upload-length": str(len(data))})
    where = made.headers["location"]
    (file,) = real.folder.glob("uploads/*/*.data")
    here = 0
    while here < len(data):
        cut = min(len(data), here + 60_000)
        with socket.create_connection(("127.0.0.1", real.port)) as raw:
            head = (
                f"PATCH {where} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLOUD_KEY}\r\n"
                f"tus-resumable: 1.0.0\r\ncontent-type: {OFFSET}\r\nupload-offset: {here}\r\n"
                f"content-length: {len(data) - here}\r\n\r\n"
            )
            raw.sendall(head.encode() + data[here:cut])
            # What is cut off before the server looked at it is lost, as on any way.
            until(lambda size=cut: file.stat().st_size == size)  # type: ignore[misc]
            if cut == len(data):
                assert raw.recv(20).startswith(b"HTTP/1.1 204")

        def went_on() -> bool:
            head = httpx.head(real.url.replace(PATH, where), headers=told)
            return int(head.headers["upload-offset"]) == cut  # noqa: B023  # called at once

        until(went_on)
        here = cut
    ask = {"function": "document.sum", "document": f"upload:{where[-32:]}"}
    answer = httpx.post(real.url.replace(PATH, "/v1/multimodal"), json=ask, headers=told)
    assert answer.json()["output"] == hashlib.sha256(data).hexdigest()
