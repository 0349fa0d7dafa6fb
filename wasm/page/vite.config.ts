// How is the page built, and where do Pyodide, ONNX Runtime and msgspec come from?

import { copyFileSync, existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const PUBLIC = join(ROOT, "public", "runtime");

const COPIES = {
  pyodide: [
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
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
      for (const [from, files] of Object.entries(COPIES)) {
        const to = join(PUBLIC, from.split("/")[0] ?? from);
        mkdirSync(to, { recursive: true });
        for (const file of files) {
          copyFileSync(join(ROOT, "node_modules", from, file), join(to, file));
        }
      }
      const wheel = readdirSync(PUBLIC).find((file) => /^msgspec-.*wasm32\.whl$/.test(file));
      if (wheel === undefined && !existsSync(join(PUBLIC, "msgspec.whl"))) {
        this.error(`put msgspec's wheel for Pyodide into ${PUBLIC}; scripts/install does it`);
      }
      if (wheel !== undefined) copyFileSync(join(PUBLIC, wheel), join(PUBLIC, "msgspec.whl"));
    },
  };
}

export default defineConfig({
  root: ROOT,
  base: "./",
  plugins: [runtime()],
  build: { target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
});
