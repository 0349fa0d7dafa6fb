"""The one command, as its users run it: real processes, a real browser, and what may go wrong."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

import headless
import stores
import videos
from trivium.contract import Ask, Blob, Tier
from trivium.engine import Engine
from trivium.hosts.server.bundles import Bundle
from trivium.hosts.server.host import ServerHost
from trivium.kinds import KINDS

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "models/functions/image.classify/coffee.jpg"
README = (ROOT / "README.md").read_text()

ASK = """async ([name, inputs, settings]) => {
  const given = {};
  for (const [key, value] of Object.entries(inputs)) {
    given[key] = value.data === undefined ? value : new Blob([new Uint8Array(value.data)], value);
  }
  try { return await trivium.infer(name, given, settings); }
  catch (error) { return { code: error.code, message: error.message, where: error.where }; }
}"""


def shout(folder: Path) -> Path:
    """Write the README's function into a folder outside our tree, exactly as it stands there."""
    home = folder / "shout"
    home.mkdir()
    for name in ("function.py", "recipe.toml"):
        match = re.search(rf"`shout/{re.escape(name)}`:\n\n```\w+\n(.*?)```", README, re.DOTALL)
        assert match is not None, name
        (home / name).write_text(match[1])
    return home


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what `condition` gives once it gives something."""
    for _ in range(600):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"this did not happen: {what}")


class Collector:
    """An OTLP/HTTP collector that keeps the spans it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                sent = ExportTraceServiceRequest.FromString(body)
                for group in sent.resource_spans:
                    names = {
                        each.key: each.value.string_value for each in group.resource.attributes
                    }
                    for scope in group.scope_spans:
                        collector.spans += [(names["service.name"], span) for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def traces(self) -> dict[str, set[str]]:
        """Return the services of each trace."""
        found: dict[str, set[str]] = {}
        for service, span in list(self.spans):
            found.setdefault(span.trace_id.hex(), set()).add(service)
        return found


class Serve:
    """A running `trivium serve`."""

    def __init__(self, *arguments: str, **environ: str) -> None:
        self.port, self.cloud_port = stores.port(), stores.port()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "trivium.hosts.server.command", "serve"),
                *("--port", str(self.port), "--cloud-port", str(self.cloud_port), *arguments),
            ],
            cwd=ROOT,
            env={**os.environ, **environ},
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()
        until(lambda: self.said("API key") or self.process.poll() is not None, "ready, its key")
        assert self.process.poll() is None, self.lines
        self.url = f"http://localhost:{self.port}"
        self.key = next(line.split()[2] for line in self.lines if "API key" in line)

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def children(self) -> dict[str, int]:
        """Return the process numbers of edge and cloud."""
        found: dict[str, int] = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                command = (path / "cmdline").read_text().split("\0")
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == self.process.pid:
                found |= {
                    each: int(path.name)
                    for each in ("edge", "cloud")
                    if command[2:4] == ["trivium.hosts.server.listen", each]
                }
        return found

    def ask(self, name: str, text: str, **headers: str) -> httpx.Response:
        return httpx.post(
            f"{self.url}/v1/infer/{name}",
            content=text,
            headers={
                "authorization": f"Bearer {self.key}",
                "content-type": "text/plain",
                **{f"trivium-{key}": value for key, value in headers.items()},
            },
            timeout=60,
        )

    def answers(self, output: str, tier: str) -> bool:
        """Return whether `tier` shouts like this."""
        return bool(self.ask("text.shout", "Hi", tiers=tier).json().get("output") == output)

    def fails(self, tier: str) -> Any:
        """Return the error of `tier`, if it gives one; not that of a bundle just being written."""
        said = self.ask("text.shout", "Hi", tiers=tier).json()
        return said if said["kind"] == "fault" and said["code"] != "bad_bundle" else None

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Return a headless Chromium."""
    with headless.chromium() as launched:
        yield launched


class Tab:
    """The playground, open in a browser."""

    def __init__(self, chromium: Any, serve: Serve) -> None:
        self.page = chromium.new_page()
        self.page.set_default_timeout(60_000)
        self.page.goto(serve.url)
        self.page.wait_for_function("() => window.trivium")
        self.page.evaluate("() => window.trivium.ready")

    def ready(self, name: str) -> None:
        self.page.wait_for_function(
            "(name) => trivium.state.functions[name]?.state === 'ready'", arg=name
        )

    def ask(self, name: str, inputs: dict[str, Any], **settings: Any) -> Any:
        return self.page.evaluate(ASK, [name, inputs, settings])


def numbers(answer: Any) -> list[float]:
    """Return an answer's scores, or its vector."""
    return [each["score"] if isinstance(each, dict) else each for each in answer["output"]]


