"""Who asks, for whom, and what may they do?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from litestar.types import HTTPScope, WebSocketScope

from trivium.errors import NotAllowed

SCOPES = ("infer", "tasks", "uploads", "feedback", "ops", "behalf")
"""What a key or token may allow: asks, tasks, uploads, feedback on answers, operators' views, and
asking on behalf of others, as a gateway does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One who was let in; whatever is kept for a `tenant` is seen by its callers alone.

    `subject` names the person or service, `key` the API key by its public part.
    """

    tenant: str
    subject: str = ""
    key: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)

    def check(self, scope: str) -> None:
        """Raise NotAllowed unless the caller may do what `scope` stands for."""
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise NotAllowed(f"this needs the scope {scope!r}; the credentials have: {held}")


Admit = Callable[[HTTPScope | WebSocketScope], Awaitable[Caller]]
"""Returns who sends a request; raises Unauthenticated, NotAllowed or QuotaExceeded."""
