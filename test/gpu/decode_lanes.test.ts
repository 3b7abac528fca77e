import { afterAll, describe, expect, it } from "vitest";
import { type Gpu, HomLayer, requestGpu, Tensor, type Tuning } from "../../src/index.ts";
import { PomLayer } from "../../src/pom.ts";
import { HomStream, homReference } from "../../src/reference/index.ts";
import { PomStream } from "../../src/reference/pom_stream.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, layerParams, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { type PomLayerShape, pomParams, twinShape } from "../support/pom.ts";
import { rounded, stored } from "../support/stored.ts";
import { LAYER_F16, LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const ALL = [1, 4, 16, 64] as const;
const gpus = new Map<number, Gpu>();
for (const decodeLanes of ALL) gpus.set(decodeLanes, await requestGpu({ device, tuning: { tile: "8x4", decodeLanes } }));
const on = (lanes: Tuning["decodeLanes"]) => gpus.get(lanes)!;
const adapter = on(1).info.description;

const DIMS = [12, 24, 100] as const;
const DTYPES = ["f32", "f16", "i8", "i4"] as const;
const STEPS = 3;
/** A layer compiles all its kernels, forward's too. */
const COMPILING = 120_000;
describe.each([4, 16, 64] as const)("decoding with %i lanes", { timeout: COMPILING }, (lanes) => {
  const gpu = on(lanes);

  /** One token a row and step, the residual added. */
  const steps = async (layer: HomLayer | PomLayer, tokens: readonly Float32Array<ArrayBuffer>[], batch: number, options: object = {}) => {
    using state = layer.createState({ batch, ...options });
    const outputs: Float32Array[] = [];
    for (const values of tokens) {
      using x = Tensor.from(layer.gpu, values, [batch, 1, values.length / batch]);
      using y = layer.step(state as never, x, { residual: x });
      outputs.push(await y.read());
    }
    return outputs;
  };

  const cases = DIMS.flatMap((dim) => [1, 2, 3, 4].flatMap((order) => DTYPES.map((weightDtype) => ({ dim, order, weightDtype }))));
  it.each(cases)("D $dim, order $order, weights in $weightDtype: the twin's output", async ({ dim, order, weightDtype }) => {
    const shape = { dim, order, orderExpand: 2 };
    const batch = [1, 2, 3, 9][(order + dim / 4) % 4]!;
    const bias = order % 2 === 0;
    const params = layerParams(dim + order, shape, bias);
    using layer = await HomLayer.create(gpu, { ...shape, weightDtype, bias }, params);
    const twin = new HomStream(shape, stored(params, weightDtype, shape) as never, { batch });
    const tokens = Array.from({ length: STEPS }, (_, t) => normals32(t, batch * dim));
    for (const [t, y] of (await steps(layer, tokens, batch)).entries()) {
      const expected = [...twin.step(tokens[t]!)].map((v, i) => v + tokens[t]![i]!);
      expectClose(y, expected, { relL2: LAYER_F32, what: `token ${t}`, adapter });
    }
  });

  describe.each(DIMS)("D %i", (dim) => {
    const shape = { dim, order: 2, orderExpand: 2 } as const;
    const params = layerParams(dim, shape);
    const batch = 3;
    const tokens = Array.from({ length: 6 }, (_, t) => normals32(50 + t, batch * dim));
    const whole = Float32Array.from({ length: batch * 6 * dim }, (_, i) => {
      const [b, t] = [Math.floor(i / (6 * dim)), Math.floor(i / dim) % 6];
      return tokens[t]![b * dim + (i % dim)]!;
    });
    const args = { query: whole, batch, queryLength: 6 };
    const compare = async (layer: HomLayer, expected: Float64Array, options = {}) => {
      for (const [t, y] of (await steps(layer, tokens, batch, options)).entries()) {
        const wanted = Array.from(y, (_, i) => expected[Math.floor(i / dim) * 6 * dim + t * dim + (i % dim)]! + tokens[t]![i]!);
        expectClose(y, wanted, { relL2: LAYER_F32, what: `token ${t}`, adapter });
      }
    };

    it("in a window", async () => {
      const full = Uint8Array.from({ length: 36 }, (_, i) => (i % 6 <= Math.floor(i / 6) && i % 6 > Math.floor(i / 6) - 3 ? 1 : 0));
      using layer = await HomLayer.create(gpu, shape, params);
      await compare(layer, homReference(shape, params as never, { ...args, mask: { full } }), { window: 3 });
    });

    it("with means that fade", async () => {
      const decay = Float32Array.from({ length: 2 * dim }, (_, c) => (c % 4 === 0 ? 1 : 0.3 + (c % 40) / 60));
      using layer = await HomLayer.create(gpu, { ...shape, decay: true }, { ...params, decay });
      await compare(layer, homReference(shape, params as never, { ...args, mask: "causal", decay }));
    });

    it.runIf(dim === 12).each(["tanh", "identity", "x_erf"] as const)("with %s", async (activation) => {
      using layer = await HomLayer.create(gpu, { ...shape, activation }, params);
      await compare(layer, homReference({ ...shape, activation }, params as never, { ...args, mask: "causal" }));
    });

    it("of tensors in f16", async () => {
      using layer = await HomLayer.create(gpu, { ...shape, dtype: "f16" }, params);
      const twin = new HomStream(shape, stored(params, "f16", shape) as never, { batch });
      using state = layer.createState({ batch });
      for (const [t, values] of tokens.entries()) {
        using x = Tensor.from(gpu, values, [batch, 1, dim], { dtype: "f16" });
        using y = layer.step(state, x);
        expectClose(await y.read(), twin.step(rounded(values)), { relL2: LAYER_F16, what: `token ${t}`, adapter });
      }
    });
  });

  const mixers: readonly PomLayerShape[] = [
    { dim: 12, degree: 3, expand: 2, nGroups: 1, nSelHeads: 1, rotary: "none" },
    { dim: 24, degree: 4, expand: 1, nGroups: 2, nSelHeads: 0, rotary: "none" },
    { dim: 24, degree: 2, expand: 1, nGroups: 1, nSelHeads: 4, rotary: "1d" },
    { dim: 100, degree: 2, expand: 1, nGroups: 1, nSelHeads: 1, rotary: "none" },
  ];
  it.each(mixers)("the polynomial mixer, D $dim degree $degree groups $nGroups heads $nSelHeads $rotary", async (shape) => {
    const params = pomParams(1, shape, true);
    using layer = await PomLayer.create(gpu, { ...shape, bias: true }, params);
    for (const batch of [1, 5]) {
      const twin = new PomStream(twinShape(shape), params, { batch });
      const tokens = Array.from({ length: STEPS }, (_, t) => normals32(t, batch * shape.dim));
      for (const [t, y] of (await steps(layer, tokens, batch)).entries()) {
        const expected = [...twin.step(tokens[t]!)].map((v, i) => v + tokens[t]![i]!);
        expectClose(y, expected, { relL2: LAYER_F32, what: `batch ${batch}, token ${t}`, adapter });
      }
    }
  });

  it("gives a token the same bits in any batch, in any grid, and on other scratch memory", async () => {
    const dim = 24;
    const shape = { dim, order: 2, orderExpand: 2 };
    const decay = Float32Array.from({ length: 2 * dim }, (_, c) => 1 - c / 100);
    for (const { options, state, extra } of [
      { options: {}, state: {}, extra: {} },
      { options: { weightDtype: "i4" as const }, state: { window: 2 }, extra: {} },
      { options: { decay: true }, state: {}, extra: { decay } },
    ]) {
      using layer = await HomLayer.create(gpu, { ...shape, ...options }, { ...layerParams(1, shape), ...extra });
      const most = 20;
      const tokens = Array.from({ length: STEPS }, (_, t) => normals32(t, most * dim));
      const all = await steps(layer, tokens, most, state);
      poisonScratch(device, watch.live(/^hom\.scratch\./));
      for (const batch of [1, 2, 3, 8, 9, 17]) {
        const first = most - batch;
        const some = await steps(
          layer,
          tokens.map((values) => values.slice(first * dim)),
          batch,
          state,
        );
        for (const [t, y] of some.entries()) expectSameBits(y, all[t]!.slice(first * dim), `batch ${batch}, token ${t}`);
      }
      const { limits } = gpu;
      Object.defineProperty(gpu, "limits", { value: { ...limits, maxComputeWorkgroupsPerDimension: 2 }, configurable: true });
      try {
        // Its programs are its own.
        using narrow = await HomLayer.create(gpu, { ...shape, ...options }, { ...layerParams(1, shape), ...extra });
        for (const [t, y] of (await steps(narrow, tokens, most, state)).entries()) expectSameBits(y, all[t]!, `narrow grid, token ${t}`);
      } finally {
        Object.defineProperty(gpu, "limits", { value: limits, configurable: true });
      }
    }
  });

  it("leaves calls that are not single steps as they are", async () => {
    const shape = { dim: 24, order: 2, orderExpand: 2 };
    const x = normals32(3, 2 * 24);
    const outputs: Float32Array[] = [];
    for (const g of [gpu, on(1)]) {
      using layer = await HomLayer.create(g, shape, layerParams(1, shape));
      for (const [batch, tokens] of [
        [1, 2],
        [2, 1],
      ] as const) {
        using input = Tensor.from(g, x, [batch, tokens, 24]);
        using y = layer.forward(input, { mask: "causal" });
        outputs.push(await y.read());
      }
      using state = layer.createState({ batch: 1 });
      using chunk = Tensor.from(g, x, [1, 2, 24]);
      using z = layer.step(state, chunk);
      outputs.push(await z.read());
    }
    for (let i = 0; i < 3; i++) expectSameBits(outputs[i]!, outputs[3 + i]!, `call ${i}`);
  });
});

it("refuses other numbers of lanes", async () => {
  for (const decodeLanes of [0, 2, 8, 32, 128, 1.5, "16"]) {
    await expect(requestGpu({ device, tuning: { decodeLanes: decodeLanes as never } })).rejects.toThrow(
      /requestGpu: tuning.decodeLanes must be 1, 4, 16 or 64/,
    );
  }
});
