const encoder = new TextEncoder();

/** A file as bytes: the header as an object, as text or as raw bytes, padded like a writer pads it unless told otherwise. */
export function fileOf(header: object | string | Uint8Array, data: Uint8Array = new Uint8Array(0), options: { pad?: boolean; length?: bigint } = {}) {
  const raw = header instanceof Uint8Array ? header : encoder.encode(typeof header === "string" ? header : JSON.stringify(header));
  const padding = options.pad === false ? 0 : -raw.length & 7;
  const bytes = new Uint8Array(8 + raw.length + padding + data.length);
  new DataView(bytes.buffer).setBigUint64(0, options.length ?? BigInt(raw.length + padding), true);
  bytes.set(raw, 8);
  bytes.fill(0x20, 8 + raw.length, 8 + raw.length + padding);
  bytes.set(data, 8 + raw.length + padding);
  return bytes;
}

export const concat = (...parts: Uint8Array[]): Uint8Array<ArrayBuffer> => {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
};

/** Where two byte arrays first differ, or -1; far quicker on large ones than `toEqual`. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) if (a[i] !== b[i]) return i;
  return a.length === b.length ? -1 : length;
}
