"""How does the cloud answer: full models behind an API key?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable

from litestar import Litestar

import trivium
from trivium.contract import Tier
from trivium.hosts.server import logs, openapi, web
from trivium.hosts.server.access import Access, Keys
from trivium.trace import Span

from . import following
from .cache import Cache
from .multimodal import Multimodal
from .opening import opened
from .outside import Fetcher
from .parts import MOST_BYTES
from .quotas import Quotas
from .settings import Settings
from .stores import Stores
from .tasks import Tasks
from .uploads import Uploads


def create_app(
    settings: Settings | None = None, emit: Callable[[Span], None] | None = None
) -> Litestar:
    """Return the cloud's application; `emit` takes spans in place of the configured export."""
    settings = settings or Settings.from_env(os.environ)
    logs.configure(os.environ, Tier.CLOUD)
    server, spans = opened(settings, emit, Tier.CLOUD)
    # Counters need no disk: where answers are kept they cost less than where tasks are.
    quotas = Quotas(settings.cache_url or settings.redis_url, settings.limits)
    admit = quotas.admitting(Access(settings.access, Keys(settings.keys)))
    cache = Cache(server, settings)
    tasks = Tasks(settings, server.engine.tracer)
    fetcher = Fetcher(settings.fetch, max(MOST_BYTES.values()))
    uploads = Uploads(settings.uploads, quota=settings.uploads_bytes, keep_s=settings.uploads_s)
    multimodal = Multimodal(
        server=server,
        admit=admit,
        cache=cache,
        fetcher=fetcher,
        tasks=tasks,
        uploads=uploads,
        defaults=settings.defaults,
    )

    stores = Stores(settings)
    server.metrics.shown += [tasks.waiting.collect, stores.collect]

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with (
            server.running(spans),
            uploads.running(),
            contextlib.aclosing(fetcher),
            tasks.running(),
            stores.looking(),
        ):
            yield
        await cache.close()
        await quotas.close()

    return Litestar(
        [
            *server.routes(admit, public=False),
            multimodal.route(),
            *following.routes(tasks, admit, settings),
            uploads.route(admit),
            openapi.route(),
            server.metrics.route(admit),
        ],
        lifespan=[lifespan],
        exception_handlers={Exception: web.refuse},
        before_send=[server.metrics.sent, *([quotas.tell] if settings.redis_url else [])],
        openapi_config=openapi.config("Trivium cloud", trivium.__version__),
        request_max_body_size=web.MOST_BODY,
        logging_config=None,
    )
