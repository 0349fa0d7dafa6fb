"""What tests of the cloud share: a real store, and what its cache may keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import keeping
import stores


@pytest.fixture(scope="module", params=stores.STORES)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Return the address of a real store."""
    with stores.store(request.param, tmp_path_factory.mktemp("store") / "store") as url:
        yield url


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return functions that may be kept, and some that may not."""
    return keeping.zoo(tmp_path_factory.mktemp("zoo"))
