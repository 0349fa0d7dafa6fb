// What are an image's pixels: the same that servers decode?

import { TriviumError } from "./faults";

/** RGB bytes, row by row. */
export interface Pixels {
  rgb: Uint8Array<ArrayBuffer>;
  height: number;
  width: number;
}

export async function picture(
  data: Uint8Array<ArrayBuffer>,
  media: string,
  _bound: number,
): Promise<Pixels> {
  const bitmap = await createImageBitmap(new Blob([data], { type: media })).catch((error) => {
    throw new TriviumError("bad_input", String(error));
  });
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height).getContext("2d")!;
  canvas.drawImage(bitmap, 0, 0);
  const rgba = canvas.getImageData(0, 0, width, height).data;
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0, j = 0; j < rgb.length; i += 4) {
    rgb[j++] = rgba[i]!;
    rgb[j++] = rgba[i + 1]!;
    rgb[j++] = rgba[i + 2]!;
  }
  return { rgb, width, height };
}
