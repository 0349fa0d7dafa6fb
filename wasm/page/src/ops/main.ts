// What do operators look at? One page of views over the figures that the gateway keeps.

import { make, one } from "../elements";
import { Api, type Kept, type Overview, Refused, type Resources, type Span, type State } from "./api";
import { clear } from "./charts";
import * as figures from "./figures";
import { state } from "./state";
import { search, waterfall } from "./traces";
import { count, ms } from "./words";

const VIEWS = { now: "Now", roads: "Roads", quality: "Quality", state: "State", traces: "Traces" };
const TIMES = { "15": "15 minutes", "60": "an hour", "360": "6 hours", "1440": "a day", "10080": "a week" };
const EVERY_MS = 5_000;

const api = new Api();
const view = one("view");
let asked = 0;
let latest: Overview | null = null;
let drawn = 0;
let connection: AbortController | null = null;

function chosen(name: string): string {
  return one<HTMLSelectElement>(name).value;
}

function fill(name: string, options: Record<string, string>): void {
  const select = one<HTMLSelectElement>(name);
  const before = select.value;
  const made = Object.entries(options).map(([value, text]) => make("option", { value }, text));
  if (select.options.length === made.length) return;
  select.replaceChildren(...made);
  if (before in options) select.value = before;
}

/** Draws what the address names; `again` keeps what is open where the reader is. */
async function show(again = false): Promise<void> {
  const turn = ++asked;
  const [path = "", query = ""] = (location.hash.slice(1) || "now").split("?");
  const [name = "now", id = ""] = path.split("/");
  for (const link of one("nav").querySelectorAll("a")) {
    const current = link.hash === `#${name}` || (name === "trace" && link.hash === "#traces");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const filters = { minutes: chosen("minutes"), function: chosen("function"), tier: chosen("tier") };
  try {
    let made: HTMLElement[];
    if (name === "trace") {
      if (again) return;
      made = waterfall(id, await api.get<Span[]>(`traces/${encodeURIComponent(id)}`));
    } else if (name === "traces") {
      if (again) return;
      const wanted = new URLSearchParams(query);
      const given = { ...filters, ...Object.fromEntries(wanted) };
      const look = (next: URLSearchParams): void => {
        location.hash = `traces?${next}`;
      };
      made = search(await api.get<Kept[]>("traces", given), wanted, look);
    } else {
      latest = await api.get<Overview>("overview", { ...filters, began: chosen("began") });
      choices(latest);
      if (name === "state") {
        const { minutes } = filters;
        const past = api.get<Resources>("resources", { minutes });
        made = state(await api.get<State>("state"), await past, latest);
      }
      else if (name === "roads") made = figures.roads(latest);
      else if (name === "quality") made = figures.quality(latest);
      else made = figures.now(latest);
    }
    if (turn !== asked) return;
    drawn = Date.now();
    clear();
    const scrolled = again ? window.scrollY : 0;
    view.replaceChildren(...made);
    window.scrollTo(0, scrolled);
    if (!again) view.focus({ preventScroll: true });
  } catch (error) {
    if (turn !== asked) return;
    if (error instanceof Refused) {
      leave(error.message);
      return;
    }
    const text = error instanceof Error ? error.message : `${error}`;
    view.replaceChildren(make("p", { className: "alert", role: "alert" }, text));
  }
}

function choices({ roads }: Overview): void {
  const names = (key: "function" | "tier" | "began"): Record<string, string> => {
    const kept = chosen(key);
    const found = [...new Set([...roads.map((row) => row[key]), kept])].filter(Boolean).sort();
    return Object.fromEntries([["", "all"], ...found.map((each) => [each, each])]);
  };
  for (const key of ["function", "tier", "began"] as const) if (!chosen(key)) fill(key, names(key));
}

/** Follows what is new, until the key is forgotten. */
async function follow(): Promise<void> {
  connection?.abort();
  const control = new AbortController();
  connection = control;
  const live = one("live");
  while (!control.signal.aborted) {
    try {
      await api.live(({ minute }) => {
        live.dataset["live"] = "yes";
        const rate = (minute?.asks ?? 0) / 60;
        live.textContent = `live · ${count(rate)} asks/s · p95 ${ms(minute?.p95 ?? null) ?? "–"}`;
        const busy = view.contains(document.activeElement) && document.activeElement !== view;
        if (Date.now() - drawn > EVERY_MS && !busy && !document.hidden) void show(true);
      }, control.signal);
    } catch (error) {
      if (control.signal.aborted || error instanceof Refused) return;
    }
    delete live.dataset["live"];
    live.textContent = "the gateway does not answer";
    await new Promise((resolve) => setTimeout(resolve, 2_000));
  }
}

function leave(why = ""): void {
  connection?.abort();
  api.remember("");
  one("login").hidden = false;
  one("filters").hidden = true;
  one("nav").hidden = true;
  one("refused").textContent = why;
  one("live").textContent = "not connected";
  view.replaceChildren();
  one<HTMLInputElement>("key").focus();
}

function enter(): void {
  one("login").hidden = true;
  one("filters").hidden = false;
  one("nav").hidden = false;
  void show();
  void follow();
}

one("nav").append(
  ...Object.entries(VIEWS).map(([name, text]) => make("a", { href: `#${name}` }, text)),
);
fill("minutes", TIMES);
one<HTMLSelectElement>("minutes").value = "15";
for (const name of ["function", "tier", "began"]) fill(name, { "": "all" });
one("filters").onchange = () => void show();
one("filters").onsubmit = (event) => event.preventDefault();
one("leave").onclick = () => leave();
one("login").onsubmit = (event) => {
  event.preventDefault();
  const key = one<HTMLInputElement>("key");
  api.remember(key.value);
  key.value = "";
  enter();
};
window.onhashchange = () => void show();
matchMedia("(prefers-color-scheme: dark)").onchange = () => void show(true);
if (api.known) enter();
else leave();
