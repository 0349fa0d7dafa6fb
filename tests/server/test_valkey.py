"""The embedded Valkey: what it keeps when it is killed, and that it goes when it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from trivium.errors import TierError
from trivium.hosts.server.valkey import Valkey

OUTLIVED = """
import sys, time
from pathlib import Path
from trivium.hosts.server.valkey import Valkey
with Valkey(Path(sys.argv[1])) as valkey:
    print(valkey.pid, flush=True)
    time.sleep(60)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """At the same address, each time."""
    with Valkey(tmp_path / "data") as valkey:
        client = redis.Redis.from_url(valkey.url)
        for number in range(5):
            client.set(f"key{number}", number)
            valkey.kill()
            valkey.start()
            valkey.wait()
        assert [client.get(f"key{number}") for number in range(5)] == [b"%d" % n for n in range(5)]
        client.close()
    with Valkey(tmp_path / "data") as again:
        client = redis.Redis.from_url(again.url)
        assert client.get("key4") == b"4"
        assert client.config_get("appendfsync") == {"appendfsync": "always"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        client.close()


def test_only_its_user_reaches_it(tmp_path: Path) -> None:
    """There is no port, and the folder of its socket is nobody else's."""
    with Valkey(tmp_path / "data") as valkey:
        socket = Path(valkey.url.removeprefix("unix://"))
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        client = redis.Redis.from_url(valkey.url)
        assert client.config_get("port") == {"port": "0"}
        client.close()
    assert not socket.parent.exists()


def test_two_do_not_share_a_folder(tmp_path: Path) -> None:
    """Each would write over the other's file."""
    with Valkey(tmp_path), pytest.raises(TierError, match="another Valkey has"), Valkey(tmp_path):
        pass


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """And then the folder is free."""
    command = [sys.executable, "-c", OUTLIVED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        os.kill(number, 0)
        parent.kill()
    with Valkey(tmp_path) as valkey:
        assert valkey.pid != number
