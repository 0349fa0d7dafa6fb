"""How does a file come in pieces, through cuts and restarts, and wait to be asked about?

By tus 1.0.0 (https://tus.io/protocols/resumable-upload), so that there are clients already.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any, TypeVar

from litestar import asgi
from litestar.enums import ScopeType
from litestar.exceptions import ClientException, MethodNotAllowedException, NotFoundException
from litestar.handlers import ASGIRouteHandler
from litestar.types import ASGIApp, HTTPResponseStartEvent, HTTPScope, Message, Receive, Scope, Send
from msgspec.structs import replace

from trivium.contract import JSON, Blob, decode, encode
from trivium.errors import BadInput, Conflict, NotFound, QuotaExceeded, TierOverloaded, TooLarge
from trivium.hosts.server import web
from trivium.hosts.server.beside import beside
from trivium.hosts.server.callers import Admit, Caller
from trivium.nouns import Noun

from .parts import MOST_BYTES

PATH = "/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,termination,checksum"
OFFSET = "application/offset+octet-stream"
DIGESTS = ("sha1", "sha256")
MOST = max(MOST_BYTES.values())
"""Bytes of one file: no function takes a larger one."""

MOST_FILES = 256
"""Files that a tenant may have here at once."""

COMMIT = 4 << 20
"""So many bytes are on the disk at the latest when a server dies."""

SWEEP_S = 600.0

T = TypeVar("T")
log = logging.getLogger("trivium.uploads")
_ID = re.compile(r"[0-9a-f]{32}")


class Upload(Noun, frozen=True, kw_only=True):
    """A file on its way: its size, how much of it is here, and until when (seconds since 1970).

    `metadata` is what its sender said, as it was sent.
    """

    size: int
    expires: float
    offset: int = 0
    media: str = ""
    metadata: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Return what tus says of it."""
        return {
            "upload-offset": str(self.offset),
            "upload-expires": formatdate(self.expires, usegmt=True),
        }


