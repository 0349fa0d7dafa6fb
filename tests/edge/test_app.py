"""The gateway: its page, bundles, kernel, tokens and spans."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import pytest

import toys
from servers import BOTH, CLOUD_KEY, KEY, ORIGIN, Room, Servers, fault, said, serving
from trivium.contract import JSON, MSGPACK, File, Manifest, decode, encode
from trivium.hosts.server.access import TOKEN_S
from trivium.trace import Span
from trivium_edge.app import ISOLATION

TRACE, OWN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SPAN = Span(name="boot", service="page", trace_id=TRACE, span_id=OWN, start_ns=1, end_ns=2)

PAGE = {
    "index.html": (b"<!doctype html><title>Trivium</title>", "text/html"),
    "assets/worker.js": (b"self", "text/javascript"),
    "assets/ort.mjs": (b"export {}", "text/javascript"),
    "assets/ort.wasm": (b"\0asm", "application/wasm"),
    "assets/style.css": (b"body {}", "text/css"),
    "pyodide/lock.json": (b"{}", "application/json"),
    "assets/icon.svg": (b"<svg/>", "image/svg+xml"),
}


def span(**fields: str) -> Span:
    """Return the span with some fields replaced."""
    return decode(encode({**decode(encode(SPAN), dict[str, object]), **fields}), Span)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a built page, with a secret beside it."""
    folder = tmp_path_factory.mktemp("built")
    for name, (data, _) in PAGE.items():
        path = folder / "dist" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "secret.txt").write_text("secret")
    return folder / "dist"


