"""How are connections kept secret, and who is at their other end?"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .access import Policy

log = logging.getLogger("trivium.tls")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """With what a server shows who it is: `certificate` (PEM, its chain behind it) and its key.

    Without one it speaks plain HTTP. `client_ca` are the authorities whose certificates callers may
    show; where the policy has no way in without one, a caller without one gets no connection.
    """

    certificate: Path | None = None
    certificate_key: Path | None = None
    client_ca: Path | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("CERTIFICATE and CERTIFICATE_KEY go together; one of them is not set")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("CLIENT_CA needs CERTIFICATE and CERTIFICATE_KEY")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], prefix: str) -> Tls:
        """Read the settings that begin with `prefix`."""
        names = ("CERTIFICATE", "CERTIFICATE_KEY", "CLIENT_CA")
        found = (environ.get(prefix + name, "") for name in names)
        certificate, key, authority = (Path(each) if each else None for each in found)
        return cls(certificate=certificate, certificate_key=key, client_ca=authority)

    def context(self, policy: Policy) -> ssl.SSLContext:
        """Return how connections are taken: TLS 1.2 or newer, by the files as they are then."""
        if self.client_ca is None and any("mtls" in each for each in policy.factors):
            raise ValueError("FACTORS asks for mtls; set CLIENT_CA")
        files = (self.certificate, self.certificate_key, self.client_ca)
        return Followed.of(lambda: self._context(policy), *files)

    def _context(self, policy: Policy) -> ssl.SSLContext:
        assert self.certificate is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.certificate_key)
        context.set_alpn_protocols(["http/1.1"])
        if self.client_ca is not None:
            always = all("mtls" in each for each in policy.factors)
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if always else ssl.CERT_OPTIONAL
        return context


def link(
    authority: Path | None, certificate: Path | None, key: Path | None
) -> ssl.SSLContext | None:
    """Return how the next hop is connected to, by the files as they are then; none for the usual.

    Raises OSError or ssl.SSLError for files that can't be read.
    """
    if authority is None and certificate is None:
        return None

    def made() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return context

    return Followed.of(made, authority, certificate, key)


class Followed(ssl.SSLContext):
    """A context that is made anew for the next connection when one of its files has changed.

    Short-lived certificates are renewed in their files. While these are no pair, as between two
    writes, or can't be read, the last that could be made holds.
    """

    _make: Callable[[], ssl.SSLContext]
    _files: tuple[Path, ...]
    _seen: tuple[tuple[int, int], ...]
    _current: ssl.SSLContext

    @classmethod
    def of(cls, make: Callable[[], ssl.SSLContext], *files: Path | None) -> Followed:
        """Return what stands for the context that `make` makes of some files."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)  # no connection is ever of this one
        made._make, made._files = make, tuple(each for each in files if each is not None)
        made._seen, made._current = made._stamps(), make()
        return made

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        """Begin a connection."""
        return self._fresh().wrap_bio(*args, **named)

    def wrap_socket(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        """Begin a connection."""
        return self._fresh().wrap_socket(*args, **named)

    def _fresh(self) -> ssl.SSLContext:
        if (now := self._stamps()) != self._seen:
            self._seen = now
            try:
                self._current = self._make()
            except OSError as error:  # an SSLError is one
                log.error("changed certificates are not taken: %s", error)
            else:
                log.warning("certificates were read again")
        return self._current

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        found = []
        for each in self._files:
            try:
                stat = each.stat()
            except OSError:
                found.append((0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_ino))
        return tuple(found)


class Identified(asyncio.Protocol):
    """A protocol of uvicorn's that tells the application of the connection.

    It fills `extensions.tls` as the ASGI extension says, with the `client_cert_tenant` besides.
    """

    app: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection."""
        super().connection_made(transport)
        secure = transport.get_extra_info("ssl_object")
        if secure is not None:
            self.app = _told(self.app, _extension(secure))


class Socket(Identified, WebSocketsSansIOProtocol):
    """The same for WebSockets."""


def _told(app: Any, tls: dict[str, Any]) -> Any:
    async def told(scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"] = {**(scope.get("extensions") or {}), "tls": tls}
        await app(scope, receive, send)

    return told


def _extension(secure: ssl.SSLObject) -> dict[str, Any]:
    found: dict[str, Any] = {
        "server_cert": None,
        "client_cert_chain": [],
        "client_cert_name": None,
        "client_cert_error": None,
        "tls_version": {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}.get(secure.version() or ""),
        "cipher_suite": None,
    }
    # Given only for what the authorities vouch for.
    certificate = secure.getpeercert(binary_form=True)
    if certificate:
        read = x509.load_der_x509_certificate(certificate)
        owner = read.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        found["client_cert_chain"] = [read.public_bytes(Encoding.PEM).decode()]
        found["client_cert_name"] = read.subject.rfc4514_string()
        found["client_cert_tenant"] = str(owner[0].value) if len(owner) == 1 else ""
    return found
