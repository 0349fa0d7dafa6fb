// Who vouches for a bundle? The servers' `signing.py`, with WebCrypto.

import { TriviumError, text } from "./faults";
import type { Gateway } from "./gateway";

export const SIGNATURE = "model.sig";

const MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json";
const KIND = "application/vnd.in-toto+json";
const STATEMENT = "https://in-toto.io/Statement/v1";
const PREDICATE = "https://model_signing/signature/v1.0";
const CURVE = { name: "ECDSA", namedCurve: "P-256" };
const MOST_BYTES = 1 << 20;
const MOST_SIGNATURES = 8;
/** The bytes of each of the two numbers that a signature is. */
const HALF = 32;

type Data = Uint8Array<ArrayBuffer>;

/** A public key, and the SHA-256 of its SPKI. */
export interface Key {
  id: string;
  key: CryptoKey;
}

interface Mark {
  sig: Data;
  keyid: string;
}

/** What may go into a page's trust: keys in PEM, and bundles without a signature, to develop. */
export interface Trusted {
  /** Without them, the keys that the gateway trusts. */
  trust?: string[];
  unsigned?: boolean;
}

/** Whose signatures count in this page. */
export class Trust {
  private readonly gateway: Gateway;
  private readonly trusted: Trusted;

  constructor(gateway: Gateway, trusted: Trusted) {
    this.gateway = gateway;
    this.trusted = trusted;
    if (trusted.unsigned) console.warn("bundles without a signature run here: for development only");
  }

  /** Returns the keys as they are now; those of the gateway may change while a page is open. */
  async keys(): Promise<Key[]> {
    if (!globalThis.crypto?.subtle) {
      throw bad("bundles can't be checked here: the page needs HTTPS or localhost");
    }
    return Promise.all((this.trusted.trust ?? (await this.gateway.keys())).map(imported));
  }

  /** Throws unless one of the keys vouches for exactly these files, given with their SHA-256. */
  async check(
    name: string,
    signature: Data | null,
    files: Map<string, string>,
    keys: Key[],
  ): Promise<void> {
    const label = `${name}/${SIGNATURE}`;
    if (signature === null) {
      if (this.trusted.unsigned) return console.warn(`${name} is not signed, and runs all the same`);
      throw bad(`${name} is not signed: the gateway has no ${label}`);
    }
    const signed = resources(label, await vouched(label, signature, keys));
    // It only repeats the manifest's digest.
    signed.delete("manifest.sha256");
    const differ = [...new Set([...signed.keys(), ...files.keys()])]
      .filter((file) => signed.get(file) !== files.get(file))
      .sort();
    if (differ.length) {
      throw bad(`${label} is not for this bundle: it differs in ${differ.slice(0, 3).join(", ")}`);
    }
  }
}

/** Returns a signature's payload; throws unless one of the keys made it. */
async function vouched(label: string, data: Data, keys: Key[]): Promise<Data> {
  const { payload, marks } = envelope(label, data);
  const signed = pae(payload);
  for (const { sig, keyid } of marks) {
    const raw = rawSignature(sig);
    for (const { id, key } of raw ? keys : []) {
      if (keyid && keyid !== id) continue;
      const hash = { name: "ECDSA", hash: "SHA-256" };
      if (raw && (await crypto.subtle.verify(hash, key, raw, signed))) return payload;
    }
  }
  const by = marks.map(({ keyid }) => keyid.slice(0, 16) || "a key it does not name").join(", ");
  const trusted = keys.map(({ id }) => id.slice(0, 16)).join(", ") || "no key";
  throw bad(
    `${label} holds no valid signature by a trusted key: it is signed by ${by || "nobody"}; ` +
      `trusted here: ${trusted}`,
  );
}

/** Returns what a DSSE signature is made over. */
function pae(payload: Data): Data {
  const head = new TextEncoder().encode(`DSSEv1 ${KIND.length} ${KIND} ${payload.length} `);
  const out = new Uint8Array(head.length + payload.length);
  out.set(head);
  out.set(payload, head.length);
  return out;
}

