import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import { parseSafetensors, type Weights } from "../../src/weights/index.ts";
import { concat, fileOf } from "./support.ts";

const data = new Uint8Array(24).map((_, i) => i + 1);
const f32 = (begin: number, end: number, shape: unknown = [(end - begin) / 4]) => ({ dtype: "F32", shape, data_offsets: [begin, end] });
/** One F32 tensor `a` over the whole data, with some of its fields replaced. */
const one = (change: object) => fileOf({ a: { ...f32(0, 24), ...change } }, data);
const two = (a: object, b: object, bytes = data) => fileOf({ a, b }, bytes);
const control = two(f32(0, 8), f32(8, 24));
const text = (json: string, bytes = data) => fileOf(json, bytes);

const TENSOR = '{"dtype":"F32","shape":[6],"data_offsets":[0,24]}';

/** One thing is wrong in each file; the fragment of the message says which, with the name and the offending value. */
const table: [string, Uint8Array, string][] = [
  // the 8 bytes before the header
  ["an empty file", new Uint8Array(0), "the file must have at least 8 bytes, the header's length, got 0 bytes"],
  ["7 bytes", control.slice(0, 7), "the file must have at least 8 bytes, the header's length, got 7 bytes"],
  ["8 bytes", control.slice(0, 8), "the header must lie within the file, got a header of 112 bytes in a file of 8"],
  ["a header length of 0", fileOf("", data), "the header length (bytes 0 to 7) must be from 1 to 100000000, got 0"],
  ["a header longer than the file", fileOf({ a: f32(0, 24) }, data, { length: 1000n }), "a header of 1000 bytes in a file of 88"],
  ["a header 1 byte longer than the file", fileOf({}, new Uint8Array(0), { length: 9n }), "a header of 9 bytes in a file of 16"],
  ["a header of 100 MB and 1 byte", fileOf({ a: f32(0, 24) }, data, { length: 100_000_001n }), "must be from 1 to 100000000, got 100000001"],
  ["a header of 2^53 bytes", fileOf({ a: f32(0, 24) }, data, { length: 2n ** 53n }), "must be from 1 to 100000000, got 9007199254740992"],
  [
    "a header of 2^64 - 1 bytes",
    fileOf({ a: f32(0, 24) }, data, { length: 2n ** 64n - 1n }),
    "must be from 1 to 100000000, got 18446744073709551615",
  ],
  ["a header of 2^32 bytes, 0 in its lower half", fileOf({ a: f32(0, 24) }, data, { length: 2n ** 32n }), "got 4294967296"],
  [
    "a web page",
    new TextEncoder().encode("<!doctype html><html></html>"),
    "must be from 1 to 100000000, got 8104636974849335612; this is no safetensors file",
  ],
  [
    "a zip file",
    concat(Uint8Array.of(0x50, 0x4b, 3, 4, 20, 0, 0, 0), data),
    "must be from 1 to 100000000, got 85966670672; this is no safetensors file",
  ],
  // the header's text
  ["a header that begins with a space", text(` {"a":${TENSOR}}`), 'the header must begin with "{", got byte 0x20'],
  ["a header that begins with a byte order mark", text(`\ufeff{"a":${TENSOR}}`), 'the header must begin with "{", got byte 0xef'],
  ["an array", text("[]"), 'the header must begin with "{", got byte 0x5b'],
  ["null", text("null"), 'the header must begin with "{", got byte 0x6e'],
  ["zeros", fileOf(new Uint8Array(16), data), 'the header must begin with "{", got byte 0x00'],
  ["half a header", text(`{"a":${TENSOR}`), 'the header must be strict JSON without repeated keys, got text that is not: "," or "}" expected'],
  ["a header cut inside a string", text('{"a'), "the end of a string expected"],
  ["a header cut after a backslash", fileOf('{"a\\', data, { pad: false }), "the end of a string expected"],
  ["text after the header's object", text(`{"a":${TENSOR}} x`), 'the end expected at character 56, found "x'],
  ["padding with zeros", concat(fileOf(new TextEncoder().encode(`{"a":${TENSOR}}\0`), data, { pad: false })), "the end expected at character 55"],
  ["a trailing comma", text(`{"a":${TENSOR},}`), "a string expected at character 55"],
  ["a comment", text(`{/*x*/"a":${TENSOR}}`), "a string expected at character 1"],
  ["single quotes", text(`{'a':${TENSOR}}`), "a string expected at character 1"],
  ["a number with a leading zero", text('{"a":{"dtype":"F32","shape":[06],"data_offsets":[0,24]}}'), '"," or "]" expected'],
  ["NaN as a number", text('{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,24]}}'), "a value expected"],
  ["a missing colon", text('{"a" {}}'), '":" expected'],
  ["a raw newline in a name", text(`{"a\n":${TENSOR}}`), "no control character expected"],
  ["an unknown escape in a name", text(`{"a\\x41":${TENSOR}}`), "the string at character 1 has an escape that JSON does not know"],
  ["half a surrogate pair in a name", text(`{"a\\ud83d":${TENSOR}}`), "the string at character 1 contains half a surrogate pair"],
  [
    "invalid UTF-8",
    fileOf(concat(new TextEncoder().encode('{"'), Uint8Array.of(0xff, 0xfe), new TextEncoder().encode(`":${TENSOR}}`)), data),
    "be UTF-8 text",
  ],
  ["deep nesting", text(`{"a":${"[".repeat(100)}${"]".repeat(100)}}`), "nested more than 16 deep"],
  ["1,000,000 brackets", text(`{"a":${"[".repeat(1_000_000)}`), "nested more than 16 deep"],
  // keys
  ["a tensor twice", text(`{"a":${TENSOR},"a":${TENSOR}}`), 'the key "a" appears a second time at character 55'],
  ["a tensor twice, once escaped", text(`{"a":${TENSOR},"\\u0061":${TENSOR}}`), 'the key "a" appears a second time'],
  ["__metadata__ twice", text('{"__metadata__":{},"__metadata__":{}}', new Uint8Array(0)), 'the key "__metadata__" appears a second time'],
  ["a metadata key twice", text('{"__metadata__":{"k":"1","k":"2"}}', new Uint8Array(0)), 'the key "k" appears a second time'],
  ["dtype twice", text('{"a":{"dtype":"F32","dtype":"F32","shape":[6],"data_offsets":[0,24]}}'), 'the key "dtype" appears a second time'],
  ["__proto__ twice", text(`{"__proto__":${TENSOR},"__proto__":${TENSOR}}`), 'the key "__proto__" appears a second time'],
  // metadata
  ["metadata that is a number", text(`{"__metadata__":3,"a":${TENSOR}}`), "__metadata__ must be an object of strings, got 3"],
  ["metadata that is null", text(`{"__metadata__":null,"a":${TENSOR}}`), "__metadata__ must be an object of strings, got null"],
  ["metadata that is an array", text(`{"__metadata__":["x"],"a":${TENSOR}}`), '__metadata__ must be an object of strings, got ["x"]'],
  ["a metadata value that is a number", text(`{"__metadata__":{"k":1.50},"a":${TENSOR}}`), '__metadata__ "k" must be a string, got 1.50'],
  ["a metadata value that is an object", text(`{"__metadata__":{"k":{}},"a":${TENSOR}}`), '__metadata__ "k" must be a string, got an object'],
  // a tensor's description
  ["a tensor that is a string", text('{"a":"F32"}'), 'tensor "a" must be an object with dtype, shape and data_offsets, got "F32"'],
  ["a tensor that is null", text('{"a":null}'), 'tensor "a" must be an object with dtype, shape and data_offsets, got null'],
  ["__proto__ that is no tensor", text(`{"__proto__":{"polluted":true},"a":${TENSOR}}`), 'the dtype of tensor "__proto__" must be one of BOOL, F4'],
  ["no dtype", fileOf({ a: { shape: [6], data_offsets: [0, 24] } }, data), 'the dtype of tensor "a" must be one of BOOL, F4'],
  ["an unknown dtype", one({ dtype: "F31" }), 'U64, got "F31"'],
  ["a lower-case dtype", one({ dtype: "f32" }), 'U64, got "f32"'],
  ["a dtype named like a method", one({ dtype: "toString" }), 'U64, got "toString"'],
  ["a dtype that is an array", one({ dtype: ["F32"] }), 'U64, got ["F32"]'],
  [
    "no shape",
    fileOf({ a: { dtype: "F32", data_offsets: [0, 24] } }, data),
    'the shape of tensor "a" must be an array of integers from 0 to 2^53 - 1, got nothing',
  ],
  ["a shape that is a number", one({ shape: 6 }), "integers from 0 to 2^53 - 1, got 6"],
  ["a negative size", one({ shape: [-6] }), "integers from 0 to 2^53 - 1, got [-6]"],
  ["two negative sizes whose product fits", one({ shape: [-2, -3] }), "integers from 0 to 2^53 - 1, got [-2, -3]"],
  ["a size of 1.5", one({ shape: [1.5, 4] }), "integers from 0 to 2^53 - 1, got [1.5, 4]"],
  ["a size written 6.0", text('{"a":{"dtype":"F32","shape":[6.0],"data_offsets":[0,24]}}'), "integers from 0 to 2^53 - 1, got [6.0]"],
  ["a size written 6e0", text('{"a":{"dtype":"F32","shape":[6e0],"data_offsets":[0,24]}}'), "integers from 0 to 2^53 - 1, got [6e0]"],
  ["a size of -0", text('{"a":{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}', new Uint8Array(0)), "integers from 0 to 2^53 - 1, got [-0]"],
  ["a size that is a string", one({ shape: ["6"] }), 'integers from 0 to 2^53 - 1, got ["6"]'],
  ["a size of 2^53", text('{"a":{"dtype":"F32","shape":[9007199254740992],"data_offsets":[0,24]}}'), "got [9007199254740992]"],
  ["a size beyond any double", text(`{"a":{"dtype":"F32","shape":[1${"0".repeat(400)}],"data_offsets":[0,24]}}`), "2^53 - 1, got [1000"],
  [
    "sizes whose product overflows",
    one({ shape: [2 ** 40, 2 ** 40] }),
    "have a size of less than 2^53 bits, got [1099511627776, 1099511627776] of F32",
  ],
  ["sizes whose product wraps to 6 in 64 bits", one({ shape: [2 ** 33, 2 ** 31, 6] }), "have a size of less than 2^53 bits"],
  ["sizes that overflow before a 0", one({ shape: [2 ** 50, 2 ** 50, 0] }), "have a size of less than 2^53 bits"],
  [
    "no data_offsets",
    fileOf({ a: { dtype: "F32", shape: [6] } }, data),
    'the data_offsets of tensor "a" must be two integers from 0 to 2^53 - 1, got nothing',
  ],
  ["one offset", one({ data_offsets: [0] }), "must be two integers from 0 to 2^53 - 1, got [0]"],
  ["three offsets", one({ data_offsets: [0, 24, 24] }), "must be two integers from 0 to 2^53 - 1, got [0, 24, 24]"],
  ["a negative offset", one({ data_offsets: [-24, 0] }), "must be two integers from 0 to 2^53 - 1, got [-24, 0]"],
  ["a fractional offset", one({ data_offsets: [0.5, 24.5] }), "must be two integers from 0 to 2^53 - 1, got [0.5, 24.5]"],
  ["an offset of 2^53", text('{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,9007199254740992]}}'), "got [0, 9007199254740992]"],
  ["null offsets", one({ data_offsets: [null, null] }), "must be two integers from 0 to 2^53 - 1, got [null, null]"],
  ["an end before the begin", one({ data_offsets: [24, 0] }), 'the data_offsets of tensor "a" must not end before they begin, got [24, 0]'],
  ["offsets too short for the shape", one({ shape: [7] }), 'tensor "a" must span 28 bytes, the size of [7] of F32, got [0, 24], 24 bytes'],
  ["offsets too long for the shape", one({ shape: [5] }), "must span 20 bytes, the size of [5] of F32, got [0, 24], 24 bytes"],
  ["offsets of another dtype", one({ dtype: "F16" }), "must span 12 bytes, the size of [6] of F16, got [0, 24], 24 bytes"],
  ["bytes for an empty tensor", one({ shape: [0, 6] }), "must span 0 bytes, the size of [0, 6] of F32"],
  ["bytes of a scalar that is not one", one({ shape: [] }), "must span 4 bytes, the size of [] of F32"],
  [
    "half a byte",
    fileOf({ a: { dtype: "F4", shape: [3], data_offsets: [0, 2] } }, data.slice(0, 2)),
    "must fill whole bytes, got 12 bits, [3] of F4",
  ],
  // the layout of the data
  ["overlapping tensors", two(f32(0, 16), f32(8, 24)), 'the data of tensor "b" must begin at the end of tensor "a", at 16, got 8: the two overlap'],
  [
    "two tensors on the same bytes",
    two(f32(0, 24), f32(0, 24)),
    'the data of tensor "b" must begin at the end of tensor "a", at 24, got 0: the two overlap',
  ],
  ["a tensor inside another", two(f32(0, 24), f32(8, 12)), "at 24, got 8: the two overlap"],
  [
    "overlap, listed in reverse",
    two(f32(8, 24), f32(0, 12)),
    'the data of tensor "a" must begin at the end of tensor "b", at 12, got 8: the two overlap',
  ],
  ["an empty tensor inside another", two(f32(0, 24), f32(8, 8)), "at 24, got 8: the two overlap"],
  [
    "a hole at the start",
    one({ shape: [5], data_offsets: [4, 24] }),
    "must begin at the start of the data, at 0, got 4: the 4 bytes before it belong to no tensor",
  ],
  ["a hole in the middle", two(f32(0, 8), f32(12, 24)), 'at the end of tensor "a", at 8, got 12: the 4 bytes before it belong to no tensor'],
  ["a hole before an empty tensor", two(f32(0, 20), f32(24, 24)), "got 24: the 4 bytes before it belong to no tensor"],
  [
    "a byte after the last tensor",
    concat(control, Uint8Array.of(0)),
    "the file must end with the last tensor, after 144 bytes, got 145 bytes: the last 1 belong to no tensor",
  ],
  ["data without tensors", fileOf({}, data), "must end with the last tensor, after 16 bytes, got 40 bytes: the last 24 belong to no tensor"],
  ["the last byte missing", control.slice(0, -1), 'the file must have the 144 bytes that its header promises, where tensor "b" ends, got 143 bytes'],
  ["no data at all", control.slice(0, 120), 'the 144 bytes that its header promises, where tensor "b" ends, got 120 bytes'],
  ["a tensor beyond the file", fileOf({ a: f32(0, 1e9) }, data), 'where tensor "a" ends, got 104 bytes'],
  ["a tensor of 2^50 bytes", fileOf({ a: { dtype: "U8", shape: [2 ** 49], data_offsets: [0, 2 ** 49] } }, data), 'where tensor "a" ends'],
];

