"""How is an address that a stranger named called, without being led inside?"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import httpcore
import httpx

from trivium.contract import Blob
from trivium.errors import BadInput, NotAllowed, TierUnreachable, TooLarge

MOST_HOPS = 3
"""Redirects that are followed, each checked as the first address was."""

PATIENCE_S = 10.0
"""Seconds that a file from outside may take in all."""

_Option: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray]
_Options: TypeAlias = Iterable[_Option | tuple[int, int, None, int]] | None


def public(address: str) -> bool:
    """Return whether an address of IPv4 or IPv6 belongs to the world, and to no inner network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        # Ways to write an inner address of IPv4 as an outer one of IPv6.
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if inner is None and found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not public(str(inner)):
            return False
    return found.is_global and not found.is_multicast


class Careful(httpcore.AsyncNetworkBackend):
    """Connects to public addresses alone: a name is resolved once, checked, and used as checked.

    Who checks a name and connects to it afterwards may be given another address the second time.
    """

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore calls it so
        local_address: str | None = None,
        socket_options: _Options = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to `host`; raise NotAllowed where any of its addresses is not public."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise httpcore.ConnectError(f"{host} can't be resolved") from error
        addresses = [str(each[4][0]) for each in found]
        if not addresses or not all(public(each) for each in addresses):
            raise NotAllowed(f"{host[:200]!r} is no public address; only those are called")
        return await self._inner.connect_tcp(
            addresses[0], port, timeout, local_address, socket_options
        )

    async def connect_unix_socket(self, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Refuse: nothing outside is a socket here."""
        raise NotAllowed("sockets of this machine are not called")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


def client(patience: float = PATIENCE_S) -> httpx.AsyncClient:
    """Return a client that reaches public addresses alone and follows no redirect by itself."""
    transport = httpx.AsyncHTTPTransport(trust_env=False, retries=0)
    # httpx has no parameter for it; the pool's own is public in httpcore.
    transport._pool._network_backend = Careful()
    return httpx.AsyncClient(transport=transport, timeout=patience, trust_env=False)


class Fetcher:
    """Gets files by URL from the `hosts` that an operator allows, of at most `most` bytes.

    A host is a name, `*.example.org` for all below one, or `*` for all; none allows nothing.
    """

    def __init__(
        self, hosts: Sequence[str], most: int, calls: httpx.AsyncClient | None = None
    ) -> None:
        self._hosts = tuple(each.lower() for each in hosts)
        self._most = most
        self._calls = calls or client()

    async def aclose(self) -> None:
        """Let the connections go."""
        await self._calls.aclose()

    async def get(self, url: str) -> Blob:
        """Return the file at `url`, with the media type that its server states.

        Raises:
            NotAllowed: policy does not let it be fetched, or it leads inside.
            BadInput: it is no URL of http or https, or its server answers with something else.
            TooLarge: it is larger than allowed.
            TierUnreachable: its server does not answer in time.
        """
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self._follow(url)
        except (httpx.HTTPError, TimeoutError) as error:
            raise TierUnreachable(
                f"the URL's server did not answer ({type(error).__name__})", tier="cloud"
            ) from error

    async def _follow(self, url: str) -> Blob:
        for _ in range(MOST_HOPS + 1):
            where = self._checked(url)
            async with self._calls.stream("GET", where, headers={"accept": "*/*"}) as response:
                if response.has_redirect_location:
                    try:
                        url = str(where.join(response.headers["location"]))
                    except httpx.InvalidURL as error:
                        raise BadInput("the URL leads to what is none") from error
                    continue
                if response.status_code != 200:
                    raise BadInput(f"the URL's server answered {response.status_code}, not 200")
                return await self._read(response)
        raise BadInput(f"the URL leads on more than {MOST_HOPS} times")

    def _checked(self, url: str) -> httpx.URL:
        try:
            found = httpx.URL(url)
        except (httpx.InvalidURL, ValueError) as error:
            raise BadInput(f"{url[:100]!r} is no URL") from error
        if found.scheme not in ("http", "https") or not found.host or found.userinfo:
            raise BadInput("a URL must be of http or https, with a host and without credentials")
        if (found.port or 0) > 65_535:
            raise BadInput(f"a URL's port is at most 65535, not {found.port}")
        host = found.host.lower().rstrip(".")
        for allowed in self._hosts:
            if allowed in ("*", host) or (allowed[:2] == "*." and host.endswith(allowed[1:])):
                return found
        said = ", ".join(self._hosts) or "none; send the data, or an upload"
        raise NotAllowed(f"{host[:200]!r} is not fetched; hosts that are: {said}")

    async def _read(self, response: httpx.Response) -> Blob:
        said = response.headers.get("content-length", "")
        large = f"the file at the URL is larger than {self._most} bytes"
        if said.isdecimal() and int(said) > self._most:
            raise TooLarge(large)
        data = bytearray()
        # As it was sent: a bomb of compressed nothing is never unpacked.
        if response.headers.get("content-encoding", "identity") != "identity":
            raise BadInput("the URL's server sent the file compressed; that is not taken")
        async for piece in response.aiter_raw(1 << 16):
            data += piece
            if len(data) > self._most:
                raise TooLarge(large)
        media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        return Blob(media=media, data=bytes(data))
