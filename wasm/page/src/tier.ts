// How does the page tier come up, and how does it stay in step with the gateway's bundles?

import type { PyodideAPI } from "pyodide";
import { Bridge, type Models } from "./bridge";
import { type Checked, SOURCE, files, manifest, needed, samples } from "./bundles";
import { TriviumError, text } from "./faults";
import type { Bundle, Gateway } from "./gateway";
import { type Page, boot, start } from "./python";
import type { Key, Trust } from "./signing";
import type { Listed, Readiness, Road, State, Usage } from "./wire";

/** How old the gateway's list of bundles may be before an ask makes us look again. */
const SYNC_MS = 3_000;

interface Held {
  checked: Checked;
  readiness: Readiness;
  /** Settles when the function is ready here, or rejects with why it never will be. */
  ready: Promise<void>;
  models: Models | null;
}

export class PageTier {
  /** Python's side, once it runs. */
  page: Page | null = null;
  /** Settles when Python runs, or rejects with why it can't. */
  readonly started: Promise<Page>;
  private readonly gateway: Gateway;
  private readonly trust: Trust;
  private readonly emit: (span: string) => void;
  private readonly tell: (state: State) => void;
  private readonly bridge: Promise<Bridge>;
  private readonly held = new Map<string, Held>();
  /** Why a bundle that is listed is not held. */
  private readonly refused = new Map<string, unknown>();
  /** Optional functions that somebody asked for. */
  private readonly wanted = new Set<string>();
  private readonly bytes = { come: 0, expected: 0 };
  private readonly state: State;
  private syncing: Promise<void> | null = null;
  private synced = 0;

  constructor(
    gateway: Gateway,
    trust: Trust,
    emit: (span: string) => void,
    tell: (state: State) => void,
  ) {
    this.gateway = gateway;
    this.trust = trust;
    this.emit = emit;
    this.tell = tell;
    this.state = {
      phase: "starting",
      detail: "starting Python and ONNX Runtime",
      progress: 0,
      isolated: globalThis.crossOriginIsolated,
      threads: 1,
      functions: {},
    };
    this.bridge = Bridge.load(gateway.base);
    this.started = this.start(start(gateway.base));
    this.started.catch((error: unknown) => this.enter("failed", text(error)));
    void this.sync().catch(() => undefined);
  }

  /** Waits until `name` can run here; rejects if it can't, and why. */
  async ready(name: string): Promise<void> {
    try {
      await Promise.all([this.started, this.held.has(name) ? null : this.sync()]);
      if (!this.held.has(name) && this.refused.has(name)) throw this.refused.get(name);
    } catch (error) {
      throw error instanceof TriviumError && error.code !== "tier_unreachable"
        ? error
        : new TriviumError("model_not_ready", `the page tier could not start: ${text(error)}`, {
            tier: "page",
          });
    }
    const held = this.held.get(name);
    await held?.ready;
    if (held?.readiness.state === "optional") {
      throw new TriviumError("model_not_ready", `${name}: ${held.readiness.why}`, { tier: "page" });
    }
  }

  /** Loads an optional function; settles when it can run here. */
  async want(name: string): Promise<void> {
    this.wanted.add(name);
    if (!this.held.has(name)) await this.sync();
    const held = this.held.get(name);
    if (!held && !this.refused.has(name)) {
      throw new TriviumError("unknown_function", `the gateway serves no function "${name}"`);
    }
    if (held?.readiness.state === "optional") {
      held.ready = this.load(held);
      held.ready.catch(() => undefined);
    }
    await this.ready(name);
  }

  /** Looks again, in the background, for changed bundles if the last look is old. */
  look(): void {
    if (performance.now() - this.synced > SYNC_MS) void this.sync().catch(() => undefined);
  }

  /** Loads every bundle that is new or changed. */
  sync(): Promise<void> {
    this.syncing ??= this.resync().finally(() => {
      this.syncing = null;
      this.synced = performance.now();
    });
    return this.syncing;
  }

  async functions(): Promise<Listed[]> {
    if (!this.held.size) await this.sync();
    const { roads } = await this.gateway
      .roads()
      .catch(() => ({ roads: {} as Record<string, Road[]> }));
    return [...this.held.values()].map(({ checked, readiness }) => {
      const { name, version, function: schema } = checked.manifest;
      const here = checked.variant ? (["page"] as const) : [];
      const tiers = [...here, ...(roads[name] ?? []).map((road) => road.tier)];
      return { name, version, schema, tiers, page: readiness, samples: samples(checked) };
    });
  }

