// What do the figures of some hours look like: now, by road, and their quality?

import { make } from "../elements";
import type { Alert, Broken, Change, Doubt, Group, Objective, Overview, Road, Told, Toll, Version } from "./api";
import { type Line, chart } from "./charts";
import { type Column, card, count, ms, share, table, tier, trace, when } from "./words";

const STAGES: [string, string][] = [
  ["queue", "--bad"],
  ["transfer", "--cloud"],
  ["decode", "--edge"],
  ["python", "--quiet"],
  ["run", "--page"],
];

/** Opens the slowest trace of a point, or the asks of its time. */
function chosen({ series, step }: Overview): (index: number) => void {
  return (index) => {
    const at = series.at[index];
    if (at === undefined) return;
    const id = series.worst[index];
    location.hash = id ? `trace/${id}` : `traces?from=${at}&to=${at + step}`;
  };
}

export function now(seen: Overview): HTMLElement[] {
  const { series, total } = seen;
  const choose = chosen(seen);
  const lines = (...of: [label: string, colour: string, name?: string][]): Line[] =>
    of.map(([label, colour, name]) => ({ label, colour, values: series.lines[name ?? label] ?? [] }));
  const tiles: [string, string | null, string][] = [
    ["asks", total ? count(total.asks) : "0", "in this time"],
    [
      "failed",
      total ? share(total.error_rate, 2) : null,
      total ? `${count(total.failed)}; ${count(total.refused)} were the callers' mistakes` : "",
    ],
    ["in time", total ? share(total.met) : null, total ? `of ${count(total.budgeted)} with a budget` : ""],
    ["median", total ? ms(total.p50) : null, ""],
    ["95 of 100", total ? ms(total.p95) : null, ""],
    ["99 of 100", total ? ms(total.p99) : null, ""],
    ["spent", total ? count(total.spent) : null, "price of all that was begun"],
  ];
  const list = make(
    "ul",
    { className: "tiles" },
    ...tiles.map(([name, value, more]) =>
      make("li", {}, make("span", {}, name), make("b", {}, value ?? "–"), make("small", {}, more)),
    ),
  );
  const news = seen.changes.filter((row) => row.at >= seen.from);
  const marks = news.map(({ at: when }) => when);
  return [
    alerts(seen.alerts, seen.trouble),
    list,
    make(
      "div",
      { className: "charts" },
      chart({
        title: "Asks a second",
        unit: "/s",
        at: series.at,
        lines: lines(["asks", "--page"], ["too late", "--edge", "late"], ["failed", "--bad"]),
        marks,
        choose,
      }),
      chart({
        title: "How long asks took",
        unit: "ms",
        at: series.at,
        lines: lines(
          ["99 of 100", "--cloud", "p99"],
          ["95 of 100", "--edge", "p95"],
          ["median", "--page", "p50"],
        ),
        marks,
        choose,
      }),
      chart({ title: "Where the time went", unit: "ms", at: series.at, lines: lines(...STAGES), stacked: true, marks, choose }),
      chart({
        title: "What it cost",
        unit: "",
        at: series.at,
        lines: lines(["spent", "--cloud"]),
        marks,
        choose,
      }),
    ),
    card("What broke", broken(seen.errors)),
    card("What changed", changed(news)),
    card("For whom", who("Callers", seen.callers), who("Devices of pages", seen.devices)),
    card("Objectives", objectives(seen.slo)),
  ];
}

function alerts(found: Alert[], trouble: string): HTMLElement {
  if (found.length === 0 && !trouble) {
    return make("p", { className: "alert good" }, "Nothing needs a look.");
  }
  const list = make("ul", { className: "alerts" });
  list.setAttribute("aria-label", "What needs a look");
  for (const { what, said, function: name, since, toll: done } of found) {
    const words: (Node | string)[] = [make("b", {}, what), ` ${said}`];
    if (since !== null) {
      const query = new URLSearchParams({ from: `${since}`, to: `${Math.ceil(Date.now() / 1000)}` });
      if (name) query.set("function", name);
      words.push(" since ", when(since), " ", make("a", { href: `#traces?${query}` }, "traces"));
    }
    const more = done ? [make("br"), make("small", {}, toll(done))] : [];
    list.append(make("li", { className: "alert" }, ...words, ...more));
  }
  return list;
}

