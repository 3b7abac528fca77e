import { readdir } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import { encodeBF16, encodeF16 } from "../../src/half.ts";
import {
  parseSafetensors,
  type TensorSource,
  type WeightArray,
  type WeightDtype,
  Weights,
  type WeightsSource,
  writeSafetensors,
} from "../../src/weights/index.ts";
import { loadFixture, loadJson } from "../support/fixtures.ts";
import { concat, fileOf, firstDifference } from "./support.ts";

const GOLDEN = "test/fixtures/golden";
type Case = Record<"inputs" | "params" | "outputs" | "grads", string[]> & { file: string };
const listed = new Map((await loadJson<{ cases: Case[] }>(`${GOLDEN}/index.json`)).cases.map((c) => [c.file, c]));
const files = (await readdir(new URL(`../fixtures/golden/`, import.meta.url))).filter((f) => f.endsWith(".safetensors")).sort();

const bytesOf = (array: ArrayBufferView): Uint8Array => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

describe("golden files", () => {
  it("are there", () => {
    expect(files.filter((f) => listed.has(f)).length).toBeGreaterThanOrEqual(47);
  });

  it.each(files)("%s", async (name) => {
    const file = await loadFixture(`${GOLDEN}/${name}`);
    const weights = parseSafetensors(file);
    const entry = listed.get(name);
    const expected = entry ? [...entry.inputs, ...entry.params, ...entry.outputs, ...entry.grads] : Object.keys(headerOf(file));
    expect([...weights.names].sort()).toEqual(expected.filter((key) => key !== "__metadata__").sort());
    expect(weights.size).toBeGreaterThan(2);

    const view = new DataView(file);
    const header = headerOf(file);
    const dataStart = 8 + view.getUint32(0, true);
    for (const { name: key, dtype, shape, size, bytes, data } of weights) {
      const { dtype: storedDtype, shape: storedShape, data_offsets } = header[key]!;
      expect([dtype, shape]).toEqual([storedDtype, storedShape]);
      expect(data).toHaveLength(size);
      expect(bytes.buffer).toBe(file);
      expect([bytes.byteOffset, bytes.byteLength]).toEqual([dataStart + data_offsets[0], data_offsets[1] - data_offsets[0]]);
      // every value, read on its own
      const at = (i: number): number =>
        dtype === "F32"
          ? view.getFloat32(bytes.byteOffset + 4 * i, true)
          : dtype === "I32"
            ? view.getInt32(bytes.byteOffset + 4 * i, true)
            : view.getUint8(bytes.byteOffset + i);
      expect(Array.from(data as Float32Array).findIndex((value, i) => !Object.is(value, at(i)))).toBe(-1);
    }

    // through the writer and back: nothing but the order and the padding may change
    const again = parseSafetensors(writeSafetensors(weights));
    expect([...again.names].sort()).toEqual([...weights.names].sort());
    expect(again.metadata).toEqual(weights.metadata);
    for (const { name: key, dtype, shape, bytes } of weights) {
      const copy = again.get(key);
      expect([copy.dtype, copy.shape]).toEqual([dtype, shape]);
      expect(firstDifference(copy.bytes, bytes)).toBe(-1);
    }
    expect(firstDifference(writeSafetensors(again), writeSafetensors(weights))).toBe(-1);
  });

  function headerOf(file: ArrayBuffer): Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> {
    return JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, new DataView(file).getUint32(0, true))));
  }
});

