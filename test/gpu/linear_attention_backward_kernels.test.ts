import { describe, expect, it } from "vitest";
import { packFeatures, vectorsOf } from "../../src/baselines/feature_weights.ts";
import { requestGpu } from "../../src/index.ts";
import { planAppendOnes } from "../../src/ops/append_ones.ts";
import { planFeatureAttentionBackward } from "../../src/ops/feature_attention_backward.ts";
import { planFeatureProducts } from "../../src/ops/feature_products.ts";
import { planFeatureScores } from "../../src/ops/feature_scores.ts";
import { featureStateStride4 } from "../../src/ops/feature_sums.ts";
import { planRandomFeatures } from "../../src/ops/random_features.ts";
import { factorBytes, hasLength, planRandomFeaturesBackward } from "../../src/ops/random_features_backward.ts";
import { planRandomVectorsBackward } from "../../src/ops/random_vectors_backward.ts";
import { FEATURE_MAPS } from "../../src/ops/types.ts";
import { appendOnes } from "../../src/reference/append_ones.ts";
import { featureAttentionBackward } from "../../src/reference/feature_attention_backward.ts";
import { featureProducts } from "../../src/reference/feature_products.ts";
import { featureScores } from "../../src/reference/linear_attention.ts";
import { randomFeaturesBackward } from "../../src/reference/random_features_backward.ts";
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

/** [.., d + 1] with the last number in four of its own. */
function padShares(values: ArrayLike<number>, headDim: number): Float32Array<ArrayBuffer> {
  const width = padded(headDim) + 4;
  const count = values.length / (headDim + 1);
  return Float32Array.from({ length: count * width }, (_, i) => {
    const [row, d] = [Math.floor(i / width), i % width];
    if (d < headDim) return values[row * (headDim + 1) + d] ?? 0;
    return d === width - 4 ? (values[row * (headDim + 1) + headDim] ?? 0) : 0;
  });
}

describe.each(FEATURE_MAPS)("random_features_backward and random_vectors_backward, %s", (featureMap) => {
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
    const gradPhi = normals32(6, rows * heads * features);
    const dphi = new Float32Array(rows * heads * width);
    for (let i = 0; i < gradPhi.length; i++) {
      const [feature, head, row] = [i % features, Math.floor(i / features) % heads, Math.floor(i / features / heads)];
      dphi[(row * heads + head) * width + packed.positions[head]![feature]!] = gradPhi[i]!;
    }
    const vectors = {
      w: slotOf("w", packed.w.length),
      counts: slotOf("counts", packed.counts.length),
      vectors: vectorsOf(shape),
      levels: packed.levels,
    };
    const xStride4 = padX.length / rows / 4;
    const dxStride4 = xStride4 + 1;
    const phi = slotOf("phi", dphi.length);
    const common = { featureMap, x: slotOf("x", padX.length), xStride4, vectors, rows, heads, headDim, asQuery, maxWorkgroups };
    const steps = [planRandomFeatures({ ...common, phi })];
    // In two parts, where there is more than one row.
    const atOnce = Math.ceil(rows / 2);
    const perRow = factorBytes(vectors, heads) / 4;
    for (let firstRow = 0; firstRow < rows; firstRow += atOnce) {
      const rowsAtOnce = Math.min(atOnce, rows - firstRow);
      const factors = slotOf("factors", rowsAtOnce * perRow);
      steps.push(
        planRandomFeaturesBackward({ ...common, phi, dphi: slotOf("dphi", dphi.length), factors, firstRow, rowsAtOnce }),
        planRandomVectorsBackward({
          ...common,
          factors,
          hasLength: hasLength(featureMap, asQuery),
          dx: slotOf("dx", rows * dxStride4 * 4),
          dxStride4,
          firstRow,
          rowsAtOnce,
        }),
      );
    }
    const { dx } = await runSteps(gpu, steps, {
      x: padX,
      w: packed.w,
      counts: packed.counts,
      phi: dphi.length,
      dphi,
      factors: atOnce * perRow,
      dx: rows * dxStride4 * 4,
    });
    const expected = pad(randomFeaturesBackward(x, gradPhi, params, shape, { asQuery }), heads, headDim);
    const own = heads * padded(headDim);
    const actual = Float32Array.from(expected, (_, i) => dx[Math.floor(i / own) * dxStride4 * 4 + (i % own)]!);
    expectClose(actual, expected, { relL2: LAYER_F32, what: "dx", adapter });
  });
});