def native(name: str, **inputs: str | Blob) -> list[float]:
    """Return what a function's page variant answers on this machine's own onnxruntime."""
    host, bundle = ServerHost(), Bundle(ROOT / "models/zoo" / name)
    function = bundle.function(Tier.PAGE)
    assert function is not None
    host.know(function, bundle)
    engine = Engine(Tier.PAGE, host)
    engine.add(function)
    with ThreadPoolExecutor() as aside:  # the browser's driver has a loop in this thread
        ask = engine.infer(Ask(function=name, inputs=inputs))
        output: list[float] = aside.submit(asyncio.run, ask).result().output
    host.close()
    return output


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return shout(tmp_path)


def test_a_users_function_answers_on_both_servers_and_stops_cleanly(mine: Path) -> None:
    """Built from its own folder; SIGTERM leaves no process behind."""
    serve = Serve("--functions", str(mine))
    # It was asked on both, and no other needed to be; the third is a task.
    assert serve.said("ready: 3 asks answered by edge and cloud")
    children = serve.children()
    assert set(children) == {"edge", "cloud"}
    for tier in ("edge", "cloud"):
        answer = serve.ask("text.shout?marks=3", "hello", tiers=tier).json()
        assert (answer["output"], answer["tier"]) == ("HELLO!!!", tier)
    assert serve.stop() == 0
    assert not any(Path(f"/proc/{number}").exists() for number in children.values())


def test_the_servers_die_with_the_command(mine: Path) -> None:
    """Even if it is killed without a word."""
    serve = Serve("--functions", str(mine))
    children = serve.children()
    serve.process.kill()
    serve.process.wait()
    until(
        lambda: not any(Path(f"/proc/{number}").exists() for number in children.values()),
        "the servers ended",
    )


def test_a_killed_cloud_leaves_the_edge(mine: Path) -> None:
    """What the edge can't do alone it says plainly."""
    serve = Serve("--functions", str(mine))
    try:
        os.kill(serve.children()["cloud"], signal.SIGKILL)
        until(lambda: serve.said("the cloud ended"), "the end of the cloud was told")
        assert serve.ask("text.shout", "x").json()["tier"] == "edge"
        refused = serve.ask("text.embed", "x", quality="1")
        assert refused.status_code in (502, 504)
        assert refused.json()["code"] in ("tier_unreachable", "over_budget")
    finally:
        serve.stop()


