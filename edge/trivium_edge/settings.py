"""What can be set on an edge gateway?"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivium.hosts.server.access import Policy
from trivium.hosts.server.tls import Tls, link
from trivium.hosts.timing import Timing

PREFIX = "TRIVIUM_EDGE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Read once, at start.

    `bundles` are the folders that hold bundles, `page` the built page. `cloud_url` and `cloud_key`
    name the next hop, `cloud_ca` who vouches for it, `cloud_certificate` with its
    `cloud_certificate_key` what is shown to it; `keys` are the API keys that may ask, `origins` the
    pages that may. `secret` signs the pages' tokens: set it where several gateways share an
    address. `trust` are public
    keys, or folders of them, whose signatures on bundles count here and in our pages; `unsigned`
    lets in bundles without one. `development` follows changed bundles, and tells callers the line
    at which a function failed. `shadows` is the share of the asks after which another road may be
    asked the same, to learn how long it would have taken. `page_tenant` is whose all pages are;
    without it each visitor is a tenant. `access` is what callers must show, `tls`
    how they are connected. `history` is the folder that keeps what
    happened, traces for `history_hours` and up to `history_mb`; without it there are no operators'
    views. `traces_keys` may send spans of other tiers.
    """

    bundles: tuple[Path, ...]
    page: Path
    cloud_url: str = ""
    cloud_key: str = ""
    cloud_ca: Path | None = None
    cloud_certificate: Path | None = None
    cloud_certificate_key: Path | None = None
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    trust: tuple[Path, ...] = ()
    unsigned: bool = False
    development: bool = False
    shadows: float = Timing.shadows
    page_tenant: str = ""
    access: Policy = field(default_factory=Policy)
    tls: Tls = field(default_factory=Tls)
    history: Path | None = None
    history_hours: float = 24.0
    history_mb: float = 512.0
    traces_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.shadows <= 1:
            raise ValueError(f"{PREFIX}SHADOWS is {self.shadows}; it must be from 0 to 1")
        for name, value in (("HOURS", self.history_hours), ("MB", self.history_mb)):
            if not 0 < value < 1e9:
                raise ValueError(f"{PREFIX}HISTORY_{name} is {value}; it must be above 0")

    def link(self) -> ssl.SSLContext | None:
        """Return how the cloud is connected to; none for what is usual."""
        return link(self.cloud_ca, self.cloud_certificate, self.cloud_certificate_key)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read `TRIVIUM_EDGE_*`; lists are separated as PATH is, keys and origins by commas."""

        def words(name: str) -> tuple[str, ...]:
            given = environ.get(PREFIX + name, "").split(",")
            return tuple(filter(None, (each.strip() for each in given)))

        def path(name: str) -> Path | None:
            return Path(given) if (given := environ.get(PREFIX + name, "")) else None

        return cls(
            bundles=tuple(
                Path(each) for each in environ.get(f"{PREFIX}BUNDLES", "models/zoo").split(":")
            ),
            page=Path(environ.get(f"{PREFIX}PAGE", "wasm/page/dist")),
            cloud_url=environ.get(f"{PREFIX}CLOUD_URL", ""),
            cloud_key=environ.get(f"{PREFIX}CLOUD_KEY", ""),
            keys=words("KEYS"),
            origins=words("ORIGINS"),
            trust=tuple(
                Path(each)
                for each in environ.get(f"{PREFIX}TRUST", ".trivium/keys").split(":")
                if each
            ),
            unsigned=environ.get(f"{PREFIX}UNSIGNED", "") == "1",
            development=environ.get(f"{PREFIX}DEVELOPMENT", "") == "1",
            shadows=float(environ.get(f"{PREFIX}SHADOWS") or Timing.shadows),
            page_tenant=environ.get(f"{PREFIX}PAGE_TENANT", ""),
            access=Policy.from_env(environ, PREFIX),
            tls=Tls.from_env(environ, PREFIX),
            cloud_ca=path("CLOUD_CA"),
            cloud_certificate=path("CLOUD_CERTIFICATE"),
            cloud_certificate_key=path("CLOUD_CERTIFICATE_KEY"),
            history=Path(folder) if (folder := environ.get(f"{PREFIX}HISTORY")) else None,
            history_hours=float(environ.get(f"{PREFIX}HISTORY_HOURS") or 24.0),
            history_mb=float(environ.get(f"{PREFIX}HISTORY_MB") or 512.0),
            traces_keys=words("TRACES_KEYS"),
            **({"secret": secret} if (secret := environ.get(f"{PREFIX}SECRET")) else {}),
        )
