// Do the kernel's tests hold in the page's Python, too? Runs pytest inside Pyodide.
//
//   node wasm/page/test-kernel.mjs [PYTEST ARGUMENTS]
//
// pytest's wheels come from $TRIVIUM_PAGE_WHEELS (.trivium/page-dev), msgspec's from .trivium/page;
// scripts/install --dev puts them there. Prints what pytest prints and exits alike.

import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { loadPyodide } from "pyodide";

const HERE = import.meta.dirname;
const ROOT = join(HERE, "../..");
const folders = [
  process.env.TRIVIUM_PAGE_WHEELS ?? join(ROOT, ".trivium/page-dev"),
  join(ROOT, ".trivium/page"),
  join(ROOT, "wasm/loops"),
];
const wheels = folders
  .filter(existsSync)
  .flatMap((folder) => readdirSync(folder).map((file) => join(folder, file)))
  .filter((path) => /-(py3-none-any|pyemscripten_2026_0_wasm32)\.whl$/.test(path));
for (const name of ["pytest", "msgspec"]) {
  if (!wheels.some((path) => path.includes(`/${name}-`))) {
    console.error(`no wheel of ${name} in ${folders.join(" or ")}: run scripts/install --dev`);
    process.exit(2);
  }
}

// Node shows the line an error comes from, and Pyodide's has a million characters.
process.on("uncaughtException", (error) => {
  console.error(error.message);
  process.exit(3);
});

const pyodide = await loadPyodide();
for (const [name, stream] of [["setStdout", process.stdout], ["setStderr", process.stderr]]) {
  const write = (bytes) => {
    stream.write(Buffer.from(bytes));
    return bytes.length;
  };
  pyodide[name]({ write, isatty: stream.isTTY === true });
}
for (const path of wheels) {
  const extractDir = "/lib/python3.14/site-packages";
  pyodide.unpackArchive(new Uint8Array(readFileSync(path)), "wheel", { extractDir });
}
pyodide.FS.mkdir("/repository");
pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root: ROOT }, "/repository");
pyodide.globals.set("arguments", pyodide.toPy(process.argv.slice(2)));
process.exitCode = pyodide.runPython(`
import os, sys
os.chdir("/repository")
sys.path.insert(0, "/repository/wasm")
sys.dont_write_bytecode = True
before = set(sys.modules)
import msgspec
with_msgspec = set(sys.modules)
import trivium, trivium.engine
# For the test of what the kernel brings along: pytest itself imports half of the library.
os.environ["MODULES_OF_MSGSPEC"] = " ".join(with_msgspec - before)
os.environ["MODULES_OF_TRIVIUM"] = " ".join(set(sys.modules) - with_msgspec)
import pytest
int(pytest.main(["-p", "no:cacheprovider", *(arguments or ["tests/wasm"])]))
`);
