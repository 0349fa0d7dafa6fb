// How does the operators' page ask the gateway?

import { events } from "../events";

/** What is said of some asks together; null where there was nothing to say it of. */
export interface Told {
  asks: number;
  failed: number;
  refused: number;
  error_rate: number | null;
  budgeted: number;
  met: number | null;
  fallback: number;
  hedged: number;
  escalated: number;
  cached: number | null;
  spent: number;
  p50: number | null;
  p95: number | null;
  p99: number | null;
  mean: number | null;
  split: Record<string, number>;
  expected: number | null;
  took: number | null;
  quality: number | null;
  sure: number | null;
  shadows: number;
  shadow_took: number | null;
  shadow_instead: number | null;
  alike: number | null;
  judged: number;
  pass_rate: number | null;
  bleu: number | null;
  chrf: number | null;
}

export interface Road extends Told {
  function: string;
  modality: string;
  tier: string;
  began: string;
  worst: string;
}

export interface Version extends Told {
  function: string;
  tier: string;
  version: string;
  first: number;
  worst: string;
}

/** A version that took another's place; `moved` is how far its confidence is from that one's. */
export interface Change {
  function: string;
  tier: string;
  at: number;
  before: string;
  version: string;
  was: Told;
  now: Told;
  moved: number | null;
  worst: string;
}

export interface Group extends Told {
  who: string;
  worst: string;
}

export interface Objective {
  function: string;
  what: string;
  objective: number;
  burn: Record<string, number>;
  left: number | null;
  alert: boolean;
}

export interface Broken {
  function: string;
  where: string;
  code: string;
  count: number;
  first: number;
  last: number;
  worst: string;
}

/** What became of asks since something broke, beside the time before; `spent` is of one ask. */
export interface Toll {
  asks: number;
  failed: number;
  late: number;
  fallback: number;
  p95: number | null;
  p95_before: number | null;
  spent: number | null;
  spent_before: number | null;
  callers: { who: string; hurt: number }[];
}

export interface Alert {
  what: string;
  said: string;
  function: string;
  since: number | null;
  toll: Toll | null;
}

/** How far a function's answers are to be trusted now; null where too little was counted. */
export interface Doubt {
  function: string;
  sure: number | null;
  size: number | null;
  alike: number | null;
  pass_rate: number | null;
  chrf: number | null;
}

/** Figures over time; `worst` are the slowest traces that are kept of each step. */
export interface Points {
  at: number[];
  worst: string[];
  lines: Record<string, (number | null)[]>;
}

export interface Overview {
  from: number;
  to: number;
  step: number;
  total: Told | null;
  roads: Road[];
  series: Points;
  slo: Objective[];
  errors: Broken[];
  callers: Group[];
  devices: Group[];
  versions: Version[];
  quality: Doubt[];
  changes: Change[];
  alerts: Alert[];
  trouble: string;
}

export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

export interface Replica {
  tier: string;
  up: boolean;
  seen: number;
  started: number;
  samples: Sample[];
}

export interface State {
  replicas: Record<string, Replica>;
  history: { trouble: string; lost: number; bytes: number | null };
}

/** What replicas said of themselves over time, by the figure's name. */
export interface Resources {
  at: number[];
  figures: Record<string, { of: string; labels: Record<string, string>; values: (number | null)[] }[]>;
}

export interface Kept {
  at: number;
  trace: string;
  function: string;
  began: string;
  tier: string;
  ms: number;
  error: string;
  late: number | null;
  kept: string;
  caller: string;
  device: string;
  plan: string;
}

export interface Span {
  name: string;
  service: string;
  span_id: string;
  parent_id?: string;
  start_ns: number;
  end_ns: number;
  attributes?: Record<string, string | number | boolean>;
  error?: string;
}

const KEY = "trivium-ops-key";

/** The gateway refuses the key. */
export class Refused extends Error {}

export class Api {
  private key = sessionStorage.getItem(KEY) ?? "";

  get known(): boolean {
    return this.key !== "";
  }

  /** Remembers a key as long as the tab is open; an empty one is forgotten. */
  remember(key: string): void {
    this.key = key;
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  async get<T>(path: string, query: Record<string, string> = {}): Promise<T> {
    const response = await this.fetch(path, query);
    return (await response.json()) as T;
  }

  /** Calls `heard` for each event until `signal` ends it; settles when the stream ends. */
  async live(heard: (tick: { minute: Told | null }) => void, signal: AbortSignal): Promise<void> {
    const response = await this.fetch("live", {}, signal);
    for await (const tick of events<{ minute: Told | null }>(response)) heard(tick);
  }

  private async fetch(
    path: string,
    query: Record<string, string>,
    signal: AbortSignal | null = null,
  ): Promise<Response> {
    const url = new URL(`../v1/ops/${path}`, document.baseURI);
    for (const [name, value] of Object.entries(query)) if (value) url.searchParams.set(name, value);
    const headers = { Authorization: `Bearer ${this.key}` };
    const response = await fetch(url, { headers, signal, cache: "no-store" });
    if (response.ok) return response;
    const said = (await response.json().catch(() => ({}))) as { detail?: string };
    const text = said.detail ?? `the gateway answered ${response.status}`;
    throw response.status === 401 || response.status === 403 ? new Refused(text) : new Error(text);
  }
}
