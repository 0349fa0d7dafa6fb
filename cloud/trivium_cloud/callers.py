"""Who asks, for whom, and what may they do? The edge asks the same, so it is told there."""

from trivium.hosts.server.callers import SCOPES, Admit, Caller, Limits, asking

__all__ = ["SCOPES", "Admit", "Caller", "Limits", "asking"]
