// What crosses between page, worker and gateway?
//
// Names are those of the kernel's contract, as they stand in JSON.

import type { Trusted } from "./signing";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export type Tier = "page" | "edge" | "cloud";

/** Bytes and their media type. */
export interface Bytes {
  media: string;
  data: Uint8Array<ArrayBuffer>;
}

/** What a caller may give as one input. */
export type InputValue = string | Blob | Bytes;

/** What an ask may use: milliseconds, least quality relative to full, farthest tier. */
export interface Budget {
  ms?: number;
  quality?: number;
  reach?: Tier;
  /** A cap on the price of all roads that may be taken. */
  spend?: number;
}

/** One request, without its binary inputs. */
export interface Ask {
  function: string;
  version: string;
  inputs: Record<string, string>;
  options: Record<string, Json>;
  budget: Budget;
  tiers: Tier[];
  trace: string;
}

/** Whether an ask must be answered in the page itself. */
export function stays({ budget, tiers }: Ask): boolean {
  return budget.reach === "page" || (tiers.length > 0 && tiers.every((tier) => tier === "page"));
}

export interface Road {
  tier: Tier;
  version: string;
  model: string;
  quality: number;
  /** What is expected: p5, p50 and p95. */
  ms: [number, number, number];
  ready: boolean;
  spend: number;
  /** How likely it is to be in time; null if the road was left out. */
  chance: number | null;
  /** Why it is first, comes later, or was left out. */
  why: string;
}

export interface Plan {
  tiers: Tier[];
  reason: string;
  hedge_ms: number | null;
  roads: Road[];
}

/** Where the milliseconds of an answer went. */
export interface Times {
  decode: number;
  python: number;
  run: number;
  hop: number;
  /** What others took before the road that answered was begun. */
  before: number;
}

export interface Answer<T = unknown> {
  kind: "answer";
  function: string;
  version: string;
  output: T;
  tier: Tier;
  model: string;
  plan: Plan;
  ms: Times;
  trace: string;
  /** What the plan had for the road that answered: p5, p50 and p95. */
  expected: [number, number, number] | null;
  /** What that road really took, as seen from the tier that planned. */
  took: number;
  /** How likely the full variant says the same; null where that is not known. */
  confidence: number | null;
}

export interface Part<T = unknown> {
  kind: "part";
  output: T;
}

/** An error on its way from another tier. */
export interface Fault {
  kind: "fault";
  code: string;
  message: string;
  tier: string | null;
  where: string | null;
  retry_after: number | null;
}

/** The same in a reply over HTTP: problem details by RFC 9457. */
export interface Problem extends Pick<Fault, "kind" | "code"> {
  type: string;
  title: string;
  status: number;
  detail: string;
  tier?: string;
  where?: string;
  retry_after?: number;
}

export type Said = Answer | Part | Fault;

export interface Input {
  name: string;
  kind: string;
  /** The most values there may be, as NAME.0, NAME.1 and so on. */
  many?: number;
}

export interface Option {
  name: string;
  schema: { [key: string]: Json };
  required: boolean;
  default: Json;
}

export interface Schema {
  name: string;
  entry: string;
  doc: string;
  inputs: Input[];
  options: Option[];
  streams: boolean;
}

export interface Variant {
  tier: Tier;
  model: string;
  models: Record<string, string[]>;
  state?: Record<string, string>;
  settings: Record<string, Json>;
  quality: number;
}

export interface Manifest {
  name: string;
  version: string;
  function: Schema;
  variants: Variant[];
  labels: string | null;
  tokenizer: string | null;
  samples?: { inputs: Record<string, string>; options?: Record<string, Json> }[];
  /** Large: loaded into a page only when it is asked to. */
  optional?: boolean;
  files: Record<string, { sha256: string; size: number }>;
}

/** How far one function is in this page. */
export interface Readiness {
  state: "loading" | "ready" | "optional" | "elsewhere" | "failed";
  why: string;
}

/** How far the page tier is. */
export interface State {
  phase: "starting" | "ready" | "failed";
  detail: string;
  /** 0 to 1, by bytes. */
  progress: number;
  isolated: boolean;
  threads: number;
  functions: Record<string, Readiness>;
}

/** A function that the gateway serves, and where it runs. */
export interface Listed {
  name: string;
  version: string;
  schema: Schema;
  tiers: Tier[];
  page: Readiness;
  samples: Sample[];
}

/** A real ask: each input as text, or a file and its address below the gateway. */
export interface Sample {
  inputs: Record<string, string | { file: string; path: string }>;
  options: Record<string, Json>;
}

/** What the page tier has used since it started; times are milliseconds, sizes bytes. */
export interface Usage {
  /** WebAssembly memory of ONNX Runtime: all of its instances. */
  wasm: number;
  /** Answers given here, and the time from the worker's call of Python until it answered. */
  answers: number;
  total: number;
  /** Of that: time in ONNX Runtime, in tokenizers and in decoders. */
  run: number;
  tokens: number;
  decode: number;
}

/** The first message to the worker: where the gateway is, and whose bundles it may run. */
export interface Connect {
  kind: "connect";
  base: string;
  trusted: Trusted;
  shadows: number;
}

export type ToWorker =
  | { kind: "ask"; id: number; ask: Ask; blobs: Record<string, Blob | Bytes>; stream: boolean }
  | { kind: "cancel"; id: number }
  | { kind: "functions"; id: number }
  | { kind: "load"; id: number; name: string }
  | { kind: "usage"; id: number };

export type FromWorker =
  | { kind: "said"; id: number; json: string }
  | { kind: "state"; state: State }
  | { kind: "span"; span: string }
  | { kind: "functions"; id: number; functions: Listed[] }
  | { kind: "loaded"; id: number }
  | { kind: "usage"; id: number; usage: Usage };
