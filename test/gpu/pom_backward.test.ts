import { afterAll, describe, expect, it } from "vitest";
import { type GpuLimits, type HomGradients, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { PomLayer, type PomTrainingOptions } from "../../src/pom.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { leastScratch, type PomLayerShape, pomExpectedGradients, pomParams, smoothTokens } from "../support/pom.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const SMALL = { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 } as const;
const small = await requestGpu({ device, tuning: SMALL });
const large = await requestGpu({ device, tuning: { tile: "16x8", blockTokens: 64, prefixBlockTokens: 32 } });

const PLAIN: PomLayerShape = { dim: 5, degree: 3, expand: 1, nGroups: 1, nSelHeads: 1, rotary: "none" };
const TURNED: PomLayerShape = { dim: 8, degree: 2, expand: 1, nGroups: 2, nSelHeads: 4, rotary: "1d" };
const forms = [
  { form: "plain", shape: PLAIN },
  { form: "turned", shape: TURNED },
];

/** Gradients by name, read back; the tensors are destroyed. */
async function read({ query, context, params }: HomGradients): Promise<Record<string, Float32Array>> {
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries({ query, ...(context && { context }), ...params })) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

interface Arrays {
  readonly query: Float32Array;
  readonly gradOutput: Float32Array;
  readonly context?: Float32Array | undefined;
  readonly contextLength?: number | undefined;
}

/** Gradients of one call on arrays. */
async function gradients(
  layer: PomLayer,
  [batch, queries]: readonly [number, number],
  arrays: Arrays,
  options: Omit<PomTrainingOptions, "context"> = {},
): Promise<Record<string, Float32Array>> {
  const { gpu, config } = layer;
  using query = Tensor.from(gpu, arrays.query, [batch, queries, config.dim]);
  using gradOutput = Tensor.from(gpu, arrays.gradOutput, query.shape);
  using context = arrays.context && Tensor.from(gpu, arrays.context, [batch, arrays.contextLength ?? queries, config.dim]);
  const { output, backward } = layer.forwardForTraining(query, { context, ...options });
  output.destroy();
  return read(backward(gradOutput));
}

function expectGradients(
  actual: Record<string, Float32Array>,
  shape: PomLayerShape,
  params: Record<string, Float32Array>,
  args: Parameters<typeof pomExpectedGradients>[2],
  what: string,
): void {
  const expected = pomExpectedGradients(shape, params, args);
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected)) {
    expectClose(actual[name]!, values, { relL2: LAYER_GRADIENT_F32, what: `${name}, ${what}`, adapter });
  }
}

describe.each(forms)("a token's gradient has the same bits in any batch, $form", ({ shape }) => {
  const positive = (seed: number, size: number) => Float32Array.from(normals32(seed + 77, size), Math.abs);
  const cases = [
    { name: "none", mask: () => undefined },
    { name: "causal", mask: () => "causal" as const },
    { name: "blockCausal 50", mask: () => ({ blockCausal: 50 }) },
    { name: "padding", mask: (rows: number[], n: number) => ({ padding: Float32Array.from(rows.flatMap((b) => [...positive(b, n)])) }) },
    { name: "full", mask: (rows: number[], n: number) => ({ full: Float32Array.from(rows.flatMap((b) => [...positive(b, n * n)])) }) },
  ] satisfies { name: string; mask: (rows: number[], n: number) => MaskSpec | undefined }[];
  it.each(cases.flatMap((c) => [1, 40].flatMap((budget) => [small, large].map((on) => ({ ...c, budget, on, tile: on.tuning.tile })))))(
    "$name, budget x$budget, $tile",
    async ({ name, mask, budget, on }) => {
      const [batch, n] = [3, name === "full" ? 20 : 70];
      using layer = await PomLayer.create(on, { ...shape, scratchBudget: Math.ceil(leastScratch(shape, on) * budget) }, pomParams(6, shape, false));
      const size = n * shape.dim;
      const [query, context, gradOutput] = [7, 8, 9].map((seed) => normals32(seed, batch * size)) as [Float32Array, Float32Array, Float32Array];
      const rows = Array.from({ length: batch }, (_, b) => b);
      for (const self of [true, false]) {
        const arrays = { query, gradOutput, ...(!self && { context }) };
        const all = await gradients(layer, [batch, n], arrays, { mask: mask(rows, n) });
        const again = await gradients(layer, [batch, n], arrays, { mask: mask(rows, n) });
        for (const key of Object.keys(all)) expectSameBits(again[key]!, all[key]!, `${key} of the same call again`);
        const part = (array: Float32Array) => array.slice((batch - 1) * size);
        const one = { query: part(query), gradOutput: part(gradOutput), ...(!self && { context: part(context) }) };
        const alone = await gradients(layer, [1, n], one, { mask: mask([batch - 1], n) });
        for (const key of self ? ["query"] : ["query", "context"]) expectSameBits(alone[key]!, part(all[key]!), `${key} of the last row alone`);
      }
    },
  );
});

