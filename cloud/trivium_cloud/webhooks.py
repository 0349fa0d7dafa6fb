"""Who is told of a task's end, how does he know that it is true, and whom do we never call?

Signed by the Standard Webhooks scheme (https://www.standardwebhooks.com), once at least.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import logging
import time
from datetime import UTC, datetime, timedelta

import httpx
from docket import Docket
from msgspec.structs import replace

from trivium.contract import JSON, encode
from trivium.errors import BadInput, NotAllowed, NotFound
from trivium.hosts.server.task import Task
from trivium.nouns import Noun

from .ledger import Ledger, Place, surely
from .outside import client, public
from .queue import TELL
from .settings import Settings

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 1800.0)
"""How long after each failure it is tried again."""

TIMEOUT_S = 10.0
MOST_URL = 2048

log = logging.getLogger("trivium.webhooks")


class Notice(Noun, frozen=True, kw_only=True):
    """What is sent: the task without its answer, which is asked for by its id."""

    type: str
    timestamp: str
    data: Task


def check(url: str, settings: Settings) -> None:
    """Raise BadInput unless a webhook may be sent to `url`, as far as its text tells."""
    if not settings.webhook_secret:
        raise BadInput("there are no webhooks here: TRIVIUM_CLOUD_WEBHOOK_SECRET is not set")
    schemes = ("https", "http") if settings.development else ("https",)
    try:
        given = httpx.URL(url[: MOST_URL + 1])
    except httpx.InvalidURL as error:
        raise BadInput(f"the webhook's URL is not valid: {error}") from error
    if given.scheme not in schemes or not given.host or len(url) > MOST_URL or given.userinfo:
        raise BadInput(
            f"a webhook's URL begins with {' or '.join(schemes)}, names a host, has no password "
            f"and at most {MOST_URL} characters"
        )
    with contextlib.suppress(ValueError):  # a name is looked up when it is called
        if not settings.development and not public(given.host):
            raise BadInput(f"a webhook can't go to {given.host}, which is no public address")


def secret(settings: Settings, tenant: str) -> str:
    """Return the key that a tenant's webhooks are signed with; no other tenant can work it out."""
    if not settings.webhook_secret:
        raise NotFound("there are no webhooks here: TRIVIUM_CLOUD_WEBHOOK_SECRET is not set")
    own = hmac.digest(settings.webhook_secret.encode(), b"webhooks of " + tenant.encode(), "sha256")
    return "whsec_" + base64.b64encode(own).decode()


def sign(key: str, name: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message, for its header."""
    own = base64.b64decode(key.removeprefix("whsec_"))
    signed = b"%s.%d.%s" % (name.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.new(own, signed, hashlib.sha256).digest()).decode()


class Teller:
    """Tells of tasks' ends, and goes on until somebody has heard or it was tried often enough."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings
        # No proxy and no redirect leads it elsewhere; and no name, to an address of ours.
        own = httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._client = own if settings.development else client(TIMEOUT_S)

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def tell(self, docket: Docket, place: Place) -> None:
        """Tell of a task's end; if nobody hears, have it told again later."""
        ledger, key = self._ledger, f"{TELL}-{place.task_id}"
        try:
            task = await surely(ledger.seen, place)
            record = await surely(ledger.read, place)
        except NotFound:
            return  # too late
        if not task.final:
            after = 1.0
        else:
            tries = await surely(ledger.tried, place)
            why = await self.send(record.webhook, record.tenant, task)
            if not why:
                return
            log.warning("the webhook of task %s was not heard: %s", place.task_id, why)
            if tries > len(DELAYS_S):
                return
            after = DELAYS_S[tries - 1]
        when = datetime.now(UTC) + timedelta(seconds=after)
        await surely(docket.replace(TELL, when=when, key=key), str(place))

    async def send(self, url: str, tenant: str, task: Task) -> str:
        """Send a notice; return why it was not heard, or nothing."""
        name, now = f"msg_{task.task_id}", int(time.time())
        data = replace(task, answer=None)
        notice = Notice(type=f"task.{task.status}", timestamp=task.ended or "", data=data)
        body = encode(notice, JSON)
        headers = {
            "content-type": JSON,
            "user-agent": "Trivium-Webhooks",
            "webhook-id": name,
            "webhook-timestamp": str(now),
            "webhook-signature": sign(secret(self._settings, tenant), name, now, body),
        }
        try:
            async with asyncio.timeout(2 * TIMEOUT_S):
                # What it says does not matter.
                async with self._client.stream("POST", url, content=body, headers=headers) as sent:
                    status = sent.status_code
        except NotAllowed:
            return "no public address"
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return type(error).__name__
        return "" if 200 <= status < 300 else f"status {status}"
