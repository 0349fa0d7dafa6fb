"""Does nothing run for which nobody that we trust has vouched?"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

import samples
import servers
import toys
from tampering import (
    ENVELOPE,
    STRANGER,
    TAMPERED,
    evil,
    flip,
    load,
    marked,
    own,
    replaced_wholly,
    rewrite,
    swap,
)
from trivium.contract import JSON, Tier, decode, encode
from trivium.errors import BundleError
from trivium.hosts.server import signing
from trivium.hosts.server.bundles import SIGNATURE, Bundle
from trivium.hosts.server.signing import PrivateKey, PublicKey, Signature, Trust


@pytest.mark.parametrize("how", TAMPERED)
def test_nothing_of_a_tampered_bundle_runs(how: str, tmp_path: Path) -> None:
    """Edge and cloud say `bad_bundle` and why, give none of its files out, and go on."""
    tamper, expected = TAMPERED[how]
    home = evil(tmp_path, "zoo")
    toys.bundle(tmp_path / "zoo", toys.COUNT, toys.manifest())
    digest = Bundle(home).digest
    tamper(home)
    with servers.serving([tmp_path / "zoo"]) as made:
        for room in made.rooms:
            message = servers.said(room.text("text.evil", "a"))
            assert message.startswith("500 bad_bundle: text.evil")
            assert expected in message
            assert len(message) < 500
            assert str(tmp_path) not in message
            assert "text.evil" not in room.get("/v1/roads").json()
            assert room.text("text.count", "a b").json()["output"] == {"words": 2}
        assert [each["name"] for each in made.edge.get("/v1/bundles").json()] == ["text.count"]
        for file in ("manifest.json", "function.py", "labels.txt", SIGNATURE):
            given = made.edge.get(f"/bundles/text.evil/{digest}/{file}")
            assert servers.said(given).startswith("500 bad_bundle: text.evil")
    assert not (tmp_path / "ran").exists()


def test_a_right_bundle_runs(tmp_path: Path) -> None:
    """Or the tests above would prove nothing."""
    evil(tmp_path, "zoo")
    with servers.serving([tmp_path / "zoo"]) as made:
        for room in made.rooms:
            assert room.text("text.evil", "a").json()["output"] == "A"
    assert (tmp_path / "ran").exists()


def test_a_server_that_trusts_nobody_runs_nothing(tmp_path: Path) -> None:
    """And says so."""
    home = evil(tmp_path, "zoo")
    with pytest.raises(BundleError, match="trusted here: no key"):
        Trust().check(Bundle(home))
    with pytest.raises(BundleError, match="trusted here: no key"):
        Trust.read([tmp_path / "nowhere", tmp_path / "zoo"]).check(Bundle(home))


@pytest.mark.parametrize("how", [each for each in TAMPERED if each != "no signature"])
def test_unsigned_is_not_altered(how: str, tmp_path: Path) -> None:
    """Where bundles without a signature may run, those with a wrong one may not."""
    home = evil(tmp_path, "zoo")
    TAMPERED[how][0](home)
    trust = Trust.read([toys.keys()], unsigned=True)
    with pytest.raises(BundleError):
        load(home, trust)


def test_unsigned_bundles_run_loudly_where_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For development: each is named in the log."""
    home = evil(tmp_path, "zoo")
    (home / SIGNATURE).unlink()
    with servers.serving([tmp_path / "zoo"], unsigned=True) as made:
        for room in made.rooms:
            assert room.text("text.evil", "a").json()["output"] == "A"
        (listed,) = made.edge.get("/v1/bundles").json()
        path = f"/bundles/text.evil/{listed['digest']}/{SIGNATURE}"
        assert made.edge.get(path).status_code == 404
    assert "bundles without a signature run here: this is for development only" in caplog.text
    assert caplog.text.count("text.evil is not signed, and runs all the same") == 2
    (home / "labels.txt").write_bytes(b"altered\n")
    with servers.serving([tmp_path / "zoo"], unsigned=True) as made:
        assert servers.said(made.edge.text("text.evil", "a")).startswith("500 bad_bundle")


