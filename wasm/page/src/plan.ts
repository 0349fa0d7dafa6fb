// How does a plan look: the roads that were considered, and what was made of it?

import { draw, make } from "./elements";
import type { Answer, Road, Tier } from "./wire";

const WIDTH = 640;
const LEFT = 64;
const RIGHT = 16;
const ROW = 26;
const FOOT = 22;

/** Draws each road's p5 to p95 with its median, the budget as a line, and the actual as a dot. */
export function considered(answer: Answer, budget?: number): HTMLElement {
  const { plan, tier, took } = answer;
  const all = plan.roads.flatMap((road) => road.ms).concat(took, budget ?? took);
  const low = Math.log(Math.max(0.1, Math.min(...all.filter((ms) => ms > 0))) / 1.4);
  const span = Math.log(Math.max(...all) * 1.4) - low || 1;
  const x = (ms: number): number =>
    LEFT + (WIDTH - LEFT - RIGHT) * Math.min(1, Math.max(0, (Math.log(ms || 0.1) - low) / span));
  const bottom = plan.roads.length * ROW + 4;
  const upright = (ms: number, name: string): SVGElement =>
    draw("line", { class: name, x1: x(ms), x2: x(ms), y1: 2, y2: bottom });
  const marks = ticks(Math.exp(low), Math.exp(low + span)).flatMap((ms) => [
    upright(ms, "rule"),
    draw("text", { x: x(ms), y: bottom + 15, "text-anchor": "middle" }, `${short(ms)} ms`),
  ]);
  const rows = plan.roads.map((road, i) => {
    const y = 4 + (i + 0.5) * ROW;
    const [from, middle, to] = road.ms;
    return draw(
      "g",
      { "data-tier": road.tier, class: road.chance === null ? "left" : "open" },
      draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, road.tier),
      draw("line", { class: "range", x1: x(from), x2: x(to), y1: y, y2: y }),
      draw("line", { class: "middle", x1: x(middle), x2: x(middle), y1: y - 7, y2: y + 7 }),
      ...(road.tier === tier ? [draw("circle", { class: "took", cx: x(took), cy: y, r: 4.5 })] : []),
    );
  });
  const picture = draw(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${bottom + FOOT}`,
      role: "img",
      "aria-label": said(plan.roads, tier, took, budget),
      class: "chart plan",
    },
    ...marks,
    ...rows,
    ...(budget === undefined ? [] : [upright(budget, "limit")]),
  );
  const figure = make("figure", {});
  figure.append(picture, make("figcaption", { className: "quiet" }, outcome(answer, budget)));
  return figure;
}

/** The whole chart in words. */
function said(roads: Road[], tier: Tier, took: number, budget?: number): string {
  const each = roads.map(({ tier: name, ms, chance, quality, spend, why }) =>
    [
      `${name}: ${short(ms[0])} to ${short(ms[2])} ms, median ${short(ms[1])}`,
      ...(chance === null ? [] : [`${Math.round(100 * chance)} % likely in time`]),
      `quality ${quality.toFixed(2)}`,
      `price ${spend}`,
      chance === null ? `left out: ${why}` : why,
    ].join(", "),
  );
  const limit = budget === undefined ? [] : [`budget ${short(budget)} ms`];
  return [...each, ...limit, `${tier} took ${short(took)} ms`].join("; ");
}

function outcome({ tier, expected, took }: Answer, budget?: number): string {
  const plan = expected
    ? `${short(expected[1])} ms expected (${short(expected[0])} to ${short(expected[2])}), `
    : "";
  const limit = budget === undefined ? "" : `, of a budget of ${short(budget)} ms`;
  return `${tier}: ${plan}${short(took)} ms taken${limit}`;
}

/** Powers of ten, and what is between them where there are few. */
function ticks(low: number, high: number): number[] {
  const wide = high / low > 200;
  const found: number[] = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    for (const each of wide ? [1] : [1, 3]) found.push(each * power);
  }
  return found.filter((ms) => ms >= low && ms <= high);
}

function short(ms: number): string {
  return ms >= 10 || ms === 0 ? ms.toFixed(0) : ms.toPrecision(2);
}
