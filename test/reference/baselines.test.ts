import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { attention, attentionReference } from "../../src/reference/attention.ts";
import { featureAttention, featureScores, featureSums, guard, linearAttentionReference } from "../../src/reference/linear_attention.ts";
import { FEATURE_MAPS, maclaurinCoefficient, randomFeatures } from "../../src/reference/random_features.ts";
import { baselineGolden, baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases } from "../support/golden.ts";
import { REFERENCE_GOLDEN, REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals } from "./inputs.ts";

const relL2 = REFERENCE_GOLDEN;

describe("the float64 reference gives the golden outputs", async () => {
  test.each(await goldenCases("mha"))("$name", async (entry) => {
    const { shape, params, args, expected, outputShape, byToken } = await baselineGolden(entry);
    expectClose(attentionReference(shape, params, args), expected, { relL2, what: "y", shape: outputShape });
    const sizes = { batch: args.batch, queryLength: args.length, keyLength: args.length, heads: shape.heads, headDim: shape.dim / shape.heads };
    const ctx = attention(byToken("out.q"), byToken("out.k"), byToken("out.v"), { ...sizes, causal: args.causal });
    expectClose(ctx, byToken("out.ctx"), { relL2, what: "ctx" });
  });

  test.each(await goldenCases("favor", "rfa", "maclaurin"))("$name", async (entry) => {
    const { linear, params, args, expected, outputShape, byToken } = await baselineGolden(entry);
    if (!linear) throw new Error("not a linear attention");
    for (const side of ["q", "k"]) {
      const phi = randomFeatures(byToken(`out.${side}`), params, linear);
      expectClose(phi, byToken(`out.phi_${side}`), { relL2, what: `phi_${side}` });
    }
    expectClose(linearAttentionReference(linear, params, args), expected, { relL2, what: "y", shape: outputShape });
  });
});

const problem = fc.record({
  seed: fc.nat(),
  batch: fc.integer({ min: 1, max: 3 }),
  length: fc.integer({ min: 1, max: 20 }),
  blockTokens: fc.integer({ min: 1, max: 24 }),
  heads: fc.integer({ min: 1, max: 3 }),
  headDim: fc.integer({ min: 1, max: 6 }),
  features: fc.integer({ min: 1, max: 5 }).map((half) => 2 * half),
});

describe("the twins of linear attention", () => {
  test("blocks and their scan give what token by token gives", () => {
    forAll(problem, ({ seed, batch, length, blockTokens, heads, headDim, features }) => {
      const sizes = { batch, length, heads, headDim, features };
      // Positive features, as of favor: no denominator comes near 0.
      const positive = (from: number) => normals(from, batch * length * heads * features).map(Math.exp);
      const [phiQ, phiK] = [positive(seed), positive(seed + 1)];
      const v = normals(seed + 2, batch * length * heads * headDim);
      const blocks = Math.ceil(length / blockTokens);
      const perBlock = featureSums(phiK, v, { ...sizes, blockTokens });
      const before = { sums: new Float64Array(perBlock.sums.length), weights: new Float64Array(perBlock.weights.length) };
      for (const key of ["sums", "weights"] as const) {
        const width = perBlock[key].length / (batch * blocks);
        for (let i = 0; i < perBlock[key].length; i++) {
          const isFirst = Math.floor(i / width) % blocks === 0;
          before[key][i] = isFirst ? 0 : before[key][i - width]! + perBlock[key][i - width]!;
        }
      }
      const scores = featureScores(phiQ, phiK, { ...sizes, blockTokens });
      const y = featureAttention(phiQ, before, { ...sizes, blockTokens }, { scores, v });
      const expected = new Float64Array(y.length);
      for (let row = 0; row < batch * length; row++) {
        for (let head = 0; head < heads; head++) {
          let total = 0;
          const sum = new Float64Array(headDim);
          for (let s = row - (row % length); s <= row; s++) {
            let kernel = 0;
            for (let i = 0; i < features; i++) kernel += phiQ[(row * heads + head) * features + i]! * phiK[(s * heads + head) * features + i]!;
            total += kernel;
            for (let d = 0; d < headDim; d++) sum[d] = sum[d]! + kernel * v[(s * heads + head) * headDim + d]!;
          }
          for (let d = 0; d < headDim; d++) expected[(row * heads + head) * headDim + d] = sum[d]! / total;
        }
      }
      expectClose(y, expected, { relL2: REORDERED_F64, what: "causal" });
    });
  });

  test.each(FEATURE_MAPS)("%s: what a query's features share cancels, and a causal row does not see the future", (featureMap) => {
    const shape = { dim: 12, heads: 2, featureMap, features: 64 } as const;
    const params = baselineParams(3, shape);
    const x = normals(5, 20 * 12);
    const [plain, asQuery] = [randomFeatures(x, params, shape), randomFeatures(x, params, shape, { asQuery: true })];
    for (let row = 0; row < 40; row++) {
      const ratio = asQuery[row * 64]! / plain[row * 64]!;
      for (let i = 1; i < 64; i++) expect(asQuery[row * 64 + i]! / plain[row * 64 + i]!).toBeCloseTo(ratio, 10);
    }
    const args = { batch: 1, length: 20, causal: true };
    const y = linearAttentionReference(shape, params, { x, ...args });
    const other = Float64Array.from(x, (value, i) => (i < 12 * 12 ? value : -value));
    const z = linearAttentionReference(shape, params, { x: other, ...args });
    expect([...z.subarray(0, 12 * 12)]).toEqual([...y.subarray(0, 12 * 12)]);
    expect([...z.subarray(12 * 12)]).not.toEqual([...y.subarray(12 * 12)]);
    const short = linearAttentionReference(shape, params, { x: x.subarray(0, 12 * 12), batch: 1, length: 12, causal: false });
    expectClose(y.subarray(11 * 12, 12 * 12), short.subarray(11 * 12), { relL2: REORDERED_F64, what: "the last row sees all" });
  });
});

