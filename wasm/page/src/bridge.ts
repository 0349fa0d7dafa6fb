// How do models and tokenizers run for Python, without their tensors becoming Python lists?
//
// The only file that knows ONNX Runtime. Python holds tensors as opaque handles.

import type * as Ort from "onnxruntime-web/wasm";
import type { Files } from "./bundles";
import { TriviumError, text } from "./faults";
import { heap } from "./heap";
import { picture, type Pixels, png } from "./pictures";
import { tokenizer } from "./tokens";
import type { Usage, Variant } from "./wire";

type Feeds = Record<string, Ort.Tensor>;

/** The size that open dimensions have when a session is warmed. */
const WARM = 8;

const BYTES: Record<string, number> = {
  int64: 8,
  float64: 8,
  float16: 2,
  uint8: 1,
  int8: 1,
  bool: 1,
};

/** One output as Python reads it: names and numbers, and `data` to copy once. */
export interface Output {
  name: string;
  dtype: string;
  shape: readonly number[];
  data: Ort.Tensor["data"];
}

/** A variant's models by name; released, they give their memory back to ONNX Runtime. */
export interface Models {
  sessions: Map<string, Session>;
  release(): Promise<void>;
}

/** The tokens of one text, as handles of shape [1, count]. */
export interface Encoded {
  count: number;
  ids: Ort.Tensor;
  mask: Ort.Tensor;
}

/** A tokenizer, as its `tokenizer.json` describes it. */
export interface Tokens {
  encode(line: string): Encoded;
  decode(ids: readonly number[]): string;
}

/** One output that stays here. */
export interface Kept {
  name: string;
  dtype: string;
  shape: readonly number[];
  handle: Ort.Tensor;
}

/** A file's pages as Python has them drawn, numbered from 1. */
export interface Paged {
  count: number;
  draw(number: number): Promise<Ort.Tensor>;
  close(): void;
}

/** A video as Python has it: a frame is a handle, and when it begins to be shown; none is None. */
export interface Reel {
  seconds: number;
  frames(times: readonly number[]): {
    next(): Promise<{ at: number; pixels: Ort.Tensor } | undefined>;
    close(): void;
  };
  sound(): Promise<Ort.Tensor | undefined>;
  close(): void;
}

export class Bridge {
  /** Milliseconds spent here, for the measurement of what Python and crossing cost on top. */
  readonly spent = { run: 0, tokens: 0, decode: 0 };
  readonly threads: number;
  private readonly base: URL;
  private readonly ort: typeof Ort;
  private last: Promise<unknown> = Promise.resolve();

  private constructor(ort: typeof Ort, threads: number, base: URL) {
    this.base = base;
    this.ort = ort;
    this.threads = threads;
  }

  /** Loads ONNX Runtime from `base`, our own origin. */
  static async load(base: URL): Promise<Bridge> {
    const folder = new URL("runtime/onnxruntime-web/", base).href;
    const module = `${folder}ort.wasm.min.mjs`;
    const ort = (await import(/* @vite-ignore */ module)) as typeof Ort;
    // Two threads gain at most 1.7x, and lose where there is no core to spare.
    const threads = globalThis.crossOriginIsolated && navigator.hardwareConcurrency >= 4 ? 2 : 1;
    ort.env.wasm.wasmPaths = folder;
    ort.env.wasm.numThreads = threads;
    // What fails is thrown as well; a run on zeros that fails is nothing to tell.
    ort.env.logLevel = "fatal";
    return new Bridge(ort, threads, base);
  }

  /** Loads a variant's models, each a row of graphs; outputs feed the next one's inputs. */
  async models({ models, state }: Variant, files: Files): Promise<Models> {
    const graphs = new Map<string, Ort.InferenceSession>();
    for (const file of new Set(Object.values(models).flat())) {
      graphs.set(file, await this.chained(() => this.create(file, files)));
    }
    const sessions = new Map<string, Session>();
    for (const [name, row] of Object.entries(models)) {
      const found = row.map((file) => graphs.get(file)).filter((graph) => graph !== undefined);
      const session = new Session(this, found, state ?? {});
      // Zeros may not be what the graphs take; then the first ask warms them.
      await session.warm().catch(() => undefined);
      sessions.set(name, session);
    }
    const release = async (): Promise<void> => {
      for (const graph of graphs.values()) await this.chained(() => graph.release());
    };
    return { sessions, release };
  }

