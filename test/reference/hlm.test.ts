import { describe, expect, test } from "vitest";
import { HLM_LOSS_MAX, hlmLoss, hlmReference } from "../../src/reference/hlm.ts";
import { positionFrequencies } from "../../src/reference/positions.ts";
import { expectClose } from "../support/compare.ts";
import { REORDERED_F64 } from "../support/tolerances.ts";
import { normals, randomParams } from "./inputs.ts";

const config = { vocabSize: 11, dim: 4, layers: 2, contextLength: 8, order: 2, orderExpand: 1, ffwExpand: 2 };
const weights: Record<string, Float64Array> = {
  freqs: positionFrequencies(config.dim, config.contextLength),
  "token_emb.weight": normals(1, 11 * 4),
  "pos_emb.0.weight": normals(2, 8 * 4),
  "pos_emb.0.bias": normals(3, 8),
  "pos_emb.2.weight": normals(4, 4 * 8),
  "pos_emb.2.bias": normals(5, 4),
  "output_proj.weight": normals(6, 11 * 4),
};
for (let i = 0; i < config.layers; i++) {
  for (const [key, values] of Object.entries(randomParams(100 * i, config))) weights[`layers.${i}.hom.${key}`] = values;
  weights[`layers.${i}.ffw.0.weight`] = normals(7 + i, 8 * 4);
  weights[`layers.${i}.ffw.2.weight`] = normals(17 + i, 4 * 8);
}
const relL2 = REORDERED_F64;
const ids = [3, 1, 4, 1, 5, 9, 2, 6];

describe("hlm", () => {
  test("a batch row does not depend on the others, nor a token on later ones", () => {
    const both = hlmReference(config, weights, ids, { batch: 2 });
    const second = hlmReference(config, weights, ids.slice(4));
    expectClose(both.subarray(4 * 11), second, { relL2, what: "second row" });
    expectClose(hlmReference(config, weights, ids.slice(4, 6)), second.subarray(0, 2 * 11), { relL2, what: "first two tokens" });
  });

  test("posOffset: a number is that offset for every row", () => {
    const one = hlmReference(config, weights, ids, { batch: 2, posOffset: 7 });
    expect(hlmReference(config, weights, ids, { batch: 2, posOffset: [7, 7] })).toEqual(one);
    const own = hlmReference(config, weights, ids, { batch: 2, posOffset: [0, 7] });
    expect(own.subarray(4 * 11)).toEqual(one.subarray(4 * 11));
    expect(own.subarray(0, 4 * 11)).toEqual(hlmReference(config, weights, ids.slice(0, 4)));
  });

  test("loss: mean of the cross-entropies, capped as a whole", () => {
    const flat = new Float64Array(4 * 11);
    expect(hlmLoss(flat, [0, 1, 2, 3], { vocabSize: 11 })).toBeCloseTo(Math.log(11), 14);
    // masked positions count in the divisor; the mask is the one of the predicting position
    expect(hlmLoss(flat, [0, 1, 2, 3], { vocabSize: 11, attentionMask: [1, 0, 0, 1] })).toBeCloseTo(Math.log(11) / 3, 14);
    const sure = flat.slice();
    sure[0] = 30; // position 0 is sure of token 0 and wrong by 30: above the cap alone, below it in the mean
    expect(hlmLoss(sure, [0, 1, 2, 3], { vocabSize: 11 })).toBeCloseTo((30 + 2 * Math.log(11)) / 3, 10);
    sure[0] = 1000; // no overflow, and the cap
    expect(hlmLoss(sure, [0, 1, 2, 3], { vocabSize: 11 })).toBe(HLM_LOSS_MAX);
  });

  test("refuses what it cannot compute", () => {
    expect(() => hlmReference(config, weights, [...ids, 1])).toThrow(/tokenIds must hold at most contextLength = 8 tokens a row, got 9/);
    expect(() => hlmReference(config, weights, [11])).toThrow(/tokenIds\[0\] must be an integer from 0 to 10, got 11/);
    expect(() => hlmReference(config, weights, ids, { batch: 3 })).toThrow(/one or more tokens for each of 3 batch rows/);
    expect(() => hlmReference(config, weights, ids, { posOffset: [1, 2] })).toThrow(/posOffset must hold B = 1 numbers, got 2/);
    expect(() => hlmReference(config, weights, ids, { attentionMask: [1] })).toThrow(/attentionMask must hold B·n = 8 numbers, got 1/);
    expect(() => hlmReference(config, { ...weights, freqs: undefined }, ids)).toThrow(/params must have "freqs"/);
    expect(() => hlmLoss(new Float64Array(11), [1], { vocabSize: 11 })).toThrow(/at least 2 tokens a row, got 1/);
  });
});
