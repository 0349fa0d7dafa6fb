"""What is a task, and what happens to it, as its caller sees it?"""

from __future__ import annotations

from typing import Any, Literal

from ...contract import Answer, Problem
from ...nouns import Noun

Status = Literal["pending", "running", "done", "failed", "cancelled", "expired"]

FINAL = frozenset({"done", "failed", "cancelled", "expired"})
"""Nothing more happens to a task with one of these."""

WORD = "trivium"
TICKET = f"{WORD}.ticket."
"""A page that has a ticket offers two protocols for its WebSocket: WORD, and this with the ticket.
It can't send headers, and URLs are written down."""


class StepState(Noun, frozen=True, kw_only=True):
    """One step of a pipeline; `ms` is what it took, once it ended."""

    name: str
    status: Literal["running", "done", "failed"]
    ms: float | None = None


class Task(Noun, frozen=True, kw_only=True):
    """An ask that was accepted: it is worked on, whoever waits for it, until its `deadline`.

    Times are ISO 8601, in UTC. `runs` counts how often a worker began it: more than once if one
    died. A task that is done has an `answer`, one that failed or expired an `error`; after
    `expires` nothing is known of it any more.
    """

    task_id: str
    status: Status
    function: str
    created: str
    deadline: str
    expires: str
    started: str | None = None
    ended: str | None = None
    runs: int = 0
    steps: tuple[StepState, ...] = ()
    answer: Answer | None = None
    error: Problem | None = None

    @property
    def final(self) -> bool:
        """Return whether it has ended, one way or another."""
        return self.status in FINAL


class Event(Noun, frozen=True, kw_only=True):
    """Something that happened to a task; an `id` is above those before.

    `state`: its new status, and how often it was begun (parts of an earlier run no longer count);
    the last one's data are the whole Task. `step`: a StepState. `part`: a piece of the output.
    `error`: a Problem for which no more events come here, although the task may go on.
    """

    id: str
    event: Literal["state", "step", "part", "error"]
    data: Any
