"""Tokens of an identity provider: which are believed, and what is tried against them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from trivium.errors import Unauthenticated
from trivium.hosts.server import identities
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.identities import Identities, keys

ISSUER, AUDIENCE = "https://login.example", "trivium"
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGER = rsa.generate_private_key(65537, 2048)
MAKERS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def public(algorithm: str, kid: str, key: Any = None, **more: Any) -> dict[str, Any]:
    """Return a public key as a JWK."""
    own = (key or PRIVATE[algorithm]).public_key()
    found = json.loads(MAKERS[algorithm].to_jwk(own))
    return {**found, "kid": kid, "use": "sig", "alg": algorithm, **more}


JWKS = {"keys": [public(each, each.lower()) for each in MAKERS]}


def claims(**changed: Any) -> dict[str, Any]:
    """Return a good token's claims with some changed; those of none are left out."""
    now = int(time.time())
    whole = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "tenant": "acme", "scope": "infer tasks",
        "nbf": now, "exp": now + 300, **changed,
    }  # fmt: skip
    return {name: value for name, value in whole.items() if value is not None}


def token(algorithm: str = "RS256", key: Any = None, kid: str | None = "", **changed: Any) -> str:
    """Return a signed token."""
    head = {} if kid is None else {"kid": kid or algorithm.lower()}
    return jwt.encode(claims(**changed), key or PRIVATE[algorithm], algorithm, headers=head)


def raw(head: object, body: object, signature: bytes = b"") -> str:
    """Return a token with any head and signature."""
    parts = [json.dumps(head).encode(), json.dumps(body).encode(), signature]
    return b".".join(base64.urlsafe_b64encode(each).rstrip(b"=") for each in parts).decode()


