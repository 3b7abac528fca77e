import { afterAll, describe, expect, it } from "vitest";
import {
  type GpuLimits,
  GpuLostError,
  GpuOutOfMemoryError,
  type HomConfig,
  type HomGradients,
  HomLayer,
  type HomTrainingOptions,
  type MaskSpec,
  requestGpu,
  Tensor,
} from "../../src/index.ts";
import type { BackwardCall } from "../../src/layers/backward_planner.ts";
import { planHomBackward, planHomTranspose, transposedWeights } from "../../src/layers/hom_backward_plan.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { packLinear } from "../../src/layers/params.ts";
import { type HomBackwardArguments, homBackward } from "../../src/reference/hom_backward.ts";
import { unpackLinear } from "../../src/reference/unpack_linear.ts";
import { expectClose } from "../support/compare.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { expectSameBits, layerParams, normals32 } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { packProjections } from "../support/packed.ts";
import { type BufferStart, runSteps } from "../support/steps.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const SMALL = { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 } as const;
const small = await requestGpu({ device, tuning: SMALL });
const large = await requestGpu({ device, tuning: { tile: "16x8", blockTokens: 64, prefixBlockTokens: 32 } });

/** Gradients by name, read back; the tensors are destroyed. */
async function read({ query, context, params }: HomGradients): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries({ query, ...(context && { context }), ...params })) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

/** Gradients of one call on arrays. */
async function gradients(
  layer: HomLayer,
  shape: readonly [number, number],
  arrays: { query: Float32Array; gradOutput: Float32Array; context?: Float32Array; contextLength?: number },
  options: { mask?: MaskSpec | undefined; queryMask?: Uint8Array | undefined } = {},
): Promise<Record<string, Float32Array>> {
  const { gpu, config } = layer;
  const [batch, queries] = shape;
  using query = Tensor.from(gpu, arrays.query, [batch, queries, config.dim]);
  using gradOutput = Tensor.from(gpu, arrays.gradOutput, query.shape);
  using context = arrays.context && Tensor.from(gpu, arrays.context, [batch, arrays.contextLength ?? queries, config.dim]);
  const { output, backward } = layer.forwardForTraining(query, { context, ...options });
  output.destroy();
  return read(backward(gradOutput));
}

function expectGradients(
  actual: Record<string, Float32Array>,
  config: HomConfig,
  params: Record<string, Float32Array>,
  args: Omit<HomBackwardArguments, "mask"> & { mask?: MaskSpec | undefined },
  what: string,
): void {
  const { query, context, params: ofParams } = homBackward(config, params as never, args as HomBackwardArguments);
  const expected: Record<string, Float64Array> = { query, ...(context && { context }), ...ofParams };
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected)) {
    expectClose(actual[name]!, values, { relL2: LAYER_GRADIENT_F32, what: `${name}, ${what}`, adapter });
  }
}

describe("a token's gradient has the same bits in any batch", () => {
  const positive = (seed: number, size: number) => Array.from(normals32(seed + 77, size), Math.abs);
  const cases = [
    { name: "none", mask: () => undefined },
    { name: "causal", mask: () => "causal" as const },
    { name: "blockCausal 4", mask: () => ({ blockCausal: 4 }) },
    { name: "blockCausal 100", mask: () => ({ blockCausal: 100 }) },
    { name: "padding", mask: (rows: number[], n: number) => ({ padding: Float32Array.from(rows.flatMap((b) => positive(b, n))) }) },
    { name: "lengths", mask: (rows: number[], n: number) => ({ lengths: Uint32Array.from(rows, (b) => Math.max(0, n - 61 * b)) }) },
    { name: "full", mask: (rows: number[], n: number) => ({ full: Float32Array.from(rows.flatMap((b) => positive(b, n * n))) }) },
  ] satisfies { name: string; mask: (rows: number[], n: number) => MaskSpec | undefined }[];
  const shape = { dim: 5, order: 2, orderExpand: 1 };
  const tunings = [
    { form: "8x4", on: small },
    { form: "16x8", on: large },
  ];
  it.each(cases.flatMap((c) => [1, 2.5, 40].flatMap((budget) => tunings.map((t) => ({ ...c, ...t, budget })))))(
    "$name, budget x$budget, $form",
    async ({ name, mask, budget, on }) => {
      const [batch, n] = [4, name === "full" ? 40 : 130];
      const scratchBudget = Math.ceil(minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, on.tuning) * budget);
      using layer = await HomLayer.create(on, { ...shape, scratchBudget }, layerParams(6, shape));
      const size = n * shape.dim;
      const [query, context, gradOutput] = [7, 8, 9].map((seed) => normals32(seed, batch * size)) as [Float32Array, Float32Array, Float32Array];
      const rows = Array.from({ length: batch }, (_, b) => b);
      for (const self of [true, false]) {
        const arrays = { query, gradOutput, ...(!self && { context }) };
        const all = await gradients(layer, [batch, n], arrays, { mask: mask(rows, n) });
        const again = await gradients(layer, [batch, n], arrays, { mask: mask(rows, n) });
        for (const key of Object.keys(all)) expectSameBits(again[key]!, all[key]!, `${key} of the same call again`);
        for (const b of [0, batch - 1]) {
          const part = (array: Float32Array) => array.slice(b * size, (b + 1) * size);
          const one = { query: part(query), gradOutput: part(gradOutput), ...(!self && { context: part(context) }) };
          const alone = await gradients(layer, [1, n], one, { mask: mask([b], n) });
          for (const key of self ? ["query"] : ["query", "context"]) expectSameBits(alone[key]!, part(all[key]!), `${key} of row ${b} alone`);
        }
      }
    },
  );
});

