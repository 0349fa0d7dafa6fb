// How is an ask answered while the page tier is still on its way? By the edge, asked from here.

import { events } from "./events";
import { TriviumError, text } from "./faults";
import { EVENTS, type Gateway, JSON_TYPE, fault } from "./gateway";
import { type Packable, pack } from "./msgpack";
import { type Spans, open } from "./spans";
import type { Answer, Ask, Bytes, Problem, Said } from "./wire";

/**
 * Asks the edge; yields the parts, where the answer is streamed, and then the answer.
 *
 * `why` says why the page itself does not answer.
 */
export async function* direct(
  gateway: Gateway,
  spans: Spans,
  ask: Ask,
  blobs: Record<string, Blob | Bytes>,
  stream: boolean,
  why: string,
  signal?: AbortSignal,
): AsyncGenerator<Said> {
  const span = open(`infer ${ask.function}`, ask.trace);
  const begun = performance.now();
  const inputs: Record<string, Packable> = { ...ask.inputs };
  for (const [name, blob] of Object.entries(blobs)) {
    const { media, data } = blob instanceof Blob ? { media: blob.type, data: blob } : blob;
    inputs[name] = { media, data };
  }
  const body = pack({ ...ask, inputs, budget: { ...ask.budget }, trace: span.header });
  const call = gateway.ask(ask.function, body, stream ? EVENTS : JSON_TYPE, span.header);
  const abort = (): void => call.abort();
  signal?.addEventListener("abort", abort);
  let failed = "cancelled";
  try {
    const response = await call.reply;
    if (!response.ok) throw await fault(response);
    const all = stream ? events<Said | Problem>(response) : [(await response.json()) as Said];
    for await (const said of all) {
      if (said.kind === "fault") throw TriviumError.from(said);
      // Whoever has the answer asks for no more.
      if (said.kind === "answer") failed = "";
      yield said.kind === "answer" ? arrived(said, performance.now() - begun, why) : said;
    }
    failed = "";
  } catch (error) {
    signal?.throwIfAborted();
    failed = error instanceof TriviumError ? error.code : "tier_unreachable";
    throw error instanceof TriviumError
      ? error
      : new TriviumError(failed, `the edge's answer broke off: ${text(error)}`, { tier: "edge" });
  } finally {
    call.abort();
    spans.emit(span.end(failed));
    signal?.removeEventListener("abort", abort);
  }
}

/** The answer as seen from the page. */
function arrived(answer: Answer, ms: number, why: string): Answer {
  const { decode, python, run, hop, before } = answer.ms;
  const way = Math.max(0, ms - before - decode - python - run - hop);
  const reason = `${answer.plan.reason}; not page (${why})`;
  return { ...answer, ms: { ...answer.ms, hop: hop + way }, plan: { ...answer.plan, reason } };
}
