"""Who is let in, at the edge and in the cloud behind it, and what is tried to get in."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples
import servers
from servers import CLOUD_KEY, KEY, ORIGIN, Room, said
from trivium.errors import AskError
from trivium.hosts.server.access import Access, Keys, PageTokens, Policy
from trivium.hosts.server.callers import HEADERS, SCOPES, Caller, Limits, behalf
from trivium.hosts.server.keys import create, revoke
from trivium.hosts.server.valkey import Valkey

SECRET = "a development secret of 32 letters"
OTHERS = "a secret of thirty-two characters"
JWT = {"jwt_secret": SECRET, "jwt_issuer": "https://login.example", "jwt_audience": "trivium"}


def token(**changed: Any) -> str:
    """Return a token of the identity provider."""
    now = int(time.time())
    whole = {
        "iss": JWT["jwt_issuer"], "aud": "trivium", "sub": "ann", "tenant": "acme",
        "nbf": now, "exp": now + 60, **changed,
    }  # fmt: skip
    return jwt.encode(whole, SECRET, "HS256")


@dataclass
class Door:
    """One way in, asked without a server."""

    access: Access

    def opens(self, tls: dict[str, str] | None = None, /, **headers: str) -> Caller:
        """Return who is let in with these headers, written with underscores."""
        listed = [(k.replace("_", "-").encode(), v.encode("latin-1")) for k, v in headers.items()]
        return self.opened(listed, tls)

    def opened(
        self, headers: list[tuple[bytes, bytes]], tls: dict[str, str] | None = None
    ) -> Caller:
        """Return who is let in."""
        scope: Any = {"type": "http", "headers": headers, "extensions": {"tls": tls or {}}}
        return asyncio.run(self.access(scope))

    def refuses(self, tls: dict[str, str] | None = None, /, **headers: str) -> str:
        """Return why nobody is let in."""
        with pytest.raises(AskError) as caught:
            self.opens(tls, **headers)
        return f"{caught.value.status} {caught.value.message}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where keys are kept."""
    return tmp_path / "keys.json"


@pytest.fixture
def door(path: Path) -> Callable[..., Door]:
    """Return a way in by a policy."""

    def made(factors: str = "key", pages: PageTokens | None = None, **policy: Any) -> Door:
        alternatives = tuple(frozenset(each.split("+")) for each in factors.split(","))
        whole = Policy(factors=alternatives, key_file=path, **policy)
        return Door(Access(whole, Keys(["plain"]), pages=pages))

    return made


def test_two_factors_are_two(door: Callable[..., Door], path: Path) -> None:
    """Either alone is too little; together they allow what both allow."""
    _, key = create(path, 0, tenant="acme", scopes=["infer", "tasks", "ops"])
    way = door("key+jwt", **JWT)
    caller = way.opens(authorization=f"Bearer {token(scope='infer uploads')}", x_api_key=key)
    assert (caller.tenant, caller.subject, set(caller.scopes)) == ("acme", "ann", {"infer"})
    assert caller.key in key
    wanted = "401 this server asks for jwt+key; shown was "
    assert way.refuses(authorization=f"Bearer {key}") == wanted + "key"
    assert way.refuses(x_api_key=key) == wanted + "key"
    assert way.refuses(authorization=f"Bearer {token()}") == wanted + "jwt"


def test_factors_of_different_tenants_are_refused(door: Callable[..., Door], path: Path) -> None:
    """A stolen key helps nobody with a token of another tenant."""
    _, key = create(path, 0, tenant="other")
    way = door("key+jwt", **JWT)
    bearer = f"Bearer {token()}"
    assert way.refuses(authorization=bearer, x_api_key=key).endswith("different tenants")
    # A plain key is nobody's own.
    assert way.opens(authorization=bearer, x_api_key="plain").tenant == "acme"


