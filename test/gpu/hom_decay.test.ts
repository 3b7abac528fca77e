import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
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
