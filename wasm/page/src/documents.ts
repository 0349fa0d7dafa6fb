// What are a file's pages? Pictures as they are, and a PDF's pages as pdf.js draws them.
//
// pdf.js reads a PDF in a worker of its own, which is ended when it takes too long or gives too much
// to draw, and draws here.
// It draws letters a little otherwise than the servers' PDFium does: pixels differ, text does not.

import type * as Pdf from "pdfjs-dist";
import { TriviumError, text } from "./faults";
import { type Pixels, picture, rgb, sides } from "./pictures";

const PDF = "application/pdf";
const MOST_PAGE = 16_000_000;
const DPI = 150;
const SECONDS = 10;
/**
 * Bytes of all that is drawn on a page, of which each stroke is as large as it is here in all.
 * Forms that use each other, and images of one colour, make gigabytes of a kilobyte.
 */
const MOST_DRAWN = 256 << 20;
const STROKE = 1536;
/** Pixels that are held while a page is drawn: a transparent group has a canvas of its own. */
const MOST_CANVASES = 8 * MOST_PAGE;
/** So often it is looked, and so often in a row nothing may have come: it may gather endlessly. */
const LOOK_MS = 250;
const MOST_SILENT = 16;

/** A file's pages, numbered from 1; `close` gives back what drawing them took. */
export interface Pages {
  readonly count: number;
  draw(number: number): Promise<Pixels>;
  close(): void;
}

/** Opens a file that is really of the type `media`; `base` is where pdf.js lies. */
export async function pages(
  data: Uint8Array<ArrayBuffer>,
  media: string,
  bound: number,
  base: URL,
): Promise<Pages> {
  if (media === PDF) return opened(data, new URL("runtime/pdfjs-dist/", base).href);
  const draw = async (): Promise<Pixels> => {
    const drawn = await picture(data, media, bound);
    const { width, height } = drawn;
    if (width * height > MOST_PAGE) {
      const most = `at most ${MOST_PAGE} are allowed`;
      throw new TriviumError("too_large", `the page has ${width} x ${height} pixels; ${most}`);
    }
    return drawn;
  };
  return { count: 1, draw, close: () => undefined };
}

/** Canvases without a document, which a worker lacks, and not too many at once. */
class Canvases {
  private pixels = 0;

  create(width: number, height: number): { canvas: OffscreenCanvas; context: unknown } {
    this.take(width, height);
    const canvas = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
    return { canvas, context: canvas.getContext("2d", { willReadFrequently: true }) };
  }
  reset({ canvas }: { canvas: OffscreenCanvas }, width: number, height: number): void {
    this.pixels -= canvas.width * canvas.height;
    this.take(width, height);
    canvas.width = Math.max(1, width);
    canvas.height = Math.max(1, height);
  }
  destroy(made: { canvas: OffscreenCanvas | null; context: unknown }): void {
    this.pixels -= (made.canvas?.width ?? 0) * (made.canvas?.height ?? 0);
    made.canvas = null;
    made.context = null;
  }
  private take(width: number, height: number): void {
    this.pixels += Math.max(1, width) * Math.max(1, height);
    if (this.pixels > MOST_CANVASES) {
      const said = `takes over ${MOST_CANVASES} pixels to draw; no more are allowed`;
      throw new TriviumError("too_large", `a page of the PDF ${said}`);
    }
  }
}

/** SVG filters need a document: what they would colour is drawn as it is. */
class Filters {
  addFilter(): string {
    return "none";
  }
  addHCMFilter(): string {
    return "none";
  }
  addAlphaFilter(): string {
    return "none";
  }
  addLuminosityFilter(): string {
    return "none";
  }
  addKnockoutFilter(): string {
    return "none";
  }
  addHighlightHCMFilter(): string {
    return "none";
  }
  createSelectionStyle(): null {
    return null;
  }
  destroy(): void {
    // Nothing was made.
  }
}

