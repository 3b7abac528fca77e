import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { embed } from "../../src/reference/embed.ts";
import { gate } from "../../src/reference/gate.ts";
import { homMoments, homReference, MASK_EPSILON } from "../../src/reference/hom.ts";
import { linear } from "../../src/reference/linear.ts";
import { maskMoments } from "../../src/reference/mask_moments.ts";
import { mergeMoments, normalise } from "../../src/reference/merge_moments.ts";
import { expandMoments, moments, segmentMoments } from "../../src/reference/moments.ts";
import { positionFrequencies, positions } from "../../src/reference/positions.ts";
import { prefixMoments } from "../../src/reference/prefix_moments.ts";
import { scanMoments } from "../../src/reference/scan_moments.ts";
import { select } from "../../src/reference/select.ts";
import { expectClose } from "../support/compare.ts";
import { REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals, randomParams, uniforms } from "./inputs.ts";

const relL2 = REORDERED_F64;
const problem = fc.record({
  seed: fc.nat(),
  batch: fc.integer({ min: 1, max: 3 }),
  tokens: fc.integer({ min: 1, max: 20 }),
  queries: fc.integer({ min: 1, max: 6 }),
  blockTokens: fc.integer({ min: 1, max: 24 }),
  shape: fc.record({ dim: fc.integer({ min: 1, max: 9 }), order: fc.integer({ min: 1, max: 4 }), orderExpand: fc.integer({ min: 1, max: 3 }) }),
});

describe("the kernels' twins compose to the layer", () => {
  test("order 2 by hand", () => {
    // D = 1, e = 2, identity: z = w·x, m = [z₁, z₂, z₃·z₁, z₄·z₂]
    const shape = { dim: 1, order: 2, orderExpand: 2, activation: "identity" } as const;
    const params = { "ho_proj.weight": [2, 3, 5, 7], "ho_proj.bias": [0, 0, 0, 1], "se_proj.weight": [0, 0, 0, 0], "ag_proj.weight": [1, 1, 1, 1] };
    expect(Array.from(expandMoments([1, -2], params, shape))).toEqual([2, 3, 10, 24, -4, -6, 40, 78]);
    // gates of 1/2, mean [-1, -1.5, 25, 51]
    expect(Array.from(homReference(shape, params, { query: [1, -2], batch: 1, queryLength: 2 }))).toEqual([36.75, 36.75]);
  });

  test("moments, merge_moments, select", () => {
    forAll(problem, ({ seed, batch, tokens, queries, blockTokens, shape }) => {
      const params = randomParams(seed, shape);
      const context = normals(seed + 10, batch * tokens * shape.dim);
      const query = normals(seed + 11, batch * queries * shape.dim);
      const width = shape.order * shape.orderExpand * shape.dim;
      const blocks = Math.ceil(tokens / blockTokens);
      const next = uniforms(seed);
      const weights = Float64Array.from({ length: batch * tokens }, () => 0.1 + next());
      const counts = Float64Array.from({ length: batch }, (_, b) => weights.subarray(b * tokens, (b + 1) * tokens).reduce((a, v) => a + v, 0));

      const sums = moments(context, params, shape, { batch, contextLength: tokens, blockTokens, weights });
      const h = mergeMoments(sums, { groups: batch, blocks, momentDim: width, counts, epsilon: MASK_EPSILON });
      const y = select(query, h, params, shape, { batch, queryLength: queries });
      const args = { query, context, batch, queryLength: queries, contextLength: tokens };
      expectClose(y, homReference(shape, params, { ...args, mask: { padding: weights } }), { relL2, what: "y" });

      const r = gate(query, h, params, shape, { batch, queryLength: queries });
      const output = linear(r, params["ag_proj.weight"], params["ag_proj.bias"], {
        inDim: width,
        outDim: shape.dim,
        residual: query,
      });
      expectClose(output, select(query, h, params, shape, { batch, queryLength: queries, residual: query }), { relL2, what: "gate, linear" });

      const carry = normals(seed + 12, batch * width);
      const carried = mergeMoments(sums, { groups: batch, blocks, momentDim: width, carry });
      const plain = mergeMoments(sums, { groups: batch, blocks, momentDim: width });
      expectClose(
        carried,
        plain.map((value, i) => value + carry[i]!),
        { relL2, what: "carry" },
      );
      const segment = segmentMoments(context, params, shape, { start: tokens * (batch - 1), end: tokens * batch, weights });
      expectClose(plain.subarray((batch - 1) * width), segment, { relL2, what: "segment" });
    });
  });

  test("prefix_moments, scan_moments: causal, in slabs with a carry", () => {
    forAll(problem, ({ seed, batch, tokens, blockTokens, shape }) => {
      const params = randomParams(seed, shape);
      const x = normals(seed + 10, batch * tokens * shape.dim);
      const width = shape.order * shape.orderExpand * shape.dim;
      const blocks = Math.ceil(tokens / blockTokens);
      const before = normals(seed + 12, batch * width);
      const sizes = { batch, contextLength: tokens, blockTokens };
      const { prefix, totals } = prefixMoments(x, params, shape, sizes);
      expectClose(totals, moments(x, params, shape, sizes), { relL2, what: "block totals" });

      const scan = scanMoments(totals, { batch, blocks, momentDim: width });
      const h = new Float64Array(prefix.length);
      for (let i = 0; i < batch * tokens; i++) {
        const block = Math.floor(i / tokens) * blocks + Math.floor((i % tokens) / blockTokens);
        for (let j = 0; j < width; j++) h[i * width + j] = (prefix[i * width + j]! + scan.before[block * width + j]!) / ((i % tokens) + 1);
      }
      const args = { query: x, batch, queryLength: tokens, mask: "causal" } as const;
      expectClose(h, homMoments(shape, params, args), { relL2, what: "causal moments" });
      const y = select(x, h, params, shape, { batch, queryLength: tokens });
      expectClose(y, homReference(shape, params, args), { relL2, what: "causal y" });

      const carried = scanMoments(totals, { batch, blocks, momentDim: width, carry: before });
      expectClose(carried.total, mergeMoments(totals, { groups: batch, blocks, momentDim: width, carry: before }), { relL2, what: "total" });
      const shifted = scan.before.map((value, i) => value + before[Math.floor(i / width / blocks) * width + (i % width)]!);
      expectClose(carried.before, shifted, { relL2, what: "carried scan" });
    });
  });

  test("mask_moments: full", () => {
    forAll(problem, ({ seed, batch, tokens, queries, shape }) => {
      const params = randomParams(seed, shape);
      const context = normals(seed + 10, batch * tokens * shape.dim);
      const query = normals(seed + 11, batch * queries * shape.dim);
      const next = uniforms(seed);
      const full = Float32Array.from({ length: batch * queries * tokens }, () => next());
      const width = shape.order * shape.orderExpand * shape.dim;
      const sizes = { batch, queryLength: queries, contextLength: tokens };
      const { sums, weights } = maskMoments(expandMoments(context, params, shape), full, { ...sizes, momentDim: width });
      for (let i = 0; i < weights.length; i++) normalise(sums.subarray(i * width, (i + 1) * width), weights[i]!, MASK_EPSILON);
      const y = select(query, sums, params, shape, { batch, queryLength: queries });
      expectClose(y, homReference(shape, params, { ...sizes, query, context, mask: { full } }), { relL2, what: "y" });
    });
  });
});

