"""Who vouches for a bundle? Signatures as OpenSSF's model signing writes them, made and checked."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import logging
import os
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct, field

from ...contract import JSON, decode, encode
from ...errors import BadInput, BundleError
from .bundles import DIGEST, MANIFEST, SIGNATURE, Bundle
from .graphs import inspect

MOST_SIGNATURES = 8
OWN = "installation"
"""The name of the key that an installation makes for itself."""

_SHA256 = ec.ECDSA(hashes.SHA256())

log = logging.getLogger("trivium.server")


class Resource(Struct):
    """A file that is vouched for."""

    name: str
    algorithm: Literal["sha256"]
    digest: str


class Serialization(Struct):
    """How the files were read."""

    method: Literal["files"] = "files"
    hash_type: Literal["sha256"] = "sha256"
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()


class Predicate(Struct):
    """What is said of the files."""

    serialization: Serialization
    resources: tuple[Resource, ...]


class Subject(Struct):
    """What all of it is called, and the digest of the files' digests."""

    name: str
    digest: dict[str, str]


class Statement(Struct, rename="camel"):
    """An in-toto statement about a bundle."""

    type: Literal["https://in-toto.io/Statement/v1"] = field(name="_type")
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://model_signing/signature/v1.0"]
    predicate: Predicate


# Whatever else stood here would be signed by nobody.
class Mark(Struct, forbid_unknown_fields=True):
    """One key's signature."""

    sig: str
    keyid: str = ""


class Envelope(Struct, rename="camel", forbid_unknown_fields=True):
    """A DSSE envelope."""

    payload: str
    payload_type: Literal["application/vnd.in-toto+json"]
    signatures: tuple[Mark, ...]


class Hint(Struct, forbid_unknown_fields=True):
    """Which key to try: the SHA-256 of its PEM."""

    hint: str = ""


class Material(Struct, rename="camel", forbid_unknown_fields=True):
    """What else a Sigstore client may look at; there is no log of transparency."""

    public_key: Hint
    tlog_entries: tuple[()] = ()


class Signature(Struct, rename="camel", forbid_unknown_fields=True):
    """A Sigstore bundle."""

    media_type: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]
    verification_material: Material
    dsse_envelope: Envelope


