// How are figures, times and tables written?

import { make } from "../elements";

type Cell = Node | string | number | null;

/** A column: its head, and what stands in a row. `number` ones are flush right, `wide` ones wrap. */
export interface Column<T> {
  head: string;
  cell: (row: T) => Cell;
  number?: boolean;
  wide?: boolean;
  about?: string;
}

/** Draws a table; without rows it says so. */
export function table<T>(caption: string, rows: T[], columns: Column<T>[], none: string): HTMLElement {
  if (rows.length === 0) {
    return make("p", { className: "quiet" }, `${caption}: ${none}`);
  }
  const head = columns.map(({ head, number, about }) =>
    make("th", { scope: "col", className: number ? "number" : "", title: about ?? "" }, head),
  );
  const body = rows.map((row) =>
    make(
      "tr",
      {},
      ...columns.map(({ cell, number, wide }) => {
        const found = cell(row);
        const shown = found === null ? "–" : found instanceof Node ? found : `${found}`;
        return make("td", { className: number ? "number" : wide ? "wide" : "" }, shown);
      }),
    ),
  );
  const made = make(
    "table",
    {},
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...body),
  );
  // Wide ones scroll by keyboard, too.
  const scroll = make("div", { className: "scroll", tabIndex: 0 }, made);
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", caption);
  return scroll;
}

export function ms(value: number | null): string | null {
  if (value === null) return null;
  if (value >= 10_000) return `${(value / 1000).toFixed(1)} s`;
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function share(value: number | null, digits = 1): string | null {
  return value === null ? null : `${(100 * value).toFixed(digits)} %`;
}

export function count(value: number): string {
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

export function bytes(value: number): string {
  if (value < 1e6) return `${Math.round(value / 1e3)} kB`;
  return value < 1e9 ? `${(value / 1e6).toFixed(1)} MB` : `${(value / 1e9).toFixed(2)} GB`;
}

/** The time of day, and the day if it is not today. */
export function when(seconds: number): HTMLTimeElement {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString("en-GB");
  const today = date.toDateString() === new Date().toDateString();
  const text = today ? time : `${date.toLocaleDateString("en-GB")} ${time}`;
  return make("time", { dateTime: date.toISOString(), title: date.toISOString() }, text);
}

/** A link to a trace, if there is one. */
export function trace(id: string, text = "trace"): HTMLElement | null {
  return id ? make("a", { href: `#trace/${id}`, title: id }, text) : null;
}

/** A tier's name in its colour. */
export function tier(name: string): HTMLElement {
  const made = make("span", { className: "tier" }, name);
  made.dataset["tier"] = name;
  return made;
}

export function card(title: string, ...children: (Node | string)[]): HTMLElement {
  return make("section", { className: "card" }, make("h2", {}, title), ...children);
}
