"""How does work get from those who accept it to those who do it?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import docket.execution
import docket.strikelist
import docket.worker
import msgspec
from docket import Docket

from .store import PREFIX

RUN = "run"
"""A task's id is given to the function of this name: all else of it is in the ledger."""

TELL = "tell"
"""And to this one, when somebody is to be told of its end."""


class Plain:
    """Writes what work is given as data that run nothing, in place of docket's pickles."""

    dumps = staticmethod(msgspec.msgpack.encode)
    loads = staticmethod(msgspec.msgpack.decode)


# Who writes to the Redis could otherwise run code in each worker and server that reads it.
for _module in (docket.execution, docket.strikelist, docket.worker):
    _module.cloudpickle = Plain  # type: ignore[attr-defined]


def queue(url: str, **work: Callable[[str], Awaitable[None]]) -> Docket:
    """Return the queue in the Redis at `url`; who does the `work` registers it."""
    made = Docket(
        name=f"{PREFIX}:work",
        url=url,
        heartbeat_interval=timedelta(seconds=1),
        # Results and errors are the ledger's: of what is done the queue remembers nothing.
        execution_ttl=timedelta(0),
    )
    for name in (RUN, TELL):
        made.register(work.get(name, _elsewhere), names=[name])
    return made


async def _elsewhere(place: str) -> None:
    raise AssertionError(f"{place} was given to a process that accepts only")