describe("small twins", () => {
  test("linear: activation, bias, residual", () => {
    const weight = [1, 2, 3, 4, 5, 6]; // [3, 2]
    expect(Array.from(linear([1, -1, 2, 0], weight, undefined, { inDim: 2, outDim: 3 }))).toEqual([-1, -1, -1, 2, 6, 10]);
    const y = linear([1, -1], weight, [1, 2, 3], { inDim: 2, outDim: 3, residual: [10, 20, 30] });
    expect(Array.from(y)).toEqual([10, 21, 32]);
    const silu = linear([1, -1], weight, [1, 2, 3], { inDim: 2, outDim: 3, activation: "silu", residual: [10, 20, 30] });
    expect(silu[2]).toBeCloseTo(30 + 2 / (1 + Math.exp(-2)), 14);
    expect(() => linear([1], weight, undefined, { inDim: 2, outDim: 3 })).toThrow(/x must hold whole rows of 2 numbers, got 1/);
    expect(() => linear([1, 2], weight, [1], { inDim: 2, outDim: 3 })).toThrow(/bias must hold outDim = 3 numbers, got 1/);
  });

  test("embed: shared and own positions", () => {
    const table = [0, 1, 10, 11, 20, 21]; // [3, 2]
    const sizes = { batch: 2, length: 2, vocabSize: 3, dim: 2 };
    expect(Array.from(embed([2, 0, 1, 1], table, undefined, sizes))).toEqual([20, 21, 0, 1, 10, 11, 10, 11]);
    expect(Array.from(embed([2, 0, 1, 1], table, [100, 200, 300, 400], sizes))).toEqual([120, 221, 300, 401, 110, 211, 310, 411]);
    expect(Array.from(embed([2, 0, 1, 1], table, [1, 2, 3, 4, 5, 6, 7, 8], sizes))).toEqual([21, 23, 3, 5, 15, 17, 17, 19]);
    expect(() => embed([2, 3, 1, 1], table, undefined, sizes)).toThrow(/tokenIds\[1\] must be an integer from 0 to 2, got 3/);
  });

  test("positions: cos, then sin", () => {
    const freqs = positionFrequencies(4, 16);
    expect(freqs[0]).toBe(1);
    expect(freqs[1]).toBeCloseTo(1 / 8, 15);
    const features = positions([0, 5], freqs);
    expect(Array.from(features.subarray(0, 4))).toEqual([1, 1, 0, 0]);
    expect(Array.from(features.subarray(4))).toEqual([Math.cos(5), Math.cos(5 * freqs[1]!), Math.sin(5), Math.sin(5 * freqs[1]!)]);
    expect(() => positionFrequencies(5, 16)).toThrow(/dim must be even, got 5/);
  });

  test("merge_moments: no blocks and no count is 0", () => {
    expect(Array.from(mergeMoments([], { groups: 1, blocks: 0, momentDim: 2, counts: [0] }))).toEqual([0, 0]);
  });

  test("select: moments of another size are refused", () => {
    const shape = { dim: 2, order: 1, orderExpand: 1 };
    const run = () => select(new Float64Array(8), new Float64Array(6), randomParams(1, shape), shape, { batch: 2, queryLength: 2 });
    expect(run).toThrow(/h must hold B·M = 4 or B·T·M = 8 numbers, got 6/);
  });
});
