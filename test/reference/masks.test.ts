import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type HomArguments, homMoments, homReference } from "../../src/reference/hom.ts";
import type { HomMask, HomShape } from "../../src/reference/types.ts";
import { expectClose } from "../support/compare.ts";
import { MASK_EPSILON_F64, REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals, type RandomParams, randomParams, uniforms } from "./inputs.ts";

const activation = fc.constantFrom("gelu", "tanh", "identity", "x_erf");
const problem = fc.record({
  seed: fc.nat(),
  batch: fc.integer({ min: 1, max: 3 }),
  tokens: fc.integer({ min: 1, max: 20 }),
  queries: fc.integer({ min: 1, max: 9 }),
  bias: fc.boolean(),
  shape: fc.record({
    dim: fc.integer({ min: 1, max: 7 }),
    order: fc.integer({ min: 1, max: 5 }),
    orderExpand: fc.integer({ min: 1, max: 3 }),
    activation,
  }),
});
type Problem = typeof problem extends fc.Arbitrary<infer T> ? T : never;

function property(check: (p: Problem & { params: RandomParams; self: HomArguments; cross: HomArguments }) => void): void {
  forAll(problem, (p) => {
    const { seed, batch, tokens, queries, shape } = p;
    const context = normals(seed + 10, batch * tokens * shape.dim);
    check({
      ...p,
      params: randomParams(seed, shape, p.bias),
      self: { query: context, batch, queryLength: tokens },
      cross: { query: normals(seed + 11, batch * queries * shape.dim), context, batch, queryLength: queries, contextLength: tokens },
    });
  });
}

/** [B or 1, T, N] of a rule */
function fullOf(batch: number, queries: number, tokens: number, weight: (b: number, t: number, n: number) => number): Float64Array {
  return Float64Array.from({ length: batch * queries * tokens }, (_, i) =>
    weight(Math.floor(i / tokens / queries), Math.floor(i / tokens) % queries, i % tokens),
  );
}

/** Equal outputs up to the order of float64 operations. */
function same(shape: HomShape, params: RandomParams, a: HomArguments, b: HomArguments, what: string): void {
  expectClose(homReference(shape, params, a), homReference(shape, params, b), { relL2: REORDERED_F64, what });
}

/** Equal moments up to the 1e-7 in the denominator of one of the two. */
function sameButEpsilon(shape: HomShape, params: RandomParams, a: HomArguments, b: HomArguments, what: string): void {
  expectClose(homMoments(shape, params, a), homMoments(shape, params, b), { relL2: MASK_EPSILON_F64, what });
}

