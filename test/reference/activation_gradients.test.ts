import { describe, expect, test } from "vitest";
import { activateBackward } from "../../src/reference/activate_backward.ts";
import { activationGradient } from "../../src/reference/activation_gradients.ts";
import { activate, LINEAR_ACTIVATION_NAMES } from "../../src/reference/activations.ts";
import { FINITE_DIFFERENCE_F64 } from "../support/tolerances.ts";

describe.each(LINEAR_ACTIVATION_NAMES)("%s", (name) => {
  const gradient = activationGradient(name);

  test("the derivative is what differences tend to", () => {
    for (let x = -12; x <= 12; x += 0.03125) {
      const step = 1e-5;
      const difference = (activate(name, x + step) - activate(name, x - step)) / (2 * step);
      expect(Math.abs(gradient(x) - difference), `at ${x}`).toBeLessThanOrEqual(FINITE_DIFFERENCE_F64);
    }
  });

  test("the far ends are finite, and those of a line", () => {
    const ends = { gelu: [0, 1], tanh: [0, 0], identity: [1, 1], x_erf: [-1, 1], silu: [0, 1] }[name];
    for (const far of [50, 1e3, 1e10, 1e200, Number.MAX_VALUE, Infinity]) {
      expect(gradient(-far)).toBeCloseTo(ends[0]!, 15);
      expect(gradient(far)).toBeCloseTo(ends[1]!, 15);
    }
  });
});

test("at 0", () => {
  expect(LINEAR_ACTIVATION_NAMES.map((name) => activationGradient(name)(0))).toEqual([0.5, 1, 1, 0, 0.5]);
});

test("activateBackward: both results, and arguments of other lengths", () => {
  const { h, du } = activateBackward([0, 2], [3, -1], "tanh");
  expect(Array.from(h)).toEqual([0, Math.tanh(2)]);
  expect(du[0]).toBe(3);
  expect(du[1]).toBeCloseTo(Math.tanh(2) ** 2 - 1, 15);
  expect(() => activateBackward([1, 2], [1], "tanh")).toThrow(/dh must hold as many as u = 2 numbers, got 1/);
  expect(() => activateBackward([1], [1], "relu" as "tanh")).toThrow(/activation must be one of/);
});
