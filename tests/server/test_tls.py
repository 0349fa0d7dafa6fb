"""Connections that are secret, and who is at their other end: by real handshakes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.asyncio.client import connect

import samples
import stores
import toys
from trivium.hosts.server.access import Policy
from trivium.hosts.server.child import Child
from trivium.hosts.server.keys import create
from trivium.hosts.server.tls import Tls, link

START_S = 30.0


@dataclass
class Authority:
    """Who vouches for certificates, in a folder."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _subject(self.name)
        made = self._certificate(self._subject, self._key.public_key(), authority=True)
        self.path = self.folder / "ca.pem"
        self.path.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, organisation: str = "", **when: Any) -> tuple[Path, Path]:
        """Return a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._certificate(_subject(name, organisation), key.public_key(), **when)
        paths = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _certificate(
        self, subject: x509.Name, key: Any, *, authority: bool = False, days: int = 1
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        ours = ec.generate_private_key(ec.SECP256R1()) if self._key is None else self._key
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ours.public_key()),
                critical=False,
            )
            .sign(ours, hashes.SHA256())
        )


def _subject(name: str, organisation: str = "") -> x509.Name:
    listed = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if organisation:
        listed.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(listed)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return whom we believe."""
    return Authority(tmp_path_factory.mktemp("ours"), "Ours")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a stranger who vouches for the same names."""
    return Authority(tmp_path_factory.mktemp("theirs"), "Ours")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with bundles and a key of a gateway."""
    folder = tmp_path_factory.mktemp("home")
    samples.zoo(folder / "zoo")
    return folder