def test_all_that_is_shown_must_be_right(door: Callable[..., Door], path: Path) -> None:
    """Also where less would do: a bad token beside a good key is an attack, or a mistake."""
    _, key = create(path, 0, tenant="acme")
    way = door("key", **JWT)
    assert way.opens(x_api_key=key).tenant == "acme"
    assert way.refuses(x_api_key=key, authorization=f"Bearer {token(exp=1)}").startswith("401")
    assert way.refuses(x_api_key=key[:-1], authorization=f"Bearer {token()}").startswith("401")
    assert way.refuses(x_api_key=key, authorization="Basic YTpi").startswith("401 send 'Auth")


def test_a_policy_may_have_alternatives(door: Callable[..., Door], path: Path) -> None:
    """People show key and token, a gateway its key and certificate."""
    _, key = create(path, 0, tenant="acme", certificate="CN=edge")
    way = door("key+jwt,key+mtls", **JWT)
    edge = {"client_cert_name": "CN=edge", "client_cert_tenant": "ops"}
    _, free = create(path, 0, tenant="acme")
    assert way.opens(x_api_key=free, authorization=f"Bearer {token()}").subject == "ann"
    assert "of different tenants" in way.refuses(edge, x_api_key=free)
    assert "its own certificate" in way.refuses(
        {**edge, "client_cert_name": "CN=other"}, x_api_key=key
    )
    assert "its own certificate" in way.refuses(x_api_key=key, authorization=f"Bearer {token()}")
    del edge["client_cert_tenant"]
    assert way.opens(edge, x_api_key=key).tenant == "acme"
    assert "asks for jwt+key or key+mtls; shown was key" in way.refuses(x_api_key=free)


def test_a_certificate_alone_names_its_tenant(door: Callable[..., Door]) -> None:
    """Or lets nobody in; it never makes a gateway or an operator."""
    way = door("mtls")
    caller = way.opens({"client_cert_name": "CN=a,O=acme", "client_cert_tenant": "acme"})
    assert (caller.tenant, caller.subject) == ("acme", "CN=a,O=acme")
    assert caller.scopes == {"infer", "tasks", "uploads", "feedback"}
    assert "names no tenant" in way.refuses({"client_cert_name": "CN=a"})
    assert "send 'Authorization" in way.refuses()
    assert "shown was key" in way.refuses(x_api_key="plain")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"factors": (frozenset({"key", "cookie"}),)}, "FACTORS has 'cookie"),
        ({"factors": (frozenset(),)}, "FACTORS has ''"),
        ({"factors": (frozenset({"jwt"}),)}, "set JWT_KEYS"),
        ({"mask": "all"}, "MASK is 'all'"),
    ],
)
def test_a_policy_that_can_t_hold_is_refused(policy: dict[str, Any], message: str) -> None:
    """At the start, with what is allowed."""
    with pytest.raises(ValueError, match=message):
        Policy(**policy)


def test_a_policy_is_read_from_the_environment() -> None:
    """The same words for edge and cloud."""
    found = Policy.from_env(
        {
            "TRIVIUM_CLOUD_FACTORS": "key+jwt, key+mtls",
            "TRIVIUM_CLOUD_KEY_FILE": "/etc/keys.json",
            "TRIVIUM_CLOUD_JWT_KEYS": "https://login.example/jwks",
            "TRIVIUM_CLOUD_JWT_ISSUER": "https://login.example",
            "TRIVIUM_CLOUD_JWT_AUDIENCE": "trivium",
            "TRIVIUM_CLOUD_MASK": "results",
        },
        "TRIVIUM_CLOUD_",
    )
    assert found.factors == (frozenset({"key", "jwt"}), frozenset({"key", "mtls"}))
    assert (found.key_file, found.mask) == (Path("/etc/keys.json"), "results")
    assert Policy.from_env({}, "TRIVIUM_CLOUD_") == Policy()


