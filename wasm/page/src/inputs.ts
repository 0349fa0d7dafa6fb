// How does one give a function what it takes? Fields for its inputs and options, by its schema.

import type { InputValue } from "./client";
import { address, make } from "./elements";
import type { Json, Option, Sample, Schema } from "./wire";

interface Field<T> {
  element: HTMLElement;
  /** Throws an Error that says what is missing. */
  value(): T;
  set(value: T, label?: string): void;
}

export interface Fields {
  inputs(): Record<string, InputValue>;
  options(): Record<string, Json>;
}

/** Kinds of which a person sees what is written. */
const WRITTEN = ["text", "table", "series"];
const HINTS: Record<string, string> = {
  table: "A table: names of columns, then rows, with commas between; or JSON",
  series: "A series: numbers, a line each, with times before them or without; or JSON",
};
const ACCEPT: Record<string, string> = {
  image: "image/*",
  audio: "audio/*",
  video: "video/*",
  table: ".csv,.json,text/csv,application/json",
  series: ".csv,.json,text/csv,application/json",
};

/** Fills the places for inputs and options; `go` is called when an input is ready to be asked. */
export function fields(
  schema: Schema,
  samples: readonly Sample[],
  places: { inputs: HTMLElement; options: HTMLElement },
  go: () => void,
): Fields {
  const given = Object.keys(samples[0]?.inputs ?? {});
  // Of several values as many as the first sample has.
  const slots = schema.inputs.flatMap(({ name, kind, many }) => {
    const names = many ? given.filter((each) => each.startsWith(`${name}.`)) : [name];
    return (names.length ? names : [`${name}.0`]).map((each) => ({ name: each, kind }));
  });
  const inputs = slots.map(({ name, kind }) => {
    return [name, WRITTEN.includes(kind) ? written(name, kind) : file(name, kind, go)] as const;
  });
  const options = schema.options.map((each) => [each.name, setting(each), each.default] as const);
  const kinds = new Map(slots.map(({ name, kind }) => [name, kind]));
  const take = async (sample: Sample, only = [...kinds.values()]): Promise<void> => {
    for (const [name, field] of inputs) {
      const kind = kinds.get(name) ?? "";
      const value = sample.inputs[name];
      if (value === undefined || !only.includes(kind)) continue;
      if (typeof value === "string") field.set(value);
      else {
        const blob = await (await fetch(value.path)).blob();
        field.set(WRITTEN.includes(kind) ? await blob.text() : blob, value.file);
      }
    }
    for (const [name, field, preset] of options) field.set(sample.options[name] ?? preset);
  };
  const buttons = samples.map((sample) => {
    const onclick = (): void => void take(sample).then(go);
    const label = said(sample);
    const title = `Ask about ${label}`;
    const button = make("button", { type: "button", title, ariaLabel: title, onclick });
    const files = Object.values(sample.inputs).filter((each) => typeof each === "object");
    const src = files.find((each) => /\.(jpe?g|png|webp)$/.test(each.file))?.path ?? "";
    button.append(src ? make("img", { src, alt: label, loading: "lazy" }) : label);
    const film = files.find((each) => /\.(webm|mp4)$/.test(each.file))?.path;
    // Its first picture, of which the server of the page sends no more than it must.
    if (film) button.replaceChildren(make("video", { src: `${film}#t=0.1`, muted: true, preload: "metadata" }));
    return button;
  });
  const row = make("div", { className: "samples" }, ...buttons);
  row.setAttribute("role", "group");
  row.ariaLabel = "Samples";
  places.inputs.replaceChildren(...inputs.map(([, { element }]) => element), row);
  places.options.replaceChildren(...options.map(([, { element }]) => element));
  if (samples[0]) void take(samples[0], WRITTEN);
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

/** What a sample is called: its text, or its file's name. */
function said({ inputs }: Sample): string {
  const each = Object.values(inputs)[0] ?? "sample";
  const label = typeof each === "string" ? each.trim() : each.file.replace(/\.\w+$/, "");
  return label.length > 60 ? `${label.slice(0, 59)}…` : label;
}

function written(name: string, kind: string): Field<InputValue> {
  const area = make("textarea", { name, spellcheck: false, placeholder: HINTS[kind] ?? "" });
  const element = make("div", {}, make("label", {}, make("span", {}, name), area));
  if (kind !== "text") {
    area.classList.add("numbers");
    const input = make("input", { type: "file", accept: ACCEPT[kind] ?? "" });
    input.setAttribute("aria-label", `${name}: choose a file`);
    input.onchange = async () => {
      const chosen = input.files?.[0];
      if (chosen) area.value = await chosen.text();
    };
    element.append(input);
  }
  return {
    element,
    value: () => area.value,
    set: (value) => {
      if (typeof value === "string") area.value = value;
    },
  };
}

function file(name: string, kind: string, go: () => void): Field<InputValue> {
  let chosen: Blob | null = null;
  const article = /^[aeiou]/.test(kind) ? "an" : "a";
  const hint = `Drop, paste or choose ${kind === "audio" ? "a sound" : `${article} ${kind}`}`;
  const says = make("span", {}, hint);
  const input = make("input", { type: "file", accept: ACCEPT[kind] ?? "" });
  input.setAttribute("aria-label", `${name}: ${hint}`);
  const drop = make("label", { className: "drop" }, says, input);
  // Beside the drop zone: a click on it would choose a file.
  const player = make("div", { className: "player" });
  const show = (blob: Blob, label: string): void => {
    chosen = blob;
    const src = address(blob);
    const picture = make("img", { src, alt: label });
    drop.replaceChildren(blob.type.startsWith("image/") ? picture : says, input);
    says.textContent = label;
    if (kind === "audio") player.replaceChildren(make("audio", { src, controls: true }));
    if (kind === "video") player.replaceChildren(make("video", { src, controls: true }));
  };
  const first = (files: FileList | null | undefined): void => {
    const each = files?.[0];
    if (!each) return;
    show(each, each.name);
    go();
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
  const recorded = (blob: Blob): void => {
    show(blob, "what was recorded");
    go();
  };
  return {
    element: make("div", {}, drop, player, ...(kind === "audio" ? [recorder(recorded)] : [])),
    value: () => {
      if (!chosen) throw new Error(`${hint} first.`);
      return chosen;
    },
    set: (value, label) => {
      if (value instanceof Blob) show(value, label ?? "");
    },
  };
}

/** A button that records until it is pressed again. */
function recorder(done: (blob: Blob) => void): HTMLElement {
  let running: MediaRecorder | null = null;
  const button = make("button", { type: "button", className: "record" }, "Record");
  button.onclick = async () => {
    if (running) return running.stop();
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      const parts: Blob[] = [];
      const recording = (running = new MediaRecorder(stream));
      recording.ondataavailable = ({ data }) => void parts.push(data);
      recording.onstop = () => {
        for (const track of stream.getTracks()) track.stop();
        running = null;
        button.textContent = "Record";
        done(new Blob(parts, { type: recording.mimeType.split(";")[0] ?? "audio/webm" }));
      };
      recording.start();
      button.textContent = "Stop recording";
    } catch (error) {
      button.textContent = `Record (${(error as Error).message})`;
    }
  };
  return button;
}

function setting({ name, schema, required, default: preset }: Option): Field<Json | undefined> {
  const labelled = (control: HTMLElement): HTMLElement =>
    make("label", { className: "knob" }, make("span", {}, name), control);
  const kind = schema["type"];
  const choices = schema["enum"];
  if (Array.isArray(choices)) {
    const select = make("select", { name });
    select.append(...choices.map((each) => make("option", { selected: each === preset }, `${each}`)));
    return {
      element: labelled(select),
      value: () => choices[select.selectedIndex],
      set: (value) => void (select.selectedIndex = choices.indexOf(value ?? null)),
    };
  }
  if (kind === "boolean") {
    const box = make("input", { type: "checkbox", name, checked: preset === true });
    return {
      element: labelled(box),
      value: () => box.checked,
      set: (value) => void (box.checked = value === true),
    };
  }
  const numeric = kind === "integer" || kind === "number";
  const items = schema["items"] as { type?: string } | undefined;
  // Written with commas between, unless its items are objects.
  const list = kind === "array" && items?.type !== "object";
  const shown = (value: Json | undefined): string => {
    if (value === null || value === undefined) return "";
    return list || typeof value !== "object" ? `${value}` : JSON.stringify(value);
  };
  const input = make("input", { type: numeric ? "number" : "text", name, required });
  input.value = shown(preset);
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
    set: (value) => void (input.value = shown(value)),
  };
}