describe("masks", () => {
  test("the context defaults to the query tokens", () => {
    property(({ shape, params, self, tokens }) => same(shape, params, self, { ...self, context: self.query, contextLength: tokens }, "self"));
  });

  test("causal is the full lower triangle", () => {
    property(({ shape, params, self, tokens }) => {
      const full = fullOf(1, tokens, tokens, (_, t, n) => (n <= t ? 1 : 0));
      sameButEpsilon(shape, params, { ...self, mask: "causal" }, { ...self, mask: { full } }, "causal");
    });
  });

  test("row t of causal is the plain mean of tokens 0 ... t", () => {
    property(({ shape, params, self, batch, tokens }) => {
      const width = shape.order * shape.orderExpand * shape.dim;
      const h = homMoments(shape, params, { ...self, mask: "causal" });
      const t = (tokens - 1) >> 1;
      for (let b = 0; b < batch; b++) {
        const start = b * tokens * shape.dim;
        const seen = (self.query as Float64Array).subarray(start, start + (t + 1) * shape.dim);
        const mean = homMoments(shape, params, { query: seen, batch: 1, queryLength: t + 1 });
        const row = (b * tokens + t) * width;
        expectClose(h.subarray(row, row + width), mean.subarray(0, width), { relL2: REORDERED_F64, what: `row ${t}` });
      }
    });
  });

  test("blockCausal is its full mask, 1 is causal, all tokens in one block is none", () => {
    property(({ shape, params, self, tokens, seed }) => {
      const block = 1 + (seed % tokens);
      const full = fullOf(1, tokens, tokens, (_, t, n) => (Math.floor(n / block) <= Math.floor(t / block) ? 1 : 0));
      sameButEpsilon(shape, params, { ...self, mask: { blockCausal: block } }, { ...self, mask: { full } }, `blocks of ${block}`);
      same(shape, params, { ...self, mask: { blockCausal: 1 } }, { ...self, mask: "causal" }, "blocks of 1");
      same(shape, params, { ...self, mask: { blockCausal: tokens + (seed % 3) } }, self, "one block");
    });
  });

  test("lengths is padding is a full mask of equal rows", () => {
    property(({ shape, params, cross, batch, tokens, queries, seed }) => {
      const next = uniforms(seed);
      const lengths = Uint32Array.from({ length: batch }, () => Math.floor(next() * (tokens + 1)));
      const padding = Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens < lengths[Math.floor(i / tokens)]! ? 1 : 0));
      const full = fullOf(batch, queries, tokens, (b, _, n) => padding[b * tokens + n]!);
      for (const f of [homReference, homMoments]) {
        const expected = f(shape, params, { ...cross, mask: { lengths } });
        for (const mask of [{ padding }, { padding: Float32Array.from(padding) }, { full }, { full: Uint8Array.from(full) }]) {
          expectClose(f(shape, params, { ...cross, mask }), expected, { relL2: REORDERED_F64, what: Object.keys(mask)[0]! });
        }
      }
    });
  });

  test("a soft mask is a weighted mean: repeated tokens are weights", () => {
    property(({ shape, params, cross, batch, tokens, seed }) => {
      const next = uniforms(seed);
      const repeats = Array.from({ length: tokens }, () => Math.floor(next() * 3));
      repeats[0] = Math.max(1, repeats[0]!);
      const weights = Array.from({ length: batch }, () => repeats).flat();
      const total = repeats.reduce((a, b) => a + b, 0);
      const { dim } = shape;
      const source = cross.context as Float64Array;
      const context: number[] = [];
      for (let i = 0; i < batch * tokens; i++) for (let r = 0; r < weights[i]!; r++) context.push(...source.subarray(i * dim, (i + 1) * dim));
      sameButEpsilon(shape, params, { ...cross, context, contextLength: total }, { ...cross, mask: { padding: weights } }, "padding weights");
    });
  });

  test("an all-ones mask is none, and a mask of one batch row serves all", () => {
    property(({ shape, params, cross, batch, tokens, queries, seed }) => {
      sameButEpsilon(shape, params, { ...cross, mask: { padding: new Uint8Array(batch * tokens).fill(1) } }, cross, "ones");
      const next = uniforms(seed);
      const one = fullOf(1, queries, tokens, () => next());
      const all = Float64Array.from({ length: batch * one.length }, (_, i) => one[i % one.length]!);
      same(shape, params, { ...cross, mask: { full: one } }, { ...cross, mask: { full: all } }, "broadcast");
    });
  });

  test("a non-zero byte is true", () => {
    property(({ shape, params, cross, batch, tokens, queries, seed }) => {
      const next = uniforms(seed);
      const truth = fullOf(batch, queries, tokens, () => (next() < 0.5 ? 0 : 1));
      const bytes = Uint8Array.from(truth, (value) => value * 255);
      same(shape, params, { ...cross, mask: { full: bytes } }, { ...cross, mask: { full: truth } }, "full of 255");
      const padding = truth.slice(0, tokens);
      const first = { ...cross, query: Array.from(cross.query).slice(0, queries * shape.dim), batch: 1 };
      const row = { ...first, context: Array.from(cross.context!).slice(0, tokens * shape.dim) };
      same(shape, params, { ...row, mask: { padding: bytes.slice(0, tokens) } }, { ...row, mask: { padding } }, "padding of 255");
    });
  });

  test("cuSeqlens is a call for each segment, empty segments included", () => {
    property(({ shape, params, self, batch, tokens, seed }) => {
      const total = batch * tokens;
      const next = uniforms(seed);
      const cuts = Array.from({ length: seed % 5 }, () => Math.floor(next() * (total + 1)));
      const cuSeqlens = Uint32Array.from([0, ...cuts, total]).sort();
      const packed = homReference(shape, params, { query: self.query, batch: 1, queryLength: total, mask: { cuSeqlens } });
      const parts: number[] = [];
      for (let s = 0; s + 1 < cuSeqlens.length; s++) {
        const segment = (self.query as Float64Array).subarray(cuSeqlens[s]! * shape.dim, cuSeqlens[s + 1]! * shape.dim);
        const length = cuSeqlens[s + 1]! - cuSeqlens[s]!;
        if (length > 0) parts.push(...homReference(shape, params, { query: segment, batch: 1, queryLength: length }));
      }
      expectClose(packed, parts, { relL2: REORDERED_F64, what: "packed" });
    });
  });

  test("queryMask is the causal mask with its rows multiplied", () => {
    property(({ shape, params, self, batch, tokens, seed }) => {
      const next = uniforms(seed);
      const queryMask = Float64Array.from({ length: batch * tokens }, () => Math.floor(next() * 3) / 2);
      const full = fullOf(batch, tokens, tokens, (b, t, n) => (n <= t ? queryMask[b * tokens + t]! : 0));
      const a = homMoments(shape, params, { ...self, mask: "causal", queryMask });
      expectClose(a, homMoments(shape, params, { ...self, mask: { full } }), { relL2: REORDERED_F64, what: "queryMask" });
    });
  });

  test("who sees nothing has zero moments: the output is the bias", () => {
    property(({ shape, params, cross, batch, tokens, queries }) => {
      const masks: HomMask[] = [
        { padding: new Uint8Array(batch * tokens) },
        { padding: new Float32Array(batch * tokens) },
        { lengths: new Uint32Array(batch) },
        { full: new Uint8Array(queries * tokens) },
      ];
      const bias = params["ag_proj.bias"] ?? new Float64Array(shape.dim);
      const expected = Float64Array.from(cross.query, (_, i) => bias[i % shape.dim]!);
      const blind = masks.map((mask): HomArguments => ({ ...cross, mask }));
      blind.push({ ...cross, context: [], contextLength: 0 });
      for (const args of blind) expect(homReference(shape, params, args)).toEqual(expected);
    });
  });

  test("a masked token is never read", () => {
    property(({ shape, params, cross, batch, tokens, seed }) => {
      const next = uniforms(seed);
      const padding = Uint8Array.from({ length: batch * tokens }, () => (next() < 0.5 ? 0 : 1));
      const poisoned = Float64Array.from(cross.context!, (value, i) => (padding[Math.floor(i / shape.dim)] ? value : NaN));
      const expected = homReference(shape, params, { ...cross, mask: { padding } });
      expect(homReference(shape, params, { ...cross, context: poisoned, mask: { padding } })).toEqual(expected);
    });
  });
});