def test_who_is_spoken_for(door: Callable[..., Door], path: Path) -> None:
    """A gateway's word counts, for no more than it may do itself."""
    _, gateway = create(path, 0, tenant="us", scopes=["infer", "tasks", "behalf"])
    way = door()
    person = Caller(
        tenant="acme", subject="安妮 ann", key="abc", scopes=frozenset(SCOPES), masked=True
    )
    headers = {name.replace("-", "_"): value for name, value in behalf(person).items()}
    found = way.opens(x_api_key=gateway, **headers)
    assert (found.tenant, found.subject, found.key) == ("acme", "安妮 ann", "abc")
    assert found.scopes == {"infer", "tasks"}
    assert found.masked
    assert way.opens(x_api_key=gateway).tenant == "us"
    # Limits are of the caller's own key, where it is known here; of the gateway's for the rest.
    limited, with_limits = create(path, 0, scopes=["infer", "behalf"], limits=Limits(minute=9))
    visitor = way.opens(x_api_key=with_limits, trivium_tenant="page-1")
    assert (visitor.key, visitor.limits.minute) == (limited.id, 9)
    theirs, _ = create(path, 0, limits=Limits(day=5))
    caller = way.opens(x_api_key=with_limits, trivium_tenant="acme", trivium_key=theirs.id)
    assert (caller.key, caller.limits) == (theirs.id, Limits(day=5))
    assert not way.opens(x_api_key=with_limits, trivium_tenant="a", trivium_key="nobody").limits
    assert way.opens(x_api_key=gateway, trivium_tenant="acme").scopes == {"infer", "tasks"}
    for bad in ("", "a:b", "../x", "a" * 65, "ä", "a b"):
        assert "is no tenant" in way.refuses(x_api_key=gateway, trivium_tenant=bad)


@pytest.mark.parametrize("header", HEADERS)
def test_only_a_gateway_speaks_for_others(
    door: Callable[..., Door], path: Path, header: str
) -> None:
    """Not a usual key, not a token that claims it, not a page."""
    _, key = create(path, 0, tenant="acme")
    pages = PageTokens(OTHERS, [ORIGIN])
    way = door("key,jwt", pages, **JWT)
    told = {header.replace("-", "_"): "acme"}
    page = pages.issue(ORIGIN)
    for shown in (
        {"x_api_key": key},
        {"authorization": f"Bearer {token(scope='infer behalf')}"},
        {"authorization": f"Bearer {page}", "origin": ORIGIN},
    ):
        assert way.opens(**shown).tenant
        assert "403 only a key with the scope 'behalf'" in way.refuses(**shown, **told)


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "trivium-tenant", "origin"])
def test_a_header_sent_twice_is_refused(door: Callable[..., Door], name: str) -> None:
    """Two servers might believe different ones."""
    listed = [(b"authorization", b"Bearer plain"), (name.encode(), b"a"), (name.encode(), b"b")]
    with pytest.raises(AskError, match=f"the header {name} was sent twice"):
        door().opened(listed)


def test_pages_and_people_are_told_apart(door: Callable[..., Door]) -> None:
    """A page's token is none of the provider's, and the other way round."""
    pages = PageTokens(OTHERS, [ORIGIN])
    way = door("key+jwt", pages, **JWT)
    assert way.opens(authorization=f"Bearer {pages.issue(ORIGIN)}", origin=ORIGIN).subject
    ours = jwt.decode(pages.issue(ORIGIN), options={"verify_signature": False})
    forged = jwt.encode(ours, SECRET, "HS256", headers={"typ": "page+jwt"})
    assert way.refuses(authorization=f"Bearer {forged}", origin=ORIGIN).startswith("401")
    unmarked = jwt.encode(ours, OTHERS, "HS256")
    assert way.refuses(authorization=f"Bearer {unmarked}", origin=ORIGIN).startswith("401")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where both servers' keys are kept."""
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def shared(kept: Path) -> Iterator[servers.Servers]:
    """Return both servers with one file of keys."""
    policy = Policy(key_file=kept)
    zoo = samples.zoo(kept.parent / "zoo")
    with servers.serving([zoo], access=policy, cloud_access=policy) as made:
        yield made


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["authorization", "x-api-key", "origin", *HEADERS]),
            st.binary(max_size=60)
            | st.sampled_from([b"Bearer plain", b"plain", b"acme", b"Bearer "]),
        ),
        max_size=5,
    )
)
def test_any_headers_are_let_in_or_refused(listed: list[tuple[str, bytes]]) -> None:
    """By an error of ours, whatever they hold."""
    pages, with_jwt = PageTokens(OTHERS, [ORIGIN]), cast("dict[str, Any]", JWT)
    policy = Policy(
        factors=(frozenset({"key"}), frozenset({"jwt"})), key_file=Path("none"), **with_jwt
    )
    door = Door(Access(policy, Keys(["plain"]), pages=pages))
    with contextlib.suppress(AskError):
        caller = door.opened([(name.encode(), value) for name, value in listed])
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", caller.tenant)
        assert "behalf" not in caller.scopes or not any(name in HEADERS for name, _ in listed)


