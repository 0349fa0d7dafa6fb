// How does a page ask? The public API; it only passes messages, so the main thread never blocks.

import { direct } from "./direct";
import { TriviumError } from "./faults";
import { Gateway } from "./gateway";
import type { Trusted } from "./signing";
import { Spans } from "./spans";
import {
  type Answer,
  type Ask,
  type Budget,
  type Bytes,
  type Connect,
  type Fault,
  type FromWorker,
  type InputValue,
  type Json,
  type Listed,
  type Part,
  type Said,
  type State,
  type Tier,
  type ToWorker,
  type Usage,
  stays,
} from "./wire";

export { TriviumError } from "./faults";
export type { Answer, Budget, Bytes, InputValue, Listed, Part, State, Tier, Usage } from "./wire";

const SHADOWS = 0.01;

export interface Settings {
  /** Settings of the function, by name. */
  options?: Record<string, Json>;
  budget?: Budget;
  /** The only tiers that may answer, best first; without it the router decides. */
  tiers?: Tier[];
  /** The version of the bundle to insist on. */
  version?: string;
  /** A W3C `traceparent` to go under. */
  trace?: string;
  signal?: AbortSignal;
}

/** A page's connection to its gateway, and to the page tier in its worker. */
export class Trivium extends EventTarget {
  /** Settles when the page tier can run functions; rejects if it can't start. */
  readonly ready: Promise<void>;
  private readonly gateway: Gateway;
  private readonly spans: Spans;
  private readonly worker: Worker;
  private readonly listeners = new Map<number, (message: FromWorker) => void>();
  private count = 0;
  private latest: State = {
    phase: "starting",
    detail: "",
    progress: 0,
    isolated: globalThis.crossOriginIsolated,
    threads: 1,
    functions: {},
  };

  private constructor(base: URL, trusted: Trusted, shadows: number, traces: number) {
    super();
    this.gateway = new Gateway(base);
    this.spans = new Spans(this.gateway, traces);
    this.worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.hear(data);
    this.worker.onerror = (event) => this.broke(event.message);
    const connect: Connect = { kind: "connect", base: base.href, trusted, shadows };
    this.worker.postMessage(connect);
    this.ready = new Promise((resolve, reject) => {
      this.addEventListener("state", () => {
        if (this.latest.phase === "ready") resolve();
        if (this.latest.phase === "failed") {
          reject(new TriviumError("model_not_ready", this.latest.detail, { tier: "page" }));
        }
      });
    });
    this.ready.catch(() => undefined);
  }

  /**
   * Connects to the gateway that served this page, or to `base`; returns at once.
   *
   * The page runs bundles that a key in `trust` (PEM) has signed; without it the keys are those
   * that the gateway trusts. `unsigned` lets in bundles without a signature, to develop. `shadows`
   * is the share of the asks after which another road that the ask allows is asked the same, to
   * learn how long it takes; none where the user saves data. `traces` is the share of the asks of
   * which the gateway is told more than how they went.
   */
  static async connect({
    base,
    shadows = saving() ? 0 : SHADOWS,
    traces = saving() ? 0 : 1,
    ...trusted
  }: { base?: URL | string; shadows?: number; traces?: number } & Trusted = {}): Promise<Trivium> {
    return new Trivium(new URL(base ?? "./", document.baseURI), trusted, shadows, traces);
  }

  /** How far the page tier is; a `state` event tells of each change. */
  get state(): State {
    return this.latest;
  }

  /** Asks `name` and returns its answer; throws a TriviumError. */
  async infer<T = unknown>(
    name: string,
    inputs: Record<string, InputValue>,
    settings: Settings = {},
  ): Promise<Answer<T>> {
    for await (const said of this.ask(name, inputs, settings, false)) {
      if (said.kind === "answer") return said as Answer<T>;
    }
    throw new TriviumError("internal", "no answer came");
  }

  /** Asks `name` and yields the parts of its answer as they come; the last is the answer. */
  stream<T = unknown>(
    name: string,
    inputs: Record<string, InputValue>,
    settings: Settings = {},
  ): AsyncIterable<Part<T> | Answer<T[]>> {
    return this.ask(name, inputs, settings, true) as AsyncIterable<Part<T> | Answer<T[]>>;
  }

  /** Lists what the gateway serves, with what each function takes and where it runs. */
  async functions(): Promise<Listed[]> {
    const message = await this.query({ kind: "functions" });
    return message.kind === "functions" ? message.functions : [];
  }

  /**
   * Waits until `name` can run in the page; an optional function is loaded only by this.
   *
   * Throws a TriviumError if it can't; how far it is, `state` tells.
   */
  async load(name: string): Promise<void> {
    await this.query({ kind: "load", name });
  }

