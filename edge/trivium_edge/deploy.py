"""How does what runs here get elsewhere: as containers, or as files for any CDN?"""

from __future__ import annotations

import argparse
import datetime
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from trivium.contract import JSON, Tier, encode
from trivium.errors import BundleError, TierError
from trivium.hosts.server.bundles import MANIFEST, SIGNATURE, Bundle, find
from trivium.hosts.server.serve import KEYS, ZOO, add_functions, build, functions
from trivium.hosts.server.signing import Trust

from . import wheel

EDGE = Path("edge/deploy")
CLOUD = Path("cloud/deploy")
PAGE = Path("wasm/page/dist")
LOCKS = Path("requirements")
SOURCES = ("wasm/trivium", "edge/trivium_edge", "cloud/trivium_cloud", "models/trivium_models")
HEADERS = """\
/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  Cross-Origin-Resource-Policy: same-origin
  X-Content-Type-Options: nosniff
/v1/*
  Content-Type: application/json
/bundles/*
  Cache-Control: public, max-age=31536000, immutable
"""


def main(arguments: Sequence[str]) -> int:
    """Write a folder that can be deployed, and say what to do with it."""
    parser = argparse.ArgumentParser(
        prog="trivium deploy", description="Write what it takes to run Trivium elsewhere."
    )
    parser.add_argument("--target", choices=("compose", "static"), required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="a new folder")
    add_functions(parser)
    parser.add_argument("--host", default="localhost", help="the name it is reached by (localhost)")
    options = parser.parse_args(arguments)
    out: Path = options.out
    if out.exists() and any(out.iterdir()):
        raise TierError(f"{out} is not empty; name a new folder by --out")
    if not PAGE.is_dir():
        raise TierError(f"there is no {PAGE}; run scripts/install")
    out.mkdir(parents=True, exist_ok=True)
    bundles = list(_bundles([each for given in options.functions for each in functions(given)]))
    if options.target == "static":
        static(out, bundles)
        _say(f"{out} is a site of {len(bundles)} functions; serve it over HTTPS, with the headers")
        _say("that _headers lists (some CDNs read that file), and its 404s as they are")
    else:
        compose(out, bundles, options.host)
        _say(f"{out} has {len(bundles)} functions; in it: docker compose up --build --detach")
        _say(f"then https://{options.host}/ and https://{options.host}/ops/, by the key in .env;")
        _say("tls/ holds a certificate of its own making: put yours there")
    return 0


def _bundles(folders: Sequence[Path]) -> Iterator[Bundle]:
    """Yield the bundles that are whole and trusted here, a user's among them."""
    roots = [ZOO]
    if folders:
        roots.append(Path(".trivium/bundles"))
        if not build(folders, roots[-1]):
            raise TierError("a function could not be built; see above")
    trust, own = Trust.read([KEYS]), {folder.name for folder in folders}
    for folder in find(roots):
        bundle = Bundle(folder)
        if bundle.absent or (folder.parent == roots[-1] and folders and folder.name not in own):
            continue
        try:
            trust.check(bundle)
            bundle.verify()
        except BundleError as error:
            if folder.name in own:
                raise TierError(f"{folder.name} can't be deployed: {error.message}") from error
            _say(f"without {folder.name}: {error.message}")
            continue
        yield bundle


def static(out: Path, bundles: Sequence[Bundle]) -> None:
    """Write the page, and what it asks a gateway for as far as that is the same for all."""
    shutil.copytree(PAGE, out, dirs_exist_ok=True)
    shutil.rmtree(out / "ops", ignore_errors=True)  # these figures are a gateway's
    listed = []
    for bundle in bundles:
        variant = bundle.manifest.variant(Tier.PAGE)
        if variant is None:
            continue
        listed.append(
            {"name": bundle.name, "version": bundle.manifest.version, "digest": bundle.digest}
        )
        mine = {graph for graphs in variant.models.values() for graph in graphs}
        others = {
            graph
            for each in bundle.manifest.variants
            for graphs in each.models.values()
            for graph in graphs
        } - mine
        home = out / "bundles" / bundle.name / bundle.digest
        home.mkdir(parents=True)
        (home / MANIFEST).write_bytes(bundle.raw)
        if bundle.signature is not None:
            (home / SIGNATURE).write_bytes(bundle.signature)
        for name in bundle.manifest.files.keys() - others:
            (home / name).write_bytes(bundle.read(name))
    (out / "v1").mkdir()
    (out / "v1/bundles").write_bytes(encode(listed, JSON))
    keys = [{"id": key.id, "pem": key.pem.decode()} for key in Trust.read([KEYS]).keys]
    (out / "v1/keys").write_bytes(encode(keys, JSON))
    # No road leads farther than the page.
    (out / "v1/roads").write_bytes(b"{}")
    (out / "runtime/kernel.whl").write_bytes(wheel.kernel())
    (out / "_headers").write_text(HEADERS)


def compose(out: Path, bundles: Sequence[Bundle], host: str) -> None:
    """Write images' contexts, their settings, keys and a certificate."""
    shutil.copy(EDGE / "Dockerfile", out / "edge.Dockerfile")
    shutil.copy(CLOUD / "Dockerfile", out / "cloud.Dockerfile")
    for name in ("compose.yaml", "nginx.conf"):
        shutil.copy(EDGE / name, out / name)
    for name in ("prometheus", "grafana"):
        shutil.copytree(EDGE / name, out / name)
    (out / ".dockerignore").write_text("*\n!image\n")
    image = out / "image"
    image.mkdir()
    for name in ("cpu.txt", "gpu.txt"):
        shutil.copy(LOCKS / name, image / name)
    shutil.copytree(PAGE, image / "page")
    _wheel(image)
    for bundle in bundles:
        shutil.copytree(bundle.folder, out / "bundles" / bundle.name)
    (out / "trust").mkdir()
    for key in KEYS.glob("*.pub"):
        shutil.copy(key, out / "trust" / key.name)
    names = ("CLOUD_KEY", "EDGE_KEY", "TRACES_KEY", "EDGE_SECRET", "WEBHOOK_SECRET")
    made = {name: secrets.token_urlsafe(32) for name in (*names, "GRAFANA_PASSWORD")}
    made["ORIGIN"] = f"https://{host}"
    _private(out / ".env", "".join(f"{name}={value}\n" for name, value in made.items()))
    (out / "secrets").mkdir(mode=0o700)
    for name, value in (("ops_key", made["EDGE_KEY"]), ("cloud_key", made["CLOUD_KEY"])):
        # Prometheus runs as nobody: the folder is what keeps others out.
        (out / "secrets" / name).write_text(value)
    _certificate(out / "tls", host)


def _wheel(out: Path) -> None:
    """Make a wheel of the whole of Trivium, of a copy: what builds it leaves traces."""
    with TemporaryDirectory() as place:
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copy(name, place)
        for path in SOURCES:
            shutil.copytree(path, Path(place) / path)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        command += ["--no-build-isolation", "--wheel-dir", str(out.absolute()), place]
        if subprocess.run(command, check=False).returncode:  # noqa: S603 # our own
            raise TierError("the wheel could not be made; see above")


def _certificate(folder: Path, host: str) -> None:
    """Make a certificate for `host` that vouches for itself, so that there is one to begin with."""
    folder.mkdir(mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _private(folder / "tls.key", pem.decode())


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _say(line: str) -> None:
    print(line, file=sys.stderr)  # noqa: T201
