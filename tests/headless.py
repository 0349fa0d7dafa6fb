"""A headless Chromium, for tests of what a page does; they are skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from trivium.hosts.server.check import FLAGS, browser


@contextmanager
def chromium() -> Iterator[Any]:
    """Run a Chromium."""
    path = browser()
    if path is None:
        pytest.skip("no chromium was found")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield launched
        launched.close()
