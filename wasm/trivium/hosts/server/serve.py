"""How does one command run a cloud and an edge on this machine, and stop both for sure?"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import httpx

from ...contract import Tier
from ...errors import TierError, TriviumError
from . import check
from .bundles import Bundle, find
from .child import Child
from .signing import Trust
from .valkey import Valkey

START_S = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)
HOME = Path(".trivium")
KEYS = HOME / "keys"
BUILT_IN = Path("models/functions")
ZOO = Path("models/zoo")


class Stop(Exception):  # a request, not an error
    """Somebody asked for the servers to stop."""


def main(arguments: Sequence[str]) -> int:
    """Run both servers until a signal, or with `--check` until every function was checked."""
    options = _parser().parse_args(arguments)
    options.json = options.json and options.check
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        with contextlib.ExitStack() as stack:
            return _run(options, stack)
    except Stop:
        _say("stopped")
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/serve",
        description="Set up and run Trivium here: the page, an edge gateway and a cloud server.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_number, default=8080, help="the edge's port (%(default)s)")
    parser.add_argument(
        "--cloud-port", type=_number, default=8081, help="the cloud's port (%(default)s)"
    )
    add_functions(parser)
    parser.add_argument(
        "--reload",
        action="store_true",
        help="rebuild functions when they are saved, and show failures with their own line",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="on free ports, ask every function on every tier, print a table and stop",
    )
    parser.add_argument(
        "--json", action="store_true", help="with --check: one JSON object a line on stdout"
    )
    return parser


def _run(options: argparse.Namespace, stack: contextlib.ExitStack) -> int:
    host = options.host
    if options.check:
        options.port, options.cloud_port = _free_ports(host)
    else:
        stack.enter_context(_alone())
    _port(host, options.port, "--port")
    _port(host, options.cloud_port, "--cloud-port")
    folders = [each for folder in options.functions for each in functions(folder)]
    roots = [ZOO]
    if folders:
        # A check beside servers that run takes nothing away from them.
        roots.append(HOME / ("checked" if options.check else "bundles"))
        shutil.rmtree(roots[-1], ignore_errors=True)  # what was served last time is not asked for
        if not build(folders, roots[-1]):
            raise TierError("a function could not be built; see above")
    key = _key()
    cloud_key, traces_key = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    address = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::1") else host  # noqa: S104
    url, own = (_url(each, options.port, Tier.EDGE) for each in (address, host))
    cloud_url = _url(host, options.cloud_port, Tier.CLOUD)
    bundles = ":".join(map(str, roots))
    development = "1" if options.reload else ""
    keeping = _keeping(options, stack)
    settings = {
        "TRIVIUM_CLOUD_BUNDLES": bundles,
        "TRIVIUM_CLOUD_KEYS": cloud_key,
        "TRIVIUM_CLOUD_TRUST": str(KEYS),
        "TRIVIUM_CLOUD_DEVELOPMENT": development,
        "TRIVIUM_CLOUD_WEBHOOK_SECRET": _key("webhooks"),
        **({"TRIVIUM_REDIS_URL": keeping.url} if keeping else {}),
        **({} if options.check else _traced(own, traces_key)),
    }
    cloud = Process(Tier.CLOUD, host, options.cloud_port, settings)
    worker = Child("worker", [sys.executable, "-m", "trivium_cloud.worker"], settings)
    edge = Process(
        Tier.EDGE,
        host,
        options.port,
        {
            "TRIVIUM_EDGE_BUNDLES": bundles,
            "TRIVIUM_EDGE_CLOUD_URL": cloud_url,
            "TRIVIUM_EDGE_CLOUD_KEY": cloud_key,
            "TRIVIUM_EDGE_KEYS": key,
            "TRIVIUM_EDGE_ORIGINS": f"{url},{own}",
            "TRIVIUM_EDGE_TRUST": str(KEYS),
            "TRIVIUM_EDGE_DEVELOPMENT": development,
            # A check is no part of what happened here.
            "TRIVIUM_EDGE_HISTORY": "" if options.check else str(HOME / "history"),
            "TRIVIUM_EDGE_TRACES_KEYS": traces_key,
        },
    )
    for process in (cloud, edge, worker):
        stack.enter_context(process)
    cloud.wait()
    edge.wait()
    _joined(own)
    known, refused, absent = _bundles(roots)
    for bundle in absent:
        _say(f"{bundle.name} can be had: trivium models pull {bundle.name} ({bundle.megabytes} MB)")
    checker = check.Checker(own, key, known)
    task = check.Checker(cloud_url, cloud_key, known).task()
    if options.check:
        rows = [*refused, *checker.servers(), *task, *checker.page(url)]
        return check.show(rows, options.json)
    rows = [*refused, *checker.ready({each.name for each in find(roots[1:])}), *task]
    for row in rows:
        if not row.ok:
            _say(f"{row.function} on the {row.tier}: {row.output}")
    if not any(row.ok for row in rows):
        raise TierError("no function could be answered; see above")
    _say(f"ready: {sum(row.ok for row in rows)} asks answered by {_tiers(rows)}")
    _say(f"  page     {url}")
    _say(f"  API key  {key}   (development; send it as 'Authorization: Bearer KEY')")
    _say(f"  API      {url}/openapi.json")
    _say(f"  ops      {url}/ops/   with the same key")
    _say("  Ctrl-C stops everything")
    again = [worker, keeping] if keeping else [worker]
    _follow(folders if options.reload else [], options.reload, roots[-1], [cloud, edge], again)
    return 1


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep this folder's bundles, tasks and history from a second command of this kind."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise TierError(
                f"{HOME.resolve()} is in use by another scripts/serve (process {lock.read()}); "
                "stop that one, or run this one in a folder of its own"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _keeping(options: argparse.Namespace, stack: contextlib.ExitStack) -> Valkey | None:
    """Run a Valkey, unless there is a Redis; a check's is of its own."""
    if os.environ.get("TRIVIUM_REDIS_URL"):
        return None
    folder = HOME / "valkey"
    if options.check:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trivium-")))
    return stack.enter_context(Valkey(folder))


