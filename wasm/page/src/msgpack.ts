// How is an ask written as MessagePack, before Python is there to do it?

export type Packable =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly Packable[]
  | { readonly [key: string]: Packable };

/** Returns `value` as MessagePack. */
export function pack(value: Packable): Uint8Array<ArrayBuffer> {
  const chunks: Uint8Array[] = [];
  write(value, chunks);
  const out = new Uint8Array(chunks.reduce((size, chunk) => size + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    out.set(chunk, at);
    at += chunk.length;
  }
  return out;
}

const text = new TextEncoder();

function head(code: number, bytes: number, put: (view: DataView) => void): Uint8Array {
  const out = new Uint8Array(1 + bytes);
  out[0] = code;
  put(new DataView(out.buffer, 1));
  return out;
}

function sized(code: number, size: number): Uint8Array {
  return head(code, 4, (view) => view.setUint32(0, size));
}

function write(value: Packable, chunks: Uint8Array[]): void {
  if (value === null) chunks.push(Uint8Array.of(0xc0));
  else if (typeof value === "boolean") chunks.push(Uint8Array.of(value ? 0xc3 : 0xc2));
  else if (typeof value === "number") {
    const small = Number.isInteger(value) && Math.abs(value) < 2 ** 31;
    chunks.push(
      small
        ? head(0xd2, 4, (view) => view.setInt32(0, value))
        : head(0xcb, 8, (view) => view.setFloat64(0, value)),
    );
  } else if (typeof value === "string") {
    const data = text.encode(value);
    chunks.push(sized(0xdb, data.length), data);
  } else if (value instanceof Uint8Array) {
    chunks.push(sized(0xc6, value.length), value);
  } else if (isList(value)) {
    chunks.push(sized(0xdd, value.length));
    for (const each of value) write(each, chunks);
  } else {
    const entries = Object.entries(value);
    chunks.push(sized(0xdf, entries.length));
    for (const [key, each] of entries) {
      write(key, chunks);
      write(each, chunks);
    }
  }
}

function isList(value: Packable): value is readonly Packable[] {
  return Array.isArray(value);
}
