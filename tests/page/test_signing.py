"""Every way to get a bundle to run in a page for which nobody that it trusts has vouched."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

import page.bundles as bundles
from page.gateway import Gateway, sign
from page.opened import Opened
from trivium.hosts.server.bundles import SIGNATURE
from trivium.hosts.server.signing import PrivateKey, pae

pytestmark = pytest.mark.browser

ENVELOPE = "dsseEnvelope"
STRANGER = PrivateKey.make()
HERE: dict[str, Any] = {"tiers": ["page"]}
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""How many points P-256 has."""

Visit = Callable[[Gateway], Opened]


def named(name: str, source: str = bundles.SHOUT) -> bundles.Bundle:
    """Return a bundle of its own that shouts."""
    schema = bundles.text(name, "Say it louder.")
    return bundles.bundle(source.replace("shout", name), schema)


class Way:
    """One tampered bundle at a gateway: what of it the page gets."""

    def __init__(self, gateway: Gateway, name: str) -> None:
        self.gateway = gateway
        self.name = f"text.{name}"
        gateway.serve(*named(name))
        self.right = sign(self.name, self.files, gateway.key)

    @property
    def files(self) -> dict[str, bytes]:
        """Return the files as they were packaged."""
        return dict(self.gateway.bundles[self.name])

    def give(self, file: str, data: bytes | None) -> None:
        """Give other bytes for a file, or say that there is none."""
        self.gateway.tampered[self.name, file] = data

    def flip(self, file: str, place: int = -2) -> None:
        """Change one bit of a file."""
        data = bytearray(self.files[file])
        data[place] ^= 1
        self.give(file, bytes(data))

    def signature(self, change: Callable[[Any], object]) -> None:
        """Change the signature's JSON."""
        made = json.loads(self.right)
        change(made)
        self.give(SIGNATURE, json.dumps(made).encode())

    def mark(self, make: Callable[[bytes], bytes], keyid: str = "") -> None:
        """Put another signature over the right payload in."""

        def change(made: Any) -> None:
            sig = base64.b64encode(make(base64.b64decode(made[ENVELOPE]["payload"]))).decode()
            made[ENVELOPE]["signatures"] = [{"sig": sig, "keyid": keyid}]

        self.signature(change)

    def state(self, change: Callable[[Any], object], again: bool = False) -> None:
        """Change what is signed; `again` signs it by the trusted key, which no stranger could."""

        def work(made: Any) -> None:
            statement = json.loads(base64.b64decode(made[ENVELOPE]["payload"]))
            change(statement)
            payload = json.dumps(statement).encode()
            made[ENVELOPE]["payload"] = base64.b64encode(payload).decode()
            if again:
                sig = self.made(payload)
                made[ENVELOPE]["signatures"][0]["sig"] = base64.b64encode(sig).decode()

        self.signature(work)

    def made(self, payload: bytes) -> bytes:
        """Return the trusted key's signature over a payload."""
        return self.gateway.key.key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))

    def replace(self, **files: str) -> None:
        """Replace the manifest and what it pins, as whoever may write at the gateway can."""
        short = self.name.removeprefix("text.")
        self.gateway.serve(*named(short, bundles.SHOUT + "# mine now\n"))


def swap(way: Way) -> None:
    other = named("other").files
    way.give("function.py", other["function.py"])


def replaced(way: Way) -> None:
    way.replace()
    way.give(SIGNATURE, way.right)


def replaced_and_signed(way: Way) -> None:
    way.replace()
    way.give(SIGNATURE, sign(way.name, way.files, STRANGER))


def another_name(way: Way) -> None:
    other = named("other")
    way.gateway.bundles[way.name] = other.files
    way.give(SIGNATURE, sign("text.other", other.files, way.gateway.key))


def another_curve(payload: bytes) -> bytes:
    return ec.generate_private_key(ec.SECP384R1()).sign(pae(payload), ec.ECDSA(hashes.SHA256()))


def stranger(payload: bytes) -> bytes:
    return STRANGER.key.sign(pae(payload), ec.ECDSA(hashes.SHA256()))


