"""How does whoever builds or ships a bundle vouch for it?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trivium.errors import BundleError
from trivium.hosts.server import signing
from trivium.hosts.server.bundles import DIGEST, MANIFEST

KEYS = Path(".trivium/keys")
"""Where this installation's keys are; `trivium serve` has its servers trust those."""

VERBS = ("keygen", "sign")

Say = Callable[[str], None]


def add(verbs: Any, zoo: Path) -> None:
    """Add the sub-commands."""
    keygen = verbs.add_parser(
        "keygen",
        help="make a key to sign bundles with",
        description="Make an ECDSA key on P-256: NAME.pem stays with you, NAME.pub goes to those "
        "who are to trust it.",
    )
    keygen.add_argument(
        "--out", type=Path, default=KEYS, help="the folder for both (default: %(default)s)"
    )
    sign = verbs.add_parser(
        "sign",
        help="sign built bundles",
        description="Check bundles in full and sign them. Signatures that others made over the "
        "same files stay.",
    )
    sign.add_argument(
        "bundles", nargs="+", metavar="NAME|FOLDER", help="a built-in function, or a bundle"
    )
    sign.add_argument("--key", type=Path, required=True, help="the private key, in PEM")
    sign.set_defaults(zoo=zoo)


def run(given: argparse.Namespace, say: Say) -> int:
    """Run one of the sub-commands and return the exit status."""
    if given.verb == "keygen":
        path = signing.PrivateKey.make().write(given.out)
        say(f"{path} signs, {path.with_suffix('.pub')} is for those who are to trust it")
        return 0
    key = signing.PrivateKey.read(given.key)
    for name in given.bundles:
        done = signing.sign(_find(name, given.zoo), key)
        say(f"{name} is signed by {key.public.id[:16]}" + ("" if done else " already"))
    return 0


def pinned(bundle: Path) -> str:
    """Return the SHA-256 that a bundle's manifest is to have, or nothing."""
    path = bundle / DIGEST
    return path.read_text("ascii") if path.is_file() else ""


def built(bundle: Path, source: Path, pin: str | None, say: Say) -> None:
    """Sign a bundle that was just built; `pin` is what it had to become, none if it was named.

    Whoever names a function vouches for it. Others become what is pinned, or are not signed.
    """
    if pin is not None and pinned(bundle) != pin:
        # Or the next build would find this one's digest pinned.
        if pin:
            (bundle / DIGEST).write_text(pin, "ascii")
        else:
            (bundle / DIGEST).unlink()
        say(
            f"{bundle.name} is not what {DIGEST} pins, and not signed: no server will run it. "
            f"If that is your change, run: trivium models build {bundle.name}"
        )
        return
    key = signing.own(KEYS)
    if bundle.resolve() != source.resolve():
        for path in signing.leftovers(bundle, key.public):
            say(f"{bundle.name}: {path.name} is no longer part of it")
            path.unlink()
    if signing.sign(bundle, key):
        say(f"{bundle.name} is signed by this installation ({key.public.id[:16]})")


def _find(name: str, zoo: Path) -> Path:
    for folder in (zoo / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    known = ", ".join(sorted(path.parent.name for path in zoo.glob(f"*/{MANIFEST}")))
    raise BundleError(f"{name} is neither a folder with a {MANIFEST} nor one of: {known}")
