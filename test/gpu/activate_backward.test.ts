import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { type ActivateBackwardArguments, planActivateBackward } from "../../src/ops/activate_backward.ts";
import { activateBackward } from "../../src/reference/activate_backward.ts";
import { activationGradient } from "../../src/reference/activation_gradients.ts";
import { activate, LINEAR_ACTIVATION_NAMES } from "../../src/reference/activations.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { ACTIVATION_GRADIENT_F32, LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

type Activation = ActivateBackwardArguments["activation"];

async function run(u: Float32Array<ArrayBuffer>, dh: Float32Array<ArrayBuffer>, activation: Activation, maxWorkgroups = 65_535) {
  const slot = (name: string) => slotOf(name, u.length);
  const step = planActivateBackward({ u: slot("u"), gradients: slot("gradients"), elements: u.length, activation, maxWorkgroups });
  const result = await runSteps(gpu, [step], { u, gradients: dh });
  return { h: result.u, du: result.gradients, step };
}

describe.each(LINEAR_ACTIVATION_NAMES)("%s", (activation) => {
  it.each([
    [1, 1],
    [3, 5],
    [63, 128],
    [65, 33],
    [500, 257],
    [1000, 66],
  ])("%d rows of %d", async (rows, width) => {
    const u = normals32(rows, rows * width);
    const dh = normals32(width + 1000, rows * width);
    const { h, du } = await run(u, dh, activation);
    const expected = activateBackward(u, dh, activation);
    expectClose(h, expected.h, { relL2: LAYER_F32, what: "h", adapter });
    expectClose(du, expected.du, { relL2: LAYER_F32, what: "du", adapter });
  });

  const grid = Float32Array.from({ length: 2 * 16 * 2048 + 1 }, (_, i) => -16 + i / 2048);

  it("has the derivative's value everywhere on [-16, 16]", async () => {
    const { du } = await run(grid, new Float32Array(grid.length).fill(1), activation);
    const exact = activationGradient(activation);
    let worst = { error: 0, at: 0 };
    grid.forEach((v, i) => {
      const error = Math.abs(du[i]! - exact(v));
      // written so that a NaN is kept
      if (!(error <= worst.error)) worst = { error, at: v };
    });
    expect(worst.error, `at ${worst.at} on ${adapter}`).toBeLessThanOrEqual(ACTIVATION_GRADIENT_F32);
  });

  it("keeps the relative accuracy near 0", async () => {
    const near = Float32Array.from({ length: 400 }, (_, i) => (i % 2 ? 1 : -1) * 10 ** (-30 + (i * 29) / 400));
    const { du } = await run(near, new Float32Array(near.length).fill(1), activation);
    const exact = activationGradient(activation);
    near.forEach((v, i) => {
      expect(Math.abs(du[i]! / exact(v) - 1), `${v} on ${adapter}`).toBeLessThanOrEqual(1e-6);
    });
  });

  it("is finite and right at the far ends", async () => {
    const values = [0, 1e-45, 1e-38, 0.5, 6.5, 10, 15, 20, 40, 80, 88, 89, 100, 1e3, 1e10, 1e19, 1e20, 1e38, 3e38];
    const u = Float32Array.from(values.flatMap((v) => [v, -v]));
    const { h, du } = await run(u, new Float32Array(u.length).fill(1), activation);
    const exact = activationGradient(activation);
    u.forEach((v, i) => {
      const what = `at ${v} on ${adapter}: ${du[i]} for ${exact(v)}`;
      expect(Number.isFinite(du[i]), what).toBe(true);
      expect(Math.abs(du[i]! - exact(v)), what).toBeLessThanOrEqual(ACTIVATION_GRADIENT_F32);
      expect(Number.isFinite(h[i]), `h ${what}`).toBe(true);
      expect(Math.abs(h[i]! - activate(activation, v)), `h ${what}`).toBeLessThanOrEqual(2e-7 * Math.max(1, Math.abs(v)));
    });
  });
});

it("fits any grid: 2 workgroups a dimension give the same bits", async () => {
  const [u, dh] = [normals32(1, 65 * 33), normals32(2, 65 * 33)];
  const wide = await run(u, dh, "gelu");
  const small = await run(u, dh, "gelu", 2);
  expect(small.step.workgroups[1]).toBeGreaterThan(1);
  expect(small.du).toEqual(wide.du);
  expect(small.h).toEqual(wide.h);
});
