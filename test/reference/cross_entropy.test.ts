import fc from "fast-check";
import { expect, test } from "vitest";
import { crossEntropy } from "../../src/reference/cross_entropy.ts";
import { sumLoss } from "../../src/reference/sum_loss.ts";
import { expectClose } from "../support/compare.ts";
import { FINITE_DIFFERENCE_F64, REORDERED_F64 } from "../support/tolerances.ts";
import { forAll, normals, uniforms } from "./inputs.ts";

const problem = fc.record({ seed: fc.nat(), rows: fc.integer({ min: 1, max: 4 }), vocabulary: fc.integer({ min: 2, max: 9 }) });

function draw({ seed, rows, vocabulary }: { seed: number; rows: number; vocabulary: number }) {
  const next = uniforms(seed);
  return { logits: normals(seed + 1, rows * vocabulary, 2), targets: Array.from({ length: rows }, () => Math.floor(next() * vocabulary)) };
}

test("the gradient is what differences of the summed loss tend to", () => {
  forAll(problem, (p) => {
    const { logits, targets } = draw(p);
    const sizes = { vocabulary: p.vocabulary, weight: 0.25 };
    const step = 1e-5;
    const differences = logits.map((_, i) => {
      const moved = (by: number) =>
        sumLoss(
          crossEntropy(
            logits.map((v, j) => (i === j ? v + by : v)),
            targets,
            sizes,
          ).losses,
        );
      return (moved(step) - moved(-step)) / (2 * step);
    });
    expectClose(crossEntropy(logits, targets, sizes).gradients, differences, { relL2: FINITE_DIFFERENCE_F64, what: "gradient" });
  });
});

test("a row's gradient adds up to 0, and does not change when all its logits move", () => {
  forAll(problem, (p) => {
    const { logits, targets } = draw(p);
    const { losses, gradients } = crossEntropy(logits, targets, p);
    for (let r = 0; r < p.rows; r++) expect(sumLoss(gradients.subarray(r * p.vocabulary, (r + 1) * p.vocabulary))).toBeCloseTo(0, 12);
    const moved = crossEntropy(
      logits.map((v) => v + 700),
      targets,
      p,
    );
    // 700 costs three digits of the logits.
    expectClose(moved.losses, losses, { relL2: REORDERED_F64, what: "losses" });
    expectClose(moved.gradients, gradients, { relL2: REORDERED_F64, what: "gradients" });
  });
});

test("by hand", () => {
  const { losses, gradients } = crossEntropy([0, 0, 0, Math.log(3), 5, 5], [1, 0, 2], { vocabulary: 2, weight: 2 });
  expect(losses[0]).toBeCloseTo(2 * Math.log(2), 15);
  expect(losses[1]).toBeCloseTo(2 * Math.log(4), 15);
  expect(Array.from(gradients.subarray(0, 2))).toEqual([1, -1]);
  expect(gradients[2]).toBeCloseTo(-1.5, 15);
  expect(gradients[3]).toBeCloseTo(1.5, 15);
  // The last target is not of this vocabulary.
  expect([losses[2], gradients[4], gradients[5]]).toEqual([0, 0, 0]);
  expect(sumLoss([1, 2], 3)).toBe(6);
  expect(() => crossEntropy([1, 2], [0, 1], { vocabulary: 2 })).toThrow(/targets must hold rows = 1 numbers, got 2/);
  expect(() => crossEntropy([1, 2], [-1], { vocabulary: 2 })).toThrow(/targets\[0\] must be an integer >= 0, got -1/);
});