def test_results_are_masked_for_a_key_that_says_so(shared: servers.Servers, kept: Path) -> None:
    """At the edge, in the cloud, and on the way between them; a stream gives what is whole."""
    _, masked = create(kept, 0, masked=True)
    _, plain = create(kept, 0)
    text = "mail anna@b.example now"
    for room in shared.rooms:
        for tier in ("edge", "cloud") if room is shared.edge else ("cloud",):
            for key, hidden in ((plain, False), (masked, True)):
                with_key = {"authorization": f"Bearer {key}", "trivium_tiers": tier}
                output = room.text("text.spell", text, **with_key).json()["output"]
                assert ("anna@b.example" in "".join(output)) is not hidden
                assert ("[email]" in "".join(output)) is hidden
                told = room.text("text.spell", text, accept="text/event-stream", **with_key).text
                assert ("event: part" in told) is not hidden
                assert ("[email]" in told) is hidden


def ask(room: Room, key: str, **headers: str) -> httpx.Response:
    """Count words with a key, in the cloud."""
    return room.text(
        "text.count", "a b", authorization=f"Bearer {key}", trivium_tiers="cloud", **headers
    )


def test_a_key_made_now_is_let_in_now(shared: servers.Servers, kept: Path) -> None:
    """At both, without a restart, and no longer once it is revoked."""
    key, credential = create(kept, 0, tenant="acme")
    for room in shared.rooms:
        wait(room, credential, 200)
    revoke(kept, key.id, 1)
    for room in shared.rooms:
        wait(room, credential, 401)


def wait(room: Room, credential: str, status: int) -> None:
    """Ask until the answer has this status."""
    for _ in range(200):
        if ask(room, credential).status_code == status:
            return
        time.sleep(0.02)
    raise AssertionError(f"never {status}")


def test_a_scope_that_is_missing_is_named(shared: servers.Servers, kept: Path) -> None:
    """On each tier, by the same words."""
    _, credential = create(kept, 0, scopes=["tasks"])
    for room in shared.rooms:
        wait(room, credential, 403)
        expected = "403 not_allowed: this needs the scope 'infer'; the credentials have: tasks"
        assert said(ask(room, credential)) == expected


def test_a_caller_of_the_edge_can_t_speak_for_others(shared: servers.Servers, kept: Path) -> None:
    """Its headers end there: neither a usual key's nor the plain key's reach the cloud."""
    _, credential = create(kept, 0, tenant="acme")
    wait(shared.edge, credential, 200)
    for key in (credential, KEY):
        assert "403 not_allowed" in said(ask(shared.edge, key, trivium_tenant="other"))
    assert ask(shared.cloud, CLOUD_KEY, trivium_tenant="other").status_code == 200