class PublicKey:
    """An ECDSA key on the curve P-256, which browsers check too; `id` is its SPKI's SHA-256."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.key = key
        self.pem = key.public_bytes(serialization.Encoding.PEM, form)
        spki = key.public_bytes(serialization.Encoding.DER, form)
        self.id = hashlib.sha256(spki).hexdigest()

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """Return the key in a PEM file."""
        try:
            key = serialization.load_pem_public_key(_bytes(path))
        except (ValueError, UnsupportedAlgorithm) as error:
            raise BundleError(f"{path} holds no public key in PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise BundleError(f"{path} holds {_kind(key)}; an ECDSA key on P-256 is needed")
        return cls(key)

    def made(self, mark: Mark, signed: bytes) -> bool:
        """Return whether this key made a signature."""
        if mark.keyid not in ("", self.id):
            return False
        try:
            self.key.verify(_decoded(mark.sig), signed, _SHA256)
        except (InvalidSignature, ValueError):
            return False
        return True


class PrivateKey:
    """A key that signs; `public` is what others need to check it."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self.key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def read(cls, path: Path) -> PrivateKey:
        """Return the key in a PEM file."""
        try:
            key = serialization.load_pem_private_key(_bytes(path), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: encrypted
            raise BundleError(f"{path} holds no private key in plain PEM: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise BundleError(f"{path} holds {_kind(key)}; an ECDSA key on P-256 is needed")
        return cls(key)

    @classmethod
    def make(cls) -> PrivateKey:
        """Return a new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    def write(self, folder: Path, name: str = "") -> Path:
        """Write `NAME.pem`, for its owner alone, and `NAME.pub`; a key that is there stays."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name or self.public.id[:16]}.pem"
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        partial = _beside(path)
        try:
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as f:
                f.write(pem)
            # Whoever comes second takes the key of whoever came first.
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        public = PrivateKey.read(path).public.pem
        if not path.with_suffix(".pub").exists() or _bytes(path.with_suffix(".pub")) != public:
            replace(path.with_suffix(".pub"), public)
        return path


def own(folder: Path) -> PrivateKey:
    """Return the installation's key in a folder, made once."""
    path = folder / f"{OWN}.pem"
    if not path.exists():
        path = PrivateKey.make().write(folder, OWN)
    return PrivateKey.read(path)


class Trust:
    """Whose signatures count here.

    `unsigned` also lets in, for development, bundles that carry no signature at all.
    """

    def __init__(self, keys: Sequence[PublicKey] = (), *, unsigned: bool = False) -> None:
        self.keys = keys
        self.unsigned = unsigned
        if unsigned:
            log.warning("bundles without a signature run here: this is for development only")

    @classmethod
    def read(cls, paths: Iterable[Path], *, unsigned: bool = False) -> Trust:
        """Take the keys in files, and in folders' `*.pub`; what is not there is trusted by none."""
        files: list[Path] = []
        for path in paths:
            if path.is_dir():
                files += sorted(path.glob("*.pub"))
            elif path.suffix == ".pub":
                files.append(path)
        keys = {key.id: key for key in map(PublicKey.read, files)}
        return cls(list(keys.values()), unsigned=unsigned)

    def check(self, bundle: Bundle) -> None:
        """Raise BundleError unless a key trusted here vouches for the manifest and its files."""
        if bundle.signature is None:
            if not self.unsigned:
                raise BundleError(
                    f"{bundle.name} is not signed: there is no {SIGNATURE} "
                    "(`trivium models sign` makes one)"
                )
            log.warning("%s is not signed, and runs all the same", bundle.name)
            return
        label = f"{bundle.name}/{SIGNATURE}"
        payload = vouched(label, bundle.signature, self.keys)
        try:
            statement = decode(payload, Statement, JSON)
        except BadInput as error:
            raise BundleError(f"{label}: {error.message}") from error
        resources = statement.predicate.resources
        signed = {each.name: each.digest for each in resources}
        # It only repeats the manifest's digest.
        signed.pop(DIGEST, None)
        found = digests(bundle)
        if signed != found or len({each.name for each in resources}) != len(resources):
            differ = sorted(
                name for name in signed.keys() | found.keys() if signed.get(name) != found.get(name)
            )
            what = ", ".join(differ[:3]) or "a file that is named twice"
            raise BundleError(f"{label} is not for this bundle: it differs in {what[:200]}")


def vouched(label: str, data: bytes, keys: Sequence[PublicKey]) -> bytes:
    """Return the payload of a signature; raise BundleError unless one of the keys made it."""
    envelope = _envelope(label, data)
    payload = _decoded(envelope.payload)
    if any(key.made(mark, pae(payload)) for mark in envelope.signatures for key in keys):
        return payload
    by = ", ".join(mark.keyid[:16] or "a key it does not name" for mark in envelope.signatures)
    trusted = ", ".join(key.id[:16] for key in keys) or "no key"
    raise BundleError(
        f"{label} holds no valid signature by a trusted key: it is signed by {by or 'nobody'}; "
        f"trusted here: {trusted}"
    )


def sign(folder: Path, key: PrivateKey) -> bool:
    """Vouch for a bundle whose files and graphs are right; return whether it was necessary.

    Signatures that others made over the same files stay behind the new one.
    """
    bundle = Bundle(folder)
    kept: list[Mark] = []
    if bundle.signature is not None:
        with contextlib.suppress(BundleError):  # what is no signature is replaced by one
            before = _envelope(folder.name, bundle.signature)
            if _decoded(before.payload) == _payload(bundle.name, digests(bundle)):
                kept = [mark for mark in before.signatures if mark.keyid != key.public.id]
                Trust([key.public]).check(bundle)
                return False
    bundle.verify()
    for variant in bundle.manifest.variants:
        for name in {name for names in variant.models.values() for name in names}:
            inspect(f"{bundle.name}/{name}", bundle.read(name))
    replace(folder / SIGNATURE, seal(bundle.name, digests(bundle), key, kept))
    return True


def leftovers(folder: Path, key: PublicKey) -> list[Path]:
    """Return files that a signature of this key lists and the manifest no longer does."""
    bundle = Bundle(folder)
    try:
        payload = vouched(folder.name, bundle.signature or b"", [key])
        resources = decode(payload, Statement, JSON).predicate.resources
    except (BundleError, BadInput):
        return []
    names = {each.name for each in resources} - digests(bundle).keys() - {DIGEST}
    return [folder / name for name in sorted(names) if (folder / name).is_file()]


def seal(name: str, files: Mapping[str, str], key: PrivateKey, kept: Sequence[Mark] = ()) -> bytes:
    """Return a signature over files, given with their SHA-256, and those `kept` beside it."""
    payload = _payload(name, files)
    mark = Mark(sig=_encoded(key.key.sign(pae(payload), _SHA256)), keyid=key.public.id)
    envelope = Envelope(
        payload=_encoded(payload),
        payload_type="application/vnd.in-toto+json",
        signatures=(mark, *kept[: MOST_SIGNATURES - 1]),
    )
    material = Material(public_key=Hint(hint=hashlib.sha256(key.public.pem).hexdigest()))
    return encode(
        Signature(
            media_type="application/vnd.dev.sigstore.bundle.v0.3+json",
            verification_material=material,
            dsse_envelope=envelope,
        ),
        JSON,
    )


def digests(bundle: Bundle) -> dict[str, str]:
    """Return the SHA-256 of everything that a signature vouches for."""
    files = {name: file.sha256 for name, file in bundle.manifest.files.items()}
    return {**files, MANIFEST: bundle.digest}


def pae(payload: bytes) -> bytes:
    """Return what a DSSE signature is made over."""
    kind = b"application/vnd.in-toto+json"
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def replace(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    partial = _beside(path)
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _payload(name: str, files: Mapping[str, str]) -> bytes:
    resources = tuple(
        Resource(name=file, algorithm="sha256", digest=digest)
        for file, digest in sorted(files.items())
    )
    root = hashlib.sha256(b"".join(bytes.fromhex(each.digest) for each in resources))
    return encode(
        Statement(
            type="https://in-toto.io/Statement/v1",
            subject=(Subject(name=name, digest={"sha256": root.hexdigest()}),),
            predicate_type="https://model_signing/signature/v1.0",
            predicate=Predicate(
                serialization=Serialization(ignore_paths=(SIGNATURE, DIGEST)),
                resources=resources,
            ),
        ),
        JSON,
    )


def _envelope(label: str, data: bytes) -> Envelope:
    try:
        envelope = decode(data, Signature, JSON).dsse_envelope
        for text in (envelope.payload, *(mark.sig for mark in envelope.signatures)):
            if _encoded(_decoded(text)) != text:
                raise BadInput("its base64 is not in the one form there is")
    except BadInput as error:
        raise BundleError(f"{label} is no signature: {error.message}") from error
    except (binascii.Error, ValueError) as error:
        raise BundleError(f"{label} is no signature: {error}") from error
    if len(envelope.signatures) > MOST_SIGNATURES:
        raise BundleError(
            f"{label} holds {len(envelope.signatures)} signatures; at most {MOST_SIGNATURES} "
            "are allowed"
        )
    return envelope


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} can't be read: {error.strerror}") from error


def _kind(key: object) -> str:
    curve = getattr(getattr(key, "curve", None), "name", "")
    return f"a key on {curve}" if curve else f"an {type(key).__name__.removeprefix('_')}"
