// How does an answer look?

import { type Forecast, chart } from "./chart";
import type { Answer, InputValue, State, Tier, TriviumError } from "./client";
import { make, one } from "./elements";
import { type Box, type Mask, type Sheet, boxed, masked, sheets } from "./overlays";
import { considered } from "./plan";
import { type Timeline, lined } from "./timeline";
import { type Segment, heard } from "./waveform";

const PARTS = ["before", "decode", "python", "run", "hop"] as const;

type Inputs = Record<string, InputValue>;

interface Label {
  label: string;
  score: number;
}

interface Description {
  text: string;
  said: Label[];
  labels: Label[];
  boxes: Box[];
}

const last = new Map<string, number[]>();

/** Shows the page tier's state. */
export function showState({ phase, detail, progress, isolated, threads, functions }: State): void {
  const states = Object.values(functions);
  const loading = states.filter(({ state }) => state === "loading").length;
  const failed = Object.entries(functions).filter(([, { state }]) => state === "failed");
  const pill = one("tier");
  const busy = phase === "starting" || (phase === "ready" && loading > 0);
  pill.dataset["phase"] = phase === "failed" || failed.length ? "failed" : busy ? "starting" : phase;
  one("tier-progress").hidden = !busy;
  one<HTMLProgressElement>("tier-progress").value = progress;
  const ready = `${threads} thread${threads > 1 ? "s" : ""}${isolated ? "" : ", not isolated"}`;
  const text = {
    starting: "The page tier is starting; the edge answers",
    failed: "The page tier failed; the edge answers",
    ready: busy ? "The page tier is loading models" : `The page tier is ready (${ready})`,
  }[phase];
  one("tier-text").textContent = failed.length
    ? `The page runs without ${failed.map(([name]) => name).join(", ")}`
    : text;
  pill.title = [detail, ...failed.map(([name, { why }]) => `${name}: ${why}`)].join("\n").trim();
}

/** Shows an answer to these inputs, which had so many milliseconds. */
export function showAnswer(answer: Answer, inputs: Inputs, budget?: number): void {
  const { tier, plan, ms } = answer;
  roads(tier, answer);
  reason(plan.reason);
  one("considered").hidden = false;
  one("considered").replaceChildren(considered(answer, budget));
  const result = one("result");
  result.dataset["tier"] = tier;
  result.replaceChildren(...output(answer, inputs), raw(answer.output));
  const total = PARTS.reduce((sum, part) => sum + ms[part], 0);
  one("times").hidden = false;
  const shown = PARTS.filter((part) => part !== "before" || ms.before > 0);
  one("bar").ariaLabel = shown.map((part) => `${part} ${short(ms[part])} ms`).join(", ");
  one("bar").replaceChildren(
    ...PARTS.filter((part) => ms[part] > 0).map((part) => {
      const piece = make("i", { className: part, title: `${part}: ${short(ms[part])} ms` });
      piece.style.flexGrow = `${ms[part] / total}`;
      return piece;
    }),
  );
  one("legend").replaceChildren(
    ...shown.map((part) =>
      make("li", {}, make("i", { className: part }), `${part} ${short(ms[part])} ms`),
    ),
    make("li", {}, make("b", {}, `${short(total)} ms in all`)),
  );
  const sure = answer.confidence;
  const facts = {
    ...(typeof sure === "number" && { sure: `${Math.round(100 * sure)} % to say what full does` }),
    model: answer.model,
    version: answer.version,
    trace: traceId(answer.trace),
  };
  one("facts").hidden = false;
  one("facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [
      make("dt", {}, name),
      make("dd", {}, value),
    ]),
  );
  remember(answer, total);
}

/** Shows what came so far of an answer in parts. */
export function showParts(parts: readonly unknown[], inputs: Inputs): void {
  one("result").replaceChildren(...value(parts, inputs));
}

