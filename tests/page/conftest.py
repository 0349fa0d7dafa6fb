"""What the page's tests share: a Chromium, a stand-in gateway, and a page that is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

# One of these tests also runs inside Pyodide: imports wait for their fixture.
if TYPE_CHECKING:
    from page.gateway import Gateway
    from page.opened import Opened


@pytest.fixture(scope="module")
def headless() -> Iterator[Any]:
    """Return a headless Chromium; for one module, since its event loop would be in others' way."""
    from headless import chromium
    from page.gateway import DIST

    if not DIST.is_dir():
        pytest.skip("the page is not built: scripts/install")
    with chromium() as launched:
        yield launched


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Return a stand-in edge with toys, new for this test."""
    from page.bundles import toys
    from page.gateway import Gateway

    served = Gateway(dict(toys()))
    yield served
    served.close()


@pytest.fixture
def visit(headless: Any) -> Iterator[Callable[[Gateway], Opened]]:
    """Return what opens the page of a gateway."""
    from page.opened import Opened

    pages: list[Any] = []

    def visit(served: Gateway) -> Opened:
        pages.append(headless.new_page())
        return Opened(pages[-1], served)

    yield visit
    for page in pages:
        page.close()


@pytest.fixture(scope="module")
def shared(headless: Any) -> Iterator[Opened]:
    """Return a page that is ready, for tests that leave it as it was."""
    from page.bundles import toys
    from page.gateway import Gateway
    from page.opened import Opened

    served = Gateway(dict(toys()))
    page = headless.new_page()
    yield Opened(page, served).ready(*served.bundles)
    page.close()
    served.close()
