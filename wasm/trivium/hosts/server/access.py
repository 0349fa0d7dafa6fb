"""Who is let in: by an API key, a token, a client certificate, or a page's short-lived token?"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import jwt
from litestar.types import Scope

from ...errors import NotAllowed, Unauthenticated
from .callers import HEADERS, SCOPES, TENANT, USUAL, Caller, named, spoken_for
from .identities import Identities
from .keys import DEFAULT, PREFIX, KeyFile

TOKEN_S = 600
"""How long a page's token is valid."""

RENEW_S = 86400
"""How long after its end a page that still holds it goes on as the same visitor."""

FACTORS = ("key", "jwt", "mtls")

_SCOPE = "infer"
_PAGE = "page+jwt"
_TENANT_CLAIM = "tenant"
_SCOPES_CLAIM = "scope"
_MASKS = ("", "results")
_LOOKED_AT = {name.encode(): name for name in ("authorization", "x-api-key", "origin", *HEADERS)}
_VISITOR = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What callers must show, the same for each kind of server.

    `factors` are alternatives, each of which is met by all of its factors together. `key_file` has
    the API keys; `jwt_keys` is a JWKS file or https URL, `jwt_secret` in its place for development;
    `jwt_issuer` and `jwt_audience` must be a token's own, `jwt_tenant` and `jwt_scopes` name its
    claims. `mask` is `results` where personal data in all results is masked; `mask_file` has
    patterns of what is masked besides.
    """

    factors: tuple[frozenset[str], ...] = (frozenset({"key"}),)
    key_file: Path = DEFAULT
    jwt_keys: str = ""
    jwt_secret: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_tenant: str = _TENANT_CLAIM
    jwt_scopes: str = _SCOPES_CLAIM
    mask: str = ""
    mask_file: Path | None = None

    def __post_init__(self) -> None:
        for each in self.factors:
            if not each or not each <= set(FACTORS):
                raise ValueError(
                    f"FACTORS has {'+'.join(sorted(each))!r}; a list of alternatives is allowed, "
                    f"each made of {', '.join(FACTORS)}, such as key+jwt,key+mtls"
                )
        if any("jwt" in each for each in self.factors) and not (self.jwt_keys or self.jwt_secret):
            raise ValueError("FACTORS asks for jwt; set JWT_KEYS, JWT_ISSUER and JWT_AUDIENCE")
        if self.mask not in _MASKS:
            raise ValueError(f"MASK is {self.mask!r}; it may be 'results', or nothing")

    @classmethod
    def from_env(cls, environ: Mapping[str, str], prefix: str) -> Policy:
        """Read the settings that begin with `prefix`."""

        def word(name: str) -> str:
            return environ.get(prefix + name, "").strip()

        factors = tuple(
            frozenset(part.strip() for part in each.split("+"))
            for each in (word("FACTORS") or "key").split(",")
        )
        return cls(
            factors=factors,
            key_file=Path(word("KEY_FILE") or DEFAULT),
            jwt_keys=word("JWT_KEYS"),
            jwt_secret=word("JWT_SECRET"),
            jwt_issuer=word("JWT_ISSUER"),
            jwt_audience=word("JWT_AUDIENCE"),
            jwt_tenant=word("JWT_TENANT") or _TENANT_CLAIM,
            jwt_scopes=word("JWT_SCOPES") or _SCOPES_CLAIM,
            mask=word("MASK"),
            mask_file=Path(word("MASK_FILE")) if word("MASK_FILE") else None,
        )


class Keys:
    """API keys, compared in constant time whatever their number and length."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys if key]

    def holds(self, key: str) -> bool:
        """Return whether `key` is one of them."""
        digest = _digest(key)
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found


class PageTokens:
    """Tokens for pages of certain origins, signed with a secret that never leaves the server.

    Each visitor is a tenant of their own, unless all are given one `tenant`.
    """

    def __init__(self, secret: str, origins: Sequence[str], tenant: str = "") -> None:
        self._secret = secret
        self._tenant = named(tenant) if tenant else ""
        self.origins = tuple(origins)

    def issue(self, origin: str, before: str = "") -> str:
        """Return a token bound to `origin`; raise NotAllowed for an origin we do not serve.

        A page that shows the token it had `before` stays the same visitor.
        """
        if origin not in self.origins:
            known = ", ".join(self.origins) or "none"
            raise NotAllowed(f"origin {origin[:200]!r} is not allowed; allowed are: {known}")
        now = int(time.time())
        claims = {"aud": origin, "scope": _SCOPE, "iat": now, "exp": now + TOKEN_S}
        claims["sub"] = self._visitor(origin, before) or secrets.token_hex(8)
        return jwt.encode(claims, self._secret, algorithm="HS256", headers={"typ": _PAGE})

    def check(self, token: str, origin: str) -> Caller:
        """Return whose `token` is; raise Unauthenticated unless `origin` got it and it is valid."""
        try:
            claims = self._read(token, origin)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the page's token has expired; fetch a new one") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the page's token was issued to another origin") from None
        except jwt.InvalidTokenError:
            raise Unauthenticated("the key or token is not valid") from None
        if claims["scope"] != _SCOPE:
            raise Unauthenticated(f"the token's scope is not {_SCOPE!r}")
        page = hashlib.sha256(origin.encode()).hexdigest()[:8]
        visitor = str(claims["sub"])
        tenant = self._tenant or f"page-{page}-{visitor}"
        return Caller(tenant=named(tenant), subject=visitor, scopes=USUAL)

    def _visitor(self, origin: str, before: str) -> str:
        try:
            visitor = str(self._read(before, origin, RENEW_S)["sub"]) if before else ""
        except jwt.InvalidTokenError:
            return ""
        return visitor if _VISITOR.fullmatch(visitor) else ""

    def _read(self, token: str, origin: str, leeway: float = 0) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            self._secret,
            algorithms=["HS256"],
            audience=origin or "none",
            leeway=leeway,
            options={"require": ["aud", "exp", "scope", "sub"]},
        )
        return claims