describe("who sees nothing, and who is not seen", () => {
  const shape = { dim: 5, order: 3, orderExpand: 2 };
  const [batch, queries, tokens] = [3, 9, 70];
  const half = Uint8Array.from({ length: batch * tokens }, (_, i) => (i < tokens ? 1 : 0));
  const ends = Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens < 60 ? 1 : 0));
  const oneRow = Uint8Array.from({ length: queries * tokens }, (_, i) => (i < tokens - 7 ? 1 : 0));
  const firstQuery = Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens === 20 ? 1 : 0));
  type Row = (b: number, i: number) => boolean;
  const [every, none]: Row[] = [() => true, () => false];
  const cases: { name: string; options: { mask: MaskSpec; queryMask?: Uint8Array }; blind: Row; unseen: Row }[] = [
    { name: "padding of zeros", options: { mask: { padding: new Uint8Array(batch * tokens) } }, blind: every!, unseen: every! },
    { name: "padding of zeros in two rows", options: { mask: { padding: half } }, blind: (b) => b > 0, unseen: (b) => b > 0 },
    { name: "padding at the end", options: { mask: { padding: ends } }, blind: none!, unseen: (_, n) => n >= 60 },
    {
      name: "lengths",
      options: { mask: { lengths: Uint32Array.of(tokens, 0, 1) } },
      blind: (b) => b === 1,
      unseen: (b, n) => b > 0 && (b === 1 || n > 0),
    },
    { name: "a full mask, mostly of zeros", options: { mask: { full: oneRow } }, blind: (_, t) => t > 0, unseen: (_, n) => n >= tokens - 7 },
    { name: "a queryMask", options: { mask: "causal", queryMask: firstQuery }, blind: (_, t) => t !== 20, unseen: (_, n) => n > 20 },
  ];
  it.each(cases.flatMap((c) => [true, false].map((bias) => ({ ...c, bias }))))(
    "$name (bias $bias)",
    async ({ name, options, blind, unseen, bias }) => {
      const params = layerParams(1, shape, bias);
      using layer = await HomLayer.create(small, { ...shape, bias }, params);
      const T = options.mask === "causal" ? tokens : queries;
      const [query, context, gradOutput] = [normals32(2, batch * T * 5), normals32(3, batch * tokens * 5), normals32(4, batch * T * 5)];
      const arrays = { query, context, gradOutput };
      const actual = await gradients(layer, [batch, T], { ...arrays, contextLength: tokens }, options);
      for (const [key, length, zero] of [
        ["query", T, blind],
        ["context", tokens, unseen],
      ] as const) {
        for (let row = 0; row < batch * length; row++) {
          const values = actual[key]!.subarray(row * 5, (row + 1) * 5);
          const isZero = zero(Math.floor(row / length), row % length);
          expect(
            values.every((value) => value === 0),
            `${key} ${row}`,
          ).toBe(isZero);
        }
      }
      expectGradients(actual, shape, params, { ...arrays, ...options, batch, queryLength: T, contextLength: tokens }, name);
    },
  );
});

