// Are the bundles what the gateway says they are, byte for byte?

import { TriviumError } from "./faults";
import type { Bundle, Gateway } from "./gateway";
import type { Manifest, Variant } from "./wire";

export const MANIFEST = "manifest.json";
export const SOURCE = "function.py";

/** A bundle whose manifest is as the gateway lists it. */
export interface Checked {
  bundle: Bundle;
  manifest: Manifest;
  /** The manifest as text, for Python. */
  text: string;
  /** The variant for the page, if there is one. */
  variant: Variant | null;
}

export type Files = Map<string, Uint8Array<ArrayBuffer>>;

/** Fetches and checks a bundle's manifest. */
export async function manifest(gateway: Gateway, bundle: Bundle): Promise<Checked> {
  const path = `bundles/${bundle.name}/${bundle.digest}/${MANIFEST}`;
  const data = await gateway.file(path, () => undefined);
  await check(`${bundle.name}/${MANIFEST}`, data, bundle.digest);
  const text = new TextDecoder().decode(data);
  const read = JSON.parse(text) as Manifest;
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
    if (!expected) throw new TriviumError("bad_bundle", `${label} is not in the manifest`);
    const data = await gateway.file(`bundles/${bundle.name}/${bundle.digest}/${name}`, came);
    await check(label, data, expected.sha256);
    found.set(name, data);
  });
  // All of them, so that nothing goes on loading after a failure was told.
  for (const each of await Promise.allSettled(fetched)) {
    if (each.status === "rejected") throw each.reason;
  }
  return found;
}

async function check(label: string, data: Uint8Array<ArrayBuffer>, sha256: string): Promise<void> {
  if (!globalThis.crypto?.subtle) {
    throw new TriviumError(
      "bad_bundle",
      "bundles can't be checked here: the page needs HTTPS or localhost",
      { tier: "page" },
    );
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== sha256) {
    throw new TriviumError(
      "bad_bundle",
      `${label} has the SHA-256 ${hex.slice(0, 12)}…; the manifest says ${sha256.slice(0, 12)}…`,
      { tier: "page" },
    );
  }
}
