"""Every way to get a bundle to run for which nobody that we trust has vouched."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

import toys
from trivium.hosts.server import bundles, signing
from trivium.hosts.server.bundles import SIGNATURE, Bundle
from trivium.hosts.server.signing import PrivateKey, Trust

ENVELOPE = "dsseEnvelope"
STRANGER = PrivateKey.make()

# Its code leaves a mark as soon as it is loaded.
EVIL = """
from trivium import Text, function

open({mark!r}, "w").close()

@function("text.evil")
async def evil(text: Text) -> str:
    return text.upper()
"""


def evil(root: Path, name: str = "text.evil") -> Path:
    """Write a bundle that tells whether it was loaded, and that is rightly signed as yet."""
    made = toys.having(toys.manifest("text.evil", "evil"), labels="labels.txt")
    source = EVIL.format(mark=str(root / "ran"))
    return toys.bundle(root / name, source, made, **{"labels.txt": b"one\n", "more.txt": b"two\n"})


def rewrite(home: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and its digest alike, as somebody does who may write both."""
    made = json.loads((home / "manifest.json").read_bytes())
    change(made)
    replaced(home, json.dumps(made).encode())


def replaced(home: Path, raw: bytes) -> None:
    (home / "manifest.json").write_bytes(raw)
    (home / "manifest.sha256").write_text(hashlib.sha256(raw).hexdigest())


