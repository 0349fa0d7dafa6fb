"""What does the OpenAPI document say of the unified API, and what are its routes' examples?

Cloud and gateway tell the same, and most of it is read by hand from what may be sent.
"""

from __future__ import annotations

from typing import Any

from ...contract import EVENTS, JSON, MSGPACK, PROBLEM
from ...kinds import KINDS
from ...nouns import Noun
from .task import TICKET

MULTIMODAL = "/v1/multimodal"
FORM = "multipart/form-data"
OFFSET = "application/offset+octet-stream"
_ID = "0f9c2e6b7a1d4c3e8b5a6f7d8e9c0a1b"
_DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_STRING = {"type": "string"}
_OBJECT = {"type": "object"}
_TUS = {"type": "string", "enum": ["1.0.0"]}


class Accepted(Noun, frozen=True, kw_only=True):
    """A task that was taken on; at its address is how far it is."""

    task_id: str
    status: str


PROBLEMS = {
    "description": "what went wrong, and what is allowed",
    "content": {
        PROBLEM: {
            "schema": {"$ref": "#/components/schemas/Problem"},
            "example": {
                "kind": "fault",
                "type": "urn:trivium:error:bad_input",
                "title": "An input or option is not what the function takes",
                "status": 400,
                "detail": "top is 0; it must be an integer of at least 1",
                "code": "bad_input",
            },
        },
        MSGPACK: {"schema": {"$ref": "#/components/schemas/Refusal"}},
    },
}

ANSWER = {
    "kind": "answer",
    "function": "image.classify",
    "version": "1.0.0+3fa97c21",
    "output": [{"label": "espresso", "score": 0.87}],
    "tier": "cloud",
    "model": "efficientnet-lite0",
    "plan": {"tiers": ["cloud"], "reason": "cloud takes 12 ms"},
    "ms": {"decode": 3.1, "python": 0.4, "run": 8.2},
    "trace": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "expected": [8.0, 12.0, 20.0],
    "took": 11.9,
    "spent": 1.0,
}
TASK = {
    "task_id": _ID,
    "status": "done",
    "function": "image.classify",
    "created": "2026-11-23T05:00:00.000Z",
    "deadline": "2026-11-23T05:10:00.000Z",
    "expires": "2026-11-23T06:00:01.200Z",
    "started": "2026-11-23T05:00:00.010Z",
    "ended": "2026-11-23T05:00:01.200Z",
    "runs": 1,
    "steps": [],
    "answer": ANSWER,
}
_ACCEPTED = {"task_id": _ID, "status": "pending"}

_PART: dict[str, Any] = {
    "type": "object",
    "description": "one of data, text, upload and url",
    "additionalProperties": False,
    "properties": {
        "kind": {"type": "string", "enum": list(KINDS)},
        "name": {"type": "string", "description": "the function's input that it is for"},
        "media": {"type": "string", "description": "its media type"},
        "data": {"type": "string", "description": "base64, or a data URL; bytes in MessagePack"},
        "text": _STRING,
        "upload": {"type": "string", "description": "the id of an upload"},
        "url": {"type": "string", "description": "where the cloud fetches it, if it may"},
    },
}
_ONE: dict[str, Any] = {
    "anyOf": [
        _STRING,
        {
            **_PART,
            "properties": {k: v for k, v in _PART["properties"].items() if k != "kind"},
        },
    ]
}
REQUEST: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{
            name: {"anyOf": [*_ONE["anyOf"], {"type": "array", "items": _ONE, "maxItems": 64}]}
            for kind in KINDS
            for name in dict.fromkeys((kind, kind if kind == "series" else f"{kind}s"))
        },
        "parts": {"type": "array", "items": _PART, "maxItems": 64},
        "function": {"type": "string", "description": "none: the cloud's for such parts"},
        "version": _STRING,
        "options": {"type": "object"},
        "budget": {"$ref": "#/components/schemas/Budget"},
        "timeout": {
            "type": "number",
            "description": "seconds: 5 unless said; the deadline of a task",
            "exclusiveMinimum": 0,
            "maximum": 600,
        },
        "async": {"type": "boolean", "default": False},
        "allow_async": {"type": "boolean", "default": False},
        "webhook": _STRING,
    },
}
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "function": _STRING,
        "options": {"type": "string", "description": "a JSON object"},
        "timeout": {"type": "string"},
        "image": {"type": "string", "format": "binary"},
        "text": _STRING,
    },
}
_PIXEL = "R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"


def header(name: str, schema: dict[str, Any] | None = None, required: bool = False) -> Any:
    """Return the description of a request's header."""
    return {"name": name, "in": "header", "required": required, "schema": schema or _STRING}