describe("one token, one query", () => {
  it.each([1, 3, 4, 33])("D %d, every mask", async (dim) => {
    const shape = { dim, order: 2, orderExpand: 1 };
    const params = layerParams(dim, shape);
    using layer = await HomLayer.create(gpu, shape, params);
    const arrays = { query: normals32(1, dim), gradOutput: normals32(2, dim) };
    const masks: (MaskSpec | undefined)[] = [
      undefined,
      "causal",
      { blockCausal: 7 },
      { blockCausal: 8 },
      { padding: Float32Array.of(0.5) },
      { lengths: Uint32Array.of(1) },
      { full: Uint8Array.of(1) },
      { cuSeqlens: Uint32Array.of(0, 0, 1, 1) },
    ];
    for (const mask of masks) {
      const actual = await gradients(layer, [1, 1], arrays, { mask });
      expectGradients(actual, shape, params, { ...arrays, mask, batch: 1, queryLength: 1 }, JSON.stringify(mask));
    }
  });
});

describe("packed sequences", () => {
  const shape = { dim: 12, order: 2, orderExpand: 1 };
  const tokens = 130;
  const params = layerParams(4, shape);
  const arrays = { query: normals32(5, tokens * shape.dim), gradOutput: normals32(6, tokens * shape.dim) };
  const singles = Array.from({ length: tokens + 1 }, (_, s) => s);
  it.each([
    ["one segment", [0, tokens]],
    ["three empty segments at the start", [0, 0, 0, 0, tokens]],
    ["empty segments in the middle", [0, 64, 64, 64, 65, 65, tokens]],
    ["three empty segments at the end", [0, tokens, tokens, tokens, tokens]],
    ["empty segments everywhere", [0, 0, 1, 1, 9, 9, 9, 128, 128, tokens, tokens]],
    ["every token alone", singles],
    ["every token alone, an empty segment after each", [0, ...singles.flatMap((s) => [s, s])].slice(0, -1)],
  ])("%s", async (what, cu) => {
    const cuSeqlens = Uint32Array.from(cu);
    for (const scratchBudget of [minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, small.tuning), 1 << 20]) {
      using layer = await HomLayer.create(small, { ...shape, scratchBudget }, params);
      const actual = await gradients(layer, [1, tokens], arrays, { mask: { cuSeqlens } });
      expectGradients(actual, shape, params, { ...arrays, mask: { cuSeqlens }, batch: 1, queryLength: tokens }, `${what}, budget ${scratchBudget}`);
    }
  });
});

describe("small bindings", async () => {
  /** A Gpu that believes its device to be smaller than it is: long inputs are not needed to reach a limit. */
  const limits: Partial<GpuLimits> = { maxStorageBufferBindingSize: 256 + 2496, maxComputeWorkgroupsPerDimension: 5 };
  const narrow = await requestGpu({ device, tuning: SMALL });
  Object.defineProperty(narrow, "limits", { value: { ...narrow.limits, ...limits } });
  const shape = { dim: 12, order: 2, orderExpand: 1 };
  const params = layerParams(1, shape);
  const uneven = (size: number) => Float32Array.from(normals32(3, size), (value) => (Math.abs(value) < 0.3 ? 0 : Math.abs(value)));
  it.each<[string, number, number, number, MaskSpec | undefined]>([
    ["one long row", 1, 3, 300, undefined],
    ["many queries", 3, 130, 7, undefined],
    ["many short rows", 40, 2, 5, undefined],
    ["padding", 2, 2, 130, { padding: uneven(260) }],
    ["lengths", 3, 5, 130, { lengths: Uint32Array.of(130, 0, 65) }],
    ["causal, a long row", 2, 130, 130, "causal"],
    ["causal, short rows", 33, 7, 7, "causal"],
    ["blockCausal 5", 2, 65, 65, { blockCausal: 5 }],
    ["blockCausal 100", 2, 130, 130, { blockCausal: 100 }],
    ["full", 2, 33, 70, { full: uneven(2 * 33 * 70) }],
    ["cuSeqlens", 1, 200, 200, { cuSeqlens: Uint32Array.of(0, 1, 1, 10, 30, 150, 160, 200, 200) }],
  ])("%s", async (what, batch, queries, tokens, mask) => {
    using layer = await HomLayer.create(narrow, shape, params);
    const query = normals32(4, batch * queries * shape.dim);
    const context = queries === tokens ? undefined : normals32(5, batch * tokens * shape.dim);
    const arrays = { query, gradOutput: normals32(6, query.length), ...(context && { context }) };
    watch.reset();
    const actual = await gradients(layer, [batch, queries], { ...arrays, contextLength: tokens }, { mask });
    const bound = Math.max(...watch.dispatches.flatMap(({ bindings }) => bindings));
    expect(bound).toBeLessThanOrEqual(limits.maxStorageBufferBindingSize!);
    expectGradients(actual, shape, params, { ...arrays, mask, batch, queryLength: queries, contextLength: tokens }, what);
  });
});