/** Shows why there is no answer. */
export function showError({ message, code, where, tier }: Partial<TriviumError>): void {
  roads(null, null);
  reason(message ?? "unknown", true);
  for (const id of ["considered", "times", "facts"]) one(id).hidden = true;
  const rest = [code, tier && `on the ${tier} tier`, where].filter(Boolean).join(" · ");
  one("result").replaceChildren(...(rest ? [make("pre", {}, rest)] : []));
}

/** Shows that an answer is awaited. */
export function showWaiting(): void {
  roads(null, null);
  reason("Asking …");
}

function reason(text: string, error = false): void {
  one("reason").textContent = text;
  one("reason").classList.toggle("error", error);
}

function roads(taken: Tier | null, answer: Answer | null): void {
  for (const place of one("roads").querySelectorAll("li")) {
    const tier = place.dataset["tier"];
    const road = answer?.plan.roads.find((each) => each.tier === tier);
    place.classList.toggle("taken", tier === taken);
    place.classList.toggle("out", answer !== null && !road);
    const text = place.querySelector("span");
    if (!text || !answer) continue;
    text.textContent = road
      ? [
          `${short(road.ms[1])} ms`,
          ...(road.chance === null ? [] : [`${Math.round(100 * road.chance)} % likely`]),
          `quality ${road.quality.toFixed(2)}`,
          `price ${road.spend}`,
          ...(road.why ? [road.why] : []),
        ].join(", ")
      : "no road";
  }
}

function output({ function: name, output: given }: Answer, inputs: Inputs): HTMLElement[] {
  const elements = value(given, inputs);
  if (!isVector(given)) return elements;
  const before = last.get(name);
  last.set(name, given);
  if (before?.length === given.length) {
    const cosine = dot(before, given) / Math.sqrt(dot(before, before) * dot(given, given));
    elements.push(make("p", {}, "cosine to the one before: ", make("b", {}, cosine.toFixed(4))));
  }
  return elements;
}

/** Draws what was answered by its shape: whose function it is does not matter. */
function value(given: unknown, inputs: Inputs): HTMLElement[] {
  const file = Object.values(inputs).find((each) => each instanceof Blob) ?? null;
  if (isForecast(given)) {
    const text = Object.values(inputs).find((each) => typeof each === "string");
    return [chart(given, text ?? "[]")];
  }
  if (isDescription(given)) {
    const said = make("p", { className: "said" }, given.text);
    return [said, ...boxed(given.boxes, file), ...(given.labels.length ? [labels(given.labels)] : [])];
  }
  if (isTimeline(given)) return lined(given, file);
  if (isEach<Box>(given, ["label", "score", "x", "y", "width", "height"])) return boxed(given, file);
  if (isEach<Label>(given, ["label", "score"])) return [labels(given)];
  if (isEach<Label>([given], ["label", "score"])) return [labels([given] as Label[])];
  if (isEach<Segment>(given, ["start", "end", "score"])) return heard(given, file);
  if (isEach<Mask>(given, ["label", "runs"])) return masked(given, file);
  if (isEach<Mask>([given], ["label", "runs"])) return masked([given] as Mask[], file);
  if (isEach<Sheet>(given, ["page", "lines"])) return sheets(given, file);
  if (isVector(given)) return vector(given);
  if (typeof given === "string") return [make("p", { className: "said" }, given)];
  // What was written piece by piece.
  if (isWords(given)) return [make("p", { className: "said" }, given.join(""))];
  return [make("pre", {}, JSON.stringify(given, null, 2))];
}

/** The answer as a program gets it. */
function raw(given: unknown): HTMLElement {
  const pre = make("pre", {});
  const details = make("details", {}, make("summary", {}, "as JSON"), pre);
  // Written out only for who looks: it may be long.
  details.ontoggle = () => {
    pre.textContent ||= JSON.stringify(given, null, 2);
  };
  return details;
}

function labels(given: readonly Label[]): HTMLElement {
  const list = make("dl", { className: "labels" });
  for (const { label, score } of given) {
    const fill = make("div", { className: "fill" });
    fill.style.width = `${100 * score}%`;
    const percent = `${(100 * score).toFixed(1)} %`;
    list.append(make("dt", {}, label), make("div", { className: "track" }, fill));
    list.append(make("dd", {}, percent));
  }
  return list;
}

