import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { minimumAttentionBackwardScratch } from "../../src/baselines/attention_backward_plan.ts";
import { minimumAttentionScratch } from "../../src/baselines/attention_plan.ts";
import { AttentionLayer, type BaselineTrainingOptions } from "../../src/baselines/index.ts";
import { type Gpu, type GpuLimits, type HomGradients, requestGpu, Tensor } from "../../src/index.ts";
import { attentionLayerBackward } from "../../src/reference/attention_backward.ts";
import { linear } from "../../src/reference/linear.ts";
import { baselineGolden, baselineGradients, baselineParams } from "../support/baselines.ts";
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
/** Eight queries a lane in attention.wgsl. */
const wide = await requestGpu({ device, tuning: { tile: "16x8" } });
const quads = device.features.has("subgroups") ? [await requestGpu({ device, tuning: { tile: "16x8_quads" } })] : [];
const adapter = gpu.info.description;

/** Gradients by name, read back; the tensors are destroyed. */
async function read({ query, params }: HomGradients): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries({ query, ...params })) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

type Floats = Float32Array<ArrayBuffer>;

async function gradients(layer: AttentionLayer, x: Floats, gradOutput: Floats, batch: number, options: BaselineTrainingOptions = {}) {
  const { gpu, config } = layer;
  using tokens = Tensor.from(gpu, x, [batch, x.length / batch / config.dim, config.dim]);
  using gradient = Tensor.from(gpu, gradOutput, tokens.shape);
  const { output, backward } = layer.forwardForTraining(tokens, options);
  output.destroy();
  watch.reset();
  return read(backward(gradient));
}

const norm = (values: ArrayLike<number>): number => Math.hypot(...Array.from(values));

/** What is 0 but for rounding is compared with the size of the values' gradients: the key's bias, and of a single token all that scores depend on. */
function expectGradients(
  actual: Record<string, Float32Array>,
  expected: Readonly<Record<string, ArrayLike<number>>>,
  what: string,
  length: number,
): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected)) {
    const [projection = "", kind] = name.split(".");
    if (name === "k_proj.bias" || (length === 1 && /^[qk]_/.test(projection)))
      expect(norm(actual[name]!), `${name}, ${what}`).toBeLessThanOrEqual(LAYER_GRADIENT_F32 * norm(expected[`v_proj.${kind}`]!));
    else expectClose(actual[name]!, values, { relL2: LAYER_GRADIENT_F32, what: `${name}, ${what}`, adapter });
  }
}

/** attention.wgsl with 8 queries a lane takes lavapipe 10 s to compile. */
const SLOW_COMPILER = 120_000;

describe("golden gradients", { timeout: SLOW_COMPILER }, async () => {
  const cases = (await goldenCases("mha")).filter(({ grads }) => grads.length > 0);
  it("of 1 case", () => expect(cases.length).toBe(1));
  it.each(cases.flatMap((entry) => [gpu, wide, ...quads].map((on) => ({ name: entry.name, tile: on.tuning.tile, entry, on }))))(
    "$name, $tile",
    async ({ entry, on }) => {
      const { shape, params, args, expected: y, outputShape } = await baselineGolden(entry);
      const { gradOutput, expected } = await baselineGradients(entry);
      using layer = await AttentionLayer.create(on, shape, params);
      using x = Tensor.from(on, args.x, outputShape);
      using gradient = Tensor.from(on, gradOutput, outputShape);
      const { output, backward } = layer.forwardForTraining(x);
      expectClose(await output.read(), y, { relL2: LAYER_F32, what: "y", adapter, shape: outputShape });
      output.destroy();
      expectGradients(await read(backward(gradient)), expected, entry.name, args.length);
    },
  );
});

interface Sizes {
  readonly dim: number;
  readonly heads: number;
  readonly bias?: boolean;
  readonly scratchBudget?: number;
}

async function check(on: Gpu, { scratchBudget, bias = true, ...shape }: Sizes, batch: number, length: number, what = ""): Promise<void> {
  const params = baselineParams(7, shape, { bias });
  using layer = await AttentionLayer.create(on, { ...shape, bias, ...(scratchBudget !== undefined && { scratchBudget }) }, params);
  const [x, gradOutput] = [normals32(length, batch * length * shape.dim), normals32(length + 1, batch * length * shape.dim)];
  for (const causal of [false, true]) {
    const { query, params: ofParams } = attentionLayerBackward(shape, params, { x, gradOutput, batch, length, causal });
    const actual = await gradients(layer, x, gradOutput, batch, { causal });
    expectGradients(actual, { query, ...ofParams }, `${batch} x ${length}, causal ${causal}, tile ${on.tuning.tile} ${what}`, length);
  }
}