describe("16,384 tokens", () => {
  const SCRATCH = /^hom\.scratch\./;
  const shape = { dim: 8, order: 2, orderExpand: 1 };
  const tokens = 16_384;
  const params = layerParams(2, shape);
  const arrays = { query: normals32(3, tokens * shape.dim), gradOutput: normals32(4, tokens * shape.dim) };
  const budgets = [minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, gpu.tuning) * 8, 64 << 20];
  it.each(budgets.flatMap((scratchBudget) => [undefined, "causal" as const, { blockCausal: 100 }].map((mask) => ({ scratchBudget, mask }))))(
    "mask $mask within $scratchBudget bytes",
    async ({ scratchBudget, mask }) => {
      const others = new Set(watch.live(SCRATCH));
      using own = await requestGpu({ device });
      using layer = await HomLayer.create(own, { ...shape, scratchBudget }, params);
      const actual = await gradients(layer, [1, tokens], arrays, { mask });
      expectGradients(actual, shape, params, { ...arrays, mask, batch: 1, queryLength: tokens }, "of a long row");
      // Scratch is kept in powers of two, a buffer a role.
      const scratch = watch.live(SCRATCH).filter((each) => !others.has(each));
      expect(scratch.length).toBeGreaterThan(3);
      expect(scratch.reduce((sum, { size }) => sum + size, 0)).toBeLessThanOrEqual(2 * scratchBudget + 256 * scratch.length);
    },
  );
});

