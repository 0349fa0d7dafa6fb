// How does Python start in the worker, with the kernel that the gateway itself runs?

import type { PyodideAPI } from "pyodide";
import type { Bridge, Session, Tokens } from "./bridge";
import type { Gateway } from "./gateway";

/** `Page` of the kernel's `hosts/browser.py`. */
export interface Page {
  start(): Promise<void>;
  /** Lets another road be asked as well after this share of the asks. */
  shadow(share: number): void;
  add(
    manifest: string,
    source: string,
    digest: string,
    labels: string,
    tokens: Tokens | null,
    models: Map<string, Session>,
  ): void;
  /** Stops serving a version; settles when no ask uses it, nor one replaced under its number. */
  remove(name: string, version: string): Promise<void>;
  ask(
    id: number,
    json: string,
    blobs: [name: string, media: string, data: Uint8Array][],
    stream: boolean,
    say: (json: string) => void,
  ): void;
  cancel(id: number): void;
}

interface Browser {
  boot(
    bridge: Bridge,
    gateway: Gateway,
    emit: (span: string) => void,
    resync: () => Promise<void>,
  ): Page;
}

/** What `pyodide-lock.json` beside Pyodide has; each is checked by its SHA-256. */
const PACKAGES = [
  "msgspec",
  "trivium-loops", // the kernel does without if it doesn't load
];

/** Starts Pyodide with its packages, and unpacks the kernel into it. */
export async function start(base: URL): Promise<PyodideAPI> {
  const [pyodide, wheel] = await Promise.all([load(base), kernel(base)]);
  pyodide.unpackArchive(wheel, "wheel");
  return pyodide;
}

async function load(base: URL): Promise<PyodideAPI> {
  const indexURL = new URL("runtime/pyodide/", base).href;
  const module = `${indexURL}pyodide.mjs`;
  const { loadPyodide } = (await import(/* @vite-ignore */ module)) as typeof import("pyodide");
  return loadPyodide({ indexURL, packages: PACKAGES });
}

async function kernel(base: URL): Promise<ArrayBuffer> {
  const response = await fetch(new URL("runtime/kernel.whl", base));
  if (!response.ok) throw new Error(`the edge answered ${response.status} to runtime/kernel.whl`);
  return response.arrayBuffer();
}

/** Makes the page's engine. */
export function boot(
  pyodide: PyodideAPI,
  bridge: Bridge,
  gateway: Gateway,
  emit: (span: string) => void,
  resync: () => Promise<void>,
): Page {
  const browser = pyodide.pyimport("trivium.hosts.browser") as Browser;
  return browser.boot(bridge, gateway, emit, resync);
}
