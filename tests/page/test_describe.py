"""Is a video described in the page as at the edge, by the functions that it asks there?"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from page.gateway import ROOT, Gateway
from page.opened import WATCH, Opened
from trivium.contract import Ask, Blob, Tier
from trivium.engine import Engine
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.host import ServerHost

pytestmark = pytest.mark.browser

ZOO = ROOT / "models/zoo"
ASKED = (
    "audio.activity",
    "image.classify",
    "image.describe",
    "image.detect",
    "image.embed",
    "video.describe",
)


@pytest.fixture(scope="module")
def opened(headless: Any) -> Iterator[Opened]:
    """Return a page with the function, and with those that it asks."""
    bundles: dict[str, Mapping[str, bytes]] = {}
    for name in ASKED:
        if not (ZOO / name / "manifest.json").is_file():
            pytest.skip(f"{name} is not built: scripts/install")
        bundles[name] = {path.name: path.read_bytes() for path in (ZOO / name).iterdir()}
    served = Gateway(bundles)
    page = headless.new_page()
    yield Opened(page, served).ready(*ASKED)
    page.close()
    served.close()


def there(blob: Blob, **options: Any) -> Any:
    """Return what the edge answers."""

    async def ask() -> Any:
        host = ServerHost()
        engine = Engine(Tier.EDGE, host)
        for name in ASKED:
            bundle = Bundle(ZOO / name)
            function = bundle.function(Tier.EDGE)
            assert function is not None
            host.know(function, bundle)
            engine.add(function)
        given = Ask(function="video.describe", inputs={"video": blob}, options=options)
        return msgspec.to_builtins((await engine.infer(given)).output)

    # Playwright's own loop runs in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, ask()).result()


def test_the_page_sees_and_hears_what_the_edge_does(opened: Opened) -> None:
    """The same frames, sentences and times; the main thread never stands still for long."""
    blob = Blob(media="video/webm", data=(ZOO / "video.describe/sample.webm").read_bytes())
    data = {"media": blob.media, "data": base64.b64encode(blob.data).decode()}
    assert "longtask" in WATCH
    opened.run("window.long = []")
    answer = opened.ask("video.describe", video=data, options={"frames": 6}, tiers=["page"])
    assert "output" in answer, answer
    assert answer["tier"] == "page"
    found, wanted = answer["output"], there(blob, frames=6)
    assert found["frames"] == wanted["frames"] == 6
    assert found["seconds"] == wanted["seconds"]
    assert len(found["timeline"]) == len(wanted["timeline"]) >= 5
    for here, other in zip(found["timeline"], wanted["timeline"], strict=True):
        assert here["start"] == pytest.approx(other["start"], abs=0.04)
        assert (here["seen"], here["said"]) == (other["seen"], other["said"])
    assert "only when somebody speaks" in found["speech"]
    assert {each["said"] for each in found["timeline"]} == {"", "(somebody speaks)"}
    assert max(opened.run("return window.long"), default=0) < 200