describe("forwardForTraining", () => {
  const shape = { dim: 6, order: 2, orderExpand: 2 };
  const [batch, queries, tokens] = [2, 7, 9];
  const params = layerParams(5, shape);
  const xq = normals32(1, batch * queries * shape.dim);
  const xc = normals32(2, batch * tokens * shape.dim);
  const dy = normals32(3, xq.length);
  const query = Tensor.from(gpu, xq, [batch, queries, shape.dim]);
  const context = Tensor.from(gpu, xc, [batch, tokens, shape.dim]);
  const gradOutput = Tensor.from(gpu, dy, query.shape);

  it("gives the output of forward, and gradients any number of times", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    using y = layer.forward(query, { context });
    const { output, backward } = layer.forwardForTraining(query, { context });
    expectSameBits(await output.read(), await y.read(), "output");
    const first = await read(backward(gradOutput));
    using half = Tensor.from(
      gpu,
      dy.map((value) => value / 2),
      query.shape,
    );
    const second = await read(backward(half));
    const third = await read(backward(gradOutput));
    const args = { query: xq, context: xc, gradOutput: dy, batch, queryLength: queries, contextLength: tokens };
    expectGradients(first, shape, params, args, "first");
    for (const [key, values] of Object.entries(first)) {
      expectSameBits(third[key]!, values, `${key} once more`);
      // A power of two changes no rounding.
      expectSameBits(
        second[key]!.map((value) => 2 * value),
        values,
        `${key} of half the gradient`,
      );
    }
    output.destroy();
  });

  it("gives the query and an equal context gradients of their own, and without a context both to the query", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    const both = layer.forwardForTraining(query, { context: query });
    const self = layer.forwardForTraining(query);
    const apart = await read(both.backward(gradOutput));
    const together = await read(self.backward(gradOutput));
    expect(Object.keys(together)).not.toContain("context");
    const sum = apart["query"]!.map((value, i) => value + apart["context"]![i]!);
    expectClose(together["query"]!, sum, { relL2: LAYER_F32, what: "sum", adapter });
    for (const { output } of [both, self]) output.destroy();
  });

  it("keeps the mask as it was at the call, and one of createMask as long as that lives", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    const padding = Float32Array.from({ length: batch * tokens }, (_, i) => (i % 3) / 2);
    const args = { query: xq, context: xc, gradOutput: dy, batch, queryLength: queries, contextLength: tokens, mask: { padding: padding.slice() } };
    const mask = layer.createMask({ padding }, { batch, queryLength: queries, contextLength: tokens });
    const prepared = layer.forwardForTraining(query, { context, mask });
    const { output, backward } = layer.forwardForTraining(query, { context, mask: { padding } });
    padding.fill(0);
    expectGradients(await read(backward(gradOutput)), shape, params, args, "a changed array");
    expectGradients(await read(prepared.backward(gradOutput)), shape, params, args, "a mask of createMask");
    mask.destroy();
    expect(() => prepared.backward(gradOutput)).toThrow(/^HomLayer.forwardForTraining's backward: mask must be alive, got a destroyed mask$/);
    for (const tensor of [output, prepared.output]) tensor.destroy();
  });

  it("frees everything but the gradients, and what is left does not grow", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    const masks: HomTrainingOptions[] = [
      { context, mask: { padding: new Uint8Array(batch * tokens).fill(1) } },
      { context, mask: { full: new Uint8Array(queries * tokens).fill(1) } },
      { mask: "causal", queryMask: new Uint8Array(batch * queries).fill(1) },
    ];
    const packed = Tensor.from(gpu, xq, [1, batch * queries, shape.dim]);
    const packedGradient = Tensor.from(gpu, dy, packed.shape);
    const steps = async () => {
      for (const options of masks) {
        const { output, backward } = layer.forwardForTraining(query, options);
        output.destroy();
        await read(backward(gradOutput));
      }
      const { output, backward } = layer.forwardForTraining(packed, { mask: { cuSeqlens: Uint32Array.of(0, 3, batch * queries) } });
      output.destroy();
      await read(backward(packedGradient));
    };
    await steps();
    const before = watch.live(/./).map(({ label }) => label);
    for (let i = 0; i < 3; i++) await steps();
    expect(watch.live(/./).map(({ label }) => label)).toEqual(before);
    expect(watch.live(/hom\.(gradient|gradProjections|gradAg|projectionsBack|agBack|mask)/)).toEqual([]);
    for (const tensor of [packed, packedGradient]) tensor.destroy();
  });

  it("submits once", async () => {
    using layer = await HomLayer.create(gpu, shape, params);
    const { output, backward } = layer.forwardForTraining(query, { mask: "causal" });
    watch.reset();
    const made = backward(gradOutput);
    expect({ submits: watch.submits, passes: watch.passes }).toEqual({ submits: 1, passes: 1 });
    await read(made);
    output.destroy();
  });

  describe("refuses", async () => {
    const layer = await HomLayer.create(gpu, shape, params);
    const wide = { dim: 8, order: 1, orderExpand: 1 };
    const halfLayer = await HomLayer.create(gpu, { ...wide, dtype: "f16" }, layerParams(1, wide));
    const bytesLayer = await HomLayer.create(gpu, { ...wide, weightDtype: "i8" }, layerParams(1, wide));
    const plain = await HomLayer.create(gpu, wide, layerParams(1, wide));
    const x8 = Tensor.from(gpu, new Float32Array(16), [1, 2, 8]);
    const half8 = Tensor.from(gpu, new Float32Array(16), [1, 2, 8], { dtype: "f16" });
    const short = Tensor.from(gpu, new Float32Array(shape.dim), [1, 1, shape.dim]);
    const { output, backward } = layer.forwardForTraining(query);
    const of8 = plain.forwardForTraining(x8);
    afterAll(() => {
      for (const each of [layer, halfLayer, bytesLayer, plain, x8, half8, short, output, of8.output]) each.destroy();
    });
    const where = "HomLayer.forwardForTraining";
    const name = `${where}'s backward`;
    // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
    const any = (value: unknown): any => value;
    it.each<[string, () => unknown, typeof TypeError | typeof RangeError, string]>([
      [
        "an unknown option",
        () => layer.forwardForTraining(query, any({ residual: query })),
        TypeError,
        `${where}: options must have only the keys context, mask, queryMask, got the unknown key "residual"`,
      ],
      [
        "an array",
        () => layer.forwardForTraining(any(xq)),
        TypeError,
        `${where}: query must be a Tensor, got Float32Array of length 84; upload arrays with Tensor.from`,
      ],
      ["another width", () => layer.forwardForTraining(x8), RangeError, `${where}: query must have shape [B, T, 6], got [1, 2, 8]`],
      [
        "an f16 layer",
        () => halfLayer.forwardForTraining(x8),
        TypeError,
        `${where}: layer must have weights and output in f32, got dtype "f16" and weightDtype "f16"; create it with dtype "f32"`,
      ],
      [
        "weights in bytes",
        () => bytesLayer.forwardForTraining(x8),
        TypeError,
        `${where}: layer must have weights and output in f32, got dtype "f32" and weightDtype "i8"; create it with dtype "f32"`,
      ],
      ["an f16 query", () => plain.forwardForTraining(half8), TypeError, `${where}: query's dtype must be one of "f32", got "f16"`],
      [
        "an f16 context",
        () => plain.forwardForTraining(x8, { context: half8 }),
        TypeError,
        `${where}: context's dtype must be one of "f32", got "f16"`,
      ],
      [
        "a gradient that is an array",
        () => backward(any(dy)),
        TypeError,
        `${name}: gradOutput must be a Tensor, got Float32Array of length 84; upload arrays with Tensor.from`,
      ],
      ["a gradient of another shape", () => backward(short), RangeError, `${name}: gradOutput must have shape [2, 7, 6], got [1, 1, 6]`],
      ["an f16 gradient", () => of8.backward(half8), TypeError, `${name}: gradOutput's dtype must be one of "f32", got "f16"`],
    ])("%s", async (_, call, type, message) => {
      const before = watch.liveBytes;
      expect(call).toThrow(type);
      expect(call).toThrow(message);
      expect(watch.liveBytes).toBe(before);
    });

    it("tensors and layers that were destroyed since", async () => {
      const own = await HomLayer.create(gpu, shape, params);
      const x = Tensor.from(gpu, xq, query.shape);
      const c = Tensor.from(gpu, xc, context.shape);
      const pass = own.forwardForTraining(x, { context: c });
      c.destroy();
      expect(() => pass.backward(gradOutput)).toThrow(`${name}: context must be alive, got a destroyed tensor`);
      x.destroy();
      expect(() => pass.backward(gradOutput)).toThrow(`${name}: query must be alive, got a destroyed tensor`);
      own.destroy();
      expect(() => pass.backward(gradOutput)).toThrow(`${name}: layer must be alive, got a destroyed layer`);
      pass.output.destroy();
    });

    it("a lost device", async () => {
      const lost = await createDevice();
      const on = await requestGpu({ device: lost });
      const own = await HomLayer.create(on, shape, params);
      const x = Tensor.from(on, xq, query.shape);
      const { backward: late } = own.forwardForTraining(x);
      const made = late(x);
      lost.destroy();
      await on.lost;
      expect(() => late(x)).toThrow(GpuLostError);
      await expect(made.query.read()).rejects.toThrow(GpuLostError);
    });
  });

  it("a lack of memory is told by every gradient, and the next call works", async () => {
    using own = await requestGpu({ device });
    using layer = await HomLayer.create(own, shape, params);
    using x = Tensor.from(own, xq, query.shape);
    using g = Tensor.from(own, dy, query.shape);
    const { output, backward } = layer.forwardForTraining(x);
    const original = own.createBuffer;
    // An allocation that the device cannot make, in the place of one of the call's own.
    own.createBuffer = (label, size, usage, mapped) => original.call(own, label, label === "hom.gradProjections" ? 2 ** 40 : size, usage, mapped);
    const failed = backward(g);
    own.createBuffer = original;
    for (const tensor of [failed.query, ...Object.values(failed.params)]) {
      const error = await tensor.read().then(
        () => undefined,
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(Error);
      if (!(error instanceof GpuOutOfMemoryError)) expect((error as Error).message).toMatch(/refused the work/);
      tensor.destroy();
    }
    const args = { query: xq, gradOutput: dy, batch, queryLength: queries };
    expectGradients(await read(backward(g)), shape, params, args, "after a failed call");
    output.destroy();
  });
});

