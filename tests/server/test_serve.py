"""The one command over small bundles: ports, signals, servers that die, and its check."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import stores
import toys
from trivium.contract import Sample
from trivium.hosts.server import signing

COMMAND = (sys.executable, "-m", "trivium.hosts.server.command", "serve")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a folder in which the command finds one bundle with a sample."""
    sample = Sample(inputs={"text": "one two"}, output={"words": 2})
    made = toys.having(toys.manifest(), samples=(sample,))
    bundle = toys.bundle(tmp_path / "models" / "zoo", toys.COUNT, made)
    toys.sign(bundle, signing.own(tmp_path / ".trivium" / "keys"))
    return tmp_path


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"this did not happen: {what}")


def ipv6() -> bool:
    """Return whether the machine can listen on its own IPv6 address."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Serve:
    """The running command, and what it has said."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.port, self.cloud_port = stores.port(), stores.port()
        ports = ("--port", str(self.port), "--cloud-port", str(self.cloud_port))
        self.process = subprocess.Popen(
            [*COMMAND, *ports, *arguments], cwd=home, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def said(self, text: str) -> bool:
        """Return whether a line holds `text`."""
        return any(text in line for line in self.lines)

    def expect(self, text: str) -> None:
        """Wait until it says `text`."""
        until(lambda: self.said(text) or self.process.poll() is not None, text)
        assert self.said(text), self.lines

    def children(self) -> list[int]:
        """Return the processes that it has started: valkey, cloud, edge, worker."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(each) for each in path.read_text().split()]

    def ask(self, text: str, **headers: str) -> httpx.Response:
        """Ask with the key that it shows after it is ready."""
        self.expect("API key")
        (line,) = (line for line in self.lines if "API key" in line)
        return httpx.post(
            f"http://localhost:{self.port}/v1/infer/text.count",
            content=text,
            headers={
                "authorization": f"Bearer {line.split()[2]}",
                "content-type": "text/plain",
                **headers,
            },
            trust_env=False,
        )

    def close(self) -> None:
        """Stop it if it still runs."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextlib.contextmanager
def running(home: Path, *arguments: str) -> Iterator[Serve]:
    """Start the command and wait until it is ready."""
    made = Serve(home, *arguments)
    try:
        made.expect("ready: ")
        yield made
    finally:
        made.close()


def alive(process: int) -> bool:
    """Return whether a process is there, and not only its remains."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_it_answers_and_leaves_no_process_behind(home: Path) -> None:
    """It is ready after each tier has answered; its key is for its owner alone."""
    with running(home) as serve:
        assert serve.said("ready: 3 asks answered by edge and cloud")
        for tier in ("edge", "cloud"):
            answer = serve.ask("a b c", **{"trivium-tiers": tier}).json()
            assert (answer["output"], answer["tier"]) == ({"words": 3}, tier)
        assert (home / ".trivium" / "key").stat().st_mode & 0o777 == 0o600
        children = serve.children()
        assert len(children) == 4
        serve.process.send_signal(signal.SIGTERM)
        assert serve.process.wait(20) == 0
        assert not [each for each in children if alive(each)]
        serve.expect("stopped")
        assert not serve.said("Traceback"), serve.lines


def test_a_second_signal_does_not_interrupt_the_stopping(home: Path) -> None:
    """Nor does a third: nothing stays behind, and no traceback is shown."""
    with running(home) as serve:
        children = serve.children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            serve.process.send_signal(number)
            time.sleep(0.02)
        assert serve.process.wait(20) == 0
        assert not [each for each in children if alive(each)]
        serve.expect("stopped")
        assert not serve.said("Traceback"), serve.lines


def test_a_dead_server_is_told_and_the_rest_goes_on(home: Path) -> None:
    """First the cloud dies, then the edge; then there is nothing left to serve."""
    with running(home) as serve:
        _, cloud, edge, _ = serve.children()
        os.kill(cloud, signal.SIGKILL)
        serve.expect("the cloud ended (exit code -9); the rest goes on")
        assert serve.ask("a b").json()["tier"] == "edge"
        os.kill(edge, signal.SIGKILL)
        serve.expect("the edge ended")
        assert serve.process.wait(20) == 1


def test_a_dead_worker_or_store_is_started_again(home: Path) -> None:
    """A task may have been its death, and all that matters is on the disk."""
    with running(home) as serve:
        valkey, _, _, worker = serve.children()
        os.kill(worker, signal.SIGKILL)
        serve.expect("the worker ended (exit code -9); it is started again")
        os.kill(valkey, signal.SIGKILL)
        serve.expect("the valkey ended (exit code -9); it is started again")
        until(lambda: len(serve.children()) == 4, "all run again")


def test_a_second_one_leaves_the_first_ones_folder_alone(home: Path) -> None:
    """Its bundles, tasks and history; a store of one's own changes nothing of that."""
    environ = {**os.environ, "TRIVIUM_REDIS_URL": "redis://127.0.0.1:1/0"}
    with running(home) as serve:
        done = subprocess.run(
            COMMAND, cwd=home, capture_output=True, text=True, check=False, env=environ
        )
        assert done.returncode == 1
        said = f"is in use by another scripts/serve (process {serve.process.pid}); stop that one"
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert serve.ask("one two").status_code == 200
    with running(home) as serve:
        assert serve.ask("one two").status_code == 200


@pytest.mark.parametrize("flag", ["--port", "--cloud-port"])
def test_a_taken_port_is_named_with_its_flag(home: Path, flag: str) -> None:
    """Before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, flag, str(port)], cwd=home, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    said = f"trivium serve: port {port} on 127.0.0.1 can't be used (Address already in use); "
    assert done.stderr.splitlines()[-1] == f"{said}choose another by {flag}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--functions", "nowhere"), "nowhere holds no function.py, nor does a folder right below"),
        (("--host", "256.0.0.1"), "on 256.0.0.1 can't be used"),
        (("--host", "192.0.2.1"), "on 192.0.2.1 can't be used"),
        (("--port", "99999"), "argument --port: 99999 is not from 1 to 65535"),
        (("--cloud-port", "0"), "argument --cloud-port: 0 is not from 1 to 65535"),
        (("--port", "http"), "argument --port: invalid"),
        (("--nonsense",), "unrecognized arguments"),
    ],
)
def test_a_wrong_argument_is_told_without_a_traceback(
    home: Path, arguments: tuple[str, ...], said: str
) -> None:
    """In one line."""
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_check_tells_what_holds(home: Path, host: str) -> None:
    """Objects on stdout and nothing else there; zero only if all held."""
    if ":" in host and not ipv6():
        pytest.skip("this machine has no IPv6")
    hidden = {**os.environ, "PATH": "/nonexistent"}
    command = [*COMMAND, "--check", "--json", "--host", host]
    done = subprocess.run(
        command, cwd=home, capture_output=True, text=True, check=False, env=hidden
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["function"], row["tier"], row["ok"]) for row in rows] == [
        ("text.count", "edge", True),
        ("text.count", "cloud", True),
        ("text.count", "cloud", True),  # as a task
    ]
    assert "page: skipped, no chromium was found" in done.stderr
    assert done.returncode == 0


def test_the_check_finds_a_flipped_byte(home: Path) -> None:
    """The bundle is named, nothing of it ran, and the exit code says so."""
    path = home / "models" / "zoo" / "text.count" / "function.py"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    hidden = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(
        [*COMMAND, "--check"], cwd=home, capture_output=True, text=True, check=False, env=hidden
    )
    assert done.returncode == 1
    assert "bad_bundle: text.count/function.py has SHA-256" in done.stdout
    assert "0 of 1 held" in done.stderr
    assert "Traceback" not in done.stderr