def test_a_taken_port_is_said() -> None:
    """With the flag that chooses another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "trivium.hosts.server.command", "serve", "--port", port]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} on 127.0.0.1 can't be used" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.browser
def test_check_asks_every_function_on_every_tier(mine: Path, tmp_path: Path, chromium: Any) -> None:
    """The README's walk: functions of one's own, of every kind, in page, edge and cloud."""
    model = ROOT / "models/zoo/image.classify/model.int8.onnx"
    begun = tmp_path / "begun"
    for name in ("see", *KINDS):
        new = ["new", f"a_{name}", "--modality", name, "--into", str(begun)]
        if name == "see":
            new[3:] = ["image", "--model", str(model), "--into", str(begun)]
        trivium = [sys.executable, "-m", "trivium.hosts.server.command"]
        subprocess.run([*trivium, *new], check=True)
    command = [sys.executable, "-m", "trivium.hosts.server.command", "serve", "--check", "--json"]
    done = subprocess.run(
        [*command, "--functions", str(mine), "--functions", str(begun)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(row) == {"function", "tier", "model", "output", "ms", "ok"} for row in rows)
    assert all(row["ok"] for row in rows)
    own = ["text.shout", "image.a_see", *(f"{kind}.a_{kind}" for kind in KINDS)]
    for name in ("text.embed", "image.classify", *own):
        assert {row["tier"] for row in rows if row["function"] == name} == {"page", "edge", "cloud"}


@pytest.mark.browser
def test_the_page_outlives_cloud_and_edge(mine: Path, chromium: Any) -> None:
    """One trace joins all tiers; then the servers die one after the other."""
    collector = Collector()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    serve = Serve("--functions", str(mine), **environ)
    try:
        tab = Tab(chromium, serve)
        for name in ("text.embed", "image.classify", "text.shout"):
            tab.ready(name)
        photo = {"image": {"data": list(PHOTO.read_bytes()), "type": "image/jpeg"}}
        for tier in ("page", "edge", "cloud"):
            answer = tab.ask("image.classify", photo, tiers=[tier])
            assert (answer["output"][0]["label"], answer["tier"]) == ("espresso", tier)
            answer = tab.ask("text.shout", {"text": "a"}, tiers=[tier])
            assert (answer["output"], answer["tier"]) == ("A!", tier)
        texts = ("A man is eating food.", "größer als 大きい", "x" * 150, "?!")
        here, there = (
            numbers(tab.ask("image.classify", photo, tiers=[t])) for t in ("page", "edge")
        )
        assert max(abs(a - b) for a, b in zip(here, there, strict=True)) < 1e-4
        for text in texts:
            # A smaller model than the edge's, so beside itself on this machine.
            here = numbers(tab.ask("text.embed", {"text": text}, tiers=["page"]))
            there = native("text.embed", text=text)
            assert max(abs(a - b) for a, b in zip(here, there, strict=True)) < 1e-4
        assert tab.ask("text.embed", {"text": "a"})["tier"] == "page"
        assert tab.ask("text.embed", {"text": "a"}, budget={"quality": 1})["tier"] == "cloud"
        every = {"trivium-page", "trivium-edge", "trivium-cloud"}
        until(lambda: every in collector.traces().values(), "one trace has spans of all tiers")

        os.kill(serve.children()["cloud"], signal.SIGKILL)
        refused = tab.ask("text.embed", {"text": "a"}, budget={"quality": 1})
        assert refused["code"] in ("tier_unreachable", "over_budget")
        assert tab.ask("text.embed", {"text": "a"}, tiers=["cloud", "edge"])["tier"] == "edge"

        os.kill(serve.children()["edge"], signal.SIGKILL)
        assert tab.ask("image.classify", photo)["output"][0]["label"] == "espresso"
        assert tab.ask("text.embed", {"text": "b"})["tier"] == "page"
        refused = tab.ask("text.embed", {"text": "a"}, tiers=["edge"])
        assert refused["code"] == "tier_unreachable"
    finally:
        serve.stop()
        collector.server.shutdown()


Reloading = tuple[Serve, Path]


@pytest.fixture(scope="module")
def reloading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloading]:
    """Return servers that follow what is saved, and the function's folder.

    Only one command can run here at a time, so that its tests are this file's last.
    """
    mine = shout(tmp_path_factory.mktemp("mine"))
    serve = Serve("--functions", str(mine), "--reload")
    try:
        yield serve, mine
    finally:
        serve.stop()


def test_the_readmes_requests_of_any_parts_are_answered(
    reloading: Reloading, tmp_path: Path
) -> None:
    """Word for word, one after the other, through the gateway."""
    serve, _ = reloading
    section = README.partition("### One request of any parts")[2].partition("From Python")[0]
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    (tmp_path / "clip.mp4").write_bytes(videos.film("video/mp4").data)
    script = 'curl() { command curl --fail-with-body -sS --max-time 90 "$@"; echo; }\n'
    script += "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    said = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("8080", str(serve.port))],
        cwd=tmp_path,
        env={**os.environ, "KEY": serve.key},
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.count('"kind":"answer"') >= 4
    assert '"status":"done"' in said.stdout
    assert "event: state" in said.stdout


def test_saving_a_function_changes_all_servers_and_failures_show_their_line(
    reloading: Reloading,
) -> None:
    """A developer sees the own line, on whichever tier it was."""
    serve, mine = reloading
    source = (mine / "function.py").read_text()
    (mine / "function.py").write_text(source.replace("text.upper()", "text.lower()"))
    for tier in ("edge", "cloud"):
        until(partial(serve.answers, "hi!", tier), f"the {tier} follows")
    (mine / "function.py").write_text(source.replace("text.upper()", "text.missing()"))
    for tier in ("edge", "cloud"):
        error = until(partial(serve.fails, tier), f"the {tier} fails")
        assert error["code"] == "run_failed"
        assert error["tier"] == tier
        assert re.fullmatch(r"text.shout/function.py, line \d+, in shout", error["where"])
        assert "missing" in error["detail"]
    (mine / "function.py").write_text("def (")
    until(lambda: serve.said("SyntaxError"), "the syntax error was told")
    (mine / "function.py").write_text(source)
    until(lambda: serve.ask("text.shout", "Hi").json().get("output") == "HI!", "it is mended")


@pytest.mark.browser
def test_a_saved_function_reaches_the_page(reloading: Reloading, chromium: Any) -> None:
    """And a failure there names the author's line."""
    serve, mine = reloading
    tab = Tab(chromium, serve)
    tab.ready("text.shout")
    source = (mine / "function.py").read_text()
    (mine / "function.py").write_text(source.replace("text.upper()", "text.lower()"))
    until(
        lambda: tab.ask("text.shout", {"text": "Hi"}, tiers=["page"]).get("output") == "hi!",
        "the page follows",
    )
    (mine / "function.py").write_text(source.replace("text.upper()", "text.missing()"))
    error = until(
        lambda: (
            found
            if (found := tab.ask("text.shout", {"text": "Hi"}, tiers=["page"])).get("code")
            not in (None, "bad_bundle")
            else None
        ),
        "the page fails",
    )
    assert error["code"] == "run_failed"
    assert re.fullmatch(r"text.shout/function.py, line \d+, in shout", error["where"])
