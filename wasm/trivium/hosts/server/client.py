"""How does a program in Python ask a gateway or a cloud?"""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import msgspec

from ...contract import (
    EVENTS,
    FRAMES,
    JSON,
    MSGPACK,
    Answer,
    Blob,
    Budget,
    Fault,
    Frames,
    Problem,
    Refusal,
    Road,
    Tier,
    decode,
    encode,
)
from ...contract import Part as Piece
from ...errors import (
    ERRORS,
    BadInput,
    Conflict,
    QuotaExceeded,
    RunFailed,
    TierError,
    TierUnreachable,
    TooLarge,
    TriviumError,
)
from .task import Event, Task

PIECE = 4 << 20
"""Bytes of an upload that are sent at once, and again after a cut."""

LEAST_WAIT_S = 0.2
MOST_WAIT_S = 30.0

_TUS = {"tus-resumable": "1.0.0"}
_OFFSET = "application/offset+octet-stream"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that a server has; it can be a part of as many requests as one likes."""

    id: str


Part = str | Blob | Path | Upload
"""A text, bytes of a media type, a file whose name tells its type, or an upload."""


class Client:
    """Asks the server at `url`; use it as a context manager.

    `key` is an API key or a token; `api_key` is one beside a token, where a server wants both.
    What was refused unseen is asked again, `retries` times at most, after as long as the server
    says; so is what can't be done twice by that.

    Every method raises the TriviumError that the server answered with, or TierUnreachable.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        api_key: str = "",
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"accept": MSGPACK}
        if key:
            headers["authorization"] = f"Bearer {key}"
        if api_key:
            headers["x-api-key"] = api_key
        self._retries = retries
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(660.0, connect=5.0),
            transport=transport,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def functions(self) -> dict[str, list[Road]]:
        """Return the functions that the server knows, each with the roads to it."""
        headers = {"accept": JSON}
        response = await self._send("GET", "/v1/roads", headers=headers, again=True)
        return decode(response.content, dict[str, list[Road]], JSON)

    async def infer(
        self,
        function: str,
        inputs: Mapping[str, str | Blob],
        *,
        options: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        tiers: Sequence[Tier] = (),
    ) -> Answer:
        """Return a function's answer, on the best road to it; `inputs` are by name."""
        ask = {
            "inputs": dict(inputs),
            "options": dict(options or {}),
            "budget": budget or Budget(),
            "tiers": list(tiers),
        }
        return await self._answer(f"/v1/infer/{function}", ask)

    async def ask(
        self,
        *parts: Part,
        named: Mapping[str, Part] | None = None,
        function: str = "",
        options: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        seconds: float | None = None,
    ) -> Answer:
        """Return the whole answer to parts of any kinds, within `seconds` (5 unless said).

        `named` parts are for the function's inputs of these names. Without a `function` the server
        takes the one for such parts. Raises BudgetError if it is not done in time.
        """
        request = await _request(parts, named, function, options, budget, seconds)
        return await self._answer("/v1/multimodal", request)

    async def stream(
        self,
        *parts: Part,
        named: Mapping[str, Part] | None = None,
        function: str = "",
        options: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        seconds: float | None = None,
    ) -> AsyncGenerator[Piece | Answer, None]:
        """Yield the `output` of what `ask` would return in pieces, as they come; the last is all.

        The first comes within `seconds` (5 unless said). Who stops listening ends the work. What
        fails in the middle raises there.
        """
        request = _packed(await _request(parts, named, function, options, budget, seconds))
        # An error before the first piece is no frame.
        headers = {"content-type": MSGPACK, "accept": f"{FRAMES}, {MSGPACK}"}
        response = await self._send(
            "POST", "/v1/multimodal", content=request, headers=headers, stream=True
        )
        frames, last = Frames(), None
        try:
            async with contextlib.aclosing(response):
                async for data in response.aiter_bytes():
                    for last in frames.feed(data):
                        if isinstance(last, Fault):
                            raise last.error()
                        yield last
        except httpx.HTTPError as error:
            raise self._broken(error) from error
        except (TooLarge, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TierUnreachable(f"the server's answer is not understood: {error}") from error
        if not isinstance(last, Answer):
            raise TierUnreachable(f"{self._client.base_url} ended before the answer was whole")

    async def submit(
        self,
        *parts: Part,
        named: Mapping[str, Part] | None = None,
        function: str = "",
        options: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
        seconds: float | None = None,
        webhook: str = "",
        idempotency: str = "",
    ) -> Submitted:
        """Return a task as soon as the server has written it down; it has `seconds` in all.

        With the same `idempotency` key the same request gives the same task, whoever sends it
        again; each call has a key of its own unless one is given.
        """
        request = await _request(parts, named, function, options, budget, seconds)
        request |= {"async": True, "webhook": webhook}
        response = await self._send(
            "POST",
            "/v1/multimodal",
            content=_packed(request),
            headers={
                "content-type": MSGPACK,
                "idempotency-key": idempotency or secrets.token_hex(16),
            },
            again=True,
        )
        return self.task(_read(response, dict[str, str])["task_id"])

    def task(self, task_id: str) -> Submitted:
        """Return a task that was submitted before, by its id."""
        return Submitted(self, task_id)

    async def upload(
        self,
        file: Path | bytes,
        *,
        media: str = "",
        progress: Callable[[int, int], None] | None = None,
        resume: str = "",
    ) -> Upload:
        """Bring a file to the server in pieces, through cuts, and return what stands for it.

        `progress` is called with the bytes that are there and all there are; with the id to
        `resume` an upload goes on that another process began.
        """
        size = await asyncio.to_thread(_size, file)
        if not media and isinstance(file, Path):
            media = mimetypes.guess_type(file.name)[0] or ""
        name, here = resume, 0
        if not name:
            headers = _TUS | {"upload-length": str(size)}
            if media:
                headers["upload-metadata"] = f"filetype {_base64(media)}"
            # One that nobody knows of because its answer was lost expires.
            made = await self._send("POST", "/v1/uploads", headers=headers, again=True)
            name = made.headers["location"].rpartition("/")[2]
        else:
            here = await self._there(name)
        wait, failures = LEAST_WAIT_S, 0
        while True:
            if progress is not None:
                progress(here, size)
            if here >= size:
                return Upload(id=name)
            piece = await asyncio.to_thread(_piece, file, here)
            headers = _TUS | {"upload-offset": str(here), "content-type": _OFFSET}
            try:
                sent = await self._send(
                    "PATCH", f"/v1/uploads/{name}", content=piece, headers=headers
                )
                here, failures, wait = int(sent.headers["upload-offset"]), 0, LEAST_WAIT_S
                continue
            except (TierError, Conflict) as error:
                failures += 1
                if failures > self._retries:
                    raise
                await asyncio.sleep(min(MOST_WAIT_S, error.retry_after or wait))
                wait = min(MOST_WAIT_S, 2 * wait)
            here = await self._there(name)

    async def _there(self, name: str) -> int:
        response = await self._send("HEAD", f"/v1/uploads/{name}", headers=_TUS, again=True)
        return int(response.headers["upload-offset"])

    async def _answer(self, path: str, request: dict[str, Any]) -> Answer:
        packed = _packed(request)
        response = await self._send("POST", path, content=packed, headers={"content-type": MSGPACK})
        return _read(response, Answer)

    async def _send(
        self,
        method: Literal["GET", "HEAD", "POST", "PATCH", "DELETE"],
        path: str,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str],
        again: bool = False,
        stream: bool = False,
    ) -> httpx.Response:
        """Return the response, of a `stream` as it begins; errors are raised.

        May the request be sent `again` though it may have been done?
        """
        wait, left = LEAST_WAIT_S, self._retries
        while True:
            try:
                request = self._client.build_request(method, path, content=content, headers=headers)
                response = await self._client.send(request, stream=stream)
                if stream and response.status_code >= 400:
                    await response.aread()
                _check(response)
                return response
            except httpx.HTTPError as error:
                unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if not left or not (again or unsent):
                    raise TierUnreachable(
                        f"{self._client.base_url} did not answer ({type(error).__name__})"
                    ) from error
                pause = wait
            except (QuotaExceeded, TierError) as error:
                # Refused unseen: who says when to come back has not begun. A run that failed was.
                unseen = error.retry_after is not None and not isinstance(error, RunFailed)
                if not left or not unseen or (error.retry_after or 0) > MOST_WAIT_S:
                    raise
                if isinstance(error, TierUnreachable) and not again:
                    raise
                pause = max(wait, error.retry_after or 0)
            left -= 1
            await asyncio.sleep(pause)
            wait = min(MOST_WAIT_S, 2 * wait)

    async def _events(self, path: str, after: str) -> AsyncIterator[tuple[str, str, str]]:
        headers = {"accept": EVENTS} | ({"last-event-id": after} if after else {})
        try:
            async with self._client.stream("GET", path, headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    _check(response)
                    return
                fields: dict[str, str] = {}
                async for line in response.aiter_lines():
                    if line:
                        name, _, value = line.partition(":")
                        fields[name] = value.removeprefix(" ")
                    elif "data" in fields:
                        yield fields.get("id", ""), fields.get("event", ""), fields["data"]
                        fields = {}
        except httpx.HTTPError as error:
            raise self._broken(error) from error

    def _broken(self, error: httpx.HTTPError) -> TierUnreachable:
        return TierUnreachable(f"{self._client.base_url} broke off ({type(error).__name__})")


class Submitted:
    """A task on a server: it goes on there, whoever waits for it."""

    def __init__(self, client: Client, task_id: str) -> None:
        self._client = client
        self.task_id = task_id

    async def state(self, seconds: float = 0.0) -> Task:
        """Return the task once it has ended, or after so many seconds (60 at most) as it is."""
        path = f"/v1/tasks/{self.task_id}?wait={min(60.0, seconds):g}"
        response = await self._client._send("GET", path, headers={"accept": JSON}, again=True)
        return decode(response.content, Task, JSON)

    async def result(self) -> Answer:
        """Wait for the task's end and return its answer; raise what it failed with."""
        while True:
            task = await self.state(30.0)
            if task.answer is not None:
                return task.answer
            if task.error is not None:
                raise task.error.error()
            if task.final:
                raise TriviumError(f"the task {self.task_id} ended as {task.status}")

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what happens to the task, from its begin to its end, through cuts."""
        after, left = "", self._client._retries
        while True:
            try:
                async for name, kind, data in self._client._events(
                    f"/v1/tasks/{self.task_id}/events", after
                ):
                    said = msgspec.json.decode(data)
                    if kind == "error":
                        raise decode(data.encode(), Problem, JSON).error()
                    after, left = name or after, self._client._retries
                    yield msgspec.convert({"id": name, "event": kind, "data": said}, Event)
                return
            except TierError as error:
                if not left:
                    raise
                left -= 1
                await asyncio.sleep(min(MOST_WAIT_S, error.retry_after or LEAST_WAIT_S))

    async def cancel(self) -> Task:
        """Stop the task and what is done for it, and return it as it is then."""
        response = await self._client._send(
            "DELETE", f"/v1/tasks/{self.task_id}", headers={"accept": JSON}, again=True
        )
        return decode(response.content, Task, JSON)


async def _request(
    parts: Sequence[Part],
    named: Mapping[str, Part] | None,
    function: str,
    options: Mapping[str, Any] | None,
    budget: Budget | None,
    seconds: float | None,
) -> dict[str, Any]:
    listed = [await _part(each) for each in parts]
    listed += [await _part(each) | {"name": name} for name, each in (named or {}).items()]
    request: dict[str, Any] = {"parts": listed, "function": function}
    if options:
        request["options"] = dict(options)
    if budget is not None:
        request["budget"] = budget
    if seconds is not None:
        request["timeout"] = seconds
    return request


async def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": str(part)}
    if isinstance(part, Upload):
        return {"upload": part.id}
    if isinstance(part, Path):
        media = mimetypes.guess_type(part.name)[0] or "application/octet-stream"
        part = Blob(media=media, data=await asyncio.to_thread(part.read_bytes))
    return {"media": part.media, "data": bytes(part.data)}


def _packed(request: dict[str, Any]) -> bytes:
    try:
        return encode(request)
    except (TypeError, OverflowError, ValueError, RecursionError) as error:
        raise BadInput(f"the request can't be sent: {error}") from error


def _size(file: Path | bytes) -> int:
    return len(file) if isinstance(file, bytes) else file.stat().st_size


def _piece(file: Path | bytes, start: int) -> bytes:
    if isinstance(file, bytes):
        return file[start : start + PIECE]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(PIECE)


def _base64(text: str) -> str:
    return msgspec.json.encode(text.encode()).decode().strip('"')


def _check(response: httpx.Response) -> None:
    """Raise the error that a response tells of, if it is one."""
    if response.status_code < 400:
        return
    media = response.headers.get("content-type", "").partition(";")[0]
    try:
        if media == MSGPACK:
            error = decode(response.content, Refusal).error.error()
        elif not response.content:  # as to HEAD
            raise BadInput("nothing was said")
        else:
            error = decode(response.content, Problem, JSON).error()
    except BadInput:
        kind = {404: "not_found", 413: "too_large"}.get(response.status_code, "internal")
        error = _bare(response.status_code, kind)
    if error.retry_after is None and response.headers.get("retry-after", "").isdecimal():
        error.retry_after = float(response.headers["retry-after"])
    raise error


def _bare(status: int, code: str) -> TriviumError:
    kind = TierUnreachable if status >= 500 else ERRORS[code]
    return kind(f"the server answered {status}")


def _read(response: httpx.Response, kind: type[T]) -> T:
    media = response.headers.get("content-type", "").partition(";")[0]
    try:
        return decode(response.content, kind, media if media == JSON else MSGPACK)
    except BadInput as error:
        raise TierUnreachable(f"the server's answer is not understood: {error.message}") from error
