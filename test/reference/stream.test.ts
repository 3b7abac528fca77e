import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { homReference } from "../../src/reference/hom.ts";
import { HomStream } from "../../src/reference/stream.ts";
import type { HomShape } from "../../src/reference/types.ts";
import { expectClose } from "../support/compare.ts";
import { REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals, randomParams } from "./inputs.ts";

const relL2 = REORDERED_F64;
const problem = fc.record({
  seed: fc.nat(),
  batch: fc.integer({ min: 1, max: 3 }),
  chunks: fc.array(fc.integer({ min: 0, max: 7 }), { minLength: 1, maxLength: 6 }),
  shape: fc.record({ dim: fc.integer({ min: 1, max: 6 }), order: fc.integer({ min: 1, max: 4 }), orderExpand: fc.integer({ min: 1, max: 2 }) }),
});

/** Tokens start … end-1 of every batch row of x [B, N, D]. */
function cut(x: Float64Array, batch: number, dim: number, start: number, end: number): Float64Array {
  const tokens = x.length / batch / dim;
  const rows = Array.from({ length: batch }, (_, b) => Array.from(x.subarray((b * tokens + start) * dim, (b * tokens + end) * dim)));
  return Float64Array.from(rows.flat());
}

describe("stream", () => {
  test("any cutting into appends gives the one-shot output", () => {
    forAll(problem, ({ seed, batch, chunks, shape }) => {
      const params = randomParams(seed, shape);
      const tokens = 1 + chunks.reduce((a, b) => a + b, 0);
      const context = normals(seed + 10, batch * tokens * shape.dim);
      const query = normals(seed + 11, batch * 3 * shape.dim);
      const stream = new HomStream(shape, params, { batch });
      let start = 0;
      for (const length of [...chunks, 1]) {
        stream.append(cut(context, batch, shape.dim, start, start + length));
        start += length;
        expect(Array.from(stream.count)).toEqual(Array(batch).fill(start));
      }
      const once = homReference(shape, params, { query, context, batch, queryLength: 3, contextLength: tokens });
      expectClose(stream.query(query), once, { relL2, what: `chunks ${chunks}` });
    });
  });

  test("any cutting into steps gives the causal output", () => {
    forAll(problem, ({ seed, batch, chunks, shape }) => {
      const params = randomParams(seed, shape);
      const tokens = 1 + chunks.reduce((a, b) => a + b, 0);
      const x = normals(seed + 10, batch * tokens * shape.dim);
      const causal = homReference(shape, params, { query: x, batch, queryLength: tokens, mask: "causal" });
      const stream = new HomStream(shape, params, { batch });
      let start = 0;
      for (const length of [...chunks, 1]) {
        const y = stream.step(cut(x, batch, shape.dim, start, start + length));
        if (length > 0) expectClose(y, cut(causal, batch, shape.dim, start, start + length), { relL2, what: `tokens from ${start}` });
        start += length;
      }
    });
  });

  test("merge is append, subtract undoes it, a clone is apart", () => {
    forAll(problem, ({ seed, batch, shape }) => {
      const params = randomParams(seed, shape);
      const make = (salt: number, tokens: number) => {
        const s = new HomStream(shape, params, { batch });
        s.append(normals(seed + salt, batch * tokens * shape.dim));
        return s;
      };
      const a = make(20, 5);
      const b = make(21, 3);
      const ab = a.clone();
      ab.merge(b);
      const ba = b.clone();
      ba.merge(a);
      expect(ab.sum).toEqual(ba.sum);
      const appended = a.clone();
      appended.append(normals(seed + 21, batch * 3 * shape.dim));
      expectClose(ab.sum, appended.sum, { relL2, what: "merged sum" });
      expect(ab.count).toEqual(appended.count);
      ab.subtract(b);
      // relative to what was added and taken away
      for (let j = 0; j < a.sum.length; j++) expect(Math.abs(ab.sum[j]! - a.sum[j]!)).toBeLessThan(1e-13 * (Math.abs(b.sum[j]!) + 1));
      expect(ab.count).toEqual(a.count);
      expect(() => b.clone().subtract(a)).toThrow(/other.count\[0\] must be at most the 3 tokens seen, got 5/);
    });
  });

  const shape: HomShape = { dim: 3, order: 2, orderExpand: 2 };
  const params = randomParams(7, shape);

  test("rows of different lengths count their own tokens", () => {
    const context = normals(8, 2 * 4 * 3);
    const query = normals(9, 2 * 2 * 3);
    const stream = new HomStream(shape, params, { batch: 2 });
    stream.append(context, { lengths: [4, 1] });
    expect(Array.from(stream.count)).toEqual([4, 1]);
    for (const [b, length] of [
      [0, 4],
      [1, 1],
    ] as const) {
      const own = { query: query.subarray(b * 6, b * 6 + 6), context: context.subarray(b * 12, b * 12 + length * 3) };
      const expected = homReference(shape, params, { ...own, batch: 1, queryLength: 2, contextLength: length });
      expectClose(stream.query(query).subarray(b * 6, b * 6 + 6), expected, { relL2, what: `row ${b}` });
    }
  });

  test("before the first token the output is the bias", () => {
    const stream = new HomStream(shape, params);
    const bias = params["ag_proj.bias"];
    expect(stream.query(normals(1, 3))).toEqual(bias);
    stream.append(normals(2, 6));
    stream.reset();
    expect(stream.query(normals(1, 3))).toEqual(bias);
  });

  test("scale keeps the mean and weighs what follows", () => {
    const a = normals(3, 6);
    const b = normals(4, 3);
    const stream = new HomStream(shape, params);
    stream.append(a);
    const before = stream.query(b);
    stream.scale(0.5);
    expectClose(stream.query(b), before, { relL2, what: "scaled" });
    stream.append(b);
    const weighted = { query: b, context: [...a, ...b], batch: 1, queryLength: 1, contextLength: 3, mask: { padding: [0.5, 0.5, 1] } };
    expectClose(stream.query(b), homReference(shape, params, weighted), { relL2: 1e-6, what: "forgetting" });
    expect(() => stream.scale(NaN)).toThrow(/gamma must be a finite number >= 0, got NaN/);
  });

  test("refuses ragged tokens and states of other sizes", () => {
    const stream = new HomStream(shape, params, { batch: 2 });
    expect(() => stream.append(new Float64Array(9))).toThrow(/context must hold whole rows of 6 numbers, got 9/);
    expect(() => stream.append(new Float64Array(6), { lengths: [1, 2] })).toThrow(/lengths\[1\] must be an integer from 0 to 1, got 2/);
    expect(() => stream.merge(new HomStream(shape, params))).toThrow(/other must have sums of shape \[2, 12\], got \[1, 12\]/);
    expect(Array.from(stream.count)).toEqual([0, 0]);
  });
});