class Access:
    """Admits callers, by what a policy asks of them.

    `keys` are plain ones that may do what `scopes` says; `pages` are believed where they are given.
    """

    def __init__(
        self,
        policy: Policy,
        keys: Keys,
        scopes: frozenset[str] = frozenset(SCOPES),
        pages: PageTokens | None = None,
    ) -> None:
        self._policy = policy
        self._plain = keys
        self._pages = pages
        self._file = KeyFile(policy.key_file)
        self._identities = None
        if policy.jwt_keys or policy.jwt_secret:
            self._identities = Identities(
                policy.jwt_issuer,
                policy.jwt_audience,
                source=policy.jwt_keys,
                secret=policy.jwt_secret,
                tenant=policy.jwt_tenant,
                scopes=policy.jwt_scopes,
            )
        # Who holds such a key and says no more is no tenant of anyone's.
        self._owner = Caller(tenant="", scopes=scopes)
        self._alone = Caller(tenant=TENANT, scopes=scopes)

    async def __call__(self, scope: Scope) -> Caller:
        """Return who sends a request; raise Unauthenticated or NotAllowed."""
        said: dict[str, str] = {}
        spoken = False
        for name, value in scope["headers"]:
            known = _LOOKED_AT.get(name)
            if known is not None:
                if known in said:
                    raise Unauthenticated(f"the header {known} was sent twice")
                said[known] = value.decode("latin-1")
                spoken = spoken or known in HEADERS
        extensions: Mapping[str, Any] = scope.get("extensions") or {}
        certificate = extensions.get("tls") or {}
        caller = await self._shown(said, certificate)
        if spoken:
            caller = spoken_for(caller, said)
            if said.get("trivium-key"):  # a file that is shared knows its limits
                caller = changed(caller, limits=self._file.limits(caller.key))
        if self._policy.mask and not caller.masked:
            caller = changed(caller, masked=True)
        return caller

    async def _shown(self, said: Mapping[str, str], certificate: Mapping[str, Any]) -> Caller:
        shown: dict[str, Caller] = {}
        if certificate.get("client_cert_name"):
            shown["mtls"] = Caller(
                tenant=str(certificate.get("client_cert_tenant", "")),
                subject=str(certificate["client_cert_name"]),
            )
        if "x-api-key" in said:
            found = self._key(said["x-api-key"], certificate)
            if found is None:
                raise Unauthenticated("the API key is not valid")
            shown["key"] = found
        if "authorization" in said or not shown:
            credential = bearer(said.get("authorization", ""))
            key = None if "key" in shown else self._key(credential, certificate)
            if key is not None:
                shown["key"] = key
            elif self._pages is not None and self._of_page(credential):
                return self._pages.check(credential, said.get("origin", ""))
            elif self._identities is not None:
                shown["jwt"] = await self._identities.caller(credential)
            else:
                raise Unauthenticated("the API key is not valid")
        if not any(each <= shown.keys() for each in self._policy.factors):
            asked = " or ".join("+".join(sorted(each)) for each in self._policy.factors)
            raise Unauthenticated(
                f"this server asks for {asked}; shown was {'+'.join(sorted(shown))}"
            )
        if len(shown) == 1 and "key" in shown:
            return shown["key"] if shown["key"].tenant else self._alone
        return _one(shown)

    def _key(self, credential: str, certificate: Mapping[str, Any]) -> Caller | None:
        """Return whose key it is; none if it does not look like one."""
        if self._plain.holds(credential):
            return self._owner
        if not credential.startswith(PREFIX):
            return None
        key, caller = self._file.find(credential)
        if key.certificate and key.certificate != certificate.get("client_cert_name"):
            raise Unauthenticated(f"the API key {key.id} is to be used with its own certificate")
        return caller

    def _of_page(self, credential: str) -> bool:
        if self._identities is None:
            return True
        try:
            return jwt.get_unverified_header(credential).get("typ") == _PAGE
        except jwt.InvalidTokenError:
            return False


def _one(shown: Mapping[str, Caller]) -> Caller:
    """Return the one caller that all factors name; raise Unauthenticated if they do not agree."""
    callers = [shown[name] for name in ("jwt", "key", "mtls") if name in shown]
    tenants = {each.tenant for each in callers if each.tenant}
    if len(tenants) > 1:
        raise Unauthenticated("the credentials are of different tenants")
    if not tenants and shown.keys() == {"mtls"}:
        raise Unauthenticated("the client certificate names no tenant (its organisation, O)")
    scopes = frozenset.intersection(*(each.scopes for each in callers))
    key = shown.get("key", callers[0])
    return Caller(
        tenant=named(tenants.pop() if tenants else TENANT),
        subject=next((each.subject for each in callers if each.subject), ""),
        key=key.key,
        scopes=scopes & USUAL if shown.keys() == {"mtls"} else scopes,
        limits=key.limits,
        masked=key.masked,
    )


def bearer(header: str) -> str:
    """Return the key or token in an Authorization header; raise Unauthenticated without one."""
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated("send 'Authorization: Bearer KEY' with an API key or a page's token")
    return credential.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
