"""Who asks, for whom, what may they do, and how much?"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import quote, unquote

import msgspec
from litestar.types import Scope
from msgspec.structs import asdict

from ...errors import NotAllowed, Unauthenticated

SCOPES = ("infer", "tasks", "uploads", "feedback", "ops", "behalf")
"""What a key or token may allow: asks, tasks, uploads, feedback on answers, operators' views, and
asking on behalf of others, as a gateway does."""

USUAL = frozenset({"infer", "tasks", "uploads", "feedback"})
"""What callers may do where nobody said otherwise: neither an operator's work nor a gateway's."""

TENANT = "default"
"""Whose the callers are that no file, token or certificate gives a tenant."""

MOST_SUBJECT = 200
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a tenant or key may do; 0 is without a limit.

    `minute` asks in 60 s, `day` asks and `bytes` of requests in a day (UTC), `tasks` at once,
    which have `held` bytes.
    """

    minute: int = 0
    day: int = 0
    bytes: int = 0
    tasks: int = 0
    held: int = 0

    @classmethod
    def read(cls, text: str) -> Limits:
        """Read such as `minute=600,day=100000,tasks=20`; raise ValueError for others."""
        found: dict[str, int] = {}
        for pair in filter(None, (each.strip() for each in text.split(","))):
            name, _, value = pair.partition("=")
            if name.strip() not in cls.__struct_fields__ or not value.strip().isdecimal():
                known = ", ".join(f"{each}=NUMBER" for each in cls.__struct_fields__)
                raise ValueError(f"{pair[:60]!r} is no limit; a list of these is: {known}")
            found[name.strip()] = int(value)
        return cls(**found)

    def __bool__(self) -> bool:
        return self != _NO_LIMITS

    def __str__(self) -> str:
        return ",".join(f"{name}={value}" for name, value in asdict(self).items() if value)


_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One who was let in; whatever is kept for a `tenant` is seen by its callers alone.

    `subject` names the person or service, `key` the API key by its public part. `limits` are
    those of the key itself, and `masked` says that results are masked for this caller.
    """

    tenant: str
    subject: str = ""
    key: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)
    limits: Limits = _NO_LIMITS
    masked: bool = False

    def check(self, scope: str) -> None:
        """Raise NotAllowed unless the caller may do what `scope` stands for."""
        if scope not in self.scopes:
            held = ", ".join(sorted(self.scopes)) or "none"
            raise NotAllowed(f"this needs the scope {scope!r}; the credentials have: {held}")


Admit = Callable[[Scope], Awaitable[Caller]]
"""Returns who sends a request; raises Unauthenticated, NotAllowed or QuotaExceeded."""

asking: ContextVar[Caller | None] = ContextVar("asking", default=None)
"""For whom this tier is answering: the next hop is told."""

HEADERS = ("trivium-tenant", "trivium-subject", "trivium-key", "trivium-scopes", "trivium-mask")
"""The headers in which a gateway says for whom it asks."""


def named(tenant: str) -> str:
    """Return the tenant's name if it can be one; raise Unauthenticated if it can't."""
    if not _NAME.fullmatch(tenant):
        raise Unauthenticated(
            f"{tenant[:64]!r} is no tenant; one has at most 64 letters, digits, '.', '_' and '-'"
        )
    return tenant


def told(caller: Caller) -> str:
    """Return how a caller is called where operators look: visitors of one page alike."""
    tenant = caller.tenant
    if tenant.startswith("page-"):
        tenant = "-".join(tenant.split("-")[:2])
    return f"{tenant or TENANT} {caller.key}".rstrip()


def behalf(caller: Caller) -> dict[str, str]:
    """Return the headers by which a gateway asks on behalf of `caller`."""
    headers = {
        "trivium-tenant": caller.tenant,
        "trivium-scopes": " ".join(sorted(caller.scopes - {"behalf"})),
    }
    if caller.subject:
        headers["trivium-subject"] = quote(caller.subject, safe="")
    if caller.key:
        headers["trivium-key"] = caller.key
    if caller.masked:
        headers["trivium-mask"] = "results"
    return headers


def spoken_for(gateway: Caller, said: dict[str, str]) -> Caller:
    """Return for whom a gateway asks, by those headers; raise NotAllowed if it is no gateway.

    Those without a key, such as a page's visitors, share the limits of the gateway's.
    """
    if "behalf" not in gateway.scopes:
        raise NotAllowed(
            "only a key with the scope 'behalf' may say for whom it asks "
            f"({', '.join(each for each in HEADERS if each in said)})"
        )
    scopes = frozenset(said["trivium-scopes"].split()) if "trivium-scopes" in said else USUAL
    return Caller(
        tenant=named(said.get("trivium-tenant", "")),
        subject=unquote(said.get("trivium-subject", ""))[:MOST_SUBJECT],
        key=named(said["trivium-key"]) if said.get("trivium-key") else gateway.key,
        limits=Limits() if said.get("trivium-key") else gateway.limits,
        # It can't give what it does not have, nor make another gateway.
        scopes=scopes & gateway.scopes - {"behalf"},
        masked=gateway.masked or said.get("trivium-mask") == "results",
    )