describe("arguments", () => {
  const shape: HomShape = { dim: 2, order: 2, orderExpand: 1 };
  const params = randomParams(1, shape);
  const args: HomArguments = { query: new Float64Array(12), batch: 2, queryLength: 3 };
  const cross: HomArguments = { ...args, context: new Float64Array(8), contextLength: 2 };

  test.each<[HomArguments, RegExp]>([
    [{ ...args, batch: 0 }, /batch must be an integer >= 1, got 0/],
    [{ ...args, queryLength: 4 }, /query must hold B·T·D = 16 numbers, got 12/],
    [{ ...args, contextLength: 4 }, /context must hold B·N·D = 16 numbers, got 12/],
    [{ ...cross, mask: "causal" }, /contextLength must equal queryLength = 3 for causal masks, got 2/],
    [{ ...cross, mask: { blockCausal: 2 } }, /contextLength must equal queryLength = 3/],
    [{ ...args, mask: { blockCausal: 0 } }, /mask.blockCausal must be an integer >= 1, got 0/],
    [{ ...args, mask: { padding: new Uint8Array(5) } }, /mask.padding must hold B·N = 6 numbers, got 5/],
    [{ ...args, mask: { lengths: [1] } }, /mask.lengths must hold B = 2 numbers, got 1/],
    [{ ...args, mask: { lengths: [1, 4] } }, /mask.lengths\[1\] must be an integer from 0 to 3, got 4/],
    [{ ...args, mask: { full: new Uint8Array(8) } }, /mask.full must hold B·T·N = 18 or, for every batch row alike, T·N = 9 numbers, got 8/],
    [{ ...args, mask: { cuSeqlens: [0, 6] } }, /batch must be 1 with mask.cuSeqlens, got 2/],
    [{ ...args, batch: 1, queryLength: 6, mask: { cuSeqlens: [0, 5] } }, /mask.cuSeqlens\[1\] must be the number of tokens, 6, got 5/],
    [{ ...args, batch: 1, queryLength: 6, mask: { cuSeqlens: [1, 6] } }, /mask.cuSeqlens\[0\] must be 0, got 1/],
    [{ ...args, batch: 1, queryLength: 6, mask: { cuSeqlens: [0, 4, 3, 6] } }, /mask.cuSeqlens\[2\] must be an integer from 4 to 6, got 3/],
    [{ ...args, mask: { casual: 1 } as unknown as HomMask }, /unknown key "casual"/],
    [{ ...args, mask: { blockCausal: 1, lengths: [1, 1] } as unknown as HomMask }, /mask must have one of the keys/],
    [{ ...args, mask: "full" as HomMask }, /mask must be "causal" or an object, got "full"/],
    [{ ...args, queryMask: [1, 1, 1, 1, 1, 1] }, /queryMask must come with mask "causal"/],
  ])("refuses %#", (bad, message) => {
    expect(() => homReference(shape, params, bad)).toThrow(message);
  });

  test("refuses parameters that are missing, of another length or unknown", () => {
    const { "se_proj.weight": _, ...without } = params;
    expect(() => homReference(shape, without as unknown as RandomParams, args)).toThrow(/params must have "se_proj.weight"/);
    expect(() => homReference(shape, { ...params, "ag_proj.bias": new Float64Array(3) }, args)).toThrow(/"ag_proj.bias" must hold 2 numbers, got 3/);
    expect(() => homReference(shape, { ...params, "ag_proj.bais": [] } as unknown as RandomParams, args)).toThrow(/unknown key "ag_proj.bais"/);
    expect(() => homReference({ ...shape, order: 0 }, params, args)).toThrow(/order must be an integer >= 1, got 0/);
    expect(() => homReference({ ...shape, activation: "relu" as "gelu" }, params, args)).toThrow(/activation must be one of "gelu"/);
  });
});
