import { afterAll, describe, expect, it } from "vitest";
import { AttentionLayer, drawFeatures, LinearAttentionLayer } from "../../src/baselines/index.ts";
import { type Gpu, GpuLostError, requestGpu, Tensor, WeightsError } from "../../src/index.ts";
import { type BaselineParams, baselineParams } from "../support/baselines.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";

const QUICK = { tile: "8x4" } as const;
const device = await getDevice();
const gpu = await requestGpu({ device, tuning: QUICK });
const watch = instrument(device);
const otherDevice = await createDevice();
const other = await requestGpu({ device: otherDevice, tuning: QUICK });
afterAll(() => {
  watch.restore();
  other.destroy();
  otherDevice.destroy();
});

const shape = { dim: 12, heads: 2 };
const favor = { ...shape, featureMap: "favor", features: 8 } as const;
const maclaurin = { ...shape, featureMap: "maclaurin_exp", features: 8 } as const;
const params = baselineParams(1, shape);
const favorParams = baselineParams(1, favor);
const maclaurinParams = baselineParams(1, maclaurin);
const layer = await AttentionLayer.create(gpu, shape, params);
const linear = await LinearAttentionLayer.create(gpu, favor, favorParams);
const x = Tensor.from(gpu, normals32(2, 2 * 9 * 12), [2, 9, 12]);
/** Scratch memory is the device's, for all layers. */
const NOT_SCRATCH = /^(?!hom\.scratch\.)/;
const zeros = (on: Gpu, sizes: number[], dtype: "f32" | "f16" = "f32") =>
  Tensor.from(on, new Float32Array(sizes.reduce((a, b) => a * b, 1)), sizes, { dtype });
const dead = zeros(gpu, [2, 9, 12]);
dead.destroy();

describe("create refuses", () => {
  const cases: [string, unknown, RegExp][] = [
    ["no object", 3, /config must be an object, got 3/],
    ["an unknown key", { ...shape, head: 2 }, /config must have only the keys dim, heads, bias, scratchBudget, got the unknown key "head"/],
    ["a fraction", { dim: 12.5, heads: 2 }, /dim must be an integer from 1 to 65536, got 12.5/],
    ["no heads", { dim: 12, heads: 0 }, /heads must be an integer from 1 to 65536, got 0/],
    ["heads that do not divide", { dim: 12, heads: 5 }, /heads must divide the width 12, got 5/],
    ["another bias", { ...shape, bias: 1 }, /bias must be true or false, got 1/],
    ["too little scratch", { ...shape, scratchBudget: 4096 }, /scratchBudget must be at least \d+ bytes for these sizes, got 4096/],
    ["weights that nothing can bind", { dim: 65_536, heads: 1 }, /dim must give weights that the device can bind/],
  ];
  it.each(cases)("%s", async (_name, config, message) => {
    await expect(AttentionLayer.create(gpu, config as never, params)).rejects.toThrow(message);
    expect(String(message)).not.toBe("");
  });

  const linearCases: [string, unknown, RegExp][] = [
    [
      "another feature map",
      { ...favor, featureMap: "relu" },
      /featureMap must be one of "favor", "rfa", "maclaurin_exp", "maclaurin_gaussian", got "relu"/,
    ],
    ["no features", { ...favor, features: 0 }, /features must be an integer from 1 to 4096, got 0/],
    ["odd features of sines and cosines", { ...favor, featureMap: "rfa", features: 7 }, /features must be even for featureMap "rfa", got 7/],
    ["too little scratch", { ...favor, scratchBudget: 1000 }, /scratchBudget must be at least \d+ bytes/],
  ];
  it.each(linearCases)("%s", async (_name, config, message) => {
    await expect(LinearAttentionLayer.create(gpu, config as never, favorParams)).rejects.toThrow(message);
  });

  const without = (all: BaselineParams, key: string): BaselineParams => Object.fromEntries(Object.entries(all).filter(([name]) => name !== key));
  const weights: [string, BaselineParams, RegExp][] = [
    ["a missing weight", without(favorParams, "k_proj.weight"), /missing k_proj.weight$/],
    ["a missing bias", without(favorParams, "v_proj.bias"), /missing v_proj.bias; pass bias: false/],
    ["missing random vectors", without(favorParams, "omega"), /missing omega$/],
    ["another key", { ...favorParams, gate: new Float32Array(1) }, /must have only .*, got "gate"/],
    ["a wrong length", { ...favorParams, omega: new Float32Array(5) }, /params\["omega"\] must have 96 elements \(\[2, 8, 6\]\), got 5/],
    [
      "another type",
      { ...favorParams, "q_proj.bias": new Int32Array(12) },
      /params\["q_proj.bias"\] must be a Float32Array, got Int32Array of length 12/,
    ],
    ["a number that is not finite", { ...favorParams, "q_proj.bias": new Float32Array(12).fill(Number.NaN) }, /must be finite, got NaN at element 0/],
  ];
  it.each(weights)("%s", async (_name, given, message) => {
    await expect(LinearAttentionLayer.create(gpu, favor, given)).rejects.toThrow(message);
    await expect(LinearAttentionLayer.create(gpu, favor, given)).rejects.toThrow(WeightsError);
  });

  it("degrees that have no vectors", async () => {
    const degrees = Int32Array.from(maclaurinParams["degrees"] ?? [], (degree) => degree + 10);
    await expect(LinearAttentionLayer.create(gpu, maclaurin, { ...maclaurinParams, degrees })).rejects.toThrow(
      /params\["degrees"\] must be integers from 0 to \d+, got \d+ at element 0/,
    );
    const rademacher = maclaurinParams["rademacher"]?.slice(1) as Float32Array;
    await expect(LinearAttentionLayer.create(gpu, maclaurin, { ...maclaurinParams, rademacher })).rejects.toThrow(
      /params\["rademacher"\] must have \d+ elements/,
    );
  });

  it("another GPU than one of ours, and leaves no buffer behind", async () => {
    await expect(AttentionLayer.create({} as Gpu, shape, params)).rejects.toThrow(/gpu must be what requestGpu\(\) returned/);
    const before = watch.liveBuffers;
    await expect(LinearAttentionLayer.create(gpu, favor, { ...favorParams, omega: new Float32Array(5) })).rejects.toThrow();
    await expect(LinearAttentionLayer.create(gpu, { ...favor, scratchBudget: 1000 }, favorParams)).rejects.toThrow();
    expect(watch.liveBuffers).toBe(before);
  });
});

