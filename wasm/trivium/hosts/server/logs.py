"""How are log lines written where programs read them: as JSON, with the trace they belong to?"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from .web import TRACE


class Lines(logging.Formatter):
    """Writes each record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := TRACE.get():
            said["trace"] = trace
        if record.exc_info:
            # What was masked stands in its text.
            said["exception"] = record.exc_text or self.formatException(record.exc_info)
        return msgspec.json.encode(said).decode()


def configure(environ: Mapping[str, str], service: str) -> None:
    """Write logs as JSON where `TRIVIUM_LOG` is `json`, uvicorn's too; else leave them alone."""
    if environ.get("TRIVIUM_LOG", "").lower() != "json":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(min(root.level or logging.WARNING, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
