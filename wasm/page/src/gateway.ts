// How does the page speak with its edge?

import { TriviumError, text } from "./faults";
import type { Problem, Road } from "./wire";

export const JSON_TYPE = "application/json";
export const EVENTS = "text/event-stream";
const MSGPACK = "application/msgpack";

/** A request under way; `abort` lets the gateway know that nobody waits any more. */
export interface Call {
  reply: Promise<Response>;
  abort(): void;
}

/** What the gateway lists of a bundle; `digest` is the SHA-256 of its manifest. */
export interface Bundle {
  name: string;
  version: string;
  digest: string;
}

interface Token {
  token: string;
  expires: number;
}

export class Gateway {
  readonly base: URL;
  private token: Promise<Token> | null = null;
  /** The last token, for when there is no time to wait for one. */
  private held = "";

  constructor(base: URL) {
    this.base = base;
  }

  /** Sends an ask; the reply may be of any status, and rejects only if none came. */
  ask(name: string, body: Blob | Uint8Array<ArrayBuffer>, accept: string, trace: string): Call {
    const control = new AbortController();
    const path = `v1/infer/${encodeURIComponent(name)}`;
    const headers = { Accept: accept, "Content-Type": MSGPACK, traceparent: trace };
    const send = async (): Promise<Response> =>
      this.fetch(path, {
        method: "POST",
        body,
        headers: { ...headers, Authorization: `Bearer ${await this.bearer()}` },
        signal: control.signal,
      });
    const reply = send().then((response) => {
      if (response.status !== 401) return response;
      this.token = null;
      return send();
    });
    return { reply, abort: () => control.abort() };
  }

  /** Sends finished spans; whether they arrive is nobody's concern here. */
  async spans(body: string): Promise<void> {
    const headers = {
      "Content-Type": JSON_TYPE,
      Authorization: `Bearer ${await this.bearer()}`,
    };
    await this.fetch("v1/spans", { method: "POST", body, headers, keepalive: true });
  }

  /** Sends spans as the page goes; returns whether the browser took them, with a token to show. */
  beacon(spans: string): boolean {
    const url = new URL("v1/spans", this.base);
    // Without headers, which a beacon can't have: as text it needs no leave to be asked for first.
    return this.held !== "" && navigator.sendBeacon(url, `{"token":"${this.held}","spans":${spans}}`);
  }

  /** Returns the roads from the gateway on, and the milliseconds it takes to get there. */
  async roads(): Promise<{ roads: Record<string, Road[]>; json: string; hop: number }> {
    const begun = performance.now();
    const response = await this.found("v1/roads");
    const json = await response.text();
    const there = serverMs(response.headers.get("Server-Timing"));
    const hop = Math.max(0, performance.now() - begun - there);
    return { roads: JSON.parse(json) as Record<string, Road[]>, json, hop };
  }

  async bundles(): Promise<Bundle[]> {
    return (await (await this.found("v1/bundles")).json()) as Bundle[];
  }

  /** Returns the public keys, in PEM, whose signatures count at the gateway. */
  async keys(): Promise<string[]> {
    const keys = (await (await this.found("v1/keys")).json()) as { pem: string }[];
    return keys.map(({ pem }) => pem);
  }

  /** Fetches a small file as it is now; null if there is none. */
  async maybe(path: string): Promise<Uint8Array<ArrayBuffer> | null> {
    const response = await this.fetch(path, { cache: "no-store" });
    if (response.status === 404) return null;
    if (!response.ok) {
      throw new TriviumError("tier_failed", `the edge answered ${response.status} to ${path}`);
    }
    return new Uint8Array(await response.arrayBuffer());
  }

  /** Fetches one file and tells of each chunk's size as it comes. */
  async file(path: string, came: (size: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const { body } = await this.found(path);
    const chunks: Uint8Array[] = [];
    let size = 0;
    const reader = body?.getReader();
    for (let each = await reader?.read(); each?.value; each = await reader?.read()) {
      chunks.push(each.value);
      size += each.value.length;
      came(each.value.length);
    }
    const out = new Uint8Array(size);
    let at = 0;
    for (const chunk of chunks) {
      out.set(chunk, at);
      at += chunk.length;
    }
    return out;
  }

  private async found(path: string): Promise<Response> {
    const response = await this.fetch(path, {});
    if (!response.ok) {
      throw new TriviumError("tier_failed", `the edge answered ${response.status} to ${path}`);
    }
    return response;
  }

  private async fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await fetch(new URL(path, this.base), init);
    } catch (error) {
      throw new TriviumError(
        "tier_unreachable",
        `the edge at ${this.base.host} can't be reached: ${text(error)}`,
        { tier: "edge", retry_after: 1 },
      );
    }
  }

  private async bearer(): Promise<string> {
    const known = await this.token?.catch(() => null);
    if (known && known.expires > Date.now()) return known.token;
    this.token = this.issue();
    return (await this.token).token;
  }

  private async issue(): Promise<Token> {
    // By the token before it this stays the same visitor, whose tasks go on being theirs.
    const headers: HeadersInit = this.held ? { authorization: `Bearer ${this.held}` } : {};
    const response = await this.fetch("v1/token", { method: "POST", headers });
    if (!response.ok) throw await fault(response);
    const { token, expires_in } = (await response.json()) as { token: string; expires_in: number };
    this.held = token;
    return { token, expires: Date.now() + 1e3 * Math.max(1, expires_in - 10) };
  }
}

/** Returns the error that a reply in JSON carries. */
export async function fault(response: Response): Promise<TriviumError> {
  const body = await response.text();
  try {
    return TriviumError.from(JSON.parse(body) as Problem);
  } catch {
    const message = `the edge answered ${response.status}: ${body.slice(0, 200)}`;
    return new TriviumError("tier_failed", message, { tier: "edge" });
  }
}

/** Returns the milliseconds spent in the server: `total` where it is told, else the sum. */
function serverMs(header: string | null): number {
  let sum = 0;
  for (const entry of (header ?? "").split(",")) {
    const ms = Number(/;\s*dur=([\d.]+)/.exec(entry)?.[1] ?? 0);
    if (/^\s*total\b/.test(entry)) return ms;
    sum += ms;
  }
  return sum;
}
