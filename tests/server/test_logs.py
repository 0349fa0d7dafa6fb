"""Log lines for programs."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from trivium.hosts.server.logs import Lines, configure
from trivium.hosts.server.web import TRACE


def test_a_line_is_json_with_its_trace() -> None:
    """Level, service, message; an exception within the same line."""
    token = TRACE.set("0af7651916cd43dd8448eb211c80319c")
    try:
        try:
            raise ValueError("odd\nvalue")
        except ValueError:
            record = logging.LogRecord(
                "trivium.web", logging.ERROR, "x", 1, "an %s error", ("odd",), sys.exc_info()
            )
        line = Lines("edge").format(record)
    finally:
        TRACE.reset(token)
    assert "\n" not in line
    said = json.loads(line)
    assert said["message"] == "an odd error"
    assert (said["level"], said["service"], said["logger"]) == ("ERROR", "edge", "trivium.web")
    assert said["trace"] == "0af7651916cd43dd8448eb211c80319c"
    assert "ValueError: odd" in said["exception"]


def test_lines_are_json_where_that_is_asked_for() -> None:
    """Uvicorn's, too; else logging is left as it is."""
    code = (
        "import logging, sys; from trivium.hosts.server.logs import configure;"
        "configure({'TRIVIUM_LOG': sys.argv[1]}, 'edge');"
        "logging.getLogger('uvicorn.error').warning('up')"
    )
    for word, good in (("json", True), ("", False)):
        done = subprocess.run(
            [sys.executable, "-c", code, word], capture_output=True, text=True, check=True
        )
        assert done.stderr.startswith("{") is good
    configure({}, "edge")
