"""Keys of servers, and tokens of pages."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest

from servers import ORIGIN
from trivium.errors import NotAllowed, Unauthenticated
from trivium.hosts.server.access import RENEW_S, TOKEN_S, Keys, PageTokens, bearer

SECRET = "a secret of more than thirty-two characters"
OTHER = "https://other.example"
VISITOR = "0123456789abcdef"


@pytest.fixture
def tokens() -> PageTokens:
    """Return tokens for two origins."""
    return PageTokens(SECRET, [ORIGIN, OTHER])


def forged(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """Return a token with some claims changed; those of none are left out."""
    now = int(time.time())
    whole = {"aud": ORIGIN, "scope": "infer", "sub": VISITOR, "iat": now, "exp": now + 60, **claims}
    left = {name: value for name, value in whole.items() if value is not None}
    return jwt.encode(left, secret, algorithm=algorithm)


def test_keys_are_a_set() -> None:
    """Any of them holds, whatever their number, length and alphabet; an empty one is none."""
    keys = Keys(["one", "", "a much longer key", "schlüssel"])
    for key in ("one", "a much longer key", "schlüssel"):
        assert keys.holds(key)
    for key in ("", "on", "one ", "One", "a much longer ke", "schlu\u0308ssel", "\0", "x" * 10**6):
        assert not keys.holds(key)
    assert not Keys([]).holds("")
    assert not Keys([""]).holds("")


def test_a_token_lets_its_own_origin_in(tokens: PageTokens) -> None:
    """For ten minutes."""
    token = tokens.issue(ORIGIN)
    caller = tokens.check(token, ORIGIN)
    assert caller.scopes == {"infer", "tasks", "uploads", "feedback"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == TOKEN_S == 600
    assert SECRET not in token


def test_each_visitor_of_a_page_is_a_tenant(tokens: PageTokens) -> None:
    """One stays so over renewals, a day long, at the same origin, by a token of ours."""
    one, two = tokens.issue(ORIGIN), tokens.issue(ORIGIN)
    tenant = tokens.check(one, ORIGIN).tenant
    assert tokens.check(two, ORIGIN).tenant != tenant
    assert tokens.check(tokens.issue(ORIGIN, one), ORIGIN).tenant == tenant
    stale = forged(exp=int(time.time()) - RENEW_S + 60)
    assert tokens.check(tokens.issue(ORIGIN, stale), ORIGIN).subject == VISITOR
    for before in (
        forged(exp=int(time.time()) - RENEW_S - 60),
        forged(secret="another secret of more than 32 letters"),
        forged(sub="of-another:tenant"),
        "nonsense",
    ):
        assert tokens.check(tokens.issue(ORIGIN, before), ORIGIN).subject != VISITOR
    assert (
        tokens.check(tokens.issue(OTHER, one), OTHER).tenant.split("-")[2] != tenant.split("-")[2]
    )


def test_pages_may_share_a_tenant() -> None:
    """By a setting; its name is checked at once."""
    tokens = PageTokens(SECRET, [ORIGIN], "visitors")
    assert tokens.check(tokens.issue(ORIGIN), ORIGIN).tenant == "visitors"
    with pytest.raises(Unauthenticated, match="is no tenant"):
        PageTokens(SECRET, [ORIGIN], "a:b")


@pytest.mark.parametrize(
    "origin", ["", "null", "http://localhost", ORIGIN + "/", "https://evil.test"]
)
def test_no_token_is_issued_to_a_stranger(tokens: PageTokens, origin: str) -> None:
    """The message lists whom it is issued to."""
    with pytest.raises(NotAllowed, match=f"allowed are: {ORIGIN}, {OTHER}"):
        tokens.issue(origin)
    with pytest.raises(NotAllowed, match="allowed are: none"):
        PageTokens(SECRET, []).issue(origin)


@pytest.mark.parametrize("origin", [OTHER, "", "null", "none"])
def test_a_token_is_bound_to_its_origin(tokens: PageTokens, origin: str) -> None:
    """Another page, or nobody's page, can't use it."""
    with pytest.raises(Unauthenticated, match="issued to another origin"):
        tokens.check(tokens.issue(ORIGIN), origin)


def test_an_expired_token_says_so(tokens: PageTokens) -> None:
    """The page fetches a new one."""
    with pytest.raises(Unauthenticated, match="expired; fetch a new one"):
        tokens.check(forged(exp=int(time.time()) - 1), ORIGIN)


def unsigned() -> str:
    """Return a token that claims to need no signature."""
    parts = ({"alg": "none", "typ": "JWT"}, {"aud": ORIGIN, "scope": "infer", "exp": 2**33})
    pieces = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return b".".join([*pieces, b""]).decode()


FORGED = {
    "no signature": unsigned(),
    "another algorithm": forged(algorithm="HS512", secret=SECRET * 2),
    "another secret": forged(secret="another secret of more than 32 letters"),
    "no expiry": forged(exp=None),
    "no origin": forged(aud=None),
    "no scope": forged(scope=None),
    "no visitor": forged(sub=None),
    "from the future": forged(iat=2**33),
    "an odd expiry": forged(exp="soon"),
    "no token": "hello",
    "dots": "..",
    "nothing": "",
    "no ASCII": "é.é.é",
    "long": "a" * 100_000,
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_token_is_refused(tokens: PageTokens, how: str) -> None:
    """Whatever is wrong with it, the answer tells a forger nothing."""
    with pytest.raises(Unauthenticated, match="the key or token is not valid"):
        tokens.check(FORGED[how], ORIGIN)


@pytest.mark.parametrize("scope", ["admin", "", ["infer"], 1])
def test_a_token_for_something_else_is_refused(tokens: PageTokens, scope: object) -> None:
    """A scope is more than a signature."""
    with pytest.raises(Unauthenticated, match="scope"):
        tokens.check(forged(scope=scope), ORIGIN)


@pytest.mark.parametrize("aud", [[OTHER, "x"], "", OTHER, 7, {}])
def test_a_token_for_somebody_else_is_refused(tokens: PageTokens, aud: object) -> None:
    """Also where the origin is of an odd shape."""
    with pytest.raises(Unauthenticated):
        tokens.check(forged(aud=aud), ORIGIN)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "abc", "Bearer\tabc"])
def test_a_header_without_a_credential_teaches_the_right_one(header: str) -> None:
    """The message shows how to write it."""
    with pytest.raises(Unauthenticated, match="send 'Authorization: Bearer KEY'"):
        bearer(header)


def test_a_credential_is_taken_from_its_header() -> None:
    """The scheme's case and spaces around do not matter."""
    assert bearer("Bearer abc") == bearer("bearer   abc ") == bearer("BEARER abc") == "abc"