@contextlib.contextmanager
def listening(tier: str, home: Path, settings: dict[str, object]) -> Iterator[int]:
    """Run one server by its command, and return its port."""
    number = stores.port()
    prefix = f"TRIVIUM_{tier.upper()}_"
    environ = {
        f"{prefix}BUNDLES": home / "zoo",
        f"{prefix}TRUST": toys.keys(),
        f"{prefix}KEY_FILE": home / "keys.json",
        f"{prefix}KEYS": "plain",
        **{prefix + name: value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "trivium.hosts.server.listen", tier, "--port", str(number)]
    with Child(tier, command, {name: str(value) for name, value in environ.items()}) as child:
        begun = time.monotonic()
        while time.monotonic() - begun < START_S:
            assert child.code() is None
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            time.sleep(0.05)
        yield number


@pytest.fixture(scope="module")
def cloud(ours: Authority, home: Path) -> Iterator[int]:
    """Return the port of a cloud that takes nobody without a certificate."""
    certificate, key = ours.issue("localhost")
    settings = {
        "CERTIFICATE": certificate,
        "CERTIFICATE_KEY": key,
        "CLIENT_CA": ours.path,
        "FACTORS": "key+mtls,mtls",
    }
    with listening("cloud", home, settings) as number:
        yield number


def handshake(number: int, context: ssl.SSLContext) -> str:
    """Return the version that was agreed on, once the server has really taken the connection."""
    raw = socket.create_connection(("localhost", number), 10)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as secure:
        secure.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
        return secure.version() or ""


def client(ours: Authority, shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a context that believes our server, and may show a certificate."""
    context = ssl.create_default_context(cafile=ours.path)
    if shown:
        context.load_cert_chain(*shown)
    return context


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_new_versions_are_spoken(ours: Authority, cloud: int, version: str) -> None:
    """Both of them."""
    context = client(ours, ours.issue("shop", "acme"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    assert handshake(cloud, context) == version.replace("_", ".")


def test_an_old_version_is_refused(ours: Authority, cloud: int, tmp_path: Path) -> None:
    """By the server, whatever its client would have taken: another server takes it."""
    certificate, key = ours.issue("localhost")
    shown, its_key = ours.issue("shop", "acme")
    code = f"""
import socket, ssl, threading, warnings
warnings.simplefilter("ignore")
def context(version):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_ciphers("ALL:@SECLEVEL=0")
    made.load_cert_chain({str(shown)!r}, {str(its_key)!r})
    made.minimum_version = made.maximum_version = version
    return made
old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
old.load_cert_chain({str(certificate)!r}, {str(key)!r})
old.set_ciphers("ALL:@SECLEVEL=0")
old.minimum_version = ssl.TLSVersion.TLSv1
listening = socket.create_server(("127.0.0.1", 0))
def serve():
    raw, _ = listening.accept()
    try: old.wrap_socket(raw, server_side=True).close()
    except OSError: pass
threading.Thread(target=serve, daemon=True).start()
for port, version in (
    (listening.getsockname()[1], ssl.TLSVersion.TLSv1_1),
    ({cloud}, ssl.TLSVersion.TLSv1_1),
    ({cloud}, ssl.TLSVersion.TLSv1_2),
):
    try:
        raw = socket.create_connection(("127.0.0.1", port), 10)
        print(context(version).wrap_socket(raw).version())
    except OSError:
        print("refused")
"""
    # Debian's defaults leave out old versions on the client's side as well.
    (tmp_path / "openssl.cnf").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "OPENSSL_CONF": str(tmp_path / "openssl.cnf")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["TLSv1.1", "refused", "TLSv1.2"]


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_without_our_certificate_there_is_no_connection(
    ours: Authority, theirs: Authority, cloud: int, version: str
) -> None:
    """Without one, with a stranger's of the same names, or with one that has ended."""
    for shown in (None, theirs.issue("shop", "acme"), ours.issue("late", "acme", days=-1)):
        context = client(ours, shown)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            handshake(cloud, context)


def test_a_server_that_nobody_vouches_for_is_not_asked(
    ours: Authority, theirs: Authority, cloud: int
) -> None:
    """By the next hop's link, either."""
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(cloud, client(theirs, ours.issue("shop", "acme")))
    context = link(theirs.path, *ours.issue("shop", "acme"))
    assert context is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(cloud, context)
    assert link(None, None, None) is None


def ask(number: int, context: ssl.SSLContext, **headers: str) -> httpx.Response:
    """Count words."""
    with httpx.Client(verify=context, trust_env=False) as client:
        return client.post(
            f"https://localhost:{number}/v1/infer/text.count",
            content="a b",
            headers={"content-type": "text/plain", **headers},
        )


def test_a_certificate_s_owner_reaches_the_application(
    ours: Authority, home: Path, cloud: int
) -> None:
    """As a factor of its own, and as one that a key must agree with."""
    context = client(ours, ours.issue("shop", "acme"))
    assert ask(cloud, context).json()["output"] == {"words": 2}
    assert ask(cloud, client(ours, ours.issue("none"))).status_code == 401
    _, same = create(home / "keys.json", 0, tenant="acme", certificate="O=acme,CN=shop")
    _, other = create(home / "keys.json", 0, tenant="other")
    _, bound = create(home / "keys.json", 0, tenant="acme", certificate="O=acme,CN=till")
    assert ask(cloud, context, **{"x-api-key": same}).status_code == 200
    said = ask(cloud, context, **{"x-api-key": other}).json()
    assert "different tenants" in json.dumps(said)
    said = ask(cloud, context, **{"x-api-key": bound}).json()
    assert "its own certificate" in json.dumps(said)


def test_a_certificate_reaches_a_websocket_too(ours: Authority, cloud: int) -> None:
    """One of a tenant is told that there are no tasks here, one of nobody that it is nobody's."""

    async def told(*shown: str) -> str:
        context = client(ours, ours.issue(*shown))
        address = f"wss://localhost:{cloud}/v1/tasks/{'0' * 32}/ws"
        async with connect(address, ssl=context) as socket:
            return str(await socket.recv())

    assert "tier_failed" in asyncio.run(told("shop", "acme"))
    assert "unauthenticated" in asyncio.run(told("none"))


def test_the_edge_asks_a_cloud_that_asks_for_its_certificate(
    ours: Authority, home: Path, cloud: int
) -> None:
    """Over TLS on both hops."""
    certificate, key = ours.issue("localhost")
    shown, its_key = ours.issue("edge")
    _, gateway = create(
        home / "keys.json",
        0,
        scopes=["infer", "tasks", "behalf"],
        certificate="CN=edge",
    )
    settings = {
        "CERTIFICATE": certificate,
        "CERTIFICATE_KEY": key,
        "CLOUD_URL": f"https://localhost:{cloud}",
        "CLOUD_KEY": gateway,
        "CLOUD_CA": ours.path,
        "CLOUD_CERTIFICATE": shown,
        "CLOUD_CERTIFICATE_KEY": its_key,
    }
    with listening("edge", home, settings) as number:
        begun = time.monotonic()
        while time.monotonic() - begun < START_S:
            answer = ask(
                number,
                client(ours),
                authorization="Bearer plain",
                **{"trivium-tiers": "cloud"},
            )
            if answer.status_code == 200:
                break
            time.sleep(0.2)
        assert answer.json()["tier"] == "cloud"
        # Who is nobody here must not be the gateway there, by its certificate.
        for headers in ({}, {"x-api-key": "nobody"}):
            with httpx.Client(verify=client(ours), trust_env=False) as stranger:
                url = f"https://localhost:{number}/v1/tasks"
                assert stranger.get(url, headers=headers).status_code == 401


def serial(number: int, context: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that a server shows."""
    raw = socket.create_connection(("localhost", number), 10)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as secure:
        secure.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert secure.recv(100).startswith(b"HTTP/1.1 200")
        shown = secure.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


def replaced(files: tuple[Path, Path], places: tuple[Path, Path]) -> int:
    """Put a certificate and its key where others were; return its serial number."""
    for file, place in zip(files, places, strict=True):
        fresh = place.with_suffix(".new")
        fresh.write_bytes(file.read_bytes())
        fresh.replace(place)
    return x509.load_pem_x509_certificate(places[0].read_bytes()).serial_number


def test_certificates_are_renewed_while_a_server_runs(
    ours: Authority, theirs: Authority, home: Path, tmp_path: Path
) -> None:
    """Its own, with connections that stay; a broken one changes nothing; and whom it believes."""
    places, believed = (tmp_path / "own.pem", tmp_path / "own.key"), tmp_path / "ca.pem"
    first = replaced(ours.issue("localhost"), places)
    believed.write_bytes(ours.path.read_bytes())
    settings = {
        "CERTIFICATE": places[0],
        "CERTIFICATE_KEY": places[1],
        "CLIENT_CA": believed,
        "FACTORS": "mtls",
    }
    known, stranger = ours.issue("shop", "acme"), theirs.issue("shop", "acme")
    with listening("cloud", home, settings) as number:
        assert serial(number, client(ours, known)) == first
        with httpx.Client(verify=client(ours, known), trust_env=False) as staying:
            url = f"https://localhost:{number}/health/live"
            assert staying.get(url).status_code == 200
            second = replaced(ours.issue("localhost"), places)
            assert second != first
            assert serial(number, client(ours, known)) == second
            assert staying.get(url).status_code == 200
        for place, content in ((places[0], b"none"), (places[1], b"")):
            kept = place.read_bytes()
            place.write_bytes(content)
            assert serial(number, client(ours, known)) == second
            place.write_bytes(kept)
        assert serial(number, client(ours, known)) == second
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            handshake(number, client(ours, stranger))
        believed.write_bytes(theirs.path.read_bytes())
        handshake(number, client(ours, stranger))
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            handshake(number, client(ours, known))


def test_what_is_shown_to_the_next_hop_is_renewed(
    ours: Authority, cloud: int, tmp_path: Path
) -> None:
    """For the next connection; one that has ended is not shown for ever."""
    places = tmp_path / "own.pem", tmp_path / "own.key"
    replaced(ours.issue("late", "acme", days=-1), places)
    context = link(ours.path, *places)
    assert context is not None
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        handshake(cloud, context)
    replaced(ours.issue("shop", "acme"), places)
    handshake(cloud, context)
    assert ask(cloud, context).json()["output"] == {"words": 2}


def test_settings_that_don_t_go_together_are_refused(tmp_path: Path, ours: Authority) -> None:
    """Before anything listens."""
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate=tmp_path)
    with pytest.raises(ValueError, match="CLIENT_CA needs"):
        Tls(client_ca=tmp_path)
    certificate, key = ours.issue("localhost")
    with pytest.raises(ValueError, match="set CLIENT_CA"):
        Tls(certificate=certificate, certificate_key=key).context(
            Policy(factors=(frozenset({"key"}), frozenset({"mtls"})))
        )
    assert Tls.from_env({}, "TRIVIUM_EDGE_") == Tls()