@pytest.fixture(scope="module")
def gateway(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Return an edge that serves the page."""
    bundles = tmp_path_factory.mktemp("zoo")
    toys.bundle(bundles, toys.COUNT, toys.manifest())
    with serving([bundles], page=built) as made:
        (bundles / "text.count" / "notes.txt").write_text("secret")
        yield made


def token(edge: Room, origin: str = ORIGIN) -> str:
    """Return a page's token."""
    response = edge.send("POST", "/v1/token", key=None, headers={"origin": origin})
    assert response.status_code == 200
    found: str = response.json()["token"]
    return found


def ask(edge: Room, **headers: str) -> httpx.Response:
    """Ask with these headers alone."""
    return edge.send(
        "POST",
        "/v1/infer/text.count",
        key=None,
        content=b"a b",
        headers={"content-type": "text/plain", **headers},
    )


def test_every_response_isolates_the_page(gateway: Servers) -> None:
    """Answers, files, errors and preflights: one without would break threads in the page."""
    edge = gateway.edge
    preflight = {"access-control-request-method": "POST", "origin": ORIGIN}
    responses = [
        *(edge.get(path) for path in ("/", "/assets/ort.wasm", "/nothing", "/assets", "/schema")),
        *(edge.get(path) for path in ("/v1/roads", "/health/live", "/openapi.json", "/v1/bundles")),
        edge.get("/runtime/kernel.whl"),
        edge.text("text.count", "a"),
        edge.text("text.count", "a", accept="text/event-stream"),
        edge.text("text.count", b"\xff"),
        edge.text("text.count", "a", authorization="Bearer wrong"),
        edge.send("DELETE", "/v1/token"),
        edge.send("POST", "/v1/token"),
        edge.send("OPTIONS", "/v1/infer/text.count", headers=preflight),
        edge.send("OPTIONS", "/v1/infer/text.count", headers={**preflight, "origin": "http://x"}),
    ]
    assert {response.status_code for response in responses} >= {200, 204, 400, 401, 403, 404, 405}
    for response in responses:
        for name, value in ISOLATION.items():
            assert response.headers.get_list(name) == [value], response


@pytest.mark.parametrize("name", PAGE)
def test_the_page_is_served_with_its_types(gateway: Servers, name: str) -> None:
    """A browser compiles wasm and modules only under the right ones."""
    data, media = PAGE[name]
    response = gateway.edge.get(f"/{name}", key=None)
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["content-type"].partition(";")[0] == media


def test_the_root_is_the_page(gateway: Servers) -> None:
    """Without a key."""
    response = gateway.edge.get("/", key=None)
    assert response.content == PAGE["index.html"][0]


def test_a_gateway_without_a_page_says_that_there_is_nothing(servers: Servers) -> None:
    """It still answers asks."""
    assert said(servers.edge.get("/")) == "404 not_found: there is nothing at '/'"


TRAVERSALS = [
    "/../secret.txt",
    "/%2e%2e/secret.txt",
    "/..%2fsecret.txt",
    "/assets/..%2f..%2fsecret.txt",
    "/assets/%2e%2e/%2e%2e/secret.txt",
    "//etc/passwd",
    "/%2fetc/passwd",
    "/....//secret.txt",
    "/..%5csecret.txt",
    "/assets/ort.mjs%00.txt",
    "/secret.txt",
    "/%ff%fe",
    "/" + 300 * "a",
    "/index.html/a",
]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_the_page_reaches_nothing_beside_it(gateway: Servers, path: str) -> None:
    """Whatever the path tries."""
    response = gateway.edge.get(path)
    assert response.status_code in (400, 404)
    assert b"secret" not in response.content.replace(b"secret.txt", b"")
    fault(response)


def test_bundles_are_listed_with_their_digest(gateway: Servers) -> None:
    """The digest in a file's address makes it immutable."""
    (listed,) = gateway.edge.get("/v1/bundles", key=None).json()
    assert (listed["name"], listed["version"]) == ("text.count", "1.0.0")
    base = f"/bundles/text.count/{listed['digest']}"
    raw = gateway.edge.get(f"{base}/manifest.json", key=None)
    assert hashlib.sha256(raw.content).hexdigest() == listed["digest"]
    assert "immutable" in raw.headers["cache-control"]
    manifest = decode(raw.content, Manifest, JSON)
    for name, pinned in manifest.files.items():
        data = gateway.edge.get(f"{base}/{name}", key=None).content
        assert File(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) == pinned


def test_another_digest_is_a_conflict(gateway: Servers) -> None:
    """A page of an older bundle is told, instead of getting files that do not fit."""
    path = f"/bundles/text.count/{'0' * 64}/manifest.json"
    assert said(gateway.edge.get(path)).startswith("409 conflict: text.count is served with digest")
    unknown = gateway.edge.get(f"/bundles/text.cuont/{'0' * 64}/manifest.json")
    assert said(unknown) == "404 unknown_function: no bundle 'text.cuont' is served here"


@pytest.mark.parametrize("how", ["changed", "gone", "a link"])
def test_a_changed_file_is_not_given_out(servers: Servers, zoo: Path, how: str) -> None:
    """Or a browser would keep it for ever under the address of the right one."""
    listed = servers.edge.get("/v1/bundles").json()
    digest = next(each["digest"] for each in listed if each["name"] == "text.line")
    path = zoo / "text.line" / "first.onnx"
    data = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(data[:-1] + b"!")
    elif how == "a link":
        path.symlink_to(zoo / "text.line" / "second.onnx")
    response = servers.edge.get(f"/bundles/text.line/{digest}/first.onnx")
    assert said(response).startswith("500 bad_bundle: text.line/first.onnx ")
    assert "cache-control" not in response.headers
    (zoo / "text.line" / "manifest.json").write_text("{}")
    manifest = servers.edge.get(f"/bundles/text.line/{digest}/manifest.json")
    assert hashlib.sha256(manifest.content).hexdigest() == digest


@pytest.mark.parametrize(
    "file",
    [
        "notes.txt",
        "manifest.sha256",
        "..%2f..%2fetc%2fpasswd",
        "..",
        "%2e%2e",
        "function.py%00",
        ".",
    ],
)
def test_a_bundle_gives_only_what_it_lists(gateway: Servers, file: str) -> None:
    """Neither what lies beside its files nor what is above its folder."""
    digest = gateway.edge.get("/v1/bundles").json()[0]["digest"]
    response = gateway.edge.get(f"/bundles/text.count/{digest}/{file}")
    assert response.status_code in (400, 404)
    fault(response)


def test_the_kernel_that_is_served_is_the_one_that_runs(gateway: Servers, tmp_path: Path) -> None:
    """The same bytes each time, without the servers' host, importable with msgspec alone."""
    response = gateway.edge.get("/runtime/kernel.whl", key=None)
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["cache-control"] == "no-cache"
    assert gateway.edge.get("/runtime/kernel.whl").content == response.content
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert "trivium/engine.py" in archive.namelist()


def test_a_page_asks_with_a_token_of_its_origin(gateway: Servers) -> None:
    """It holds for that origin and for ten minutes, and is no key."""
    response = gateway.edge.send("POST", "/v1/token", key=None, headers={"origin": ORIGIN})
    assert response.json()["expires_in"] == TOKEN_S
    bearer = f"Bearer {response.json()['token']}"
    assert ask(gateway.edge, authorization=bearer, origin=ORIGIN).json()["output"] == {"words": 2}
    for origin in ("https://evil.test", "null", ""):
        refused = ask(gateway.edge, authorization=bearer, origin=origin)
        assert said(refused) == "401 unauthenticated: the page's token was issued to another origin"
    assert said(ask(gateway.edge, authorization=bearer)).startswith("401 unauthenticated: ")
    assert gateway.cloud.get("/v1/roads", headers={"authorization": bearer}).status_code == 401


@pytest.mark.parametrize("origin", ["https://evil.test", "null", ""])
def test_a_stranger_gets_no_token(gateway: Servers, origin: str) -> None:
    """The message lists the origins that do."""
    response = gateway.edge.send("POST", "/v1/token", headers={"origin": origin})
    assert said(response).startswith("403 not_allowed: origin ")
    assert ORIGIN in response.text


def test_a_page_that_shows_its_token_stays_the_same_visitor(gateway: Servers) -> None:
    """Whose tasks and uploads go on being theirs; a key in its place is no visitor."""

    def visitor(bearer: str) -> str:
        headers = {"origin": ORIGIN, **({"authorization": f"Bearer {bearer}"} if bearer else {})}
        response = gateway.edge.send("POST", "/v1/token", key=None, headers=headers)
        claims = jwt.decode(response.json()["token"], options={"verify_signature": False})
        return str(claims["sub"])

    first = token(gateway.edge)
    mine = jwt.decode(first, options={"verify_signature": False})["sub"]
    assert visitor(first) == mine
    assert len({visitor(""), visitor("nonsense"), visitor(KEY), mine}) == 4


def test_another_gateways_token_is_refused(gateway: Servers, zoo: Path) -> None:
    """Each signs with its own secret, unless they are given the same."""
    bearer = f"Bearer {token(gateway.edge)}"
    with serving([zoo], secret="another secret of thirty-two letters") as other:
        refused = ask(other.edge, authorization=bearer, origin=ORIGIN)
        assert said(refused) == "401 unauthenticated: the key or token is not valid"
    assert jwt.decode(bearer[7:], options={"verify_signature": False})["aud"] == ORIGIN


def test_pages_of_our_origins_may_send_and_read(gateway: Servers) -> None:
    """The trace travels both ways across origins; strangers are let do nothing."""
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,traceparent,trivium-ms",
    }
    response = gateway.edge.send("OPTIONS", "/v1/infer/text.count", key=None, headers=preflight)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == ORIGIN
    allowed = response.headers["access-control-allow-headers"].lower()
    for name in ("authorization", "content-type", "traceparent", "tracestate", "trivium-reach"):
        assert name in allowed
    answer = gateway.edge.text("text.count", "a", origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = answer.headers["access-control-expose-headers"].lower()
    for name in ("traceparent", "server-timing", "trivium-tier", "trivium-plan", "trivium-model"):
        assert name in exposed
    evil = {**preflight, "origin": "https://evil.test"}
    refused = gateway.edge.send("OPTIONS", "/v1/infer/text.count", key=None, headers=evil)
    assert refused.status_code == 400
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize("media", BOTH)
def test_a_pages_spans_are_passed_on(servers: Servers, media: str) -> None:
    """As the page's, whatever service they claim; what is not plausible is dropped."""
    mine = [SPAN, span(service="cloud", name="forged"), span(trace_id="0" * 32)]
    response = servers.edge.send(
        "POST", "/v1/spans", content=encode(mine, media), headers={"content-type": media}
    )
    assert (response.status_code, response.content) == (204, b"")
    assert [(each.name, each.service) for each in servers.spans] == [
        ("boot", "page"),
        ("forged", "page"),
    ]


@pytest.mark.parametrize(
    ("body", "media", "expected"),
    [
        (b"[]", "text/html", "400 bad_input: content type 'text/html' is neither"),
        (b"[]", "text/plain", "400 bad_input: the JSON is not a valid Left"),
        (b"{" * 2_000_000, JSON, "413 too_large: 2000000 bytes were sent"),
        (b"[]", "", "400 bad_input: content type '' is neither"),
        (b"{", JSON, "400 bad_input: the JSON is not a valid list"),
        (b"", MSGPACK, "400 bad_input: the MessagePack is not a valid list"),
        (b'[{"name": 1}]', JSON, "400 bad_input: the JSON is not a valid list"),
        (encode([SPAN] * 513), MSGPACK, "413 too_large: 513 spans were sent; at most 512 are"),
    ],
)
def test_what_is_no_span_is_refused(
    gateway: Servers, body: bytes, media: str, expected: str
) -> None:
    """In the same shape as everything else."""
    response = gateway.edge.send("POST", "/v1/spans", content=body, headers={"content-type": media})
    assert said(response).startswith(expected)
    assert "page" not in {each.service for each in gateway.spans}


def test_a_page_that_goes_sends_its_token_in_the_body(gateway: Servers) -> None:
    """A beacon has no headers of its own; the token is as good, or as bad, as in one."""
    good = token(gateway.edge)
    gateway.spans.clear()
    for shown, origin, status in ((good, ORIGIN, 204), (good, "null", 401), ("x", ORIGIN, 401)):
        body = b'{"token": "%s", "spans": [%s]}' % (shown.encode(), encode(SPAN, JSON))
        headers = {"content-type": "text/plain;charset=UTF-8", "origin": origin}
        response = gateway.edge.send("POST", "/v1/spans", key=None, content=body, headers=headers)
        assert response.status_code == status
    assert [each.name for each in gateway.spans] == ["boot"]
    gateway.spans.clear()


def test_spans_need_a_key_or_token(gateway: Servers) -> None:
    """A stranger can't write into our traces."""
    bearer = {"authorization": f"Bearer {token(gateway.edge)}", "origin": ORIGIN}
    for headers, status in (({}, 401), ({**bearer, "origin": "null"}, 401), (bearer, 204)):
        response = gateway.edge.send(
            "POST",
            "/v1/spans",
            key=None,
            content=encode([SPAN]),
            headers={"content-type": MSGPACK, **headers},
        )
        assert response.status_code == status
    gateway.spans.clear()


def test_keys_of_one_tier_do_not_open_the_other(gateway: Servers) -> None:
    """A caller of the edge knows nothing of the cloud's key."""
    assert (
        gateway.edge.text("text.count", "a", authorization=f"Bearer {CLOUD_KEY}").status_code == 401
    )
    assert gateway.cloud.text("text.count", "a", authorization=f"Bearer {KEY}").status_code == 401


def test_a_dead_cloud_leaves_what_the_edge_can(servers: Servers) -> None:
    """What it can't is said plainly, and works again when the cloud is back."""
    assert servers.edge.text("text.any", "a").json()["tier"] == "cloud"
    servers.link.down = True
    assert servers.edge.text("text.count", "a").json()["tier"] == "edge"
    for _ in range(5):
        lost = said(servers.edge.text("text.any", "a"))
        assert lost.startswith("502 tier_unreachable: ")
        assert "cloud" in lost
    assert servers.edge.text("text.count", "a", trivium_tiers="cloud,edge").json()["tier"] == "edge"
    servers.link.down = False
