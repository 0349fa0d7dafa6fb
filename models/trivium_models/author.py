"""How does the kit run what a function's author wrote beside it, and say where that failed?"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from trivium.errors import BundleError


def load(path: Path) -> ModuleType:
    """Run the author's file."""
    if not path.is_file():
        raise BundleError(f"{path} does not exist; the recipe names it.")
    name = f"trivium_networks.{path.parent.name.replace('.', '_')}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BundleError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    run = spec.loader.exec_module
    called(module, "import", lambda: run(module))
    return module


def member(network: ModuleType, name: str) -> Callable[..., Any]:
    """Return a callable of the author's file."""
    found = getattr(network, name, None)
    if not callable(found):
        has = [key for key, value in vars(network).items() if callable(value) and key[0] != "_"]
        raise BundleError(
            f"{network.__file__} has no callable {name!r}; it has {', '.join(has) or 'none'}."
        )
    return found  # type: ignore[no-any-return] # callable() says no more


def called(network: ModuleType, name: str, call: Callable[[], Any]) -> Any:
    """Call the author's code; say where it failed."""
    try:
        return call()
    except BundleError:
        raise
    except ModuleNotFoundError as error:
        raise BundleError(
            f"{network.__file__} needs {error.name}: install it; what the kit itself uses comes "
            "with pip install 'trivium[models]'."
        ) from error
    except Exception as error:  # whatever the author's code raises
        raise BundleError(
            f"{network.__file__}: {name} fails: {type(error).__name__}: {error}"
        ) from error