def _operation(summary: str, name: str, *parameters: Any, **more: Any) -> dict[str, Any]:
    responses = {**more.pop("responses", {}), "default": PROBLEMS}
    found = {"summary": summary, "operationId": name, "responses": responses, **more}
    return {**found, "parameters": list(parameters)} if parameters else found


def _json(ref: str, description: str, example: Any) -> dict[str, Any]:
    return _plain(description, example, {"$ref": f"#/components/schemas/{ref}"})


def _plain(description: str, example: Any, schema: dict[str, str] = _OBJECT) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": schema, "example": example}}}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"schema": _STRING} for name in names}


def multimodal() -> dict[str, Any]:
    """Return the path item of `/v1/multimodal`."""
    examples = {
        "a picture and a text": {"value": {"image": _PIXEL, "text": "a cat"}},
        "a task": {"value": {"text": "a task", "function": "text.embed", "async": True}},
        "parts by name": {
            "value": {
                "function": "match.image_text",
                "parts": [
                    {"name": "image", "media": "image/gif", "data": _PIXEL},
                    {"name": "text", "text": "a cat"},
                ],
            }
        },
    }
    answer = {"schema": {"$ref": "#/components/schemas/Answer"}}
    accepted = {
        **_json("Accepted", "it goes on as this task", _ACCEPTED),
        "headers": _headers("location"),
    }
    accepted["content"][MSGPACK] = {"schema": {"$ref": "#/components/schemas/Accepted"}}
    return {
        "post": _operation(
            "Answer one request of any parts, at once or as a task",
            "Multimodal",
            header("idempotency-key", {"type": "string", "maxLength": 255, "pattern": "^[ -~]*$"}),
            header("cache-control"),
            requestBody={
                "required": True,
                "content": {
                    JSON: {"schema": REQUEST, "examples": examples},
                    FORM: {"schema": _FORM},
                    MSGPACK: {"schema": REQUEST},
                },
            },
            responses={
                "200": {
                    "description": "the answer",
                    "content": {
                        JSON: {**answer, "example": ANSWER},
                        MSGPACK: answer,
                        EVENTS: {"schema": _STRING},
                    },
                },
                "202": accepted,
            },
        )
    }


def uploads() -> dict[str, Any]:
    """Return the path items of tus."""
    tus = header("tus-resumable", _TUS, required=True)
    digest = header("upload-checksum")
    body = {"content": {OFFSET: {"schema": {"type": "string", "format": "binary"}}}}
    name = {
        "name": "upload",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": _ID,
    }
    number = {"type": "integer", "minimum": 0}

    def said(description: str, *names: str) -> dict[str, Any]:
        return {"description": description, "headers": _headers("tus-resumable", *names)}

    return {
        "/v1/uploads": {
            "options": {
                **_operation("What this server knows of tus", "UploadOptions"),
                "security": [],
                "responses": {"204": said("versions, extensions and limits", "tus-version")},
            },
            "post": _operation(
                "Begin an upload, perhaps with its first bytes",
                "UploadBegin",
                tus,
                header("upload-length", number, required=True),
                header("upload-metadata"),
                digest,
                requestBody=body,
                responses={"201": said("it has this address", "location", "upload-offset")},
            ),
        },
        "/v1/uploads/{upload}": {
            "head": _operation(
                "How far an upload is",
                "UploadLook",
                name,
                tus,
                responses={"200": said("so far", "upload-offset", "upload-length")},
            ),
            "patch": _operation(
                "Send more of an upload",
                "UploadMore",
                name,
                tus,
                header("upload-offset", number, required=True),
                digest,
                requestBody={**body, "required": True},
                responses={"204": said("it is so far now", "upload-offset")},
            ),
            "delete": _operation(
                "Let an upload go", "UploadEnd", name, tus, responses={"204": said("it is gone")}
            ),
        },
    }


