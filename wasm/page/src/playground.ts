// What can one try here, and what came of it?

import { type Listed, type Settings, type Tier, Trivium, TriviumError } from "./client";
import { make, one } from "./elements";
import { type Fields, fields } from "./inputs";
import { showAnswer, showError, showParts, showState, showWaiting } from "./show";

declare global {
  interface Window {
    trivium: Trivium;
  }
}

const BUDGETS = [undefined, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 5000];

const trivium = await Trivium.connect();
window.trivium = trivium;
trivium.addEventListener("state", () => showState(trivium.state));
showState(trivium.state);

const budget = one<HTMLInputElement>("budget");
const quality = one<HTMLInputElement>("quality");
let chosen: Listed | null = null;
let given: Fields | null = null;
let asking: AbortController | null = null;

function settings(signal: AbortSignal): Settings {
  const ms = BUDGETS[budget.valueAsNumber];
  const reach = document.querySelector<HTMLInputElement>("#reach :checked")?.value as Tier;
  const force = one<HTMLSelectElement>("force").value as Tier | "";
  return {
    options: given?.options() ?? {},
    budget: { reach, quality: quality.valueAsNumber, ...(ms === undefined ? {} : { ms }) },
    tiers: force ? [force] : [],
    signal,
  };
}

async function ask(): Promise<void> {
  if (!chosen || !given) return;
  asking?.abort();
  const control = new AbortController();
  asking = control;
  showWaiting();
  try {
    const { name, schema } = chosen;
    const inputs = given.inputs();
    const ms = BUDGETS[budget.valueAsNumber];
    if (schema.streams) {
      let parts: unknown[] = [];
      for await (const said of trivium.stream(name, inputs, settings(control.signal))) {
        if (asking !== control) return;
        if (said.kind === "answer") showAnswer(said, inputs, ms);
        else showParts((parts = [...parts, said.output]), inputs);
      }
    } else {
      const answer = await trivium.infer(name, inputs, settings(control.signal));
      if (asking === control) showAnswer(answer, inputs, ms);
    }
  } catch (error) {
    if (control.signal.aborted) return;
    showError(error instanceof TriviumError ? error : { message: (error as Error).message });
  }
}

function choose(listed: Listed): void {
  chosen = listed;
  one("doc").replaceChildren(listed.schema.doc, ...optional(listed.name));
  const places = { inputs: one("inputs"), options: one("options") };
  given = fields(listed.schema, listed.samples, places, () => void ask());
}

/** What loads a function that is too large to be loaded unasked. */
function optional(name: string): HTMLElement[] {
  const { state, why } = trivium.state.functions[name] ?? {};
  if (state !== "optional") return [];
  const onclick = ({ currentTarget }: MouseEvent): void => {
    (currentTarget as HTMLButtonElement).disabled = true;
    trivium.load(name).then(
      () => one("doc").querySelector("button")?.remove(),
      (error: unknown) => showError({ message: (error as Error).message }),
    );
  };
  return [make("button", { type: "button", title: why ?? "", onclick }, "Load into this page")];
}

function list(all: readonly Listed[]): void {
  const tabs = [...all]
    .sort((a, b) => b.name.localeCompare(a.name))
    .map((listed, index) => {
      const onchange = (): void => choose(listed);
      const radio = make("input", { type: "radio", name: "function", checked: !index, onchange });
      if (!index) choose(listed);
      return make("label", { title: listed.schema.doc }, radio, make("span", {}, listed.name));
    });
  const none = make("p", { className: "quiet" }, "The gateway serves no function.");
  one("functions").replaceChildren(...(tabs.length ? tabs : [none]));
}

one("form").onsubmit = (event) => {
  event.preventDefault();
  void ask();
};
one("form").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void ask();
};
budget.oninput = () => {
  const ms = BUDGETS[budget.valueAsNumber];
  one("budget-text").textContent = ms === undefined ? "off" : `${ms} ms`;
};
quality.oninput = () => {
  one("quality-text").textContent = quality.value;
};

try {
  list(await trivium.functions());
} catch (error) {
  one("functions").replaceChildren(make("p", { className: "error" }, (error as Error).message));
}
