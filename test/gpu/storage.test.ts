import { describe, expect, it } from "vitest";
import { HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { HomStream, homReference } from "../../src/reference/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { rounded, stored } from "../support/stored.ts";
import { LAYER_F16, LAYER_F32, LAYER_I4, LAYER_I8 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;

const floats = (seed: number, length: number) => Float32Array.from(normals(seed, length));

type Params = Record<string, Float32Array>;

function paramsOf(seed: number, shape: { dim: number; order: number; orderExpand: number }): Params {
  return Object.fromEntries(Object.entries(randomParams(seed, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
}

const masks: { name: string; mask: MaskSpec | undefined }[] = [
  { name: "no mask", mask: undefined },
  { name: "causal", mask: "causal" },
  { name: "full", mask: { full: Uint8Array.from({ length: 37 * 37 }, (_, i) => ((i * 7) % 3 === 0 ? 1 : 0)) } },
];

describe("stored weights", () => {
  for (const weightDtype of ["f16", "i8", "i4"] as const) {
    for (const dim of [7, 16, 36]) {
      it.each(masks)(`${weightDtype}, dim ${dim}, $name: exactly what is stored, and near the original`, async ({ mask }) => {
        const shape = { dim, order: 3, orderExpand: 2 };
        const params = paramsOf(dim, shape);
        using layer = await HomLayer.create(gpu, { ...shape, weightDtype }, params);
        const x = floats(dim + 1, 2 * 37 * dim);
        const args = { query: x, mask, batch: 2, queryLength: 37 };
        using input = Tensor.from(gpu, x, [2, 37, dim]);
        using output = layer.forward(input, { mask });
        const y = await output.read();
        const own = homReference(shape, stored(params, weightDtype, shape) as never, args);
        expectClose(y, own, { relL2: LAYER_F32, what: `${weightDtype} against its own weights`, adapter });
        const original = homReference(shape, params as never, args);
        expectClose(y, original, {
          relL2: { f16: LAYER_F16, i8: LAYER_I8, i4: LAYER_I4 }[weightDtype],
          what: `${weightDtype} against f32 weights`,
          adapter,
        });
        // The same weights in f32 would be closer than that: the storage is what is measured.
        expect(() => expectClose(y, original, { relL2: LAYER_F32, what: "" })).toThrow();
      });
    }
  }

  it("take a half, a quarter and a seventh of the memory", async () => {
    const shape = { dim: 64, order: 2, orderExpand: 2 };
    const bytes: number[] = [];
    for (const weightDtype of ["f32", "f16", "i8", "i4"] as const) {
      using layer = await HomLayer.create(gpu, { ...shape, weightDtype }, paramsOf(1, shape));
      bytes.push(layer.weightBytes);
    }
    expect(bytes[1]! / bytes[0]!).toBe(0.5);
    expect(bytes[2]! / bytes[0]!).toBeGreaterThan(0.25);
    expect(bytes[2]! / bytes[0]!).toBeLessThan(0.28);
    expect(bytes[3]! / bytes[0]!).toBeGreaterThan(4.5 / 32);
    expect(bytes[3]! / bytes[0]!).toBeLessThan(0.16);
  });

  it("serve streams, and refuse what f16 cannot hold", async () => {
    const shape = { dim: 12, order: 2, orderExpand: 1 };
    const params = paramsOf(2, shape);
    for (const weightDtype of ["f16", "i8", "i4"] as const) {
      using layer = await HomLayer.create(gpu, { ...shape, weightDtype }, params);
      const twin = new HomStream(shape, stored(params, weightDtype, shape) as never);
      using state = layer.createState();
      for (const n of [1, 5, 1, 1]) {
        const x = floats(n, n * 12);
        using tokens = Tensor.from(gpu, x, [1, n, 12]);
        using y = layer.step(state, tokens);
        expectClose(await y.read(), twin.step(x), { relL2: LAYER_F32, what: `${weightDtype} step of ${n}`, adapter });
      }
    }
    const large = { ...params, "ho_proj.weight": params["ho_proj.weight"]!.map((v, i) => (i === 5 ? 70_000 : v)) };
    await expect(HomLayer.create(gpu, { ...shape, weightDtype: "f16" }, large)).rejects.toThrow(/must be below 65520 to be stored in f16, got 70000/);
  });
});

describe("half-precision tensors", () => {
  it("round as f16 does and come back as f32", async () => {
    const values = Float32Array.of(1, -0.1, 65_504, 1e-7, Math.PI, -(2 ** -24), 0);
    using tensor = Tensor.from(gpu, values, [7], { dtype: "f16" });
    expect(tensor.buffer.size).toBe(16);
    expect(await tensor.read()).toEqual(rounded(values));
    using view = Tensor.wrap(gpu, tensor.buffer, [2], { byteOffset: 4, dtype: "f16" });
    expect(await view.read()).toEqual(rounded(values).slice(2, 4));
  });

  const shape = { dim: 20, order: 2, orderExpand: 2 };
  const params = paramsOf(3, shape);
  const x = floats(4, 3 * 40 * 20);
  const context = floats(5, 3 * 90 * 20);

  it.each([
    { query: "f16", context: "f16", dtype: "f16" },
    { query: "f16", context: "f32", dtype: "f32" },
    { query: "f32", context: "f16", dtype: "f16" },
  ] as const)("query $query, context $context, layer $dtype", async (types) => {
    using layer = await HomLayer.create(gpu, { ...shape, dtype: types.dtype }, params);
    using query = Tensor.from(gpu, x, [3, 40, 20], { dtype: types.query });
    using other = Tensor.from(gpu, context, [3, 90, 20], { dtype: types.context });
    using residual = Tensor.from(gpu, x, [3, 40, 20], { dtype: types.dtype });
    using y = layer.forward(query, { context: other, residual });
    expect(y.dtype).toBe(types.dtype);
    const half = (values: Float32Array, dtype: string) => (dtype === "f16" ? rounded(values) : values);
    const plain = homReference(shape, stored(params, types.dtype, shape) as never, {
      query: half(x, types.query),
      context: half(context, types.context),
      batch: 3,
      queryLength: 40,
      contextLength: 90,
    });
    const expected = plain.map((v, i) => v + half(x, types.dtype)[i]!);
    expectClose(await y.read(), expected, { relL2: types.dtype === "f16" ? LAYER_F16 : LAYER_F32, what: "y", adapter });
  });

  it("stream, chunk by chunk", async () => {
    using layer = await HomLayer.create(gpu, { ...shape, dtype: "f16" }, params);
    const twin = new HomStream(shape, stored(params, "f16", shape) as never);
    using state = layer.createState();
    for (const n of [1, 30, 1]) {
      const tokens = rounded(floats(n + 6, n * 20));
      using input = Tensor.from(gpu, tokens, [1, n, 20], { dtype: "f16" });
      using y = layer.step(state, input);
      expectClose(await y.read(), twin.step(tokens), { relL2: LAYER_F16, what: `step of ${n}`, adapter });
    }
  });

  it("are refused where they do not fit, and nothing else is disturbed", async () => {
    await expect(
      HomLayer.create(gpu, { dim: 6, order: 1, orderExpand: 1, dtype: "f16" }, paramsOf(1, { dim: 6, order: 1, orderExpand: 1 })),
    ).rejects.toThrow(/dim must be a multiple of 4 for dtype "f16", got 6/);
    using odd = await HomLayer.create(gpu, { dim: 6, order: 1, orderExpand: 1 }, paramsOf(1, { dim: 6, order: 1, orderExpand: 1 }));
    using six = Tensor.from(gpu, new Float32Array(12), [1, 2, 6], { dtype: "f16" });
    expect(() => odd.forward(six)).toThrow(/query must have a last axis that is a multiple of 4 when it is f16, got \[1, 2, 6\]/);
    using layer = await HomLayer.create(gpu, { ...shape, dtype: "f16" }, params);
    using big = Tensor.from(gpu, new Float32Array(64), [64], { dtype: "f16" });
    using shifted = Tensor.wrap(gpu, big.buffer, [1, 1, 20], { byteOffset: 4, dtype: "f16" });
    expect(() => layer.forward(shifted)).toThrow(/query must start at a multiple of 8 bytes when it is f16, got 4/);
    using query = Tensor.from(gpu, new Float32Array(20), [1, 1, 20]);
    expect(() => layer.forward(query, { residual: query })).toThrow(/residual must have the output's dtype "f16", got "f32"/);
    using window = layer.createState({ window: 4 });
    expect(() => layer.step(window, query)).toThrow(/tensors must be f32 for a state with a window, got f16/);
    expect(window.count).toEqual([0]);
    using y = layer.forward(query);
    expect(await y.read()).toHaveLength(20);
  });
});
