"""Whose tokens are believed: those of one identity provider, by the keys it publishes?

What a token says of itself decides nothing: its algorithm is pinned by the key, keys come from the
configured place alone, and `jku`, `jwk` or `x5u` in its head are not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ...errors import Unauthenticated
from .callers import MOST_SUBJECT, SCOPES, USUAL, Caller, named

SKEW_S = 60
"""How far clocks may differ."""

FRESH_S = 600.0
"""After this keys are fetched anew, so that one that was taken back ends."""

FLOOR_S = 30.0
"""Between two fetches at least: a made-up key id must not make us fetch."""

FETCH_S = 5.0
MOST_TOKEN = 8 << 10
MOST_SET = 256 << 10
MOST_KEYS = 64
LEAST_RSA = 2048
LEAST_SECRET = 32
_PINNED = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
_NO = "the key or token is not valid"

log = logging.getLogger("trivium.identities")


class Identities:
    """Checks the tokens of `issuer` for `audience`.

    `source` is where its keys are: a JWKS file, or an https URL. `secret` is for development: then
    tokens are HS256, and nothing else. `tenant` and `scopes` name the claims that say these.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        source: str = "",
        secret: str = "",
        tenant: str = "tenant",
        scopes: str = "scope",
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if not issuer or not audience:
            raise ValueError("tokens need an issuer and an audience (JWT_ISSUER, JWT_AUDIENCE)")
        if bool(source) == bool(secret):
            raise ValueError("tokens are checked by published keys or by a secret; name one")
        if secret and len(secret) < LEAST_SECRET:
            raise ValueError(f"the tokens' secret is shorter than {LEAST_SECRET} characters")
        if "://" in source and urlsplit(source).scheme != "https":
            raise ValueError(f"keys come from a file or an https URL, not from {source[:100]!r}")
        self._issuer, self._audience = issuer, audience
        self._tenant, self._scopes = tenant, scopes
        self._secret = secret
        self._source = source
        self._transport = transport
        self._keys: dict[str, tuple[Any, str]] = {}
        self._tried = -FRESH_S
        self._lock = asyncio.Lock()

    async def caller(self, token: str) -> Caller:
        """Return whom a token is of; raise Unauthenticated unless all of it holds."""
        if len(token) > MOST_TOKEN:
            raise Unauthenticated(
                f"the token has {len(token)} bytes; at most {MOST_TOKEN} are read"
            )
        try:
            head = jwt.get_unverified_header(token)
            if "crit" in head or head.get("b64") is False:
                raise Unauthenticated("the token says that it must be read in a way not known here")
            key, algorithm = await self._key(head)
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=SKEW_S,
                options={"require": ["exp", "nbf", "aud", "iss", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("the token is not valid yet") from None
        # A token of any shape: what a library makes of it must not become an error of ours.
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            raise Unauthenticated(_NO) from None
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        tenant, subject = claims.get(self._tenant), claims["sub"]
        if not isinstance(tenant, str):
            raise Unauthenticated(f"the token names no tenant in its claim {self._tenant!r}")
        if not isinstance(subject, str) or not 0 < len(subject) <= MOST_SUBJECT:
            raise Unauthenticated(f"the token's subject is not 1 to {MOST_SUBJECT} characters")
        said = claims.get(self._scopes)
        words = said.split() if isinstance(said, str) else said
        # A person's token never makes a gateway.
        allowed = set(SCOPES) - {"behalf"}
        held = USUAL if words is None else frozenset(each for each in words if each in allowed)
        return Caller(tenant=named(tenant), subject=subject, scopes=held)

    async def _key(self, head: dict[str, Any]) -> tuple[Any, str]:
        if self._secret:
            return self._secret, "HS256"
        if head.get("alg") not in _PINNED.values():
            raise Unauthenticated(_NO)
        name = head.get("kid")
        if name is not None and not (isinstance(name, str) and len(name) <= 200):
            raise Unauthenticated(_NO)
        age = time.monotonic() - self._tried
        if age >= FRESH_S or (age >= FLOOR_S and self._find(name) is None):
            await self._fetch()
        found = self._find(name)
        if found is None:
            raise Unauthenticated(_NO)
        return found

    def _find(self, name: str | None) -> tuple[Any, str] | None:
        if name is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(name)

    async def _fetch(self) -> None:
        seen = self._tried
        async with self._lock:
            if self._tried != seen:
                return  # somebody else did meanwhile
            try:
                data = await self._download() if "://" in self._source else self._read()
                self._keys = keys(data)
            # Those that were known go on: a provider that is down must not lock everybody out.
            except (httpx.HTTPError, OSError, ValueError, msgspec.MsgspecError) as error:
                log.warning("the identity provider's keys can't be had: %s", error)
            finally:
                self._tried = time.monotonic()

    def _read(self) -> bytes:
        with Path(self._source).open("rb") as file:
            return file.read(MOST_SET + 1)

    async def _download(self) -> bytes:
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(transport=self._transport, trust_env=False) as client,
            client.stream("GET", self._source, follow_redirects=False) as response,
        ):
            response.raise_for_status()
            data = bytearray()
            async for chunk in response.aiter_bytes(16 << 10):
                data += chunk
                if len(data) > MOST_SET:
                    break
            return bytes(data)


def keys(data: bytes) -> dict[str, tuple[Any, str]]:
    """Return the public keys of a JWKS by id, each with the one algorithm it may be used with.

    What has another use or algorithm, or is too weak, is left out; raises ValueError for no JWKS.
    """
    if len(data) > MOST_SET:
        raise ValueError(f"the set of keys is over {MOST_SET} bytes")
    listed = msgspec.json.decode(data, type=dict[str, Any]).get("keys")
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise ValueError(f"it is no set of at most {MOST_KEYS} keys")
    found: dict[str, tuple[Any, str]] = {}
    for each in listed:
        if not isinstance(each, dict):
            continue
        algorithm = _PINNED.get((str(each.get("kty")), _curve(each)))
        if (
            algorithm is None
            or each.get("alg", algorithm) != algorithm
            or each.get("use", "sig") != "sig"
        ):
            continue
        try:
            key = jwt.PyJWK(each, algorithm).key
        except jwt.PyJWTError:
            continue
        # A set that wrongly publishes a private key is used by its public half.
        key = key.public_key() if hasattr(key, "public_key") else key
        if isinstance(key, RSAPublicKey) and key.key_size < LEAST_RSA:
            continue
        found[str(each.get("kid", ""))] = key, algorithm
    return found


def _curve(key: dict[str, Any]) -> str | None:
    return None if key.get("kty") == "RSA" else str(key.get("crv"))
