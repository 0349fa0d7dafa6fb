// How does a failure look to whoever asked?

import type { Fault, Problem } from "./wire";

/** A failure with the kernel's stable code. */
export class TriviumError extends Error {
  override readonly name = "TriviumError";
  readonly code: string;
  readonly tier: string | null;
  readonly where: string | null;
  /** Seconds to wait before asking again. */
  readonly retryAfter: number | null;

  constructor(code: string, message: string, rest: Partial<Fault> = {}) {
    super(message);
    this.code = code;
    this.tier = rest.tier ?? null;
    this.where = rest.where ?? null;
    this.retryAfter = rest.retry_after ?? null;
  }

  /** Rebuilds the error that another tier sent. */
  static from(fault: Fault | Problem): TriviumError {
    const { code, tier, where, retry_after } = fault;
    const rest = { tier: tier ?? null, where: where ?? null, retry_after: retry_after ?? null };
    return new TriviumError(code, "detail" in fault ? fault.detail : fault.message, rest);
  }

  /** The form in which this error crosses to another tier. */
  get fault(): Fault {
    return {
      kind: "fault",
      code: this.code,
      message: this.message,
      tier: this.tier,
      where: this.where,
      retry_after: this.retryAfter,
    };
  }
}

/** The text of whatever was thrown. */
export function text(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
