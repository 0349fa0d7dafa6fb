"""Where is kept what must outlive a process: in one Redis or Valkey, by URL."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

PREFIX = "trivium"

MOST_CONNECTIONS = 32
"""So many at once; who needs one more waits for one, for PATIENCE_S at most."""

PATIENCE_S = 5.0


def connect(url: str) -> Redis:
    """Return a pool of connections to the server at `url`, such as `redis://localhost:6379/0`.

    It connects when it is used first, bears a restart of the server, and gives bytes as they are.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MOST_CONNECTIONS,
        timeout=PATIENCE_S,
        socket_connect_timeout=2.0,
        socket_timeout=30.0,
        health_check_interval=15,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.02), retries=5),
    )
    return Redis.from_pool(pool)


def key(*parts: str) -> str:
    """Return the name under which something of ours is kept; a tenant comes right after its kind.

    What callers choose never holds a colon by then: it is a digest, or was checked.
    """
    return ":".join((PREFIX, *parts))
