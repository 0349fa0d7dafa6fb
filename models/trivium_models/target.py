"""How quick is a model, and how much memory does it take, where it will really run?

Native models run in a process of their own, so that its memory is theirs; those of the page run
in headless Chromium on onnxruntime-web, as the page itself does.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from trivium.contract import Tier
from trivium.errors import BundleError
from trivium.hosts.server.check import FLAGS, browser

from .measure import Feed

TARGETS = ("cpu-1", "cpu", "cuda", "wasm-1", "wasm", "webgpu")
"""Native with one thread, with one a core, and on a GPU; in the page the same."""

PRIOR = {Tier.PAGE: "wasm-1", Tier.EDGE: "cpu", Tier.CLOUD: "cpu"}
"""The target that gives a tier's prior: what any machine of it has."""

ROOT = Path(__file__).parents[2]
ORT = ROOT / "wasm" / "page" / "node_modules" / "onnxruntime-web" / "dist"
WARM_S = {"cpu": 0.3, "wasm": 2.5}
"""wasm is compiled twice: the second, better time while it already runs."""

RUN_S = 2.0
LONG_S = 20.0
"""After so long not every row is waited for: a large model in the page takes seconds a run."""

MOST_RUNS = 200
LEAST_RUNS = 5
PATIENCE_S = 300.0


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of one run (p5, p50, p95), and the MiB that the loaded session added."""

    ms: tuple[float, float, float]
    memory_mb: float


def available() -> list[str]:
    """Return the targets that this machine has."""
    import onnxruntime as ort

    found = ["cpu-1", "cpu"]
    if "CUDAExecutionProvider" in ort.get_available_providers() and gpu():
        found.append("cuda")
    if browser() and ORT.is_dir():
        with contextlib.suppress(ImportError):
            import playwright  # noqa: F401 # there with the extra `models`

            found += ["wasm-1", "wasm"]
            # Without a GPU, Chromium draws WebGPU in software: right, and very slow.
            found += ["webgpu"] if gpu() else []
    return found


def lacking(places: Sequence[str]) -> str:
    """Return why nothing is measured on any of some targets."""
    if places[0].startswith("wasm"):
        return f"{places[0]} needs Chromium and playwright, which scripts/install --dev brings"
    return f"{places[0]} is left out"


def gpu() -> bool:
    """Return whether an NVIDIA driver answers."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def time_on(target: str, chain: Sequence[Path], feeds: Sequence[Feed]) -> Timing:
    """Run graphs in a row on real inputs, warmed, and return what they took.

    Raises:
        BundleError: the target can't run the model; the message is onnxruntime's own.
    """
    with TemporaryDirectory(prefix="trivium-") as place:
        work = Path(place)
        names = [f"{number}.onnx" for number in range(len(chain))]
        for name, graph in zip(names, chain, strict=True):
            (work / name).symlink_to(graph.resolve())
        rows = [_write(work, number, feed) for number, feed in enumerate(feeds)]
        job = {"target": target, "graphs": names, "rows": rows, "run_s": RUN_S}
        job |= {"most": MOST_RUNS, "least": LEAST_RUNS, "long_s": LONG_S}
        if target in ("wasm-1", "wasm", "webgpu"):
            found = _page(work, job | {"warm_s": WARM_S["wasm"]})
        else:
            found = _native(work, job | {"warm_s": WARM_S["cpu"]})
    low, middle, high = np.quantile(found["ms"], (0.05, 0.5, 0.95))
    return Timing(ms=(float(low), float(middle), float(high)), memory_mb=found["memory"])


def _write(work: Path, number: int, feed: Feed) -> list[dict[str, Any]]:
    """Write a row's arrays as plain bytes; return where they are and what they mean."""
    row: list[dict[str, Any]] = []
    for name, array in feed.items():
        file = f"{number}.{len(row)}.bin"
        (work / file).write_bytes(np.ascontiguousarray(array).tobytes())
        row.append({"name": name, "file": file, "dtype": str(array.dtype), "shape": array.shape})
    return row