/** Written by the reference implementation (safetensors 0.8.0): every dtype with a JavaScript array, awkward names, an empty tensor, a scalar, metadata. */
const REFERENCE = Uint8Array.from(
  atob(
    "0AMAAAAAAAB7Il9fbWV0YWRhdGFfXyI6eyJmb3JtYXQiOiJwdCBcIsOpXCIifSwidTY0Ijp7ImR0eXBlIjoiVTY0Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMCw4XX0sImk2NCI6eyJkdHlwZSI6Ikk2NCIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6WzgsMTZdfSwiZjY0Ijp7ImR0eXBlIjoiRjY0Iiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMTYsMjRdfSwiYS5mMzIiOnsiZHR5cGUiOiJGMzIiLCJzaGFwZSI6WzEsMV0sImRhdGFfb2Zmc2V0cyI6WzI0LDI4XX0sImIuZjMyIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsyXSwiZGF0YV9vZmZzZXRzIjpbMjgsMzZdfSwi76yAIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlswLDRdLCJkYXRhX29mZnNldHMiOlszNiwzNl19LCLwn5iAIjp7ImR0eXBlIjoiRjMyIiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbMzYsNDBdfSwidTMyIjp7ImR0eXBlIjoiVTMyIiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbNDAsNDRdfSwiZS5pMzIiOnsiZHR5cGUiOiJJMzIiLCJzaGFwZSI6W10sImRhdGFfb2Zmc2V0cyI6WzQ0LDQ4XX0sImQuYmYxNiI6eyJkdHlwZSI6IkJGMTYiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOls0OCw1MF19LCJjLmYxNiI6eyJkdHlwZSI6IkYxNiIsInNoYXBlIjpbMl0sImRhdGFfb2Zmc2V0cyI6WzUwLDU0XX0sInUxNiI6eyJkdHlwZSI6IlUxNiIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6WzU0LDU2XX0sImkxNiI6eyJkdHlwZSI6IkkxNiIsInNoYXBlIjpbMV0sImRhdGFfb2Zmc2V0cyI6WzU2LDU4XX0sImk4Ijp7ImR0eXBlIjoiSTgiLCJzaGFwZSI6WzFdLCJkYXRhX29mZnNldHMiOls1OCw1OV19LCJhLnU4Ijp7ImR0eXBlIjoiVTgiLCJzaGFwZSI6WzNdLCJkYXRhX29mZnNldHMiOls1OSw2Ml19LCJ0XCJcblx1MDAwMX8iOnsiZHR5cGUiOiJCT09MIiwic2hhcGUiOlsxXSwiZGF0YV9vZmZzZXRzIjpbNjIsNjNdfX0gICAgBwcHBwcHBwcBAQEBAQEBAQICAgICAgICAABAQAAAwD8AAADAAAAAAAQEBAT5////gD8APAEAAwMGBgVhYmMB",
  ),
  (c) => c.charCodeAt(0),
);

describe("against the reference implementation", () => {
  const tensors: Record<string, TensorSource> = {
    't"\n\u0001\u007f': { dtype: "BOOL", shape: [1], data: Uint8Array.of(1) },
    "a.u8": { shape: [3], data: new TextEncoder().encode("abc") },
    i8: { shape: [1], data: Int8Array.of(5) },
    i16: { shape: [1], data: Int16Array.of(0x606) },
    u16: { shape: [1], data: Uint16Array.of(0x303) },
    "c.f16": { dtype: "F16", shape: [2], data: Float32Array.of(1, 2 ** -24) },
    "d.bf16": { dtype: "BF16", shape: [1], data: Float32Array.of(1) },
    "e.i32": { shape: [], data: Int32Array.of(-7) },
    u32: { shape: [1], data: Uint32Array.of(0x4040404) },
    "\u{1f600}": { shape: [1], data: Float32Array.of(0) },
    "\ufb00": { shape: [0, 4], data: new Float32Array(0) },
    "b.f32": { shape: [2], data: Float32Array.of(1.5, -2) },
    "a.f32": { shape: [1, 1], data: Float32Array.of(3) },
    f64: { shape: [1], data: new Float64Array(new Uint8Array(8).fill(2).buffer) },
    i64: { shape: [1], data: BigInt64Array.of(0x101010101010101n) },
    u64: { shape: [1], data: BigUint64Array.of(0x707070707070707n) },
  };

  it("writes the same bytes", () => {
    expect(writeSafetensors(tensors, { format: 'pt "é"' })).toEqual(REFERENCE);
  });

  it("reads its file", () => {
    const weights = parseSafetensors(REFERENCE);
    expect({ ...weights.metadata }).toEqual({ format: 'pt "é"' });
    expect(weights.size).toBe(16);
    for (const [name, { shape, data, dtype }] of Object.entries(tensors)) {
      const tensor = weights.get(name);
      expect(tensor.shape).toEqual(shape);
      if (dtype === "F16" || dtype === "BF16") expect(tensor.toFloat32()).toEqual(data);
      else expect(tensor.data).toEqual(data);
    }
  });

  it("writes what its own tests expect of no tensors", () => {
    expect(writeSafetensors({})).toEqual(fileOf({}));
    expect(writeSafetensors({}, { framework: "pt" })).toEqual(fileOf('{"__metadata__":{"framework":"pt"}}'));
    expect(writeSafetensors({}, {})).toEqual(fileOf('{"__metadata__":{}}'));
  });
});

