import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { vectorsOf } from "../../src/baselines/feature_weights.ts";
import { type BaselineTrainingOptions, LinearAttentionLayer } from "../../src/baselines/index.ts";
import { minimumLinearAttentionBackwardScratch } from "../../src/baselines/linear_attention_backward_plan.ts";
import { minimumLinearAttentionScratch } from "../../src/baselines/linear_attention_plan.ts";
import { type Gpu, type GpuLimits, type HomGradients, requestGpu, Tensor } from "../../src/index.ts";
import { linearAttentionBackward } from "../../src/reference/linear_attention_backward.ts";
import { FEATURE_MAPS, type FeatureMap } from "../../src/reference/random_features.ts";
import { type BaselineParams, baselineGolden, baselineGradients, baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, expectSameBits, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
beforeEach(() => watch.reset());
const gpu = await requestGpu({ device, tuning: { tile: "8x4" } });
/** Short blocks. */
const short = await requestGpu({ device, tuning: { tile: "16x8", blockTokens: 8, prefixBlockTokens: 8 } });
const adapter = gpu.info.description;

type Floats = Float32Array<ArrayBuffer>;

/** Gradients by name, read back; the tensors are destroyed. */
async function read({ query, params }: HomGradients): Promise<Record<string, Floats>> {
  const values: Record<string, Floats> = {};
  for (const [name, tensor] of Object.entries({ query, ...params })) {
    values[name] = (await tensor.read()) as Floats;
    tensor.destroy();
  }
  return values;
}

async function gradients(layer: LinearAttentionLayer, x: Floats, gradOutput: Floats, batch: number, options: BaselineTrainingOptions = {}) {
  const { gpu, config } = layer;
  using tokens = Tensor.from(gpu, x, [batch, x.length / batch / config.dim, config.dim]);
  using gradient = Tensor.from(gpu, gradOutput, tokens.shape);
  const { output, backward } = layer.forwardForTraining(tokens, options);
  output.destroy();
  watch.reset();
  return read(backward(gradient));
}

const norm = (values: ArrayLike<number>): number => Math.hypot(...Array.from(values));

/**
 * A single token gives its own value whatever its features: what they depend on has gradients of rounding alone, beside those of the values. What is added to all
 * keys changes an exponential's shares nothing, and its estimate's little: the gradients of the keys nearly cancel in that of the bias, whose rounding is that of a column
 * of the weight's.
 */
function expectGradients(actual: Record<string, Floats>, expected: Readonly<Record<string, ArrayLike<number>>>, what: string, length: number): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected)) {
    const kind = name.split(".")[1];
    if (length === 1 && /^[qk]_/.test(name))
      expect(norm(actual[name]!), `${name}, ${what}`).toBeLessThanOrEqual(LAYER_GRADIENT_F32 * norm(expected[`v_proj.${kind}`]!));
    else if (name === "k_proj.bias") {
      const column = norm(expected["k_proj.weight"]!) / Math.sqrt(values.length);
      const error = norm(actual[name]!.map((value, i) => value - values[i]!));
      expect(error, `${name}, ${what}`).toBeLessThanOrEqual(LAYER_GRADIENT_F32 * Math.max(norm(values), column));
    } else expectClose(actual[name]!, values, { relL2: LAYER_GRADIENT_F32, what: `${name}, ${what}`, adapter });
  }
}

interface Sizes {
  readonly dim: number;
  readonly heads: number;
  readonly features: number;
  readonly bias?: boolean;
}

/** A layer, and the least that its gradients need. Maclaurin features have either sign: short queries and keys keep denominators away from 0. */
async function make(on: Gpu, featureMap: FeatureMap, { bias = true, ...sizes }: Sizes, budget?: (least: number) => number, seed = 7) {
  const shape = { ...sizes, featureMap };
  const params: BaselineParams = baselineParams(seed, shape, { bias, spread: featureMap.startsWith("maclaurin") ? 0.25 : 0.6 });
  const planned = { ...shape, bias, vectors: vectorsOf(shape), levels: Math.max(1, ...(params["degrees"] ?? [])), scratchBudget: 0 };
  const least = minimumLinearAttentionBackwardScratch(planned, on.tuning);
  const layer = await LinearAttentionLayer.create(on, { ...shape, bias, ...(budget && { scratchBudget: budget(least) }) }, params);
  return { layer, shape, params, least, forward: minimumLinearAttentionScratch(planned, on.tuning) };
}

