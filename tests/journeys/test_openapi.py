"""The OpenAPI document: every route by example, and a run of schemathesis over all of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from litestar import Litestar
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import samples
import servers
import stores
import toys
from servers import CLOUD_KEY, KEY, ORIGIN, Servers
from trivium.contract import JSON, MSGPACK, PROBLEM, Problem, Refusal, decode, encode
from trivium.errors import ERRORS
from trivium.hosts.server import described
from trivium.hosts.server.described import OFFSET
from trivium_cloud.app import create_app as create_cloud
from trivium_cloud.settings import Settings as CloudSettings
from trivium_edge.app import create_app as create_edge
from trivium_edge.settings import Settings as EdgeSettings

load_all_checks()
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
LIMITS = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    database=None,
)


@schemathesis.serializer(MSGPACK)
def packed(_: Any, value: Any) -> bytes:
    """Return a body in MessagePack."""
    with contextlib.suppress(TypeError, OverflowError, ValueError):
        return encode(value)
    return b""


@schemathesis.serializer(
    OFFSET, "text/csv", "image/*", "audio/*", "video/*", "application/x-protobuf"
)
def plain(_: Any, value: Any) -> bytes:
    """Return a body that is bytes already."""
    value = getattr(value, "data", value)
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


HIDDEN = ("/openapi.json", "/schema", "/bundles", "/runtime")
SOCKETS = ("/v1/tasks/{task_id}/ws",)
KEYS = {"edge": KEY, "cloud": CLOUD_KEY}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every operation with its method and path."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_told_of(shared: Servers) -> None:
    """With what it is for, how errors look, who may ask, and an example of all JSON."""
    for room in shared.rooms:
        document = room.get("/openapi.json", key=None).json()
        for route in room.app.routes:
            path = route.path_format.replace("{task_id:str}", "{task_id}")
            if not path.startswith(HIDDEN) and path not in SOCKETS and path != "/":
                assert any(each.startswith(path) for each in document["paths"]), path
        names = []
        for name, operation in operations(document):
            names.append(operation["operationId"])
            assert operation["summary"], name
            assert "security" in operation, name
            assert PROBLEM in operation["responses"]["default"]["content"], name
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for body in bodies:
                told = body.get("content", {}).get(JSON)
                assert told is None or {"example", "examples"} & told.keys(), name
        assert len(names) == len(set(names))


def test_the_examples_are_what_they_are_examples_of(shared: Servers) -> None:
    """By the schemas beside them."""
    for room in shared.rooms:
        document = room.get("/openapi.json", key=None).json()
        count = 0
        for name, operation in operations(document):
            for body in [operation.get("requestBody", {}), *operation["responses"].values()]:
                for told in body.get("content", {}).values():
                    given = [each["value"] for each in told.get("examples", {}).values()]
                    given += [told["example"]] if "example" in told else []
                    schema = {**told["schema"], "components": document["components"]}
                    for each in given:
                        try:
                            jsonschema_rs.validate(schema, each)
                        except jsonschema_rs.ValidationError as error:
                            raise AssertionError(f"{name}: {error.message}") from error
                        count += 1
        assert count > 10


@contextlib.contextmanager
def served(app: Litestar) -> Iterator[str]:
    """Serve an app on a free port, from a loop in a thread of its own."""
    config = uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with servers.looping() as loop:
        serving = asyncio.run_coroutine_threadsafe(server.serve(), loop)
        while not server.started:
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            serving.result(20)


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the addresses of a gateway and of the cloud behind it, over a store."""
    folder = tmp_path_factory.mktemp("whole")
    zoo = (samples.zoo(folder / "zoo"),)
    with stores.store("valkey", folder / "store") as url:
        cloud = create_cloud(
            CloudSettings(
                bundles=zoo,
                keys=(CLOUD_KEY,),
                trust=(toys.keys(),),
                redis_url=url,
                uploads=folder / "uploads",
                defaults=servers.DEFAULTS,
            )
        )
        with served(cloud) as there:
            edge = create_edge(
                EdgeSettings(
                    bundles=zoo,
                    page=Path("nowhere"),
                    cloud_url=there,
                    cloud_key=CLOUD_KEY,
                    keys=(KEY,),
                    origins=(ORIGIN,),
                    trust=(toys.keys(),),
                    history=folder / "history",
                )
            )
            with served(edge) as here:
                yield {"edge": here, "cloud": there}


def test_all_that_is_described_is_there(urls: dict[str, str]) -> None:
    """And all that operators are shown is described: figures have no schema, but an example."""
    documents = [httpx.get(f"{url}/openapi.json").json() for url in urls.values()]
    there = {name for document in documents for name, _ in operations(document)}
    known = [described.EXAMPLES, described.RAW, described.BODIES, described.QUERIES]
    assert {name for each in known for name in each} <= there
    assert {name for name in there if " /v1/ops/" in name} <= described.EXAMPLES.keys()


def ours(response: Any) -> None:
    """Raise unless an error has the one shape, and is none that nobody foresaw."""
    if response.status_code < 400 or not response.content:
        return
    media = response.headers["content-type"][0].partition(";")[0]
    if response.status_code == 503 and media == JSON:
        return  # health
    assert media in (PROBLEM, MSGPACK), media
    if media == MSGPACK:
        code = decode(response.content, Refusal).error.code
    else:
        problem = decode(response.content, Problem, JSON)
        assert problem.status == response.status_code
        assert problem.type == f"urn:trivium:error:{problem.code}"
        code = problem.code
    assert code in ERRORS
    # A budget that nobody meets is the only one: the rest would be ours.
    assert response.status_code < 500 or code == "over_budget", response.content[:300]


@pytest.mark.parametrize("tier", ["cloud", "edge"])
def test_whatever_the_document_allows_is_answered_as_it_says(
    urls: dict[str, str], tier: str
) -> None:
    """Requests drawn from the document, right and wrong ones: no error that nobody foresaw."""
    told = {"Authorization": f"Bearer {KEYS[tier]}"}
    document = schemathesis.openapi.from_url(f"{urls[tier]}/openapi.json")
    count = 0
    for result in document.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr] # the document is valid
        if operation.path == "/v1/ops/live":
            continue  # which has no end

        def check(case: Any) -> None:
            nonlocal count
            count += 1
            response = case.call(headers=told, timeout=30)
            ours(response)
            case.validate_response(response, checks=CHECKS)

        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # what takes nothing can't be asked wrongly
                LIMITS(given(case=operation.as_strategy(mode))(check))()
    assert count > 100
