"""How is what the page loads made: the loops in C, the kernel's wheel, and the lock of both?

scripts/build-page runs it with the Python that has pyodide-build. Nothing here is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

LOOPS = Path(__file__).parent
ROOT = LOOPS.parents[1]
PAGE = ROOT / "wasm/page"
PYODIDE = PAGE / "node_modules/pyodide"
LOCK = PAGE / "pyodide-lock.json"
WHEELS = ROOT / ".trivium/page"
SYSCONFIG = "_sysconfigdata__emscripten_wasm32-emscripten"

KERNEL = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "trivium"
dynamic = ["version"]
dependencies = ["msgspec"]
[tool.setuptools]
packages = ["trivium", "trivium.hosts"]
[tool.setuptools.dynamic]
version = { attr = "trivium.__version__" }
"""


def main() -> int:
    """Build all into the repository; with --check compare, with --kernel build that alone."""
    parser = argparse.ArgumentParser(prog="scripts/build-page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="build again and compare SHA-256")
    parser.add_argument("--kernel", type=Path, metavar="FOLDER", help="the kernel's wheel alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        build = Build(Path(scratch))
        if options.kernel:
            shutil.copy(build.kernel(), options.kernel)
            return 0
        downloaded = list(WHEELS.glob("*.whl"))
        if len(downloaded) != 1:
            sys.exit(f"{WHEELS} has {len(downloaded)} wheels, not msgspec's alone: scripts/install")
        loops = build.loops()
        lock = build.lock(loops, *downloaded)
        differ = 0
        for name, data in ((LOOPS / loops.name, loops.read_bytes()), (LOCK, lock)):
            same = name.is_file() and name.read_bytes() == data
            digest, path = hashlib.sha256(data).hexdigest(), name.relative_to(ROOT)
            print(digest, path, "" if same else "differs" if options.check else "is new")  # noqa: T201
            differ += not same
            if not options.check:
                name.write_bytes(data)
        return 1 if options.check and differ else 0


class Build:
    """A cross-build environment for the page's Pyodide, made from its npm package."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.info = json.loads((PYODIDE / "pyodide-lock.json").read_text())["info"]
        root = scratch / "xbuildenv/pyodide-root"
        headers = root / "include"
        shutil.copytree(sysconfig.get_path("include"), headers)
        with zipfile.ZipFile(PYODIDE / "python_stdlib.zip") as library:
            data = Path(library.extract(f"{SYSCONFIG}.py", root / "sysconfigdata"))
        known = runpy.run_path(str(data))["build_time_vars"]
        (headers / "pyconfig.h").write_text(
            "".join(
                f"#define {name} {value}\n"
                for name, value in sorted(known.items())
                if isinstance(value, int) and value and name.upper() == name
            )
        )
        (root.parent / "requirements.txt").touch()
        major, minor, micro = self.info["python"].split(".")
        settings = {
            "PYVERSION": self.info["python"],
            "PYMAJOR": major,
            "PYMINOR": minor,
            "PYMICRO": micro,
            "PYODIDE_VERSION": json.loads((PYODIDE / "package.json").read_text())["version"],
            "PYODIDE_ABI_VERSION": self.info["abi_version"],
            "PYODIDE_EMSCRIPTEN_VERSION": self.info["platform"].partition("_")[2].replace("_", "."),
            "PLATFORM_TRIPLET": "wasm32-emscripten",
            "SYSCONFIG_NAME": SYSCONFIG,
            "SYSCONFIGDATA_DIR": str(data.parent),
            "CPYTHONINSTALL": str(root),
            "TARGETINSTALLDIR": str(root),
            "PYTHONINCLUDE": str(headers),
            "HOSTINSTALLDIR": str(root),
            "HOSTSITEPACKAGES": str(root),
            "PIP_CONSTRAINT": "",
            "CFLAGS_BASE": "-g0",
            "CXXFLAGS_BASE": "-g0",
            "LDFLAGS_BASE": "",
            # The defaults optimise for size.
            "SIDE_MODULE_CFLAGS": f"-O2 -DNDEBUG -I{headers}",
        }
        (root / "Makefile.envs").write_text(
            "".join(f"export {name} = {value}\n" for name, value in settings.items())
            + ".output_vars:\n\t@env\n"
        )
        path = f"{Path(sys.executable).parent}:{LOOPS}:{os.environ['PATH']}"
        self.environment = {
            **os.environ,
            "PATH": path,
            "PYODIDE_ROOT": str(root),
            "SKIP_EMSCRIPTEN_VERSION_CHECK": "1",  # our emcc has none
            "SOURCE_DATE_EPOCH": "315532800",  # 1980, where the dates of zip files begin
        }

    def pyodide(self, *arguments: str | Path) -> None:
        """Run pyodide-build's command; show what it says only if it fails."""
        command = [str(Path(sys.executable).with_name("pyodide")), *map(str, arguments)]
        done = subprocess.run(  # noqa: S603
            command, env=self.environment, cwd=self.scratch, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")

    def wheel(self, source: Path) -> Path:
        """Return the wheel that pyodide-build makes of a folder."""
        out = source / "dist"
        self.pyodide("build", "--no-isolation", source, "--outdir", out)
        (made,) = out.glob("*.whl")
        return made

    def loops(self) -> Path:
        """Return the wheel of the loops in C."""
        source = self.scratch / "loops"
        source.mkdir()
        for name in ("loops.c", "pyproject.toml"):
            shutil.copy(LOOPS / name, source)
        return self.wheel(source)

    def kernel(self) -> Path:
        """Return the wheel of the kernel, with what the gateway puts into its own."""
        source = self.scratch / "kernel"
        shutil.copytree(
            ROOT / "wasm/trivium",
            source / "trivium",
            ignore=shutil.ignore_patterns("server", "py.typed", "__pycache__"),
        )
        (source / "pyproject.toml").write_text(KERNEL)
        return self.wheel(source)

    def lock(self, *wheels: Path) -> bytes:
        """Return a lock file with these wheels and nothing else."""
        folder = self.scratch / "lock"
        folder.mkdir()
        for each in wheels:
            shutil.copy(each, folder)
        empty, full = folder / "empty.json", folder / "full.json"
        # Wheels say the platform by its ABI, Pyodide by its compiler.
        info = {**self.info, "platform": f"pyemscripten_{self.info['abi_version']}"}
        empty.write_text(json.dumps({"info": info, "packages": {}}))
        self.pyodide(
            "lockfile", "add-wheels", "--input", empty, "--output", full, "--base-path", folder,
            *sorted(folder.glob("*.whl")),
        )  # fmt: skip
        made = {**json.loads(full.read_text()), "info": self.info}
        return json.dumps(made, indent=2, sort_keys=True).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main())
