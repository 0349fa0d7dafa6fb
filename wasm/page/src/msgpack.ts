// How is an ask written as MessagePack, while Python is not there to do it?

import type { Json } from "./wire";

export type Packable = Json | Blob | Uint8Array<ArrayBuffer> | { readonly [key: string]: Packable };

/** Returns `value` as MessagePack; a Blob goes in without being read. */
export function pack(value: Packable): Blob {
  const pieces: BlobPart[] = [];
  write(value, pieces);
  return new Blob(pieces);
}

const encoder = new TextEncoder();

/** A type byte and the number that follows it, 4 or 8 bytes wide. */
function head(
  code: number,
  width: 4 | 8,
  put: (view: DataView<ArrayBuffer>) => void,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(1 + width);
  bytes[0] = code;
  put(new DataView(bytes.buffer, 1));
  return bytes;
}

function sized(code: number, size: number): Uint8Array<ArrayBuffer> {
  return head(code, 4, (view) => view.setUint32(0, size));
}

function write(value: Packable, pieces: BlobPart[]): void {
  if (value === null) pieces.push(Uint8Array.of(0xc0));
  else if (typeof value === "boolean") pieces.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === "number") {
    const whole = Number.isInteger(value) && Math.abs(value) < 2 ** 31;
    pieces.push(
      whole
        ? head(0xd2, 4, (view) => view.setInt32(0, value))
        : head(0xcb, 8, (view) => view.setFloat64(0, value)),
    );
  } else if (typeof value === "string") {
    const data = encoder.encode(value);
    pieces.push(sized(0xdb, data.length), data);
  } else if (value instanceof Uint8Array) pieces.push(sized(0xc6, value.length), value);
  else if (value instanceof Blob) pieces.push(sized(0xc6, value.size), value);
  else if (Array.isArray(value)) {
    pieces.push(sized(0xdd, value.length));
    for (const each of value as Json[]) write(each, pieces);
  } else {
    const entries = Object.entries(value);
    pieces.push(sized(0xdf, entries.length));
    for (const [key, each] of entries) {
      write(key, pieces);
      write(each as Packable, pieces);
    }
  }
}
