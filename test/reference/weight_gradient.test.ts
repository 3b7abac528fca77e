import fc from "fast-check";
import { expect, test } from "vitest";
import { linear } from "../../src/reference/linear.ts";
import { mergeGradients } from "../../src/reference/merge_gradients.ts";
import { weightGradient } from "../../src/reference/weight_gradient.ts";
import { expectClose } from "../support/compare.ts";
import { FINITE_DIFFERENCE_F64, REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals } from "./inputs.ts";

const sizes = fc.record({
  seed: fc.nat(),
  rows: fc.integer({ min: 1, max: 9 }),
  inner: fc.integer({ min: 1, max: 6 }),
  outer: fc.integer({ min: 1, max: 6 }),
});

test("weight_gradient is what differences of Σ dy ⊙ linear(x) tend to", () => {
  forAll(sizes, ({ seed, rows, inner, outer }) => {
    const [x, dy, packed] = [normals(seed + 1, rows * inner), normals(seed + 2, rows * outer), normals(seed + 3, (inner + 1) * outer)];
    const objective = (at: Float64Array): number => {
      const weight = Float64Array.from({ length: outer * inner }, (_, i) => at[(i % inner) * outer + Math.floor(i / inner)]!);
      const y = linear(x, weight, at.subarray(inner * outer), { inDim: inner, outDim: outer });
      return y.reduce((sum, value, i) => sum + value * dy[i]!, 0);
    };
    const step = 1e-4;
    const differences = packed.map((_, i) => {
      const moved = (by: number) => objective(packed.map((value, j) => (i === j ? value + by : value)));
      return (moved(step) - moved(-step)) / (2 * step);
    });
    expectClose(weightGradient(x, dy, { inner, outer }), differences, { relL2: FINITE_DIFFERENCE_F64, what: "gradient" });
  });
});

test("blocks of rows, merged, are the whole", () => {
  forAll(sizes, ({ seed, rows, inner, outer }) => {
    const [x, dy, initial] = [normals(seed + 1, rows * inner), normals(seed + 2, rows * outer), normals(seed + 3, (inner + 1) * outer)];
    const blocks = Array.from({ length: rows }, (_, r) =>
      weightGradient(x.subarray(r * inner, (r + 1) * inner), dy.subarray(r * outer, (r + 1) * outer), { inner, outer }),
    );
    const size = (inner + 1) * outer;
    const merged = mergeGradients(Float64Array.from(blocks.flatMap((block) => Array.from(block))), { blocks: rows, size, initial });
    expectClose(merged, weightGradient(x, dy, { inner, outer, initial }), { relL2: REORDERED_F64, what: "merged" });
  });
});

test("by hand, and arguments of other lengths", () => {
  expect(Array.from(weightGradient([1, 2, 3, 4], [10, 100], { inner: 2, outer: 1 }))).toEqual([310, 420, 110]);
  expect(Array.from(mergeGradients([1, 2, 3, 4], { blocks: 2, size: 2, initial: [10, 20] }))).toEqual([14, 26]);
  expect(() => weightGradient([1, 2, 3], [1], { inner: 2, outer: 1 })).toThrow(/x must hold whole rows of 2 numbers, got 3/);
  expect(() => weightGradient([1, 2], [1, 2], { inner: 2, outer: 1 })).toThrow(/dy must hold rows·outer = 1 numbers, got 2/);
  expect(() => mergeGradients([1], { blocks: 2, size: 1 })).toThrow(/partial must hold blocks·size = 2 numbers, got 1/);
});
