// How does one give a function what it takes? Fields for its inputs and options, by its schema.

import type { InputValue } from "./client";
import { make } from "./elements";
import type { Json, Option, Schema } from "./wire";

const TEXTS = [
  "A man is eating food.",
  "Someone has a meal.",
  "The stock market fell today.",
  "Ein Mann isst etwas.",
];

interface Field<T> {
  element: HTMLElement;
  /** Throws an Error that says what is missing. */
  value(): T;
}

export interface Fields {
  inputs(): Record<string, InputValue>;
  options(): Record<string, Json>;
}

/** Fills the places for inputs and options; `go` is called when an input is ready to be asked. */
export function fields(
  schema: Schema,
  samples: readonly string[],
  places: { inputs: HTMLElement; options: HTMLElement },
  go: () => void,
): Fields {
  const inputs = schema.inputs.map(({ name, kind }) => {
    return [name, kind === "text" ? words(name, go) : file(name, kind, samples, go)] as const;
  });
  const options = schema.options.map((each) => [each.name, setting(each)] as const);
  places.inputs.replaceChildren(...inputs.map(([, { element }]) => element));
  places.options.replaceChildren(...options.map(([, { element }]) => element));
  return {
    inputs: () => Object.fromEntries(inputs.map(([name, field]) => [name, field.value()])),
    options: () => {
      const given: Record<string, Json> = {};
      for (const [name, field] of options) {
        const value = field.value();
        if (value !== undefined) given[name] = value;
      }
      return given;
    },
  };
}

function words(name: string, go: () => void): Field<InputValue> {
  const area = make("textarea", { name, value: TEXTS[0] ?? "", spellcheck: false });
  const samples = TEXTS.map((text) => {
    const onclick = (): void => {
      area.value = text;
      go();
    };
    return make("button", { type: "button", onclick }, text);
  });
  return {
    element: make(
      "div",
      {},
      make("label", {}, make("span", {}, name), area),
      make("div", { className: "samples" }, ...samples),
    ),
    value: () => area.value,
  };
}

function file(
  name: string,
  kind: string,
  samples: readonly string[],
  go: () => void,
): Field<InputValue> {
  let chosen: Blob | null = null;
  const hint = `Drop, paste or choose ${kind === "image" ? "an image" : `a file (${kind})`}`;
  const says = make("span", {}, hint);
  const input = make("input", { type: "file", accept: /^(image|audio)$/.test(kind) ? `${kind}/*` : "" });
  input.setAttribute("aria-label", `${name}: ${hint}`);
  const drop = make("label", { className: "drop" }, says, input);
  let shown = "";
  const take = (blob: Blob, label: string): void => {
    chosen = blob;
    URL.revokeObjectURL(shown);
    shown = URL.createObjectURL(blob);
    const picture = make("img", { src: shown, alt: label });
    drop.replaceChildren(blob.type.startsWith("image/") ? picture : says, input);
    says.textContent = label;
    go();
  };
  const first = (files: FileList | null | undefined): void => {
    const each = files?.[0];
    if (each) take(each, each.name);
  };
  input.onchange = () => first(input.files);
  drop.ondragover = (event) => {
    event.preventDefault();
    drop.classList.add("over");
  };
  drop.ondragleave = () => drop.classList.remove("over");
  drop.ondrop = (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    first(event.dataTransfer?.files);
  };
  // Pasted anywhere, as long as this field is shown.
  document.addEventListener("paste", (event) => {
    if (drop.isConnected) first(event.clipboardData?.files);
  });
  const ours = samples.filter((path) => path.includes("/documents/") === (kind === "document"));
  const buttons = (/^(image|document)$/.test(kind) ? ours : []).map((path) => {
    const label = path.replace(/^.*\/|\.\w+$/g, "");
    const onclick = async (): Promise<void> => take(await (await fetch(path)).blob(), label);
    const title = `Ask about the ${label}`;
    const button = make("button", { type: "button", title, onclick });
    const picture = !path.endsWith(".pdf") && make("img", { src: path, alt: label, loading: "lazy" });
    button.append(picture || label);
    return button;
  });
  return {
    element: make("div", {}, drop, make("div", { className: "samples" }, ...buttons)),
    value: () => {
      if (!chosen) throw new Error(`${hint} first.`);
      return chosen;
    },
  };
}

function setting({ name, schema, required, default: preset }: Option): Field<Json | undefined> {
  const labelled = (control: HTMLElement): HTMLElement =>
    make("label", { className: "knob" }, make("span", {}, name), control);
  const kind = schema["type"];
  const choices = schema["enum"];
  if (Array.isArray(choices)) {
    const select = make("select", { name });
    select.append(...choices.map((each) => make("option", { selected: each === preset }, `${each}`)));
    return { element: labelled(select), value: () => choices[select.selectedIndex] };
  }
  if (kind === "boolean") {
    const box = make("input", { type: "checkbox", name, checked: preset === true });
    return { element: labelled(box), value: () => box.checked };
  }
  const numeric = kind === "integer" || kind === "number";
  const list = kind === "array"; // written with commas between
  const text = kind === "string" || list || preset === null || preset === undefined;
  const shown = preset === null ? "" : text || numeric ? `${preset ?? ""}` : JSON.stringify(preset);
  const input = make("input", { type: numeric ? "number" : "text", name, value: shown, required });
  if (list) input.placeholder = "one, another";
  if (numeric) {
    input.min = `${schema["minimum"] ?? ""}`;
    input.max = `${schema["maximum"] ?? ""}`;
    input.step = kind === "integer" ? "1" : "any";
  }
  return {
    element: labelled(input),
    value: () => {
      if (input.value === "") return undefined;
      if (numeric) return input.valueAsNumber;
      return kind === "string" || list ? input.value : (JSON.parse(input.value) as Json);
    },
  };
}