def tasks() -> dict[str, Any]:
    """Return the path items of tasks."""
    name = {
        "name": "task_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "example": _ID,
    }

    def query(word: str, schema: dict[str, Any]) -> dict[str, Any]:
        return {"name": word, "in": "query", "required": False, "schema": schema}

    one = {"200": _json("Task", "the task as it is", TASK)}
    listing = {"tasks": [{**TASK, "answer": None}], "next": None}
    ticket = {"protocol": TICKET + _ID, "seconds": 30}
    secret = {"secret": "whsec_…"}
    return {
        "/v1/tasks": {
            "get": _operation(
                "Your tasks, newest first, without their answers",
                "TaskList",
                query("after", {"type": "string", "pattern": "^([0-9a-f]{32})?$"}),
                query("most", {"type": "integer", "minimum": 1, "maximum": 200}),
                responses={"200": _plain("some of them, and after which one to go on", listing)},
            )
        },
        "/v1/tasks/{task_id}": {
            "get": _operation(
                "A task as it stands, with its steps and its answer",
                "TaskGet",
                name,
                query("wait", {"type": "number", "minimum": 0, "maximum": 60}),
                responses=one,
            ),
            "delete": _operation(
                "Cancel a task; what is done for it stops", "TaskCancel", name, responses=one
            ),
        },
        "/v1/tasks/{task_id}/events": {
            "get": _operation(
                "What happens to a task, as it happens",
                "TaskEvents",
                name,
                header("last-event-id"),
                responses={
                    "200": {
                        "description": "server-sent events: state, step, part, error",
                        "content": {EVENTS: {"schema": _STRING}},
                    },
                    "204": {"description": "all was told before"},
                },
            )
        },
        "/v1/tasks/{task_id}/ticket": {
            "post": _operation(
                "Let a page hear of a task by a WebSocket, at …/ws",
                "TaskTicket",
                name,
                responses={"201": _plain("a protocol to offer, once, for so many seconds", ticket)},
            )
        },
        "/v1/webhooks/secret": {
            "get": _operation(
                "What your webhooks are signed with",
                "WebhookSecret",
                responses={"200": _plain("the secret, by the Standard Webhooks scheme", secret)},
            )
        },
    }


_ROAD = {
    "tier": "cloud",
    "version": "1.0.0+3fa97c21",
    "model": "efficientnet-lite0",
    "quality": 1.0,
    "ms": [8.0, 12.0, 20.0],
}
_SPAN = {
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
    "parent_id": "",
    "name": "infer text.embed",
    "service": "page",
    "start_ns": 1763874000000000000,
    "end_ns": 1763874000012000000,
    "attributes": {},
}

EXAMPLES: dict[str, Any] = {
    "GET /v1/roads": {"image.classify": [_ROAD]},
    "GET /health/live": {"status": "live", "tier": "edge"},
    "GET /health/ready": {"status": "ready", "functions": {"text.embed": "loaded"}, "devices": {}},
    "POST /v1/token": {"token": "eyJhbGciOi…", "expires_in": 600},
    "GET /v1/bundles": [{"name": "text.embed", "version": "1.0.0+3fa97c21", "digest": _DIGEST}],
    "GET /v1/keys": [{"id": _DIGEST, "pem": "-----BEGIN PUBLIC KEY-----\n…"}],
    "GET /metrics": 'trivium_asks_total{function="text.embed",tier="edge"} 12\n',
    "POST /v1/feedback": {"function": "text.embed", "tier": "edge"},
    "GET /v1/ops/overview": {"asks": []},
    "GET /v1/ops/state": {"tiers": []},
    "GET /v1/ops/resources": {"at": [1763874000, 1763874010], "figures": {}},
    "GET /v1/ops/traces": [],
    "GET /v1/ops/traces/{trace}": [_SPAN],
    "GET /v1/ops/live": "event: tick\ndata: {}\n\n",
}
"""What the other routes answer, for people to see."""

RAW = {
    "GET /metrics": "text/plain",
    "GET /v1/ops/live": EVENTS,
    "POST /v1/traces": "application/x-protobuf",
}
"""What is answered with no JSON."""

_BINARY = {"type": "string", "format": "binary"}

BODIES: dict[str, Any] = {
    "POST /v1/spans": {JSON: {"schema": {"type": "array"}, "example": [_SPAN]}},
    "POST /v1/feedback": {
        JSON: {
            "schema": {"type": "object"},
            "example": {"trace": "0af7651916cd43dd8448eb211c80319c", "good": True},
        }
    },
    "POST /v1/traces": {"application/x-protobuf": {"schema": _BINARY}},
}
"""What the other routes take, where they take a body."""

_TIMES = ("from", "to", "minutes")
QUERIES: dict[str, tuple[str, ...]] = {
    "GET /v1/ops/overview": (*_TIMES, "function", "tier", "began"),
    "GET /v1/ops/resources": _TIMES,
    "GET /v1/ops/traces": (
        *_TIMES,
        *("function", "began", "tier", "caller", "device", "kept", "error", "trace"),
        *("least_ms", "most_ms", "failed", "late", "order", "most"),
    ),
}
"""What operators may ask for; the times are seconds since 1970."""

PUBLIC = ("/health/live", "/health/ready", "/v1/token", "/v1/bundles", "/v1/keys")
"""Paths that need no credentials."""
