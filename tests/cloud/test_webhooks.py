"""Webhooks: who is told, by what signature, how often, and who never is."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from servers import work
from trivium.errors import BadInput, NotFound
from trivium.hosts.server.task import Task
from trivium.hosts.server.valkey import Valkey
from trivium_cloud import webhooks
from trivium_cloud.settings import Settings
from working import CALLER, Site, until

MASTER = "a secret of this installation"


TASK = Task(
    task_id="0" * 32,
    status="done",
    function="text.mark",
    created="2026-01-01T00:00:00+00:00",
    deadline="2026-01-01T00:00:00+00:00",
    expires="2026-01-01T00:00:00+00:00",
)


class Hearer:
    """A server that hears webhooks, and answers with the statuses that it was given, then 204."""

    def __init__(self, *statuses: int) -> None:
        self.heard: list[tuple[dict[str, str], bytes]] = []
        self.statuses = list(statuses)
        hearer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hearer.heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(hearer.statuses.pop(0) if hearer.statuses else 204)
                self.send_header("location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?a=b"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a site in development, with one worker."""
    folder = tmp_path_factory.mktemp("site")
    with Valkey(folder / "store") as valkey:
        made = Site(folder, valkey.url, webhook_secret=MASTER, development=True)
        with made.worker():
            yield made


def verified(key: str, headers: dict[str, str], body: bytes) -> Any:
    """Check a message's signature as the scheme says it is to be done; return what it says."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    own = base64.b64decode(key.removeprefix("whsec_"))
    wanted = "v1," + base64.b64encode(hmac.new(own, signed, hashlib.sha256).digest()).decode()
    assert wanted in headers["webhook-signature"].split()
    return json.loads(body)


@pytest.mark.parametrize("ending", ["done", "failed", "cancelled", "expired"])
def test_somebody_is_told_of_each_end(site: Site, ending: str) -> None:
    """Signed with the tenant's key and the time, without the answer, until it was heard."""
    hearer = Hearer()
    begun = int(time.time())

    async def play() -> str:
        async with site.tasks() as tasks:
            seconds = 0.0 if ending == "done" else 30.0
            name = "text.none" if ending == "failed" else "text.mark"
            task = await tasks.accept(
                CALLER,
                site.ask(name, ending, seconds=seconds),
                webhook=hearer.url,
                seconds=1.0 if ending == "expired" else None,
            )
            if ending == "cancelled":
                await tasks.cancel(CALLER, task.task_id)
            await until(lambda: bool(hearer.heard), "it was told")
            await asyncio.sleep(0.5)
            return task.task_id

    task_id = work(play())
    # Once at least: two may see its end at the same time.
    headers, body = hearer.heard[0]
    assert {each["webhook-id"] for each, _ in hearer.heard} == {headers["webhook-id"]}
    # Receivers refuse what is old: somebody may be sending it again.
    assert begun <= int(headers["webhook-timestamp"]) <= time.time()
    said = verified(webhooks.secret(site.settings, CALLER.tenant), headers, body)
    assert headers["webhook-id"] == f"msg_{task_id}"
    assert said["type"] == f"task.{ending}"
    assert (said["data"]["task_id"], said["data"]["answer"]) == (task_id, None)
    assert said["timestamp"] == said["data"]["ended"]


def test_who_does_not_hear_is_told_again(site: Site) -> None:
    """With the same id; a redirect is not followed, and is not hearing."""
    hearer = Hearer(500, 307)

    async def play() -> None:
        async with site.tasks() as tasks:
            await tasks.accept(CALLER, site.ask("text.mark", "again"), webhook=hearer.url)
            await until(lambda: len(hearer.heard) == 2, "it was told again", 30)

    work(play())
    assert len({headers["webhook-id"] for headers, _ in hearer.heard}) == 1
    key = webhooks.secret(site.settings, CALLER.tenant)
    for headers, body in hearer.heard:
        verified(key, headers, body)


def test_each_tenant_has_a_key_of_its_own(site: Site) -> None:
    """Which tells neither the installation's nor another's."""
    own, other = (webhooks.secret(site.settings, tenant) for tenant in ("one", "two"))
    assert own != other
    assert own == webhooks.secret(site.settings, "one")
    assert len(base64.b64decode(own.removeprefix("whsec_"))) == 32
    with pytest.raises(NotFound, match="WEBHOOK_SECRET"):
        webhooks.secret(Settings(bundles=(), keys=()), "one")


def test_the_signature_is_the_schemes() -> None:
    """The example that the scheme's own libraries are tested with."""
    signature = webhooks.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.com/", "ftp://example.com/", "https://", "example.com", "", "https:///x"),
        *("https://user:secret@example.com/", "https://example.com/" + "x" * 2048),
        *("https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest"),
        *("https://[::1]/", "https://[fe80::1]/", "https://[::ffff:127.0.0.1]/"),
        *("https://224.0.0.1/", "https://0.0.0.0/", "https://[64:ff9b::7f00:1]/"),
        *("https://[2002:7f00:1::]/", "https://100.64.0.1/", "https://192.168.1.1:8443/"),
    ],
)
def test_where_a_webhook_may_not_go(url: str) -> None:
    """As far as its text tells."""
    settings = Settings(bundles=(), keys=(), webhook_secret=MASTER)
    if url:
        with pytest.raises(BadInput):
            webhooks.check(url, settings)
    webhooks.check("https://example.com:8443/hook?a=b", settings)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost.localdomain"])
def test_a_name_that_stands_for_an_address_of_ours_is_not_called(host: str) -> None:
    """It is looked up, looked at, and then the very address is connected to."""
    hearer = Hearer()

    async def play() -> str:
        settings = Settings(bundles=(), keys=(), webhook_secret=MASTER)
        teller = webhooks.Teller(None, settings)  # type: ignore[arg-type] # no ledger is asked
        try:
            url = f"http://{host}:{hearer.server.server_port}/"
            return await teller.send(url, "one", TASK)
        finally:
            await teller.close()

    assert work(play()) in ("no public address", "ConnectError")
    assert hearer.heard == []
