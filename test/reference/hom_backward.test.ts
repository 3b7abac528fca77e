import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { packLinear } from "../../src/layers/params.ts";
import { gateBackward } from "../../src/reference/gate_backward.ts";
import { homMoments, homReference } from "../../src/reference/hom.ts";
import { type HomBackwardArguments, homBackward } from "../../src/reference/hom_backward.ts";
import { momentsBackward } from "../../src/reference/moments_backward.ts";
import { scanGradients } from "../../src/reference/scan_gradients.ts";
import { sumGradients } from "../../src/reference/sum_gradients.ts";
import type { HomMask, HomParams } from "../../src/reference/types.ts";
import { unpackLinear } from "../../src/reference/unpack_linear.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, homGolden, loadGolden } from "../support/golden.ts";
import { homGoldenGradients } from "../support/hom_backward.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN, REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals, randomParams, uniforms } from "./inputs.ts";

describe("the float64 backward pass gives the golden gradients", async () => {
  const cases = (await goldenCases("hom", "hom_layer")).filter(({ grads }) => grads.length > 0);
  test("of 20 cases", () => expect(cases.length).toBe(20));
  test.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const hom = homGolden(golden);
    const { shape, params, gradOutput, expected, named } = homGoldenGradients(golden, hom);
    const actual = named(homBackward(shape, params, { ...hom.args, gradOutput }));
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [key, values] of Object.entries(expected)) {
      expectClose(actual[key]!, values, { relL2: REFERENCE_GOLDEN, what: key });
    }
  });
});

const KINDS = ["none", "padding", "lengths", "full", "full for all rows", "causal", "queryMask", "blockCausal", "cuSeqlens"] as const;
const problem = fc.record({
  seed: fc.nat(),
  kind: fc.constantFrom(...KINDS),
  batch: fc.integer({ min: 1, max: 3 }),
  queries: fc.integer({ min: 1, max: 5 }),
  tokens: fc.integer({ min: 1, max: 7 }),
  self: fc.boolean(),
  bias: fc.boolean(),
  soft: fc.boolean(),
  shape: fc.record({
    dim: fc.integer({ min: 1, max: 4 }),
    order: fc.integer({ min: 1, max: 5 }),
    orderExpand: fc.integer({ min: 1, max: 2 }),
    activation: fc.constantFrom("gelu", "tanh", "identity", "x_erf"),
  }),
});
type Problem = typeof problem extends fc.Arbitrary<infer T> ? T : never;

function argumentsOf(p: Problem): HomBackwardArguments {
  const { seed, kind, tokens, shape } = p;
  const batch = kind === "cuSeqlens" ? 1 : p.batch;
  const square = ["causal", "queryMask", "blockCausal", "cuSeqlens"].includes(kind);
  const queries = square || p.self ? tokens : p.queries;
  const next = uniforms(seed + 20);
  const weights = (size: number) =>
    p.soft ? Float64Array.from({ length: size }, () => (next() < 0.2 ? 0 : next())) : Uint8Array.from({ length: size }, () => (next() < 0.3 ? 0 : 1));
  const masks: Record<(typeof KINDS)[number], () => HomMask | undefined> = {
    none: () => undefined,
    padding: () => ({ padding: weights(batch * tokens) }),
    lengths: () => ({ lengths: Array.from({ length: batch }, () => Math.floor(next() * (tokens + 1))) }),
    full: () => ({ full: weights(batch * queries * tokens) }),
    "full for all rows": () => ({ full: weights(queries * tokens) }),
    causal: () => "causal",
    queryMask: () => "causal",
    blockCausal: () => ({ blockCausal: 1 + Math.floor(next() * 4) }),
    cuSeqlens: () => ({ cuSeqlens: [0, 0, Math.floor(next() * (tokens + 1)), tokens] }),
  };
  return {
    query: normals(seed + 10, batch * queries * shape.dim),
    ...(!p.self && { context: normals(seed + 11, batch * tokens * shape.dim) }),
    mask: masks[kind](),
    ...(kind === "queryMask" && { queryMask: weights(batch * queries) }),
    batch,
    queryLength: queries,
    contextLength: tokens,
    gradOutput: normals(seed + 12, batch * queries * shape.dim),
  };
}

describe("the float64 backward pass", () => {
  test("is the derivative: central differences along a random direction of every tensor", () => {
    const seen = new Set<string>();
    forAll(problem, (p) => {
      seen.add(p.kind);
      const { seed, shape } = p;
      const args = argumentsOf(p);
      const { gradOutput, ...forward } = args;
      const params = randomParams(seed, shape, p.bias);
      const gradients = homBackward(shape, params as HomParams, args);
      const loss = (changedParams: HomParams, changed: Partial<HomBackwardArguments>) =>
        homReference(shape, changedParams, { ...forward, ...changed }).reduce((sum, y, i) => sum + y * gradOutput[i]!, 0);
      const check = (what: string, gradient: Float64Array, value: ArrayLike<number>, lossAt: (value: Float64Array) => number) => {
        const direction = normals(seed + 30, value.length);
        const slope = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
        const at = (step: number) => lossAt(Float64Array.from(value, (v, i) => v + step * direction[i]!));
        // The error of the fourth-order difference falls with step⁴, its rounding grows with 1/step.
        const step = 1e-3;
        const difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
        const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0) * direction.reduce((sum, d) => sum + d * d, 0));
        expect(Math.abs(difference - slope), `${what} of ${JSON.stringify(p)}: ${difference} against ${slope}`).toBeLessThanOrEqual(
          FINITE_DIFFERENCE_F64 * (1 + size),
        );
      };
      check("query", gradients.query, args.query, (query) => loss(params as HomParams, { query }));
      if (args.context) check("context", gradients.context!, args.context, (context) => loss(params as HomParams, { context }));
      else expect(gradients.context).toBeUndefined();
      for (const [key, value] of Object.entries(params)) {
        check(key, gradients.params[key]!, value, (changed) => loss({ ...params, [key]: changed } as HomParams, {}));
      }
      expect(Object.keys(gradients.params).sort()).toEqual(Object.keys(params).sort());
    });
    expect([...seen].sort()).toEqual([...KINDS].sort());
  });
});