def marked(home: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the signature's JSON."""
    made = json.loads((home / SIGNATURE).read_bytes())
    change(made)
    (home / SIGNATURE).write_text(json.dumps(made))


def stated(home: Path, change: Callable[[dict[str, Any]], object], again: bool = False) -> None:
    """Change what is signed; `again` signs it by the trusted key, which no stranger could."""

    def work(made: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(made[ENVELOPE]["payload"]))
        change(statement)
        payload = json.dumps(statement).encode()
        made[ENVELOPE]["payload"] = base64.b64encode(payload).decode()
        if again:
            sig = own().key.sign(signing.pae(payload), ec.ECDSA(hashes.SHA256()))
            made[ENVELOPE]["signatures"][0]["sig"] = base64.b64encode(sig).decode()

    marked(home, work)


def own() -> PrivateKey:
    """Return the toys' key, which is trusted."""
    return signing.own(toys.keys())


def load(home: Path, trust: Trust) -> None:
    """Do what a server does before it believes a bundle."""
    bundle = Bundle(home)
    trust.check(bundle)
    bundle.verify()


def payload(home: Path) -> bytes:
    return base64.b64decode(json.loads((home / SIGNATURE).read_bytes())[ENVELOPE]["payload"])


def signed(sign: Callable[[bytes], bytes], keyid: str = "") -> Callable[[Path], None]:
    """Return what puts another signature over the right payload in."""

    def change(home: Path) -> None:
        sig = base64.b64encode(sign(payload(home))).decode()
        marked(home, lambda made: made[ENVELOPE].update(signatures=[{"sig": sig, "keyid": keyid}]))

    return change


def other_curve(data: bytes) -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.sign(signing.pae(data), ec.ECDSA(hashes.SHA256()))


def other_hash(data: bytes) -> bytes:
    return own().key.sign(signing.pae(data), ec.ECDSA(hashes.SHA384()))


def bare(data: bytes) -> bytes:
    return own().key.sign(data, ec.ECDSA(hashes.SHA256()))


def two_numbers(data: bytes) -> bytes:
    r, s = decode_dss_signature(own().key.sign(signing.pae(data), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def swap(home: Path) -> None:
    one, two = (home / "labels.txt").read_bytes(), (home / "more.txt").read_bytes()
    (home / "labels.txt").write_bytes(two)
    (home / "more.txt").write_bytes(one)


def flip(path: Path, place: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def linked(path: Path) -> None:
    target = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(target)
    path.symlink_to(target)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def of_another(home: Path) -> None:
    made = evil(home.parents[1], "other")
    (made / "labels.txt").write_bytes(b"three\n")
    pin = {"sha256": hashlib.sha256(b"three\n").hexdigest(), "size": 6}
    rewrite(made, lambda other: other["files"].update({"labels.txt": pin}))
    toys.sign(made)
    shutil.copy(made / SIGNATURE, home / SIGNATURE)
    shutil.rmtree(made.parent)


def replaced_wholly(home: Path) -> None:
    """Put other code in, with everything that a stranger can make for it."""
    data = (home / "function.py").read_bytes() + b"# mine now\n"
    (home / "function.py").write_bytes(data)
    pin = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    rewrite(home, lambda made: made["files"].update({"function.py": pin}))


def replaced_and_signed(home: Path) -> None:
    replaced_wholly(home)
    toys.sign(home, STRANGER)


def twice(statement: dict[str, Any]) -> None:
    resources = statement["predicate"]["resources"]
    resources.append(resources[0])


def deep(home: Path) -> None:
    (home / SIGNATURE).write_bytes(b'{"mediaType":' + b"[" * 100_000)


def many(made: dict[str, Any]) -> None:
    made[ENVELOPE]["signatures"] *= 9


TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of the manifest": (lambda home: flip(home / "manifest.json"), "manifest.json has SHA"),
    "a byte of a file": (lambda home: flip(home / "function.py"), "function.py has SHA-256"),
    "a file gone": (lambda home: (home / "labels.txt").unlink(), "labels.txt can't be read"),
    "files swapped": (swap, "labels.txt has SHA-256"),
    "a file more": (lambda home: (home / "x.py").touch(), "x.py is not in the manifest"),
    "a folder more": (lambda home: (home / "x").mkdir(), "x is not in the manifest"),
    "a file as a link": (lambda home: linked(home / "labels.txt"), "is a symbolic link"),
    "the manifest as a link": (lambda home: linked(home / "manifest.json"), "is a symbolic link"),
    "the signature as a link": (lambda home: linked(home / SIGNATURE), "is a symbolic link"),
    "a file as a pipe": (lambda home: piped(home / "labels.txt"), "is no file"),
    "the manifest as a pipe": (lambda home: piped(home / "manifest.json"), "is no file"),
    "no signature": (lambda home: (home / SIGNATURE).unlink(), "is not signed"),
    "an empty signature": (lambda home: (home / SIGNATURE).write_bytes(b""), "is no signature"),
    "half a signature": (
        lambda home: (home / SIGNATURE).write_bytes((home / SIGNATURE).read_bytes()[:-99]),
        "is no signature",
    ),
    "a huge signature": (
        lambda home: (home / SIGNATURE).write_bytes(bytes(bundles.MOST_OWN + 1)),
        "at most 1048576 are allowed",
    ),
    "a deep signature": (deep, "is no signature"),
    "another bundle's signature": (of_another, "is not for this bundle: it differs in labels.txt"),
    "a stranger's signature": (
        lambda home: toys.sign(home, STRANGER),
        f"no valid signature by a trusted key: it is signed by {STRANGER.public.id[:16]}",
    ),
    "nobody's signature": (
        lambda home: marked(home, lambda made: made[ENVELOPE].update(signatures=[])),
        "it is signed by nobody",
    ),
    "a stranger under our name": (
        lambda home: signed(
            lambda data: STRANGER.key.sign(signing.pae(data), ec.ECDSA(hashes.SHA256())),
            own().public.id,
        )(home),
        "no valid signature",
    ),
    "a key on another curve": (signed(other_curve), "no valid signature"),
    "an Ed25519 key": (signed(ed25519.Ed25519PrivateKey.generate().sign), "no valid signature"),
    "another hash": (signed(other_hash), "no valid signature"),
    "a signature over the bare payload": (signed(bare), "no valid signature"),
    "a signature as two numbers": (signed(two_numbers), "no valid signature"),
    "nothing for a signature": (signed(lambda _: b""), "no valid signature"),
    "too many signatures": (lambda home: marked(home, many), "9 signatures; at most 8"),
    "another type of payload": (
        lambda home: marked(home, lambda made: made[ENVELOPE].update(payloadType="text/plain")),
        "is no signature",
    ),
    "a payload more": (
        lambda home: marked(home, lambda made: made[ENVELOPE].update(payload2="e30=")),
        "unknown field `payload2`",
    ),
    "a bundle more": (
        lambda home: marked(home, lambda made: made.update(messageSignature={})),
        "unknown field `messageSignature`",
    ),
    "base64 in another form": (
        lambda home: marked(
            home, lambda made: made[ENVELOPE].update(payload="\n" + made[ENVELOPE]["payload"])
        ),
        "is no signature",
    ),
    "an edited statement": (
        lambda home: stated(home, lambda each: each["predicate"]["resources"].pop()),
        "no valid signature",
    ),
    "a statement without a file": (
        lambda home: stated(home, lambda each: each["predicate"]["resources"].pop(), True),
        "is not for this bundle",
    ),
    "a statement that names a file twice": (
        lambda home: stated(home, twice, True),
        "a file that is named twice",
    ),
    "a statement of another kind": (
        lambda home: stated(home, lambda each: each.update(predicateType="https://x"), True),
        "Invalid enum value 'https://x'",
    ),
    "a statement by another hash": (
        lambda home: stated(
            home, lambda each: each["predicate"]["resources"][0].update(algorithm="md5"), True
        ),
        "Invalid enum value 'md5'",
    ),
    "the manifest and its digest replaced": (
        lambda home: rewrite(home, lambda made: made.update(licence="mine")),
        "is not for this bundle: it differs in manifest.json",
    ),
    "everything but the signature replaced": (
        replaced_wholly,
        "is not for this bundle: it differs in function.py, manifest.json",
    ),
    "everything replaced": (replaced_and_signed, "no valid signature by a trusted key"),
    "a deep manifest": (
        lambda home: replaced(home, b'{"name":"text.evil","files":' + b'{"a":' * 100_000),
        "is not a valid Manifest",
    ),
    "too many files": (
        lambda home: rewrite(
            home,
            lambda made: made["files"].update(
                {f"f{i}": {"sha256": "0" * 64, "size": 0} for i in range(300)}
            ),
        ),
        "files; at most 256 are allowed",
    ),
    "a file beyond all bounds": (
        lambda home: rewrite(home, lambda made: made["files"]["more.txt"].update(size=1 << 60)),
        f"0 to {bundles.MOST_SIZE} are allowed",
    ),
    "a digest that is none": (
        lambda home: rewrite(home, lambda made: made["files"]["more.txt"].update(sha256="x")),
        "64 hex digits are needed",
    ),
    "a signature that signs itself": (
        lambda home: rewrite(
            home, lambda made: made["files"].update({SIGNATURE: made["files"]["more.txt"]})
        ),
        "is not for this bundle",
    ),
}
