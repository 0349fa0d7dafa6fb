"""What do asks and tasks run on in the cloud?"""

from __future__ import annotations

import os
from collections.abc import Callable

from trivium.contract import Tier
from trivium.hosts.server import masking, telemetry
from trivium.hosts.server.server import Server
from trivium.hosts.server.signing import Trust
from trivium.hosts.server.telemetry import Telemetry
from trivium.trace import Span

from .settings import Settings


def opened(
    settings: Settings, emit: Callable[[Span], None] | None, service: str
) -> tuple[Server, Telemetry | None]:
    """Return the full models, and what their spans go to unless `emit` takes them.

    `service` is what spans and figures call this process.
    """
    masking.install(masking.Masker(settings.access.mask_file))
    server = Server(
        Tier.CLOUD,
        settings.bundles,
        Trust.read(settings.trust, unsigned=settings.unsigned),
        development=settings.development,
        gpu=True,
    )
    server.metrics.service = server.engine.tracer.service = service
    spans = None if emit else telemetry.telemetry(os.environ, server.metrics.take)
    server.engine.tracer.emit = emit or spans
    return server, spans
