"""Real stores that tests may start, kill, stop and start again."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trivium.hosts.server.child import Child
from trivium.hosts.server.valkey import Valkey

STORES = ["valkey", *(["redis"] if shutil.which("redis-server") else [])]
"""The embedded one, and the real one where it is installed."""


class Kept(Child):
    """A program of Debian's that listens on a port of loopback."""

    def __init__(self, name: str, arguments: list[str], port: int) -> None:
        super().__init__(name, arguments)
        self.port = port

    def wait(self) -> None:
        """Wait until it takes connections."""
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"{self.name} does not listen on {self.port}")


def port() -> int:
    """Return a port that nobody uses, and that no connection is given while its server is away."""
    while True:
        found = 20_000 + secrets.randbelow(12_000)  # Linux gives connections those from 32768 on
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", found))
            return found


def found(program: str) -> str:
    """Return where a program of Debian's is, or nothing."""
    return shutil.which(program) or ""


@contextmanager
def store(kind: str, folder: Path) -> Iterator[str]:
    """Run a store of a kind, and return its address."""
    if kind == "valkey":
        with Valkey(folder) as valkey:
            yield valkey.url
        return
    folder.mkdir(parents=True)
    socket = folder / "redis"
    command = ["redis-server", "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    with Child("redis", command):
        while not socket.exists():
            time.sleep(0.01)
        yield f"unix://{socket}"


@contextmanager
def memcached() -> Iterator[Kept]:
    """Run Debian's Memcached."""
    number = port()
    arguments = [found("memcached"), "-p", str(number), "-l", "127.0.0.1", "-u", "nobody"]
    with Kept("memcached", arguments, number) as kept:
        assert isinstance(kept, Kept)
        kept.wait()
        yield kept
        kept.kill()


@contextmanager
def stopped(child: Child) -> Iterator[None]:
    """Let a process stand still: it takes connections and answers nothing."""
    os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(child.pid, signal.SIGCONT)


def emptied(valkey: Valkey, folder: Path) -> None:
    """Kill a Valkey and start it with nothing in it."""
    valkey.kill()
    shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
    valkey.start()
    valkey.wait()