/** Says what became of asks since something broke, for whom, and at what cost. */
function toll(done: Toll): string {
  const { asks, failed, late, fallback, callers } = done;
  if (!asks) return "Nothing was asked since then.";
  const some: [number, string][] = [
    [failed, "failed"],
    [late, "were too late"],
    [fallback, "took another road"],
  ];
  const came = some.filter(([number]) => number).map(([number, word]) => `${count(number)} ${word}`);
  const said = [`Since then of ${count(asks)} asks ${came.join(", ") || "none failed or was too late"}`];
  const beside = (word: string, before: string | null, now: string | null): void => {
    if (before !== null && now !== null && before !== now) said.push(`${word} ${before} before, ${now} now`);
  };
  beside("p95", ms(done.p95_before), ms(done.p95));
  beside("price of an ask", price(done.spent_before), price(done.spent));
  const [first, ...others] = callers;
  if (first) {
    const named = [first, ...others.slice(0, 2)].map(({ who, hurt }) => `${who} (${count(hurt)})`);
    said.push(`for ${named.join(", ")}${callers.length > 3 ? ` and ${callers.length - 3} more` : ""}`);
  }
  return `${said.join("; ")}.`;
}

function price(value: number | null): string | null {
  return value === null ? null : value.toPrecision(2);
}

function broken(rows: Broken[]): HTMLElement {
  const columns: Column<Broken>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "what", cell: (row) => row.code },
    {
      head: "came of it",
      cell: (row) => (row.where === "rescued" ? "another road was tried" : `asked at ${row.where}: no answer`),
    },
    { head: "how often", cell: (row) => count(row.count), number: true },
    { head: "first", cell: (row) => when(row.first) },
    { head: "last", cell: (row) => when(row.last) },
    { head: "", cell: (row) => trace(row.worst) },
  ];
  return table("Errors", rows, columns, "none in this time.");
}

function changed(rows: Change[]): HTMLElement {
  const beside = (head: string, said: (told: Told) => string | null): Column<Change> => ({
    head,
    about: "before, and since",
    number: true,
    cell: ({ was, now: is }) => `${said(was) ?? "–"} → ${said(is) ?? "–"}`,
  });
  const columns: Column<Change>[] = [
    { head: "when", cell: (row) => when(row.at) },
    { head: "function", cell: (row) => row.function },
    { head: "road", cell: (row) => tier(row.tier) },
    { head: "version", cell: (row) => `${row.before} → ${row.version}` },
    beside("asks", (told) => count(told.asks)),
    beside("failed", (told) => share(told.error_rate)),
    beside("sure", (told) => share(told.sure)),
    beside("p95", (told) => ms(told.p95)),
    { head: "", cell: (row) => trace(row.worst, "slowest") },
  ];
  return table("Versions that came", rows, columns, "none in this time.");
}

function who(caption: string, rows: Group[]): HTMLElement {
  const columns: Column<Group>[] = [
    { head: "who", cell: (row) => row.who },
    { head: "asks", cell: (row) => count(row.asks), number: true },
    { head: "failed", cell: (row) => count(row.failed), number: true },
    { head: "in time", cell: (row) => share(row.met), number: true },
    { head: "p95", cell: (row) => ms(row.p95), number: true },
    { head: "spent", cell: (row) => count(row.spent), number: true },
    { head: "", cell: (row) => trace(row.worst, "slowest") },
  ];
  return table(caption, rows, columns, "none in this time.");
}

function objectives(rows: Objective[]): HTMLElement {
  const burn = (name: string): Column<Objective> => ({
    head: name,
    about: "how many times as fast as it may the error budget burns",
    number: true,
    cell: ({ burn: found }) => {
      const rate = found[name];
      return rate === undefined ? null : make("span", { className: rate > 1 ? "bad" : "" }, `${count(rate)}×`);
    },
  });
  const columns: Column<Objective>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "objective", cell: (row) => `${share(row.objective, 0)} ${row.what}` },
    ...["5m", "1h", "6h", "3d"].map(burn),
    {
      head: "budget left (3 d)",
      cell: (row) => (row.left !== null && row.left <= 0 ? make("b", { className: "bad" }, "none") : share(row.left, 0)),
      number: true,
    },
    { head: "", cell: (row) => (row.alert ? make("b", { className: "bad" }, "burning") : "") },
  ];
  return table("How fast error budgets burn", rows, columns, "nothing was asked.");
}

