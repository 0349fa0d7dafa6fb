"""API keys in a file, and the command that makes them."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from trivium.errors import AskError, Unauthenticated, UnknownFunction
from trivium.hosts.server import command, keys
from trivium.hosts.server.callers import Limits
from trivium.hosts.server.keys import KeyFile, create, revoke, rotate

NOW = 1_800_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where keys may be kept."""
    return tmp_path / "api-keys.json"


def known(path: Path, now: float = NOW) -> KeyFile:
    """Return the keys of a file at a time."""
    return KeyFile(path, lambda: now)


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[dict[str, Any]]:
    """Return what `trivium keys` printed as JSON."""
    assert command.main(["keys", *map(str, arguments), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_key_lets_its_tenant_in(path: Path) -> None:
    """With its scopes, its limits and its id, which may be logged."""
    key, credential = create(
        path, NOW, tenant="acme", name="shop", scopes=["infer"], limits=Limits(minute=5)
    )
    caller = known(path).find(credential)[1]
    assert (caller.tenant, caller.subject, caller.key) == ("acme", "shop", key.id)
    assert caller.scopes == {"infer"}
    assert caller.limits.minute == 5
    assert credential.startswith(f"tvm_{key.id}_")


def test_nothing_but_a_hash_is_kept(path: Path) -> None:
    """For its owner's eyes alone, and no key is like another."""
    found = [create(path, NOW)[1] for _ in range(20)]
    text = path.read_text()
    assert len(set(found)) == 20
    assert not any(each.split("_", 2)[2] in text for each in found)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir() if each.suffix == ".new"] == []


def test_another_secret_is_refused(path: Path) -> None:
    """One letter, one case or one character more make another key; the answer tells nothing."""
    key, right = create(path, NOW)
    _, other = create(path, NOW)
    file = known(path)
    for wrong in (
        right[:-1],
        right + "A",
        right.upper(),
        right[:-1] + ("A" if right[-1] != "A" else "B"),
        f"tvm_{key.id}_{other.split('_', 2)[2]}",
        f"tvm_{key.id}_",
        "tvm_" + "a" * 12 + "_" + "b" * 43,
        "tvm_../../etc_" + "b" * 43,
        right.replace("tvm_", ""),
        "",
        "\udce4",
        "x" * 10**6,
    ):
        with pytest.raises(Unauthenticated) as caught:
            file.find(wrong)
        assert caught.value.message == "the API key is not valid"


def test_a_key_ends(path: Path) -> None:
    """At its time, or when it is revoked: the file is followed, the server goes on."""
    _, short = create(path, NOW, expires=NOW + 60)
    known(path, NOW + 59).find(short)
    with pytest.raises(Unauthenticated, match="is expired"):
        known(path, NOW + 60).find(short)
    key, long = create(path, NOW)
    file = known(path)
    file.find(long)
    assert revoke(path, key.id, NOW).state(NOW) == "revoked"
    eventually_refused(file, long)
    with pytest.raises(AskError, match="is revoked; create another"):
        rotate(path, key.id, NOW, 0)
    with pytest.raises(UnknownFunction, match="there is no key 'nobody'"):
        revoke(path, "nobody", NOW)


def eventually_refused(file: KeyFile, credential: str) -> None:
    """Wait until a key is refused."""
    for _ in range(200):
        try:
            file.find(credential)
        except Unauthenticated:
            return
        time.sleep(0.02)
    raise AssertionError("the key still holds")


def test_a_rotated_key_overlaps(path: Path) -> None:
    """The old secret holds for as long as was said, not longer, and a second turn does not help."""
    key, first = create(path, NOW, tenant="acme")
    _, second = rotate(path, key.id, NOW, 100)
    for credential in (first, second):
        assert known(path, NOW + 99).find(credential)[1].tenant == "acme"
    _, third = rotate(path, key.id, NOW + 50, 1000)
    late = known(path, NOW + 101)
    with pytest.raises(Unauthenticated):
        late.find(first)
    assert late.find(second)[0].id == late.find(third)[0].id == key.id
    _, fourth = rotate(path, key.id, NOW + 200, 0)
    last = known(path, NOW + 200)
    last.find(fourth)
    for credential in (second, third):
        with pytest.raises(Unauthenticated):
            last.find(credential)


def test_a_file_that_is_not_there_holds_no_key(path: Path) -> None:
    """Made later it is found, taken away it takes its keys along."""
    file = KeyFile(path)
    with pytest.raises(Unauthenticated):
        file.find("tvm_abc")
    _, credential = create(path, time.time())
    for _ in range(200):
        try:
            file.find(credential)
            break
        except Unauthenticated:
            time.sleep(0.02)
    else:
        raise AssertionError("the key is not found")
    path.unlink()
    eventually_refused(file, credential)


def test_a_broken_file_is_told_of(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stops a start; later what was known goes on, so that a slip locks nobody out."""
    _, credential = create(path, NOW)
    file = known(path)
    good = path.read_text()
    path.write_text(good[:-20])
    os.utime(path, (1, 1))
    time.sleep(keys.LOOK_S)
    with caplog.at_level(logging.ERROR):
        file.find(credential)
    assert "can't be used" in caplog.text
    with pytest.raises(ValueError, match="can't be used"):
        known(path)
    path.write_text(good)
    path.chmod(0o622)
    with pytest.raises(ValueError, match="others may write to it"):
        known(path)


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    """Writers wait for each other."""
    threads = [threading.Thread(target=create, args=(path, NOW)) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(json.loads(path.read_text())["keys"]) == 12


def test_when_a_key_was_used_is_kept(path: Path) -> None:
    """Outside the file, to the minute."""
    key, credential = create(path, time.time())
    before = path.read_bytes()
    assert keys.last_used(path, key.id) == 0
    file = KeyFile(path)
    file.find(credential)
    first = keys.last_used(path, key.id)
    assert first > 0
    file.find(credential)
    assert keys.last_used(path, key.id) == first
    assert path.read_bytes() == before


def test_the_command_makes_lists_turns_and_ends_keys(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The secret is in the first line alone."""
    where = ("--file", path)
    (made,) = said(
        capsys, "create", "--tenant", "acme", "--scopes", "infer,tasks", "--expires", "90d",
        "--limits", "minute=60,day=1000", "--name", "shop", *where,
    )  # fmt: skip
    assert made["key"].startswith(f"tvm_{made['id']}_")
    assert made["scopes"] == ["infer", "tasks"]
    assert made["limits"] == "minute=60,day=1000"
    assert KeyFile(path).find(made["key"])[1].tenant == "acme"
    (row,) = said(capsys, "list", *where)
    assert "key" not in row
    assert (row["state"], row["tenant"], row["secrets"]) == ("valid", "acme", 1)
    assert row["used"]
    assert row["expires"] > row["created"]
    (turned,) = said(capsys, "rotate", made["id"], "--overlap", "1h", *where)
    assert turned["secrets"] == 2
    assert turned["key"] != made["key"]
    (ended,) = said(capsys, "revoke", made["id"], *where)
    assert ended["state"] == "revoked"
    assert command.main(["keys", "list", "--file", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "state=revoked" in printed
    assert made["key"].split("_", 2)[2] not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scopes", "everything"], "'everything' is no scope; scopes are infer,"),
        (["--expires", "soon"], "write 90d, 12h, 30m or 45s"),
        (["--limits", "hour=3"], "is no limit"),
    ],
)
def test_the_command_says_what_is_allowed(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    """Nothing is written then."""
    with pytest.raises(SystemExit):
        command.main(["keys", "create", *arguments, "--file", str(path)])
    assert message in capsys.readouterr().err
    assert not path.exists()
    assert command.main(["keys", "create", "--tenant", "a:b", "--file", str(path)]) == 1
    assert "is no tenant" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["minute=1,minute=", "minute", "minute=-1", "=", "day=1.5", "x=1"])
def test_a_limit_is_a_name_and_a_number(text: str) -> None:
    """Anything else is refused with what is allowed."""
    with pytest.raises(ValueError, match="a list of these is: minute=NUMBER, day=NUMBER"):
        Limits.read(text)


def test_limits_are_read_as_they_are_written() -> None:
    """None of them is none."""
    assert Limits.read("") == Limits() == Limits.read(" , ")
    some = Limits(minute=1, bytes=2, tasks=3)
    assert Limits.read(str(some)) == some
