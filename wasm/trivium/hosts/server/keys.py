"""Which API keys are there: kept as hashes in a file, made and revoked without a restart?

A key is `tvm_ID_SECRET`: the id may be logged, the secret is shown once. It has 256 random bits, so
that a plain SHA-256 of it is as hard to turn back as any slower hash.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ...errors import AskError, Unauthenticated, UnknownFunction
from .callers import SCOPES, TENANT, USUAL, Caller, Limits, named

PREFIX = "tvm_"
DEFAULT = Path(".trivium/api-keys.json")
LOOK_S = 1.0
"""How often a server looks at least whether the file was changed."""

USED_S = 60.0
"""How exact it is when a key was used last."""

MOST_FILE = 16 << 20
_KEY = re.compile(rf"{PREFIX}([a-z0-9]{{12}})_([A-Za-z0-9_-]{{43}})")
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NOBODY = bytes(32)

log = logging.getLogger("trivium.keys")


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """The hash of one secret of a key, and until when it holds (seconds since 1970; 0: no end)."""

    hash: str
    expires: float = 0.0


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key without its secret; times are seconds since 1970, 0 for never.

    `certificate` is the only client certificate's name with which it may be used, if any.
    """

    id: str
    tenant: str = TENANT
    name: str = ""
    scopes: tuple[str, ...] = tuple(sorted(USUAL))
    created: float
    expires: float = 0.0
    revoked: float = 0.0
    secrets: tuple[Secret, ...] = ()
    limits: Limits = Limits()
    masked: bool = False
    certificate: str = ""

    def caller(self) -> Caller:
        """Return who asks with this key."""
        return Caller(
            tenant=self.tenant,
            subject=self.name,
            key=self.id,
            scopes=frozenset(self.scopes),
            limits=self.limits,
            masked=self.masked,
        )

    def state(self, now: float) -> str:
        """Return `valid`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and self.expires <= now else "valid"


class _File(msgspec.Struct, kw_only=True):
    keys: list[Key] = []


class KeyFile:
    """The keys in a file, followed as it changes; a file that isn't there holds none."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._keys: dict[str, tuple[Key, Caller]] = {}
        self._stamp: object = ()
        self._looked = -LOOK_S
        self._touched: dict[str, float] = {}
        self._follow(first=True)

    def find(self, credential: str) -> tuple[Key, Caller]:
        """Return the key that `credential` is, and who asks with it.

        Raises Unauthenticated if it is none, or has ended.
        """
        match = _KEY.fullmatch(credential)
        self._look(match[1] if match else "")
        key, caller = self._keys.get(match[1] if match else "", (None, None))
        digest = _digest(credential)
        now = self._clock()
        holds = False
        # An unknown id is compared as well, and takes as long.
        for secret in key.secrets if key else (None,):
            known = bytes.fromhex(secret.hash) if secret else _NOBODY
            alike = hmac.compare_digest(digest, known)
            holds |= bool(alike and secret and (not secret.expires or now < secret.expires))
        if key is None or caller is None or not holds:
            raise Unauthenticated("the API key is not valid")
        if (state := key.state(now)) != "valid":
            raise Unauthenticated(f"the API key {key.id} is {state}")
        self._used(key.id, now)
        return key, caller

    def limits(self, key: str) -> Limits:
        """Return the limits of the key with an id; none of a key that isn't known here."""
        self._look(key)
        _, caller = self._keys.get(key, (None, None))
        return caller.limits if caller else Limits()

    def _look(self, key: str) -> None:
        # A key that was made just now is looked for at once.
        if time.monotonic() - self._looked >= LOOK_S or (key and key not in self._keys):
            self._follow()

    def _follow(self, first: bool = False) -> None:
        self._looked = time.monotonic()
        try:
            stat = self.path.stat()
            stamp: object = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            if stat.st_mode & 0o022:
                raise ValueError("others may write to it; run: chmod 600")
            self._keys = {key.id: (key, key.caller()) for key in _read(self.path)}
            self._stamp = stamp
        except FileNotFoundError:
            if self._keys:
                log.warning("%s is gone, and its keys with it", self.path)
            self._keys, self._stamp = {}, ()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            # At a start nobody is let in by mistake; later the keys that were known go on.
            log.error("%s can't be used: %s", self.path, error)
            if first:
                raise ValueError(f"the key file {self.path} can't be used: {error}") from error

    def _used(self, key: str, now: float) -> None:
        """Keep when a key was used, as the time of an empty file: no writer waits for another."""
        if now - self._touched.get(key, 0.0) < USED_S:
            return
        self._touched[key] = now
        folder = _uses(self.path)
        with contextlib.suppress(OSError):  # a folder that can't be written to is allowed
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / key).touch(mode=0o600)


