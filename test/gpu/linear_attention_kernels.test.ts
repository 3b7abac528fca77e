import { describe, expect, it } from "vitest";
import { packFeatures, vectorsOf } from "../../src/baselines/feature_weights.ts";
import { requestGpu } from "../../src/index.ts";
import { planFeatureAttention } from "../../src/ops/feature_attention.ts";
import { planFeatureScores } from "../../src/ops/feature_scores.ts";
import { featureStateStride4, planFeatureSums } from "../../src/ops/feature_sums.ts";
import { planRandomFeatures } from "../../src/ops/random_features.ts";
import { FEATURE_MAPS, type FeatureMap } from "../../src/ops/types.ts";
import { featureAttention, featureScores, featureSums } from "../../src/reference/linear_attention.ts";
import { randomFeatures } from "../../src/reference/random_features.ts";
import { baselineParams } from "../support/baselines.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const { maxComputeWorkgroupsPerDimension: maxWorkgroups } = gpu.limits;
const padded = (width: number): number => Math.ceil(width / 4) * 4;

/** Rows of `groups` x `width`, each group padded with zeros to a multiple of 4, then `beyond` numbers that are not read. */
function pad(values: ArrayLike<number>, groups: number, width: number, beyond = 0): Float32Array<ArrayBuffer> {
  const rows = values.length / groups / width;
  const stride = groups * padded(width) + beyond;
  const out = new Float32Array(rows * stride).fill(Number.NaN);
  for (let r = 0; r < rows; r++) {
    out.fill(0, r * stride, r * stride + groups * padded(width));
    for (let i = 0; i < groups * width; i++)
      out[r * stride + Math.floor(i / width) * padded(width) + (i % width)] = values[r * groups * width + i] ?? 0;
  }
  return out;
}

describe.each(FEATURE_MAPS)("random_features, %s", (featureMap) => {
  it.each([
    { rows: 1, heads: 1, headDim: 4, features: 4, beyond: 0, asQuery: false },
    { rows: 63, heads: 2, headDim: 6, features: 10, beyond: 8, asQuery: false },
    { rows: 65, heads: 3, headDim: 8, features: 48, beyond: 24, asQuery: true },
    { rows: 20, heads: 1, headDim: 64, features: 130, beyond: 0, asQuery: true },
    { rows: 500, heads: 2, headDim: 5, features: 6, beyond: 4, asQuery: false },
  ])("$rows rows, $heads heads of $headDim, $features features, as query $asQuery", async ({ rows, heads, headDim, features, beyond, asQuery }) => {
    const shape = { dim: heads * headDim, heads, featureMap, features };
    const params = baselineParams(4, shape);
    const packed = packFeatures({ featureMap, features, heads, headDim }, params as Parameters<typeof packFeatures>[1]);
    const x = normals32(5, rows * shape.dim);
    const padX = pad(x, heads, headDim, beyond);
    const width = 4 * packed.features4;
    const step = planRandomFeatures({
      featureMap,
      x: slotOf("x", padX.length),
      xStride4: padX.length / rows / 4,
      vectors: { w: slotOf("w", packed.w.length), counts: slotOf("counts", packed.counts.length), vectors: vectorsOf(shape), levels: packed.levels },
      phi: slotOf("phi", rows * heads * width),
      rows,
      heads,
      headDim,
      asQuery,
      maxWorkgroups,
    });
    const { phi } = await runSteps(gpu, [step], { x: padX, w: packed.w, counts: packed.counts, phi: rows * heads * width });
    const natural = new Float64Array(rows * heads * features);
    const used = new Set<number>();
    for (let i = 0; i < natural.length; i++) {
      const [feature, head, row] = [i % features, Math.floor(i / features) % heads, Math.floor(i / features / heads)];
      const at = (row * heads + head) * width + packed.positions[head]![feature]!;
      used.add(at);
      natural[i] = phi[at]!;
    }
    const expected = randomFeatures(x, params, shape, { asQuery });
    expectClose(natural, expected, { relL2: LAYER_F32, what: "phi", adapter, shape: [rows, heads, features] });
    expect(used.size).toBe(natural.length);
    expect([...phi].filter((value, i) => !used.has(i) && value !== 0)).toEqual([]);
  });
});

