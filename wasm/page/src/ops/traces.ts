// Which asks were kept, and where did the time of one go, tier by tier?

import { make } from "../elements";
import type { Kept, Span } from "./api";
import { type Column, card, ms, table, tier, trace, when } from "./words";

/** Draws a form for the search and what it found; `look` is called with what is wanted. */
export function search(
  found: Kept[],
  wanted: URLSearchParams,
  look: (wanted: URLSearchParams) => void,
): HTMLElement[] {
  const field = (name: string, label: string, type = "text"): HTMLElement =>
    make("label", {}, `${label} `, make("input", { name, type, value: wanted.get(name) ?? "" }));
  const check = (name: string, label: string): HTMLElement =>
    make("label", {}, make("input", { name, type: "checkbox", value: "1", checked: wanted.get(name) === "1" }), ` ${label}`);
  const order = make(
    "select",
    { name: "order" },
    make("option", { value: "at" }, "newest first"),
    make("option", { value: "ms", selected: wanted.get("order") === "ms" }, "slowest first"),
  );
  const form = make(
    "form",
    { className: "search" },
    field("trace", "Trace"),
    field("caller", "Caller"),
    field("error", "Error"),
    field("least_ms", "At least ms", "number"),
    check("failed", "failed"),
    check("late", "too late"),
    make("label", {}, "Order ", order),
    make("button", { type: "submit" }, "Search"),
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    const next = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) next.set(name, `${value}`);
    for (const name of LINKED) if (wanted.has(name)) next.set(name, wanted.get(name) ?? "");
    look(next);
  };
  const columns: Column<Kept>[] = [
    { head: "when", cell: (row) => when(row.at) },
    { head: "function", cell: (row) => trace(row.trace, row.function) },
    { head: "asked at", cell: (row) => row.began },
    { head: "road", cell: (row) => tier(row.tier) },
    { head: "took", cell: (row) => ms(row.ms), number: true },
    { head: "error", cell: (row) => (row.error ? make("span", { className: "bad" }, row.error) : "") },
    { head: "kept for", cell: (row) => row.kept },
    { head: "caller", cell: (row) => row.caller },
    { head: "why this road", cell: (row) => row.plan, wide: true },
  ];
  return [card("Traces", form, ...linked(wanted), table("Asks whose traces are kept", found, columns, "none is like that."))];
}

/** What a link to this view narrows, beside the form. */
const LINKED = ["from", "to", "function"];

function linked(wanted: URLSearchParams): HTMLElement[] {
  if (!LINKED.some((name) => wanted.has(name))) return [];
  const said: (Node | string)[] = [];
  for (const name of ["from", "to"]) {
    if (wanted.has(name)) said.push(` ${name} `, when(Number(wanted.get(name))));
  }
  const name = wanted.get("function");
  return [make("p", {}, "Only", name ? ` ${name}` : "", ...said, "; ", make("a", { href: "#traces" }, "show all"))];
}

interface Row {
  span: Span;
  depth: number;
}

/** Draws a trace as a waterfall: a bar for each span, in the colour of its tier. */
export function waterfall(id: string, spans: Span[]): HTMLElement[] {
  const first = Math.min(...spans.map((span) => span.start_ns));
  const last = Math.max(...spans.map((span) => span.end_ns));
  const whole = Math.max(1, last - first);
  const rows = nested(spans);
  const list = make("ol", { className: "waterfall" });
  for (const { span, depth } of rows) {
    const from = (span.start_ns - first) / whole;
    const wide = (span.end_ns - span.start_ns) / whole;
    const took = (span.end_ns - span.start_ns) / 1e6;
    const bar = make("span", { className: "bar" });
    bar.style.marginLeft = `${(100 * from).toFixed(2)}%`;
    bar.style.width = `${Math.max(0.3, 100 * wide).toFixed(2)}%`;
    const service = span.service.replace(/^trivium[.-]/, "");
    bar.dataset["tier"] = service;
    const name = make("span", { className: "name" }, tier(service), ` ${span.name}`);
    name.style.paddingLeft = `${depth * 0.9}rem`;
    const error = span.error ? [make("b", { className: "bad" }, ` ${span.error}`)] : [];
    const facts = Object.entries(span.attributes ?? {}).map(([key, value]) =>
      make("div", {}, make("dt", {}, key.replace(/^trivium\./, "")), make("dd", {}, `${value}`)),
    );
    const summary = make(
      "summary",
      {},
      name,
      make("span", { className: "lane" }, bar),
      make("span", { className: "number" }, ms(took) ?? "", ...error),
    );
    list.append(make("li", {}, make("details", {}, summary, make("dl", {}, ...facts))));
  }
  const tiers = [...new Set(spans.map((span) => span.service.replace(/^trivium[.-]/, "")))];
  const title = make("p", {}, when(first / 1e9), `, ${ms(whole / 1e6) ?? ""}, ${spans.length} spans on `);
  title.append(...tiers.flatMap((name, i) => [i ? ", " : "", tier(name)]));
  return [
    card(
      "Trace",
      make("p", {}, make("code", {}, id), " ", make("a", { href: "#traces" }, "all traces")),
      title,
      list,
    ),
  ];
}

/** Puts spans below those they belong to, in the order they began. */
function nested(spans: Span[]): Row[] {
  const below = new Map<string, Span[]>();
  const known = new Set(spans.map((span) => span.span_id));
  for (const span of spans) {
    const above = known.has(span.parent_id ?? "") ? (span.parent_id ?? "") : "";
    below.set(above, [...(below.get(above) ?? []), span]);
  }
  const rows: Row[] = [];
  const seen = new Set<string>();
  const walk = (above: string, depth: number): void => {
    for (const span of below.get(above) ?? []) {
      if (seen.has(span.span_id)) continue;
      seen.add(span.span_id);
      rows.push({ span, depth });
      walk(span.span_id, depth + 1);
    }
  };
  walk("", 0);
  return rows;
}
