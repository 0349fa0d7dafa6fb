"""What many tests need: bundles on disk, and the two servers over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The kernel's tests also run where no server library is: such imports wait for their fixture.
if TYPE_CHECKING:
    from servers import Servers


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Return a folder of small bundles."""
    import samples

    return samples.zoo(tmp_path / "zoo")


@pytest.fixture
def servers(zoo: Path) -> Iterator[Servers]:
    """Return an edge in front of a cloud, new for this test."""
    from servers import serving

    with serving([zoo]) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Return an edge in front of a cloud for tests that leave no trace there."""
    import samples
    import servers

    with servers.serving([samples.zoo(tmp_path_factory.mktemp("zoo"))]) as made:
        yield made