describe("the float64 twin", { timeout: SLOW_COMPILER }, () => {
  const sizes: Sizes[] = [
    { dim: 12, heads: 2 },
    { dim: 10, heads: 2, bias: false },
    { dim: 7, heads: 7 },
    { dim: 36, heads: 1 },
    { dim: 134, heads: 2 },
  ];
  it.each(sizes)("awkward lengths, $heads heads over width $dim", async (shape) => {
    for (const [batch, length] of [
      [3, 1],
      [3, 63],
      [1, 65],
      [1, 300],
    ] as const)
      await check(gpu, shape, batch, length);
    await check(wide, shape, 2, 130);
  });

  it("the smallest scratch budget: many slabs", async () => {
    const shape = { dim: 12, heads: 2 };
    const scratchBudget = minimumAttentionBackwardScratch(shape);
    await check(gpu, { ...shape, scratchBudget }, 2, 333, "smallest budget");
    expect(watch.dispatches.filter(({ kernel }) => kernel === "attention_backward_kv").length).toBe(2 * 21);
    await check(gpu, { ...shape, scratchBudget: 3 * scratchBudget }, 2, 700, "some slabs");
  });

  it("small bindings and few workgroups", async () => {
    for (const limits of [{ maxStorageBufferBindingSize: 20_000 }, { maxComputeWorkgroupsPerDimension: 3 }] satisfies Partial<GpuLimits>[]) {
      const small = await requestGpu({ device, tuning: { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 } });
      Object.defineProperty(small, "limits", { value: { ...small.limits, ...limits } });
      for (const [batch, length] of [
        [9, 30],
        [1, 500],
      ] as const) {
        await check(small, { dim: 12, heads: 3 }, batch, length, Object.keys(limits).join());
        for (const { workgroups, bindings } of watch.dispatches) {
          expect(workgroups[0]).toBeLessThanOrEqual(small.limits.maxComputeWorkgroupsPerDimension);
          expect(Math.max(...bindings)).toBeLessThanOrEqual(small.limits.maxStorageBufferBindingSize);
        }
      }
    }
  });

  it("a row of 2,100 tokens in slabs", async () => {
    const [shape, length] = [{ dim: 4, heads: 1 }, 2100];
    const params = baselineParams(7, shape);
    using layer = await AttentionLayer.create(gpu, { ...shape, scratchBudget: 1 << 17 }, params);
    const [x, gradOutput] = [normals32(1, length * 4), normals32(2, length * 4)];
    for (const causal of [false, true]) {
      const { query } = attentionLayerBackward(shape, params, { x, gradOutput, batch: 1, length, causal });
      const actual = await gradients(layer, x, gradOutput, 1, { causal });
      expectClose(actual["query"]!, query, { relL2: LAYER_GRADIENT_F32, what: `query, causal ${causal}`, adapter });
    }
  });
});