export function roads(seen: Overview): HTMLElement[] {
  const columns: Column<Road>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "modality", cell: (row) => row.modality },
    { head: "road", cell: (row) => tier(row.tier) },
    { head: "asked at", cell: (row) => row.began || "–" },
    { head: "asks", cell: (row) => count(row.asks), number: true },
    { head: "failed", cell: (row) => share(row.error_rate), number: true },
    { head: "in time", cell: (row) => share(row.met), number: true },
    { head: "quality", cell: (row) => row.quality?.toFixed(3) ?? null, number: true },
    { head: "p50", cell: (row) => ms(row.p50), number: true },
    { head: "p95", cell: (row) => ms(row.p95), number: true },
    { head: "p99", cell: (row) => ms(row.p99), number: true },
    { head: "expected", cell: (row) => ms(row.expected), number: true, about: "the plans' medians" },
    { head: "took", cell: (row) => ms(row.took), number: true, about: "the road that answered" },
    { head: "fell back", cell: (row) => count(row.fallback), number: true },
    { head: "hedged", cell: (row) => count(row.hedged), number: true },
    { head: "went up", cell: (row) => count(row.escalated), number: true },
    { head: "cached", cell: (row) => share(row.cached, 0), number: true },
    { head: "spent", cell: (row) => count(row.spent), number: true },
    { head: "", cell: (row) => trace(row.worst, "slowest") },
  ];
  const split: Column<Road>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "road", cell: (row) => tier(row.tier) },
    ...STAGES.map(([name]) => ({
      head: name,
      cell: (row: Road) => ms(row.split[name] ?? null),
      number: true,
    })),
    { head: "mean", cell: (row) => ms(row.mean), number: true },
  ];
  const instead: Column<Road>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "road not taken", cell: (row) => tier(row.tier) },
    { head: "asked as well", cell: (row) => count(row.shadows), number: true },
    { head: "took", cell: (row) => ms(row.shadow_took), number: true },
    { head: "the road taken", cell: (row) => ms(row.shadow_instead), number: true },
    { head: "said the same", cell: (row) => share(row.alike), number: true },
  ];
  return [
    card("Roads", table("Function by road", seen.roads.filter((row) => row.asks), columns, "nothing was asked.")),
    card("Where the time went", table("Means of an ask", seen.roads.filter((row) => row.asks), split, "nothing was asked.")),
    card(
      "What would have been",
      table("Roads not taken", seen.roads.filter((row) => row.shadows), instead, "no road was asked as well; it is one ask in a hundred."),
    ),
  ];
}

export function quality(seen: Overview): HTMLElement[] {
  const road: Column<Road>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "road", cell: (row) => tier(row.tier) },
    { head: "measured", cell: (row) => row.quality?.toFixed(3) ?? null, number: true, about: "by its gate" },
    { head: "sure", cell: (row) => share(row.sure), number: true, about: "the mean confidence" },
    { head: "agrees", cell: (row) => share(row.alike), number: true, about: "with the road taken, by shadows" },
    { head: "judged", cell: (row) => count(row.judged), number: true },
    { head: "good", cell: (row) => share(row.pass_rate), number: true, about: "by people" },
    { head: "BLEU", cell: (row) => row.bleu?.toFixed(1) ?? null, number: true },
    { head: "chrF", cell: (row) => row.chrf?.toFixed(1) ?? null, number: true },
  ];
  const version: Column<Version>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "road", cell: (row) => tier(row.tier) },
    { head: "version", cell: (row) => row.version },
    { head: "since", cell: (row) => when(row.first) },
    { head: "asks", cell: (row) => count(row.asks), number: true },
    { head: "failed", cell: (row) => share(row.error_rate), number: true },
    { head: "sure", cell: (row) => share(row.sure), number: true },
    { head: "measured", cell: (row) => row.quality?.toFixed(3) ?? null, number: true },
    { head: "p95", cell: (row) => ms(row.p95), number: true },
    { head: "", cell: (row) => trace(row.worst, "slowest") },
  ];
  const said = (bad: boolean, text: string | null): HTMLElement | null =>
    text === null ? null : make("span", { className: bad ? "bad" : "" }, text);
  const moved = (value: number | null): HTMLElement | null =>
    said(value !== null && value > 0.25, value?.toFixed(3) ?? null);
  const doubt: Column<Doubt>[] = [
    { head: "function", cell: (row) => row.function },
    { head: "confidence moved", cell: (row) => moved(row.sure), number: true, about: "population stability index" },
    { head: "size of inputs moved", cell: (row) => moved(row.size), number: true, about: "population stability index" },
    { head: "roads agree", cell: (row) => said((row.alike ?? 1) < 0.9, share(row.alike)), number: true, about: "in the last hour" },
    { head: "people say good", cell: (row) => said((row.pass_rate ?? 1) < 0.8, share(row.pass_rate)), number: true, about: "in the last day" },
    { head: "chrF", cell: (row) => said((row.chrf ?? 100) < 30, row.chrf?.toFixed(1) ?? null), number: true, about: "in the last day" },
  ];
  return [
    card("Quality in production", table("By road", seen.roads, road, "nothing was asked.")),
    card("Versions", table("What was served, and since when", seen.versions, version, "nothing was asked.")),
    card(
      "Is it as good as it was?",
      table("The last hour beside the day before", seen.quality, doubt, "nothing was asked."),
      make("p", { className: "quiet" }, "How far something moved is its population stability index: below 0.1 nothing has changed, above 0.25 much. It takes 50 asks on both sides, all else ten answers that were judged or asked twice."),
    ),
  ];
}
