import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { homReference } from "../../src/reference/hom.ts";
import { type HomBackwardArguments, homBackward } from "../../src/reference/hom_backward.ts";
import type { HomMask, HomParams } from "../../src/reference/types.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, homGolden, loadGolden } from "../support/golden.ts";
import { homGoldenGradients } from "../support/hom_backward.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN } from "../support/tolerances.ts";
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
