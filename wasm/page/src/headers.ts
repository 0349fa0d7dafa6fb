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
  "image/gif": (view) =>
    tag(view, 0, 4) === "GIF8"
      ? { width: view.getUint16(6, true), height: view.getUint16(8, true) }
      : null,
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