describe("random_features", () => {
  it("angles of any moderate size", async () => {
    const omega = Float32Array.from({ length: 400 }, (_, i) => (i - 200) * 0.37);
    const packed = packFeatures({ featureMap: "rfa", features: 800, heads: 1, headDim: 1 }, { omega });
    const step = planRandomFeatures({
      featureMap: "rfa",
      x: slotOf("x", 4),
      xStride4: 1,
      vectors: { w: slotOf("w", packed.w.length), counts: slotOf("counts", 1), vectors: 400, levels: 1 },
      phi: slotOf("phi", 800),
      rows: 1,
      heads: 1,
      headDim: 1,
      asQuery: false,
      maxWorkgroups,
    });
    const { phi } = await runSteps(gpu, [step], { x: Float32Array.of(3, 0, 0, 0), w: packed.w, counts: packed.counts, phi: 800 });
    for (let i = 0; i < 400; i++) {
      const [sine, cosine] = [phi[packed.positions[0]![i]!]! * 20, phi[packed.positions[0]![400 + i]!]! * 20];
      // x/|x| is 1 to a rounding, and so the angle, of up to 74 radians.
      expect(Math.abs(sine - Math.sin(omega[i]!)), `sin ${omega[i]}`).toBeLessThan(3e-7 + 2e-7 * Math.abs(omega[i]!));
      expect(Math.abs(cosine - Math.cos(omega[i]!)), `cos ${omega[i]}`).toBeLessThan(3e-7 + 2e-7 * Math.abs(omega[i]!));
    }
  });

  it.each(["favor", "rfa", "maclaurin_exp", "maclaurin_gaussian"] as const)(
    "%s of a token of zeros, and of an enormous one, is finite",
    async (featureMap: FeatureMap) => {
      const shape = { dim: 4, heads: 1, featureMap, features: 8 };
      const packed = packFeatures({ featureMap, features: 8, heads: 1, headDim: 4 }, baselineParams(4, shape) as Parameters<typeof packFeatures>[1]);
      const step = planRandomFeatures({
        featureMap,
        x: slotOf("x", 8),
        xStride4: 1,
        vectors: {
          w: slotOf("w", packed.w.length),
          counts: slotOf("counts", packed.counts.length),
          vectors: vectorsOf(shape),
          levels: packed.levels,
        },
        phi: slotOf("phi", 16),
        rows: 2,
        heads: 1,
        headDim: 4,
        asQuery: true,
        maxWorkgroups,
      });
      const x = Float32Array.of(0, 0, 0, 0, 1000, -1000, 500, 1000);
      const { phi } = await runSteps(gpu, [step], { x, w: packed.w, counts: packed.counts, phi: 16 });
      expect([...phi].every(Number.isFinite)).toBe(true);
      expect([...phi].some((value) => value !== 0)).toBe(true);
    },
  );
});

const cases = [
  { batch: 1, tokens: 1, heads: 1, headDim: 4, features: 4, blockTokens: 8, beyond: 0 },
  { batch: 2, tokens: 63, heads: 2, headDim: 6, features: 10, blockTokens: 32, beyond: 4 },
  { batch: 1, tokens: 65, heads: 3, headDim: 12, features: 20, blockTokens: 16, beyond: 12 },
  { batch: 3, tokens: 20, heads: 1, headDim: 64, features: 36, blockTokens: 64, beyond: 0 },
  { batch: 1, tokens: 500, heads: 2, headDim: 8, features: 12, blockTokens: 64, beyond: 16 },
];

