"""What do a tensor's loops take in the page's Python, in C and in Python itself?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.record import Record

ROOT = Path(__file__).parents[2]

# Pyodide on Node: the same WebAssembly as in a browser, on the same engine as Chromium's.
SCRIPT = """
import { readFileSync } from "node:fs";
import { loadPyodide } from "pyodide";
const [kernel, code, ...wheels] = process.argv.slice(1);
const pyodide = await loadPyodide();
for (const path of wheels) pyodide.unpackArchive(new Uint8Array(readFileSync(path)), "wheel");
pyodide.FS.mkdir("/kernel");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: kernel }, "/kernel");
console.log(pyodide.runPython(code));
"""

CODE = """
import json, random, sys, time
from array import array

sys.path.insert(0, "/kernel")
sys.dont_write_bytecode = True
from trivium.loops import compiled, python

dice = random.Random(1)
line = memoryview(array("f", [dice.gauss(0, 3) for _ in range(1000)]))
text = memoryview(array("f", [dice.gauss(0, 1) for _ in range(128 * 384)]))
mask = bytes([1] * 120 + [0] * 8)
CALLS = {
    "topk_5_of_1000": lambda loops: loops.topk(line, 5),
    "argmax_of_1000": lambda loops: loops.topk(line, 1),
    "softmax_of_1000": lambda loops: loops.softmax(line, 1000),
    "mean_of_128_by_384": lambda loops: loops.mean(text, mask),
}

def median(call, loops):
    times = []
    until = time.perf_counter() + 1
    while time.perf_counter() < until:
        started = time.perf_counter()
        for _ in range(10):
            call(loops)
        times.append((time.perf_counter() - started) * 1e5)
    return sorted(times)[len(times) // 2]

json.dumps({
    name: [median(call, loops) for loops in (compiled, python)] for name, call in CALLS.items()
})
"""


def in_page(code: str) -> Any:
    """Return what Python code in the page's Python gives as JSON; None where no node is found."""
    node = shutil.which("node") or shutil.which("node", path=str(ROOT / ".venv/bin"))
    if node is None:
        print("the page's part is skipped, no node was found", file=sys.stderr)
        return None
    wheels = [*(ROOT / ".trivium/page").glob("*.whl"), *(ROOT / "wasm/loops").glob("*.whl")]
    said = subprocess.run(
        [node, "--input-type=module", "--eval", SCRIPT, ROOT / "wasm", code, *wheels],
        cwd=ROOT / "wasm/page",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(said)


def run() -> Iterator[Record]:
    """Time each loop in both languages."""
    for name, (compiled, python) in (in_page(CODE) or {}).items():
        yield Record(f"loops.page.{name}_us", round(compiled, 1), "us", f"Python {python:.1f} us")
