// How are figures drawn over time, and how does a point lead to its trace?

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { make } from "../elements";

export interface Line {
  label: string;
  colour: string;
  values: (number | null)[];
}

interface Chart {
  title: string;
  unit: string;
  at: number[];
  lines: Line[];
  stacked?: boolean;
  /** Times at which something was changed. */
  marks?: number[];
  /** Called with the place of the point that is chosen by mouse or keyboard. */
  choose: (index: number) => void;
}

const HEIGHT = 190;
const open = new Set<uPlot>();

/** Ends the charts that are drawn; others will come. */
export function clear(): void {
  for (const each of open) each.destroy();
  open.clear();
}

/** Draws lines over time; arrow keys move along them, and Enter opens what lies there. */
export function chart({ title, unit, at, lines, stacked, marks = [], choose }: Chart): HTMLElement {
  const style = getComputedStyle(document.documentElement);
  const colour = (name: string): string => style.getPropertyValue(name).trim() || "gray";
  const shown = stacked ? heap(lines) : lines;
  const said = make("p", { className: "hidden" });
  said.setAttribute("aria-live", "polite");
  const place = make("div", { className: "plot", tabIndex: 0 });
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${title}. Arrow keys move along it, Enter opens a trace.`);
  const options: uPlot.Options = {
    width: 400,
    height: HEIGHT,
    cursor: { drag: { x: false, y: false }, points: { size: 7 } },
    legend: { live: true },
    scales: { x: { time: true }, y: { range: (_, __, most) => [0, most || 1] } },
    axes: [
      {
        stroke: colour("--quiet"),
        grid: { stroke: colour("--line") },
        ticks: { show: false },
        values: (_, times) => times.map((each) => clock(each, (at.at(-1) ?? 0) - (at[0] ?? 0))),
      },
      {
        stroke: colour("--quiet"),
        grid: { stroke: colour("--line") },
        ticks: { show: false },
        size: 62,
        values: (_, marks) => marks.map((each) => (each === null ? "" : `${short(each)} ${unit}`)),
      },
    ],
    series: [
      { value: (_, x) => (x === null ? "" : new Date(x * 1000).toLocaleTimeString("en-GB")) },
      ...shown.map(({ label, colour: name }, i) => ({
        label,
        stroke: colour(name),
        width: 1.6,
        ...(stacked ? { fill: `color-mix(in srgb, ${colour(name)} 45%, transparent)` } : {}),
        points: { show: at.length < 60 },
        value: (_: uPlot, __: number, ___: number, index: number | null) => {
          const value = index === null ? null : lines[i]?.values[index];
          return value === null || value === undefined ? "–" : `${short(value)} ${unit}`;
        },
      })),
    ],
  };
  options.hooks = {
    draw: [
      ({ ctx, bbox, valToPos }) => {
        ctx.save();
        ctx.strokeStyle = colour("--ink");
        ctx.setLineDash([4, 4]);
        for (const mark of marks) {
          const x = valToPos(mark, "x", true);
          ctx.strokeRect(x, bbox.top, 0, bbox.height);
        }
        ctx.restore();
      },
    ],
  };
  const figure = make("figure", {}, make("figcaption", {}, title), place, said);
  requestAnimationFrame(() => {
    if (!figure.isConnected) return;
    const data: uPlot.AlignedData = [at, ...shown.map(({ values }) => values)];
    const plot = new uPlot({ ...options, width: place.clientWidth || 400 }, data, place);
    open.add(plot);
    const last = at.findLastIndex((_, i) => lines.some(({ values }) => values[i]));
    // Nothing is pointed at as yet: what was last.
    const rest = (): void => plot.setLegend({ idx: Math.max(0, last) }, false);
    const resize = new ResizeObserver(() => {
      if (!open.has(plot)) resize.disconnect();
      else {
        plot.setSize({ width: place.clientWidth, height: HEIGHT });
        setTimeout(rest);
      }
    });
    resize.observe(place);
    place.onclick = () => {
      if (typeof plot.cursor.idx === "number") choose(plot.cursor.idx);
    };
    let index = at.length - 1;
    place.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -at.length, End: at.length }[event.key];
      if (event.key === "Enter") choose(index);
      if (step === undefined) return;
      event.preventDefault();
      index = Math.max(0, Math.min(at.length - 1, index + step));
      plot.setCursor({ left: plot.valToPos(at[index] ?? 0, "x"), top: HEIGHT / 3 });
      const values = lines.map(({ label, values }) => {
        const value = values[index];
        return `${label} ${value === null || value === undefined ? "none" : `${short(value)} ${unit}`}`;
      });
      said.textContent = `${new Date((at[index] ?? 0) * 1000).toLocaleTimeString("en-GB")}: ${values.join(", ")}`;
    };
  });
  return figure;
}

/** Each line on top of those after it, the highest first. */
function heap(lines: Line[]): Line[] {
  const sums: number[] = [];
  const made = [...lines].reverse().map((line) => ({
    ...line,
    values: line.values.map((value, i) => {
      if (value === null) return null;
      sums[i] = (sums[i] ?? 0) + value;
      return sums[i] ?? null;
    }),
  }));
  return made.reverse();
}

/** The time of day; over more than a day, the day as well. */
function clock(seconds: number, long: number): string {
  const date = new Date(seconds * 1000);
  const day = long > 86_400 ? `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })} ` : "";
  return day + date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

function short(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}
