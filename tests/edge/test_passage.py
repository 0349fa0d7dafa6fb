"""What the gateway passes on: whose it is, what is dropped, and what if nobody answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

import samples
import servers
from servers import CLOUD_KEY, KEY, ORIGIN, Servers, chunks, fault, said
from trivium.contract import EVENTS
from trivium_edge import passage
from trivium_edge.app import create_app
from trivium_edge.settings import Settings

ASK = {"text": "a b"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Return an edge in front of a cloud that takes files."""
    folder = tmp_path_factory.mktemp("both")
    with servers.serving([samples.zoo(folder / "zoo")], uploads=folder / "uploads") as made:
        yield made


@pytest.fixture
def seen(both: Servers, monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """Return the requests that arrive at the cloud."""
    found: list[httpx.Request] = []
    real = both.link.handle_async_request

    async def look(request: httpx.Request) -> httpx.Response:
        found.append(request)
        return await real(request)

    monkeypatch.setattr(both.link, "handle_async_request", look)
    return found


def test_a_request_of_any_parts_goes_through(both: Servers) -> None:
    """Answers, facts and errors come back as the cloud gave them."""
    response = both.edge.send("POST", "/v1/multimodal", json=ASK)
    assert response.json()["output"] == {"words": 2}
    assert response.headers["trivium-tier"] == "cloud"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert len(response.headers.get_list("content-type")) == 1
    wrong = both.edge.send("POST", "/v1/multimodal", json={"sound": 1})
    assert "unknown field `sound`" in fault(wrong)["detail"]
    events = {"accept": EVENTS}
    ask = {"function": "text.spell", "text": "ab"}
    streamed = both.edge.send("POST", "/v1/multimodal", json=ask, headers=events)
    assert streamed.text.count("event: part\n") == 2
    none = both.edge.send("GET", "/v1/multimodal")
    assert said(none).startswith("405 bad_ask: ")


def test_bodies_are_streamed_within_the_same_limits(both: Servers) -> None:
    """With and without an announced length."""
    told = {"content-type": "application/json"}
    pieces = chunks(b'{"text": ', b'"a b"}')
    response = both.edge.send("POST", "/v1/multimodal", content=pieces, headers=told)
    assert response.json()["output"] == {"words": 2}
    pieces = chunks(*[b" " * (1 << 20)] * 50)
    large = both.edge.send("POST", "/v1/multimodal", content=pieces, headers=told)
    assert said(large).startswith("413 too_large: ")


def test_uploads_go_through(both: Servers) -> None:
    """And belong to the tenant who is known here."""
    tus = {"tus-resumable": "1.0.0"}
    told = tus | {"upload-length": "3", "content-type": "application/offset+octet-stream"}
    made = both.edge.send("POST", "/v1/uploads", headers=told, content=b"abc")
    assert made.status_code == 201
    where = made.headers["location"]
    assert both.edge.send("HEAD", where, headers=tus).headers["upload-offset"] == "3"
    assert both.edge.send("OPTIONS", "/v1/uploads").headers["tus-version"] == "1.0.0"
    assert both.edge.send("GET", "/v1/tasks/..%2f..%2fhealth%2flive").status_code >= 400
    assert both.edge.send("DELETE", where, headers=tus).status_code == 204


def test_nothing_leads_out_of_what_is_passed_on(both: Servers, seen: list[httpx.Request]) -> None:
    """However the steps are written: the gateway's key opens these paths alone."""
    for path in (
        b"/v1/tasks/../../metrics",
        b"/v1/tasks/%2e%2e/%2E%2E/metrics",
        b"/v1/uploads/./x",
    ):

        async def ask(raw: bytes = path) -> list[Any]:
            said: list[Any] = []

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            async def send(message: Any) -> None:
                said.append(message)

            scope: Any = {
                "type": "http",
                "method": "GET",
                "path": unquote(raw.decode()),
                "raw_path": raw,
                "query_string": b"",
                "headers": [(b"authorization", f"Bearer {KEY}".encode())],
                "extensions": {},
            }
            await both.edge.app(scope, receive, send)
            return said

        assert both.edge.run(ask())[0]["status"] == 404
    assert not seen


def test_the_gateway_speaks_for_its_callers(both: Servers, seen: list[httpx.Request]) -> None:
    """With its own key, and with nothing that they say of themselves."""
    told = {"x-note": "kept", "connection": "x-odd, close", "x-odd": "1", "cookie": "a=b"}
    both.edge.send("POST", "/v1/multimodal", json=ASK, headers=told)
    (onward,) = seen
    assert onward.headers["authorization"] == f"Bearer {CLOUD_KEY}"
    assert onward.headers["trivium-tenant"]
    assert onward.headers["x-note"] == "kept"
    assert not {"x-odd", "cookie", "origin", "te"} & set(onward.headers)
    assert KEY not in str(onward.headers)


def test_pages_are_tenants(both: Servers, seen: list[httpx.Request]) -> None:
    """Each visitor is one."""
    for _ in range(2):
        origin = {"origin": ORIGIN}
        token = both.edge.send("POST", "/v1/token", key=None, headers=origin).json()["token"]
        page = origin | {"authorization": f"Bearer {token}"}
        assert both.edge.send("POST", "/v1/multimodal", json=ASK, headers=page).status_code == 200
    first, second = (each.headers["trivium-tenant"] for each in seen)
    assert first != second


def test_whom_only_the_cloud_knows_passes_as_he_came(
    both: Servers, seen: list[httpx.Request]
) -> None:
    """With his own credentials, and never with the gateway's."""
    theirs = {"authorization": f"Bearer {CLOUD_KEY}"}
    assert both.edge.send("POST", "/v1/multimodal", json=ASK, headers=theirs).status_code == 200
    unknown = both.edge.send("POST", "/v1/multimodal", json=ASK, key="nobody's")
    assert said(unknown).startswith("401 unauthenticated: ")
    none = both.edge.send("POST", "/v1/multimodal", json=ASK, key=None)
    assert said(none).startswith("401 unauthenticated: ")
    assert none.headers["www-authenticate"] == "Bearer"
    assert [each.headers.get("authorization") for each in seen] == [
        theirs["authorization"],
        "Bearer nobody's",
        None,
    ]


def test_nobody_says_whose_he_is(both: Servers, seen: list[httpx.Request]) -> None:
    """Such headers are refused from who is known here, and dropped from who is not."""
    for name in ("Trivium-Tenant", "trivium-subject", "TRIVIUM-SCOPES", "trivium-key"):
        smuggled = {name: "other"}
        known = both.edge.send("POST", "/v1/multimodal", json=ASK, headers=smuggled)
        assert said(known).startswith("403 not_allowed: ")
        stranger = both.edge.send("POST", "/v1/multimodal", json=ASK, key="x", headers=smuggled)
        assert said(stranger).startswith("401 unauthenticated: ")
    assert not any(each.headers.get("trivium-tenant") == "other" for each in seen)
    assert not any("trivium-subject" in each.headers for each in seen)


def test_a_cloud_that_is_away_is_told_of(both: Servers) -> None:
    """As a problem, with when to come back."""
    both.link.down = True
    try:
        response = both.edge.send("POST", "/v1/multimodal", json=ASK)
        assert said(response).startswith("502 tier_unreachable: the cloud tier did not answer")
        assert response.headers["retry-after"] == "2"
    finally:
        both.link.down = False


def test_a_gateway_whose_key_is_refused_says_so(
    both: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller was let in: it is no fault of theirs."""

    async def onward(*_: Any) -> tuple[dict[str, str], bool]:
        return {"authorization": "Bearer old", "content-type": "application/json"}, True

    monkeypatch.setattr(passage.Passage, "_onward", onward)
    response = both.edge.send("POST", "/v1/multimodal", json=ASK)
    assert said(response) == "502 tier_unreachable: the cloud refuses this tier's key"


def test_without_a_cloud_there_is_nothing_to_pass_on(tmp_path: Any) -> None:
    """The path is none."""
    app = create_app(Settings(bundles=(tmp_path,), page=tmp_path / "none", keys=(KEY,)))
    with servers.looping() as loop:
        room = servers.Room(app, KEY, loop)
        assert room.send("POST", "/v1/multimodal", json=ASK).status_code == 404
