"""What can go wrong, and what may be done about it?

TriviumError            internal           500
├─ AskError             bad_ask            400   the caller's: no retry, no fallback
│  ├─ BadInput          bad_input          400
│  ├─ TooLarge          too_large          413
│  ├─ Unauthenticated   unauthenticated    401
│  ├─ NotAllowed        not_allowed        403
│  ├─ NotFound          not_found          404   or another tenant's
│  ├─ UnknownFunction   unknown_function   404   only if no road has it
│  ├─ Conflict          conflict           409   another version of the bundle is served here
│  ├─ QuotaExceeded     quota_exceeded     429   the caller's own quota
│  └─ Cancelled         cancelled          499   it was given up
├─ BudgetError          over_budget        504   no road fits, or time ran out
├─ TierError            tier_failed        503   this tier could not; the next may
│  ├─ ModelNotReady     model_not_ready    503
│  ├─ TierOverloaded    tier_overloaded    503
│  ├─ TierUnreachable   tier_unreachable   502
│  ├─ Unsuited          unsuited           422   its model or browser can't; others may
│  └─ RunFailed         run_failed         500
└─ BundleError          bad_bundle         500   manifest, checksum or signature is wrong
"""

from __future__ import annotations


class TriviumError(Exception):
    """Something went wrong in Trivium itself.

    Each failure has a stable code and HTTP status. `tier` is where it happened, `where` the line
    of the function's author, and `retry_after` the seconds to wait before asking again.
    """

    code = "internal"
    status = 500

    def __init__(
        self,
        message: str,
        *,
        tier: str | None = None,
        where: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.tier = tier
        self.where = where
        self.retry_after = retry_after


class AskError(TriviumError):
    """The caller's mistake; asking again, or elsewhere, would not help."""

    code = "bad_ask"
    status = 400


class BadInput(AskError):
    """An input or option is not what the function takes."""

    code = "bad_input"


class TooLarge(AskError):
    """An input is over a limit in bytes, pixels or tokens."""

    code = "too_large"
    status = 413


class Unauthenticated(AskError):
    """The key or token is missing, wrong or expired."""

    code = "unauthenticated"
    status = 401


class NotAllowed(AskError):
    """The caller is known, and may not do this."""

    code = "not_allowed"
    status = 403


class NotFound(AskError):
    """There is nothing of this name here for this caller."""

    code = "not_found"
    status = 404


class UnknownFunction(AskError):
    """No road has a function of this name."""

    code = "unknown_function"
    status = 404


class Conflict(AskError):
    """Another version of the bundle is served here, or the idempotency key was another ask's."""

    code = "conflict"
    status = 409


class QuotaExceeded(AskError):
    """The caller's own quota is used up."""

    code = "quota_exceeded"
    status = 429


class Cancelled(AskError):
    """It was given up by its caller, or with what it was a part of."""

    code = "cancelled"
    status = 499


class BudgetError(TriviumError):
    """No road fits the budget, or time ran out."""

    code = "over_budget"
    status = 504


class TierError(TriviumError):
    """This tier could not answer; the next one may."""

    code = "tier_failed"
    status = 503


class ModelNotReady(TierError):
    """The model is still being loaded here."""

    code = "model_not_ready"


class TierOverloaded(TierError):
    """The tier has more work than it can take."""

    code = "tier_overloaded"


class TierUnreachable(TierError):
    """The next hop did not answer."""

    code = "tier_unreachable"
    status = 502


class Unsuited(TierError):
    """This tier's model or browser can't do what was asked; another may, nothing is broken."""

    code = "unsuited"
    status = 422


class RunFailed(TierError):
    """The function or its model raised an error of its own."""

    code = "run_failed"
    status = 500


class BundleError(TriviumError):
    """A bundle's manifest, checksum or signature is wrong; nothing of it runs."""

    code = "bad_bundle"


Unanswered = (UnknownFunction, NotAllowed, BudgetError, TierError)
"""Why a step of a pipeline may go without an answer although it was asked rightly.

No tier has the function, none may be asked, or is in time, or could. Its author may do without it.
"""


def _tree(kind: type[TriviumError]) -> list[type[TriviumError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in _tree(child))]


ERRORS = {kind.code: kind for kind in _tree(TriviumError)}
