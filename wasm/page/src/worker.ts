// How do the page's asks reach Python, and its answers the page?

import "./heap";
import { TriviumError, text } from "./faults";
import { Gateway } from "./gateway";
import { Trust } from "./signing";
import { PageTier } from "./tier";
import {
  type Ask,
  type Bytes,
  type Connect,
  type Fault,
  type FromWorker,
  type ToWorker,
  stays,
} from "./wire";

interface Scope {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

type Asking = Extract<ToWorker, { kind: "ask" }>;

const scope = self as unknown as Scope;
const running = new Map<number, AbortController>();
const answered = { answers: 0, total: 0 };

function connect({ base, trusted, shadows }: Connect): (message: ToWorker) => void {
  const gateway = new Gateway(new URL(base));
  const trust = new Trust(gateway, trusted);
  const tier = new PageTier(
    gateway,
    trust,
    // The page itself sends them: a worker is gone before it could say its last.
    (span) => scope.postMessage({ kind: "span", span }),
    (state) => scope.postMessage({ kind: "state", state }),
  );
  tier.started.then(
    (page) => page.shadow(shadows),
    () => undefined, // its state says so
  );

  async function answer({ id, ask, blobs, stream }: Asking, signal: AbortSignal): Promise<void> {
    const begun = performance.now();
    const given = await bytes(blobs);
    if (stays(ask)) await within(tier.ready(ask.function), ask.budget.ms, signal);
    const page = await tier.started;
    const waited = performance.now() - begun;
    const json = JSON.stringify({ ...ask, budget: less(ask.budget, waited) });
    const list = Object.entries(given).map(([name, { media, data }]): [string, string, Uint8Array] => [
      name,
      media,
      data,
    ]);
    signal.addEventListener("abort", () => page.cancel(id));
    const asked = performance.now();
    page.ask(id, json, list, stream, (said) => {
      scope.postMessage({ kind: "said", id, json: said });
      answered.answers += 1;
      answered.total += performance.now() - asked;
    });
    tier.look();
  }

  return (message) => {
    const { id } = message;
    switch (message.kind) {
      case "ask": {
        const control = new AbortController();
        running.set(id, control);
        answer(message, control.signal).catch((error: unknown) => say(id, faulty(error)));
        break;
      }
      case "cancel":
        running.get(id)?.abort();
        running.delete(id);
        break;
      case "functions":
        tier.functions().then(
          (functions) => scope.postMessage({ kind: "functions", id, functions }),
          (error: unknown) => say(id, faulty(error)),
        );
        break;
      case "load":
        tier.want(message.name).then(
          () => scope.postMessage({ kind: "loaded", id }),
          (error: unknown) => say(id, faulty(error)),
        );
        break;
      case "usage":
        tier.usage().then(
          (usage) => scope.postMessage({ kind: "usage", id, usage: { ...usage, ...answered } }),
          (error: unknown) => say(id, faulty(error)),
        );
    }
  };
}

function say(id: number, said: Fault): void {
  scope.postMessage({ kind: "said", id, json: JSON.stringify(said) });
}

function faulty(error: unknown): Fault {
  const known = error instanceof TriviumError ? error : new TriviumError("internal", text(error));
  return known.fault;
}

function less(budget: Ask["budget"], waited: number): Ask["budget"] {
  // What is used up, or was never a budget, is for the engine to refuse in its own words.
  if (budget.ms === undefined || budget.ms <= 0) return budget;
  return { ...budget, ms: Math.max(1e-3, budget.ms - waited) };
}

async function bytes(blobs: Record<string, Blob | Bytes>): Promise<Record<string, Bytes>> {
  const read: Record<string, Bytes> = {};
  for (const [name, value] of Object.entries(blobs)) {
    read[name] =
      value instanceof Blob
        ? { media: value.type, data: new Uint8Array(await value.arrayBuffer()) }
        : value;
  }
  return read;
}

/** Waits for `work`, at most `ms`, and no longer than somebody waits. */
function within(work: Promise<void>, ms: number | undefined, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new TriviumError("bad_ask", "cancelled")));
    if (ms !== undefined && ms > 0) {
      const message = `the page tier was not ready within the ${ms} ms that were left`;
      setTimeout(() => reject(new TriviumError("over_budget", message, { tier: "page" })), ms);
    }
    work.then(resolve, reject);
  });
}

scope.onmessage = (first: MessageEvent<ToWorker | Connect>) => {
  if (first.data.kind !== "connect") return;
  const take = connect(first.data);
  scope.onmessage = ({ data }) => take(data);
};
