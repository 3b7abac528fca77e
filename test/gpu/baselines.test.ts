import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { minimumAttentionScratch } from "../../src/baselines/attention_plan.ts";
import { vectorsOf } from "../../src/baselines/feature_weights.ts";
import { AttentionLayer, LinearAttentionLayer } from "../../src/baselines/index.ts";
import { minimumLinearAttentionScratch } from "../../src/baselines/linear_attention_plan.ts";
import { type Gpu, type GpuLimits, requestGpu, Tensor } from "../../src/index.ts";
import { attention, attentionReference, projected } from "../../src/reference/attention.ts";
import { linearAttentionReference } from "../../src/reference/linear_attention.ts";
import { FEATURE_MAPS, type FeatureMap } from "../../src/reference/random_features.ts";
import { type BaselineParams, baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, expectSameBits, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
beforeEach(() => watch.reset());
/** The tile that compiles quickly everywhere. */
const gpu = await requestGpu({ device, tuning: { tile: "8x4" } });
/** Eight queries a lane in attention.wgsl, short blocks in linear attention. */
const wide = await requestGpu({ device, tuning: { tile: "16x8", blockTokens: 8, prefixBlockTokens: 8 } });
const quads = device.features.has("subgroups") ? [await requestGpu({ device, tuning: { tile: "16x8_quads" } })] : [];
const adapter = gpu.info.description;

type Kind = "softmax" | FeatureMap;
const KINDS: readonly Kind[] = ["softmax", ...FEATURE_MAPS];
type Layer = AttentionLayer | LinearAttentionLayer;

interface Sizes {
  readonly dim: number;
  readonly heads: number;
  readonly features?: number;
  readonly bias?: boolean;
}

/** A layer of either class with its float64 twin. `budget` gives the scratch budget; "least" is the smallest that the layer takes. */
async function make(on: Gpu, kind: Kind, { dim, heads, features = 64, bias = true }: Sizes, budget?: number | "least") {
  const shape = { dim, heads };
  if (kind === "softmax") {
    const params = baselineParams(7, shape, { bias });
    const scratchBudget = budget === "least" ? minimumAttentionScratch(shape) : budget;
    const layer = await AttentionLayer.create(on, { ...shape, bias, ...(scratchBudget !== undefined && { scratchBudget }) }, params);
    const twin = (x: Float32Array, batch: number, length: number, causal: boolean) => attentionReference(shape, params, { x, batch, length, causal });
    return { layer: layer as Layer, twin, params };
  }
  const linear = { ...shape, featureMap: kind, features };
  const params: BaselineParams = baselineParams(7, linear, { bias, spread: kind.startsWith("maclaurin") ? 0.25 : 0.6 });
  const planned = { ...linear, vectors: vectorsOf(linear), levels: Math.max(1, ...(params["degrees"] ?? [])), scratchBudget: 0 };
  const scratchBudget = budget === "least" ? minimumLinearAttentionScratch(planned, on.tuning) : budget;
  const layer = await LinearAttentionLayer.create(on, { ...linear, bias, ...(scratchBudget !== undefined && { scratchBudget }) }, params);
  const twin = (x: Float32Array, batch: number, length: number, causal: boolean) =>
    linearAttentionReference(linear, params, { x, batch, length, causal });
  return { layer: layer as Layer, twin, params };
}

async function solve(layer: Layer, on: Gpu, x: Float32Array<ArrayBuffer>, batch: number, length: number, causal: boolean): Promise<Float32Array> {
  const shape = [batch, length, layer.config.dim];
  using input = Tensor.from(on, x, shape);
  using out = poisoned(on, shape);
  watch.reset();
  expect(layer.forward(input, { causal, out })).toBe(out);
  const planned = layer.plan({ batch, length, causal });
  expect(watch.dispatches.map(({ kernel, workgroups }) => [kernel, ...workgroups])).toEqual(
    planned.dispatches.map(({ kernel, workgroups }) => [kernel, ...workgroups]),
  );
  expect(planned.scratchBytes).toBeLessThanOrEqual(layer.config.scratchBudget);
  return out.read();
}

/** attention.wgsl with 8 queries a lane takes lavapipe 10 s to compile. */
const SLOW_COMPILER = 120_000;

describe.each(KINDS)("%s", { timeout: SLOW_COMPILER }, (kind) => {
  it.each([
    { dim: 12, heads: 2, features: 64 },
    { dim: 10, heads: 2, features: 90, bias: false },
    { dim: 7, heads: 7, features: 34 },
    { dim: 68, heads: 1, features: 64 },
  ])("awkward lengths, $heads heads over width $dim", async (sizes) => {
    const { layer, twin } = await make(gpu, kind, sizes);
    const others = await Promise.all([wide, ...quads].map(async (on) => ({ on, layer: (await make(on, kind, sizes)).layer })));
    for (const [batch, length] of [
      [1, 1],
      [3, 1],
      [2, 63],
      [1, 65],
      [1, 500],
    ] as const) {
      const x = normals32(length, batch * length * sizes.dim);
      for (const causal of [false, true]) {
        const expected = twin(x, batch, length, causal);
        const what = `${kind}, ${batch} x ${length}, causal ${causal}`;
        const options = { relL2: LAYER_F32, what, adapter, shape: [batch, length, sizes.dim] };
        expectClose(await solve(layer, gpu, x, batch, length, causal), expected, options);
        for (const { on, layer } of others)
          expectClose(await solve(layer, on, x, batch, length, causal), expected, { ...options, what: `${what}, ${on.tuning.tile}` });
      }
    }
    layer.destroy();
    for (const { layer: other } of others) other.destroy();
  });

  it("the smallest scratch budget: many slabs, the same result", async () => {
    const sizes = { dim: 12, heads: 2, features: 24 };
    const { layer, twin } = await make(wide, kind, sizes, "least");
    const roomy = await make(wide, kind, sizes);
    const [batch, length] = [2, 333];
    const x = normals32(3, batch * length * 12);
    for (const causal of [false, true]) {
      const y = await solve(layer, wide, x, batch, length, causal);
      expectClose(y, twin(x, batch, length, causal), { relL2: LAYER_F32, what: `${kind}, causal ${causal}`, adapter });
      const few = roomy.layer.plan({ batch, length, causal });
      const many = layer.plan({ batch, length, causal });
      expect(many.dispatches.length).toBeGreaterThan(3 * few.dispatches.length);
      expect(many.scratchBytes).toBeLessThan(few.scratchBytes);
    }
    layer.destroy();
    roomy.layer.destroy();
  });

  it("small bindings and few workgroups", async () => {
    const sizes = { dim: 12, heads: 3, features: 8 };
    for (const limits of [{ maxStorageBufferBindingSize: 20_000 }, { maxComputeWorkgroupsPerDimension: 3 }] satisfies Partial<GpuLimits>[]) {
      const small = await requestGpu({ device, tuning: { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 } });
      Object.defineProperty(small, "limits", { value: { ...small.limits, ...limits } });
      const { layer, twin } = await make(small, kind, sizes);
      for (const [batch, length] of [
        [9, 30],
        [1, 500],
      ] as const) {
        const x = normals32(4, batch * length * 12);
        for (const causal of [false, true]) {
          const y = await solve(layer, small, x, batch, length, causal);
          expectClose(y, twin(x, batch, length, causal), { relL2: LAYER_F32, what: `${kind}, ${Object.keys(limits)}, causal ${causal}`, adapter });
          for (const { workgroups, bindings } of watch.dispatches) {
            expect(workgroups[0]).toBeLessThanOrEqual(small.limits.maxComputeWorkgroupsPerDimension);
            expect(Math.max(...bindings)).toBeLessThanOrEqual(small.limits.maxStorageBufferBindingSize);
          }
        }
      }
      layer.destroy();
    }
  });

  it("the same bits again, on other scratch memory, and whatever stands beside a row", async () => {
    const { layer } = await make(gpu, kind, { dim: 12, heads: 2, features: 32 });
    const length = 130;
    const x = normals32(5, 3 * length * 12);
    for (const causal of [false, true]) {
      const first = await solve(layer, gpu, x, 3, length, causal);
      poisonScratch(device, watch.live(/^hom\.scratch\./));
      expectSameBits(await solve(layer, gpu, x, 3, length, causal), first, `${kind} on other scratch memory`);
      const alone = await solve(layer, gpu, x.slice(length * 12, 2 * length * 12), 1, length, causal);
      expectSameBits(alone, first.subarray(length * 12, 2 * length * 12), `${kind} alone`);
    }
    layer.destroy();
  });

  it("tensors anywhere in a buffer", async () => {
    const { layer, twin } = await make(gpu, kind, { dim: 12, heads: 2, features: 32 });
    const x = normals32(6, 70 * 12);
    for (const [from, to] of [
      [4, 260],
      [512, 16],
      [8, 4096],
    ] as const) {
      const [input, output] = [borrow(gpu, [1, 70, 12], from, x), borrow(gpu, [1, 70, 12], to)];
      layer.forward(input.tensor, { causal: true, out: output.tensor });
      expectClose(await output.readInside(), twin(x, 1, 70, true), { relL2: LAYER_F32, what: `bytes ${from} and ${to}`, adapter });
      input.destroy();
      output.destroy();
    }
    layer.destroy();
  });

  it("a causal row does not see the future", async () => {
    const { layer } = await make(gpu, kind, { dim: 12, heads: 2, features: 32 });
    const x = normals32(8, 100 * 12);
    const other = x.map((value, i) => (i < 77 * 12 ? value : -value));
    const [y, z] = [await solve(layer, gpu, x, 1, 100, true), await solve(layer, gpu, other, 1, 100, true)];
    expectSameBits(z.subarray(0, 77 * 12), y.subarray(0, 77 * 12), kind);
    expect(z.subarray(77 * 12)).not.toEqual(y.subarray(77 * 12));
    layer.destroy();
  });
});

describe("16,384 tokens", () => {
  it.each(KINDS)("%s: scratch is bounded, and the same at 1,048,576", async (kind) => {
    const { layer } = await make(gpu, kind, { dim: 128, heads: 2, features: 128 });
    const { layer: tight } = await make(gpu, kind, { dim: 128, heads: 2, features: 128 }, 4 << 20);
    for (const causal of [false, true]) {
      const at = (of: Layer, length: number) => of.plan({ batch: 1, length, causal }).scratchBytes;
      expect(at(layer, 16_384)).toBeLessThanOrEqual(64 << 20);
      expect(at(layer, 1 << 20)).toBeLessThanOrEqual(64 << 20);
      expect(at(tight, 16_384)).toBeLessThanOrEqual(4 << 20);
      expect(at(tight, 1 << 17)).toBe(at(tight, 1 << 16));
      // A matrix of scores would have 16,384² numbers a head.
      expect(at(layer, 16_384)).toBeLessThan(16_384 ** 2);
    }
    layer.destroy();
    tight.destroy();
  });

  it.each(["favor", "rfa"] as const)("%s, run", async (kind) => {
    const { layer, twin } = await make(gpu, kind, { dim: 8, heads: 2, features: 32 });
    const x = normals32(9, 16_384 * 8);
    for (const causal of [false, true]) {
      const y = await solve(layer, gpu, x, 1, 16_384, causal);
      expectClose(y, twin(x, 1, 16_384, causal), { relL2: LAYER_F32, what: `${kind}, causal ${causal}`, adapter });
    }
    const scratch = watch.live(/^hom\.scratch\./).reduce((sum, { size }) => sum + size, 0);
    expect(scratch).toBeLessThan((2 * 64) << 20);
    layer.destroy();
  });

  it("softmax, rows of 4,096 tokens in slabs", async () => {
    const { layer, params } = await make(wide, "softmax", { dim: 8, heads: 1 }, 1 << 17);
    const [length, rows] = [4096, [0, 1, 2047, 2048, 4095]];
    const x = normals32(10, length * 8);
    const y = await solve(layer, wide, x, 1, length, true);
    for (const row of rows) {
      const seen = x.subarray(0, (row + 1) * 8);
      const expected = projected("test", { dim: 8, heads: 1 }, params, { x: seen, batch: 1, length: row + 1 }, (q, k, v) => {
        const one = attention(q.subarray(row * 8), k, v, { batch: 1, queryLength: 1, keyLength: row + 1, heads: 1, headDim: 8 });
        const all = new Float64Array(q.length);
        all.set(one, row * 8);
        return all;
      });
      expectClose(y.subarray(row * 8, row * 8 + 8), expected.subarray(row * 8), { relL2: LAYER_F32, what: `row ${row}`, adapter });
    }
    layer.destroy();
  });
});

describe("what underflows", () => {
  it("enormous tokens: finite numbers, zeros where no key has a weight", async () => {
    for (const kind of KINDS) {
      const { layer } = await make(gpu, kind, { dim: 8, heads: 2, features: 16, bias: false });
      const x = normals32(11, 20 * 8).map((value) => 300 * value);
      for (const causal of [false, true]) {
        const y = await solve(layer, gpu, x, 1, 20, causal);
        expect([...y].every(Number.isFinite), kind).toBe(true);
        if (kind === "favor" || kind === "maclaurin_gaussian")
          expect(
            [...y].every((value) => value === 0),
            kind,
          ).toBe(true);
      }
      layer.destroy();
    }
  });
});
