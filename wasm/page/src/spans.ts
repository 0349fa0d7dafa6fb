// How do the page's spans reach the edge, after the answers and in batches?

import type { Gateway } from "./gateway";

const WAIT_MS = 500;
const MOST = 512;

/** Browsers carry no more than 64 KiB of all that is still to be sent when a page goes. */
const MOST_BYTES = 48_000;

export class Spans {
  private readonly gateway: Gateway;
  private readonly share: number;
  private waiting: string[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;

  /** Sends all spans of a `share` of the traces, and of the rest how each ask went. */
  constructor(gateway: Gateway, share: number) {
    this.gateway = gateway;
    this.share = share;
    // A page that is hidden may never be seen again.
    addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.leave();
    });
    addEventListener("pagehide", () => this.leave());
  }

  /** Takes a finished span as JSON; the oldest are dropped while the edge is away. */
  readonly emit = (span: string): void => {
    if (!this.wanted(span)) return;
    this.waiting.push(span);
    this.waiting.splice(0, this.waiting.length - MOST);
    this.timer ??= setTimeout(() => void this.send(), WAIT_MS);
  };

  /** Every ask is counted and every error told; the rest by the trace's own number, as on servers. */
  private wanted(span: string): boolean {
    if (this.share >= 1 || /"name":"(infer|stream) |"error":"[^"]/.test(span)) return true;
    const last = /"trace_id":"[0-9a-f]{24}([0-9a-f]{8})"/.exec(span)?.[1] ?? "0";
    return parseInt(last, 16) < this.share * 2 ** 32;
  }

  private async send(): Promise<void> {
    this.timer = null;
    const batch = this.cut();
    if (batch.length === 0) return;
    try {
      await this.gateway.spans(`[${batch.join(",")}]`);
    } catch {
      // They go out with the next span.
      this.waiting = [...batch, ...this.waiting].slice(-MOST);
      return;
    }
    if (this.waiting.length > 0) this.timer ??= setTimeout(() => void this.send(), WAIT_MS);
  }

  /** Sends what waits in the way that outlives a page. */
  private leave(): void {
    const batch = this.cut();
    if (batch.length > 0 && !this.gateway.beacon(`[${batch.join(",")}]`)) {
      this.waiting = [...batch, ...this.waiting].slice(-MOST);
    }
  }

  /** Takes as many of those that wait as may go at once. */
  private cut(): string[] {
    let size = 0;
    const end = this.waiting.findIndex((span) => (size += span.length) > MOST_BYTES);
    return this.waiting.splice(0, end < 0 ? this.waiting.length : Math.max(1, end));
  }
}

/** A span of the page that ends when it is told; for asks that Python does not see. */
export function open(name: string, parent: string): { header: string; end(error?: string): string } {
  const [, given, above] = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-/.exec(parent) ?? [];
  const trace = given ?? hex(16);
  const span = hex(8);
  const begun = Date.now();
  return {
    header: `00-${trace}-${span}-01`,
    end: (error = "") => {
      const facts = { name, service: "trivium.page", trace_id: trace, span_id: span, error };
      const fixed = JSON.stringify({ ...facts, parent_id: above ?? "" }).slice(0, -1);
      // Nanoseconds are beyond what a JavaScript number holds exactly.
      return `${fixed},"start_ns":${begun}000000,"end_ns":${Date.now()}000000}`;
    },
  };
}

function hex(size: number): string {
  const bytes = crypto.getRandomValues(new Uint8Array(size));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