describe("reading", () => {
  const values = Float32Array.of(1, -2, 3.5);
  const plain = writeSafetensors({ a: { shape: [3], data: values } });

  it("takes an ArrayBuffer, a view into a larger one, and a Node Buffer", () => {
    const larger = concat(new Uint8Array(16), plain, new Uint8Array(16));
    for (const bytes of [plain, plain.buffer, larger.subarray(16, 16 + plain.length), Buffer.from(plain)]) {
      const { bytes: stored, dtype } = parseSafetensors(bytes).get("a");
      expect(dtype).toBe("F32");
      expect(Object.getPrototypeOf(stored)).toBe(Uint8Array.prototype);
      expect(new Uint8Array(stored)).toEqual(bytesOf(values));
      expect(parseSafetensors(bytes).get("a").toFloat32()).toEqual(values);
    }
  });

  it("takes shared memory", () => {
    const shared = new SharedArrayBuffer(plain.length);
    new Uint8Array(shared).set(plain);
    const tensor = parseSafetensors(new Uint8Array(shared)).get("a");
    expect(tensor.bytes.buffer).toBe(shared);
    expect(tensor.toFloat32()).toEqual(values);
  });

  it.each([
    ["a string", "x"],
    ["null", null],
    ["undefined", undefined],
    ["an array", [1, 2]],
    ["a Float32Array", values],
    ["a DataView", new DataView(plain.buffer)],
    ["a Response", new Response("")],
  ])("refuses %s as bytes", (_name, bytes) => {
    expect(() => parseSafetensors(bytes as unknown as ArrayBuffer)).toThrow(TypeError);
    expect(() => parseSafetensors(bytes as unknown as ArrayBuffer)).toThrow("parseSafetensors: bytes must be an ArrayBuffer or a Uint8Array, got ");
  });

  it("copies nothing that is aligned: values and file are one memory", () => {
    const file = plain.slice();
    const tensor = parseSafetensors(file).get("a");
    const floats = tensor.toFloat32();
    expect(floats.buffer).toBe(file.buffer);
    expect(tensor.data.buffer).toBe(file.buffer);
    floats[1] = 7;
    expect(parseSafetensors(file).get("a").toFloat32()[1]).toBe(7);
  });

  it.each([1, 2, 3])("copies unaligned F32, %i bytes off", (off) => {
    const file = concat(new Uint8Array(off), plain);
    const tensor = parseSafetensors(file.subarray(off)).get("a");
    expect(tensor.bytes.buffer).toBe(file.buffer);
    for (const copy of [tensor.toFloat32(), tensor.data]) {
      expect(copy).toEqual(values);
      expect(copy.buffer).not.toBe(file.buffer);
      expect(copy.byteLength).toBe(copy.buffer.byteLength);
    }
  });

  it("reads tensors that an odd header or an odd neighbour put at odd places", () => {
    const header =
      '{"o":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"h":{"dtype":"F16","shape":[2],"data_offsets":[1,5]},"l":{"dtype":"I64","shape":[1],"data_offsets":[5,13]}}';
    const data = concat(Uint8Array.of(9), bytesOf(encodeF16(Float32Array.of(0.5, -3))), bytesOf(BigInt64Array.of(-5n)));
    for (const spaces of ["", " ", "\n\t", "\r\n "]) {
      const weights = parseSafetensors(fileOf(header + spaces, data, { pad: false }));
      expect(weights.get("o").data).toEqual(Uint8Array.of(9));
      expect(weights.get("h").toFloat32()).toEqual(Float32Array.of(0.5, -3));
      expect(weights.get("l").data).toEqual(BigInt64Array.of(-5n));
    }
  });

  it("accepts any order of the header, scalars, empty tensors and unknown fields of a tensor", () => {
    const header = {
      z: { data_offsets: [4, 8], shape: [], dtype: "F32", note: { anything: [1.5, true, false, null, -1e-3] } },
      empty: { dtype: "F16", shape: [3, 0], data_offsets: [8, 8] },
      a: { dtype: "I32", shape: [1, 1, 1, 1, 1, 1], data_offsets: [0, 4] },
      first: { dtype: "F32", shape: [0], data_offsets: [0, 0] },
    };
    const weights = parseSafetensors(fileOf(header, concat(bytesOf(Int32Array.of(-1)), bytesOf(Float32Array.of(2.5)))));
    expect(weights.names).toEqual(["z", "empty", "a", "first"]);
    expect(weights.get("z").toFloat32()).toEqual(Float32Array.of(2.5));
    expect([weights.get("z").size, weights.get("empty").size, weights.get("first").size]).toEqual([1, 0, 0]);
    expect(weights.get("empty").toFloat32()).toEqual(new Float32Array(0));
    expect(weights.get("a").data).toEqual(Int32Array.of(-1));
  });

  it("accepts a header of nothing but {}", () => {
    expect([...parseSafetensors(fileOf({}))]).toEqual([]);
    expect([...parseSafetensors(fileOf("{}", new Uint8Array(0), { pad: false }))]).toEqual([]);
  });

  it("names like those of an object's own workings are names like any other", () => {
    const names = ["__proto__", "constructor", "toString", "hasOwnProperty", "length", "0", "", "é", "a/b c"];
    const tensor = '{"dtype":"U8","shape":[1],"data_offsets":';
    const json = names.map((name, i) => `${JSON.stringify(name)}:${tensor}[${i},${i + 1}]}`).join(",");
    const bytes = fileOf(`{"__metadata__":{"__proto__":"p","constructor":"c"},${json}}`, Uint8Array.from(names.keys()));
    const weights = parseSafetensors(bytes);
    expect(weights.names).toEqual(names);
    for (const [i, name] of names.entries()) expect(weights.get(name).data).toEqual(Uint8Array.of(i));
    expect(weights.has("valueOf")).toBe(false);
    expect(() => weights.get("valueOf")).toThrow(WeightsError);
    expect(Object.entries(weights.metadata)).toEqual([
      ["__proto__", "p"],
      ["constructor", "c"],
    ]);
    expect(weights.metadata["toString"]).toBeUndefined();
    expect(({} as { p?: unknown }).p).toBeUndefined();
    // and they survive the writer
    const again = parseSafetensors(writeSafetensors(weights));
    for (const name of names) expect(again.get(name).data).toEqual(weights.get(name).data);
    expect(Object.entries(again.metadata)).toEqual(Object.entries(weights.metadata));
  });

  it("reads a metadata text of megabytes", () => {
    const vocabulary = JSON.stringify(Array.from({ length: 300_000 }, (_, i) => `tok\n${i}`));
    const bytes = writeSafetensors({}, { vocabulary });
    expect(bytes.length).toBeGreaterThan(4e6);
    expect(parseSafetensors(bytes).metadata["vocabulary"]).toBe(vocabulary);
  });

  it("lets nobody change a shape", () => {
    for (const weights of [parseSafetensors(plain), Weights.from({ a: { shape: [3], data: values } })]) {
      expect(() => (weights.get("a").shape as number[]).push(1)).toThrow(TypeError);
    }
  });

  it("asks for a tensor by name, or says which there are", () => {
    const weights = parseSafetensors(plain);
    expect(weights.has("a")).toBe(true);
    expect(weights.has("b")).toBe(false);
    expect([...weights]).toEqual([weights.get("a")]);
    expect(() => weights.get("b")).toThrow('Weights.get: name must be one of the 1 tensors, got "b"; there are "a"');
    const many = Weights.from(Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`t${i}`, { shape: [], data: Float32Array.of(i) }])));
    expect(() => many.get("t20")).toThrow(
      'one of the 20 tensors, got "t20"; there are "t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", ... (see `names`)',
    );
    expect(() => Weights.from({}).get("x")).toThrow("there are no tensors at all");
  });

  it.each([
    ["F8_E4M3", 8, 8],
    ["F8_E5M2", 8, 8],
    ["F8_E8M0", 8, 8],
    ["F8_E4M3FNUZ", 8, 8],
    ["F8_E5M2FNUZ", 8, 8],
    ["F6_E2M3", 8, 6],
    ["F6_E3M2", 8, 6],
    ["F4", 8, 4],
    ["C64", 1, 8],
  ] as const)("lists %s, but refuses its values", (dtype, n, length) => {
    const tensor = parseSafetensors(fileOf({ odd: { dtype, shape: [n], data_offsets: [0, length] } }, new Uint8Array(length))).get("odd");
    expect([tensor.dtype, tensor.shape, tensor.bytes.length]).toEqual([dtype, [n], length]);
    expect(() => tensor.data).toThrow(WeightsError);
    expect(() => tensor.data).toThrow(`WeightTensor.data: tensor "odd" must have one of the dtypes BOOL, U8,`);
    expect(() => tensor.data).toThrow(`got ${dtype}; `);
    expect(() => tensor.toFloat32()).toThrow(
      `WeightTensor.toFloat32: tensor "odd" must have the dtype F32, F16 or BF16, got ${dtype}; convert the file`,
    );
  });

  it.each(["BOOL", "U8", "I8", "I16", "U16", "I32", "U32", "F64", "I64", "U64"] as const)("does not round %s to floats", (dtype) => {
    const tensor = parseSafetensors(fileOf({ n: { dtype, shape: [0], data_offsets: [0, 0] } })).get("n");
    expect(() => tensor.toFloat32()).toThrow(WeightsError);
    expect(() => tensor.toFloat32()).toThrow(`must have the dtype F32, F16 or BF16, got ${dtype}; read its values from \`data\``);
  });
});

