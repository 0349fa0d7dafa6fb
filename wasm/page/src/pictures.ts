// What are an image's pixels? The very bytes that servers decode.
//
// In Chromium both ways below give the same bytes as Pillow, tested for each format: upright, alpha
// composed on white. Canvas resizing does not, so nothing is resized on a canvas.

import { TriviumError, text } from "./faults";
import { IMAGES, type Size, scans, size } from "./headers";

const MOST_BYTES = 32 << 20;
const MOST_PIXELS = 50_000_000;
const MOST_ASPECT = 100;
const MOST_SCANS = 64;

/** RGB bytes, row by row. */
export interface Pixels {
  rgb: Uint8Array<ArrayBuffer>;
  height: number;
  width: number;
}

/**
 * Decodes an image within limits that hold before anything is decoded.
 *
 * It is halved once, twice or thrice while its short side stays at or above `bound` (0: never).
 */
export async function picture(
  data: Uint8Array<ArrayBuffer>,
  media: string,
  bound: number,
): Promise<Pixels> {
  if (!IMAGES.includes(media)) {
    throw bad(`media type '${media}' is not one of ${IMAGES.join(", ")}`);
  }
  if (!data.length) throw bad("the image is empty");
  if (data.length > MOST_BYTES) {
    throw large(`the image has ${data.length} bytes; at most ${MOST_BYTES} are allowed`);
  }
  const told = size(data, media);
  if (!told) throw bad(`the image is not a readable ${media}`);
  const { width, height } = told;
  if (width * height > MOST_PIXELS) {
    throw large(`the image has ${width} x ${height} pixels; at most ${MOST_PIXELS} are allowed`);
  }
  sides("image", width, height);
  if (media === "image/jpeg" && scans(data, MOST_SCANS) > MOST_SCANS) {
    throw large(`the JPEG has over ${MOST_SCANS} scans, which is too many`);
  }
  const factor = shrink(Math.min(width, height), bound);
  let drawn: Drawable;
  try {
    drawn = await decoded(data, media, told, factor);
  } catch (error) {
    throw bad(`the ${media} is damaged or truncated: ${text(error)}`);
  }
  const small = Math.min(drawn.width, drawn.height) <= Math.ceil(Math.min(width, height) / factor);
  return packed(rgba(drawn), small ? 1 : factor);
}

/** Throw for a picture that is a line: models bring its short side to a size of theirs. */
export function sides(kind: string, width: number, height: number): void {
  const most = MOST_ASPECT * Math.min(width, height);
  if (most > 0 && Math.max(width, height) > most) {
    throw large(
      `the ${kind} has ${width} x ${height} pixels; ` +
        `a side is allowed to be at most ${MOST_ASPECT} times as long as the other`,
    );
  }
}

/** Drops alpha, and averages squares of `factor` pixels. */
export function rgb(image: ImageData, factor = 1): Pixels {
  return packed(image, factor);
}

/** A file from which a server decodes the same pixels. */
export async function png({ rgb, height, width }: Pixels): Promise<Uint8Array<ArrayBuffer>> {
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < rgb.length; to++) {
    for (let i = 0; i < 3; i++) image.data[to++] = rgb[from++]!;
    image.data[to] = 255;
  }
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  if (!context) throw new TriviumError("tier_failed", "this browser has no canvas in workers");
  context.putImageData(image, 0, 0);
  const file = await canvas.convertToBlob({ type: "image/png" });
  return new Uint8Array(await file.arrayBuffer());
}

interface Drawable {
  source: ImageBitmap | VideoFrame;
  width: number;
  height: number;
}

/** The largest of 1, 2, 4, 8 that leaves the short side at or above the bound. */
export function shrink(short: number, bound: number): number {
  return [8, 4, 2].find((factor) => bound > 0 && Math.ceil(short / factor) >= bound) ?? 1;
}

async function decoded(
  data: Uint8Array<ArrayBuffer>,
  media: string,
  { width, height }: Size,
  factor: number,
): Promise<Drawable> {
  // JPEG decoders scale exactly by these factors; ImageDecoder uses that if asked for just them.
  if (media === "image/jpeg" && factor > 1 && "ImageDecoder" in globalThis) {
    const decoder = new ImageDecoder({
      data,
      type: media,
      desiredWidth: Math.ceil(width / factor),
      desiredHeight: Math.ceil(height / factor),
    });
    try {
      const { image } = await decoder.decode({ frameIndex: 0, completeFramesOnly: true });
      return { source: image, width: image.displayWidth, height: image.displayHeight };
    } finally {
      decoder.close();
    }
  }
  const source = await createImageBitmap(new Blob([data], { type: media }), {
    premultiplyAlpha: "none",
  });
  return { source, width: source.width, height: source.height };
}

function rgba({ source, width, height }: Drawable): ImageData {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new TriviumError("tier_failed", "this browser has no canvas in workers");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  source.close();
  return context.getImageData(0, 0, width, height);
}

/** Drops alpha and averages squares of `factor` pixels, exactly as Pillow's `reduce` does. */
function packed({ data, width, height }: ImageData, factor: number): Pixels {
  const wide = Math.ceil(width / factor);
  const high = Math.ceil(height / factor);
  const rgb = new Uint8Array(3 * wide * high);
  if (factor === 1) {
    for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
      rgb[to] = data[from] ?? 0;
      rgb[to + 1] = data[from + 1] ?? 0;
      rgb[to + 2] = data[from + 2] ?? 0;
    }
    return { rgb, width: wide, height: high };
  }
  let to = 0;
  for (let top = 0; top < height; top += factor) {
    const bottom = Math.min(height, top + factor);
    for (let left = 0; left < width; left += factor) {
      const right = Math.min(width, left + factor);
      const area = (bottom - top) * (right - left);
      // Pillow multiplies by a reciprocal of 24 bits, which it computes in single precision.
      const reciprocal = Math.floor(Math.fround(2 ** 24 / area));
      let red = area >> 1;
      let green = red;
      let blue = red;
      for (let y = top; y < bottom; y++) {
        const end = 4 * (y * width + right);
        for (let from = 4 * (y * width + left); from < end; from += 4) {
          red += data[from] ?? 0;
          green += data[from + 1] ?? 0;
          blue += data[from + 2] ?? 0;
        }
      }
      rgb[to++] = Math.floor((red * reciprocal) / 2 ** 24);
      rgb[to++] = Math.floor((green * reciprocal) / 2 ** 24);
      rgb[to++] = Math.floor((blue * reciprocal) / 2 ** 24);
    }
  }
  return { rgb, width: wide, height: high };
}

function bad(message: string): TriviumError {
  return new TriviumError("bad_input", message);
}

function large(message: string): TriviumError {
  return new TriviumError("too_large", message);
}