def _native(work: Path, job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, str(work)]
    (work / "job.json").write_text(json.dumps(job))
    done = subprocess.run(  # noqa: S603 # our own module
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BundleError(f"{job['target']} can't run the model: {said[-1][:400]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _resident() -> float:
    """Return this process's resident memory in MiB."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * resource.getpagesize() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def _gpu_memory() -> float:
    """Return the MiB that this process holds on the GPU."""
    said = subprocess.run(
        ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    rows = [line.split(",") for line in said.splitlines() if line.count(",") == 1]
    return sum(float(used) for pid, used in rows if int(pid) == os.getpid())


def child(work: Path) -> None:
    """Do a native job, and print what was found: the other end of `_native`."""
    import onnxruntime as ort

    job = json.loads((work / "job.json").read_text())
    cuda = job["target"] == "cuda"
    memory = _gpu_memory if cuda else _resident
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1 if job["target"] == "cpu-1" else min(4, os.cpu_count() or 1)
    rows = [
        {
            each["name"]: np.frombuffer((work / each["file"]).read_bytes(), each["dtype"]).reshape(
                each["shape"]
            )
            for each in row
        }
        for row in job["rows"]
    ]
    before = memory()
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    sessions = [
        ort.InferenceSession(work / name, options, providers=[provider]) for name in job["graphs"]
    ]
    if provider not in sessions[-1].get_providers():
        raise SystemExit(f"no session on {provider}")
    plans = [
        ([i.name for i in s.get_inputs()], [o.name for o in s.get_outputs()]) for s in sessions
    ]

    def run(row: Feed) -> None:
        values = dict(row)
        for session, (wanted, given) in zip(sessions, plans, strict=True):
            outputs = session.run(given, {name: values[name] for name in wanted})
            values |= zip(given, outputs, strict=True)

    run(rows[0])
    grown = memory() - before
    ms = list(_times(run, rows, job))
    print(json.dumps({"ms": ms, "memory": grown}))  # noqa: T201 # read by the parent


def _times(run: Any, rows: list[Feed], job: dict[str, Any]) -> Iterator[float]:
    until = time.perf_counter() + job["warm_s"]
    while time.perf_counter() < until:
        run(rows[0])
    until = time.perf_counter() + job["run_s"]
    for count in range(job["most"]):
        over = time.perf_counter() - until
        if count >= job["least"] and over > (0 if count >= len(rows) else job["long_s"]):
            break
        started = time.perf_counter()
        run(rows[count % len(rows)])
        yield 1e3 * (time.perf_counter() - started)


_PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
const memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) { super(descriptor); memories.push(this); }
};
const heap = () => memories.reduce((size, memory) => size + memory.buffer.byteLength, 0);
const ARRAYS = { bool: Uint8Array, uint8: Uint8Array, int8: Int8Array, int32: Int32Array,
  int64: BigInt64Array, float32: Float32Array, float64: Float64Array };
window.measure = async (job) => {
  const gpu = job.target === "webgpu";
  const ort = await import(gpu ? "/ort/ort.webgpu.min.mjs" : "/ort/ort.wasm.min.mjs");
  ort.env.wasm.wasmPaths = "/ort/";
  ort.env.wasm.numThreads = job.target === "wasm-1" || gpu ? 1
    : Math.min(4, navigator.hardwareConcurrency);
  ort.env.logLevel = "fatal";
  const bytes = async (file) => (await (await fetch(`/work/${file}`)).arrayBuffer());
  const rows = [];
  for (const row of job.rows) {
    const feed = {};
    for (const { name, file, dtype, shape } of row) {
      feed[name] = new ort.Tensor(dtype, new ARRAYS[dtype](await bytes(file)), shape);
    }
    rows.push(feed);
  }
  const sessions = [];
  let before = 0;
  for (const graph of job.graphs) {
    const data = new Uint8Array(await bytes(graph));
    // As the page's bridge has it.
    const options = {
      executionProviders: [gpu ? "webgpu" : "wasm"],
      logSeverityLevel: 4,
      extra: { session: { disable_quant_qdq: "1" } },
    };
    sessions.push(await ort.InferenceSession.create(data, options));
  }
  const run = async (row) => {
    let values = { ...row };
    for (const session of sessions) {
      const feeds = Object.fromEntries(session.inputNames.map((name) => [name, values[name]]));
      values = { ...values, ...(await session.run(feeds)) };
    }
  };
  await run(rows[0]);
  const memory = (heap() - before) / 2 ** 20;
  let until = performance.now() + 1e3 * job.warm_s;
  while (performance.now() < until) await run(rows[0]);
  const ms = [];
  until = performance.now() + 1e3 * job.run_s;
  for (let i = 0; i < job.most; i++) {
    const over = performance.now() - until;
    if (i >= job.least && over > (i >= rows.length ? 0 : 1e3 * job.long_s)) break;
    const started = performance.now();
    await run(rows[i % rows.length]);
    ms.push(performance.now() - started);
  }
  return { ms, memory };
};
window.there = true;
</script>"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the page, onnxruntime-web and a job's files, isolated so that threads work."""

    def __init__(self, *arguments: Any, work: Path) -> None:
        self._work = work
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        """Return the file for a path of ours."""
        _, room, name = path.split("?")[0].split("/", 2) if path.count("/") > 1 else ("", "", "")
        return str({"ort": ORT, "work": self._work}.get(room, self._work) / Path(name).name)

    def do_GET(self) -> None:
        """Answer with the page at the root, else with a file."""
        if self.path != "/":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE.encode())

    def end_headers(self) -> None:
        """Isolate the page: onnxruntime's threads need shared memory."""
        self.send_header("cross-origin-opener-policy", "same-origin")
        self.send_header("cross-origin-embedder-policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _page(work: Path, job: dict[str, Any]) -> dict[str, Any]:
    from playwright.sync_api import Error, sync_playwright

    flags = list(FLAGS)
    if job["target"] == "webgpu":
        flags = [flag for flag in flags if flag != "--disable-gpu"] + ["--enable-unsafe-webgpu"]
        flags += [] if gpu() else ["--use-webgpu-adapter=swiftshader"]
    handler = functools.partial(_Handler, work=work)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(executable_path=browser(), args=flags)
                page = chromium.new_page()
                page.set_default_timeout(PATIENCE_S * 1e3)
                page.goto(f"http://localhost:{server.server_port}/")
                page.wait_for_function("() => window.there")
                found: dict[str, Any] = page.evaluate("(job) => window.measure(job)", job)
                chromium.close()
                return found
        except Error as error:
            said = error.message.splitlines()[0]
            raise BundleError(f"{job['target']} can't run the model: {said[:400]}") from error
        finally:
            server.shutdown()


if __name__ == "__main__":
    child(Path(sys.argv[1]))