describe("writing", () => {
  const floats = Float32Array.of(1, 1 + 2 ** -11, 1e-6, Number.NaN, Number.NEGATIVE_INFINITY, -0);

  it("rounds floats to F16 and BF16, and takes their bits as they are", () => {
    const weights = parseSafetensors(
      writeSafetensors({
        f16: { dtype: "F16", shape: [2, 3], data: floats },
        bf16: { dtype: "BF16", shape: [3, 2], data: floats },
        bits: { dtype: "F16", shape: [2], data: Uint16Array.of(0x7c01, 0xffff) },
      }),
    );
    expect(weights.get("f16").data).toEqual(encodeF16(floats));
    expect(weights.get("bf16").data).toEqual(encodeBF16(floats));
    expect(weights.get("f16").bytes).toHaveLength(12);
    expect(weights.get("bits").data).toEqual(Uint16Array.of(0x7c01, 0xffff));
    expect(weights.get("bits").toFloat32()).toEqual(Float32Array.of(Number.NaN, Number.NaN));
  });

  it("puts every tensor on a multiple of its own size", () => {
    const weights = parseSafetensors(
      writeSafetensors({
        a: { shape: [3], data: new Uint8Array(3) },
        b: { shape: [1], data: BigInt64Array.of(1n) },
        c: { shape: [1], data: floats.subarray(0, 1) },
      }),
    );
    expect(weights.names).toEqual(["b", "c", "a"]);
    for (const { data } of weights) expect(data.buffer).toBe(weights.get("a").bytes.buffer);
  });

  it("does not change what it is given, and shares nothing with it", () => {
    const data = Float32Array.of(1, 2);
    const file = writeSafetensors({ a: { shape: [2], data } });
    file.fill(0xff);
    expect(data).toEqual(Float32Array.of(1, 2));
  });

  it("writes only the viewed part of a buffer", () => {
    const data = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    expect(
      parseSafetensors(writeSafetensors({ a: { shape: [2], data } }))
        .get("a")
        .toFloat32(),
    ).toEqual(Float32Array.of(1, 2));
  });

  it("keeps the metadata of Weights unless told otherwise", () => {
    const weights = Weights.from({ a: { shape: [], data: Float32Array.of(1) } }, { step: "3" });
    expect({ ...parseSafetensors(writeSafetensors(weights)).metadata }).toEqual({ step: "3" });
    expect({ ...parseSafetensors(writeSafetensors(weights, { other: "x" })).metadata }).toEqual({ other: "x" });
    expect({ ...weights.metadata }).toEqual({ step: "3" });
  });

  it("writes dtypes it cannot read", () => {
    const file = fileOf({ odd: { dtype: "F8_E4M3", shape: [8], data_offsets: [0, 8] } }, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8));
    expect(writeSafetensors(parseSafetensors(file))).toEqual(file);
  });

  const one = (tensor: unknown): WeightsSource => ({ w: tensor }) as WeightsSource;
  const f = Float32Array.of(1, 2, 3);
  it.each<[string, WeightsSource, string]>([
    [
      "more values than the shape",
      one({ shape: [2], data: f }),
      'the data of tensor "w" must have 2 values for the shape [2], got Float32Array of length 3',
    ],
    ["fewer values than the shape", one({ shape: [2, 2], data: f }), "must have 4 values for the shape [2, 2], got Float32Array of length 3"],
    ["a scalar with three values", one({ shape: [], data: f }), "must have 1 values for the shape [], got Float32Array of length 3"],
    ["a negative size", one({ shape: [-3], data: f }), 'the shape of tensor "w" must be an array of integers >= 0, got [-3]'],
    ["a fractional size", one({ shape: [1.5, 2], data: f }), "integers >= 0, got [1.5, 2]"],
    ["a NaN size", one({ shape: [Number.NaN], data: f }), "integers >= 0, got [NaN]"],
    ["a shape that is a number", one({ shape: 3, data: f }), "integers >= 0, got 3"],
    ["no shape", one({ data: f }), "integers >= 0, got undefined"],
    ["no data", one({ shape: [3] }), 'the data of tensor "w" must be a typed array, got undefined'],
    ["an array of numbers", one({ shape: [3], data: [1, 2, 3] }), "must be a typed array, got [1, 2, 3]"],
    ["a DataView", one({ shape: [3], data: new DataView(f.buffer) }), "must be a typed array, got DataView"],
    ["clamped bytes", one({ shape: [3], data: new Uint8ClampedArray(3) }), "must be a typed array, got Uint8ClampedArray of length 3"],
    ["an unknown dtype", one({ dtype: "f32", shape: [3], data: f }), 'the dtype of tensor "w" must be one of BOOL, U8, I8,'],
    ["a dtype without an array", one({ dtype: "F8_E4M3", shape: [3], data: new Uint8Array(3) }), 'got "F8_E4M3"'],
    ["floats as I32", one({ dtype: "I32", shape: [3], data: f }), "must be a Int32Array for the dtype I32, got Float32Array of length 3"],
    [
      "bytes as F32",
      one({ dtype: "F32", shape: [3], data: new Uint8Array(3) }),
      "must be a Float32Array for the dtype F32, got Uint8Array of length 3",
    ],
    [
      "doubles as F16",
      one({ dtype: "F16", shape: [3], data: new Float64Array(3) }),
      "must be a Float32Array of values or a Uint16Array of bits for the dtype F16",
    ],
    ["a bare array", one(f), 'tensor "w" must be { dtype, shape, data }, got Float32Array of length 3; give its shape, too'],
    ["null", one(null), 'tensor "w" must be { dtype, shape, data }, got null'],
    [
      "a value beyond F16",
      one({ dtype: "F16", shape: [3], data: Float32Array.of(1, -65520, 2) }),
      'the data of tensor "w" must stay finite in F16, got -65520 at index 1; store it as BF16 or F32',
    ],
    [
      "a value beyond BF16",
      one({ dtype: "BF16", shape: [1], data: Float32Array.of(3.4e38) }),
      "must stay finite in BF16, got 3.3999999521443642e+38 at index 0; store it as F32",
    ],
    ["the format's own name", { __metadata__: { shape: [3], data: f } }, "not have the name that the format keeps for its metadata"],
    ["half a surrogate pair", { "x\ud83d": { shape: [3], data: f } }, "must have a well-formed name"],
  ])("refuses %s", (_name, tensors, fragment) => {
    expect(() => writeSafetensors(tensors)).toThrow(WeightsError);
    expect(() => writeSafetensors(tensors)).toThrow(fragment);
    expect(() => writeSafetensors(tensors)).toThrow(/^writeSafetensors: /);
    expect(() => Weights.from(tensors)).toThrow(/^Weights\.from: /);
  });

  it.each<[string, unknown, unknown, string]>([
    ["null", null, undefined, "writeSafetensors: tensors must be Weights or an object of { dtype, shape, data }, got null"],
    ["an array", [{ shape: [3], data: f }], undefined, "writeSafetensors: tensors must be"],
    ["a Map", new Map([["w", { shape: [3], data: f }]]), undefined, "writeSafetensors: tensors must be"],
    ["metadata that is text", {}, "x", 'writeSafetensors: metadata must be an object of strings, got "x"'],
    ["metadata that is null", {}, null, "writeSafetensors: metadata must be an object of strings, got null"],
    ["a number in the metadata", {}, { step: 3 }, 'writeSafetensors: metadata "step" must be a string, got 3'],
    ["half a surrogate pair in the metadata", {}, { k: "\udc00" }, 'writeSafetensors: metadata "k" must be well-formed text'],
  ])("refuses %s with a TypeError", (_name, tensors, metadata, fragment) => {
    const write = () => writeSafetensors(tensors as WeightsSource, metadata as Record<string, string>);
    expect(write).toThrow(TypeError);
    expect(write).toThrow(fragment);
  });
});