@pytest.fixture
def believed(tmp_path: Path) -> Callable[[str], Caller]:
    """Return what checks a token by a JWKS file."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(JWKS))
    ours = Identities(ISSUER, AUDIENCE, source=str(path))
    return lambda text: asyncio.run(ours.caller(text))


@pytest.mark.parametrize("algorithm", MAKERS)
def test_a_good_token_names_its_caller(believed: Callable[[str], Caller], algorithm: str) -> None:
    """Signed by any of the three kinds of keys."""
    caller = believed(token(algorithm))
    assert (caller.tenant, caller.subject, set(caller.scopes)) == (
        "acme",
        "ann",
        {"infer", "tasks"},
    )
    assert believed(token(algorithm, scope=["infer", "behalf", "email", 7])).scopes == {"infer"}
    usual = {"infer", "tasks", "uploads", "feedback"}
    assert believed(token(algorithm, scope=None)).scopes == usual
    assert believed(token(algorithm, scope="")).scopes == set()
    assert believed(token(algorithm, aud=["other", AUDIENCE])).tenant == "acme"


def test_clocks_may_differ_by_a_minute(believed: Callable[[str], Caller]) -> None:
    """Not by more."""
    now = int(time.time())
    believed(token(exp=now - 50))
    believed(token(nbf=now + 50))
    with pytest.raises(Unauthenticated, match="has expired"):
        believed(token(exp=now - 65))
    with pytest.raises(Unauthenticated, match="not valid yet"):
        believed(token(nbf=now + 70))


PUBLIC_PEM = RSA.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


def hmac_by(secret: bytes, kid: str) -> str:
    """Return a token signed by HS256 with what is public (PyJWT itself refuses to make one)."""
    import hashlib
    import hmac

    head, body, _ = raw({"alg": "HS256", "typ": "JWT", "kid": kid}, claims()).split(".")
    made = hmac.digest(secret, f"{head}.{body}".encode(), hashlib.sha256)
    return f"{head}.{body}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"


def swapped(text: str, **changed: Any) -> str:
    """Return a token whose claims were changed after it was signed."""
    head, _, signature = text.split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(**changed)).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


ATTACKS: dict[str, Callable[[], str]] = {
    "no algorithm": lambda: raw({"alg": "none", "kid": "rs256"}, claims()),
    "no algorithm, odd case": lambda: raw({"alg": "nOnE", "kid": "rs256"}, claims()),
    "no head at all": lambda: raw({}, claims()),
    "HS256 by the public key": lambda: hmac_by(PUBLIC_PEM, "rs256"),
    "HS256 by the key id": lambda: hmac_by(b"rs256", "rs256"),
    "HS256 by nothing": lambda: hmac_by(b"", "../../../dev/null"),
    "another key of the set": lambda: token("RS256", kid="es256"),
    "an EC token for the RSA key": lambda: token("ES256", kid="rs256"),
    "a stranger's key": lambda: token("RS256", STRANGER),
    "a stranger's key, in its head": lambda: jwt.encode(
        claims(), STRANGER, "RS256",
        headers={"kid": "mine", "jwk": public("RS256", "mine", STRANGER),
                 "jku": "https://evil.example/jwks", "x5u": "https://evil.example/x"},
    ),
    "RS512 with the right key": lambda: token("RS512", RSA, kid="rs256"),
    "PS256 with the right key": lambda: token("PS256", RSA, kid="rs256"),
    "no key id among several": lambda: token(kid=None),
    "a path as the key id": lambda: token(kid="../../etc/passwd"),
    "SQL as the key id": lambda: token(kid="' UNION SELECT 'x"),
    "a long key id": lambda: token(kid="k" * 3000),
    "a key id that is a list": lambda: raw({"alg": "RS256", "kid": ["rs256"]}, claims()),
    "changed claims": lambda: swapped(token(), tenant="other"),
    "another issuer": lambda: token(iss="https://evil.example"),
    "issuers in a list": lambda: jwt.PyJWS().encode(
        json.dumps(claims(iss=[ISSUER])).encode(), RSA, "RS256", headers={"kid": "rs256"}
    ),
    "another audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=None),
    "no issuer": lambda: token(iss=None),
    "no end": lambda: token(exp=None),
    "no begin": lambda: token(nbf=None),
    "no subject": lambda: token(sub=None),
    "an end that is a text": lambda: token(exp="9999999999x"),
    "an end that is infinite": lambda: token(exp=float("inf")),
    "critical": lambda: jwt.encode(
        claims(), RSA, "RS256", headers={"kid": "rs256", "crit": ["exp"], "exp": 1}
    ),
    "detached": lambda: raw({"alg": "RS256", "kid": "rs256", "b64": False, "crit": ["b64"]}, {}),
    "a huge token": lambda: token(padding="x" * 10_000),
    "deep claims": lambda: ".".join([
        raw({"alg": "RS256", "kid": "rs256"}, {}).split(".")[0],
        base64.urlsafe_b64encode(b"[" * 4000).decode(), "",
    ]),
    "no tenant": lambda: token(tenant=None),
    "a tenant that is none": lambda: token(tenant="a:b"),
    "tenants in a list": lambda: token(tenant=["acme", "other"]),
    "an empty subject": lambda: token(sub=""),
    "a long subject": lambda: token(sub="s" * 300),
    "dots": lambda: "..",
    "five parts": lambda: "a.b.c.d.e",
}  # fmt: skip


@pytest.mark.parametrize("how", ATTACKS)
def test_an_attack_is_refused(believed: Callable[[str], Caller], how: str) -> None:
    """As a bad credential, never as a fault of ours, and nothing of it is said again."""
    text = ATTACKS[how]()
    with pytest.raises(Unauthenticated) as caught:
        believed(text)
    assert "evil" not in caught.value.message
    assert text not in caught.value.message


@given(st.text(max_size=300) | st.binary(max_size=300).map(lambda each: each.decode("latin-1")))
def test_any_text_is_refused(text: str) -> None:
    """Nothing but Unauthenticated comes of it."""
    with pytest.raises(Unauthenticated):
        asyncio.run(BY_SECRET.caller(text))


SECRET = "a development secret of 32 letters"
BY_SECRET = Identities(ISSUER, AUDIENCE, secret=SECRET)


def test_a_secret_is_for_development() -> None:
    """Then HS256 alone counts, and a short secret is refused at once."""
    good = jwt.encode(claims(), SECRET, "HS256")
    assert asyncio.run(BY_SECRET.caller(good)).tenant == "acme"
    for bad in (token(), jwt.encode(claims(), SECRET * 2, "HS512"), raw({"alg": "none"}, claims())):
        with pytest.raises(Unauthenticated):
            asyncio.run(BY_SECRET.caller(bad))
    with pytest.raises(ValueError, match="shorter than 32"):
        Identities(ISSUER, AUDIENCE, secret="short")
    with pytest.raises(ValueError, match="name one"):
        Identities(ISSUER, AUDIENCE, secret=SECRET, source="jwks.json")
    with pytest.raises(ValueError, match="name one"):
        Identities(ISSUER, AUDIENCE)
    with pytest.raises(ValueError, match="https URL, not from 'http://login"):
        Identities(ISSUER, AUDIENCE, source="http://login.example/jwks")
    with pytest.raises(ValueError, match="an issuer and an audience"):
        Identities("", AUDIENCE, secret=SECRET)


def test_weak_and_foreign_keys_are_left_out() -> None:
    """Of a set only what is for RS256, ES256 or EdDSA signatures counts, by its public half."""
    weak = rsa.generate_private_key(65537, 1024)
    private = json.loads(MAKERS["RS256"].to_jwk(RSA))
    found = keys(
        json.dumps({
            "keys": [
                public("RS256", "weak", weak),
                public("RS256", "encrypts", use="enc"),
                public("RS256", "other", alg="RS512"),
                {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
                {"kty": "EC", "crv": "P-384", "kid": "curve"},
                {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
                "nonsense",
                {**private, "kid": "private"},
                public("EdDSA", "good"),
            ]
        }).encode()
    )  # fmt: skip
    assert set(found) == {"private", "good"}
    assert isinstance(found["private"][0], rsa.RSAPublicKey)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [' + b"{}," * 99 + b"{}]}"]
)
def test_what_is_no_set_of_keys_is_refused(data: bytes) -> None:
    """Whoever sends it."""
    with pytest.raises(ValueError):
        keys(data)
    with pytest.raises(ValueError, match="over"):
        keys(b" " * (identities.MOST_SET + 1))


class Provider(httpx.AsyncBaseTransport):
    """An identity provider that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, json=JWKS)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://login.example/jwks"
        self.asked += 1
        await asyncio.sleep(0.01)
        return self.answer()


