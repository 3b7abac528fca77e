import { describe, expect, test } from "vitest";
import { expectClose } from "../support/compare.ts";

const options = { relL2: 1e-6, what: "y" };

describe("expectClose", () => {
  test("returns the error where it passes", () => {
    expect(expectClose([3, 4], [3, 4], options)).toBe(0);
    expect(expectClose([3, 4.000001], [3, 4], options)).toBeCloseTo(2e-7, 12);
    expect(expectClose([0, 0], [0, 0], options)).toBe(0);
    expect(expectClose([0, 1e-9], [0, 0], { ...options, absolute: 1e-8 })).toBe(1e-9);
  });

  test.each<[string, number[], number[], object, RegExp]>([
    ["a difference", [1, 2, 3.1], [1, 2, 3], {}, /^y: relative L2 error 2\.673e-2 exceeds 1\.0e-6; worst at index 2 of 3: got 3\.1, expected 3$/],
    ["the adapter", [1], [2], { adapter: "SwiftShader" }, /^y on SwiftShader: /],
    ["coordinates", [1, 2, 3, 5], [1, 2, 3, 4], { shape: [2, 2] }, /worst at \[1, 1\] of 4/],
    ["NaN", [1, NaN, NaN], [1, 2, 3], {}, /first non-finite value NaN at index 1 of 3, expected 2/],
    ["infinity", [1, 2, -Infinity], [1, 2, 3], {}, /first non-finite value -Infinity at index 2/],
    ["NaN where 0 is expected", [NaN], [0], {}, /first non-finite/],
    ["NaN in the expectation", [1], [NaN], {}, /expected value at index 0 is NaN/],
    ["NaN in both", [NaN], [NaN], {}, /expected value at index 0 is NaN/],
    ["a length", [1], [1, 2], {}, /1 values where 2 were expected/],
    ["nothing to compare", [], [], {}, /nothing to compare/],
    ["something where all is 0", [0, 1e-30], [0, 0], {}, /everything expected is 0, got up to 1e-30 \(bound 0\); worst at index 1/],
    ["too much where all is 0", [0, 1e-7], [0, 0], { absolute: 1e-8 }, /bound 1e-8/],
    ["a tolerance that cannot fail", [1], [1], { relL2: Infinity }, /relL2 must be in/],
    ["a NaN tolerance", [1], [1], { relL2: NaN }, /relL2 must be in/],
    ["a shape that does not fit", [1, 2], [1, 2], { shape: [3] }, /shape \[3\] does not fit 2 values/],
  ])("names %s", (_, actual, expected, more, message) => {
    expect(() => expectClose(actual, expected, { ...options, ...more })).toThrow(message);
  });
});
