import { describe, expect, test } from "vitest";
import { type AdamwState, adamw } from "../../src/reference/adamw.ts";
import { gradientNorm } from "../../src/reference/gradient_norm.ts";
import { gradientStatus } from "../../src/reference/gradient_status.ts";
import { expectClose } from "../support/compare.ts";
import { REORDERED_F64 } from "../support/tolerances.ts";
import { normals } from "./inputs.ts";

const settings = { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-3, weightDecay: 0.1 } as const;
const fresh = (weights: Float64Array): AdamwState => ({ weights, first: new Float64Array(weights.length), second: new Float64Array(weights.length) });

describe("adamw", () => {
  test("a constant gradient: corrected moments are it and its square at every step", () => {
    const gradients = normals(1, 20);
    let state = fresh(normals(2, 20));
    for (let step = 1; step <= 30; step++) {
      const expected = state.weights.map((w, i) => {
        const g = gradients[i]!;
        return w * (1 - settings.lr * settings.weightDecay) - (settings.lr * g) / (Math.abs(g) + settings.eps);
      });
      state = adamw(state, gradients, { ...settings, step });
      expectClose(state.weights, expected, { relL2: REORDERED_F64, what: `step ${step}` });
    }
  });

  test("two steps by hand", () => {
    const args = { lr: 0.5, betas: [0.5, 0.75], eps: 1, weightDecay: 0.2 } as const;
    const one = adamw(fresh(Float64Array.of(10)), [4], { ...args, step: 1 });
    expect([one.first[0], one.second[0]]).toEqual([2, 4]);
    expect(one.weights[0]).toBeCloseTo(9 - (0.5 * 4) / (4 + 1), 14);
    const two = adamw(one, [0], { ...args, step: 2, weightDecay: 0 });
    expect([two.first[0], two.second[0]]).toEqual([1, 3]);
    expect(two.weights[0]).toBeCloseTo(8.6 - (0.5 * (1 / 0.75)) / (Math.sqrt(3 / 0.4375) + 1), 14);
  });

  test("a scaled gradient is a gradient", () => {
    const state = { weights: normals(1, 9), first: normals(2, 9), second: normals(3, 9).map(Math.abs) };
    const gradients = normals(4, 9);
    const scaled = adamw(
      state,
      gradients.map((g) => 0.25 * g),
      { ...settings, step: 7 },
    );
    expect(adamw(state, gradients, { ...settings, step: 7, scale: 0.25 })).toEqual(scaled);
  });

  test("refuses arrays of other lengths and a step 0", () => {
    expect(() => adamw(fresh(new Float64Array(2)), [1], { ...settings, step: 1 })).toThrow(
      /gradients must hold as many as weights = 2 numbers, got 1/,
    );
    expect(() => adamw(fresh(new Float64Array(1)), [1], { ...settings, step: 0 })).toThrow(/step must be an integer >= 1, got 0/);
  });
});

test("gradient_norm and gradient_status", () => {
  const three = gradientNorm([1, -2, 2]);
  expect(three).toEqual({ squares: 9, finite: true });
  expect(gradientStatus(three, { loss: 1, clipNorm: 5 })).toEqual({ norm: 3, scale: 1, finite: true, halted: false });
  expect(gradientStatus(three, { loss: 1, clipNorm: 1.5, halted: true })).toEqual({ norm: 3, scale: 1.5 / 3.000001, finite: true, halted: true });
  expect(gradientStatus(three, { loss: 1, clipNorm: Infinity }).scale).toBe(1);
  expect(gradientStatus(three, { loss: Number.NaN, clipNorm: 1 })).toMatchObject({ finite: false, halted: true });
  expect(gradientNorm([0, Number.NaN]).finite).toBe(false);
  expect(gradientNorm([-Infinity]).finite).toBe(false);
});
