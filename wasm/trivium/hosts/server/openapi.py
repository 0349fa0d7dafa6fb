"""What does the OpenAPI document say of the endpoint that takes more than one form of body?"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Litestar, Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from ...contract import EVENTS, JSON, MSGPACK, PROBLEM, Answer, Ask, Problem, Refusal
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
    """Return what Litestar found out, with the ask, which it can't see."""
    found: dict[str, Any] = app.openapi_schema.to_schema()
    (ask, answer, problem, refusal), schemas = msgspec.json.schema_components(
        [Ask, Answer, Problem, Refusal], ref_template=_REF
    )
    components = found.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | schemas
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    found["paths"][_INFER] = {"post": _infer(ask, answer, problem, refusal)}
    return found


def _infer(
    ask: dict[str, Any], answer: dict[str, Any], problem: dict[str, Any], refusal: dict[str, Any]
) -> dict[str, Any]:
    return {
        "summary": "Answer one ask",
        "operationId": "Infer",
        "security": [{"bearer": []}],
        "requestBody": {
            "required": True,
            "description": (
                "An Ask; or one input as it is, then the headers and the query say the rest"
            ),
            "content": {
                JSON: {"schema": ask},
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
                    JSON: {"schema": answer},
                    MSGPACK: {"schema": answer},
                    EVENTS: {"schema": {"type": "string"}},
                },
            },
            "default": {
                "description": "what went wrong, and what is allowed",
                "content": {PROBLEM: {"schema": problem}, MSGPACK: {"schema": refusal}},
            },
        },
    }


def route() -> HTTPRouteHandler:
    """Return the handler that serves the document."""

    @get(PATH, include_in_schema=False)
    async def openapi(request: AnyRequest) -> Response[dict[str, Any]]:
        return Response(document(request.app))

    return openapi