async function check(made: Awaited<ReturnType<typeof make>>, batch: number, length: number, what = ""): Promise<void> {
  const { layer, shape, params } = made;
  const [x, gradOutput] = [normals32(length, batch * length * shape.dim), normals32(length + 1, batch * length * shape.dim)];
  for (const causal of [false, true]) {
    const { query, params: ofParams } = linearAttentionBackward(shape, params, { x, gradOutput, batch, length, causal });
    const actual = await gradients(layer, x, gradOutput, batch, { causal });
    expectGradients(actual, { query, ...ofParams }, `${batch} x ${length}, causal ${causal}, tile ${layer.gpu.tuning.tile} ${what}`, length);
  }
}

const SLOW = 120_000;

describe("golden gradients", { timeout: SLOW }, async () => {
  const cases = (await goldenCases("favor", "rfa", "maclaurin")).filter(({ grads }) => grads.length > 0);
  it("of 3 cases", () => expect(cases.length).toBe(3));
  it.each(cases.flatMap((entry) => [gpu, short].map((on) => ({ name: entry.name, tile: on.tuning.tile, entry, on }))))(
    "$name, $tile",
    async ({ entry, on }) => {
      const { linear, params, args, expected: y, outputShape } = await baselineGolden(entry);
      const { gradOutput, expected } = await baselineGradients(entry);
      if (!linear) throw new Error("not a linear attention");
      using layer = await LinearAttentionLayer.create(on, linear, params);
      using x = Tensor.from(on, args.x, outputShape);
      using gradient = Tensor.from(on, gradOutput, outputShape);
      const { output, backward } = layer.forwardForTraining(x, { causal: args.causal });
      expectClose(await output.read(), y, { relL2: LAYER_F32, what: "y", adapter, shape: outputShape });
      output.destroy();
      expectGradients(await read(backward(gradient)), expected, entry.name, args.length);
    },
  );
});

describe.each(FEATURE_MAPS)("the float64 twin, %s", { timeout: SLOW }, (featureMap) => {
  it.each([
    { dim: 12, heads: 2, features: 64 },
    { dim: 10, heads: 2, features: 90, bias: false },
    // A normalised number is a sign, without a slope, and two may be so short that their direction has few digits. Few sines and cosines leave denominators near 0.
    featureMap === "rfa" ? { dim: 42, heads: 7, features: 130 } : { dim: 7, heads: 7, features: 34 },
    { dim: 36, heads: 1, features: 18 },
  ])("awkward lengths, $heads heads over width $dim", async (sizes) => {
    const made = await make(gpu, featureMap, sizes);
    for (const [batch, length] of [
      [3, 1],
      [3, 63],
      [1, 65],
      [1, 300],
    ] as const)
      await check(made, batch, length);
    made.layer.destroy();
    const other = await make(short, featureMap, sizes);
    await check(other, 2, 130);
    other.layer.destroy();
  });

  it("the smallest scratch budget, and one of some slabs", async () => {
    const sizes = { dim: 12, heads: 2, features: 24 };
    const smallest = await make(short, featureMap, sizes, (least) => least);
    await check(smallest, 2, 333, "smallest budget");
    expect(watch.dispatches.filter(({ kernel }) => kernel === "scan_gradients").length).toBeGreaterThan(2);
    const some = await make(gpu, featureMap, sizes, (least) => 3 * least);
    await check(some, 2, 700, "some slabs");
    for (const { layer } of [smallest, some]) layer.destroy();
  });
});

