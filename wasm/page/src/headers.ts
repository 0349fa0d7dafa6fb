// How large is an image? Read from its head, before anything of it is decoded.

export interface Size {
  width: number;
  height: number;
}

/** Returns the size an image of this media type says it has, or null if it is not of that type. */
export function size(data: Uint8Array, media: string): Size | null {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  try {
    const found = READERS[media]?.(view) ?? null;
    return found && found.width > 0 && found.height > 0 ? found : null;
  } catch (error) {
    // The bytes ended before the size.
    if (error instanceof RangeError) return null;
    throw error;
  }
}

const READERS: Record<string, (view: DataView) => Size | null> = {
  "image/jpeg": jpeg,
  "image/png": (view) =>
    view.getUint32(0) === 0x89504e47 && view.getUint32(12) === 0x49484452
      ? { width: view.getUint32(16), height: view.getUint32(20) }
      : null,
  "image/webp": webp,
  "image/gif": gif,
};

/** Media types that can be decoded. */
export const IMAGES: readonly string[] = Object.keys(READERS);

function jpeg(view: DataView): Size | null {
  if (view.getUint16(0) !== 0xffd8) return null;
  for (let at = 2; ; ) {
    if (view.getUint8(at) !== 0xff) return null;
    const marker = view.getUint8(at + 1);
    const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (frame) return { height: view.getUint16(at + 5), width: view.getUint16(at + 7) };
    // Fill bytes before a marker, and markers without a body.
    if (marker === 0xff) at += 1;
    else if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) at += 2;
    else at += 2 + view.getUint16(at + 2);
  }
}

/** A GIF's screen, or its first frame where that reaches beyond it: so decoders take it. */
function gif(view: DataView): Size | null {
  if (tag(view, 0, 4) !== "GIF8") return null;
  const short = (at: number): number => view.getUint16(at, true);
  const colours = (at: number): number => {
    const flags = view.getUint8(at);
    return flags & 0x80 ? 3 << ((flags & 7) + 1) : 0;
  };
  let at = 13 + colours(10);
  // Extensions, each in blocks that say their length; 0 ends them.
  while (view.getUint8(at) === 0x21) {
    at += 2;
    for (let size = view.getUint8(at); size; size = view.getUint8(at)) at += 1 + size;
    at += 1;
  }
  if (view.getUint8(at) !== 0x2c) return null;
  return {
    width: Math.max(short(6), short(at + 1) + short(at + 5)),
    height: Math.max(short(8), short(at + 3) + short(at + 7)),
  };
}

/** How often a JPEG goes over its pixels, as far as `most` and one more. */
export function scans(data: Uint8Array, most: number): number {
  let count = 0;
  for (let at = data.indexOf(0xff); at >= 0 && count <= most; at = data.indexOf(0xff, at)) {
    const marker = data[++at];
    if (marker === undefined || marker === 0xd9) break;
    // Bytes of pixels, fill bytes, and markers without a body.
    if (marker === 0xff || marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    if (marker === 0xda) count += 1;
    at += 1 + ((data[at + 1] ?? 0) << 8) + (data[at + 2] ?? 0);
  }
  return count;
}

function webp(view: DataView): Size | null {
  if (tag(view, 0, 4) !== "RIFF" || tag(view, 8, 4) !== "WEBP") return null;
  const wide = (at: number): number => view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
  switch (tag(view, 12, 4)) {
    case "VP8X":
      return { width: 1 + wide(24), height: 1 + wide(27) };
    case "VP8L": {
      const bits = view.getUint32(21, true);
      return { width: 1 + (bits & 0x3fff), height: 1 + ((bits >>> 14) & 0x3fff) };
    }
    case "VP8 ":
      return {
        width: view.getUint16(26, true) & 0x3fff,
        height: view.getUint16(28, true) & 0x3fff,
      };
    default:
      return null;
  }
}

function tag(view: DataView, at: number, length: number): string {
  let found = "";
  for (let i = at; i < at + length; i++) found += String.fromCharCode(view.getUint8(i));
  return found;
}
