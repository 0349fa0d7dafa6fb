"""How long does a build of a built-in recipe take, and how much memory?"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.record import Record
from trivium_models.build import CACHE
from trivium_models.measured import FILE

FUNCTION = Path("models/functions/text.embed")


def run() -> Iterator[Record]:
    """Build a copy of a folder that was never measured, and then once more."""
    with TemporaryDirectory() as place:
        folder = Path(place) / FUNCTION.name
        shutil.copytree(FUNCTION, folder)
        (folder / FILE).unlink(missing_ok=True)
        cache = Path(place) / "cache"
        # The download is the registry's; the assembly, the measuring and the rest are ours.
        shutil.copytree(CACHE / "packages", cache / "packages")
        command = [sys.executable, "-m", "trivium.hosts.server.command", "models", "build"]
        command += [str(folder), "--out", f"{place}/out", "--cache", str(cache)]
        for name in ("first", "second"):
            started = time.perf_counter()
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
            took = time.perf_counter() - started
            yield Record(f"kit.build.text_embed.{name}_s", round(took, 1), "s", "packages there")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    yield Record("kit.build.text_embed.peak_gb", round(peak, 2), "GB", "largest process")