describe("backward", { timeout: SLOW_COMPILER }, () => {
  const shape = { dim: 12, heads: 2 };
  const params = baselineParams(7, shape);
  const [batch, length] = [3, 70];
  const [x, dy] = [normals32(1, batch * length * 12), normals32(2, batch * length * 12)];
  const row = (values: Floats, index: number) => values.slice(index * length * 12, (index + 1) * length * 12);

  it("the same bits again, on other scratch memory, and the tokens' whatever else is in the batch", async () => {
    using layer = await AttentionLayer.create(gpu, shape, params);
    for (const causal of [false, true]) {
      const first = await gradients(layer, x, dy, batch, { causal });
      poisonScratch(device, watch.live(/^hom\.scratch\./));
      const again = await gradients(layer, x, dy, batch, { causal });
      for (const [name, values] of Object.entries(first)) expectSameBits(again[name]!, values, name);
      const { query } = await gradients(layer, row(x, 1), row(dy, 1), 1, { causal });
      expectSameBits(query!, row(first["query"] as Floats, 1), "alone");
    }
  });

  it("causal: no token has a gradient from before it, but for its own", async () => {
    using layer = await AttentionLayer.create(gpu, shape, params);
    const one = dy.map((value, i) => (Math.floor(i / 12) === 40 ? value : 0));
    const { query } = await gradients(layer, x, one, batch, { causal: true });
    for (let token = 0; token < batch * length; token++) {
      const isZero = query!.subarray(token * 12, (token + 1) * 12).every((value) => value === 0);
      expect(isZero, `token ${token}`).toBe(token > 40);
    }
  });

  it("scores beyond what an exponential can hold: the largest is subtracted", async () => {
    const weights = baselineParams(7, shape, { bias: false, spread: 5 });
    using layer = await AttentionLayer.create(gpu, { ...shape, bias: false }, weights);
    const [q, k] = ["q", "k"].map((name) => linear(x, weights[`${name}_proj.weight`]!, undefined, { inDim: 12, outDim: 12 })) as [
      Float64Array,
      Float64Array,
    ];
    const score = (t: number, n: number) => [0, 1, 2, 3, 4, 5].reduce((sum, d) => sum + (q[t * 12 + d]! * k[n * 12 + d]!) / Math.sqrt(6), 0);
    const largest = Math.max(...Array.from({ length: length ** 2 }, (_, i) => score(Math.floor(i / length), i % length)));
    expect(largest).toBeGreaterThan(Math.log(3.4e38));
    for (const causal of [false, true]) {
      const { query, params: ofParams } = attentionLayerBackward(shape, weights, { x, gradOutput: dy, batch, length, causal });
      expectGradients(await gradients(layer, x, dy, batch, { causal }), { query, ...ofParams }, `causal ${causal}`, length);
      const far = x.map((value) => 300 * value);
      for (const [name, values] of Object.entries(await gradients(layer, far, dy, batch, { causal })))
        expect(values.every(Number.isFinite), name).toBe(true);
    }
  });

  it("tensors anywhere in a buffer", async () => {
    using layer = await AttentionLayer.create(gpu, shape, params);
    const { query, params: ofParams } = attentionLayerBackward(shape, params, { x: row(x, 0), gradOutput: row(dy, 0), batch: 1, length });
    for (const [from, to] of [
      [4, 260],
      [512, 16],
    ] as const) {
      const [input, gradient] = [borrow(gpu, [1, length, 12], from, row(x, 0)), borrow(gpu, [1, length, 12], to, row(dy, 0))];
      const { output, backward } = layer.forwardForTraining(input.tensor);
      output.destroy();
      expectGradients(await read(backward(gradient.tensor)), { query, ...ofParams }, `bytes ${from} and ${to}`, length);
      input.destroy();
      gradient.destroy();
    }
  });

  it("forward's output, and gradients as often as they are asked for, in one submit each", async () => {
    using layer = await AttentionLayer.create(gpu, shape, params);
    using tokens = Tensor.from(gpu, x, [batch, length, 12]);
    using gradient = Tensor.from(gpu, dy, tokens.shape);
    const { output, backward } = layer.forwardForTraining(tokens, { causal: true });
    using plain = layer.forward(tokens, { causal: true });
    expectSameBits(await output.read(), await plain.read(), "output");
    output.destroy();
    watch.reset();
    const made = backward(gradient);
    expect({ submits: watch.submits, passes: watch.passes }).toEqual({ submits: 1, passes: 1 });
    expect(Object.fromEntries(Object.entries(made.params).map(([name, { shape: of }]) => [name, of.join()]))).toEqual(
      Object.fromEntries(
        ["q", "k", "v", "out"].flatMap((name) => [
          [`${name}_proj.weight`, "12,12"],
          [`${name}_proj.bias`, "12"],
        ]),
      ),
    );
    const first = await read(made);
    const again = await read(backward(gradient));
    for (const [name, values] of Object.entries(first)) expectSameBits(again[name]!, values, `${name} once more`);
  });

  it("refuses what it cannot do", async () => {
    const layer = await AttentionLayer.create(gpu, shape, params);
    using small = await AttentionLayer.create(gpu, { ...shape, scratchBudget: minimumAttentionScratch(shape) }, params);
    using tokens = Tensor.from(gpu, x, [batch, length, 12]);
    using short = Tensor.from(gpu, row(dy, 0), [1, length, 12]);
    const least = minimumAttentionBackwardScratch(shape);
    expect(() => small.forwardForTraining(tokens)).toThrow(
      `AttentionLayer.forwardForTraining: scratchBudget must be at least ${least} bytes for these sizes, got ${minimumAttentionScratch(shape)}`,
    );
    expect(() => layer.forwardForTraining(tokens, { out: tokens } as never)).toThrow(/AttentionLayer.forwardForTraining: options .*out/);
    expect(() => layer.forwardForTraining(tokens, { causal: 1 } as never)).toThrow(/causal must be true or false, got 1/);
    const { output, backward } = layer.forwardForTraining(tokens);
    expect(() => backward(short)).toThrow("AttentionLayer.forwardForTraining's backward: gradOutput must have shape [3, 70, 12], got [1, 70, 12]");
    output.destroy();
    layer.destroy();
    expect(() => layer.forwardForTraining(tokens)).toThrow(/layer must be alive, got a destroyed layer/);
    expect(() => backward(tokens)).toThrow(/layer must be alive, got a destroyed layer/);
  });
});
