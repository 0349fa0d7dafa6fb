"""What does the page do with Python's packages, and without them?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import page.bundles as bundles
from page.gateway import DIST, Gateway
from page.opened import Opened

pytestmark = pytest.mark.browser

HERE: dict[str, Any] = {"tiers": ["page"]}
ANSWER = {"top": [[0, 3], [2, 2]], "mean": [2], "soft": [[1], [1], [1]]}


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """Return a stand-in edge with one function, new for this test."""
    served = Gateway(dict([bundles.loops()]))
    yield served
    served.close()


def wheel(package: str) -> str:
    """Return the name of a package's wheel, by the page's lock file."""
    lock = json.loads((DIST / "runtime/pyodide/pyodide-lock.json").read_text())
    name: str = lock["packages"][package]["file_name"]
    return name


def changed(name: str) -> bytes:
    """Return a wheel with another comment at its end, which is as good a wheel."""
    data = (DIST / "runtime/pyodide" / name).read_bytes()
    return data[:-2] + b"\1\0!"


def test_page_computes_in_c(visit: Callable[[Gateway], Opened], gateway: Gateway) -> None:
    """The loops come with the page, from its gateway alone."""
    page = visit(gateway).ready("text.loops")
    answer = page.ask("text.loops", text="3 1 2", **HERE)
    assert answer["output"] == {"compiled": True, **ANSWER}
    assert page.elsewhere == []


@pytest.mark.parametrize("broken", [None, b"not a wheel", "changed"])
def test_page_computes_without_c(
    visit: Callable[[Gateway], Opened], gateway: Gateway, broken: bytes | str | None
) -> None:
    """A wheel that is missing, or not the locked one, is not used; Python gives the same."""
    name = wheel("trivium-loops")
    gateway.replaced[name] = changed(name) if isinstance(broken, str) else broken
    page = visit(gateway).ready("text.loops")
    answer = page.ask("text.loops", text="3 1 2", **HERE)
    assert answer["output"] == {"compiled": False, **ANSWER}


def test_page_takes_no_other_msgspec(visit: Callable[[Gateway], Opened], gateway: Gateway) -> None:
    """What the kernel needs is the locked one, or the page says that it can't; the edge answers."""
    name = wheel("msgspec")
    gateway.replaced[name] = changed(name)
    page = visit(gateway).ready()
    assert page.run("return trivium.state.phase") == "failed"
    assert page.ask("text.loops", text="3 1 2", **HERE)["code"] == "model_not_ready"
    assert page.ask("text.loops", text="3 1 2")["tier"] == "edge"
