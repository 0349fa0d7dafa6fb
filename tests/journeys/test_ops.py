"""Something breaks, and whoever looks at /ops learns what, for whom and since when."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import headless
import samples
import toys
from debian import program
from trivium.contract import Tier
from trivium.hosts.server.serve import Process, _free_ports, _joined, _traced

DIST = Path("wasm/page/dist")
KEY, CLOUD_KEY, TRACES_KEY = "a-key", "a-key-for-the-cloud", "a-key-for-traces"

pytestmark = pytest.mark.browser


class System:
    """An edge and a cloud in processes of their own."""

    def __init__(self, zoo: Path, folder: Path) -> None:
        edge, cloud = _free_ports("127.0.0.1")
        self.url = f"http://localhost:{edge}"
        both = {"BUNDLES": str(zoo), "TRUST": str(toys.keys()), "KEY_FILE": str(folder / "none")}
        self.cloud = Process(
            Tier.CLOUD,
            "127.0.0.1",
            cloud,
            {
                **{f"TRIVIUM_CLOUD_{name}": value for name, value in both.items()},
                "TRIVIUM_CLOUD_KEYS": CLOUD_KEY,
                **_traced(self.url, TRACES_KEY),
            },
        )
        self.edge = Process(
            Tier.EDGE,
            "127.0.0.1",
            edge,
            {
                **{f"TRIVIUM_EDGE_{name}": value for name, value in both.items()},
                "TRIVIUM_EDGE_CLOUD_URL": f"http://127.0.0.1:{cloud}",
                "TRIVIUM_EDGE_CLOUD_KEY": CLOUD_KEY,
                "TRIVIUM_EDGE_KEYS": KEY,
                "TRIVIUM_EDGE_ORIGINS": self.url,
                "TRIVIUM_EDGE_PAGE": str(DIST),
                "TRIVIUM_EDGE_HISTORY": str(folder / "history"),
                "TRIVIUM_EDGE_TRACES_KEYS": TRACES_KEY,
            },
        )

    def ask(self, **headers: str) -> httpx.Response:
        """Ask how many words a text has."""
        return httpx.post(
            f"{self.url}/v1/infer/text.count",
            content="one two three",
            headers={
                "authorization": f"Bearer {KEY}",
                "content-type": "text/plain",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            },
            trust_env=False,
        )


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    if not (DIST / "ops").is_dir():
        pytest.skip("the page is not built: scripts/install")
    made = System(samples.zoo(tmp_path_factory.mktemp("zoo")), tmp_path_factory.mktemp("ops"))
    with contextlib.ExitStack() as stack:
        for process in (made.cloud, made.edge):
            stack.enter_context(process)
        made.cloud.wait()
        made.edge.wait()
        _joined(made.url)
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with headless.chromium() as launched:
        yield launched


def test_what_broke_is_seen(system: System, chromium: Any) -> None:
    """The cloud is killed: it is said, since when, for whom, and a click leads to the trace."""
    for _ in range(5):
        assert system.ask(trivium_tiers="cloud").status_code == 200
    page = chromium.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{system.url}/ops/")
    page.fill("#key", "a wrong one")
    page.press("#key", "Enter")
    page.wait_for_function("document.querySelector('#refused').textContent !== ''")
    page.fill("#key", KEY)
    page.press("#key", "Enter")
    page.wait_for_selector(".tiles")
    page.wait_for_function("document.querySelector('#live').dataset.live === 'yes'")
    page.wait_for_selector("text=Nothing needs a look", timeout=30_000)

    os.kill(system.cloud._process.pid, signal.SIGKILL)
    begun = time.time()
    assert system.ask(trivium_tiers="cloud").status_code == 502
    # It is live: nothing is touched until it says so.
    alert = page.wait_for_selector("text=the cloud does not answer", timeout=40_000)
    said = alert.evaluate("each => each.closest('li').textContent")
    assert "since" in said
    # For whom, and at what cost, once the ask is counted.
    page.wait_for_selector("li:has-text('the cloud does not answer'):has-text('default (1)')")
    row = page.wait_for_selector("tr:has-text('tier_unreachable')", timeout=20_000)
    first = row.query_selector("time").get_attribute("datetime")
    assert abs(time.mktime(time.strptime(first[:19], "%Y-%m-%dT%H:%M:%S")) - begun) < 60 + abs(
        time.timezone
    )
    assert page.query_selector("tr:has-text('default')"), "for whom"
    row.query_selector("a").click()
    page.wait_for_selector(".waterfall li")
    text = page.inner_text(".waterfall")
    assert "infer text.count" in text
    assert "tier_unreachable" in text
    page.click("nav >> text=State")
    page.wait_for_selector("text=does not answer")
    assert problems == []
    page.close()


def test_every_view_is_reached_by_keyboard(system: System, chromium: Any) -> None:
    """A chart's points, too, and what they lead to."""
    system.ask()
    page = chromium.new_page(color_scheme="dark")
    page.goto(f"{system.url}/ops")
    page.wait_for_selector("#key:focus")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".uplot")
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert dark == "rgb(20, 22, 26)"
    for name, what in (
        ("Roads", "What would have been"),
        ("Quality", "Is it as good as it was?"),
        ("State", "Models in memory"),
        ("Traces", "Asks whose traces are kept"),
        ("Now", "Objectives"),
    ):
        page.focus(f"nav >> text={name}")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"text={what}")
        assert page.get_attribute(f"nav >> text={name}", "aria-current") == "page"
    page.wait_for_selector(".plot .uplot")
    page.focus(".plot")
    # From the right to a point with an ask in it.
    for _ in range(90):
        page.keyboard.press("ArrowLeft")
        said = page.inner_text("figure .hidden")
        if "asks 0 /s" not in said:
            break
    page.keyboard.press("Enter")
    page.wait_for_selector(".waterfall li, .search")
    page.close()