class Process(Child):
    """One server in a process of its own, which dies with this one whatever happens."""

    def __init__(self, tier: Tier, host: str, port: int, settings: dict[str, str]) -> None:
        self.tier = tier
        self.url = _url(host, port, tier)
        super().__init__(
            tier,
            [
                sys.executable,
                *("-m", "trivium.hosts.server.listen", tier, "--host", host, "--port", str(port)),
            ],
            settings,
        )

    def __enter__(self) -> Process:
        self.start()
        return self

    def wait(self) -> None:
        """Wait until the server answers; raise TierError if it does not."""
        started = time.monotonic()
        while time.monotonic() - started < START_S:
            if self.code() is not None:
                raise TierError(f"the {self.tier} did not start (exit code {self.code()})")
            with contextlib.suppress(httpx.HTTPError):
                url = f"{self.url}/health/live"
                if httpx.get(url, trust_env=False, verify=check.own()).status_code == 200:
                    _say(f"{self.tier} is up after {time.monotonic() - started:.1f} s")
                    return
            time.sleep(0.05)
        raise TierError(f"the {self.tier} did not answer within {START_S:.0f} s")


def _joined(url: str) -> None:
    """Wait until the edge knows the cloud's roads; raise TierError if it never does."""
    started = time.monotonic()
    while time.monotonic() - started < START_S:
        found = httpx.get(f"{url}/v1/roads", trust_env=False, verify=check.own())
        roads = found.json().values()
        if not roads or any(
            road["tier"] == Tier.CLOUD and road["ready"] for each in roads for road in each
        ):
            return
        time.sleep(0.05)
    raise TierError("the edge does not reach the cloud")


def build(folders: Sequence[Path], out: Path, quick: bool = False) -> bool:
    """Build functions into bundles by the compile kit's command; return whether all worked.

    A `quick` build measures nothing: a saved file should answer at once.
    """
    command = [sys.executable, "-m", "trivium.hosts.server.command", "models", "build"]
    arguments = [*command, *map(str, folders), "--out", str(out)]
    arguments += ["--quick"] if quick else []
    done = subprocess.run(arguments, check=False, stdout=sys.stderr)  # noqa: S603 # our own
    return done.returncode == 0


