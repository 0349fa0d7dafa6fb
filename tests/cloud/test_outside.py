"""What is fetched from outside: hosts, addresses, redirects, sizes and times."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest

from servers import chunks, work
from trivium.errors import BadInput, NotAllowed, TierUnreachable, TooLarge, TriviumError
from trivium_cloud import outside
from trivium_cloud.outside import Fetcher, client, public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # nothing listens there
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_inner_addresses_are_not_public(address: str) -> None:
    """However they are written."""
    assert not public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111"])
def test_outer_addresses_are_public(address: str) -> None:
    """Those of the world."""
    assert public(address)


def fetch(
    url: str,
    handler: Callable[[httpx.Request], httpx.Response] | None = None,
    hosts: Sequence[str] = ("example.com", "*.example.org"),
    most: int = 100,
) -> Any:
    """Return what is fetched, from a handler in place of the world where one is given."""

    async def run() -> Any:
        calls = httpx.AsyncClient(transport=httpx.MockTransport(handler)) if handler else None
        fetcher = Fetcher(hosts, most, calls)
        try:
            return await fetcher.get(url)
        finally:
            await fetcher.aclose()

    return work(run())


def sends(
    status: int = 200, content: AsyncIterator[bytes] | None = None, **headers: str
) -> Callable[[httpx.Request], httpx.Response]:
    """Return a handler that always answers the same; headers are written with underscores."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, content=content or chunks(b"abc"), headers=given)


def test_a_file_comes_with_its_type() -> None:
    """As its server states it."""
    found = fetch("https://example.com/a", sends(content_type="Image/PNG; q=1"))
    assert (found.media, found.data) == ("image/png", b"abc")
    assert fetch("http://a.b.example.org/", sends()).data == b"abc"


@pytest.mark.parametrize(
    ("url", "kind", "expected"),
    [
        ("https://example.net/", NotAllowed, "'example.net' is not fetched; hosts that are: exam"),
        ("https://example.org/", NotAllowed, "is not fetched"),
        ("https://aexample.org/", NotAllowed, "is not fetched"),
        ("https://example.com.evil.net/", NotAllowed, "is not fetched"),
        ("https://user:pass@example.com/", BadInput, "without credentials"),
        ("https://evil.net@example.com/", BadInput, "without credentials"),
        ("ftp://example.com/", BadInput, "must be of http or https"),
        ("file:///etc/passwd", BadInput, "must be of http or https"),
        ("https:///x", BadInput, "must be of http or https"),
        ("https://[::1", BadInput, "is no URL"),
        ("https://example.com:99999/", BadInput, "at most 65535"),
    ],
)
def test_other_addresses_are_refused(url: str, kind: type[TriviumError], expected: str) -> None:
    """Before anything is called."""

    def never(_: httpx.Request) -> httpx.Response:
        raise AssertionError("it was called")

    with pytest.raises(kind) as refused:
        fetch(url, never)
    assert expected in str(refused.value)


def test_without_hosts_nothing_is_fetched() -> None:
    """Unless policy says otherwise."""
    with pytest.raises(NotAllowed, match="hosts that are: none; send the data, or an upload"):
        fetch("https://example.com/", sends(), hosts=())


def test_each_redirect_is_checked_again() -> None:
    """An allowed host can't lead elsewhere, nor for ever."""

    def leads(request: httpx.Request) -> httpx.Response:
        to = {"/in": "http://169.254.169.254/", "/on": "/on", "/once": "/file", "/odd": "http://["}
        where = to.get(request.url.path)
        return httpx.Response(302, headers={"location": where}) if where else sends()(request)

    assert fetch("https://example.com/once", leads).data == b"abc"
    for path, kind in (("in", NotAllowed), ("on", BadInput), ("odd", TriviumError)):
        with pytest.raises(kind):
            fetch(f"https://example.com/{path}", leads)


def test_what_is_large_late_or_packed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is announced, by what comes, and by the clock."""
    monkeypatch.setattr(outside, "PATIENCE_S", 0.05)

    async def grows() -> Any:
        for _ in range(3):
            yield b"\x00" * 50

    async def waits() -> Any:
        yield b"a"
        await asyncio.sleep(5)

    for content in (chunks(b"\x00" * 101), grows()):
        with pytest.raises(TooLarge, match="larger than 100 bytes"):
            fetch("https://example.com/", sends(content=content))
    with pytest.raises(TierUnreachable):
        fetch("https://example.com/", sends(content=waits()))
    with pytest.raises(BadInput, match="compressed"):
        fetch("https://example.com/", sends(content_encoding="br"))
    with pytest.raises(BadInput, match="answered 404"):
        fetch("https://example.com/", sends(404))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "0x7f000001", "2130706433"])
def test_the_address_that_is_connected_to_is_checked(host: str) -> None:
    """However it is written: a server that listens there is never reached."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        port = listening.getsockname()[1]
        with pytest.raises((NotAllowed, TierUnreachable)):
            fetch(f"http://{host}:{port}/", hosts=("*",))
        with pytest.raises(TimeoutError):
            listening.accept()


def test_a_name_that_is_resolved_anew_leads_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is resolved once; if only one of its addresses is inside, none is called."""

    async def run() -> None:
        asked = []

        async def resolve(host: str, port: int, **_: Any) -> Any:
            asked.append(host)
            found = ["93.184.216.34", "127.0.0.1"]
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        async with client() as calls:
            with pytest.raises(NotAllowed, match="is no public address"):
                await calls.get("http://rebinding.example/")
        assert asked == ["rebinding.example"]

    work(run())