describe.each(forms)("who sees nothing, and who is not seen, $form", ({ shape }) => {
  const [batch, queries, tokens] = [3, 9, 70];
  const { dim } = shape;
  type Row = (b: number, i: number) => boolean;
  const cancelling = Float32Array.from({ length: batch * tokens }, (_, i) => (i < tokens ? [1, -1][i % 2]! : 1));
  const cases: { name: string; mask: MaskSpec; blind: Row; unseen: Row }[] = [
    { name: "padding of zeros", mask: { padding: new Uint8Array(batch * tokens) }, blind: () => true, unseen: () => true },
    { name: "padding that cancels", mask: { padding: cancelling }, blind: (b) => b === 0, unseen: (b) => b === 0 },
    {
      name: "lengths",
      mask: { lengths: Uint32Array.of(tokens, 0, 1) },
      blind: (b) => b === 1,
      unseen: (b, n) => b > 0 && (b === 1 || n > 0),
    },
    {
      name: "a full mask, mostly of zeros",
      mask: { full: Uint8Array.from({ length: queries * tokens }, (_, i) => (i < tokens - 7 ? 1 : 0)) },
      blind: (_, t) => t > 0,
      unseen: (_, n) => n >= tokens - 7,
    },
  ];
  it.each(cases)("$name", async ({ name, mask, blind, unseen }) => {
    const bias = true;
    const params = pomParams(1, shape, bias);
    using layer = await PomLayer.create(small, { ...shape, bias }, params);
    const { query, context } = smoothTokens(2, shape, params, batch * queries, batch * tokens);
    const arrays = { query, context, contextLength: tokens, gradOutput: normals32(4, query.length) };
    const actual = await gradients(layer, [batch, queries], arrays, { mask });
    for (const [key, length, zero] of [
      ["query", queries, blind],
      ["context", tokens, unseen],
    ] as const) {
      for (let row = 0; row < batch * length; row++) {
        const values = actual[key]!.subarray(row * dim, (row + 1) * dim);
        expect(
          values.every((value) => value === 0),
          `${key} ${row}`,
        ).toBe(zero(Math.floor(row / length), row % length));
      }
    }
    const { query: _, context: __, contextLength: ___, ...rest } = arrays;
    expectGradients(actual, shape, params, { ...rest, query, context: context!, mask, batch, queryLength: queries, contextLength: tokens }, name);
  });
});

