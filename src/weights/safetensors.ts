/**
 * Reader and writer of the safetensors file format: 8 bytes with the header's length n (unsigned, little-endian), n bytes of JSON
 * `{ "name": { "dtype", "shape", "data_offsets": [begin, end] }, "__metadata__": { text: text } }`, then the raw row-major little-endian values.
 * The format's own rules hold: the header begins with `{` and has at most 100,000,000 bytes, no key repeats, and the tensors
 * cover the data exactly, with no overlap, no hole and nothing left over. Tensors without elements and scalars (shape `[]`) are allowed.
 */
import { describe, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { decodeBF16, decodeF16, encodeBF16, encodeF16 } from "../half.ts";
import { describeJson, isWellFormed, type Json, JsonNumber, JsonProblem, parseJson } from "./json.ts";

/** Every dtype of the format in its order of alignment, which is the order (reversed) in which the tensors are written. */
const BITS = {
  BOOL: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** How a tensor's values are stored. */
export type WeightDtype = keyof typeof BITS;
const DTYPES = Object.keys(BITS) as WeightDtype[];

/** What `WeightTensor.data` is for each dtype; a dtype that JavaScript has no array for has no entry. */
const ARRAYS = {
  BOOL: Uint8Array,
  U8: Uint8Array,
  I8: Int8Array,
  I16: Int16Array,
  U16: Uint16Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I32: Int32Array,
  U32: Uint32Array,
  F32: Float32Array,
  F64: Float64Array,
  I64: BigInt64Array,
  U64: BigUint64Array,
} as const;

/** A tensor's values in an array of their own type. */
export type WeightArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array;

interface ArrayOf<T> {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): T;
  readonly BYTES_PER_ELEMENT: number;
}

const hasArray = (dtype: WeightDtype): dtype is keyof typeof ARRAYS => Object.hasOwn(ARRAYS, dtype);
const isDtype = (value: unknown): value is WeightDtype => typeof value === "string" && Object.hasOwn(BITS, value);

export const MAX_HEADER_BYTES = 100_000_000;

/** `<function>: <subject> must <rule>, got <value>; <what to do>`, the wording of every other error of the package. */
export function weightsError(where: string, subject: string, rule: string, got: string, hint?: string, options?: ErrorOptions): WeightsError {
  return new WeightsError(`${where}: ${subject} must ${rule}, got ${got}${hint ? `; ${hint}` : ""}`, options);
}

/** `tensor "name"`, quoted, and cut where a hostile name would flood the message. */
export const tensorNamed = (name: string): string => `tensor ${JSON.stringify(name.length > 200 ? `${name.slice(0, 197)}...` : name)}`;

const DAMAGED = "the file is damaged or was not written by a safetensors writer; export it again";

/** One tensor of a file: a view of the file's bytes, decoded only when asked. */
export class WeightTensor {
  readonly name: string;
  readonly dtype: WeightDtype;
  readonly shape: readonly number[];
  /** How many values there are. */
  readonly size: number;
  /** The stored bytes: a view of the file, never a copy. */
  readonly bytes: Uint8Array;

  /** @internal Use `parseSafetensors` or `Weights.from`. */
  constructor(name: string, dtype: WeightDtype, shape: readonly number[], bytes: Uint8Array) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.size = shape.reduce((product, n) => product * n, 1);
    this.bytes = bytes;
  }

  /**
   * The values in the array type of their dtype; F16 and BF16 as raw bits in a Uint16Array (`toFloat32` decodes them), BOOL as bytes 0 and 1.
   * A view of the file where the values lie on a multiple of their own size, which the writers of this format see to; otherwise a fresh copy.
   */
  get data(): WeightArray {
    if (!hasArray(this.dtype)) {
      throw weightsError(
        "WeightTensor.data",
        tensorNamed(this.name),
        `have one of the dtypes ${Object.keys(ARRAYS).join(", ")}`,
        this.dtype,
        "JavaScript has no such array; read `bytes`, or convert the file to F32, F16 or BF16",
      );
    }
    return this.#viewAs<WeightArray>(ARRAYS[this.dtype] as ArrayOf<WeightArray>);
  }

  /**
   * The values as 32-bit floats. F32: no copy where the data is 4-byte aligned in its ArrayBuffer (then writing to it writes to the file's bytes), a copy
   * otherwise. F16 and BF16: decoded exactly, subnormals, infinities and NaN included, into a new array. Other dtypes are refused rather than rounded.
   */
  toFloat32(): Float32Array {
    if (this.dtype === "F32") return this.#viewAs(Float32Array);
    if (this.dtype === "F16") return decodeF16(this.#viewAs(Uint16Array));
    if (this.dtype === "BF16") return decodeBF16(this.#viewAs(Uint16Array));
    throw weightsError(
      "WeightTensor.toFloat32",
      tensorNamed(this.name),
      "have the dtype F32, F16 or BF16",
      this.dtype,
      hasArray(this.dtype) ? "read its values from `data`" : "convert the file to F32, F16 or BF16",
    );
  }

  #viewAs<T>(View: ArrayOf<T>): T {
    const { buffer, byteOffset, byteLength } = this.bytes;
    const length = byteLength / View.BYTES_PER_ELEMENT;
    if (byteOffset % View.BYTES_PER_ELEMENT === 0) return new View(buffer, byteOffset, length);
    return new View(new Uint8Array(this.bytes).buffer, 0, length);
  }
}

/** What a tensor is made of when it does not come out of a file. */
export interface TensorSource {
  /** By default the dtype of the array: Float32Array is F32, Int32Array I32, Uint8Array U8 and so on. */
  readonly dtype?: WeightDtype | undefined;
  readonly shape: readonly number[];
  /** For F16 and BF16 either a Float32Array, which is rounded to nearest even, or a Uint16Array of raw bits. */
  readonly data: WeightArray;
}

/** Tensors by name: either what a reader gave, or plain arrays. */
export type WeightsSource = Weights | Readonly<Record<string, TensorSource>>;

/** The tensors of one file. Iterate it, or ask by name. */
export class Weights implements Iterable<WeightTensor> {
  /** The file's free text, for instance a vocabulary. It has no prototype, so that any key is safe to ask for. */
  readonly metadata: Readonly<Record<string, string>>;
  /** In the order of the file's header. */
  readonly names: readonly string[];
  readonly #tensors: ReadonlyMap<string, WeightTensor>;

  /** @internal Use `parseSafetensors` or `Weights.from`. */
  constructor(tensors: Iterable<WeightTensor>, metadata: Readonly<Record<string, string>>) {
    this.#tensors = new Map(Array.from(tensors, (tensor) => [tensor.name, tensor]));
    this.names = [...this.#tensors.keys()];
    this.metadata = metadata;
  }

  /**
   * The same thing out of plain arrays, checked as the writer checks them; the arrays are shared, not copied.
   * ```ts
   * const weights = Weights.from({ "ho_proj.weight": { shape: [64, 16], data: new Float32Array(1024) } });
   * ```
   */
  static from(tensors: WeightsSource, metadata?: Readonly<Record<string, string>>): Weights {
    return toWeights("Weights.from", tensors, metadata);
  }

  /** How many tensors there are. */
  get size(): number {
    return this.names.length;
  }

  /** Whether there is a tensor of that name. */
  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** The tensor of that name; one that is not there is a `WeightsError`, so ask `has` first where it may be absent. */
  get(name: string): WeightTensor {
    const tensor = this.#tensors.get(name);
    if (tensor) return tensor;
    const list = this.names.slice(0, 8).map((n) => describe(n));
    throw weightsError(
      "Weights.get",
      "name",
      `be one of the ${this.size} tensors`,
      describe(name),
      this.size === 0 ? "there are no tensors at all" : `there are ${list.join(", ")}${this.size > list.length ? ", ... (see `names`)" : ""}`,
    );
  }

  [Symbol.iterator](): IterableIterator<WeightTensor> {
    return this.#tensors.values();
  }
}

// ---- reading ----------------------------------------------------------------------------------------------------------------------------

interface Entry {
  name: string;
  dtype: WeightDtype;
  shape: number[];
  begin: number;
  end: number;
}

/** What a header says, found consistent in itself; whether the file is as long as that is the caller's question. */
export interface Header {
  metadata: Record<string, string>;
  entries: Entry[];
  /** In the order of the data. */
  stored: Entry[];
  /** Where the data begins, and the length of the whole file. */
  dataStart: number;
  fileBytes: number;
}

/** The number in a file's first 8 bytes. */
export function parseHeaderLength(where: string, bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
  const length = view.getBigUint64(0, true);
  if (length === 0n || length > MAX_HEADER_BYTES) {
    const hint = "this is no safetensors file; a web page, an error message or a PyTorch .pt file perhaps";
    throw weightsError(where, "the header length (bytes 0 to 7)", `be from 1 to ${MAX_HEADER_BYTES}`, String(length), hint);
  }
  return Number(length);
}

/** Parses the header's JSON and checks everything that can be checked without the data. */
export function parseHeader(where: string, bytes: Uint8Array): Header {
  if (bytes[0] !== 0x7b) {
    throw weightsError(where, "the header", 'begin with "{"', `byte 0x${bytes[0]!.toString(16).padStart(2, "0")}`, DAMAGED);
  }
  let json: Json;
  try {
    // A copy where the memory is shared: browsers decode no shared memory.
    const plain = bytes.buffer instanceof ArrayBuffer ? bytes : new Uint8Array(bytes);
    json = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(plain));
  } catch (error) {
    if (!(error instanceof JsonProblem)) throw weightsError(where, "the header", "be UTF-8 text", "other bytes", DAMAGED, { cause: error });
    throw weightsError(where, "the header", "be strict JSON without repeated keys", `text that is not: ${error.message}`, DAMAGED);
  }
  // It begins with "{" and is valid JSON.
  const root = json as Map<string, Json>;

  const metadata = parseMetadata(where, root.get("__metadata__"));
  root.delete("__metadata__");
  const entries = Array.from(root, ([name, info]) => parseEntry(where, name, info));

  const stored = entries.toSorted((a, b) => a.begin - b.begin || a.end - b.end);
  let previous: Entry | undefined;
  for (const entry of stored) {
    const expected = previous?.end ?? 0;
    if (entry.begin !== expected) {
      const after = previous ? `at the end of ${tensorNamed(previous.name)}` : "at the start of the data";
      const what = entry.begin < expected ? "the two overlap" : `the ${entry.begin - expected} bytes before it belong to no tensor`;
      throw weightsError(where, `the data of ${tensorNamed(entry.name)}`, `begin ${after}, at ${expected}`, `${entry.begin}: ${what}`, DAMAGED);
    }
    previous = entry;
  }
  const dataStart = 8 + bytes.byteLength;
  return { metadata, entries, stored, dataStart, fileBytes: dataStart + (previous?.end ?? 0) };
}

function parseMetadata(where: string, json: Json | undefined): Record<string, string> {
  const metadata: Record<string, string> = Object.create(null);
  if (json === undefined) return metadata;
  if (!(json instanceof Map)) throw weightsError(where, "__metadata__", "be an object of strings", describeJson(json), DAMAGED);
  for (const [key, value] of json) {
    if (typeof value !== "string") {
      throw weightsError(where, `__metadata__ ${describe(key)}`, "be a string", describeJson(value), "store numbers and objects as their text");
    }
    metadata[key] = value;
  }
  return metadata;
}

function parseEntry(where: string, name: string, info: Json): Entry {
  const subject = tensorNamed(name);
  if (!(info instanceof Map)) throw weightsError(where, subject, "be an object with dtype, shape and data_offsets", describeJson(info), DAMAGED);
  const dtype = info.get("dtype");
  if (!isDtype(dtype)) {
    throw weightsError(
      where,
      `the dtype of ${subject}`,
      `be one of ${DTYPES.join(", ")}`,
      describeJson(dtype),
      "convert the file to F32, F16 or BF16",
    );
  }
  const shapeJson = info.get("shape");
  const shape = Array.isArray(shapeJson) ? shapeJson.map(toCount) : [undefined];
  if (!shape.every((n) => n !== undefined)) {
    throw weightsError(where, `the shape of ${subject}`, "be an array of integers from 0 to 2^53 - 1", describeJson(shapeJson), DAMAGED);
  }
  const offsetsJson = info.get("data_offsets");
  const [begin, end, ...more] = Array.isArray(offsetsJson) ? offsetsJson.map(toCount) : [];
  if (begin === undefined || end === undefined || more.length > 0) {
    throw weightsError(where, `the data_offsets of ${subject}`, "be two integers from 0 to 2^53 - 1", describeJson(offsetsJson), DAMAGED);
  }
  if (begin > end) throw weightsError(where, `the data_offsets of ${subject}`, "not end before they begin", `[${begin}, ${end}]`, DAMAGED);

  let bits: number = BITS[dtype];
  for (const n of shape) {
    if (n === 0 || bits <= Number.MAX_SAFE_INTEGER / n) {
      bits *= n;
      continue;
    }
    throw weightsError(where, `the shape of ${subject}`, "have a size of less than 2^53 bits", `[${shape.join(", ")}] of ${dtype}`, DAMAGED);
  }
  if (bits % 8 !== 0) {
    throw weightsError(where, `the values of ${subject}`, "fill whole bytes", `${bits} bits, [${shape.join(", ")}] of ${dtype}`, DAMAGED);
  }
  if (end - begin !== bits / 8) {
    throw weightsError(
      where,
      `the data_offsets of ${subject}`,
      `span ${bits / 8} bytes, the size of [${shape.join(", ")}] of ${dtype}`,
      `[${begin}, ${end}], ${end - begin} bytes`,
      DAMAGED,
    );
  }
  return { name, dtype, shape, begin, end };
}

/** An integer from 0 to 2^53 - 1 that was written as one: not `-0`, not `1.0`, not `1e3`. */
function toCount(json: Json): number | undefined {
  if (!(json instanceof JsonNumber) || !/^\d+$/.test(json.text)) return undefined;
  const value = Number(json.text);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Views of the tensors in a whole file whose header has been parsed. */
export function readTensors(where: string, header: Header, file: Uint8Array): Weights {
  checkFileLength(where, header, file.byteLength, "the file");
  return new Weights(
    header.entries.map((entry) => readTensor(header, file, entry)),
    header.metadata,
  );
}

/** A view of one tensor, whose bytes are all there. */
export function readTensor(header: Header, file: Uint8Array, { name, dtype, shape, begin, end }: Entry): WeightTensor {
  const bytes = new Uint8Array(file.buffer, file.byteOffset + header.dataStart + begin, end - begin);
  return new WeightTensor(name, dtype, Object.freeze(shape), bytes);
}

/** Refuses a file that is shorter or longer than its header says. */
export function checkFileLength(where: string, header: Header, fileBytes: number, subject: string): void {
  if (fileBytes < header.fileBytes) {
    const end = header.stored.at(-1);
    const last = end ? `, where ${tensorNamed(end.name)} ends` : "";
    throw weightsError(
      where,
      subject,
      `have the ${header.fileBytes} bytes that its header promises${last}`,
      `${fileBytes} bytes`,
      "it is truncated or its header lies; download or export it again",
    );
  }
  if (fileBytes > header.fileBytes) {
    throw weightsError(
      where,
      subject,
      `end with the last tensor, after ${header.fileBytes} bytes`,
      `${fileBytes} bytes: the last ${fileBytes - header.fileBytes} belong to no tensor`,
      DAMAGED,
    );
  }
}

/**
 * Reads a safetensors file. No value is copied: every tensor is a view of `bytes`, which must therefore stay unchanged while it is used.
 * Anything in the header that is not as the format wants it is a `WeightsError`; the values themselves are not looked at (see `collectParams`).
 *
 * ```ts
 * const weights = parseSafetensors(await (await fetch(url)).arrayBuffer());
 * const embedding = weights.get("token_emb.weight"); // .shape, .dtype, .bytes, .data
 * const values = embedding.toFloat32();
 * ```
 */
export function parseSafetensors(bytes: ArrayBuffer | Uint8Array): Weights {
  const where = "parseSafetensors";
  const file = toBytes(where, bytes);
  if (file.byteLength < 8) {
    throw weightsError(where, "the file", "have at least 8 bytes, the header's length", `${file.byteLength} bytes`, "it is empty or truncated");
  }
  const headerBytes = parseHeaderLength(where, file);
  if (headerBytes > file.byteLength - 8) {
    throw weightsError(
      where,
      "the header",
      "lie within the file",
      `a header of ${headerBytes} bytes in a file of ${file.byteLength}`,
      "it is truncated, or no safetensors file; download or export it again",
    );
  }
  return readTensors(where, parseHeader(where, file.subarray(8, 8 + headerBytes)), file);
}

function toBytes(where: string, bytes: unknown): Uint8Array {
  // By tag, not by `instanceof`: buffers of another realm (a frame, a test runner) are welcome.
  const tag = Object.prototype.toString.call(bytes);
  if (tag === "[object ArrayBuffer]" || tag === "[object SharedArrayBuffer]") return new Uint8Array(bytes as ArrayBuffer);
  if (!ArrayBuffer.isView(bytes) || tag !== "[object Uint8Array]") {
    throw typeError(where, "bytes", "be an ArrayBuffer or a Uint8Array", bytes, "pass the whole file, for instance `await response.arrayBuffer()`");
  }
  // A plain view even of a Node Buffer, whose `subarray` and `slice` differ.
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// ---- writing ----------------------------------------------------------------------------------------------------------------------------

/**
 * Writes a safetensors file, byte for byte as the reference implementation lays it out: the tensors by falling alignment of their dtype, then by name;
 * the header padded with spaces to a multiple of 8 bytes, so that every tensor can be read without a copy.
 * Given `Weights`, their stored bytes and, unless `metadata` is passed, their metadata are kept.
 *
 * ```ts
 * const bytes = writeSafetensors({
 *   "ho_proj.weight": { shape: [64, 16], data: new Float32Array(1024) },
 *   "ag_proj.weight": { dtype: "BF16", shape: [16, 64], data: new Float32Array(1024) },
 * }, { format: "pt" });
 * ```
 */
export function writeSafetensors(tensors: WeightsSource, metadata?: Readonly<Record<string, string>>): Uint8Array<ArrayBuffer> {
  const weights = toWeights("writeSafetensors", tensors, metadata);
  const sorted = [...weights].sort((a, b) => DTYPES.indexOf(b.dtype) - DTYPES.indexOf(a.dtype) || compareCodePoints(a.name, b.name));

  // Text, not an object: an object would move names that look like indices to the front.
  const parts: string[] = [];
  if (metadata !== undefined || Object.keys(weights.metadata).length > 0) parts.push(`"__metadata__":${JSON.stringify(weights.metadata)}`);
  let end = 0;
  for (const { name, dtype, shape, bytes } of sorted) {
    const begin = end;
    end += bytes.byteLength;
    parts.push(`${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${begin},${end}]}`);
  }
  const json = new TextEncoder().encode(`{${parts.join(",")}}`);
  const headerBytes = Math.ceil(json.length / 8) * 8;
  if (headerBytes > MAX_HEADER_BYTES) {
    throw weightsError("writeSafetensors", "the header", `have at most ${MAX_HEADER_BYTES} bytes`, String(headerBytes), "shorten the metadata");
  }

  const file = new Uint8Array(8 + headerBytes + end);
  new DataView(file.buffer).setUint32(0, headerBytes, true);
  file.set(json, 8);
  file.fill(0x20, 8 + json.length, 8 + headerBytes);
  let at = 8 + headerBytes;
  for (const { bytes } of sorted) {
    file.set(bytes, at);
    at += bytes.byteLength;
  }
  return file;
}

/** The order of UTF-8 bytes, in which the reference implementation sorts; `<` on strings puts U+FB00 after U+1F600. */
function compareCodePoints(a: string, b: string): number {
  for (let i = 0; i < a.length && i < b.length; i++) {
    const x = a.codePointAt(i)!;
    const y = b.codePointAt(i)!;
    if (x !== y) return x - y;
  }
  return a.length - b.length;
}

/** Checks tensors that come from a caller, and stores them as a file would: F16 and BF16 are rounded here, everything else is shared. */
export function toWeights(where: string, source: WeightsSource, metadata?: Readonly<Record<string, string>>): Weights {
  if (metadata !== undefined) {
    if (!isPlainObject(metadata)) throw typeError(where, "metadata", "be an object of strings", metadata);
    for (const [key, value] of Object.entries(metadata)) {
      if (typeof value !== "string") throw typeError(where, `metadata ${describe(key)}`, "be a string", value, "write numbers and objects as text");
      if (!isWellFormed(key) || !isWellFormed(value)) {
        throw typeError(where, `metadata ${describe(key)}`, "be well-formed text", raw("half a surrogate pair"));
      }
    }
  }
  const copy = metadata && Object.assign(Object.create(null) as Record<string, string>, metadata);
  if (source instanceof Weights) return copy ? new Weights(source, copy) : source;
  if (!isPlainObject(source)) throw typeError(where, "tensors", "be Weights or an object of { dtype, shape, data }", source);
  const tensors = Object.entries(source).map(([name, tensor]) => toTensor(where, name, tensor));
  return new Weights(tensors, copy ?? Object.create(null));
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value) && !(Symbol.iterator in value);
}

function toTensor(where: string, name: string, source: TensorSource): WeightTensor {
  const subject = tensorNamed(name);
  if (name === "__metadata__")
    throw weightsError(where, subject, "not have the name that the format keeps for its metadata", describe(name), "rename it");
  if (!isWellFormed(name)) throw weightsError(where, subject, "have a well-formed name", "half a surrogate pair", "rename it");
  if (!isPlainObject(source)) {
    throw weightsError(where, subject, "be { dtype, shape, data }", describe(source), "give its shape, too");
  }
  const { shape, data } = source;
  if (!Array.isArray(shape) || !shape.every((n) => Number.isSafeInteger(n) && n >= 0)) {
    throw weightsError(where, `the shape of ${subject}`, "be an array of integers >= 0", describe(shape));
  }
  // By tag, as in `toBytes`.
  const kind = ArrayBuffer.isView(data) ? Object.prototype.toString.call(data).slice("[object ".length, -1) : "";
  const own = (Object.keys(ARRAYS) as (keyof typeof ARRAYS)[]).find((d) => d !== "BOOL" && d !== "F16" && d !== "BF16" && ARRAYS[d].name === kind);
  if (own === undefined) {
    throw weightsError(where, `the data of ${subject}`, "be a typed array", describe(data), "a Float32Array for F32, F16 or BF16");
  }
  const dtype = source.dtype ?? own;
  if (!isDtype(dtype) || !hasArray(dtype)) {
    throw weightsError(where, `the dtype of ${subject}`, `be one of ${Object.keys(ARRAYS).join(", ")}`, describe(dtype));
  }
  const size = (shape as number[]).reduce((product, n) => product * n, 1);
  if (data.length !== size) {
    throw weightsError(where, `the data of ${subject}`, `have ${size} values for the shape [${shape.join(", ")}]`, describe(data));
  }
  const isHalf = dtype === "F16" || dtype === "BF16";
  let stored: ArrayBufferView = data;
  if (isHalf && kind === "Float32Array") {
    stored = toHalf(where, subject, dtype, data as Float32Array);
  } else if (ARRAYS[dtype].name !== kind) {
    const wanted = isHalf ? "a Float32Array of values or a Uint16Array of bits" : `a ${ARRAYS[dtype].name}`;
    throw weightsError(where, `the data of ${subject}`, `be ${wanted} for the dtype ${dtype}`, describe(data), "convert it, or leave the dtype out");
  }
  const bytes = new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
  return new WeightTensor(name, dtype, Object.freeze([...(shape as number[])]), bytes);
}

/** Rounds, and refuses a finite value that would become infinite: the file could be written, but no model would load it. */
function toHalf(where: string, subject: string, dtype: "F16" | "BF16", values: Float32Array): Uint16Array {
  const bits = dtype === "F16" ? encodeF16(values) : encodeBF16(values);
  const infinity = dtype === "F16" ? 0x7c00 : 0x7f80;
  for (let i = 0; i < bits.length; i++) {
    if ((bits[i]! & 0x7fff) === infinity && Number.isFinite(values[i])) {
      const hint = dtype === "F16" ? "store it as BF16 or F32" : "store it as F32";
      throw weightsError(where, `the data of ${subject}`, `stay finite in ${dtype}`, `${values[i]} at index ${i}`, hint);
    }
  }
  return bits;
}