class Uploads:
    """Files in `folder`, each its tenant's: at most `quota` bytes of one tenant, for `keep_s`.

    Of a file there is what was written and then stated beside it, in that order: whatever comes
    in between, it is taken up at the last statement. Servers may share a folder.
    """

    def __init__(
        self, folder: Path, *, quota: int, keep_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder
        self._quota = quota
        self._keep_s = keep_s
        self._clock = clock

    async def create(self, caller: Caller, size: int, media: str = "", metadata: str = "") -> str:
        """Return the id of a new file; raise TooLarge or QuotaExceeded."""
        if size > MOST:
            raise TooLarge(f"the upload has {size} bytes; at most {MOST} are allowed")
        return await _settled(lambda: self._create(caller, size, media, metadata))

    def _create(self, caller: Caller, size: int, media: str, metadata: str) -> str:
        home = self._home(caller)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(home / "lock", wait=True):
            held = [
                upload
                for each in home.glob("*.json")
                if (upload := self._read(each)) and upload.expires > self._clock()
            ]
            used = sum(each.size for each in held)
            if len(held) >= MOST_FILES or used + size > self._quota:
                raise QuotaExceeded(
                    f"{len(held)} uploads of {used} bytes are here; at most {MOST_FILES} of "
                    f"{self._quota} bytes are allowed, with this one of {size}",
                    retry_after=max(1.0, min(each.expires for each in held) - self._clock())
                    if held
                    else None,
                )
            name = secrets.token_hex(16)
            (home / f"{name}.data").touch(mode=0o600)
            expires = self._clock() + self._keep_s
            upload = Upload(size=size, expires=expires, media=media, metadata=metadata)
            _state(home / f"{name}.json", upload)
        return name

    async def look(self, caller: Caller, name: str) -> Upload:
        """Return how far a file is; raise NotFound, also for another tenant's."""
        return await _settled(lambda: self._look(caller, name)[1])

    def _look(self, caller: Caller, name: str) -> tuple[Path, Upload]:
        if _ID.fullmatch(name):
            stated = self._home(caller) / f"{name}.json"
            upload = self._read(stated)
            if upload is not None and upload.expires > self._clock():
                return stated, upload
        raise NotFound(f"there is no upload {name[:64]!r}, or no longer")

    async def append(
        self,
        caller: Caller,
        name: str,
        offset: int,
        pieces: AsyncIterator[bytes],
        digest: tuple[str, bytes] | None = None,
    ) -> Upload:
        """Return a file after pieces were added at `offset`; what a cut left of them stays.

        With a `digest` (its name and value) all of them are taken, or none.

        Raises:
            NotFound: there is no such file.
            Conflict: it goes on elsewhere, or another request is writing it.
            TooLarge: it would be larger than was said.
            ClientException: the pieces are not what the digest says (460).
        """
        stated, _ = await _settled(lambda: self._look(caller, name))
        with _locked(stated.with_suffix(".data"), wait=False) as file:
            # Again, for another may have written before it was locked.
            _, upload = await _settled(lambda: self._look(caller, name))
            if offset != upload.offset:
                raise Conflict(f"the upload goes on at byte {upload.offset}, not at {offset}")
            os.ftruncate(file, offset)
            os.lseek(file, offset, os.SEEK_SET)
            # MD5 is none of them, and SHA-1 is against accidents alone.
            seen = hashlib.new(digest[0], usedforsecurity=False) if digest else None
            came = 0
            try:
                async for piece in pieces:
                    if offset + came + len(piece) > upload.size:
                        raise TooLarge(
                            f"the upload is {upload.size} bytes long; "
                            f"byte {offset + came + len(piece)} would be beyond"
                        )
                    # To memory, in some microseconds; the disk's turn comes below.
                    os.write(file, piece)
                    came += len(piece)
                    if seen is not None:
                        seen.update(piece)
                    elif offset + came - upload.offset >= COMMIT:
                        upload = await self._commit(file, stated, upload, offset + came)
            except BaseException:
                if seen is None:
                    await self._commit(file, stated, upload, offset + came)
                raise
            if seen is not None and digest and not secrets.compare_digest(seen.digest(), digest[1]):
                raise ClientException(
                    f"the {digest[0]} of these {came} bytes is another; send them again",
                    status_code=460,
                )
            return await self._commit(file, stated, upload, offset + came)

    async def _commit(self, file: int, stated: Path, upload: Upload, offset: int) -> Upload:
        def commit() -> Upload:
            os.fsync(file)
            # One that was ended meanwhile does not come back.
            if not stated.exists():
                raise NotFound("the upload was ended meanwhile")
            found = replace(upload, offset=offset)
            _state(stated, found)
            return found

        return await _settled(commit)

    async def end(self, caller: Caller, name: str) -> None:
        """Let a file go; raise NotFound."""
        await _settled(lambda: _remove(self._look(caller, name)[0]))

    async def blob(self, caller: Caller, name: str) -> Blob:
        """Return a whole file; raise NotFound, or Conflict while a part of it is missing."""

        def read() -> Blob:
            stated, upload = self._look(caller, name)
            if upload.offset < upload.size:
                raise Conflict(
                    f"of the upload {name} there are {upload.offset} of {upload.size} bytes"
                )
            with contextlib.suppress(FileNotFoundError):
                return Blob(media=upload.media, data=stated.with_suffix(".data").read_bytes())
            raise NotFound(f"there is no upload {name!r} any more")

        caller.check("uploads")
        return await _settled(read)

    def sweep(self) -> None:
        """Let go what has expired, and what a server that died left half made."""
        now = self._clock()
        for home in self._folder.glob("*/"):
            for each in home.glob("*.json"):
                upload = self._read(each)
                if upload is None or upload.expires <= now:
                    _remove(each)
            for each in [*home.glob("*.data"), *home.glob("*.new")]:
                with contextlib.suppress(OSError):
                    alone = not each.with_suffix(".json").exists()
                    if (alone or each.suffix == ".new") and each.stat().st_mtime < now - SWEEP_S:
                        each.unlink()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep now and then."""

        async def sweeping() -> None:
            while True:
                try:
                    await asyncio.to_thread(self.sweep)
                except OSError as error:
                    log.warning("uploads can't be swept: %s", error)
                await asyncio.sleep(SWEEP_S)

        async with beside(sweeping()):
            yield

    def _home(self, caller: Caller) -> Path:
        # A tenant's name is no name of a folder: it may differ in case alone.
        return self._folder / hashlib.sha256(caller.tenant.encode()).hexdigest()[:32]

    def _read(self, stated: Path) -> Upload | None:
        try:
            return decode(stated.read_bytes(), Upload, JSON)
        except (OSError, BadInput):
            return None

    def route(self, admit: Admit) -> ASGIRouteHandler:
        """Return the handler for PATH and what is under it."""

        @asgi(PATH, is_mount=True, copy_scope=False)
        async def uploads(scope: Scope, receive: Receive, send: Send) -> None:
            async def told(message: Message) -> None:
                if message["type"] == "http.response.start":
                    tus = (b"tus-resumable", VERSION.encode())
                    message["headers"] = [*message.get("headers", ()), tus]
                await send(message)

            path = scope["path"].rstrip("/")
            scope["path"] = PATH + path
            if scope["type"] == ScopeType.WEBSOCKET or path.count("/") > 1:
                raise NotFoundException
            try:
                respond = await self._answer(scope, receive, admit, path[1:])
            except Exception as error:  # one shape, with tus' header beside it
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    error = TierOverloaded("the disk for uploads is full", tier="cloud")
                request: web.AnyRequest = web.AnyRequest(scope, receive)
                response = web.refuse(request, error)
                respond = response.to_asgi_response(app=None, request=request)
            await respond(scope, receive, told)

        return uploads

    async def _answer(self, scope: HTTPScope, receive: Receive, admit: Admit, name: str) -> ASGIApp:
        request = web.Incoming(scope, receive)
        method = request.headers.get("x-http-method-override", str(scope["method"])).upper()
        if method == "OPTIONS":
            return _empty(
                204,
                {
                    "tus-version": VERSION,
                    "tus-extension": EXTENSIONS,
                    "tus-max-size": str(MOST),
                    "tus-checksum-algorithm": ",".join(DIGESTS),
                },
            )
        allowed = ("HEAD", "PATCH", "DELETE") if name else ("POST",)
        if method not in allowed:
            raise MethodNotAllowedException(headers={"allow": ", ".join([*allowed, "OPTIONS"])})
        caller = await admit(scope)
        caller.check("uploads")
        if request.headers.get("tus-resumable") != VERSION:
            raise ClientException(
                f"Tus-Resumable is {request.headers.get('tus-resumable', '')[:20]!r}; "
                f"it must be {VERSION}",
                status_code=412,
                headers={"tus-version": VERSION},
            )
        if method == "POST":
            return await self._begin(caller, request)
        if method == "PATCH":
            if request.headers.get("content-type") != OFFSET:
                raise ClientException(f"the content type must be {OFFSET}", status_code=415)
            offset = _number(request.headers, "upload-offset")
            upload = await self._more(caller, name, offset, request)
            return _empty(204, upload.headers)
        if method == "DELETE":
            await self.end(caller, name)
            return _empty(204, {})
        upload = await self.look(caller, name)
        headers = {**upload.headers, "upload-length": str(upload.size), "cache-control": "no-store"}
        if upload.metadata:
            headers["upload-metadata"] = upload.metadata
        return _empty(200, headers)

    async def _begin(self, caller: Caller, request: web.Incoming) -> ASGIApp:
        for header in ("upload-defer-length", "upload-concat"):
            if header in request.headers:
                raise BadInput(f"{header} is not known here; known are: {EXTENSIONS}")
        metadata = request.headers.get("upload-metadata", "")
        said = _metadata(metadata)
        media = said.get("filetype") or said.get("content-type") or ""
        size = _number(request.headers, "upload-length")
        name = await self.create(caller, size, media, metadata)
        upload = await self.look(caller, name)
        if request.headers.get("content-type") == OFFSET:
            try:
                upload = await self._more(caller, name, 0, request)
            except Exception:  # whatever it was: nobody was told of the upload
                await self.end(caller, name)
                raise
        headers = {**upload.headers, "location": f"{PATH}/{name}"}
        return _empty(201, headers)

    async def _more(self, caller: Caller, name: str, offset: int, request: web.Incoming) -> Upload:
        digest = _digest(request.headers.get("upload-checksum", ""))
        return await self.append(caller, name, offset, request.pieces(MOST), digest)


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise BadInput(f"{name} is {text[:20]!r}; it must be a number of bytes")
    return int(text)


def _digest(text: str) -> tuple[str, bytes] | None:
    if not text:
        return None
    name, _, value = text.partition(" ")
    try:
        digest = binascii.a2b_base64(value.strip(), strict_mode=True)
    except (binascii.Error, ValueError):
        digest = b""
    if name not in DIGESTS or len(digest) != hashlib.new(name, usedforsecurity=False).digest_size:
        raise BadInput(
            f"upload-checksum is {text[:40]!r}; it must be one of {', '.join(DIGESTS)}, "
            "and its base64"
        )
    return name, digest


def _metadata(text: str) -> dict[str, str]:
    """Return what a sender says of a file: pairs of a key and base64, with commas between them."""
    found: dict[str, str] = {}
    if len(text) > 4096:
        raise TooLarge(f"upload-metadata has {len(text)} characters; at most 4096 are allowed")
    for pair in filter(None, text.split(",")):
        name, _, value = pair.strip().partition(" ")
        try:
            said = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise BadInput(f"upload-metadata has {name[:40]!r} with what is no base64") from error
        if not name or name in found:
            raise BadInput(f"upload-metadata has {name[:40]!r} twice, or without a name")
        found[name] = said
    return found


def _empty(status: int, headers: Mapping[str, str]) -> ASGIApp:
    async def respond(_: Scope, __: Receive, send: Send) -> None:
        start: HTTPResponseStartEvent = {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (name.encode(), value.encode("latin-1")) for name, value in headers.items()
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return respond


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Any:
    """Hold a file against other requests and servers; raise Conflict if they hold it."""
    try:
        file = os.open(path, os.O_RDWR | (os.O_CREAT if wait else 0), 0o600)
    except FileNotFoundError as error:
        raise NotFound("there is no such upload any more") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Conflict("another request is writing this upload", retry_after=1.0) from error
        yield file
    finally:
        os.close(file)


def _state(path: Path, upload: Upload) -> None:
    """Write what there is of a file so that it is there as a whole, or as it was before."""
    fresh = path.with_suffix(f".{secrets.token_hex(4)}.new")
    with fresh.open("xb") as file:
        file.write(encode(upload, JSON))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _remove(stated: Path) -> None:
    # First what says that it is there.
    for each in (stated, stated.with_suffix(".data")):
        each.unlink(missing_ok=True)


async def _settled(call: Callable[[], T]) -> T:
    """Run `call` in a thread, and wait for its end even if nobody wants it any more."""
    work = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
