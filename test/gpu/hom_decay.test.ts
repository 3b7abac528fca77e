import { describe, expect, it } from "vitest";
import { HomLayer, HomState, requestGpu, Tensor } from "../../src/index.ts";
import { planHomBackward, planHomTranspose, transposedWeights } from "../../src/layers/hom_backward_plan.ts";
import { planHom } from "../../src/layers/hom_plan.ts";
import { packLinear } from "../../src/layers/params.ts";
import { decayTable } from "../../src/ops/decay_moments.ts";
import { homReference } from "../../src/reference/hom.ts";
import { homBackward } from "../../src/reference/hom_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { layerParams, normals32 } from "../support/hom.ts";
import { type BufferStart, runSteps } from "../support/steps.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const mask = { kind: "causal", ahead: 1 } as const;

const CASES = [
  { name: "one slab", dim: 12, order: 2, orderExpand: 2, batch: 3, tokens: 17, slabs: false },
  { name: "one token", dim: 8, order: 3, orderExpand: 1, batch: 2, tokens: 1, slabs: false },
  { name: "a width that is no multiple of 4", dim: 7, order: 2, orderExpand: 3, batch: 2, tokens: 33, slabs: false },
  { name: "large tiles", dim: 32, order: 2, orderExpand: 2, batch: 2, tokens: 130, slabs: false },
  { name: "slabs of a row", dim: 12, order: 2, orderExpand: 2, batch: 1, tokens: 400, slabs: true },
  { name: "slabs of several rows", dim: 5, order: 2, orderExpand: 1, batch: 9, tokens: 150, slabs: true },
] as const;

describe.each(CASES)("decayed means, $name", ({ dim, order, orderExpand, batch, tokens, slabs }) => {
  const shape = { dim, order, orderExpand, activation: "gelu" } as const;
  const width = orderExpand * dim;
  const expand4 = Math.ceil(width / 4);
  const tuning = slabs ? { ...gpu.tuning, tile: "8x4" as const, blockTokens: 8, prefixBlockTokens: 8 } : gpu.tuning;
  const config = { ...shape, decay: true, scratchBudget: slabs ? 64 * 4 * order * expand4 * 16 : 64 << 20 };
  const params = layerParams(1, shape);
  const decay = Float32Array.from({ length: width }, (_, c) => (c % 3 === 2 ? 1 : Math.exp(-1 / (1 + c))));
  const x = normals32(2, batch * tokens * dim);
  const gradOut = normals32(3, x.length);
  const moment = { count: order as number, width };
  const model = { count: 1, width: dim };
  const packed = (of: Readonly<Record<string, ArrayLike<number>>>) => {
    const side = (name: string, outer: typeof moment) => ({ weight: of[`${name}.weight`] ?? [], bias: of[`${name}.bias`], outer });
    return {
      projections: packLinear([side("ho_proj", moment), side("se_proj", moment)], model),
      ag: packLinear([side("ag_proj", model)], moment),
    };
  };
  const args = { query: x, mask: "causal", decay, batch, queryLength: tokens } as const;
  const lengths = { batch, queryLength: tokens, contextLength: tokens, mask, query: 0, context: 0 };
  const weights = { ...packed(params), decay: decayTable(decay, expand4) };
  const floats = (bytes: ReadonlyMap<string, number>): Record<string, BufferStart> =>
    Object.fromEntries([...bytes].map(([name, size]) => [name, size / 4]));

  it("gives the twin's output", async () => {
    const plan = planHom(config, tuning, gpu.limits, { ...lengths, out: 0 });
    if (slabs) expect(plan.steps.filter(({ kernel }) => kernel.name === "decay_moments").length).toBeGreaterThan(2);
    const { out } = await runSteps(gpu, plan.steps, { query: x, context: x, out: x.length, ...weights, ...floats(plan.scratch) });
    expectClose(out ?? [], homReference(shape, params as never, args), { relL2: LAYER_F32, what: "y", adapter });
  });

  it("gives the twin's gradients, and adds to what the weights' hold", async () => {
    const plan = planHomBackward(config, tuning, gpu.limits, { ...lengths, gradOut: 0, gradQuery: 0, accumulate: true });
    if (slabs) expect(plan.steps.filter(({ kernel }) => kernel.name === "decay_backward").length).toBeGreaterThan(2);
    const back = transposedWeights(shape).bytes;
    const result = await runSteps(gpu, [...planHomTranspose(shape, gpu.limits), ...plan.steps], {
      query: x,
      context: x,
      gradOut,
      gradQuery: x.length,
      projectionsBack: back.projectionsBack / 4,
      agBack: back.agBack / 4,
      gradProjections: new Float32Array(weights.projections.length),
      gradAg: new Float32Array(weights.ag.length),
      ...weights,
      ...floats(plan.scratch),
    } as Record<string, BufferStart>);
    const expected = homBackward(shape, params as never, { ...args, gradOutput: gradOut });
    const of = packed(expected.params);
    const close = (what: string, actual: ArrayLike<number> = [], wanted: ArrayLike<number> = []) =>
      expectClose(actual, wanted, { relL2: LAYER_GRADIENT_F32, what, adapter });
    close("query", result["gradQuery"], expected.query);
    close("projections", result["gradProjections"], of.projections);
    close("ag", result["gradAg"], of.ag);
  });
});

