"""What is written to run Trivium elsewhere."""

from __future__ import annotations

import functools
import http.server
import json
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import headless
from debian import program
from trivium.errors import TierError
from trivium_edge import deploy

EDGE, CLOUD = Path("edge/deploy"), Path("cloud/deploy")
DOCKERFILES = (EDGE / "Dockerfile", CLOUD / "Dockerfile")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole system."""
    if not deploy.PAGE.is_dir():
        pytest.skip("the page is not built: scripts/install")
    out = tmp_path_factory.mktemp("deploy") / "compose"
    assert deploy.main(["--target", "compose", "--out", str(out), "--host", "ai.example"]) == 0
    return out


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_dockerfiles_are_sound(path: Path) -> None:
    """By hadolint; in stages, by nobody in particular, with a look at their health."""
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: scripts/install --dev")
    done = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    text = path.read_text()
    assert len(re.findall(r"^FROM ", text, re.M)) == 2
    assert re.search(r"^USER 10001:10001$", text, re.M)
    assert "HEALTHCHECK" in text
    assert "--require-hashes" in text
    assert ":latest" not in text


def test_a_system_is_written_whole(written: Path) -> None:
    """Each file that the compose file names is there; nothing secret is for others to read."""
    system = yaml.safe_load((written / "compose.yaml").read_text())
    services = system["services"]
    assert {"edge", "cloud-1", "cloud-2", "worker", "valkey", "memcached", "nginx"} <= set(services)
    assert {"prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert not service["image"].endswith(":latest"), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (written / source).exists(), source
        if "build" in service:
            assert (written / service["build"]["dockerfile"]).is_file()
    for secret in system["secrets"].values():
        assert (written / secret["file"]).read_text()
    keys = dict(line.split("=", 1) for line in (written / ".env").read_text().splitlines())
    assert keys["ORIGIN"] == "https://ai.example"
    # What is named is given: an empty key would let nobody in, or everybody.
    text = (written / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{([A-Z_]+)\}", text)) <= keys.keys()
    assert all(len(value) > 15 for value in keys.values())
    for path in (written / ".env", written / "tls/tls.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for folder in ("secrets", "tls"):
        assert stat.S_IMODE((written / folder).stat().st_mode) == 0o700
    assert list((written / "trust").glob("*.pub"))
    assert not list(written.rglob("*.pem"))
    assert (written / "bundles/text.embed/model.sig").is_file()
    assert len(list((written / "image").glob("trivium-*.whl"))) == 1


def test_every_setting_that_is_named_is_one(written: Path) -> None:
    """A misspelt one would be ignored in silence."""
    told = Path("DEPLOY.md").read_text()
    for name in set(re.findall(r"TRIVIUM_[A-Z_]+", (written / "compose.yaml").read_text())):
        assert f"`{name}`" in told, name


def test_a_folder_that_is_not_empty_is_left_alone(written: Path) -> None:
    """Somebody's keys may be in it."""
    with pytest.raises(TierError, match="is not empty"):
        deploy.main(["--target", "static", "--out", str(written)])


def test_nginx_takes_its_configuration(written: Path, tmp_path: Path) -> None:
    """By nginx itself; the names of other containers are not known here."""
    nginx = program("nginx", "nginx")
    text = (written / "nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/")
    for name in ("edge:8080", "cloud-1:8081", "cloud-2:8081"):
        assert name in text
        text = text.replace(name, "127.0.0.1:8080")
    types = tmp_path / "mime.types"
    types.write_text("types { text/html html; }")
    text = text.replace("/etc/nginx/tls", str(written / "tls"))
    text = text.replace("/etc/nginx/mime.types", str(types))
    conf = tmp_path / "nginx.conf"
    conf.write_text(text)
    command = [str(nginx), "-t", "-c", str(conf), "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_prometheus_takes_its_rules_and_they_hold() -> None:
    """By promtool's own tests, the document's query for the error rate among them."""
    promtool = program("promtool", "prometheus")
    folder = EDGE / "prometheus"
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(
            [promtool, *command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_shows_what_there_is() -> None:
    """Each figure of the dashboard is one that the servers or the rules give."""
    dashboard = json.loads((EDGE / "grafana/dashboards/trivium.json").read_text())
    queries = [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
        if panel["datasource"]["uid"] == "prometheus"
    ]
    assert len(queries) > 20
    rules = yaml.safe_load((EDGE / "prometheus/rules.yml").read_text())
    recorded = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    source = "".join(
        path.read_text()
        for folder in ("wasm/trivium/hosts/server", "edge/trivium_edge", "cloud/trivium_cloud")
        for path in Path(folder).glob("*.py")
    )
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for query in [*queries, *alerts]:
        for name in re.findall(r"\b(?:function:)?(?:trivium|api)_\w+(?::\w+)?", query):
            if name.startswith("function:"):
                assert name in recorded, name
                continue
            base = re.sub(r"_(total|bucket|sum|count)$", "", name)
            known = {f'"{base}"', f'"{name}"', name.removeprefix("trivium_task_")}
            assert any(each in source for each in known), name
    for path in (EDGE / "grafana/provisioning").rglob("*.yml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1


class Site(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as a CDN does: files, their headers, and 404."""

    def end_headers(self) -> None:
        for line in deploy.HEADERS.splitlines()[1:5]:
            self.send_header(*line.strip().split(": "))
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A site of the built-in functions, without any server of ours."""
    out = tmp_path_factory.mktemp("site") / "site"
    assert deploy.main(["--target", "static", "--out", str(out)]) == 0
    handler = functools.partial(Site, directory=str(out))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.browser
def test_a_site_answers_by_itself(site: str) -> None:
    """The page's own models, from any CDN: no gateway is asked, for there is none."""
    with headless.chromium() as launched:
        page = launched.new_page()
        page.goto(site)
        page.wait_for_function("window.trivium")
        answer: Any = page.evaluate(
            "trivium.infer('document.type', {document: new Blob(['{\"a\": 1}'])},"
            " {budget: {reach: 'page'}})"
        )
    assert answer["tier"] == "page"
    assert answer["output"]