def test_keys_are_rotated_without_a_gap(tmp_path: Path) -> None:
    """Either of two signatures is enough; then the old key goes, and what it alone signed."""
    old, new = PrivateKey.make(), PrivateKey.make()
    home = evil(tmp_path, "zoo")
    toys.sign(home, old)
    trusts = {name: Trust([key.public]) for name, key in (("old", old), ("new", new))}
    with pytest.raises(BundleError):
        trusts["new"].check(Bundle(home))
    assert signing.sign(home, new)
    for trust in (*trusts.values(), Trust([old.public, new.public])):
        trust.check(Bundle(home))
    marks = decode((home / SIGNATURE).read_bytes(), Signature, JSON).dsse_envelope.signatures
    assert [mark.keyid for mark in marks] == [new.public.id, old.public.id]
    marked(home, lambda made: made[ENVELOPE]["signatures"].pop())
    trusts["new"].check(Bundle(home))
    with pytest.raises(BundleError):
        trusts["old"].check(Bundle(home))


def test_a_signature_that_fails_does_not_spoil_another(tmp_path: Path) -> None:
    """One trusted signature is enough, whatever stands beside it."""
    home = evil(tmp_path, "zoo")
    toys.sign(home, own(), STRANGER)
    marked(home, lambda made: made[ENVELOPE]["signatures"][0].update(sig="e30="))
    toys.trust().check(Bundle(home))


def test_a_gateway_tells_its_keys_and_gives_signatures(tmp_path: Path) -> None:
    """The keys to whoever opens its page; a signature is never kept, for there may be a newer."""
    home = evil(tmp_path, "zoo")
    with servers.serving([tmp_path / "zoo"]) as made:
        (key,) = made.edge.get("/v1/keys", key=None).json()
        assert key == {"id": own().public.id, "pem": own().public.pem.decode()}
        (listed,) = made.edge.get("/v1/bundles", key=None).json()
        path = f"/bundles/text.evil/{listed['digest']}/{SIGNATURE}"
        response = made.edge.get(path, key=None)
        assert response.content == (home / SIGNATURE).read_bytes()
        assert response.headers["cache-control"] == "no-cache"


def test_signing_again_changes_nothing(tmp_path: Path) -> None:
    """Until the bundle is another one; then nothing of the old signature stays."""
    home = evil(tmp_path, "zoo")
    assert not signing.sign(home, own())
    toys.sign(home, STRANGER, own())
    replaced_wholly(home)
    assert signing.sign(home, own())
    toys.trust().check(Bundle(home))
    assert len(json.loads((home / SIGNATURE).read_bytes())[ENVELOPE]["signatures"]) == 1


@pytest.mark.parametrize("change", [swap, lambda home: (home / "more.txt").unlink()])
def test_what_is_wrong_is_not_signed(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Whoever signs has looked."""
    home = evil(tmp_path, "zoo")
    (home / SIGNATURE).unlink()
    change(home)
    with pytest.raises(BundleError):
        signing.sign(home, own())
    assert not (home / SIGNATURE).exists()


def test_a_graph_is_inspected_before_it_is_signed(tmp_path: Path) -> None:
    """Each one that a variant names."""
    made = toys.manifest("text.line", "line", models={"line": ("first.onnx",)})
    home = toys.bundle(tmp_path, samples.LINE, made, **{"first.onnx": b"garbage"})
    (home / SIGNATURE).unlink()
    with pytest.raises(BundleError, match=r"text\.line/first\.onnx is no ONNX graph"):
        signing.sign(home, own())


def test_what_a_bundle_no_longer_holds_is_found(tmp_path: Path) -> None:
    """By our own signature over what it held, and by nobody else's."""
    home = evil(tmp_path, "zoo")
    rewrite(home, lambda made: made["files"].pop("more.txt"))
    assert signing.leftovers(home, own().public) == [home / "more.txt"]
    assert signing.leftovers(home, STRANGER.public) == []
    (home / SIGNATURE).unlink()
    assert signing.leftovers(home, own().public) == []


def test_an_installation_has_one_key(tmp_path: Path) -> None:
    """Made once, however many ask for it at the same time, and for its owner alone."""
    with ThreadPoolExecutor(8) as pool:
        ids = {
            key.public.id for key in pool.map(lambda _: signing.own(tmp_path / "keys"), range(8))
        }
    assert len(ids) == 1
    names = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert names == ["installation.pem", "installation.pub"]
    assert (tmp_path / "keys" / "installation.pem").stat().st_mode & 0o777 == 0o600
    assert b"BEGIN PRIVATE KEY" in (tmp_path / "keys" / "installation.pem").read_bytes()
    assert PublicKey.read(tmp_path / "keys" / "installation.pub").id in ids


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    data: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "holds no public key in PEM"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key in PEM"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "holds a key on secp384r1"),
        (pem(ec.generate_private_key(ec.SECP256K1())), "holds a key on secp256k1"),
        (pem(ed25519.Ed25519PrivateKey.generate()), "holds an Ed25519PublicKey"),
        (pem(rsa.generate_private_key(65537, 2048)), "holds an RSAPublicKey"),
    ],
)
def test_a_wrong_key_is_not_trusted(tmp_path: Path, data: bytes, said: str) -> None:
    """The file is named, and the server does not start half-trusting."""
    (tmp_path / "odd.pub").write_bytes(data)
    with pytest.raises(BundleError, match=said):
        Trust.read([tmp_path])