describe("the planned steps on memory full of NaN, at any offset", () => {
  const shape = { dim: 5, order: 2, orderExpand: 2 };
  const params = layerParams(7, shape);
  const moment = { count: 2, width: 10 };
  const model = { count: 1, width: 5 };
  const projections = packProjections(params, shape);
  const ag = packLinear([{ weight: params["ag_proj.weight"]!, bias: params["ag_proj.bias"], outer: model }], moment);
  const [batch, tokens] = [2, 33];
  const size = batch * tokens * shape.dim;
  const [xq, xc, dy, plus] = [1, 2, 3, 4].map((seed) => normals32(seed, size)) as [Float32Array, Float32Array, Float32Array, Float32Array];
  const config = { ...shape, activation: "gelu" } as const;
  const least = minimumScratch({ ...config, scratchBudget: 1 }, small.tuning);

  it.each(
    [1, 100].flatMap((budget) =>
      [0, 4, 16, 260].flatMap((offset) => [true, false].map((self) => ({ budget, offset, self, accumulate: offset === 4, bias: offset !== 260 }))),
    ),
  )("budget x$budget, byte $offset, self $self, accumulate $accumulate", async ({ budget, offset, self, accumulate, bias }) => {
    for (const mask of [{ kind: "causal", ahead: 1 }, { kind: "none" }] as const) {
      const call: BackwardCall = {
        batch,
        queryLength: tokens,
        contextLength: tokens,
        mask,
        query: offset,
        context: offset,
        gradOut: offset,
        gradQuery: offset,
        gradContext: self ? undefined : offset,
        residual: offset,
        accumulate,
        bias,
      };
      const planned = planHomBackward({ ...config, scratchBudget: least * budget }, small.tuning, small.limits, call);
      const at = (data: Float32Array) => {
        const moved = new Float32Array(offset / 4 + size + 8).fill(Number.NaN);
        moved.set(data, offset / 4);
        return moved;
      };
      const nan = Number.NaN;
      const { bytes } = transposedWeights(shape);
      const before = { gradProjections: normals32(8, projections.length), gradAg: normals32(9, ag.length) };
      const start = (key: keyof typeof before) => (accumulate ? before[key] : before[key].map(() => nan));
      const contents: Record<string, BufferStart> = {
        query: at(xq),
        context: at(self ? xq : xc),
        gradOut: at(dy),
        gradQuery: offset / 4 + size + 8,
        gradContext: offset / 4 + size + 8,
        residual: at(plus),
        projections,
        ag,
        projectionsBack: bytes.projectionsBack / 4,
        agBack: bytes.agBack / 4,
        gradProjections: start("gradProjections"),
        gradAg: start("gradAg"),
        table: 4,
        divisors: 4,
        mask: 4,
        empty: 64,
        ...Object.fromEntries([...planned.scratch].map(([role, bytes]) => [role, bytes / 4])),
      };
      const after = await runSteps(small, [...planHomTranspose(shape, small.limits), ...planned.steps], contents);
      const args = {
        query: xq,
        ...(!self && { context: xc }),
        gradOutput: dy,
        batch,
        queryLength: tokens,
        mask: mask.kind === "causal" ? ("causal" as const) : undefined,
      };
      const wanted = homBackward(shape, params as never, args);
      const what = `mask ${mask.kind}`;
      const inside = (key: "gradQuery" | "gradContext", expected: Float64Array) => {
        const [first, end] = [offset / 4, offset / 4 + size];
        expectClose(after[key]!.subarray(first, end), expected, { relL2: LAYER_GRADIENT_F32, what: `${key}, ${what}`, adapter });
        const beside = [...after[key]!.subarray(0, first), ...after[key]!.subarray(end)];
        expect(
          beside.every((value) => Number.isNaN(value)),
          `beside ${key}`,
        ).toBe(true);
      };
      inside(
        "gradQuery",
        wanted.query.map((value, i) => value + plus[i]!),
      );
      if (wanted.context) inside("gradContext", wanted.context);
      for (const [name, key, firstColumn, stride, inner, outer] of [
        ["ho_proj", "gradProjections", 0, 48, model, moment],
        ["se_proj", "gradProjections", 24, 48, model, moment],
        ["ag_proj", "gradAg", 0, 8, moment, model],
      ] as const) {
        const sizes = { stride, firstColumn, inner, outer };
        const [actual, old] = [unpackLinear(after[key]!, sizes), unpackLinear(before[key], sizes)];
        for (const part of ["weight", "bias"] as const) {
          const values = wanted.params[`${name}.${part}`]!;
          if (part === "bias" && !bias) {
            // Left as it was.
            if (accumulate) expect(actual.bias).toEqual(old.bias);
            else expect(actual.bias.every((value) => Number.isNaN(value))).toBe(true);
            continue;
          }
          const expected = accumulate ? values.map((value, i) => value + old[part][i]!) : values;
          expectClose(actual[part], expected, { relL2: LAYER_GRADIENT_F32, what: `${name}.${part}, ${what}`, adapter });
        }
      }
    }
  });
});
