import { describe, expect, test } from "vitest";
import { CLAMP, dihForward, dihReference } from "../../src/reference/dih.ts";
import { dihBackward } from "../../src/reference/dih_backward.ts";
import type { Weights } from "../../src/reference/types.ts";
import { expectClose } from "../support/compare.ts";
import { dihProblem } from "../support/dih.ts";
import { dihGolden, goldenCases, loadGolden } from "../support/golden.ts";
import { FINITE_DIFFERENCE_F64, REFERENCE_GOLDEN } from "../support/tolerances.ts";
import { normals } from "./inputs.ts";

describe("the float64 backward pass of the diffusion model gives the golden gradients", async () => {
  const cases = (await goldenCases("dih")).filter(({ grads }) => grads.length > 0);
  test("of one case", () => expect(cases.length).toBe(1));
  test.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { shape, params, args } = dihGolden(golden);
    const { image, params: grads } = dihBackward(shape, params, { ...args, gradOutput: golden.tensor("in.G").data });
    const actual: Record<string, Float64Array> = { "in.img": image, ...grads };
    expect(Object.keys(actual).sort()).toEqual(entry.grads.map((key) => key.slice("grad.".length)).sort());
    for (const key of entry.grads) {
      expectClose(actual[key.slice("grad.".length)]!, golden.tensor(key).data, { relL2: REFERENCE_GOLDEN, what: key });
    }
  });
});

describe.each(["DiH", "DiH++", "DiH++ resized"] as const)("the float64 backward pass of a %s", (kind) => {
  test.each([1, 2, 3, 4])("is the derivative: central differences along a random direction of every tensor, sizes of seed %d", (seed) => {
    const { shape, params, args } = dihProblem(seed, kind);
    const { gradOutput, ...forward } = args;
    const gradients = dihBackward(shape, params, args);
    const loss = (weights: Weights, image: ArrayLike<number>) =>
      dihReference(shape, weights, { ...forward, image }).reduce((sum, y, i) => sum + y * gradOutput[i]!, 0);
    const check = (what: string, gradient: Float64Array, value: ArrayLike<number>, lossAt: (value: Float64Array) => number) => {
      expect(gradient.length, what).toBe(value.length);
      const direction = normals(seed + 30, value.length);
      const slope = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
      const at = (step: number) => lossAt(Float64Array.from(value, (v, i) => v + step * direction[i]!));
      // The error of the fourth-order difference falls with step⁴, its rounding grows with 1/step.
      const step = 2e-4;
      const difference = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
      const size = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0) * direction.reduce((sum, d) => sum + d * d, 0));
      expect(Math.abs(difference - slope), `${what}: ${difference} against ${slope}`).toBeLessThanOrEqual(FINITE_DIFFERENCE_F64 * (1 + size));
    };
    check("image", gradients.image, args.image, (image) => loss(params, image));
    const { freqs: _, ...trained } = params;
    expect(Object.keys(gradients.params).sort()).toEqual(Object.keys(trained).sort());
    for (const [key, value] of Object.entries(trained)) {
      check(key, gradients.params[key]!, value, (changed) => loss({ ...params, [key]: changed }, args.image));
    }
    if (kind !== "DiH") expect(dihForward("test", shape, params, forward).x.some((value) => Math.abs(value) === CLAMP)).toBe(true);
  });
});