  async usage(): Promise<Pick<Usage, "wasm" | "run" | "tokens" | "decode">> {
    return (await this.bridge).usage();
  }

  private async start(starting: Promise<PyodideAPI>): Promise<Page> {
    const [pyodide, bridge] = await Promise.all([starting, this.bridge]);
    const page = boot(pyodide, bridge, this.gateway, this.emit, () => this.sync());
    await page.start();
    this.state.threads = bridge.threads;
    this.page = page;
    this.enter("ready", "");
    return page;
  }

  private async resync(): Promise<void> {
    const bundles = await this.gateway.bundles();
    const changed = bundles.filter(
      ({ name, digest }) => this.held.get(name)?.checked.bundle.digest !== digest,
    );
    if (!changed.length) return;
    const keys = await this.trust.keys();
    const loads = changed.map(async (bundle) => {
      const before = this.held.get(bundle.name);
      const checked = await this.checked(bundle, keys);
      if (!checked) return;
      const held: Held = {
        checked,
        readiness: { state: "loading", why: "" },
        ready: Promise.resolve(),
        models: null,
      };
      held.ready = this.load(held, before);
      held.ready.catch(() => undefined);
      this.held.set(bundle.name, held);
      // The version before answers until this one is ready; then asks go to this one.
      if (before) await held.ready;
    });
    await Promise.allSettled(loads);
  }

  /** One bundle that is refused is no reason to go without the others. */
  private async checked(bundle: Bundle, keys: Key[]): Promise<Checked | null> {
    try {
      const checked = await manifest(this.gateway, bundle, this.trust, keys);
      this.refused.delete(bundle.name);
      return checked;
    } catch (error) {
      this.refused.set(bundle.name, error);
      if (!this.held.has(bundle.name)) {
        this.state.functions[bundle.name] = { state: "failed", why: text(error) };
        this.say();
      }
      return null;
    }
  }

  private async load(held: Held, before?: Held): Promise<void> {
    const { manifest, bundle, text: written, variant } = held.checked;
    if (!variant) {
      this.settle(held, "elsewhere", "it has no variant for the page");
      return;
    }
    if (manifest.optional && !this.wanted.has(manifest.name)) {
      const size = needed(held.checked).reduce((sum, file) => sum + (manifest.files[file]?.size ?? 0), 0);
      const why = `${Math.round(size / 1e6)} MB that are loaded on request: load("${manifest.name}")`;
      this.settle(held, "optional", why);
      return;
    }
    this.settle(held, "loading", "");
    try {
      for (const name of needed(held.checked)) {
        this.bytes.expected += manifest.files[name]?.size ?? 0;
      }
      const came = (size: number): void => {
        this.bytes.come += size;
        this.say();
      };
      const [bridge, found] = await Promise.all([
        this.bridge,
        files(this.gateway, held.checked, came),
      ]);
      held.models = await bridge.models(variant, found);
      const decoded = (name: string | null): string =>
        name === null ? "" : new TextDecoder().decode(found.get(name));
      const tokens = manifest.tokenizer && found.get(manifest.tokenizer);
      const page = await this.started;
      page.add(
        written,
        decoded(SOURCE),
        bundle.digest,
        decoded(manifest.labels),
        tokens ? bridge.tokens(tokens) : null,
        held.models.sessions,
      );
      this.settle(held, "ready", "");
      if (before) void this.retire(page, before, manifest.version);
    } catch (error) {
      this.settle(held, "failed", text(error));
      throw error;
    }
  }

  /** Gives back what a replaced bundle held, once nobody uses it. */
  private async retire(page: Page, { checked, models }: Held, next: string): Promise<void> {
    const { name, version } = checked.manifest;
    await page.remove(name, version === next ? "" : version);
    await models?.release();
  }

  private settle({ checked, readiness }: Held, state: Readiness["state"], why: string): void {
    Object.assign(readiness, { state, why });
    this.state.functions[checked.bundle.name] = { ...readiness };
    this.say();
  }

  private enter(phase: State["phase"], detail: string): void {
    Object.assign(this.state, { phase, detail });
    this.say();
  }

  private say(): void {
    const { come, expected } = this.bytes;
    this.state.progress = expected ? Math.min(1, come / expected) : 0;
    this.tell(this.state);
  }
}