describe("backward", { timeout: SLOW }, () => {
  const sizes = { dim: 12, heads: 2, features: 24 };
  const [batch, length] = [3, 70];
  const [x, dy] = [normals32(1, batch * length * 12), normals32(2, batch * length * 12)];
  const row = (values: Floats, index: number) => values.slice(index * length * 12, (index + 1) * length * 12);

  it("small bindings and few workgroups", async () => {
    for (const limits of [{ maxStorageBufferBindingSize: 60_000 }, { maxComputeWorkgroupsPerDimension: 3 }] satisfies Partial<GpuLimits>[]) {
      const small = await requestGpu({ device, tuning: { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 } });
      Object.defineProperty(small, "limits", { value: { ...small.limits, ...limits } });
      const made = await make(small, "maclaurin_gaussian", sizes);
      for (const [rows, tokens] of [
        [9, 30],
        [1, 500],
      ] as const) {
        await check(made, rows, tokens, Object.keys(limits).join());
        for (const { workgroups, bindings } of watch.dispatches) {
          expect(workgroups[0]).toBeLessThanOrEqual(small.limits.maxComputeWorkgroupsPerDimension);
          expect(Math.max(...bindings)).toBeLessThanOrEqual(small.limits.maxStorageBufferBindingSize);
        }
      }
    }
  });

  it.each(FEATURE_MAPS)("%s: the same bits again, on other scratch memory, and the tokens' whatever else is in the batch", async (featureMap) => {
    const { layer } = await make(gpu, featureMap, sizes);
    for (const causal of [false, true]) {
      const first = await gradients(layer, x, dy, batch, { causal });
      poisonScratch(device, watch.live(/^hom\.scratch\./));
      const again = await gradients(layer, x, dy, batch, { causal });
      for (const [name, values] of Object.entries(first)) expectSameBits(again[name]!, values, name);
      const { query } = await gradients(layer, row(x, 1), row(dy, 1), 1, { causal });
      expectSameBits(query!, row(first["query"]!, 1), "alone");
    }
    layer.destroy();
  });

  it("causal: no token has a gradient from before it, but for its own", async () => {
    const { layer } = await make(gpu, "favor", sizes);
    const one = dy.map((value, i) => (Math.floor(i / 12) === 40 ? value : 0));
    const { query } = await gradients(layer, x, one, batch, { causal: true });
    for (let token = 0; token < batch * length; token++) {
      const isZero = query!.subarray(token * 12, (token + 1) * 12).every((value) => value === 0);
      expect(isZero, `token ${token}`).toBe(token > 40);
    }
    layer.destroy();
  });

  it.each(FEATURE_MAPS)("%s: tokens of zeros, and enormous ones whose features underflow, keep gradients finite", async (featureMap) => {
    const { layer } = await make(gpu, featureMap, { ...sizes, bias: false });
    const far = x.map((value, i) => (i < 24 ? 0 : featureMap.startsWith("maclaurin") ? value : 300 * value));
    for (const causal of [false, true]) {
      for (const [name, values] of Object.entries(await gradients(layer, far, dy, batch, { causal })))
        expect(values.every(Number.isFinite), `${name}, causal ${causal}`).toBe(true);
    }
    layer.destroy();
  });

  it("tensors anywhere in a buffer", async () => {
    const { layer, shape, params } = await make(gpu, "rfa", sizes);
    const { query, params: ofParams } = linearAttentionBackward(shape, params, { x: row(x, 0), gradOutput: row(dy, 0), batch: 1, length });
    for (const [at, to] of [
      [4, 260],
      [512, 16],
    ] as const) {
      const [input, gradient] = [borrow(gpu, [1, length, 12], at, row(x, 0)), borrow(gpu, [1, length, 12], to, row(dy, 0))];
      const { output, backward } = layer.forwardForTraining(input.tensor);
      output.destroy();
      expectGradients(await read(backward(gradient.tensor)), { query, ...ofParams }, `bytes ${at} and ${to}`, length);
      input.destroy();
      gradient.destroy();
    }
    layer.destroy();
  });

  it("refuses a budget that is too small for gradients, and a destroyed layer", async () => {
    const probe = await make(gpu, "favor", sizes);
    const { layer, least } = await make(gpu, "favor", sizes, () => probe.forward);
    using tokens = Tensor.from(gpu, x, [batch, length, 12]);
    expect(() => layer.forwardForTraining(tokens)).toThrow(
      `LinearAttentionLayer.forwardForTraining: scratchBudget must be at least ${least} bytes for these sizes, got ${probe.forward}`,
    );
    expect(() => probe.layer.forwardForTraining(tokens, { causal: 1 } as never)).toThrow(/causal must be true or false, got 1/);
    for (const made of [layer, probe.layer]) made.destroy();
    expect(() => probe.layer.forwardForTraining(tokens)).toThrow(/layer must be alive, got a destroyed layer/);
  });
});