def test_a_key_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    """A typing error is told, not taken for no key."""
    with pytest.raises(BundleError, match=r"gone\.pub can't be read: No such file"):
        Trust.read([tmp_path / "gone.pub"])
    with pytest.raises(BundleError, match=r"gone\.pem can't be read: No such file"):
        PrivateKey.read(tmp_path / "gone.pem")
    (tmp_path / "a.pem").write_bytes(own().public.pem)
    with pytest.raises(BundleError, match="holds no private key in plain PEM"):
        PrivateKey.read(tmp_path / "a.pem")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that is right, and stays so."""
    return evil(tmp_path_factory.mktemp("flips"), "zoo")


@settings(deadline=None)
@given(st.data(), st.integers(1, 255))
def test_no_byte_can_be_changed(home: Path, data: st.DataObject, change: int) -> None:
    """Of no file; of the signature, only what tells a client which key to try."""
    path = home / data.draw(
        st.sampled_from([SIGNATURE, "manifest.json", "function.py", "labels.txt"])
    )
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if path.name == SIGNATURE:
        start = whole.index(b'"hint":"') + 8
        if start <= place < start + 64:
            return
    altered = bytearray(whole)
    altered[place] ^= change
    try:
        path.write_bytes(altered)
        with pytest.raises(BundleError):
            load(home, toys.trust())
    finally:
        path.write_bytes(whole)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_a_signature(data: bytes) -> None:
    """Nor do they break its reading."""
    with pytest.raises(BundleError, match="is no signature"):
        signing.vouched("text.evil/model.sig", data, [own().public])


CLIENT = Path(".trivium/model-signing/bin/model_signing")


@pytest.fixture
def client() -> str:
    """Return OpenSSF's own client, in an environment of its own."""
    if not CLIENT.is_file():
        pytest.skip(
            "OpenSSF's client is not installed: python3 -m venv .trivium/model-signing && "
            ".trivium/model-signing/bin/pip install model-signing==1.1.1 pyOpenSSL"
        )
    return str(CLIENT)


def test_their_client_believes_ours(client: str, tmp_path: Path) -> None:
    """And finds a changed byte in what we signed; of two signatures it takes the newest."""
    home = evil(tmp_path, "zoo")
    toys.sign(home, STRANGER, own())
    command = [
        *(client, "verify", "key", str(home), "--signature", str(home / SIGNATURE)),
        *("--public_key", str(toys.keys() / "installation.pub")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Verification succeeded\n"), done.stderr
    flip(home / "function.py")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Hash mismatch for" in done.stderr


def test_we_believe_their_client(client: str, tmp_path: Path) -> None:
    """What it signs with a trusted key runs here."""
    home = evil(tmp_path, "zoo")
    (home / SIGNATURE).unlink()
    command = [
        *(client, "sign", "key", str(home), "--signature", str(home / SIGNATURE)),
        *("--private_key", str(toys.keys() / "installation.pem")),
    ]
    subprocess.run(command, capture_output=True, check=True)
    toys.trust().check(Bundle(home))
    assert Bundle(home).function(Tier.EDGE) is not None
    with pytest.raises(BundleError):
        Trust([STRANGER.public]).check(Bundle(home))


def test_a_signature_is_the_same_json_everywhere(home: Path) -> None:
    """What we read we would write."""
    raw = (home / SIGNATURE).read_bytes()
    assert encode(decode(raw, Signature, JSON), JSON) == raw