describe("the kernels' twins compose to the layer's gradients", () => {
  const sizes = fc.record({
    seed: fc.nat(),
    batch: fc.integer({ min: 1, max: 3 }),
    tokens: fc.integer({ min: 1, max: 20 }),
    blockTokens: fc.constantFrom(4, 8),
    ahead: fc.constantFrom(1, 2, 4),
    shape: fc.record({ dim: fc.integer({ min: 1, max: 5 }), order: fc.integer({ min: 1, max: 4 }), orderExpand: fc.integer({ min: 1, max: 2 }) }),
  });
  /** dy [rows, outer] times weight [outer, inner]. */
  const product = (dy: Float64Array, weight: Float64Array, inner: number, outer: number) =>
    Float64Array.from({ length: (dy.length / outer) * inner }, (_, at) => {
      const [row, i] = [Math.floor(at / inner), at % inner];
      let sum = 0;
      for (let o = 0; o < outer; o++) sum += dy[row * outer + o]! * weight[o * inner + i]!;
      return sum;
    });

  test.each(["causal", "segments"] as const)("%s", (kind) => {
    forAll(sizes, ({ seed, batch, tokens, blockTokens, ahead, shape }) => {
      const { dim } = shape;
      const params = randomParams(seed, shape);
      const width = shape.order * shape.orderExpand * dim;
      const query = normals(seed + 10, batch * tokens * dim);
      const gradOutput = normals(seed + 11, query.length);
      // A segment is longer than a block, as the planner has it.
      const length = kind === "causal" ? ahead : blockTokens * 2;
      const args = { query, gradOutput, mask: { blockCausal: length }, batch, queryLength: tokens };
      const h = homMoments(shape, params, { query, mask: args.mask, batch, queryLength: tokens });
      const gradGated = product(gradOutput, params["ag_proj.weight"], width, dim);
      const seen = Float64Array.from({ length: batch * tokens }, (_, i) => Math.min((Math.floor((i % tokens) / length) + 1) * length, tokens));
      const divisors = kind === "causal" ? seen : undefined;
      const { gradLogits, gradSums } = gateBackward(query, h, gradGated, params, shape, { batch, queryLength: tokens, divisors });
      const common = { groups: batch, momentDim: width };
      const gradMoments = new Float64Array(gradSums.length);
      if (kind === "causal") {
        const { totals, suffix } = sumGradients(gradSums, { ...common, queryLength: tokens, blockTokens, ahead });
        const blocks = Math.ceil(tokens / blockTokens);
        const after = scanGradients(totals, { ...common, blocks });
        for (let i = 0; i < batch * tokens; i++) {
          const block = Math.floor(i / tokens) * blocks + Math.floor((i % tokens) / blockTokens);
          for (let j = 0; j < width; j++) gradMoments[i * width + j] = suffix[i * width + j]! + after[block * width + j]!;
        }
      } else {
        const blocks = Math.ceil(tokens / length);
        const { totals } = sumGradients(gradSums, { ...common, queryLength: tokens, blockTokens: length });
        const sums = scanGradients(totals, { ...common, blocks, segments: { length, rowTokens: tokens } });
        for (let i = 0; i < batch * tokens; i++) {
          const segment = Math.floor(i / tokens) * blocks + Math.floor((i % tokens) / length);
          gradMoments.set(sums.subarray(segment * width, (segment + 1) * width), i * width);
        }
      }
      const du = momentsBackward(query, gradMoments, params, shape);
      const gradQuery = product(gradLogits, params["se_proj.weight"], dim, width);
      const gradContext = product(du, params["ho_proj.weight"], dim, width);
      const expected = homBackward(shape, params, args).query;
      expectClose(
        gradQuery.map((value, i) => value + gradContext[i]!),
        expected,
        { relL2: REORDERED_F64, what: "query" },
      );
    });
  });

  test("unpack_linear is the inverse of packLinear", () => {
    const [inner, outer] = [
      { count: 2, width: 3 },
      { count: 3, width: 5 },
    ];
    const [weight, bias, other] = [normals(1, 6 * 15), normals(2, 15), normals(3, 6 * 2)];
    const packed = packLinear(
      [
        { weight: other, bias: undefined, outer: { count: 1, width: 2 } },
        { weight, bias, outer },
      ],
      inner,
    );
    const unpacked = unpackLinear(packed, { stride: 4 + 24, firstColumn: 4, inner, outer });
    expect(unpacked.weight).toEqual(Float64Array.from(Float32Array.from(weight)));
    expect(unpacked.bias).toEqual(Float64Array.from(Float32Array.from(bias)));
  });
});