def _follow(
    folders: Sequence[Path],
    reload: bool,
    out: Path,
    processes: Sequence[Process],
    again: Sequence[Child],
) -> None:
    """Rebuild what is saved, and say if a server ends; return when none is left.

    What may die of a task, or has all on its disk, is started `again`.
    """
    watched = dict.fromkeys(folders, out)
    if reload:
        watched |= dict.fromkeys(functions(BUILT_IN), ZOO)
    seen = {folder: _stamp(folder) for folder in watched}
    running = list(processes)
    while running:
        time.sleep(0.3)
        for process in list(running):
            if process.code() is not None:
                _say(f"the {process.tier} ended (exit code {process.code()}); the rest goes on")
                running.remove(process)
        for child in again:
            if child.code() is not None:
                _say(f"the {child.name} ended (exit code {child.code()}); it is started again")
                time.sleep(1.0)
                child.start()
        for folder, target in watched.items():
            stamp = _stamp(folder)
            if stamp != seen[folder]:
                seen[folder] = stamp
                if build([folder], target, quick=True):
                    _say(f"{folder.name} is rebuilt")


def _bundles(roots: Sequence[Path]) -> tuple[list[Bundle], list[check.Row], list[Bundle]]:
    known, refused, absent = [], [], []
    trust = Trust.read([KEYS])
    for folder in find(roots):
        try:
            bundle = Bundle(folder)
            if bundle.absent:
                absent.append(bundle)
                continue
            trust.check(bundle)
            bundle.verify()
            known.append(bundle)
        except TriviumError as error:
            refused.append(check.Row.refused(folder.name, error))
    return known, refused, absent


def add_functions(parser: argparse.ArgumentParser) -> None:
    """Let a command take functions of its user's."""
    parser.add_argument(
        "--functions",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="a folder with a function of yours, or with several; may be repeated",
    )


def functions(folder: Path) -> Iterator[Path]:
    """Yield the folders with a function: this one, or those right below it."""
    if (folder / "function.py").is_file():
        yield folder
        return
    below = sorted(path.parent for path in folder.glob("*/function.py"))
    if not below:
        raise TierError(f"{folder} holds no function.py, nor does a folder right below it")
    yield from below


def _stamp(folder: Path) -> int:
    try:
        names = [path for path in folder.iterdir() if path.suffix in (".py", ".toml")]
        return max((path.stat().st_mtime_ns for path in names), default=0)
    except OSError:
        return 0  # an editor is just replacing it


def _traced(url: str, key: str) -> dict[str, str]:
    """Return what makes a server send its spans to the gateway, which keeps or exports them."""
    found = {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"authorization=Bearer%20{key}",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
        "OTEL_BSP_SCHEDULE_DELAY": "1000",
    }
    # One that is signed by itself is vouched for by nobody else.
    certificate = os.environ.get("TRIVIUM_EDGE_CERTIFICATE")
    if certificate and "OTEL_EXPORTER_OTLP_CERTIFICATE" not in os.environ:
        found["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"] = certificate
    return found


def _key(name: str = "key") -> str:
    """Return this installation's development key, made once and readable by its owner alone."""
    path = HOME / name
    if not path.exists():
        HOME.mkdir(exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


def _number(text: str) -> int:
    port = int(text)
    if not 0 < port < 1 << 16:
        raise argparse.ArgumentTypeError(f"{port} is not from 1 to 65535")
    return port


def _port(host: str, port: int, flag: str) -> None:
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TierError(
                f"port {port} on {host} can't be used ({error.strerror}); choose another by {flag}"
            ) from error


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)


def _url(host: str, port: int, tier: Tier) -> str:
    scheme = "https" if os.environ.get(f"TRIVIUM_{tier.upper()}_CERTIFICATE") else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _free_ports(host: str) -> tuple[int, int]:
    with _socket(host) as one, _socket(host) as two:
        one.bind((host, 0))
        two.bind((host, 0))
        return one.getsockname()[1], two.getsockname()[1]


def _tiers(rows: Sequence[check.Row]) -> str:
    return " and ".join(sorted({row.tier for row in rows if row.ok}, reverse=True))


def _stop(_: int, __: FrameType | None) -> None:
    # A second signal must not interrupt the clean-up half-way.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise Stop


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
