// How is the page built, and where do Pyodide, ONNX Runtime and msgspec come from?

import { copyFileSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const ROOT = import.meta.dirname;
const PUBLIC = join(ROOT, "public", "runtime");
const FUNCTIONS = join(ROOT, "../../models/functions");

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
      if (wheel !== undefined) copyFileSync(join(PUBLIC, wheel), join(PUBLIC, "msgspec.whl"));
      if (!existsSync(join(PUBLIC, "msgspec.whl"))) {
        this.error(`put msgspec's wheel for Pyodide into ${PUBLIC}; scripts/install does it`);
      }
      samples();
    },
  };
}

/** Offers the photos that lie beside the built-in functions as samples. */
function samples(): void {
  const all = readdirSync(FUNCTIONS, { recursive: true, encoding: "utf8" });
  const photos = all.filter((path) => /\.(jpg|png|webp)$/.test(path)).sort();
  mkdirSync(join(PUBLIC, "samples"), { recursive: true });
  const list = photos.map((path) => {
    const name = basename(path);
    copyFileSync(join(FUNCTIONS, path), join(PUBLIC, "samples", name));
    return `runtime/samples/${name}`;
  });
  writeFileSync(join(PUBLIC, "samples.json"), JSON.stringify(list));
}

export default defineConfig({
  root: ROOT,
  base: "./",
  plugins: [runtime()],
  build: { target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
});
