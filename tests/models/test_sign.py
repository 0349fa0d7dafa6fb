"""Who vouches for what was built, and for what not."""

from __future__ import annotations

from pathlib import Path

import pytest

import toys
from trivium.errors import BundleError
from trivium.hosts.server import signing
from trivium.hosts.server.bundles import DIGEST, SIGNATURE, Bundle
from trivium.hosts.server.signing import PrivateKey, PublicKey, Trust
from trivium_models import command, sign


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder without an installation."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bundle(here: Path) -> Path:
    """Write a bundle as a build does, unsigned."""
    home = toys.bundle(here / "zoo", toys.COUNT, toys.manifest())
    (home / SIGNATURE).unlink()
    return home


def test_keys_are_made_and_used(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The private one for its owner alone; what it signs, its public half vouches for."""
    assert command.main(["keygen", "--out", "keys"]) == 0
    (private,) = Path("keys").glob("*.pem")
    assert private.stat().st_mode & 0o777 == 0o600
    public = PublicKey.read(private.with_suffix(".pub"))
    assert private.stem == public.id[:16]
    home = bundle(here)
    for said in ("is signed by", "already"):
        assert command.main(["sign", str(home), "--key", str(private)]) == 0
        assert said in capsys.readouterr().err
    Trust.read([Path("keys")]).check(Bundle(home))


def test_what_is_no_bundle_is_said(here: Path) -> None:
    """With those there are."""
    PrivateKey.make().write(here, "mine")
    with pytest.raises(BundleError, match=r"nothing is neither .* nor one of: .*text\.embed"):
        command.main(["sign", "nothing", "--key", "mine.pem"])
    with pytest.raises(BundleError, match=r"gone\.pem can't be read"):
        command.main(["sign", str(bundle(here)), "--key", "gone.pem"])


def test_what_was_named_is_signed_by_the_installation(here: Path) -> None:
    """Once: the second build finds it signed."""
    home, said = bundle(here), list[str]()
    for _ in range(2):
        sign.built(home, here, None, said.append)
    assert len(said) == 1
    Trust.read([sign.KEYS]).check(Bundle(home))


def test_what_came_out_as_pinned_is_signed(here: Path) -> None:
    """And its pin stays."""
    home = bundle(here)
    pin = sign.pinned(home)
    sign.built(home, here, pin, print)
    assert sign.pinned(home) == pin
    Trust.read([sign.KEYS]).check(Bundle(home))


@pytest.mark.parametrize("pin", ["", "0" * 64 + "\n"])
def test_what_came_out_otherwise_is_not_signed(here: Path, pin: str) -> None:
    """However often everything is built, until somebody names it."""
    home, said = bundle(here), list[str]()
    found = sign.pinned(home)
    for _ in range(2):
        (home / DIGEST).write_text(found)  # as a build does
        sign.built(home, here, pin, said.append)
        assert sign.pinned(home) == pin
        assert not (home / SIGNATURE).exists()
        with pytest.raises(BundleError):
            Bundle(home)
    assert all("run: trivium models build text.count" in line for line in said)


def test_what_the_last_build_held_goes(here: Path) -> None:
    """But never from the author's own folder."""
    home = bundle(here)
    made = toys.manifest()
    home = toys.bundle(here / "zoo", toys.COUNT, made, **{"old.txt": b"old"})
    signing.sign(home, signing.own(sign.KEYS))
    before = (home / SIGNATURE).read_bytes()
    toys.bundle(here / "zoo", toys.COUNT, made)
    (home / SIGNATURE).write_bytes(before)
    with pytest.raises(BundleError, match=r"old\.txt is not in the manifest"):
        sign.built(home, home, None, print)
    sign.built(home, here, None, print)
    assert not (home / "old.txt").exists()
    Bundle(home).verify()