def _digest(credential: str) -> bytes:
    return hashlib.sha256(credential.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> list[Key]:
    data = path.read_bytes()
    if len(data) > MOST_FILE:
        raise ValueError(f"it has {len(data)} bytes; at most {MOST_FILE} are read")
    return msgspec.json.decode(data, type=_File).keys


def _uses(path: Path) -> Path:
    return path.with_name(path.name + ".used")


def last_used(path: Path, key: str) -> float:
    """Return when a key was used last, to the minute; 0 for never."""
    try:
        return (_uses(path) / key).stat().st_mtime
    except OSError:
        return 0.0


@contextlib.contextmanager
def changing(path: Path) -> Iterator[dict[str, Key]]:
    """Yield the keys of a file; what they are afterwards replaces it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = {key.id: key for key in _read(path)} if path.exists() else {}
        yield keys
        data = msgspec.json.format(msgspec.json.encode(_File(keys=list(keys.values()))), indent=1)
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data + b"\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)


def create(path: Path, now: float, **fields: object) -> tuple[Key, str]:
    """Add a key to a file; return it, and the credential that is never to be had again."""
    with changing(path) as keys:
        while (name := _random(12)) in keys:
            pass
        secret, credential = _secret(name)
        whole = {"id": name, "created": now, "secrets": (secret,), **fields}
        keys[name] = key = msgspec.convert(whole, Key)
    return key, credential


def rotate(path: Path, key: str, now: float, overlap: float) -> tuple[Key, str]:
    """Give a key a new secret; the one before holds for `overlap` seconds more."""
    with changing(path) as keys:
        known = _known(keys, key)
        if known.state(now) != "valid":
            raise AskError(f"the key {key} is {known.state(now)}; create another")
        secret, credential = _secret(key)
        ending = [
            replace(each, expires=min(each.expires or now + overlap, now + overlap))
            for each in known.secrets
            if not each.expires or each.expires > now
        ]
        held = [each for each in ending if each.expires > now]
        keys[key] = found = replace(known, secrets=(secret, *held))
    return found, credential


def revoke(path: Path, key: str, now: float) -> Key:
    """End a key for good; it stays in the file, so that its id is known in logs."""
    with changing(path) as keys:
        known = _known(keys, key)
        keys[key] = found = replace(known, revoked=known.revoked or now, secrets=())
    return found


def _known(keys: dict[str, Key], key: str) -> Key:
    if key not in keys:
        raise UnknownFunction(f"there is no key {key[:64]!r}; there are: {', '.join(keys)}")
    return keys[key]


def _random(length: int) -> str:
    return "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(length))


def _secret(key: str) -> tuple[Secret, str]:
    credential = f"{PREFIX}{key}_{secrets.token_urlsafe(32)}"
    return Secret(hash=_digest(credential).hex()), credential


def main(arguments: Sequence[str]) -> int:
    """Create, list, rotate or revoke API keys."""
    options = _parser().parse_args(arguments)
    path: Path = options.file
    now = time.time()
    if options.action == "list":
        keys = _read(path) if path.exists() else []
        _show([_row(path, key, now) for key in keys], options.json)
        return 0
    credential = ""
    if options.action == "create":
        limits, tenant = options.limits, named(options.tenant)
        key, credential = create(
            path,
            now,
            tenant=tenant,
            name=options.name,
            scopes=options.scopes,
            expires=now + options.expires if options.expires else 0.0,
            limits=limits,
            masked=options.mask,
            certificate=options.certificate,
        )
    elif options.action == "rotate":
        key, credential = rotate(path, options.id, now, options.overlap)
    else:
        key = revoke(path, options.id, now)
    row = _row(path, key, now)
    if credential:
        print("the key is shown this once; keep it where secrets are kept", file=sys.stderr)  # noqa: T201
        row = {"key": credential, **row}
    _show([row], options.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trivium keys", description=main.__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--file", type=Path, default=DEFAULT, help="where the keys are kept (%(default)s)"
    )
    common.add_argument("--json", action="store_true", help="one JSON object a line")
    actions = parser.add_subparsers(dest="action", required=True)
    new = actions.add_parser("create", parents=[common], help="make a key, and show it once")
    new.add_argument("--tenant", default=TENANT, help="whose it is (%(default)s)")
    new.add_argument("--name", default="", help="who or what will use it")
    new.add_argument(
        "--scopes",
        type=_scopes,
        default=sorted(USUAL),
        help=f"what it may do: some of {','.join(SCOPES)} ({','.join(sorted(USUAL))})",
    )
    new.add_argument("--expires", type=_span, default=0, help="after such as 90d, 12h (never)")
    new.add_argument(
        "--limits",
        type=_limits,
        default=Limits(),
        help="such as minute=600,day=100000,bytes=1000000000,tasks=20,held=100000000 (none)",
    )
    new.add_argument("--mask", action="store_true", help="mask personal data in its results")
    new.add_argument(
        "--certificate", default="", help="the one client certificate to use it with, by its name"
    )
    actions.add_parser("list", parents=[common], help="show all keys, without their secrets")
    turn = actions.add_parser("rotate", parents=[common], help="give a key a new secret")
    turn.add_argument("id")
    turn.add_argument(
        "--overlap", type=_span, default=86400, help="how long the old one still holds (1d)"
    )
    end = actions.add_parser("revoke", parents=[common], help="end a key for good")
    end.add_argument("id")
    return parser


def _scopes(text: str) -> list[str]:
    found = sorted({each.strip() for each in text.split(",") if each.strip()})
    if strange := [each for each in found if each not in SCOPES]:
        raise argparse.ArgumentTypeError(
            f"{strange[0][:40]!r} is no scope; scopes are {', '.join(SCOPES)}"
        )
    return found


def _limits(text: str) -> Limits:
    try:
        return Limits.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _span(text: str) -> int:
    match = _SPAN.fullmatch(text)
    if match is None and text != "0":
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time; write 90d, 12h, 30m or 45s")
    return int(match[1]) * _SECONDS[match[2]] if match else 0


def _row(path: Path, key: Key, now: float) -> dict[str, object]:
    return {
        "id": key.id,
        "state": key.state(now),
        "tenant": key.tenant,
        "name": key.name,
        "scopes": list(key.scopes),
        "created": _time(key.created),
        "expires": _time(key.expires),
        "used": _time(last_used(path, key.id)),
        "limits": str(key.limits),
        "masked": key.masked,
        "certificate": key.certificate,
        "secrets": sum(not each.expires or each.expires > now for each in key.secrets),
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""


def _show(rows: Sequence[dict[str, object]], as_json: bool) -> None:
    for row in rows:
        if as_json:
            print(msgspec.json.encode(row).decode())  # noqa: T201
            continue
        words = (
            f"{name}={' '.join(value) if isinstance(value, list) else value}"
            for name, value in row.items()
            if value not in ("", False, 0, [])
        )
        print("  ".join(words))  # noqa: T201