it("only a causal mask can fade", () => {
  const config = { dim: 4, order: 1, orderExpand: 1, activation: "gelu", decay: true, scratchBudget: 1 << 20 } as const;
  const call = { batch: 1, queryLength: 2, contextLength: 2, query: 0, context: 0, out: 0 };
  expect(() => planHom(config, gpu.tuning, gpu.limits, { ...call, mask: { kind: "none" } })).toThrow(/decayed means are causal/);
});

describe("a layer with decayed moments", () => {
  const shape = { dim: 12, order: 2, orderExpand: 2 } as const;
  const decay = Float32Array.from({ length: 24 }, (_, c) => (c % 4 === 0 ? 1 : 0.3 + c / 40));
  const params = { ...layerParams(5, shape), decay };
  const [batch, tokens] = [3, 41];
  const x = normals32(6, batch * tokens * shape.dim);
  const args = { query: x, mask: "causal", decay, batch, queryLength: tokens } as const;
  const expected = homReference({ ...shape, activation: "gelu" }, layerParams(5, shape) as never, args);
  const rowsOf = (values: ArrayLike<number>, from: number, count: number) =>
    Float32Array.from({ length: batch * count * shape.dim }, (_, i) => {
      const row = Math.floor(i / (count * shape.dim));
      return values[row * tokens * shape.dim + from * shape.dim + (i % (count * shape.dim))]!;
    });

  it("computes the twin's output and gradients", async () => {
    using layer = await HomLayer.create(gpu, { ...shape, decay: true }, params);
    using query = Tensor.from(gpu, x, [batch, tokens, shape.dim]);
    using gradOutput = Tensor.from(gpu, normals32(7, x.length), [batch, tokens, shape.dim]);
    const { output, backward } = layer.forwardForTraining(query, { mask: "causal" });
    expectClose(await output.read(), expected, { relL2: LAYER_F32, what: "y", adapter });
    const grads = backward(gradOutput);
    const of = homBackward({ ...shape, activation: "gelu" }, layerParams(5, shape) as never, { ...args, gradOutput: normals32(7, x.length) });
    expectClose(await grads.query.read(), of.query, { relL2: LAYER_GRADIENT_F32, what: "query", adapter });
    for (const [key, values] of Object.entries(of.params)) {
      expectClose(await grads.params[key]!.read(), values, { relL2: LAYER_GRADIENT_F32, what: key, adapter });
    }
  });

  it.each([1, 4, 16, 64] as const)(
    "streams: any cut into steps gives the output of one call, across copies and saved bytes; %i lanes",
    async (decodeLanes) => {
      const own = await requestGpu({ device, tuning: { decodeLanes } });
      using layer = await HomLayer.create(own, { ...shape, decay: true }, params);
      for (const cuts of [[41], [1, 1, 39], [20, 21], [5, 1, 30, 5]]) {
        let state = layer.createState({ batch });
        let at = 0;
        for (const count of cuts) {
          using some = Tensor.from(gpu, rowsOf(x, at, count), [batch, count, shape.dim]);
          using y = layer.step(state, some);
          expectClose(await y.read(), rowsOf(expected, at, count), { relL2: LAYER_F32, what: `tokens from ${at}`, adapter });
          at += count;
          const copy = at % 2 === 0 ? state.clone() : HomState.load(own, await state.save(), { layer: { config: state.config } });
          state.destroy();
          state = copy;
        }
        expect(state.count).toEqual([41, 41, 41]);
        state.destroy();
      }
    },
  );

  it("starts anew after reset()", async () => {
    using layer = await HomLayer.create(gpu, { ...shape, decay: true }, params);
    using state = layer.createState({ batch });
    using all = Tensor.from(gpu, x, [batch, tokens, shape.dim]);
    using first = layer.step(state, all);
    state.reset();
    using again = layer.step(state, all);
    expect(await again.read()).toEqual(await first.read());
  });

  it("says what it cannot do", async () => {
    using layer = await HomLayer.create(gpu, { ...shape, decay: true }, params);
    using plain = await HomLayer.create(gpu, shape, layerParams(5, shape));
    using query = Tensor.from(gpu, x, [batch, tokens, shape.dim]);
    using state = layer.createState({ batch });
    using other = layer.createState({ batch });
    using sums = plain.createState({ batch });
    expect(() => layer.forward(query)).toThrow(/HomLayer.forward: mask must be "causal" for decayed moments/);
    expect(() => layer.createState({ window: 4 })).toThrow(/window must be left out for decayed moments/);
    expect(() => layer.append(state, query)).toThrow(/HomLayer.append: layer must keep plain sums, got decayed moments; use step\(\)/);
    expect(() => layer.query(state, query)).toThrow(TypeError);
    expect(() => state.merge(other)).toThrow(/the state must hold plain sums/);
    expect(() => state.scale(0.5)).toThrow(/the state must hold plain sums/);
    expect(() => layer.step(sums, query)).toThrow(/state must be one of decayed moments, got plain means/);
    expect(() => plain.step(state, query)).toThrow(/state must be one of plain means, got decayed moments/);
    await expect(HomLayer.create(gpu, { ...shape, decay: true }, layerParams(5, shape))).rejects.toThrow(/missing decay/);
    const bad = { ...params, decay: decay.map((factor, c) => (c === 3 ? 1.5 : factor)) };
    await expect(HomLayer.create(gpu, { ...shape, decay: true }, bad)).rejects.toThrow(/factors in \(0, 1\], got 1.5 at element 3/);
  });
});
