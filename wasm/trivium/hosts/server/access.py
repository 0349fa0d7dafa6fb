"""Who may ask: a server with a key, or a page with a short-lived token of its origin?"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Sequence

import jwt

from ...errors import NotAllowed, Unauthenticated

TOKEN_S = 600
"""How long a page's token is valid."""

_SCOPE = "infer"


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
    """Tokens for pages of certain origins, signed with a secret that never leaves the server."""

    def __init__(self, secret: str, origins: Sequence[str]) -> None:
        self._secret = secret
        self.origins = tuple(origins)

    def issue(self, origin: str) -> str:
        """Return a token bound to `origin`; raise NotAllowed for an origin we do not serve."""
        if origin not in self.origins:
            known = ", ".join(self.origins) or "none"
            raise NotAllowed(f"origin {origin[:200]!r} is not allowed; allowed are: {known}")
        now = int(time.time())
        claims = {"aud": origin, "scope": _SCOPE, "iat": now, "exp": now + TOKEN_S}
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def check(self, token: str, origin: str) -> None:
        """Raise Unauthenticated unless `token` was issued to `origin` and is still valid."""
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=["HS256"],
                audience=origin or "none",
                options={"require": ["aud", "exp", "scope"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the page's token has expired; fetch a new one") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated("the page's token was issued to another origin") from None
        except jwt.InvalidTokenError:
            raise Unauthenticated("the key or token is not valid") from None
        if claims["scope"] != _SCOPE:
            raise Unauthenticated(f"the token's scope is not {_SCOPE!r}")


def bearer(header: str) -> str:
    """Return the key or token in an Authorization header; raise Unauthenticated without one."""
    scheme, _, credential = header.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated("send 'Authorization: Bearer KEY' with an API key or a page's token")
    return credential.strip()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
