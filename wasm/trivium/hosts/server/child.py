"""How does a process start another that never outlives it?"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_S = 6.0


class Child:
    """A process that ends with the `with` block, and with this process whatever happens.

    It may be started again once it has ended. `files` are descriptors that it holds open, too;
    what it says goes to the file `log`, or to where this process complains.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        settings: Mapping[str, str] | None = None,
        *,
        given: bytes = b"",
        files: Sequence[int] = (),
        log: Path | None = None,
    ) -> None:
        self.name = name
        self._arguments = list(arguments)
        self._environ = {**os.environ, **(settings or {})}
        self._given = given
        self._files = files
        self._log = log

    def start(self) -> None:
        """Start it; what was `given` is its standard input."""
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._log.open("ab")) if self._log else sys.stderr
            self._process = subprocess.Popen(  # noqa: S603 # our own arguments
                self._arguments,
                env=self._environ,
                stdin=subprocess.PIPE if self._given else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C reaches this process alone, which then stops it.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                pass_fds=self._files,
            )
        if self._process.stdin is not None:
            self._process.stdin.write(self._given)
            self._process.stdin.close()

    def __enter__(self) -> Child:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def pid(self) -> int:
        """Return its process number."""
        return self._process.pid

    def code(self) -> int | None:
        """Return the exit code, or none while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()


def _die_with_parent() -> None:
    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