  /** Reads a `tokenizer.json`. */
  tokens(file: Uint8Array): Tokens {
    const lines = tokenizer(new TextDecoder().decode(file));
    return {
      decode: (ids) => lines.decode(ids),
      encode: (line) => {
        const begun = performance.now();
        const { ids, mask } = lines.encode(line);
        const made = { count: ids.length, ids: this.integers(ids), mask: this.integers(mask) };
        this.spent.tokens += performance.now() - begun;
        return made;
      },
    };
  }

  /** Makes a handle of a tensor that Python built. */
  tensor(dtype: string, shape: readonly number[], data: Uint8Array): Ort.Tensor {
    const { buffer } = data.slice();
    switch (dtype) {
      case "float32":
        return new this.ort.Tensor(dtype, new Float32Array(buffer), shape);
      case "float64":
        return new this.ort.Tensor(dtype, new Float64Array(buffer), shape);
      case "int64":
        return new this.ort.Tensor(dtype, new BigInt64Array(buffer), shape);
      case "int32":
        return new this.ort.Tensor(dtype, new Int32Array(buffer), shape);
      case "int8":
        return new this.ort.Tensor(dtype, new Int8Array(buffer), shape);
      case "float16":
        return new this.ort.Tensor(dtype, new Uint16Array(buffer), shape);
      case "uint8":
      case "bool":
        return new this.ort.Tensor(dtype, new Uint8Array(buffer), shape);
      default:
        throw new TriviumError("bad_input", `a tensor of ${dtype} can't be fed to a model here`);
    }
  }

  /** Makes a handle of zeros. */
  zeros(dtype: string, shape: readonly number[]): Ort.Tensor {
    const size = shape.reduce((one, other) => one * other, BYTES[dtype] ?? 4);
    return this.tensor(dtype, shape, new Uint8Array(size));
  }

  private integers(values: readonly number[]): Ort.Tensor {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
  }

  /** Decodes an image to a handle: uint8 [height, width, 3], upright, RGB, alpha on white. */
  async picture(data: Uint8Array<ArrayBuffer>, media: string, bound: number): Promise<Ort.Tensor> {
    const begun = performance.now();
    try {
      const { rgb, height, width }: Pixels = await picture(data, media, bound);
      return new this.ort.Tensor("uint8", rgb, [height, width, 3]);
    } finally {
      this.spent.decode += performance.now() - begun;
    }
  }

  /** Decodes a sound to a handle: float32 [n], 16 kHz, mono. */
  async sound(data: Uint8Array<ArrayBuffer>, media: string): Promise<Ort.Tensor> {
    const begun = performance.now();
    try {
      const { sound } = await import("./sounds");
      const samples = await sound(data, media);
      return new this.ort.Tensor("float32", samples, [samples.length]);
    } finally {
      this.spent.decode += performance.now() - begun;
    }
  }

  /** Opens a file's pages; each is drawn to a handle like that of a picture. */
  async pages(data: Uint8Array<ArrayBuffer>, media: string, bound: number): Promise<Paged> {
    const { pages } = await import("./documents");
    const begun = performance.now();
    const { count, draw, close } = await pages(data, media, bound, this.base);
    this.spent.decode += performance.now() - begun;
    return {
      count,
      close,
      draw: async (number) => {
        const drawing = performance.now();
        const { rgb, height, width } = await draw(number);
        this.spent.decode += performance.now() - drawing;
        return new this.ort.Tensor("uint8", rgb, [height, width, 3]);
      },
    };
  }

  /** Opens a video; each frame is decoded to a handle like that of a picture. */
  async video(data: Uint8Array<ArrayBuffer>, media: string, bound: number): Promise<Reel> {
    const { video } = await import("./videos");
    const { seconds, frames, sound, close } = await this.timed(video(data, media, bound));
    return {
      seconds,
      close,
      frames: (times) => {
        const walk = frames(times);
        return {
          next: async () => {
            const { value } = await this.timed(walk.next());
            if (!value) return undefined;
            const { at, rgb, height, width } = value;
            return { at, pixels: new this.ort.Tensor("uint8", rgb, [height, width, 3]) };
          },
          close: () => void walk.return().catch(() => undefined),
        };
      },
      sound: async () => {
        const samples = await this.timed(sound());
        if (!samples) return undefined;
        return new this.ort.Tensor("float32", samples, [samples.length]);
      },
    };
  }

