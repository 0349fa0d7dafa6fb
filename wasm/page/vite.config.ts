// How is the page built, and where do Pyodide, its packages and ONNX Runtime come from?

import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const PUBLIC = join(ROOT, "public", "runtime");
const LOCK = join(ROOT, "pyodide-lock.json");
const WHEELS = [join(ROOT, "../../.trivium/page"), join(ROOT, "../loops")];

const COPIES = {
  pyodide: [
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
  ],
  "pdfjs-dist": [
    "build/pdf.min.mjs",
    "build/pdf.worker.min.mjs",
    "cmaps",
    "standard_fonts",
    "wasm",
    "iccs",
  ],
  "onnxruntime-web/dist": [
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
  ],
};

/** Lays what the worker loads at run time under `runtime/`, so that nothing comes from elsewhere. */
function runtime(): Plugin {
  return {
    name: "trivium-runtime",
    buildStart() {
      rmSync(PUBLIC, { recursive: true, force: true });
      for (const [from, files] of Object.entries(COPIES)) {
        const to = join(PUBLIC, from.split("/")[0] ?? from);
        mkdirSync(to, { recursive: true });
        for (const file of files) {
          cpSync(join(ROOT, "node_modules", from, file), join(to, file), { recursive: true });
        }
      }
      packages();
    },
  };
}

/** Puts Pyodide's packages beside it, each as the lock file says. */
function packages(): void {
  const to = join(PUBLIC, "pyodide");
  const lock = JSON.parse(readFileSync(LOCK, "utf8")) as {
    packages: Record<string, { file_name: string; sha256: string }>;
  };
  for (const { file_name: file, sha256 } of Object.values(lock.packages)) {
    const path = WHEELS.map((folder) => join(folder, file)).find(existsSync);
    if (path === undefined) {
      throw new Error(`${file} is nowhere: run scripts/install, or scripts/build-page to lock anew`);
    }
    const data = readFileSync(path);
    const found = createHash("sha256").update(data).digest("hex");
    if (found !== sha256) throw new Error(`${path} has SHA-256 ${found}, and the lock ${sha256}`);
    writeFileSync(join(to, file), data);
  }
  copyFileSync(LOCK, join(to, basename(LOCK)));
}

export default defineConfig({
  root: ROOT,
  base: "./",
  plugins: [runtime()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    rolldownOptions: { input: [join(ROOT, "index.html"), join(ROOT, "ops/index.html")] },
  },
  worker: { format: "es" },
});
