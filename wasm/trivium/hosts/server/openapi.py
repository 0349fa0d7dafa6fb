"""What does the OpenAPI document say of a server, with the routes that Litestar can't see?"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from ...contract import EVENTS, JSON, MSGPACK, Answer, Ask, Problem, Refusal, Road
from . import described
from .described import MULTIMODAL, Accepted
from .task import Task
from .web import ASK_HEADERS, HEADERS, INFER, AnyConnection, AnyRequest

PATH = "/openapi.json"
_INFER = INFER + "/{name}"
_REF = "#/components/schemas/{name}"


def config(title: str, version: str) -> OpenAPIConfig:
    """Return Litestar's configuration; the finished document is at PATH alone."""
    # Litestar's own pages would show an unfinished document, by scripts from a CDN.
    hidden = Router("/schema", route_handlers=[], guards=[_hide], include_in_schema=False)
    return OpenAPIConfig(
        title=title,
        version=version,
        openapi_router=hidden,
        render_plugins=[JsonRenderPlugin()],
    )


async def _hide(_: AnyConnection, __: BaseRouteHandler) -> None:
    raise NotFoundException


def document(app: Litestar) -> dict[str, Any]:
    """Return what Litestar found out, with what it can't see: asks, and all that is read by hand.

    Each route says how it is asked and what it answers, by example, and how errors look.
    """
    found: dict[str, Any] = app.openapi_schema.to_schema()
    (ask, answer, *_), schemas = msgspec.json.schema_components(
        [Ask, Answer, Problem, Refusal, Accepted, Task, list[Road]], ref_template=_REF
    )
    components = found.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | schemas
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    paths = found["paths"]
    paths[_INFER] = {"post": _infer(ask, answer)}
    if any(route.path == MULTIMODAL for route in app.routes):
        paths |= {MULTIMODAL: described.multimodal(), **described.uploads(), **described.tasks()}
    for path, item in paths.items():
        for method, operation in item.items():
            _complete(f"{method.upper()} {path}", path, operation)
    return found


def _complete(name: str, path: str, operation: dict[str, Any]) -> None:
    """Add what all routes have: credentials, errors in one shape, and examples."""
    credentials: list[dict[str, list[str]]] = (
        [] if path in described.PUBLIC else [{"bearer": []}, {"key": []}]
    )
    operation.setdefault("security", credentials)
    responses = operation["responses"]
    # Litestar's own shape of errors is none of ours.
    for status in [each for each in responses if each.isdecimal() and int(each) >= 400]:
        del responses[status]
    responses.setdefault("default", described.PROBLEMS)
    if name == "GET /health/ready":
        responses["503"] = responses["200"]
    content = responses.get("200", {}).get("content", {})
    if name in described.RAW:
        content.clear()
        content[described.RAW[name]] = {"schema": {"type": "string"}}
    if name in described.EXAMPLES:
        for each in content.values():
            each["example"] = described.EXAMPLES[name]
            if path.startswith("/v1/ops/"):
                each["schema"] = {}  # figures, whose kinds are many
    for query in described.QUERIES.get(name, ()):
        parameter = {"name": query, "in": "query", "schema": {"type": "string"}}
        operation.setdefault("parameters", []).append(parameter)
    if name in described.BODIES and "requestBody" not in operation:
        operation["requestBody"] = {"required": True, "content": described.BODIES[name]}


def _infer(ask: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": "Answer one ask",
        "operationId": "Infer",
        "requestBody": {
            "required": True,
            "description": (
                "An Ask; or one input as it is, then the headers and the query say the rest"
            ),
            "content": {
                JSON: {
                    "schema": ask,
                    "example": {"inputs": {"text": "hello"}, "budget": {"ms": 200}},
                },
                MSGPACK: {"schema": ask},
                "text/plain": {"schema": {"type": "string"}},
                "text/csv": {"schema": {"type": "string"}},
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "audio/*": {"schema": {"type": "string", "format": "binary"}},
                "video/*": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": [
            {
                "name": "name",
                "in": "path",
                "required": True,
                "description": "the function, such as text.embed",
                "schema": {"type": "string"},
            },
            *(
                {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
                for name in ASK_HEADERS
            ),
        ],
        "responses": {
            "200": {
                "description": "the answer",
                "headers": {name: {"schema": {"type": "string"}} for name in HEADERS},
                "content": {
                    JSON: {"schema": answer, "example": described.ANSWER},
                    MSGPACK: {"schema": answer},
                    EVENTS: {"schema": {"type": "string"}},
                },
            },
            "default": described.PROBLEMS,
        },
    }


def route() -> HTTPRouteHandler:
    """Return the handler that serves the document."""

    @get(PATH, include_in_schema=False)
    async def openapi(request: AnyRequest) -> Response[dict[str, Any]]:
        return Response(document(request.app))

    return openapi
