"""The house rules that a program can check."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import trivium
from trivium.hosts.server.access import Policy
from trivium.hosts.server.tls import Tls
from trivium_cloud import settings as cloud
from trivium_edge import settings as edge

ROOT = Path(__file__).parent.parent
KERNEL = ROOT / "wasm" / "trivium"
ORDER = (
    "errors",
    "loops",
    "texts",
    "nouns",
    "tensors",
    "contract",
    "kinds",
    "sessions",
    "trace",
    "function",
    "seen",
    "memory",
    "router",
    "host",
    "run",
    "engine",
)
ROOMS = {
    "trivium": KERNEL,
    "trivium_edge": ROOT / "edge" / "trivium_edge",
    "trivium_cloud": ROOT / "cloud" / "trivium_cloud",
    "trivium_models": ROOT / "models" / "trivium_models",
}
MAY_IMPORT = {
    "trivium": set(),
    "trivium_edge": {"trivium"},
    "trivium_cloud": {"trivium"},
    "trivium_models": {"trivium"},
}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of each import, wherever it stands in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


@pytest.mark.parametrize("name", ORDER)
def test_the_kernel_imports_only_what_stands_above(name: str) -> None:
    """One direction, so that a reader needs no other file than those before."""
    above = ORDER[: ORDER.index(name)]
    for level, module in imports(KERNEL / f"{name}.py"):
        if level:
            assert module in above, f"{name} imports {module}"


def test_each_file_of_the_kernel_has_its_place() -> None:
    """In that order; none is outside of it."""
    assert {path.stem for path in KERNEL.glob("*.py")} == {"__init__", *ORDER}


@pytest.mark.parametrize("name", ORDER)
def test_the_kernel_depends_on_msgspec_and_the_standard_library(name: str) -> None:
    """Nothing else can be had in a page, but the loops' own twin in C."""
    known = sys.stdlib_module_names | {"msgspec", "__future__"}
    if name == "loops":
        known |= {"trivium_loops"}
    for level, module in imports(KERNEL / f"{name}.py"):
        if not level:
            assert module.partition(".")[0] in known, module


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_import_each_other(room: str) -> None:
    """Edge and cloud share the kernel's hosts, and nobody imports the compile kit."""
    for path in ROOMS[room].rglob("*.py"):
        for level, module in imports(path):
            top = module.partition(".")[0]
            if not level and top in ROOMS and top != room:
                assert top in MAY_IMPORT[room], f"{path} imports {module}"


def test_importing_the_kernel_loads_no_server_library() -> None:
    """Start-up in the page pays for each module."""
    heavy = ("litestar", "httpx", "onnxruntime", "numpy", "opentelemetry", "asyncio", "uuid")
    code = f"import sys, trivium, trivium.engine; print([m for m in {heavy} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    # msgspec brings uuid itself.
    assert set(ast.literal_eval(found)) <= {"uuid"}


def test_the_public_door_is_sorted_and_true() -> None:
    """Every name is there, once, in order."""
    assert sorted(trivium.__all__, key=str) == trivium.__all__
    assert all(hasattr(trivium, name) for name in trivium.__all__)


@pytest.mark.parametrize("module", [edge, cloud])
def test_every_setting_is_documented(module: object) -> None:
    """By its variable's name, where operators look."""
    told = (ROOT / "DEPLOY.md").read_text()
    prefix: str = module.PREFIX  # type: ignore[attr-defined]
    for field in fields(module.Settings):  # type: ignore[attr-defined]
        group = {"access": Policy, "tls": Tls}.get(field.name)
        for setting in fields(group) if group else [field]:
            names = (f"`{each}{setting.name.upper()}`" for each in (prefix, "TRIVIUM_"))
            assert any(name in told for name in names), setting.name


def test_every_script_is_documented() -> None:
    """In the README too."""
    readme = (ROOT / "README.md").read_text()
    for script in (ROOT / "scripts").iterdir():
        assert f"scripts/{script.name}" in readme


def anchors(path: Path) -> set[str]:
    """Return the places in a document that a link may name, as GitHub makes them of headings."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_every_link_leads_somewhere() -> None:
    """From one document to a file, or to a heading."""
    folders = ("", "models", "models/studies", "tests/bench/results", "tests/bench/scenarios")
    for document in (path for folder in folders for path in (ROOT / folder).glob("*.md")):
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text()):
            name, _, anchor = link.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), f"{document}: {link}"
            assert not anchor or anchor in anchors(path), f"{document}: {link}"


def test_every_built_in_function_is_in_the_readmes_table() -> None:
    """With what it weighs, how good it is, and what it is not for."""
    readme = (ROOT / "README.md").read_text()
    for folder in (ROOT / "models" / "functions").iterdir():
        rows = re.findall(rf"^\| `{re.escape(folder.name)}`.*$", readme, re.MULTILINE)
        assert [row.count(" | ") for row in rows] == [4], folder.name


def test_every_package_of_models_is_in_the_notice() -> None:
    """With its version, for those who pass on what was made of it."""
    notice = (ROOT / "NOTICE").read_text()
    for recipe in (ROOT / "models" / "functions").glob("*/recipe.toml"):
        packages = tomllib.loads(recipe.read_text()).get("packages", {})
        for name, package in packages.items():
            pattern = rf"{re.escape(name)}[^\n]* {re.escape(package['version'])}[^\n]*[,:]"
            assert re.search(pattern, notice), name
            assert recipe.parent.name in notice, recipe.parent.name


def test_files_stay_readable() -> None:
    """No module is longer than 500 lines, and the core of the kernel than 3,550 together."""
    sizes = {
        path: len(path.read_text().splitlines())
        for room in ROOMS.values()
        for path in room.rglob("*.py")
    }
    assert {str(path): size for path, size in sizes.items() if size > 500} == {}
    words = ("nouns", "kinds", "texts")  # what functions work with: they grow with the zoo
    assert sum(sizes[KERNEL / f"{name}.py"] for name in ORDER if name not in words) <= 3550


def test_versions_agree() -> None:
    """The package's, the page's and the changelog's."""
    assert f'"version": "{trivium.__version__}"' in (ROOT / "wasm/page/package.json").read_text()
    assert f"## {trivium.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert importlib.import_module("importlib.metadata").version("trivium") == trivium.__version__


def test_nothing_is_unpickled() -> None:
    """Data from elsewhere must not run: no pickle, and of torch's files the weights alone."""
    for path in (path for room in ROOMS.values() for path in room.rglob("*.py")):
        modules = {module.partition(".")[0] for _, module in imports(path)}
        assert not modules & {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal"}, path
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            call = ast.unparse(node.func)
            told = {each.arg: ast.unparse(each.value) for each in node.keywords}
            if call == "torch.load":
                assert told.get("weights_only") == "True", f"{path}:{node.lineno}"
            if call in ("np.load", "numpy.load"):
                assert told.get("allow_pickle", "False") == "False", f"{path}:{node.lineno}"


def test_no_file_is_too_large_for_git() -> None:
    """All tracked files together stay within 48 MiB."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listed.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in paths if path.is_file()) <= 48 << 20
