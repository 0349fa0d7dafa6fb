"""How does a server of ours take connections, with all that its settings say of them?"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import uvicorn

from ...contract import Tier
from .accepted import Accepted
from .access import Policy
from .tls import Socket, Tls

STOP_S = 3
"""How long what is being answered may go on when the server is to stop."""


def main(arguments: Sequence[str]) -> int:
    """Run one server until it is told to stop."""
    parser = argparse.ArgumentParser(prog="trivium listen", description=main.__doc__)
    parser.add_argument("tier", choices=[Tier.EDGE.value, Tier.CLOUD.value])
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="port (%(default)s)")
    options = parser.parse_args(arguments)
    prefix = f"TRIVIUM_{options.tier.upper()}_"
    tls, policy = Tls.from_env(os.environ, prefix), Policy.from_env(os.environ, prefix)
    context = tls.context(policy) if tls.certificate else None
    uvicorn.run(
        f"trivium_{options.tier}.app:create_app",
        factory=True,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http=Accepted,
        ws=Socket,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_S,
        # Uvicorn's own context has no say in versions.
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