describe("a file with one thing wrong", () => {
  it("the file without it is fine", () => {
    expect(parseSafetensors(control).names).toEqual(["a", "b"]);
    expect(parseSafetensors(one({})).get("a").shape).toEqual([6]);
  });

  it.each(table)("%s", (_name, bytes, fragment) => {
    let weights: Weights | undefined;
    let error: unknown;
    try {
      weights = parseSafetensors(bytes);
    } catch (caught) {
      error = caught;
    }
    expect(weights).toBeUndefined();
    expect(error).toBeInstanceOf(WeightsError);
    const { message } = error as WeightsError;
    expect(message).toContain(fragment);
    expect(message).toMatch(/^parseSafetensors: .+ must .+, got .+/s);
    // whoever reads it learns what to do, and a hostile header does not flood the log
    expect(message).toContain("; ");
    expect(message.length).toBeLessThan(600);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });

  it("the rows are different from one another", () => {
    expect(table.length).toBeGreaterThanOrEqual(40);
    expect(new Set(table.map(([name]) => name)).size).toBe(table.length);
  });
});

describe("any damage", () => {
  const whole = fileOf({ __metadata__: { k: "v" }, a: f32(0, 8), "b.weight": { dtype: "BF16", shape: [2, 4], data_offsets: [8, 24] } }, data);

  it("every truncation is refused", () => {
    for (let length = 0; length < whole.length; length++) {
      expect(() => parseSafetensors(whole.subarray(0, length)), `${length} bytes`).toThrow(WeightsError);
    }
    expect(parseSafetensors(whole).size).toBe(2);
  });

  /** Whatever is read must be what the file's own bytes say, within the file, without overlap. */
  function checkRead(weights: Weights, bytes: Uint8Array) {
    let total = 0;
    for (const tensor of weights) {
      expect(tensor.bytes.byteOffset + tensor.bytes.byteLength).toBeLessThanOrEqual(bytes.byteLength);
      total += tensor.bytes.byteLength;
    }
    expect(total).toBe(data.length);
  }

  it("changed bytes give a WeightsError or a file that is consistent", () => {
    const change = fc.record({
      at: fc.nat(whole.length - 1),
      to: fc.oneof(fc.nat(255), fc.constantFrom(...new TextEncoder().encode('{}[]",:0189-.eE\\ '))),
    });
    let refused = 0;
    let read = 0;
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
        const bytes = whole.slice();
        for (const { at, to } of changes) bytes[at] = to;
        try {
          checkRead(parseSafetensors(bytes), bytes);
          read++;
        } catch (error) {
          if (!(error instanceof WeightsError)) throw error;
          refused++;
        }
      }),
      { numRuns: 5000, seed: 7 },
    );
    expect(refused).toBeGreaterThan(1000);
    expect(read).toBeGreaterThan(100);
  });

  it("JSON with any content gives a WeightsError or is consistent", () => {
    const anything = fc.dictionary(
      fc.oneof(fc.constantFrom("a", "__metadata__", "__proto__", "constructor"), fc.string()),
      fc.jsonValue({ maxDepth: 3 }),
      {
        minKeys: 1,
        noNullPrototype: false,
      },
    );
    fc.assert(
      fc.property(anything, (header) => {
        try {
          expect(parseSafetensors(fileOf(header)).size).toBeLessThanOrEqual(1);
        } catch (error) {
          if (!(error instanceof WeightsError)) throw error;
        }
      }),
      { numRuns: 2000, seed: 7 },
    );
  });
});