def numbers(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def longer(der: bytes) -> bytes:
    """Return the same numbers in a form that is not strict: a zero too many."""
    size = der[3]
    return bytes([0x30, der[1] + 1, 2, size + 1, 0]) + der[4:]


WAYS: dict[str, tuple[Callable[[Way], object], str]] = {
    "manifest_byte": (lambda way: way.flip("manifest.json"), "manifest.json has the SHA-256"),
    "file_byte": (lambda way: way.flip("function.py"), "function.py has the SHA-256"),
    "file_gone": (lambda way: way.give("function.py", None), ""),
    "file_swapped": (swap, "function.py has the SHA-256"),
    "manifest_none": (
        lambda way: way.gateway.bundles.update(
            {
                way.name: {
                    **way.files,
                    "manifest.json": b'{"name": "%s", "version": "1"}' % way.name.encode(),
                }
            }
        ),
        "is no manifest",
    ),
    "signature_gone": (lambda way: way.give(SIGNATURE, None), "is not signed"),
    "signature_empty": (lambda way: way.give(SIGNATURE, b""), "is no signature"),
    "signature_half": (lambda way: way.give(SIGNATURE, way.right[:-99]), "is no signature"),
    "signature_deep": (lambda way: way.give(SIGNATURE, b"[" * 200_000), "is no signature"),
    "signature_huge": (lambda way: way.give(SIGNATURE, b" " * (1 << 20) + way.right), "bytes"),
    "signature_other": (
        lambda way: way.give(SIGNATURE, sign("text.count", bundles.count().files, way.gateway.key)),
        "is not for this bundle: it differs in function.py, manifest.json",
    ),
    "signature_stranger": (
        lambda way: way.give(SIGNATURE, sign(way.name, way.files, STRANGER)),
        f"by a trusted key: it is signed by {STRANGER.public.id[:16]}",
    ),
    "stranger_as_us": (
        lambda way: way.mark(stranger, way.gateway.key.public.id),
        "no valid signature",
    ),
    "curve": (lambda way: way.mark(another_curve), "no valid signature"),
    "ed25519": (
        lambda way: way.mark(ed25519.Ed25519PrivateKey.generate().sign),
        "no valid signature",
    ),
    "numbers": (lambda way: way.mark(lambda each: numbers(way.made(each))), "no valid signature"),
    "der_longer": (lambda way: way.mark(lambda each: longer(way.made(each))), "no valid"),
    "der_more": (lambda way: way.mark(lambda each: way.made(each) + b"\0"), "no valid signature"),
    "der_half": (lambda way: way.mark(lambda each: way.made(each)[:-1]), "no valid signature"),
    "zero": (lambda way: way.mark(lambda _: encode_dss_signature(0, 0)), "no valid signature"),
    "order": (lambda way: way.mark(lambda _: encode_dss_signature(ORDER, ORDER)), "no valid"),
    "nothing": (lambda way: way.mark(lambda _: b""), "no valid signature"),
    "nobody": (
        lambda way: way.signature(lambda made: made[ENVELOPE].update(signatures=[])),
        "signed by nobody",
    ),
    "too_many": (
        lambda way: way.signature(
            lambda made: made[ENVELOPE].update(signatures=9 * made[ENVELOPE]["signatures"])
        ),
        "9 signatures",
    ),
    "payload_type": (
        lambda way: way.signature(lambda made: made[ENVELOPE].update(payloadType="text/plain")),
        "is no signature",
    ),
    "payload_more": (
        lambda way: way.signature(lambda made: made[ENVELOPE].update(payload2="e30=")),
        "it holds payload2",
    ),
    "base64": (
        lambda way: way.signature(
            lambda made: made[ENVELOPE].update(payload="\n" + made[ENVELOPE]["payload"])
        ),
        "is no signature",
    ),
    "statement": (
        lambda way: way.state(lambda each: each["predicate"]["resources"].pop()),
        "no valid signature",
    ),
    "statement_less": (
        lambda way: way.state(lambda each: each["predicate"]["resources"].pop(0), True),
        "is not for this bundle: it differs in function.py",
    ),
    "statement_twice": (
        lambda way: way.state(
            lambda each: each["predicate"]["resources"].append(each["predicate"]["resources"][0]),
            True,
        ),
        "it names function.py twice",
    ),
    "statement_kind": (
        lambda way: way.state(lambda each: each.update(predicateType="https://x"), True),
        "is no statement",
    ),
    "replaced": (replaced, "is not for this bundle: it differs in function.py, manifest.json"),
    "replaced_signed": (replaced_and_signed, "no valid signature by a trusted key"),
    "another_name": (another_name, "holds the bundle of text.other"),
}


FLIPS = [f"flip_{number}" for number in range(24)]


def flipped(way: Way, random: Random) -> None:
    """Change a byte of the signature, but for what tells a client which key to try."""
    data = bytearray(way.right)
    hint = data.index(b'"hint":"') + 8
    place = random.choice([*range(hint), *range(hint + 64, len(data))])
    data[place] ^= random.randrange(1, 256)
    way.give(SIGNATURE, bytes(data))


@pytest.fixture(scope="module")
def tampered(headless: Any) -> Iterator[Opened]:
    """Return a page whose gateway has a bundle for each way, beside the right ones."""
    gateway = Gateway(dict(bundles.toys()))
    gateway.serve(*named("right"))
    for name, (tamper, _) in WAYS.items():
        tamper(Way(gateway, name))
    random = Random(0)
    for name in FLIPS:
        flipped(Way(gateway, name), random)
    tab = headless.new_page()
    names = ("right", "count", *WAYS, *FLIPS)
    yield Opened(tab, gateway).ready(*(f"text.{name}" for name in names))
    tab.close()
    gateway.close()


@pytest.mark.parametrize("name", WAYS)
def test_nothing_of_a_tampered_bundle_runs(tampered: Opened, name: str) -> None:
    """The page says `bad_bundle` and why; where nobody vouches, its code is not even fetched."""
    expected = WAYS[name][1]
    refused = tampered.ask(f"text.{name}", text="hi", **HERE)
    if expected:
        assert (refused["code"], f"text.{name}" in refused["message"]) == ("bad_bundle", True)
        assert expected in refused["message"]
    else:
        assert refused["code"] == "tier_failed"
    if "file" not in name:
        paths = [path for _, path in tampered.gateway.seen if f"/text.{name}/" in path]
        assert paths
        assert [path for path in paths if path.endswith("function.py")] == []


def test_no_byte_of_a_signature_can_be_changed(tampered: Opened) -> None:
    """Wherever it is."""
    for name in FLIPS:
        refused = tampered.ask(f"text.{name}", text="hi", **HERE)
        assert refused.get("code") == "bad_bundle", (name, refused)


def test_the_others_answer(tampered: Opened) -> None:
    """In the page itself; what it refuses may still run at the edge, which has its own trust."""
    for name, output in (("right", "HI!"), ("shout", "HI!")):
        answer = tampered.ask(f"text.{name}", text="hi", **HERE)
        assert (answer["output"], answer["tier"]) == (output, "page")
    assert tampered.ask("text.curve", text="hi")["tier"] == "edge"


def connect(page: Opened, name: str, **options: Any) -> Any:
    """Ask in the page over a connection of its own, and return the answer or the error."""
    return page.page.evaluate(
        """async ([name, options]) => {
            const own = await window.trivium.constructor.connect(options);
            try { return await own.infer(name, { text: "hi" }, { tiers: ["page"] }); }
            catch (error) { return { code: error.code, message: error.message }; }
            finally { own.close(); }
        }""",
        [name, options],
    )


def test_a_page_may_bring_its_own_keys(shared: Opened) -> None:
    """Then those of the gateway do not count."""
    own, other = shared.gateway.key.public.pem.decode(), STRANGER.public.pem.decode()
    assert connect(shared, "text.shout", trust=[other, own])["output"] == "HI!"
    refused = connect(shared, "text.shout", trust=[other])
    assert refused["code"] == "bad_bundle"
    assert f"trusted here: {STRANGER.public.id[:16]}" in refused["message"]
    assert connect(shared, "text.shout", trust=[])["message"].endswith("trusted here: no key")
    odd = connect(shared, "text.shout", trust=[own.replace("M", "N", 1)])
    assert (odd["code"], "a trusted key is none" in odd["message"]) == ("bad_bundle", True)


def test_unsigned_bundles_run_where_it_is_told(visit: Visit, gateway: Gateway) -> None:
    """For development; one that is signed wrongly does not."""
    gateway.tampered["text.shout", SIGNATURE] = None
    gateway.tampered["text.count", SIGNATURE] = sign("text.count", bundles.count().files, STRANGER)
    page = visit(gateway).ready("text.double", "text.shout", "text.count")
    assert connect(page, "text.shout")["code"] == "bad_bundle"
    assert connect(page, "text.shout", unsigned=True)["output"] == "HI!"
    assert connect(page, "text.count", unsigned=True)["code"] == "bad_bundle"


def test_keys_are_rotated_while_a_page_is_open(visit: Visit, gateway: Gateway) -> None:
    """It takes the bundle that the new key signed, once its gateway trusts that."""
    page = visit(gateway).ready("text.shout")
    assert page.ask("text.shout", text="hi", **HERE)["version"] == "1"
    gateway.key = PrivateKey.make()
    gateway.serve(*bundles.shout("2"))
    asked = page.ask("text.shout", text="hi", **HERE)
    assert asked["version"] == "1"
    assert page.run("return await trivium.functions()")
    gateway.trusted.append(gateway.key.public)
    page.ask("text.shout", text="hi", tiers=["edge"])
    assert page.ask("text.shout", text="hi", **HERE)["version"] == "2"