def test_a_page_that_goes_leaves_its_spans(system: System, chromium: Any) -> None:
    """A visitor asks and leaves at once; the device is seen all the same."""
    page = chromium.new_page()
    page.goto(system.url)
    page.wait_for_function("window.trivium")
    page.evaluate("trivium.infer('text.count', {text: 'one two'}, {tiers: ['edge']})")
    page.goto("about:blank")
    headers = {"authorization": f"Bearer {KEY}"}
    end = time.monotonic() + 20
    while True:
        found = httpx.get(
            f"{system.url}/v1/ops/overview?minutes=5", headers=headers, trust_env=False
        ).json()
        if found["devices"]:
            break
        assert time.monotonic() < end, found["roads"]
        time.sleep(0.3)
    page.close()
    assert found["devices"][0]["who"] == "Chrome on Linux"
    assert found["devices"][0]["refused"] == 0
    assert {"page"} <= {row["began"] for row in found["roads"]}


def test_a_real_prometheus_reads_what_is_counted(system: System, tmp_path: Path) -> None:
    """Debian's own scrapes the gateway; the document's query for the error rate gives a figure."""
    prometheus = program("prometheus", "prometheus")
    host, _, port = system.url.removeprefix("http://").partition(":")
    (free, _) = _free_ports("127.0.0.1")
    (tmp_path / "key").write_text(KEY)
    shutil.copy("edge/deploy/prometheus/rules.yml", tmp_path)
    (tmp_path / "prometheus.yml").write_text(
        f"""
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
scrape_configs:
  - job_name: trivium-edge
    authorization: {{ credentials_file: {tmp_path / "key"} }}
    static_configs: [{{ targets: ["{host}:{port}"] }}]
"""
    )
    command = [
        str(prometheus),
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{free}",
        "--enable-feature=exemplar-storage",
        "--log.level=error",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:

        def query(path: str, **params: str) -> Any:
            url = f"http://127.0.0.1:{free}/api/v1/{path}"
            # It says so in plain text while it starts.
            with contextlib.suppress(httpx.HTTPError, ValueError):
                return httpx.get(url, params=params, trust_env=False).json()["data"]
            return None

        error_rate = (
            'sum(rate(api_requests_total{status="5xx"}[5m])) by (method)'
            " / sum(rate(api_requests_total[5m])) by (method) * 100"
        )
        end = time.monotonic() + 60
        while True:
            system.ask(trivium_tiers="edge")
            # No road is in time: 504.
            system.ask(trivium_tiers="edge", trivium_ms="0.0001")
            found = query("query", query=error_rate)
            rates = {
                row["metric"]["method"]: float(row["value"][1])
                for row in (found or {"result": []})["result"]
            }
            recorded = query("query", query="function:trivium_asks:rate5m") or {"result": []}
            now = time.time()
            exemplars = query(
                "query_exemplars",
                query="trivium_ask_seconds_bucket",
                start=str(now - 300),
                end=str(now),
            )
            if 0 < rates.get("POST", -1) < 100 and recorded["result"] and exemplars:
                break
            assert time.monotonic() < end, (found, recorded, exemplars)
            time.sleep(1)
        assert len(exemplars[0]["exemplars"][0]["labels"]["trace_id"]) == 32
        assert query("targets")["activeTargets"][0]["health"] == "up"
    finally:
        process.terminate()
        process.wait(20)
