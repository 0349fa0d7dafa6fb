"""The peers: a Litestar that reads the same body with no model, and one written by hand with it.

Both answer as much as ours do. The one with the model, where BARE_TIER names a tier, is the least
that anybody could write: it runs the session on its event loop, so that nothing else is answered
meanwhile, and has no limits, keys, plans, traces or figures.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
from litestar import Litestar, Request, Response, post

from bench.servers import NAMES, labels, work
from trivium.contract import Tier

ANSWER = os.urandom(int(os.environ.get("ANSWER_SIZE", "8000"))).hex().encode()
TIER = os.environ.get("BARE_TIER")
WORK = {name: work(Tier(TIER), name) for name in NAMES} if TIER else {}


@post("/{name:str}", status_code=200)
async def answer(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """Return a fixed answer."""
    await request.body()
    return Response(ANSWER, media_type="application/json")


@post("/by-hand/{name:str}", status_code=200)
async def by_hand(request: Request[Any, Any, Any], name: str) -> Response[bytes]:
    """Return a model's answer."""
    found = WORK[name](await request.body())
    output: Any = found[0].tolist()
    if name == "image.classify":
        best = np.argsort(-found[0])[:5]
        output = [{"label": labels()[each], "score": float(found[0][each])} for each in best]
    return Response(msgspec.json.encode({"output": output}), media_type="application/json")


app = Litestar([answer, by_hand], logging_config=None)
