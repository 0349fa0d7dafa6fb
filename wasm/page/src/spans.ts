// How do the page's spans reach the edge, after the answers and in batches?

import type { Gateway } from "./gateway";

const WAIT_MS = 500;
const MOST = 512;

export class Spans {
  private readonly gateway: Gateway;
  private waiting: string[] = [];
  private timer: ReturnType<typeof setTimeout> | null = null;

  constructor(gateway: Gateway) {
    this.gateway = gateway;
  }

  /** Takes a finished span as JSON; the oldest are dropped while the edge is away. */
  readonly emit = (span: string): void => {
    this.waiting.push(span);
    this.waiting.splice(0, this.waiting.length - MOST);
    this.timer ??= setTimeout(() => void this.send(), WAIT_MS);
  };

  private async send(): Promise<void> {
    this.timer = null;
    const batch = this.waiting;
    this.waiting = [];
    try {
      await this.gateway.spans(`[${batch.join(",")}]`);
    } catch {
      // They go out with the next span.
      this.waiting = [...batch, ...this.waiting].slice(-MOST);
    }
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
