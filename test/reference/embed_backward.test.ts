import fc from "fast-check";
import { expect, test } from "vitest";
import { embed } from "../../src/reference/embed.ts";
import { embedBackward } from "../../src/reference/embed_backward.ts";
import { expectClose } from "../support/compare.ts";
import { FINITE_DIFFERENCE_F64 } from "../support/tolerances.ts";
import { forAll, normals, uniforms } from "./inputs.ts";

test("embed_backward is what differences of Σ dy ⊙ embed(table) tend to", () => {
  const problem = fc.record({
    seed: fc.nat(),
    length: fc.integer({ min: 1, max: 9 }),
    keys: fc.integer({ min: 1, max: 5 }),
    dim: fc.integer({ min: 1, max: 3 }),
  });
  forAll(problem, ({ seed, length, keys, dim }) => {
    const next = uniforms(seed);
    const ids = Array.from({ length }, () => Math.floor(next() * keys));
    const [table, dy] = [normals(seed + 1, keys * dim), normals(seed + 2, length * dim)];
    const objective = (at: Float64Array): number =>
      embed(ids, at, undefined, { batch: 1, length, vocabSize: keys, dim }).reduce((sum, value, i) => sum + value * dy[i]!, 0);
    const step = 1e-4;
    const differences = table.map((_, i) => {
      const moved = (by: number) => objective(table.map((value, j) => (i === j ? value + by : value)));
      return (moved(step) - moved(-step)) / (2 * step);
    });
    expectClose(embedBackward(dy, ids, { keys, dim }), differences, { relL2: FINITE_DIFFERENCE_F64, what: "gradient" });
  });
});

test("by hand, and arguments that do not fit", () => {
  expect(Array.from(embedBackward([1, 2, 3, 4, 5, 6], [2, 0, 2], { keys: 3, dim: 2, initial: [0, 0, 7, 7, 100, 0] }))).toEqual([3, 4, 7, 7, 106, 8]);
  expect(() => embedBackward([1, 2], [3], { keys: 3, dim: 2 })).toThrow(/keyOf\[0\] must be an integer from 0 to 2, got 3/);
  expect(() => embedBackward([1, 2], [0, 0], { keys: 3, dim: 2 })).toThrow(/keyOf must hold rows = 1 numbers, got 2/);
});
