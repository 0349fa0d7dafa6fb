// How is an ask answered while Python is still on its way? By the edge, asked from here.

import { TriviumError } from "./faults";
import { type Gateway, JSON_TYPE, fault } from "./gateway";
import { pack } from "./msgpack";
import { type Spans, open } from "./spans";
import type { Answer, Ask, Bytes } from "./wire";

/** Asks the edge and returns its answer; the time on the way is added to it. */
export async function direct(
  gateway: Gateway,
  spans: Spans,
  ask: Ask,
  blobs: Record<string, Bytes>,
  signal: AbortSignal,
): Promise<Answer> {
  const span = open(`infer ${ask.function}`, ask.trace);
  const begun = performance.now();
  const inputs = {
    ...ask.inputs,
    ...Object.fromEntries(
      Object.entries(blobs).map(([name, { media, data }]) => [name, { media, data }]),
    ),
  };
  const body = pack({ ...ask, inputs, budget: { ...ask.budget }, trace: span.header });
  const call = gateway.ask(ask.function, body, JSON_TYPE, span.header);
  signal.addEventListener("abort", () => call.abort());
  try {
    const response = await call.reply;
    if (!response.ok) throw await fault(response);
    const answer = (await response.json()) as Answer;
    const { decode, python, run, hop } = answer.ms;
    const way = Math.max(0, performance.now() - begun - decode - python - run - hop);
    const reason = `the page tier is still starting; ${answer.plan.reason}`;
    spans.emit(span.end());
    return { ...answer, ms: { ...answer.ms, hop: hop + way }, plan: { ...answer.plan, reason } };
  } catch (error) {
    spans.emit(span.end(error instanceof TriviumError ? error.code : "tier_unreachable"));
    throw error;
  }
}
