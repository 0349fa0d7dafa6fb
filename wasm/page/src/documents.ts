// What are a file's pages? Pictures as they are, and a PDF's pages as pdf.js draws them.
//
// pdf.js reads a PDF in a worker of its own, which is ended when it takes too long, and draws here.
// It draws letters a little otherwise than the servers' PDFium does: pixels differ, text does not.

import type * as Pdf from "pdfjs-dist";
import { TriviumError, text } from "./faults";
import { type Pixels, picture, rgb } from "./pictures";

const PDF = "application/pdf";
const MOST_PAGE = 16_000_000;
const DPI = 150;
const SECONDS = 10;

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

/** Canvases without a document, which a worker lacks. */
class Canvases {
  create(width: number, height: number): { canvas: OffscreenCanvas; context: unknown } {
    const canvas = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
    return { canvas, context: canvas.getContext("2d", { willReadFrequently: true }) };
  }
  reset({ canvas }: { canvas: OffscreenCanvas }, width: number, height: number): void {
    canvas.width = Math.max(1, width);
    canvas.height = Math.max(1, height);
  }
  destroy(made: { canvas: OffscreenCanvas | null; context: unknown }): void {
    made.canvas = null;
    made.context = null;
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
  const close = (): void => {
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
  try {
    const document = await within(pdf.getDocument(given).promise, 1);
    return { count: document.numPages, draw: (number) => drawn(document, number, close), close };
  } catch (error) {
    close();
    throw refused(error);
  }
}

async function drawn(
  document: Pdf.PDFDocumentProxy,
  number: number,
  close: () => void,
): Promise<Pixels> {
  try {
    return await within(paint(document, number), number);
  } catch (error) {
    close();
    throw refused(error);
  }
}

async function paint(document: Pdf.PDFDocumentProxy, number: number): Promise<Pixels> {
  const page = await document.getPage(number);
  const { width, height } = page.getViewport({ scale: 1 });
  const scale = Math.min(DPI / 72, Math.sqrt(MOST_PAGE / Math.max(1, width * height)));
  const viewport = page.getViewport({ scale });
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.ceil(viewport.width)),
    Math.max(1, Math.ceil(viewport.height)),
  );
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new TriviumError("tier_failed", "this browser has no canvas in workers");
  const canvasContext = context as unknown as CanvasRenderingContext2D;
  await page.render({ canvas: null, canvasContext, viewport, background: "white" }).promise;
  page.cleanup();
  return rgb(context.getImageData(0, 0, canvas.width, canvas.height));
}

/** Waits for what a hostile file may never let come. */
function within<T>(work: Promise<T>, number: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const said = `page ${number} of the PDF can't be drawn within ${SECONDS} s`;
    const timer = setTimeout(() => reject(new TriviumError("too_large", said)), SECONDS * 1e3);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
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