describe.each([
  { name: "AttentionLayer", of: layer },
  { name: "LinearAttentionLayer", of: linear },
])("$name refuses", ({ name, of }) => {
  const calls: [string, () => unknown, RegExp][] = [
    ["an array", () => of.forward(new Float32Array(12) as never), /forward: x must be a Tensor, got Float32Array of length 12; upload arrays/],
    ["another width", () => of.forward(zeros(gpu, [2, 9, 13])), /forward: x must have shape \[B, N, 12\], got \[2, 9, 13\]/],
    ["two axes", () => of.forward(zeros(gpu, [9, 12])), /forward: x must have shape \[B, N, 12\], got \[9, 12\]/],
    ["half precision", () => of.forward(zeros(gpu, [2, 9, 12], "f16")), /x's dtype must be one of "f32", got "f16"/],
    ["a destroyed tensor", () => of.forward(dead), /x must be alive, got a destroyed tensor/],
    ["another device's tensor", () => of.forward(zeros(other, [2, 9, 12])), /x must be on the layer's device/],
    ["an output of another shape", () => of.forward(x, { out: zeros(gpu, [2, 8, 12]) }), /out must have shape \[2, 9, 12\], got \[2, 8, 12\]/],
    ["an output in half precision", () => of.forward(x, { out: zeros(gpu, [2, 9, 12], "f16") }), /out's dtype must be one of "f32"/],
    ["the input's memory as output", () => of.forward(x, { out: x }), /out must be in a buffer of its own, got the buffer of x/],
    ["another causal", () => of.forward(x, { causal: 1 as never }), /causal must be true or false, got 1/],
    ["an unknown option", () => of.forward(x, { mask: "causal" } as never), /the unknown key "mask"/],
    ["a plan without a length", () => of.plan({ batch: 1 } as never), /plan: length must be a number, got undefined/],
    ["a plan of no rows", () => of.plan({ batch: 0, length: 4 }), /plan: batch must be an integer >= 1, got 0/],
  ];
  it.each(calls)("%s, and works on", async (_what, call, message) => {
    using before = of.forward(x, { causal: true });
    watch.reset();
    expect(call).toThrow(message);
    expect(call).toThrow(new RegExp(`^${name}\\.`));
    expect(watch.submits).toBe(0);
    using after = of.forward(x, { causal: true });
    expectSameBits(await after.read(), await before.read(), "after the refusal");
  });
});

describe("the end", () => {
  it("destroy frees the weights, once, and what was returned stays", async () => {
    const buffers = watch.live(NOT_SCRATCH).length;
    const own = await LinearAttentionLayer.create(gpu, favor, favorParams);
    expect(own.weightBytes).toBe(watch.live(/^hom\.baselines\./).reduce((sum, { size }) => sum + size, 0) - linear.weightBytes - layer.weightBytes);
    const y = own.forward(x);
    own.destroy();
    own.destroy();
    expect((await y.read()).every(Number.isFinite)).toBe(true);
    y.destroy();
    expect(watch.live(NOT_SCRATCH)).toHaveLength(buffers);
    expect(() => own.forward(x)).toThrow(/layer must be alive, got a destroyed layer/);
  });

  it("a lost device says so", async () => {
    const lost = await createDevice();
    const on = await requestGpu({ device: lost, tuning: QUICK });
    const own = await AttentionLayer.create(on, shape, params);
    const input = Tensor.from(on, new Float32Array(24), [1, 2, 12]);
    lost.destroy();
    await on.lost;
    expect(() => own.forward(input)).toThrow(GpuLostError);
    await expect(AttentionLayer.create(on, shape, params)).rejects.toThrow(GpuLostError);
  });

  it("nothing compiles after create(), and a repeated call allocates nothing but its output", async () => {
    const config = { ...favor, featureMap: "rfa" } as const;
    const own = await LinearAttentionLayer.create(gpu, config, { ...params, ...drawFeatures(config, 1) });
    const input = Tensor.from(gpu, normals32(4, 40 * 12), [1, 40, 12]);
    own.forward(input).destroy();
    own.forward(input, { causal: true }).destroy();
    watch.reset();
    own.forward(input).destroy();
    own.forward(input, { causal: true }).destroy();
    const made = watch.created
      .filter(({ method }) => /^create(Buffer|BindGroup|ShaderModule|ComputePipeline)/.test(method))
      .map(({ label }) => label);
    expect(made).toEqual(["hom.output", "hom.linear.bind_group", "hom.output", "hom.linear.bind_group"]);
    expect(watch.submits).toBe(2);
    own.destroy();
  });
});
