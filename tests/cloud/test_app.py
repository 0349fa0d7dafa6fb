"""The cloud's own door: keys, readiness, the document, devices, and bundles that change."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import onnxruntime as ort
import pytest

import servers
import toys
from servers import CLOUD_KEY, Room, Servers, said, serving
from trivium.contract import Answer, Ask, Budget, Fault, Road, Tier
from trivium.errors import ERRORS
from trivium.hosts.server.session import PROVIDERS
from trivium.hosts.server.web import ASK_HEADERS, HEADERS
from trivium_cloud.settings import Settings


def test_everything_but_health_and_the_document_needs_the_key(shared: Servers) -> None:
    """Asks and roads alike, whatever the method and the name."""
    for method, path in (
        ("GET", "/v1/roads"),
        ("POST", "/v1/infer/text.count"),
        ("POST", "/v1/infer/text.cuont"),
    ):
        for key in (None, "wrong", f"{CLOUD_KEY}x", servers.KEY):
            response = shared.cloud.send(method, path, key=key, content=b"a")
            assert response.status_code == 401
            assert said(response).startswith("401 unauthenticated: ")
            assert CLOUD_KEY not in response.text
    assert shared.cloud.get("/v1/roads").status_code == 200
    for path in ("/health/live", "/health/ready", "/openapi.json"):
        assert shared.cloud.get(path, key=None).status_code == 200


def test_without_keys_nobody_may_ask() -> None:
    """An empty list lets nobody in, not everybody."""
    assert Settings.from_env({}).keys == ()
    assert Settings.from_env({"TRIVIUM_CLOUD_KEYS": " , ,"}).keys == ()


def test_settings_are_read_from_the_environment() -> None:
    """Folders are separated as PATH is, keys by commas."""
    environ = {
        "TRIVIUM_CLOUD_BUNDLES": "a:/b/c",
        "TRIVIUM_CLOUD_KEYS": "one, two",
        "TRIVIUM_CLOUD_TRUST": "keys:/etc/theirs.pub",
        "TRIVIUM_CLOUD_UNSIGNED": "1",
        "TRIVIUM_CLOUD_DEVELOPMENT": "1",
    }
    assert Settings.from_env(environ) == Settings(
        bundles=(Path("a"), Path("/b/c")),
        keys=("one", "two"),
        trust=(Path("keys"), Path("/etc/theirs.pub")),
        unsigned=True,
        development=True,
    )
    assert not Settings.from_env({"TRIVIUM_CLOUD_UNSIGNED": "yes"}).unsigned
    assert not Settings.from_env({"TRIVIUM_CLOUD_DEVELOPMENT": "0"}).development


def test_readiness_says_what_is_in_memory_and_where(servers: Servers) -> None:
    """Models load on first use; the device is the one that the session really got."""
    for tier, room in zip(("edge", "cloud"), servers.rooms, strict=True):
        assert room.get("/health/live", key=None).json()["status"] == "live"
        before = room.get("/health/ready", key=None).json()
        assert before["status"] == "ready"
        assert set(before["functions"].values()) == {"on first use"}
        assert before["devices"] == {}
        assert room.text("text.line", "1", trivium_tiers=tier).status_code == 200
        after = room.get("/health/ready", key=None).json()
        assert after["functions"]["text.line"] == "loaded"
        assert after["functions"]["text.count"] == "on first use"
        (device,) = after["devices"]["text.line"].values()
        assert device in PROVIDERS
        assert device in ort.get_available_providers()
    assert "text.any" not in servers.edge.get("/health/ready").json()["functions"]


def test_without_functions_a_server_is_not_ready(tmp_path: Path) -> None:
    """It lives, and says that it is empty."""
    with serving([tmp_path]) as made:
        for room in made.rooms:
            ready = room.get("/health/ready", key=None)
            assert (ready.status_code, ready.json()["status"]) == (503, "empty")
            assert room.get("/health/live").status_code == 200
            expected = "404 unknown_function: there is no function 'text.count'; there are: none"
            assert said(room.text("text.count", "a")) == expected


UNIFIED = {
    "/v1/tasks",
    "/v1/tasks/{task_id}",
    "/v1/tasks/{task_id}/events",
    "/v1/tasks/{task_id}/ticket",
    "/v1/webhooks/secret",
    "/v1/multimodal",
    "/v1/uploads",
    "/v1/uploads/{upload}",
}


def resolve(document: dict[str, Any], node: Any, seen: set[str]) -> None:
    """Follow every reference in a document; one that leads nowhere fails."""
    if isinstance(node, list):
        for each in node:
            resolve(document, each, seen)
    elif isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            found: Any = document
            for step in reference.removeprefix("#/").split("/"):
                found = found[step.replace("~1", "/").replace("~0", "~")]
            resolve(document, found, seen)
        for each in node.values():
            resolve(document, each, seen)


def test_the_document_is_whole(shared: Servers) -> None:
    """Each path, each form of body, each header, and nothing that leads nowhere."""
    for room, own in (
        (shared.cloud, UNIFIED),
        (shared.edge, UNIFIED | {"/v1/token", "/v1/bundles", "/v1/keys", "/v1/spans"}),
    ):
        document = room.get("/openapi.json", key=None).json()
        assert document["openapi"].startswith("3.1")
        assert set(document["paths"]) == {
            "/v1/infer/{name}",
            "/v1/roads",
            "/health/live",
            "/health/ready",
            "/metrics",
            *own,
        }
        seen: set[str] = set()
        resolve(document, document, seen)
        schemas = document["components"]["schemas"]
        for noun in (Ask, Answer, Budget, Fault):
            assert f"#/components/schemas/{noun.__name__}" in seen
            assert set(schemas[noun.__name__]["properties"]) >= set(noun.__struct_fields__)
        assert schemas["Tier"]["enum"] == sorted(Tier)
        infer = document["paths"]["/v1/infer/{name}"]["post"]
        assert infer["security"] == [{"bearer": []}, {"key": []}]
        assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
        named = [each["name"] for each in infer["parameters"]]
        assert sorted(named) == sorted(["name", *ASK_HEADERS])
        assert set(infer["responses"]["200"]["headers"]) == set(HEADERS)
        json.dumps(document)


def test_the_document_is_the_same_each_time(shared: Servers) -> None:
    """Making it changes nothing."""
    first = shared.cloud.get("/openapi.json").json()
    assert shared.cloud.get("/openapi.json").json() == first


def test_the_roads_are_what_an_edge_needs(shared: Servers) -> None:
    """Tier, version, model, quality, times and readiness of each function."""
    roads = shared.cloud.get("/v1/roads").json()
    (road,) = roads["text.any"]
    assert set(road) == set(Road.__struct_fields__)
    assert (road["tier"], road["version"], road["ready"]) == ("cloud", "1.0.0", True)
    assert [each["tier"] for each in shared.edge.get("/v1/roads").json()["text.any"]] == ["cloud"]


def settled(room: Room, status: int, version: str = "1.0.0") -> httpx.Response:
    """Return the answer of `text.count` once it has this status and version."""
    for _ in range(400):
        response = room.text("text.count", "a b")
        if (response.status_code, response.json().get("version", version)) == (status, version):
            return response
        time.sleep(0.05)
    raise AssertionError(response.text)


def test_a_bundle_replaced_while_the_servers_run_is_picked_up(zoo: Path) -> None:
    """In development: the new one answers, and whoever names the old one is told."""
    again = toys.COUNT.replace("len(words)", "-len(words)")
    with serving([zoo], development=True) as made:
        for room in made.rooms:
            assert room.text("text.count", "a b").json()["output"] == {"words": 2}
        toys.bundle(zoo, again, toys.manifest(version="2.0.0"))
        for room in made.rooms:
            assert settled(room, 200, "2.0.0").json()["output"] == {"words": -2}
            old = said(room.text("text.count", "a b", trivium_version="1.0.0"))
            assert old.startswith("409 conflict: version 1.0.0 of text.count is not served; ")
            assert "2.0.0" in old


def test_a_broken_bundle_is_reported_and_mended(
    zoo: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half a copy is refused until it is whole; the other functions go on."""
    with serving([zoo], development=True) as made, caplog.at_level(logging.ERROR):
        digest = (zoo / "text.count" / "manifest.sha256").read_text()
        (zoo / "text.count" / "manifest.sha256").write_text("half")
        for room in made.rooms:
            assert said(settled(room, 500)).startswith("500 bad_bundle: text.count/")
            assert room.text("text.line", "1").status_code == 200
        assert "a bundle is refused: text.count/manifest.json has SHA-256" in caplog.text
        (zoo / "text.count" / "manifest.sha256").write_text(digest + "\n")
        for room in made.rooms:
            settled(room, 200)


@pytest.mark.parametrize("development", [True, False])
def test_a_failing_function_shows_its_line_to_its_developer_alone(
    zoo: Path, development: bool
) -> None:
    """On whichever tier it failed; others learn the kind of error."""
    with serving([zoo], development=development) as made:
        for tier in ("edge", "cloud"):
            found = servers.fault(made.edge.text("text.fail", "a", trivium_tiers=tier))
            assert found["code"] == "run_failed"
            assert found["tier"] == tier
            line = "text.fail/function.py, line 6, in fail"
            assert found["where"] == (line if development else None)
            assert ("division by zero" in found["detail"]) is development


def test_every_error_has_a_status_that_http_knows() -> None:
    """And a code that is a word."""
    for code, kind in ERRORS.items():
        assert 400 <= kind.status < 600
        assert code.replace("_", "").isalpha()
