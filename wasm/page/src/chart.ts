// How does a forecast look behind the series that it continues?

import { draw, make } from "./elements";

export interface Forecast {
  quantiles: number[];
  values: number[][];
  times: string[];
}

const WIDTH = 640;
const HEIGHT = 260;
const LEFT = 56;
const BOTTOM = 24;

/** Draws the end of a series, and the forecast as a median with bands around it. */
export function chart({ quantiles, values, times }: Forecast, given: string): HTMLElement {
  const past = series(given);
  const before = past.values.slice(-Math.max(24, 3 * values.length));
  const middle = nearest(quantiles, 0.5);
  const all = [...before, ...values.flat()].filter(Number.isFinite);
  const low = Math.min(...all);
  const span = Math.max(...all) - low || 1;
  const steps = Math.max(1, before.length + values.length - 1);
  const x = (step: number): number => LEFT + ((WIDTH - LEFT - 8) * step) / steps;
  const y = (value: number): number => 8 + (HEIGHT - BOTTOM - 8) * (1 - (value - low) / span);
  const ahead = (step: number): number => x(before.length + step);
  const label = (place: number, text: string, anchor: string): SVGElement =>
    draw("text", { x: place, y: HEIGHT - 6, "text-anchor": anchor }, text);
  const bands: SVGElement[] = [];
  for (let each = 0; each < quantiles.length - 1 - each; each += 1) {
    const upper = values.map((row, i) => `${ahead(i)},${y(row[row.length - 1 - each] ?? 0)}`);
    const lower = values.map((row, i) => `${ahead(i)},${y(row[each] ?? 0)}`);
    bands.push(draw("polygon", { class: "band", points: [...upper, ...lower.reverse()].join(" ") }));
  }
  const line = values.map((row, i): [number, number] => [ahead(i), y(row[middle] ?? 0)]);
  const last = before.at(-1);
  if (last !== undefined && Number.isFinite(last)) line.unshift([x(before.length - 1), y(last)]);
  const marks = [low, low + span / 2, low + span].flatMap((value) => [
    draw("line", { class: "rule", x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value) }),
    draw("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const start = past.times.at(-before.length) ?? "";
  const end = times.at(-1) ?? `${values.length} steps ahead`;
  const now = past.times.at(-1) ?? "now";
  const first = values[0]?.[middle] ?? NaN;
  const final = values.at(-1) ?? [];
  const said =
    `${values.length} steps ahead: the median goes from ${short(first)} to ` +
    `${short(final[middle] ?? NaN)}; at the end it is between ${short(final[0] ?? NaN)} and ` +
    `${short(final.at(-1) ?? NaN)} with a chance of ` +
    `${Math.round(100 * ((quantiles.at(-1) ?? 1) - (quantiles[0] ?? 0)))} %`;
  const picture = draw(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said, class: "chart" },
    ...marks,
    ...bands,
    ...path(before.map((value, i) => [x(i), y(value)])).map((d) => draw("path", { class: "past", d })),
    ...path(line).map((d) => draw("path", { class: "median", d })),
    label(LEFT, start, "start"),
    label(x(before.length - 1), before.length ? now : "", "middle"),
    label(WIDTH - 8, end, "end"),
  );
  const figure = make("figure", {});
  figure.append(picture, make("figcaption", { className: "quiet" }, said));
  return figure;
}

/** Lines through points, broken where there is none. */
function path(points: [number, number][]): string[] {
  let d = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (Number.isFinite(y)) d += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = Number.isFinite(y) ? "L" : "M";
  }
  return d ? [d] : [];
}

function nearest(quantiles: number[], wanted: number): number {
  const apart = quantiles.map((each) => Math.abs(each - wanted));
  return apart.indexOf(Math.min(...apart));
}

/** Reads a series as far as it is needed to be looked at: the kernel has read it properly. */
function series(text: string): { values: number[]; times: string[] } {
  const number = (cell: unknown): number =>
    cell === null || `${cell}`.trim() === "" ? NaN : Number(cell);
  if (/^\s*[[{]/.test(text)) {
    const said = JSON.parse(text) as unknown[] | { values: unknown[]; times?: unknown[] };
    const { values, times = [] } = Array.isArray(said) ? { values: said } : said;
    return { values: values.map(number), times: times.map(String) };
  }
  const rows = text
    .split(/\r\n|\n|\r/)
    .filter(Boolean)
    .map((row) => row.split(/[,;\t]/).map((cell) => cell.replace(/^"(.*)"$/, "$1")));
  if (rows.length === 1 && rows[0]) return { values: rows[0].map(number), times: [] };
  if (Number.isNaN(number(rows[0]?.at(-1)))) rows.shift();
  const timed = (rows[0]?.length ?? 0) > 1;
  return {
    values: rows.map((row) => number(row.at(-1))),
    times: timed ? rows.map((row) => row[0] ?? "") : [],
  };
}

function short(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
}