describe("small bindings", async () => {
  /** A Gpu that believes its device to be smaller than it is: long inputs are not needed to reach a limit. */
  const limits: Partial<GpuLimits> = { maxStorageBufferBindingSize: 256 + 2496, maxComputeWorkgroupsPerDimension: 5 };
  const narrow = await requestGpu({ device, tuning: SMALL });
  Object.defineProperty(narrow, "limits", { value: { ...narrow.limits, ...limits } });
  const shapes: PomLayerShape[] = [
    { dim: 12, degree: 2, expand: 1, nGroups: 1, nSelHeads: 1, rotary: "none" },
    { dim: 12, degree: 2, expand: 1, nGroups: 1, nSelHeads: 4, rotary: "none" },
  ];
  const uneven = (size: number) => Float32Array.from(normals32(3, size), (value) => (Math.abs(value) < 0.3 ? 0 : Math.abs(value)));
  const cases: [string, number, number, number, MaskSpec | undefined][] = [
    ["one long row", 1, 3, 300, undefined],
    ["many queries", 3, 130, 7, undefined],
    ["many short rows", 40, 2, 5, undefined],
    ["padding", 2, 2, 130, { padding: uneven(260) }],
    ["causal, a long row", 2, 130, 130, "causal"],
    ["blockCausal 100", 2, 130, 130, { blockCausal: 100 }],
    ["full", 2, 33, 70, { full: uneven(2 * 33 * 70) }],
    ["cuSeqlens", 1, 200, 200, { cuSeqlens: Uint32Array.of(0, 1, 1, 10, 30, 150, 160, 200, 200) }],
  ];
  it.each(cases.flatMap(([what, ...rest]) => shapes.map((shape) => [what, shape.nSelHeads, shape, ...rest] as const)))(
    "%s, %d heads",
    async (what, _, shape, batch, queries, tokens, mask) => {
      const params = pomParams(1, shape, false);
      using layer = await PomLayer.create(narrow, shape, params);
      const { query, context } = smoothTokens(4, shape, params, batch * queries, queries === tokens ? undefined : batch * tokens);
      const arrays = { query, gradOutput: normals32(6, query.length), ...(context && { context }) };
      watch.reset();
      const actual = await gradients(layer, [batch, queries], { ...arrays, contextLength: tokens }, { mask });
      const bound = Math.max(...watch.dispatches.flatMap(({ bindings }) => bindings));
      expect(bound).toBeLessThanOrEqual(limits.maxStorageBufferBindingSize!);
      expectGradients(actual, shape, params, { ...arrays, mask, batch, queryLength: queries, contextLength: tokens }, what);
    },
  );
});