async function opened(data: Uint8Array<ArrayBuffer>, folder: string): Promise<Pages> {
  const pdf = (await import(/* @vite-ignore */ `${folder}build/pdf.min.mjs`)) as typeof Pdf;
  const port = new Worker(`${folder}build/pdf.worker.min.mjs`, { type: "module" });
  // Its types come from comments, and say null.
  const worker = new pdf.PDFWorker({ port: port as unknown as null });
  let task: Pdf.RenderTask | undefined;
  const close = (): void => {
    task?.cancel();
    worker.destroy();
    port.terminate();
  };
  const given = {
    data: data.slice(), // it is handed over
    worker,
    CanvasFactory: Canvases,
    FilterFactory: Filters,
    cMapUrl: `${folder}cmaps/`,
    standardFontDataUrl: `${folder}standard_fonts/`,
    wasmUrl: `${folder}wasm/`,
    iccUrl: `${folder}iccs/`,
    useWorkerFetch: true,
    disableFontFace: true,
    useSystemFonts: false,
    maxImageSize: MOST_PAGE,
    verbosity: 0,
  };
  const safely = async <T>(work: Promise<T>, number: number): Promise<T> => {
    try {
      return await within(work, number, port);
    } catch (error) {
      close();
      throw refused(error);
    }
  };
  const document = await safely(pdf.getDocument(given).promise, 1);
  const begun = (started: Pdf.RenderTask): void => {
    task = started;
  };
  const draw = (number: number): Promise<Pixels> =>
    safely(paint(document, number, begun), number);
  return { count: document.numPages, draw, close };
}

async function paint(
  document: Pdf.PDFDocumentProxy,
  number: number,
  begun: (task: Pdf.RenderTask) => void,
): Promise<Pixels> {
  const page = await document.getPage(number);
  const { width, height } = page.getViewport({ scale: 1 });
  const scale = Math.min(DPI / 72, Math.sqrt(MOST_PAGE / Math.max(1, width * height)));
  const viewport = page.getViewport({ scale });
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.ceil(viewport.width)),
    Math.max(1, Math.ceil(viewport.height)),
  );
  sides("page", canvas.width, canvas.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new TriviumError("tier_failed", "this browser has no canvas in workers");
  const canvasContext = context as unknown as CanvasRenderingContext2D;
  const task = page.render({ canvas: null, canvasContext, viewport, background: "white" });
  // What was drawn in 15 ms makes way for messages and timers, not for its own next part alone.
  task.onContinue = (next: () => void) => setTimeout(next);
  begun(task);
  await task.promise;
  page.cleanup();
  return rgb(context.getImageData(0, 0, canvas.width, canvas.height));
}

/** What pdf.js's worker says that takes memory: a part of the operators, or an image. */
interface Said {
  chunk?: { argsArray?: unknown[]; lastChunk?: boolean };
  data?: unknown;
}

/** How many bytes it holds, an image as four for each pixel. */
function size(value: unknown): number {
  if (ArrayBuffer.isView(value)) return value.byteLength;
  if (Array.isArray(value)) return value.reduce((sum: number, each) => sum + size(each), 0);
  if (typeof value !== "object" || value === null) return 0;
  const { width, height, data } = value as { width?: number; height?: number; data?: unknown };
  // Where its data has a name it came before.
  return typeof data === "string" ? 0 : 4 * (width ?? 0) * (height ?? 0) || 64;
}

/** Waits for what a hostile file may never let come, or may make too much of on its way. */
function within<T>(work: Promise<T>, number: number, port: Worker): Promise<T> {
  const until = performance.now() + SECONDS * 1e3;
  let drawn = 0;
  let silent = 0;
  return new Promise<T>((resolve, reject) => {
    const refuse = (said: string): void => {
      end();
      reject(new TriviumError("too_large", `page ${number} of the PDF ${said}`));
    };
    const heard = ({ data: { chunk, data } }: MessageEvent<Said>): void => {
      silent = chunk?.lastChunk ? -Infinity : Math.min(silent, 0);
      drawn += size(data) + size(chunk?.argsArray) + STROKE * (chunk?.argsArray?.length ?? 0);
      if (drawn > MOST_DRAWN) {
        refuse(`takes over ${MOST_DRAWN >> 20} MiB to draw; no more are allowed`);
      }
    };
    // Counted by looks, for while something is drawn nothing is heard.
    const timer = setInterval(() => {
      if (performance.now() > until) refuse(`can't be drawn within ${SECONDS} s`);
      else if (++silent > MOST_SILENT) {
        refuse(`can't be drawn: for ${(LOOK_MS * MOST_SILENT) / 1e3} s nothing came of it`);
      }
    }, LOOK_MS);
    const end = (): void => {
      clearInterval(timer);
      port.removeEventListener("message", heard);
    };
    port.addEventListener("message", heard);
    work.then(resolve, reject).finally(end);
  });
}

function refused(error: unknown): unknown {
  if (error instanceof TriviumError) return error;
  const name = (error as Error).name;
  if (name === "PasswordException") {
    const said = "the PDF is encrypted; only what opens without a password can be read";
    return new TriviumError("bad_input", said);
  }
  return new TriviumError("bad_input", `the PDF is damaged, or none: ${text(error)}`);
}