def published(provider: Provider) -> Identities:
    """Return what checks tokens by a provider's URL."""
    return Identities(ISSUER, AUDIENCE, source="https://login.example/jwks", transport=provider)


def test_keys_are_fetched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all asks at once, and for a made-up key id not before the floor."""

    async def check() -> None:
        provider = Provider()
        ours = published(provider)
        await asyncio.gather(*(ours.caller(token()) for _ in range(20)))
        assert provider.asked == 1
        for number in range(20):
            with pytest.raises(Unauthenticated):
                await ours.caller(token(kid=f"made-up-{number}"))
        assert provider.asked == 1
        # A new key is believed as soon as the floor is over, then the old one no more.
        provider.answer = lambda: httpx.Response(200, json={"keys": [public("RS256", "new")]})
        ours._tried -= identities.FLOOR_S
        assert (await ours.caller(token(kid="new"))).tenant == "acme"
        assert provider.asked == 2
        with pytest.raises(Unauthenticated):
            await ours.caller(token("ES256"))

    asyncio.run(check())


BAD = {
    "is down": lambda: httpx.Response(503),
    "redirects": lambda: httpx.Response(302, headers={"location": "http://10.0.0.1/"}),
    "sends nonsense": lambda: httpx.Response(200, text="<html>"),
    "sends too much": lambda: httpx.Response(200, content=b" " * (identities.MOST_SET + 10)),
}


@pytest.mark.parametrize("how", BAD)
def test_a_provider_that_fails_locks_nobody_out(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What was known goes on; it is not asked again at once."""

    async def check() -> None:
        provider = Provider()
        ours = published(provider)
        await ours.caller(token())
        provider.answer = BAD[how]
        ours._tried -= identities.FRESH_S
        await ours.caller(token())
        await ours.caller(token())
        assert provider.asked == 2

    asyncio.run(check())
    assert "keys can't be had" in caplog.text