  /** Makes a file of a picture's or a sound's handle, for another tier. */
  async file({ type, dims, data }: Ort.Tensor): Promise<{ media: string; data: Uint8Array }> {
    if (type === "float32") {
      const { wav } = await import("./sounds");
      return { media: "audio/wav", data: wav(data as Float32Array) };
    }
    const [height = 0, width = 0] = dims;
    const rgb = data as Uint8Array<ArrayBuffer>;
    return { media: "image/png", data: await png({ rgb, height, width }) };
  }

  private async timed<T>(work: Promise<T>): Promise<T> {
    const begun = performance.now();
    try {
      return await work;
    } finally {
      this.spent.decode += performance.now() - begun;
    }
  }

  /** Makes a handle of a range along the first axis, over the same memory. */
  part({ type, dims, data }: Ort.Tensor, first: number, last: number): Ort.Tensor {
    const [, ...rest] = dims;
    const step = rest.reduce((one, other) => one * other, 1);
    const cut = (data as Float32Array<ArrayBuffer>).subarray(first * step, last * step);
    return new this.ort.Tensor(type as "float32", cut, [last - first, ...rest]);
  }

  usage(): Pick<Usage, "wasm" | "run" | "tokens" | "decode"> {
    return { wasm: heap(), ...this.spent };
  }

  /** Does `job` after all that came before: ONNX Runtime neither creates nor runs two at once. */
  chained<T>(job: () => Promise<T>): Promise<T> {
    const mine = this.last.then(job);
    this.last = mine.catch(() => undefined);
    return mine;
  }

  private async create(file: string, files: Files): Promise<Ort.InferenceSession> {
    const data = files.get(file);
    if (!data) throw new TriviumError("bad_bundle", `the graph ${file} is missing`);
    try {
      return await this.ort.InferenceSession.create(data, {
        executionProviders: ["wasm"],
        logSeverityLevel: 4,
        // Coarse weights are unpacked once, when the session begins, and not at each run.
        extra: { session: { disable_quant_qdq: "1" } },
      });
    } catch (error) {
      throw new TriviumError("bad_bundle", `the graph ${file} can't be loaded: ${text(error)}`);
    }
  }
}

/** One of a variant's models: graphs that run in a row. */
export class Session {
  private readonly bridge: Bridge;
  private readonly graphs: readonly Ort.InferenceSession[];
  /** The inputs that are state, and the outputs that are their next values. */
  private readonly carried: ReadonlyMap<string, string>;

  constructor(
    bridge: Bridge,
    graphs: readonly Ort.InferenceSession[],
    state: Readonly<Record<string, string>>,
  ) {
    this.bridge = bridge;
    this.graphs = graphs;
    const outputs = new Set(graphs.flatMap((graph) => graph.outputNames));
    this.carried = carried(state, graphs.flatMap((graph) => graph.inputNames), outputs);
  }

  /** Runs the row on name, tensor, name, tensor …; tensors between graphs stay here. */
  async run(...pairs: (string | Ort.Tensor)[]): Promise<Output[]> {
    return shown((await this.bridge.chained(() => this.row(named(pairs)))).last);
  }

  /** Runs the row; its outputs stay here. */
  async keep(...pairs: (string | Ort.Tensor)[]): Promise<Kept[]> {
    const { last } = await this.bridge.chained(() => this.row(named(pairs)));
    return Object.entries(last).map(([name, handle]) => ({
      name,
      dtype: handle.type,
      shape: handle.dims,
      handle,
    }));
  }

  /** Begins runs that hand on their state; `pairs` are given to each, or to the first as state. */
  start(...pairs: (string | Ort.Tensor)[]): Sequence {
    const held = { ...this.empty(), ...named(pairs) };
    return new Sequence(held, this.carried, (known) =>
      this.bridge.chained(() => this.row(known)),
    );
  }

