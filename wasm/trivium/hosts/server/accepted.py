"""When was the first byte of a request read from its socket?

An ask may wait for the event loop long before its handler sees it: this says in the scope since
when.
"""

from __future__ import annotations

import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .tls import Identified
from .web import ACCEPTED


class Accepted(Identified, HttpToolsProtocol):
    """Uvicorn's protocol, which also says when each request began, and who is at the other end."""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment] # a key of ours
        scope[ACCEPTED] = time.perf_counter_ns()