function vector(given: readonly number[]): HTMLElement[] {
  const canvas = make("canvas", { className: "strip", width: given.length, height: 1 });
  canvas.setAttribute("role", "img");
  canvas.ariaLabel = `${given.length} numbers as colours`;
  const context = canvas.getContext("2d");
  const most = Math.max(...given.map(Math.abs)) || 1;
  given.forEach((each, i) => {
    if (!context) return;
    const strength = Math.sqrt(Math.abs(each) / most);
    context.fillStyle = `hsl(${each > 0 ? 172 : 30} 75% 50% / ${strength})`;
    context.fillRect(i, 0, 1, 1);
  });
  const norm = Math.sqrt(dot(given, given));
  const numbers = given.slice(0, 6).map((each) => each.toFixed(4));
  return [
    canvas,
    make("p", {}, `${given.length} numbers, norm ${norm.toFixed(4)}`),
    make("p", { className: "numbers" }, `[${numbers.join(", ")}, …]`),
  ];
}

function remember(answer: Answer, total: number): void {
  const table = one<HTMLTableElement>("past");
  const tier = make("b", {}, answer.tier);
  tier.dataset["tier"] = answer.tier;
  const cells = [tier, answer.function, gist(answer.output)];
  const row = make("tr", {}, ...cells.map((each) => make("td", {}, each)));
  row.append(make("td", { className: "number" }, short(total)));
  table.hidden = false;
  table.tBodies[0]?.prepend(row);
  while ((table.tBodies[0]?.rows.length ?? 0) > 6) table.tBodies[0]?.deleteRow(-1);
}

function gist(given: unknown): string {
  if (isForecast(given)) return `${given.values.length} steps`;
  if (isWords(given)) return given.join("").slice(0, 80);
  if (isDescription(given)) return given.text.slice(0, 80);
  if (isTimeline(given)) return given.summary.slice(0, 80);
  if (isEach<Sheet>(given, ["page", "lines"])) return given[0]?.text.slice(0, 80) ?? "";
  if (isEach<Segment>(given, ["start", "end"])) return `${given.length} pieces`;
  if (isEach<Mask>([given], ["label", "runs"])) return `a mask of ${(given as Mask).label}`;
  if (isLabels(given)) return `${given[0]?.label} ${((given[0]?.score ?? 0) * 100).toFixed(1)} %`;
  if (isVector(given)) return given.slice(0, 3).map((each) => each.toFixed(4)).join(", ");
  return JSON.stringify(given).slice(0, 80);
}

function isEach<T>(given: unknown, names: readonly (keyof T & string)[]): given is T[] {
  return (
    Array.isArray(given) &&
    given.length > 0 &&
    given.every((each) => typeof each === "object" && each && names.every((name) => name in each))
  );
}

function isLabels(given: unknown): given is Label[] {
  return isEach<Label>(given, ["label", "score"]);
}

function isForecast(given: unknown): given is Forecast {
  return isEach<Forecast>([given], ["quantiles", "values"]);
}

function isDescription(given: unknown): given is Description {
  return isEach<Description>([given], ["text", "said", "labels", "boxes"]);
}

function isTimeline(given: unknown): given is Timeline {
  return isEach<Timeline>([given], ["summary", "seconds", "timeline", "speech"]);
}

function isWords(given: unknown): given is string[] {
  return Array.isArray(given) && given.length > 0 && given.every((x) => typeof x === "string");
}

function isVector(given: unknown): given is number[] {
  return Array.isArray(given) && given.length > 8 && given.every((x) => typeof x === "number");
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, each, i) => sum + each * (b[i] ?? 0), 0);
}

function short(ms: number): string {
  return ms >= 100 || ms === 0 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2);
}

function traceId(header: string): string {
  return header.split("-")[1] ?? "";
}