describe("forwardForTraining", () => {
  const shape = TURNED;
  const [batch, queries, tokens] = [2, 7, 9];
  const params = pomParams(5, shape, true);
  const { query: xq, context: xc } = smoothTokens(1, shape, params, batch * queries, batch * tokens);
  const dy = normals32(3, xq.length);
  const query = Tensor.from(gpu, xq, [batch, queries, shape.dim]);
  const context = Tensor.from(gpu, xc!, [batch, tokens, shape.dim]);
  const gradOutput = Tensor.from(gpu, dy, query.shape);
  afterAll(() => {
    for (const each of [query, context, gradOutput]) each.destroy();
  });
  const config = { ...shape, bias: true };
  const args = { query: xq, context: xc!, gradOutput: dy, batch, queryLength: queries, contextLength: tokens };

  it("gives the output of forward, and gradients as often as they are asked for, in one submit each", async () => {
    using layer = await PomLayer.create(gpu, config, params);
    const { output, backward } = layer.forwardForTraining(query, { context });
    using plain = layer.forward(query, { context });
    expectSameBits(await output.read(), await plain.read(), "output");
    watch.reset();
    const made = backward(gradOutput);
    expect({ submits: watch.submits, passes: watch.passes }).toEqual({ submits: 1, passes: 1 });
    const first = await read(made);
    expectGradients(first, shape, params, args, "first");
    const again = await read(backward(gradOutput));
    for (const [key, values] of Object.entries(first)) expectSameBits(again[key]!, values, `${key} once more`);
    output.destroy();
  });

  it("gives the query and an equal context gradients of their own, and without a context both to the query", async () => {
    using layer = await PomLayer.create(gpu, config, params);
    const both = layer.forwardForTraining(query, { context: query });
    const self = layer.forwardForTraining(query);
    const apart = await read(both.backward(gradOutput));
    const together = await read(self.backward(gradOutput));
    expect(Object.keys(together)).not.toContain("context");
    const sum = apart["query"]!.map((value, i) => value + apart["context"]![i]!);
    expectClose(together["query"]!, sum, { relL2: LAYER_F32, what: "sum", adapter });
    for (const { output } of [both, self]) output.destroy();
  });

  it("keeps mask and positions as they were at the call", async () => {
    using layer = await PomLayer.create(gpu, config, params);
    const padding = Float32Array.from({ length: batch * tokens }, (_, i) => (i % 3) / 2);
    const positions = Uint32Array.from({ length: queries }, (_, i) => 3 * i);
    const contextPositions = Uint32Array.from({ length: tokens }, (_, i) => 50 - i);
    const wanted = { ...args, mask: { padding: padding.slice() }, positions: positions.slice(), contextPositions: contextPositions.slice() };
    const { output, backward } = layer.forwardForTraining(query, { context, mask: { padding }, positions, contextPositions });
    for (const array of [padding, positions, contextPositions]) array.fill(1);
    expectGradients(await read(backward(gradOutput)), shape, params, wanted, "of changed arrays");
    output.destroy();
  });

  it("frees everything but the gradients, and what is left does not grow", async () => {
    using layer = await PomLayer.create(gpu, config, params);
    const steps = async () => {
      for (const options of [{ context, mask: { padding: new Uint8Array(batch * tokens).fill(1) } }, { mask: "causal" as const }]) {
        const { output, backward } = layer.forwardForTraining(query, options);
        output.destroy();
        await read(backward(gradOutput));
      }
    };
    await steps();
    const before = watch.live(/./).map(({ label }) => label);
    for (let i = 0; i < 3; i++) await steps();
    expect(watch.live(/./).map(({ label }) => label)).toEqual(before);
    expect(watch.live(/hom\.(gradient|grad[A-Z]|projectionsBack|agBack|mask)/)).toEqual([]);
  });

  describe("refuses", async () => {
    const layer = await PomLayer.create(gpu, config, params);
    const plain = await PomLayer.create(gpu, PLAIN, pomParams(1, PLAIN, false));
    const halfShape: PomLayerShape = { ...PLAIN, dim: 8 };
    const half = await PomLayer.create(gpu, { ...halfShape, dtype: "f16" }, pomParams(1, halfShape, false));
    const short = Tensor.from(gpu, new Float32Array(shape.dim), [1, 1, shape.dim]);
    const five = Tensor.from(gpu, new Float32Array(5), [1, 1, 5]);
    const { output, backward } = layer.forwardForTraining(query);
    afterAll(() => {
      for (const each of [layer, plain, half, short, five, output]) each.destroy();
    });
    const where = "PomLayer.forwardForTraining";
    // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
    const any = (value: unknown): any => value;
    it.each<[string, () => unknown, typeof TypeError | typeof RangeError, string]>([
      [
        "an unknown option",
        () => layer.forwardForTraining(query, any({ residual: query })),
        TypeError,
        `${where}: options must have only the keys context, mask, positions, contextPositions, got the unknown key "residual"`,
      ],
      [
        "an f16 layer",
        () => half.forwardForTraining(short),
        TypeError,
        `${where}: layer must have weights and output in f32, got dtype "f16" and weightDtype "f16"; create it with dtype "f32"`,
      ],
      [
        "positions without a rotation",
        () => plain.forwardForTraining(five, { positions: Uint32Array.of(0) }),
        TypeError,
        `${where}: positions must be absent for a layer without a rotation (rotary "none"), got Uint32Array of length 1`,
      ],
      ["a gradient of another shape", () => backward(short), RangeError, `${where}'s backward: gradOutput must have shape [2, 7, 8], got [1, 1, 8]`],
    ])("%s", async (_, call, type, message) => {
      const before = watch.liveBytes;
      expect(call).toThrow(type);
      expect(call).toThrow(message);
      expect(watch.liveBytes).toBe(before);
    });

    it("a layer that was destroyed since", async () => {
      const own = await PomLayer.create(gpu, config, params);
      const pass = own.forwardForTraining(query);
      own.destroy();
      expect(() => pass.backward(gradOutput)).toThrow(`${where}'s backward: layer must be alive, got a destroyed layer`);
      pass.output.destroy();
    });
  });
});
