"""The peer: a Litestar that reads the same body and answers as much, with no model."""

from __future__ import annotations

import os
from typing import Any

from litestar import Litestar, Request, Response, post

ANSWER = os.urandom(int(os.environ.get("ANSWER_SIZE", "8000"))).hex().encode()


@post("/{name:str}", status_code=200)
async def answer(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """Return a fixed answer."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


app = Litestar([answer], logging_config=None)
