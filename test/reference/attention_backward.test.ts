import { describe, expect, test } from "vitest";
import { attentionReference } from "../../src/reference/attention.ts";
import { attentionBackward, attentionLayerBackward } from "../../src/reference/attention_backward.ts";
import { baselineGolden, baselineGradients, baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases } from "../support/golden.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN } from "../support/tolerances.ts";
import { normals } from "./inputs.ts";

describe("the float64 backward pass of softmax attention gives the golden gradients", async () => {
  const cases = (await goldenCases("mha")).filter(({ grads }) => grads.length > 0);
  test("of 1 case", () => expect(cases.length).toBe(1));
  test.each(cases)("$name", async (entry) => {
    const { shape, params, args } = await baselineGolden(entry);
    const { gradOutput, expected } = await baselineGradients(entry);
    const { query, params: ofParams } = attentionLayerBackward(shape, params, { ...args, gradOutput });
    const actual: Record<string, Float64Array> = { ...ofParams, query };
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    for (const [key, values] of Object.entries(expected)) {
      // What is added to every key changes no share.
      if (key === "k_proj.bias") expect(Math.max(...actual[key]!.map(Math.abs))).toBeLessThan(1e-13);
      else expectClose(actual[key]!, values, { relL2: REFERENCE_GOLDEN, what: key });
    }
  });
});

describe("gradients are slopes", () => {
  const step = 1e-6;
  test.each([false, true].flatMap((bias) => [false, true].map((causal) => ({ bias, causal }))))("bias $bias, causal $causal", ({ bias, causal }) => {
    const shape = { dim: 6, heads: 2 };
    const [batch, length] = [2, 5];
    const params = Object.fromEntries(Object.entries(baselineParams(1, shape, { bias })).map(([key, values]) => [key, Float64Array.from(values)]));
    const x = normals(2, batch * length * shape.dim);
    const gradOutput = normals(3, x.length);
    const loss = (weights: typeof params, tokens: Float64Array) =>
      attentionReference(shape, weights, { x: tokens, batch, length, causal }).reduce((sum, value, i) => sum + value * gradOutput[i]!, 0);
    const { query, params: ofParams } = attentionLayerBackward(shape, params, { x, gradOutput, batch, length, causal });
    expect(Object.keys(ofParams).sort()).toEqual(Object.keys(params).sort());
    for (const [key, gradient] of Object.entries({ ...ofParams, query })) {
      const direction = normals(4, gradient.length);
      const moved = (by: number) => {
        const along = (values: Float64Array) => values.map((value, i) => value + by * direction[i]!);
        return key === "query" ? loss(params, along(x)) : loss({ ...params, [key]: along(params[key]!) }, x);
      };
      const slope = (moved(step) - moved(-step)) / (2 * step);
      const expected = gradient.reduce((sum, value, i) => sum + value * direction[i]!, 0);
      if (key === "k_proj.bias") expect(Math.abs(expected)).toBeLessThan(1e-13);
      else expectClose([expected], [slope], { relL2: FINITE_DIFFERENCE_F64, what: key });
    }
  });
});

describe("attentionBackward", () => {
  test("two tokens by hand", () => {
    // Shares of 1/4 and 3/4 of values 4 and 8: the scores' slopes are 1/4 (4 - 7) and 3/4 (8 - 7).
    const gradients = attentionBackward([1, 1], [0, Math.log(3)], [4, 8], [1, 0], { batch: 1, length: 2, heads: 1, headDim: 1 });
    expect([...gradients.v]).toEqual([0.25, 0.75].map((value) => expect.closeTo(value, 14)));
    expect([...gradients.k]).toEqual([-0.75, 0.75].map((value) => expect.closeTo(value, 14)));
    expect([...gradients.q]).toEqual([0.75 * Math.log(3), 0].map((value) => expect.closeTo(value, 14)));
  });

  test("causal: the first token sees itself alone", () => {
    const gradients = attentionBackward([1, 1], [0, Math.log(3)], [4, 8], [1, 0], { batch: 1, length: 2, heads: 1, headDim: 1, causal: true });
    expect([...gradients.q, ...gradients.k, ...gradients.v].map((value) => value + 0)).toEqual([0, 0, 0, 0, 1, 0]);
  });
});