describe("random_features_backward", () => {
  it.each(FEATURE_MAPS)("%s of a token of zeros is finite, and right where factors are 0", async (featureMap) => {
    const shape = { dim: 4, heads: 1, featureMap, features: 8 };
    const params = baselineParams(4, shape);
    const packed = packFeatures({ featureMap, features: 8, heads: 1, headDim: 4 }, params as Parameters<typeof packFeatures>[1]);
    const vectors = {
      w: slotOf("w", packed.w.length),
      counts: slotOf("counts", packed.counts.length),
      vectors: vectorsOf(shape),
      levels: packed.levels,
    };
    // The second is orthogonal to some of the random signs.
    const x = Float32Array.of(0, 0, 0, 0, 1, 1, -1, 0);
    const [phi, dphi, factors] = [slotOf("phi", 16), slotOf("dphi", 16), slotOf("factors", (2 * factorBytes(vectors, 1)) / 4)];
    const common = { featureMap, x: slotOf("x", 8), xStride4: 1, vectors, rows: 2, heads: 1, headDim: 4, asQuery: false, maxWorkgroups };
    const part = { factors, firstRow: 0, rowsAtOnce: 2 };
    const { dx } = await runSteps(
      gpu,
      [
        planRandomFeatures({ ...common, phi }),
        planRandomFeaturesBackward({ ...common, ...part, phi, dphi }),
        planRandomVectorsBackward({ ...common, ...part, hasLength: hasLength(featureMap, false), dx: slotOf("dx", 8), dxStride4: 1 }),
      ],
      { x, w: packed.w, counts: packed.counts, phi: 16, dphi: new Float32Array(16).fill(1), factors: factors.size / 4, dx: 8 },
    );
    const expected = randomFeaturesBackward(x, new Float32Array(16).fill(1), params, shape);
    expectClose(dx, expected, { relL2: LAYER_F32, what: "dx", adapter });
  });
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
  const rows = batch * tokens;
  const [head4, features4] = [padded(headDim) / 4, padded(features) / 4];
  const sizes = { batch, length: tokens, heads, features, width: headDim, blockTokens };
  const blocks = Math.ceil(tokens / blockTokens);

  it("feature_scores from a token on", async () => {
    const [a, b] = [normals32(6, rows * heads * features), normals32(7, rows * heads * features)];
    const length = rows * heads * blockTokens;
    const step = planFeatureScores({
      phiQ: slotOf("a", rows * heads * 4 * features4),
      phiK: slotOf("b", rows * heads * 4 * features4),
      scores: slotOf("scores", length),
      heads,
      features4,
      batchRows: batch,
      tokens,
      blockTokens,
      later: true,
      maxWorkgroups,
    });
    const { scores } = await runSteps(gpu, [step], { a: pad(a, heads, features), b: pad(b, heads, features), scores: length });
    const expected = featureScores(a, b, { ...sizes, headDim, later: true });
    // Tiles of the past are not written.
    const written = scores.map((value, i) => (Number.isNaN(value) && expected[i] === 0 ? 0 : value));
    expectClose(written, expected, { relL2: LAYER_F32, what: "scores", adapter, shape: [batch, tokens, heads, blockTokens] });
  });

  it.each([false, true].flatMap((transposed) => ["none", "earlier", "later"].map((local) => ({ transposed, local }))))(
    "feature_products, transposed $transposed, local $local",
    async ({ transposed, local }) => {
      const all = local === "none";
      const ofBlock = all ? tokens : blockTokens;
      const [inner, columns] = transposed ? [headDim, features] : [features, headDim];
      const x = normals32(8, rows * heads * inner);
      const count = all ? batch : batch * blocks;
      const sums = normals32(9, count * heads * features * headDim);
      const state = 4 * featureStateStride4({ heads, head4, features4 });
      const packed = new Float32Array(count * state);
      for (let i = 0; i < sums.length; i++) {
        const [d, f, head, b] = [
          i % headDim,
          Math.floor(i / headDim) % features,
          Math.floor(i / headDim / features) % heads,
          Math.floor(i / headDim / features / heads),
        ];
        packed[b * state + f * heads * 4 * head4 + head * 4 * head4 + d] = sums[i]!;
      }
      const u = normals32(10, rows * heads * columns);
      const [q, k] = [normals32(11, rows * heads * features), normals32(12, rows * heads * features)];
      const scores = featureScores(q, k, { ...sizes, headDim, later: local === "later" });
      const columns4 = padded(columns) / 4;
      const yStride4 = heads * columns4 + beyond / 4 + 1;
      const padX = pad(x, heads, inner);
      const padU = pad(u, heads, columns);
      const step = planFeatureProducts({
        x: slotOf("x", padX.length),
        sums: slotOf("sums", packed.length),
        features4,
        width4: head4,
        transposed,
        local: all
          ? undefined
          : { scores: slotOf("scores", scores.length), later: local === "later", u: slotOf("u", padU.length), uWidth4: columns4, blockTokens },
        y: slotOf("y", rows * yStride4 * 4),
        columns4,
        yOffset4: 1,
        yStride4,
        heads,
        batchRows: batch,
        tokens,
        maxWorkgroups,
      });
      const { y } = await runSteps(gpu, [step], {
        x: padX,
        sums: packed,
        scores: Float32Array.from(scores),
        u: padU,
        y: rows * yStride4 * 4,
        empty: 4,
      });
      const expected = pad(featureProducts(x, sums, { ...sizes, blockTokens: ofBlock, transposed }, all ? undefined : { scores, u }), heads, columns);
      const own = heads * 4 * columns4;
      const actual = Float32Array.from(expected, (_, i) => y[4 + Math.floor(i / own) * yStride4 * 4 + (i % own)]!);
      expectClose(actual, expected, { relL2: LAYER_F32, what: "y", adapter });
    },
  );

  it("append_ones", async () => {
    const v = normals32(13, rows * heads * headDim);
    const shifted = pad(v, heads, headDim, beyond + 4);
    const padV = Float32Array.of(Number.NaN, Number.NaN, Number.NaN, Number.NaN, ...shifted.subarray(0, shifted.length - 4));
    const length = rows * heads * 4 * (head4 + 1);
    const step = planAppendOnes({
      v: slotOf("v", padV.length),
      vOffset4: 1,
      vStride4: padV.length / rows / 4,
      y: slotOf("y", length),
      rows,
      heads,
      head4,
      maxWorkgroups,
    });
    const { y } = await runSteps(gpu, [step], { v: padV, y: length });
    expect([...y]).toEqual([...padShares(appendOnes(v, { heads, headDim }), headDim)]);
  });

  it("feature_attention_backward, and again from its stats", async () => {
    const products = normals32(14, rows * heads * (headDim + 1));
    // A denominator below the least that divides.
    products[headDim] = 1e-31;
    const dy = normals32(15, rows * heads * headDim);
    const [shares, padDy] = [padShares(products, headDim), pad(dy, heads, headDim)];
    const common = { dy: slotOf("dy", padDy.length), stats: slotOf("stats", 2 * rows * heads), rows, heads, head4, maxWorkgroups };
    const first = planFeatureAttentionBackward({ ...common, shares: slotOf("shares", shares.length), y: slotOf("y", padDy.length), isSecond: false });
    const second = planFeatureAttentionBackward({ ...common, shares: slotOf("again", shares.length), y: slotOf("unused", 4), isSecond: true });
    const result = await runSteps(gpu, [first, second], {
      dy: padDy,
      stats: 2 * rows * heads,
      shares,
      again: shares.length,
      y: padDy.length,
      unused: 4,
    });
    const expected = featureAttentionBackward(products, dy, { heads, headDim });
    expectClose(result.y, pad(expected.y, heads, headDim), { relL2: LAYER_F32, what: "y", adapter });
    expectClose(result.shares, padShares(expected.shares, headDim), { relL2: LAYER_F32, what: "shares", adapter });
    expect([...result.again]).toEqual([...result.shares]);
  });
});