def test_secrets_are_in_no_log_span_or_error(
    shared: servers.Servers, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes of them."""
    _, credential = create(kept, 0, tenant="acme")
    secret = credential.split("_", 2)[2]
    wait(shared.edge, credential, 200)
    texts = []
    with caplog.at_level(0):
        for room in shared.rooms:
            for key in (credential, credential + "x", token(), KEY, CLOUD_KEY):
                texts.append(ask(room, key).text)
    texts += [caplog.text, repr(shared.spans)]
    whole = "".join(texts)
    for each in (secret, KEY, CLOUD_KEY, token().split(".")[1][:40]):
        assert each not in whole


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[servers.Servers, Path]]:
    """Return both servers over a store, where each tenant may send thirty requests a minute."""
    home = tmp_path_factory.mktemp("counting")
    policy = Policy(key_file=home / "keys.json")
    zoo = samples.zoo(home / "zoo")
    with (
        Valkey(home / "valkey") as valkey,
        servers.serving(
            [zoo],
            access=policy,
            cloud_access=policy,
            redis_url=valkey.url,
            limits="minute=30,day=1000",
        ) as made,
    ):
        yield made, policy.key_file


def multimodal(room: Room, key: str, **more: Any) -> httpx.Response:
    """Have words counted as a task."""
    return room.send(
        "POST",
        "/v1/multimodal",
        headers={"authorization": f"Bearer {key}"},
        json={"text": "a b", "function": "text.count", **more},
    )


def bearer(key: str) -> dict[str, str]:
    """Return the header that shows a key."""
    return {"authorization": f"Bearer {key}"}


def test_a_tenant_sees_its_own_tasks_alone(counting: tuple[servers.Servers, Path]) -> None:
    """Whichever server it asks, and whatever it says of itself; another's is one that never was."""
    made, path = counting
    _, one = create(path, 0, tenant="one")
    _, same = create(path, 0, tenant="one")
    _, other = create(path, 0, tenant="other")
    accepted = multimodal(made.edge, one, **{"async": True})
    assert accepted.status_code == 202
    task = f"/v1/tasks/{accepted.json()['task_id']}"
    never = "/v1/tasks/" + "0" * 32
    for room in made.rooms:
        for key in (one, same):
            assert room.get(task, headers=bearer(key)).status_code == 200
        hidden = room.get(task, headers=bearer(other))
        nothing = room.get(never, headers=bearer(other))
        assert (hidden.status_code, nothing.status_code) == (404, 404)
        assert hidden.json()["code"] == nothing.json()["code"]
        assert room.send("DELETE", task, headers=bearer(other)).status_code == 404
        assert room.get(f"{task}/events", headers=bearer(other)).status_code == 404
        assert room.send("POST", f"{task}/ticket", headers=bearer(other)).status_code == 404
        assert room.get("/v1/tasks", headers=bearer(other)).json()["tasks"] == []
        smuggled = {**bearer(other), "trivium-tenant": "one"}
        assert room.get(task, headers=smuggled).status_code == 403
        assert room.get("/v1/tasks", headers=smuggled).status_code == 403
    assert made.edge.send("DELETE", task, headers=bearer(one)).status_code == 200


def test_what_a_tenant_may_is_counted_wherever_it_asks(
    counting: tuple[servers.Servers, Path],
) -> None:
    """At the edge and in the cloud together, apart from other tenants, and told."""
    made, path = counting
    _, key = create(path, 0, tenant="busy")
    _, quiet = create(path, 0, tenant="quiet", limits=Limits(day=3))
    first = multimodal(made.edge, key)
    assert first.status_code == 200
    assert (
        first.headers["ratelimit-policy"]
        == '"tenant-minute";q=30;w=60, "tenant-day";q=1000;w=86400'
    )
    assert '"tenant-minute";r=29;' in first.headers["ratelimit"]
    found = [multimodal(made.rooms[number % 2], key) for number in range(40)]
    refused = [each for each in found if each.status_code != 200]
    assert 5 <= len(refused) <= 11
    for each in refused:
        assert each.status_code == 429
        assert each.json()["code"] == "quota_exceeded"
        assert int(each.headers["retry-after"]) >= 1
        assert '"tenant-minute";r=0;' in each.headers["ratelimit"]
    # An ask for a function is one, too, also where the edge takes it to the cloud.
    assert ask(made.cloud, key).status_code == 429
    assert ask(made.edge, key).status_code == 429
    for _ in range(3):
        assert multimodal(made.edge, quiet).status_code == 200
    assert "this key may send 3" in multimodal(made.edge, quiet).json()["detail"]