  /** Runs once on zeros, so that the first ask does not pay for lazy initialisation. */
  async warm(): Promise<void> {
    const feeds = this.empty();
    for (const input of this.graphs[0]?.inputMetadata ?? []) {
      if (!input.isTensor || input.name in feeds) continue;
      const shape = input.shape.map((size) => (typeof size === "number" ? size : WARM));
      feeds[input.name] = this.bridge.zeros(input.type, shape);
    }
    const { run } = this.bridge.spent;
    await this.bridge.chained(() => this.row(feeds));
    this.bridge.spent.run = run;
  }

  /** No state: of open sizes the first is one row's, all others are nothing as yet. */
  private empty(): Feeds {
    const feeds: Feeds = {};
    for (const input of this.graphs.flatMap((graph) => graph.inputMetadata)) {
      if (!input.isTensor || !this.carried.has(input.name)) continue;
      const shape = input.shape.map((size, axis) =>
        typeof size === "number" ? size : Number(axis === 0),
      );
      feeds[input.name] = this.bridge.zeros(input.type, shape);
    }
    return feeds;
  }

  private async row(known: Feeds): Promise<Ran> {
    const begun = performance.now();
    let last: Feeds = {};
    let all = known;
    for (const graph of this.graphs) {
      const feeds: Feeds = {};
      for (const name of graph.inputNames) {
        const feed = all[name];
        if (!feed) {
          const given = Object.keys(all).join(", ");
          throw new Error(`the model's input ${name} is missing; given: ${given}`);
        }
        feeds[name] = feed;
      }
      last = (await graph.run(feeds)) as Feeds;
      all = { ...all, ...last };
    }
    this.bridge.spent.run += performance.now() - begun;
    return { last, all };
  }
}

/** What a row of graphs gave: the last one's outputs, and all that is known after it. */
interface Ran {
  last: Feeds;
  all: Feeds;
}

/** Runs of one session, each of which begins with the state that the last one left. */
export class Sequence {
  private held: Feeds | null;
  private readonly carried: ReadonlyMap<string, string>;
  private readonly row: (known: Feeds) => Promise<Ran>;

  constructor(
    held: Feeds,
    carried: ReadonlyMap<string, string>,
    row: (known: Feeds) => Promise<Ran>,
  ) {
    this.held = held;
    this.carried = carried;
    this.row = row;
  }

  /** Runs once more and gives the outputs that are not state. */
  async run(...pairs: (string | Ort.Tensor)[]): Promise<Output[]> {
    if (!this.held) throw new Error("the sequence has ended");
    const { last, all } = await this.row({ ...this.held, ...named(pairs) });
    const outputs = { ...last };
    const next: Feeds = {};
    for (const [input, output] of this.carried) {
      const value = all[output];
      if (value) next[input] = value;
      delete outputs[output];
    }
    // Closed meanwhile: then nobody will ask for what this run left.
    if (this.held) this.held = { ...this.held, ...next };
    return shown(outputs);
  }

  /** Lets the state go. */
  close(): void {
    this.held = null;
  }
}

/** Which inputs are state, and their next values: `past_*` to `present_*`. */
function carried(
  state: Readonly<Record<string, string>>,
  inputs: readonly string[],
  outputs: ReadonlySet<string>,
): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of inputs) {
    for (const [pattern, next] of Object.entries(state)) {
      const [head = "", tail] = pattern.split("*");
      const middle = name.slice(head.length, name.length - (tail ?? "").length);
      if (head + (tail === undefined ? "" : middle + tail) !== name) continue;
      const target = next.replaceAll("*", middle);
      if (outputs.has(target)) found.set(name, target);
    }
  }
  return found;
}

function named(pairs: readonly (string | Ort.Tensor)[]): Feeds {
  const feeds: Feeds = {};
  for (let i = 0; i < pairs.length; i += 2) {
    feeds[pairs[i] as string] = pairs[i + 1] as Ort.Tensor;
  }
  return feeds;
}

function shown(outputs: Feeds): Output[] {
  return Object.entries(outputs).map(([name, { type, dims, data }]) => ({
    name,
    dtype: type,
    shape: dims,
    data,
  }));
}
