// How are the tiers now, as they say themselves?

import { make } from "../elements";
import type { Overview, Sample, State } from "./api";
import { type Column, bytes, card, count, share, table, tier, when } from "./words";

interface Told extends Sample {
  from: string;
}

export function state({ tiers, cloud, history }: State, seen: Overview): HTMLElement[] {
  const all: Told[] = Object.entries(tiers).flatMap(([from, { samples }]) =>
    samples.map((each) => ({ ...each, from })),
  );
  const named = (name: string): Told[] => all.filter((each) => each.name === name);
  const value = (name: string, from: string): number | null =>
    named(name).find((each) => each.from === from)?.value ?? null;
  const replicas = ["edge", ...(cloud || "cloud" in tiers ? ["cloud"] : [])];
  const rows: Column<string>[] = [
    { head: "replica", cell: tier },
    { head: "", cell: (name) => (name in tiers ? "up" : make("b", { className: "bad" }, "does not answer")) },
    { head: "seen", cell: (name) => (tiers[name] ? when(tiers[name].seen) : null) },
    { head: "load of a core", cell: (name) => share(value("trivium_cpu_load", name), 0), number: true },
    { head: "memory", cell: (name) => size(value("process_resident_memory_bytes", name)), number: true },
    { head: "asks running", cell: (name) => value("trivium_running", name), number: true },
    { head: "queue", cell: (name) => `${(value("trivium_queue_ms", name) ?? 0).toFixed(1)} ms`, number: true },
    { head: "loop is late by", cell: (name) => mean(all, "trivium_loop_lag_seconds", name), number: true },
  ];
  const loaded: Column<Told>[] = [
    { head: "on", cell: (row) => tier(row.from) },
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
  const gates: Column<Told>[] = [
    { head: "seen from", cell: (row) => tier(row.from) },
    { head: "function", cell: (row) => row.labels["function"] ?? "" },
    { head: "road", cell: (row) => tier(row.labels["tier"] ?? "") },
    {
      head: "breaker",
      cell: (row) =>
        named("trivium_breaker_open").some((each) => each.value && same(each, row))
          ? make("b", { className: "bad" }, "open")
          : "closed",
    },
    { head: "", cell: (row) => (row.value ? "ready" : make("b", { className: "bad" }, "not ready")) },
  ];
  const gpu: Column<Told>[] = [
    { head: "on", cell: (row) => tier(row.from) },
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
    ["Queues and tasks", /^(trivium_(task|queue|worker|webhook)|docket_)/],
    ["Caches", /^trivium_cache/],
    ["Quotas and callers", /^trivium_(quota|limit|caller|admit)/],
  ];
  const plain: Column<Told>[] = [
    { head: "on", cell: (row) => tier(row.from) },
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
    card("Replicas", table("Tiers that this gateway knows", replicas, rows, "none.")),
    card("GPUs", table("By NVML", named("trivium_gpu_use"), gpu, "there is none.")),
    card(
      "Models in memory",
      table("Loaded", named("trivium_model_loaded").filter((each) => each.value), loaded, "none yet; they load with the first ask."),
    ),
    card("Roads and breakers", table("Whether a road can be taken", named("trivium_road_ready"), gates, "none is known.")),
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

function same(one: Told, other: Told): boolean {
  return (
    one.from === other.from &&
    one.labels["function"] === other.labels["function"] &&
    one.labels["tier"] === other.labels["tier"]
  );
}

function mean(all: Told[], name: string, from: string): string | null {
  const of = (end: string): number =>
    all.find((each) => each.from === from && each.name === name + end && each.labels["service"] === from)?.value ?? 0;
  const seen = of("_count");
  return seen ? `${((1000 * of("_sum")) / seen).toFixed(2)} ms` : null;
}

function size(value: number | null): string | null {
  return value === null ? null : bytes(value);
}
