"""Bundle folders that change while a server runs, and bundles that are refused."""

from __future__ import annotations

import shutil
import traceback
from pathlib import Path

import pytest
from litestar import Litestar
from litestar.types import Scope

import servers
import toys
from trivium.contract import Ask, Tier
from trivium.hosts.server import web
from trivium.hosts.server.callers import Caller
from trivium.hosts.server.server import Server

AGAIN = toys.COUNT.replace("len(words)", "-len(words)")


def counted(server: Server) -> object:
    """Return what the server's own `text.count` answers."""

    async def work() -> object:
        ask = Ask(function="text.count", inputs={"text": "a b"}, tiers=(Tier.EDGE,))
        return (await server.engine.infer(ask)).output

    return servers.work(work())


def test_a_replaced_bundle_is_taken_in(tmp_path: Path) -> None:
    """The new version answers; the old one is gone, and so are its sessions."""
    toys.bundle(tmp_path, toys.COUNT, toys.manifest())
    server = Server(Tier.EDGE, [tmp_path], toys.trust())
    assert counted(server) == {"words": 2}
    old = server.engine.functions["text.count"]["1.0.0"]
    toys.bundle(tmp_path, AGAIN, toys.manifest(version="2.0.0"))
    server.sync()
    assert counted(server) == {"words": -2}
    assert list(server.engine.functions["text.count"]) == ["2.0.0"]
    assert not server.host.loaded(old)
    server.host.close()


def test_what_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    """A second look loads nothing again."""
    toys.bundle(tmp_path, toys.COUNT, toys.manifest())
    server = Server(Tier.EDGE, [tmp_path], toys.trust())
    bundle = server.bundles["text.count"]
    server.sync()
    assert server.bundles["text.count"] is bundle
    server.host.close()


def test_a_users_bundle_comes_and_goes_before_ours(tmp_path: Path) -> None:
    """A later folder's bundle hides ours while it is there, and no longer."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    toys.bundle(ours, toys.COUNT, toys.manifest())
    server = Server(Tier.EDGE, [ours, theirs], toys.trust())
    for _ in range(2):
        toys.bundle(theirs, AGAIN, toys.manifest())
        server.sync()
        assert counted(server) == {"words": -2}
        shutil.rmtree(theirs)
        server.sync()
        assert counted(server) == {"words": 2}
    server.host.close()


def test_a_removed_bundle_is_let_go(tmp_path: Path) -> None:
    """Nothing of it is listed any more."""
    home = toys.bundle(tmp_path, toys.COUNT, toys.manifest())
    server = Server(Tier.EDGE, [tmp_path], toys.trust())
    shutil.rmtree(home)
    server.sync()
    assert server.bundles == {}
    assert server.roads() == {}
    server.host.close()


@pytest.mark.parametrize("file", ["function.py", "manifest.json", "manifest.sha256"])
def test_a_changed_byte_takes_a_bundle_out_of_service(zoo: Path, file: str) -> None:
    """Edge and cloud say `bad_bundle`, name the file, list no road, and serve the others."""
    path = zoo / "text.count" / file
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)
    with servers.serving([zoo]) as made:
        for room in made.rooms:
            message = servers.said(room.text("text.count", "a"))
            assert message.startswith("500 bad_bundle: text.count/")
            assert file in message
            assert "text.count" not in room.get("/v1/roads").json()
            assert room.get("/health/ready").json()["functions"]["text.count"] == "bad_bundle"
            assert room.text("text.line", "1").json()["output"] == [30.0]


def test_a_refused_bundle_keeps_no_asks_alive(tmp_path: Path) -> None:
    """The one error is raised for each of them, and does not collect their tracebacks."""
    home = toys.bundle(tmp_path, toys.COUNT, toys.manifest())
    (home / "function.py").write_text("changed")
    server = Server(Tier.EDGE, [tmp_path], toys.trust())

    async def everybody(_: Scope) -> Caller:
        """Let everybody in."""
        return Caller(tenant="all")

    app = Litestar(
        server.routes(everybody, public=True), exception_handlers={Exception: web.refuse}
    )
    lengths = set()
    with servers.looping() as loop:
        room = servers.Room(app, "", loop)
        for _ in range(5):
            assert room.text("text.count", "a").status_code == 500
            steps = traceback.walk_tb(server.broken["text.count"].__traceback__)
            lengths.add(len(list(steps)))
    assert len(lengths) == 1
    server.host.close()


def test_a_model_altered_before_its_first_use_does_not_run(zoo: Path) -> None:
    """It was right at the start; it is checked again when it is read."""
    with servers.serving([zoo]) as made:
        path = zoo / "text.line" / "second.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
        for room in made.rooms:
            message = servers.said(room.text("text.line", "1 2"))
            assert message.startswith("500 bad_bundle: text.line/second.onnx has ")


def test_a_folder_must_be_called_as_its_bundle(tmp_path: Path) -> None:
    """Or two folders could hold one function."""
    toys.bundle(tmp_path, toys.COUNT, toys.manifest()).rename(tmp_path / "text.other")
    server = Server(Tier.EDGE, [tmp_path], toys.trust())
    assert server.broken["text.other"].message == "text.other holds the bundle of text.count"
    assert server.bundles == {}
    server.host.close()


def test_an_optional_function_that_was_not_pulled_is_just_not_served(tmp_path: Path) -> None:
    """It is not broken: asking names the command, the next hop may have it, and pulling helps."""
    toys.bundle(tmp_path, toys.COUNT, toys.manifest())
    lean = tmp_path / "lean"
    large = toys.having(toys.manifest("text.large", "count"), optional=True)
    home = toys.bundle(lean, toys.COUNT, large, **{"model.onnx": b"large"})
    shutil.copytree(home, tmp_path / "full" / "text.large")
    (home / "model.onnx").unlink()
    (home / "model.sig").unlink()
    with servers.serving([tmp_path, lean]) as made:
        for room in made.rooms:
            assert servers.said(room.text("text.large", "a")) == (
                "404 unknown_function: text.large is optional and not on this machine; fetch it "
                "(0 MB) by: trivium models pull text.large"
            )
            assert "text.large" not in room.get("/v1/roads").json()
            assert room.get("/health/ready").json()["functions"]["text.large"] == "not pulled"
            assert room.text("text.count", "a").status_code == 200
        assert "text.large" not in {each["name"] for each in made.edge.get("/v1/bundles").json()}
    with servers.serving([lean, tmp_path], cloud_bundles=[tmp_path / "full"]) as made:
        response = made.edge.text("text.large", "a")
        assert response.json()["tier"] == "cloud", response.text
    server = Server(Tier.EDGE, [lean], toys.trust())
    assert not server.bundles
    (home / "model.onnx").write_bytes(b"large")
    toys.sign(home)
    server.sync()
    assert list(server.bundles) == ["text.large"]
    assert not server.absent
    # What was signed as optional and lost a file is absent; one that was altered is refused.
    (home / "model.onnx").write_bytes(b"alter")
    assert Server(Tier.EDGE, [lean], toys.trust()).broken
