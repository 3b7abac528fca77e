import { describe, expect, test } from "vitest";
import { linearMix } from "../../src/reference/linear_attention.ts";
import { linearAttentionBackward, linearMixBackward } from "../../src/reference/linear_attention_backward.ts";
import { FEATURE_MAPS, randomFeatures } from "../../src/reference/random_features.ts";
import { randomFeaturesBackward } from "../../src/reference/random_features_backward.ts";
import { baselineGolden, baselineGradients, baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases } from "../support/golden.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN } from "../support/tolerances.ts";
import { normals } from "./inputs.ts";

const weighted = (values: Float64Array, weights: Float64Array): number => values.reduce((total, value, i) => total + value * weights[i]!, 0);
const along = (values: Float64Array, direction: Float64Array, by: number) => values.map((value, i) => value + by * direction[i]!);
const slope = (loss: (by: number) => number, step = 3e-6) => (loss(step) - loss(-step)) / (2 * step);

describe("the float64 backward pass of linear attention gives the golden gradients", async () => {
  const cases = (await goldenCases("favor", "rfa", "maclaurin")).filter(({ grads }) => grads.length > 0);
  test("of 3 cases", () => expect(cases.length).toBe(3));
  test.each(cases)("$name", async (entry) => {
    const { linear, params, args } = await baselineGolden(entry);
    const { gradOutput, expected } = await baselineGradients(entry);
    if (!linear) throw new Error("not a linear attention");
    const { query, params: ofParams } = linearAttentionBackward(linear, params, { ...args, gradOutput });
    const actual: Record<string, Float64Array> = { ...ofParams, query };
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [key, values] of Object.entries(expected)) expectClose(actual[key]!, values, { relL2: REFERENCE_GOLDEN, what: key });
  });
});

describe.each(FEATURE_MAPS)("gradients are slopes: %s", (featureMap) => {
  const shape = { dim: 10, heads: 2, featureMap, features: 12 };
  const params = baselineParams(1, shape);

  test("of the features", () => {
    const x = normals(2, 4 * shape.dim);
    const gradPhi = normals(3, 4 * shape.heads * shape.features);
    const gradient = randomFeaturesBackward(x, gradPhi, params, shape);
    for (const seed of [4, 5, 6]) {
      const direction = normals(seed, x.length);
      const loss = (by: number) => weighted(randomFeatures(along(x, direction, by), params, shape), gradPhi);
      expectClose([weighted(gradient, direction)], [slope(loss)], { relL2: FINITE_DIFFERENCE_F64, what: "x" });
    }
  });

  test.each([false, true])("of queries, keys and values, causal %s", (causal) => {
    const [batch, length] = [2, 5];
    const inputs = { q: normals(2, 100, 0.5), k: normals(3, 100, 0.5), v: normals(4, 100) };
    const gradContext = normals(5, 100);
    const loss = ({ q, k, v }: typeof inputs) => weighted(linearMix(q, k, v, params, shape, { batch, length, causal }), gradContext);
    const gradients = linearMixBackward(inputs.q, inputs.k, inputs.v, gradContext, params, shape, { batch, length, causal });
    for (const side of ["q", "k", "v"] as const) {
      const direction = normals(6, 100);
      const expected = slope((by) => loss({ ...inputs, [side]: along(inputs[side], direction, by) }));
      expectClose([weighted(gradients[side], direction)], [expected], { relL2: FINITE_DIFFERENCE_F64, what: side });
    }
  });
});

describe("where a formula would divide by 0", () => {
  test("a factor that is 0 keeps the gradient of its product finite, and right", () => {
    const shape = { dim: 2, heads: 1, featureMap: "maclaurin_exp", features: 1 } as const;
    const params = { degrees: [3], rademacher: [1, 1, 1, -1, -1, 1] };
    // Of (x + y)(x - y)(y - x) at x = y: the second and third factor are 0, so that each product of two others has a 0.
    expect([...randomFeaturesBackward([1, 1], [1], params, shape)].map((value) => value + 0)).toEqual([0, 0]);
    const two = { degrees: [2], rademacher: [1, 1, 1, -1] };
    const [dx = 0, dy = 0] = randomFeaturesBackward([1, 1], [1], two, shape);
    // √(2³/2!) (x² - y²) / √2: each factor has x and y scaled by 2^-¼.
    expect(dx).toBeCloseTo(2 * Math.SQRT2, 12);
    expect(dy).toBeCloseTo(-2 * Math.SQRT2, 12);
  });

  test("a normalised vector of zeros has no gradient", () => {
    const shape = { dim: 2, heads: 1, featureMap: "rfa", features: 2 } as const;
    expect([...randomFeaturesBackward([0, 0], [1, 1], { omega: [1, 2] }, shape)]).toEqual([0, 0]);
  });

  test("a token whose features have underflown adds nothing", () => {
    const shape = { dim: 1, heads: 1, featureMap: "favor", features: 1 } as const;
    const { q, k, v } = linearMixBackward([0], [100], [3], [1], { omega: [0] }, shape, { batch: 1, length: 1 });
    expect([...q, ...k, ...v]).toEqual([0, 0, 0]);
  });
});