describe("small twins", () => {
  test("attention: two tokens by hand", () => {
    const y = attention([1, 1], [0, Math.log(3)], [4, 8], { batch: 1, queryLength: 2, keyLength: 2, heads: 1, headDim: 1 });
    // Shares of 1/4 and 3/4.
    expect(y[0]).toBeCloseTo(7, 14);
    const causal = attention([1, 1], [0, Math.log(3)], [4, 8], { batch: 1, queryLength: 2, keyLength: 2, heads: 1, headDim: 1, causal: true });
    expect([...causal]).toEqual([4, expect.closeTo(7, 14)]);
    const last = attention([1], [0, Math.log(3)], [4, 8], {
      batch: 1,
      queryLength: 1,
      keyLength: 2,
      heads: 1,
      headDim: 1,
      causal: true,
      firstQuery: 1,
    });
    expect(last[0]).toBeCloseTo(7, 14);
  });

  test("random Maclaurin coefficients are those of exp, divided by the probability of a degree", () => {
    expect([0, 1, 2, 3].map((n) => maclaurinCoefficient(n) ** 2)).toEqual([2, 4, 4, 16 / 6].map((v) => expect.closeTo(v, 12)));
  });

  test("denominators keep away from 0", () => {
    expect([0, 1e-40, -1e-40, 2, -2, 1e-30].map(guard)).toEqual([1e-30, 1e-30, -1e-30, 2, -2, 1e-30]);
  });

  test("sizes that do not fit are refused", () => {
    const shape = { dim: 6, heads: 2, featureMap: "rfa", features: 3 } as const;
    expect(() => randomFeatures([1, 2, 3, 4, 5, 6], { omega: [] }, shape)).toThrow(/features must be even for rfa, got 3/);
    expect(() => randomFeatures([1], {}, { ...shape, features: 4 })).toThrow(/x must hold whole rows of 6 numbers, got 1/);
    expect(() => attentionReference({ dim: 5, heads: 2 }, {}, { x: [], batch: 1, length: 1 })).toThrow(/dim \/ heads must be an integer/);
    const params = baselineParams(1, { ...shape, features: 4 });
    expect(() => linearAttentionReference({ ...shape, features: 6 }, params, { x: [1, 2, 3, 4, 5, 6], batch: 1, length: 1 })).toThrow(
      /"omega" must hold 18 numbers, got 12/,
    );
  });
});