describe.each(cases)("$batch x $tokens tokens, $heads heads of $headDim, $features features, blocks of $blockTokens", (c) => {
  const { batch, tokens, heads, headDim, features, blockTokens, beyond } = c;
  const sizes = { batch, length: tokens, heads, headDim, features };
  const [head4, features4] = [padded(headDim) / 4, padded(features) / 4];
  const kernel = { heads, head4, features4 };
  const blocks = Math.ceil(tokens / blockTokens);
  const positive = (seed: number) => normals32(seed, batch * tokens * heads * features).map(Math.exp);
  const [phiQ, phiK, v] = [positive(6), positive(7), normals32(8, batch * tokens * heads * headDim)];
  const [padQ, padK] = [pad(phiQ, heads, features), pad(phiK, heads, features)];
  // What lies before the values, as keys do, and what lies beyond them.
  const vOffset4 = 1;
  const rows = pad(v, heads, headDim, beyond + 4 * vOffset4);
  const padV = Float32Array.of(...Array(4 * vOffset4).fill(Number.NaN), ...rows.subarray(0, rows.length - 4 * vOffset4));
  const vStride4 = padV.length / batch / tokens / 4;
  const stateFloats = 4 * featureStateStride4(kernel);

  /** Sums and weights as the kernels have them. */
  function packState(sums: Float64Array, weights: Float64Array, count: number): Float32Array<ArrayBuffer> {
    const out = new Float32Array(count * stateFloats);
    const row = heads * 4 * head4;
    for (let b = 0; b < count; b++) {
      for (let head = 0; head < heads; head++) {
        for (let i = 0; i < features; i++) {
          const at = (b * heads + head) * features + i;
          for (let d = 0; d < headDim; d++) out[b * stateFloats + i * row + head * 4 * head4 + d] = sums[at * headDim + d] ?? 0;
          out[b * stateFloats + 4 * features4 * row + head * 4 * features4 + i] = weights[at] ?? 0;
        }
      }
    }
    return out;
  }

  it("feature_sums", async () => {
    const step = planFeatureSums({
      ...kernel,
      phi: slotOf("phi", padK.length),
      v: slotOf("v", padV.length),
      vOffset4,
      vStride4,
      sums: slotOf("sums", batch * blocks * stateFloats),
      batchRows: batch,
      tokens,
      blockTokens,
      maxWorkgroups,
    });
    const { sums } = await runSteps(gpu, [step], { phi: padK, v: padV, sums: batch * blocks * stateFloats });
    const expected = featureSums(phiK, v, { ...sizes, blockTokens });
    expectClose(sums, packState(expected.sums, expected.weights, batch * blocks), { relL2: LAYER_F32, what: "sums", adapter });
  });

  it("feature_scores", async () => {
    const length = batch * tokens * heads * blockTokens;
    const step = planFeatureScores({
      phiQ: slotOf("q", padQ.length),
      phiK: slotOf("k", padK.length),
      scores: slotOf("scores", length),
      heads,
      features4,
      batchRows: batch,
      tokens,
      blockTokens,
      maxWorkgroups,
    });
    const { scores } = await runSteps(gpu, [step], { q: padQ, k: padK, scores: length });
    const expected = featureScores(phiQ, phiK, { ...sizes, blockTokens });
    // Tiles of the future are not written.
    const written = scores.map((value, i) => (Number.isNaN(value) && expected[i] === 0 ? 0 : value));
    expectClose(written, expected, { relL2: LAYER_F32, what: "scores", adapter, shape: [batch, tokens, heads, blockTokens] });
  });

  it("feature_attention over all tokens, and over earlier blocks and its own", async () => {
    const all = featureSums(phiK, v, { ...sizes, blockTokens: tokens });
    const state = packState(all.sums, all.weights, batch);
    const yFloats = batch * tokens * heads * 4 * head4;
    const base = { ...kernel, phi: slotOf("phi", padQ.length), y: slotOf("y", yFloats), batchRows: batch, queries: tokens, maxWorkgroups };
    const full = planFeatureAttention({ ...base, sums: slotOf("sums", state.length) });
    const { y } = await runSteps(gpu, [full], { phi: padQ, sums: state, y: yFloats, empty: 4 });
    const expected = featureAttention(phiQ, all, { ...sizes, blockTokens: tokens });
    expectClose(y, pad(expected, heads, headDim), { relL2: LAYER_F32, what: "y", adapter });

    const per = featureSums(phiK, v, { ...sizes, blockTokens });
    const before = { sums: new Float64Array(per.sums.length), weights: new Float64Array(per.weights.length) };
    for (const key of ["sums", "weights"] as const) {
      const width = per[key].length / (batch * blocks);
      for (let i = 0; i < per[key].length; i++)
        if (Math.floor(i / width) % blocks > 0) before[key][i] = before[key][i - width]! + per[key][i - width]!;
    }
    const scores = featureScores(phiQ, phiK, { ...sizes, blockTokens });
    const carry = packState(before.sums, before.weights, batch * blocks);
    const local = { scores: slotOf("scores", scores.length), v: slotOf("v", padV.length), vOffset4, vStride4, blockTokens };
    const causal = planFeatureAttention({ ...base, sums: slotOf("sums", carry.length), local });
    const result = await runSteps(gpu, [causal], { phi: padQ, sums: carry, scores: Float32Array.from(scores), v: padV, y: yFloats });
    const wanted = featureAttention(phiQ, before, { ...sizes, blockTokens }, { scores, v });
    expectClose(result.y, pad(wanted, heads, headDim), { relL2: LAYER_F32, what: "causal y", adapter });
  });
});
