// The few messages of ONNX's protobuf format that a graph of float tensors needs (onnx.proto names and numbers them).

type Bytes = Uint8Array<ArrayBuffer>;

const text = new TextEncoder();

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  return [...bytes, Number(rest)];
}

function joined(parts: readonly Bytes[]): Bytes {
  const result = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}

const integer = (field: number, value: number): Bytes => Uint8Array.from([...varint(field << 3), ...varint(value)]);
const bytes = (field: number, value: Bytes): Bytes => joined([Uint8Array.from([...varint((field << 3) | 2), ...varint(value.length)]), value]);
const string = (field: number, value: string): Bytes => bytes(field, text.encode(value));
const message = (field: number, ...parts: readonly Bytes[]): Bytes => bytes(field, joined(parts));

const FLOAT = 1;
const INT64 = 7;

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly domain?: string;
  readonly attributes?: Readonly<Record<string, number | readonly number[]>>;
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly inputs: Readonly<Record<string, readonly number[]>>;
  readonly outputs: Readonly<Record<string, readonly number[]>>;
  /** Floats, or whole numbers as a BigInt64Array. */
  readonly initializers: Readonly<
    Record<string, { readonly shape: readonly number[]; readonly data: Float32Array<ArrayBuffer> | BigInt64Array<ArrayBuffer> }>
  >;
}

function valueInfo(field: number, name: string, shape: readonly number[]): Bytes {
  const dimensions = shape.map((size) => message(1, integer(1, size)));
  return message(field, string(1, name), message(2, message(1, integer(1, FLOAT), message(2, ...dimensions))));
}

function attributeProto([name, value]: [string, number | readonly number[]]): Bytes {
  const [INT, INTS] = [2, 7];
  if (typeof value === "number") return message(5, string(1, name), integer(3, value), integer(20, INT));
  return message(5, string(1, name), ...value.map((item) => integer(8, item)), integer(20, INTS));
}

function nodeProto({ op, inputs, outputs, domain, attributes = {} }: Node): Bytes {
  return message(
    1,
    ...inputs.map((name) => string(1, name)),
    ...outputs.map((name) => string(2, name)),
    string(3, `${op}_${outputs[0]}`),
    string(4, op),
    ...Object.entries(attributes).map(attributeProto),
    ...(domain === undefined ? [] : [string(7, domain)]),
  );
}

function initializerProto([name, { shape, data }]: [string, Graph["initializers"][string]]): Bytes {
  const type = data instanceof Float32Array ? FLOAT : INT64;
  return message(
    5,
    ...shape.map((size) => integer(1, size)),
    integer(2, type),
    string(8, name),
    bytes(9, new Uint8Array(data.buffer, data.byteOffset, data.byteLength)),
  );
}

/** A model of ONNX's operator set 20, and of ONNX Runtime's own operators (`com.microsoft`). */
export function onnxModel({ nodes, inputs, outputs, initializers }: Graph): Bytes {
  const graph = message(
    7,
    ...nodes.map(nodeProto),
    string(2, "bench"),
    ...Object.entries(initializers).map(initializerProto),
    ...Object.entries(inputs).map(([name, shape]) => valueInfo(11, name, shape)),
    ...Object.entries(outputs).map(([name, shape]) => valueInfo(12, name, shape)),
  );
  const IR_VERSION = 9;
  return joined([integer(1, IR_VERSION), message(8, string(1, ""), integer(2, 20)), message(8, string(1, "com.microsoft"), integer(2, 1)), graph]);
}
