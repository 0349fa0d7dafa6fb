// Are the bundles what somebody we trust says they are, byte for byte?

import type { Bundle, Gateway } from "./gateway";
import { type Key, SIGNATURE, type Trust, bad, sha256 } from "./signing";
import type { Manifest, Sample, Variant } from "./wire";

export const MANIFEST = "manifest.json";
export const SOURCE = "function.py";

/** A bundle whose manifest is as the gateway lists it, and vouched for. */
export interface Checked {
  bundle: Bundle;
  manifest: Manifest;
  /** The manifest as text, for Python. */
  text: string;
  /** The variant for the page, if there is one. */
  variant: Variant | null;
}

export type Files = Map<string, Uint8Array<ArrayBuffer>>;

/** Fetches and checks a bundle's manifest, and who vouches for it. */
export async function manifest(
  gateway: Gateway,
  bundle: Bundle,
  trust: Trust,
  keys: Key[],
): Promise<Checked> {
  const { name, digest } = bundle;
  const [data, signature] = await Promise.all([
    gateway.file(address(bundle, MANIFEST), () => undefined),
    gateway.maybe(address(bundle, SIGNATURE)),
  ]);
  await check(`${name}/${MANIFEST}`, data, digest);
  const text = new TextDecoder().decode(data);
  const read = parsed(name, text);
  if (read.name !== name) throw bad(`${name} holds the bundle of ${String(read.name)}`);
  const all = new Map([[MANIFEST, digest]]);
  for (const [file, { sha256 }] of Object.entries(read.files)) all.set(file, sha256);
  await trust.check(name, signature, all, keys);
  const variant = read.variants.find((each) => each.tier === "page") ?? null;
  return { bundle, manifest: read, text, variant };
}

/** Returns the names of the files that the page needs of a bundle. */
export function needed({ manifest, variant }: Checked): string[] {
  const names = [SOURCE, manifest.labels, manifest.tokenizer];
  names.push(...Object.values(variant?.models ?? {}).flat());
  return [...new Set(names.filter((name) => typeof name === "string"))];
}

/** Fetches and checks the files that the page needs of a bundle. */
export async function files(
  gateway: Gateway,
  checked: Checked,
  came: (size: number) => void,
): Promise<Files> {
  const { bundle, manifest } = checked;
  const found: Files = new Map();
  const fetched = needed(checked).map(async (name) => {
    const expected = manifest.files[name];
    const label = `${bundle.name}/${name}`;
    if (!expected) throw bad(`${label} is not in the manifest`);
    const data = await gateway.file(address(bundle, name), came);
    await check(label, data, expected.sha256);
    found.set(name, data);
  });
  // All of them, so that nothing goes on loading after a failure was told.
  for (const each of await Promise.allSettled(fetched)) {
    if (each.status === "rejected") throw each.reason;
  }
  return found;
}

function parsed(name: string, text: string): Manifest {
  try {
    const read = JSON.parse(text) as Manifest;
    if (Object.values(read.files).every(({ sha256 }) => typeof sha256 === "string")) return read;
  } catch {
    // Told as what it is below.
  }
  throw bad(`${name}/${MANIFEST} is no manifest`);
}

/** Returns the samples of a bundle, with the addresses of their files. */
export function samples({ bundle, manifest }: Checked): Sample[] {
  return (manifest.samples ?? []).map(({ inputs, options = {} }) => ({
    inputs: Object.fromEntries(
      Object.entries(inputs).map(([name, value]) => {
        const file = { file: value, path: address(bundle, value) };
        return [name, value in manifest.files ? file : value];
      }),
    ),
    options,
  }));
}

function address({ name, digest }: Bundle, file: string): string {
  // A name that leads elsewhere stays one name.
  return ["bundles", name, digest, file].map(encodeURIComponent).join("/");
}

async function check(label: string, data: Uint8Array<ArrayBuffer>, pinned: string): Promise<void> {
  const digest = await sha256(data);
  if (digest !== pinned) {
    const said = `the manifest says ${pinned.slice(0, 12)}…`;
    throw bad(`${label} has the SHA-256 ${digest.slice(0, 12)}…; ${said}`);
  }
}