  /** Tells what the page tier has used so far: memory, time in models, time around them. */
  async usage(): Promise<Usage> {
    const message = await this.query({ kind: "usage" });
    if (message.kind !== "usage") throw new TriviumError("internal", "no usage was told");
    return message.usage;
  }

  /** Returns the bytes of WebAssembly memory that models hold; it never shrinks. */
  async memory(): Promise<number> {
    return (await this.usage()).wasm;
  }

  /** Ends the worker; asks under way never settle. */
  close(): void {
    this.worker.terminate();
  }

  private async *ask(
    name: string,
    inputs: Record<string, InputValue>,
    settings: Settings,
    stream: boolean,
  ): AsyncGenerator<Part | Answer> {
    const { signal } = settings;
    signal?.throwIfAborted();
    const { ask, blobs } = form(name, inputs, settings);
    // While the worker is busy starting, an answer waits for nothing of that.
    const why = this.latest.phase === "failed" ? "it failed to start" : "still starting";
    const all =
      this.absent(name) && !stays(ask)
        ? direct(this.gateway, this.spans, ask, blobs, stream, why, signal)
        : this.worked(ask, blobs, stream, signal);
    for await (const said of all) {
      if (said.kind === "fault") throw TriviumError.from(said);
      yield said;
    }
  }

  /** Asks the worker. */
  private async *worked(
    ask: Ask,
    blobs: Record<string, Blob | Bytes>,
    stream: boolean,
    signal?: AbortSignal,
  ): AsyncGenerator<Said> {
    const id = ++this.count;
    const heard: Said[] = [];
    let wake = (): void => undefined;
    this.listeners.set(id, (message) => {
      if (message.kind === "said") heard.push(JSON.parse(message.json) as Said);
      wake();
    });
    const abort = (): void => wake();
    signal?.addEventListener("abort", abort);
    let done = false;
    try {
      this.send({ kind: "ask", id, ask, blobs, stream });
      while (!done) {
        const said = heard.shift();
        if (said === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (signal?.aborted) resolve();
          });
          signal?.throwIfAborted();
          continue;
        }
        done = said.kind !== "part";
        yield said;
      }
    } finally {
      if (!done) this.send({ kind: "cancel", id });
      signal?.removeEventListener("abort", abort);
      this.listeners.delete(id);
    }
  }

  /** Whether Python, or its models for this function, are still on their way or never come. */
  private absent(name: string): boolean {
    const { phase, functions } = this.latest;
    return phase !== "ready" || functions[name]?.state === "loading";
  }

  private query(
    wanted: { kind: "functions" | "usage" } | { kind: "load"; name: string },
  ): Promise<FromWorker> {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.listeners.set(id, (message) => {
        this.listeners.delete(id);
        if (message.kind !== "said") resolve(message);
        else reject(TriviumError.from(JSON.parse(message.json) as Fault));
      });
      this.send({ ...wanted, id });
    });
  }

  private send(message: ToWorker): void {
    this.worker.postMessage(message);
  }

  private hear(message: FromWorker): void {
    if (message.kind === "state") {
      this.latest = message.state;
      this.dispatchEvent(new Event("state"));
    } else if (message.kind === "span") {
      this.spans.emit(message.span);
    } else {
      this.listeners.get(message.id)?.(message);
    }
  }

  /** The worker itself could not be loaded. */
  private broke(message: string): void {
    this.latest = { ...this.latest, phase: "failed", detail: message || "the worker did not load" };
    this.dispatchEvent(new Event("state"));
    const fault = new TriviumError("model_not_ready", this.latest.detail, { tier: "page" }).fault;
    for (const [id, listener] of this.listeners) {
      listener({ kind: "said", id, json: JSON.stringify(fault) });
    }
  }
}

/** Whether the user wants as little as can be sent. */
function saving(): boolean {
  const { connection } = navigator as { connection?: { saveData?: boolean } };
  return connection?.saveData ?? false;
}

/** Puts what the caller gave into the form that the worker takes. */
function form(
  name: string,
  inputs: Record<string, InputValue>,
  { options = {}, budget = {}, tiers = [], version = "", trace = "" }: Settings,
): { ask: Ask; blobs: Record<string, Blob | Bytes> } {
  for (const [key, value] of Object.entries(budget)) {
    // JSON would make `null` of them, and so no limit at all.
    if (typeof value === "number" && !Number.isFinite(value)) {
      throw new TriviumError("bad_input", `${key} is ${value}; it must be a finite number`);
    }
  }
  const texts: Record<string, string> = {};
  const blobs: Record<string, Blob | Bytes> = {};
  for (const [key, value] of Object.entries(inputs)) {
    if (typeof value === "string") texts[key] = value;
    else blobs[key] = value;
  }
  return { ask: { function: name, version, inputs: texts, options, budget, tiers, trace }, blobs };
}