describe("round trips of anything", () => {
  const arrays = {
    F32: Float32Array,
    F64: Float64Array,
    I8: Int8Array,
    U8: Uint8Array,
    BOOL: Uint8Array,
    I16: Int16Array,
    U16: Uint16Array,
    F16: Uint16Array,
    BF16: Uint16Array,
    I32: Int32Array,
    U32: Uint32Array,
    I64: BigInt64Array,
    U64: BigUint64Array,
  } as const;
  const tensor = fc
    .record({
      dtype: fc.constantFrom(...(Object.keys(arrays) as (keyof typeof arrays)[])),
      shape: fc.array(fc.nat(4), { maxLength: 4 }),
      noise: fc.uint8Array({ minLength: 8, maxLength: 64 }),
    })
    .map(({ dtype, shape, noise }) => {
      const size = shape.reduce((a, b) => a * b, 1);
      const bytes = new Uint8Array(size * arrays[dtype].BYTES_PER_ELEMENT).map((_, i) => noise[i % noise.length]! ^ (i * 37));
      return { dtype: dtype as WeightDtype, shape, data: new (arrays[dtype] as Uint8ArrayConstructor)(bytes.buffer) as WeightArray };
    });
  const name = fc.string({ unit: "grapheme" }).filter((s) => s !== "__metadata__");
  const metadata = fc.option(fc.dictionary(fc.string({ unit: "grapheme" }), fc.string({ unit: "grapheme" })), { nil: undefined });

  it("names, dtypes, shapes, bytes and metadata come back; writing again gives the same file", () => {
    let most = 0;
    fc.assert(
      fc.property(fc.dictionary(name, tensor, { maxKeys: 12 }), metadata, fc.nat(7), (tensors, meta, off) => {
        most = Math.max(most, Object.keys(tensors).length);
        const file = writeSafetensors(tensors, meta);
        // also where the whole file lies at an odd place
        const weights = parseSafetensors(concat(new Uint8Array(off), file).subarray(off));
        expect([...weights.names].sort()).toEqual(Object.keys(tensors).sort());
        expect({ ...weights.metadata }).toEqual({ ...meta });
        for (const [key, { dtype, shape, data }] of Object.entries(tensors)) {
          const read = weights.get(key);
          expect([read.dtype, read.shape]).toEqual([dtype, shape]);
          expect(new Uint8Array(read.bytes)).toEqual(bytesOf(data));
          expect(bytesOf(read.data)).toEqual(bytesOf(data));
        }
        expect(writeSafetensors(weights, meta)).toEqual(file);
        expect(new DataView(file.buffer).getUint32(0, true) % 8).toBe(0);
      }),
      { numRuns: 300, seed: 11 },
    );
    expect(most).toBeGreaterThan(5);
  });
});
