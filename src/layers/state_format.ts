import { WeightsError } from "../errors.ts";

/**
 * The bytes of a saved state, all numbers little-endian:
 *
 * | bytes | |
 * | --- | --- |
 * | 8 | `HOMSTATE`, `HOMDECAY` for decayed moments, or `POMSTATE` |
 * | 4 | version, 1 |
 * | 4 | n, length of the header in bytes, a multiple of 4 |
 * | n | header: JSON, filled up with spaces |
 * | 4·levels·batch·M | f32 partial sums `[levels, batch, M]`; their sum over levels is the state's sum; of decayed moments the memory of `decay_moments`, `[batch, 3, M]`, and zeros |
 * | 4·held·batch·D | f32, with a window: the last tokens `[held, batch, D]`, oldest first |
 * | 4 | CRC-32 (IEEE 802.3) of everything before |
 */
const VERSION = 1;
const PREFIX = 16;
const MAX_HEADER = 1 << 20;

/** What a kind of state writes of its layer, and how wide its sums are. */
export interface StateFile {
  readonly magic: "HOMSTATE" | "HOMDECAY" | "POMSTATE";
  /** Of the class, for messages. */
  readonly name: string;
  /** Keys of the layer's configuration: the range of a number, which is an integer if the range begins with one, or the values of a text. */
  readonly keys: Readonly<Record<string, readonly [number, number] | readonly string[]>>;
  /** M */
  readonly momentDim: (config: Readonly<Record<string, number | string>>) => number;
}

/** The layer's configuration, and: */
export interface StateHeader {
  readonly [key: string]: unknown;
  readonly dim: number;
  readonly batch: number;
  /** Tokens seen, one number a batch row. */
  readonly count: readonly number[];
  /** Additions so far, which decide when a partial sum is full. */
  readonly additions: number;
  readonly levels: number;
  readonly window: number | null;
  /** Tokens in the window. */
  readonly held: number;
  /** Where the next token of each batch row stands, for layers with positions. */
  readonly next?: readonly number[];
}

export interface SavedState {
  readonly header: StateHeader;
  readonly sums: Float32Array<ArrayBuffer>;
  readonly tokens: Float32Array<ArrayBuffer>;
}

export function writeState(magic: StateFile["magic"], { header, sums, tokens }: SavedState): Uint8Array<ArrayBuffer> {
  const text = JSON.stringify(header);
  const json = new TextEncoder().encode(text.padEnd(Math.ceil(text.length / 4) * 4));
  const bytes = new Uint8Array(PREFIX + json.length + sums.byteLength + tokens.byteLength + 4);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(magic));
  view.setUint32(8, VERSION, true);
  view.setUint32(12, json.length, true);
  bytes.set(json, PREFIX);
  let at = PREFIX + json.length;
  for (const array of [sums, tokens])
    for (const value of array) {
      view.setFloat32(at, value, true);
      at += 4;
    }
  view.setUint32(at, crc32(bytes.subarray(0, at)), true);
  return bytes;
}

/** @throws WeightsError for anything that `writeState` did not write */
export function readState(where: string, file: StateFile, bytes: Uint8Array): SavedState {
  const refuse = (what: string): never => {
    throw new WeightsError(`${where}: bytes must be a saved ${file.name}, got ${what}`);
  };
  if (bytes.length < PREFIX + 4) refuse(`${bytes.length} bytes, too few for one`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.magic !== String.fromCharCode(...bytes.subarray(0, 8))) refuse(`other contents (no ${file.magic} at the start)`);
  const version = view.getUint32(8, true);
  if (version !== VERSION) refuse(`version ${version}; this package reads version ${VERSION}`);
  const headerBytes = view.getUint32(12, true);
  if (headerBytes % 4 !== 0 || headerBytes > MAX_HEADER || PREFIX + headerBytes + 4 > bytes.length)
    refuse(`a header of ${headerBytes} bytes in ${bytes.length}`);
  const end = bytes.length - 4;
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) refuse("a wrong checksum; the bytes are truncated or corrupted");
  const header = parseHeader(file, bytes.subarray(PREFIX, PREFIX + headerBytes), refuse);
  const { levels, batch, dim, held } = header;
  const sums = levels * batch * file.momentDim(header as unknown as Record<string, number>);
  const tokens = held * batch * dim;
  if (PREFIX + headerBytes + (sums + tokens) * 4 !== end)
    refuse(`${end - PREFIX - headerBytes} bytes of data, where the header asks for ${(sums + tokens) * 4}`);
  const floats = Float32Array.from({ length: sums + tokens }, (_, i) => view.getFloat32(PREFIX + headerBytes + 4 * i, true));
  const bad = floats.findIndex((value) => !Number.isFinite(value));
  if (bad !== -1) refuse(`the value ${floats[bad]} at element ${bad}`);
  return { header, sums: floats.slice(0, sums), tokens: floats.slice(sums) };
}

function parseHeader(file: StateFile, json: Uint8Array, refuse: (what: string) => never): StateHeader {
  let header: Record<string, unknown>;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json)) as Record<string, unknown>;
  } catch (error) {
    return refuse(`a header that is not JSON (${(error as Error).message})`);
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) refuse("a header that is not an object");
  const limits: StateFile["keys"] = {
    ...file.keys,
    batch: [1, 2 ** 24],
    levels: [1, 8],
    additions: [0, Number.MAX_SAFE_INTEGER],
    held: [0, 2 ** 31],
  };
  for (const [key, allowed] of Object.entries(limits)) {
    const value = header[key];
    const [min, max] = allowed;
    const good =
      typeof min === "number"
        ? typeof value === "number" && (Number.isInteger(value) || !Number.isInteger(min)) && value >= min && value <= Number(max)
        : (allowed as readonly unknown[]).includes(value);
    if (!good) refuse(`the header's ${key} ${JSON.stringify(value)}`);
  }
  const { count, batch, window, held, next } = header as unknown as StateHeader;
  const goodCount = (value: unknown) => typeof value === "number" && Number.isFinite(value) && value >= 0;
  if (!Array.isArray(count) || count.length !== batch || !count.every(goodCount)) refuse(`the header's count ${JSON.stringify(count)?.slice(0, 60)}`);
  if (next !== undefined && !(Array.isArray(next) && next.length === batch && next.every(Number.isSafeInteger)))
    refuse(`the header's next ${JSON.stringify(next)?.slice(0, 60)}`);
  if (window !== null && !(Number.isInteger(window) && window >= 1)) refuse(`the header's window ${JSON.stringify(window)}`);
  if (held > (window ?? 0)) refuse(`${held} tokens in a window of ${window}`);
  return header as unknown as StateHeader;
}

/** CRC-32 of IEEE 802.3 (polynomial 0xedb88320, reflected). */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
