// How are the tiers now, as they say themselves?

import { make } from "../elements";
import type { Overview, Resources, Sample, State } from "./api";
import { chart } from "./charts";
import { type Column, bytes, card, count, share, table, tier, when } from "./words";

interface Told extends Sample {
  from: string;
}

export function state({ replicas, history }: State, past: Resources, seen: Overview): HTMLElement[] {
  const all: Told[] = Object.entries(replicas).flatMap(([from, { samples }]) =>
    samples.map((each) => ({ ...each, from })),
  );
  const named = (name: string): Told[] => all.filter((each) => each.name === name);
  const value = (name: string, from: string): number | null =>
    named(name).find((each) => each.from === from)?.value ?? null;
  const since = (name: string): number | null =>
    replicas[name]?.started || value("process_start_time_seconds", name);
  const rows: Column<string>[] = [
    { head: "replica", cell: place },
    { head: "", cell: (name) => (replicas[name]?.up ? "up" : make("b", { className: "bad" }, "does not answer")) },
    { head: "runs since", cell: (name) => time(since(name)) },
    { head: "seen", cell: (name) => time(replicas[name]?.seen ?? null) },
    { head: "load of a core", cell: (name) => share(value("trivium_cpu_load", name), 0), number: true },
    { head: "memory", cell: (name) => size(value("process_resident_memory_bytes", name)), number: true },
    { head: "asks running", cell: (name) => value("trivium_running", name), number: true },
    { head: "queue", cell: (name) => `${(value("trivium_queue_ms", name) ?? 0).toFixed(1)} ms`, number: true },
    { head: "loop is late by", cell: (name) => mean(all, "trivium_loop_lag_seconds", name), number: true },
  ];
  const loaded: Column<Told>[] = [
    { head: "on", cell: (row) => place(row.from) },
    { head: "function", cell: (row) => row.labels["function"] ?? "" },
    { head: "model", cell: (row) => row.labels["model"] ?? "" },
    { head: "device", cell: (row) => row.labels["device"] ?? "" },
    {
      head: "memory",
      cell: (row) =>
        size(
          named("trivium_model_bytes").find(
            (each) => each.from === row.from && each.labels["function"] === row.labels["function"],
          )?.value ?? null,
        ),
      number: true,
    },
  ];
  // One column for each road that a replica knows, so that a function is one row.
  const doors = [...new Set(named("trivium_road_ready").map(door))].sort().reverse();
  const functions = [...new Set(named("trivium_road_ready").map((each) => each.labels["function"] ?? ""))].sort();
  const gates: Column<string>[] = [
    { head: "function", cell: (name) => name },
    ...doors.map((each) => ({ head: each, cell: (name: string) => gate(name, each) })),
  ];
  function gate(name: string, place: string): HTMLElement | string {
    const mine = (each: Told): boolean => each.labels["function"] === name && door(each) === place;
    const bad = (text: string): HTMLElement => make("b", { className: "bad" }, text);
    if (named("trivium_breaker_open").some((each) => each.value && mine(each))) return bad("breaker open");
    const found = named("trivium_road_ready").find(mine);
    return found ? (found.value ? "ready" : bad("not ready")) : "–";
  }
  const gpu: Column<Told>[] = [
    { head: "on", cell: (row) => place(row.from) },
    { head: "GPU", cell: (row) => row.labels["name"] ?? "" },
    { head: "in use", cell: (row) => share(row.value, 0), number: true },
    { head: "memory", cell: (row) => size(beside(row, "trivium_gpu_memory_bytes")), number: true },
    { head: "of", cell: (row) => size(beside(row, "trivium_gpu_memory_total_bytes")), number: true },
    { head: "power", cell: (row) => `${(beside(row, "trivium_gpu_watts") ?? 0).toFixed(0)} W`, number: true },
  ];
  function beside(row: Told, name: string): number | null {
    return named(name).find((each) => each.from === row.from && each.labels["gpu"] === row.labels["gpu"])?.value ?? null;
  }
  // What other rooms count is shown by its name: a new figure needs no new code here.
  const others: [string, RegExp][] = [
    ["Queues and tasks", /^(trivium_(task|queue_ms|worker|webhook)|docket_)/],
    ["Caches and stores", /^trivium_(cache|store)/],
    ["Quotas and callers", /^trivium_(quota|limit|caller|admit)/],
  ];
  const plain: Column<Told>[] = [
    { head: "on", cell: (row) => place(row.from) },
    { head: "figure", cell: (row) => row.name.replace(/^trivium_/, "").replaceAll("_", " ") },
    { head: "of", cell: (row) => Object.values(row.labels).join(" · ") },
    { head: "", cell: (row) => count(row.value), number: true },
  ];
  const devices: Column<Overview["devices"][number]>[] = [
    { head: "device", cell: (row) => row.who },
    { head: "asks", cell: (row) => count(row.asks), number: true },
    { head: "p95", cell: (row) => (row.p95 === null ? null : `${row.p95.toFixed(1)} ms`), number: true },
  ];
  return [
    card("Replicas", table("Servers that this gateway knows", Object.keys(replicas).sort().reverse(), rows, "none.")),
    make("div", { className: "charts" }, ...lines(past)),
    card("GPUs", table("By NVML", named("trivium_gpu_use"), gpu, "there is none.")),
    card(
      "Models in memory",
      table("Loaded", named("trivium_model_loaded").filter((each) => each.value), loaded, "none yet; they load with the first ask."),
    ),
    card("Roads and breakers", table("Whether a road can be taken, by who says so", functions, gates, "none is known.")),
    ...others.map(([title, names]) =>
      card(title, table(title, all.filter((each) => names.test(each.name)), plain, "nothing is counted here.")),
    ),
    card("Devices", table("Pages that were seen", seen.devices, devices, "no page was seen in this time.")),
    card(
      "This history",
      make(
        "p",
        {},
        history.trouble
          ? make("b", { className: "bad" }, `can't be written: ${history.trouble}`)
          : `is written; ${size(history.bytes) ?? "nothing yet"}`,
        `; ${count(history.lost)} traces could not be kept`,
      ),
    ),
  ];
}