function envelope(label: string, data: Data): { payload: Data; marks: Mark[] } {
  try {
    if (data.length > MOST_BYTES) throw new Error(`it has ${data.length} bytes`);
    const all = known(parsed(data), "mediaType", "verificationMaterial", "dsseEnvelope");
    is(all.mediaType, MEDIA);
    const material = known(all.verificationMaterial, "publicKey", "tlogEntries");
    known(material.publicKey, "hint");
    if (array(material.tlogEntries ?? []).length) throw new Error("it has entries of a log");
    const inner = known(all.dsseEnvelope, "payload", "payloadType", "signatures");
    is(inner.payloadType, KIND);
    const marks = array(inner.signatures).map((each) => {
      const { sig, keyid = "" } = known(each, "sig", "keyid");
      return { sig: base64(sig), keyid: string(keyid) };
    });
    if (marks.length > MOST_SIGNATURES) throw new Error(`it has ${marks.length} signatures`);
    return { payload: base64(inner.payload), marks };
  } catch (error) {
    throw bad(`${label} is no signature: ${text(error)}`);
  }
}

/** Returns the SHA-256 of each file that a statement names. */
function resources(label: string, payload: Data): Map<string, string> {
  try {
    const statement = object(parsed(payload));
    is(statement._type, STATEMENT);
    is(statement.predicateType, PREDICATE);
    const predicate = object(statement.predicate);
    const serialization = object(predicate.serialization);
    is(serialization.method, "files");
    is(serialization.hash_type, "sha256");
    const found = new Map<string, string>();
    for (const each of array(predicate.resources)) {
      const { name, algorithm, digest } = object(each);
      is(algorithm, "sha256");
      if (found.has(string(name))) throw new Error(`it names ${string(name)} twice`);
      found.set(string(name), string(digest));
    }
    return found;
  } catch (error) {
    throw bad(`${label} is no statement about a bundle: ${text(error)}`);
  }
}

async function imported(pem: string): Promise<Key> {
  const match = /^\s*-----BEGIN PUBLIC KEY-----([\sA-Za-z0-9+/=]+)-----END PUBLIC KEY-----\s*$/.exec(
    pem,
  );
  try {
    const spki = base64((match?.[1] ?? "").replace(/\s/g, ""));
    const key = await crypto.subtle.importKey("spki", spki, CURVE, false, ["verify"]);
    return { id: await sha256(spki), key };
  } catch {
    throw bad("a trusted key is none: a public ECDSA key on P-256 in PEM is needed");
  }
}

/** Returns a signature as WebCrypto takes it, two numbers in a row; null if it is no strict DER. */
function rawSignature(der: Data): Data | null {
  const out = new Uint8Array(2 * HALF);
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return null;
  let at = 2;
  for (const end of [HALF, 2 * HALF]) {
    const size = der[at + 1] ?? 0;
    const number = der.subarray(at + 2, at + 2 + size);
    if (der[at] !== 0x02 || size === 0 || number.length !== size) return null;
    const [first = 0, second = 0] = number;
    // Neither negative nor with a zero too many.
    if (first >= 0x80 || (first === 0 && second < 0x80)) return null;
    const digits = first === 0 ? number.subarray(1) : number;
    if (digits.length > HALF) return null;
    out.set(digits, end - digits.length);
    at += 2 + size;
  }
  return at === der.length ? out : null;
}

/** Returns the SHA-256 of data in hex. */
export async function sha256(data: Data): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A bundle's fault, as the page tells it. */
export function bad(message: string): TriviumError {
  return new TriviumError("bad_bundle", message, { tier: "page" });
}

function parsed(data: Data): unknown {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data));
}

function base64(value: unknown): Data {
  const given = string(value);
  const binary = atob(given);
  if (btoa(binary) !== given) throw new Error("its base64 is not in the one form there is");
  return Uint8Array.from(binary, (char) => char.charCodeAt(0));
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Error("an object is missing");
  }
  return value as Record<string, unknown>;
}

/** Returns an object that holds nothing but these: whatever else stood there nobody signed. */
function known<K extends string>(value: unknown, ...names: K[]): Record<K, unknown> {
  const found = object(value);
  const odd = Object.keys(found).find((name) => !(names as string[]).includes(name));
  if (odd !== undefined) throw new Error(`it holds ${odd.slice(0, 50)}`);
  return found;
}

function array(value: unknown): unknown[] {
  if (!Array.isArray(value)) throw new Error("a list is missing");
  return value;
}

function string(value: unknown): string {
  if (typeof value !== "string") throw new Error("a text is missing");
  return value;
}

function is(value: unknown, expected: string): void {
  if (value !== expected) throw new Error(`${expected} is needed, not ${String(value).slice(0, 80)}`);
}
