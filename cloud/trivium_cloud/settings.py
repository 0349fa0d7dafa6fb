"""What can be set on a cloud server?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivium.hosts.server.access import Policy
from trivium.hosts.server.callers import Limits
from trivium.hosts.server.tls import Tls

PREFIX = "TRIVIUM_CLOUD_"
SHARED = "TRIVIUM_"
"""What servers share, such as a Redis, is set once for all of them."""

DEFAULTS = (
    "text=text.generate|text.embed,image=image.describe,audio=audio.transcribe|audio.activity,"
    "video=video.describe,document=document.read,series=series.forecast,"
    "image+text=image_text.answer|match.image_text,*=document.graph"
)
"""Which function answers parts of these kinds, where none is named: the first that is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Read once, at start.

    `bundles` are the folders that hold bundles, `keys` the API keys that may ask. `trust` are
    public keys, or folders of them, whose signatures on bundles count; `unsigned` lets in bundles
    without one. `development` follows changed bundles, and tells callers the line at which a
    function failed. `redis_url` names the Redis or Valkey that keeps what must outlive a process;
    without one there are no tasks, and nothing is counted. `limits` are those of each tenant,
    `access` is what callers must show, `tls` how they are connected. `cache_url` names one for
    answers alone, `memcached_url` a Memcached for vectors: both are else kept in the first. An
    answer is given again for `cache_s` seconds (0: never), and for `stale_s` more when asking
    fails. `defaults` say which function answers parts of which kinds where a request names none;
    `fetch` are the hosts from which files
    may be fetched by URL. `task_keep` is for how many seconds a task is kept after its
    end, `concurrency` how many a worker does at once, `redelivery` after how many seconds without a
    sign of life another one takes its tasks, `worker_listen` at which address and port it shows
    its metrics. `webhook_secret` is what each tenant's key for
    webhooks is made of; in `development` they also go to private addresses, and without TLS.
    `uploads` is the folder for files that come in pieces, of which a tenant may have so many
    `uploads_bytes`, for so many seconds `uploads_s`.
    """

    bundles: tuple[Path, ...]
    keys: tuple[str, ...]
    trust: tuple[Path, ...] = ()
    unsigned: bool = False
    development: bool = False
    redis_url: str = ""
    limits: Limits = field(default_factory=Limits)
    task_keep: float = 3600.0
    concurrency: int = 8
    redelivery: float = 10.0
    worker_listen: str = ""
    webhook_secret: str = ""
    access: Policy = field(default_factory=Policy)
    tls: Tls = field(default_factory=Tls)
    cache_url: str = ""
    memcached_url: str = ""
    cache_s: float = 300.0
    stale_s: float = 3600.0
    defaults: str = DEFAULTS
    fetch: tuple[str, ...] = ()
    uploads: Path = Path(".trivium/uploads")
    uploads_bytes: int = 1 << 30
    uploads_s: float = 86_400.0

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read `TRIVIUM_CLOUD_*` and what is shared; lists are separated as PATH or by commas."""
        return cls(
            bundles=tuple(
                Path(each) for each in environ.get(f"{PREFIX}BUNDLES", "models/zoo").split(":")
            ),
            keys=tuple(
                filter(None, (key.strip() for key in environ.get(f"{PREFIX}KEYS", "").split(",")))
            ),
            trust=tuple(
                Path(each)
                for each in environ.get(f"{PREFIX}TRUST", ".trivium/keys").split(":")
                if each
            ),
            unsigned=environ.get(f"{PREFIX}UNSIGNED", "") == "1",
            development=environ.get(f"{PREFIX}DEVELOPMENT", "") == "1",
            redis_url=environ.get(f"{SHARED}REDIS_URL", ""),
            limits=Limits.read(environ.get(f"{PREFIX}LIMITS", "")),
            task_keep=float(environ.get(f"{PREFIX}TASK_KEEP", "3600")),
            concurrency=int(environ.get(f"{PREFIX}CONCURRENCY", "8")),
            redelivery=float(environ.get(f"{PREFIX}REDELIVERY", "10")),
            worker_listen=environ.get(f"{PREFIX}WORKER_LISTEN", ""),
            webhook_secret=environ.get(f"{PREFIX}WEBHOOK_SECRET", ""),
            access=Policy.from_env(environ, PREFIX),
            tls=Tls.from_env(environ, PREFIX),
            cache_url=environ.get(f"{PREFIX}CACHE_URL", ""),
            memcached_url=environ.get(f"{SHARED}MEMCACHED_URL", ""),
            cache_s=float(environ.get(f"{PREFIX}CACHE_S", "300")),
            stale_s=float(environ.get(f"{PREFIX}STALE_S", "3600")),
            uploads=Path(environ.get(f"{PREFIX}UPLOADS") or ".trivium/uploads"),
            uploads_bytes=int(environ.get(f"{PREFIX}UPLOADS_BYTES") or 1 << 30),
            uploads_s=float(environ.get(f"{PREFIX}UPLOADS_S") or 86_400),
            defaults=environ.get(f"{PREFIX}DEFAULTS") or DEFAULTS,
            fetch=tuple(
                filter(
                    None, (each.strip() for each in environ.get(f"{PREFIX}FETCH", "").split(","))
                )
            ),
        )