const DRAWN: [string, string, string[], number][] = [
  ["Load of a core", "%", ["trivium_cpu_load"], 0.01],
  ["Memory of processes", "MB", ["process_resident_memory_bytes"], 1e6],
  ["The way to the next tier and back", "ms", ["trivium_link_ms"], 1],
  ["What an ask would wait", "ms", ["trivium_queue_ms"], 1],
  ["Tasks that wait and run", "", ["trivium_task_waiting", "trivium_task_running"], 1],
  ["What caches said", "/s", ["trivium_cache_total"], 1],
  ["What stores hold", "MB", ["trivium_store_bytes"], 1e6],
  ["GPUs in use", "%", ["trivium_gpu_use"], 0.01],
  ["Memory of GPUs", "GB", ["trivium_gpu_memory_bytes"], 1e9],
  ["Power of GPUs", "W", ["trivium_gpu_watts"], 1],
];
const COLOURS = ["--edge", "--cloud", "--page", "--bad", "--quiet", "--ink"];
const MOST = 12;

/** Draws what replicas said of themselves; a point leads to the traces of its time. */
function lines({ at, figures }: Resources): HTMLElement[] {
  const step = (at[1] ?? 0) - (at[0] ?? 0);
  const choose = (index: number): void => {
    const from = at[index] ?? 0;
    location.hash = `traces?from=${from}&to=${from + step}`;
  };
  return DRAWN.flatMap(([title, unit, names, scale]) => {
    const drawn = names.flatMap((name) =>
      (figures[name] ?? []).map(({ of, labels, values }) => {
        const { service: _, ...rest } = labels;
        const what = names.length > 1 ? [name.replace(/^.*_/, "")] : [];
        const scaled = values.map((value) => (value === null ? null : value / scale));
        return { label: [of, ...what, ...Object.values(rest)].join(" "), values: scaled };
      }),
    );
    const shown = drawn.slice(0, MOST).map((line, i) => ({ ...line, colour: COLOURS[i % COLOURS.length] ?? "--ink" }));
    return shown.length ? [chart({ title, unit, at, lines: shown, choose })] : [];
  });
}

/** A replica's name in the colour of its tier. */
function place(name: string): HTMLElement {
  const [of = "", ...rest] = name.split(" ");
  return rest.length ? make("span", {}, tier(of), ` ${rest.join(" ")}`) : tier(of);
}

function time(seconds: number | null): HTMLElement | null {
  return seconds ? when(seconds) : null;
}

/** Which road a figure is of, and who says so. */
function door({ from, labels }: Told): string {
  return labels["tier"] === from.split(" ")[0] ? from : `${from} → ${labels["tier"] ?? ""}`;
}

function mean(all: Told[], name: string, from: string): string | null {
  const of = (end: string): number =>
    all.find((each) => each.from === from && each.name === name + end && each.labels["service"] === from.split(" ")[0])?.value ?? 0;
  const seen = of("_count");
  return seen ? `${((1000 * of("_sum")) / seen).toFixed(2)} ms` : null;
}

function size(value: number | null): string | null {
  return value === null ? null : bytes(value);
}
