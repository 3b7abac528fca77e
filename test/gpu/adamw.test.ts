import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { type AdamwSettings, adamwSettings, decayBits, planAdamw } from "../../src/ops/adamw.ts";
import { planGradientNorm } from "../../src/ops/gradient_norm.ts";
import { planGradientStatus } from "../../src/ops/gradient_status.ts";
import { STATUS, STATUS_BYTES } from "../../src/ops/types.ts";
import { type AdamwState, adamw } from "../../src/reference/adamw.ts";
import { gradientNorm } from "../../src/reference/gradient_norm.ts";
import { gradientStatus } from "../../src/reference/gradient_status.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const LARGE = { maxBinding: 1 << 27, maxWorkgroups: 65_535 };
const settings: AdamwSettings = { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.1, clipNorm: 1, step: 1 };

const words = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

/** The status of a step: f32, but for its flags. */
function statusOf(start: { loss?: number; halted?: boolean; scale?: number } = {}): Float32Array<ArrayBuffer> {
  const status = new Float32Array(STATUS_BYTES / 4).fill(Number.NaN);
  status[STATUS.loss] = start.loss ?? 2.5;
  status[STATUS.scale] = start.scale ?? Number.NaN;
  words(status)[STATUS.halted] = start.halted ? 1 : 0;
  return status;
}

async function norm(gradients: Float32Array<ArrayBuffer>, args: { clipNorm?: number; loss?: number; halted?: boolean; limits?: typeof LARGE } = {}) {
  const { clipNorm = 1, limits = LARGE } = args;
  const { steps, partial } = planGradientNorm({ gradients: slotOf("gradients", gradients.length), partial: "partial", ...limits });
  const status = planGradientStatus({ partial, settings: slotOf("settings", 8), status: slotOf("status", 8) });
  const result = await runSteps(gpu, [...steps, status], {
    gradients,
    partial: Math.max(4, partial.size / 4),
    settings: adamwSettings({ ...settings, clipNorm }),
    status: statusOf(args),
  });
  const flags = words(result.status);
  return {
    norm: result.status[STATUS.norm]!,
    scale: result.status[STATUS.scale]!,
    loss: result.status[STATUS.loss]!,
    finite: flags[STATUS.finite],
    halted: flags[STATUS.halted],
    bad: result.partial.reduce((sum, value, i) => sum + (i % 2 === 1 && i < partial.size / 4 ? value : 0), 0),
    steps,
  };
}

describe("gradient_norm, gradient_status", () => {
  it.each([4, 12, 252, 260, 2000, 4000, 65 * 1024, 300_000, 5_000_000])("%d gradients", async (count) => {
    const gradients = normals32(count, count);
    for (const clipNorm of [0.5, 1e6, Infinity]) {
      const found = await norm(gradients, { clipNorm });
      const expected = gradientStatus(gradientNorm(gradients), { loss: 2.5, clipNorm });
      expectClose([found.norm, found.scale], [expected.norm, expected.scale], { relL2: LAYER_F32, what: "norm, scale", adapter });
      expectClose([found.scale], [expected.scale], { relL2: LAYER_F32, what: "scale", adapter });
      expect([found.finite, found.halted, found.loss, found.bad]).toEqual([1, 0, 2.5, 0]);
    }
  });

  it("in slices that bindings hold, and in any grid, with the same bits every time", async () => {
    const gradients = normals32(1, 40_000);
    const limits = { maxBinding: 50_000, maxWorkgroups: 2 };
    const found = await norm(gradients, { limits });
    expect(found.steps).toHaveLength(4);
    for (const { slots, workgroups } of found.steps) {
      expect(slots["gradients"]!.size).toBeLessThanOrEqual(limits.maxBinding);
      expect(workgroups[0]).toBeLessThanOrEqual(2);
    }
    expectClose([found.norm], [Math.sqrt(gradientNorm(gradients).squares)], { relL2: LAYER_F32, what: "norm", adapter });
    expect((await norm(gradients, { limits })).norm).toBe(found.norm);
    const wide = await norm(gradients, { limits: { ...limits, maxWorkgroups: 65_535 } });
    expect(wide.norm).toBe(found.norm);
  });

  it("gradients of 0 are not scaled", async () => {
    expect(await norm(new Float32Array(64))).toMatchObject({ norm: 0, scale: 1, finite: 1, halted: 0 });
  });

  const patterns = {
    "a NaN": 0x7fc00000,
    "a signalling NaN": 0x7f800001,
    "a negative NaN": 0xffffffff,
    infinity: 0x7f800000,
    "-infinity": 0xff800000,
  };
  it.each(Object.entries(patterns))("%s anywhere is found, by its bits", async (_, bits) => {
    for (const at of [0, 63, 64, 4095, 4096, 9997, 9999]) {
      const gradients = normals32(at, 10_000);
      words(gradients)[at] = bits;
      expect(await norm(gradients, { limits: { maxBinding: 12_800, maxWorkgroups: 65_535 } }), `at ${at}`).toMatchObject({
        finite: 0,
        halted: 1,
        bad: 1,
      });
    }
  });

  it("the largest finite numbers are finite, their norm is not", async () => {
    const gradients = new Float32Array(64);
    gradients[5] = 1e18;
    expect(await norm(gradients)).toMatchObject({ finite: 1, halted: 0 });
    gradients[5] = 3e38;
    expect(await norm(gradients)).toMatchObject({ finite: 0, halted: 1 });
  });

  it("a loss that is not finite halts, and halted stays", async () => {
    for (const loss of [Number.NaN, Infinity, -Infinity]) expect(await norm(normals32(1, 64), { loss })).toMatchObject({ finite: 0, halted: 1 });
    expect(await norm(normals32(1, 64), { halted: true })).toMatchObject({ finite: 1, halted: 1 });
  });
});

describe("adamw", () => {
  const count = 4 * 777;
  // Starts and ends inside words of 32 bits, and over their borders.
  const ranges = [
    { start: 0, end: 4 },
    { start: 120, end: 132 },
    { start: 400, end: 2000 },
    { start: 3000, end: 3001 },
  ];
  const decays = (i: number): boolean => ranges.some(({ start, end }) => i >= start && i < Math.ceil(end / 4) * 4);

  function plan(limits = LARGE) {
    const slot = (name: string) => slotOf(name, count);
    const decayed = slotOf("decayed", decayBits(ranges, count).length);
    const [own, status] = [slotOf("settings", 8), slotOf("status", 8)];
    return planAdamw({
      weights: slot("weights"),
      gradients: slot("gradients"),
      first: slot("first"),
      second: slot("second"),
      decayed,
      settings: own,
      status,
      ...limits,
    });
  }

  async function step(state: Record<"weights" | "first" | "second", Float32Array<ArrayBuffer>>, number: number, start = {}, limits = LARGE) {
    const gradients = normals32(100 + number, count);
    const own = { ...settings, step: number };
    const contents = {
      ...state,
      gradients,
      decayed: decayBits(ranges, count),
      settings: adamwSettings(own),
      status: statusOf({ scale: 0.125, ...start }),
    };
    const { weights, first, second } = await runSteps(gpu, plan(limits), contents);
    return { state: { weights, first, second }, gradients, own };
  }

  it("ten steps, decay where the table says, against float64", async () => {
    let state = { weights: normals32(1, count), first: new Float32Array(count), second: new Float32Array(count) };
    let exact: AdamwState = { weights: Float64Array.from(state.weights), first: new Float64Array(count), second: new Float64Array(count) };
    for (let number = 1; number <= 10; number++) {
      const done = await step(state, number);
      state = done.state;
      const next = (weightDecay: number) => adamw(exact, done.gradients, { ...done.own, weightDecay, scale: 0.125 });
      const [without, decayed] = [next(0), next(settings.weightDecay)];
      exact = { ...without, weights: without.weights.map((w, i) => (decays(i) ? decayed.weights[i]! : w)) };
      for (const name of ["weights", "first", "second"] as const) {
        expectClose(state[name], exact[name], { relL2: LAYER_F32, what: `${name} after step ${number}`, adapter });
      }
    }
  });

  it("the step itself is as exact as its numbers, at the 1st and the 10,000th", async () => {
    const zeros = new Float32Array(count);
    for (const number of [1, 10_000]) {
      const { state, gradients, own } = await step({ weights: zeros, first: zeros, second: zeros }, number);
      const exact = adamw({ weights: zeros, first: zeros, second: zeros }, gradients, { ...own, scale: 0.125 });
      for (const name of ["weights", "first", "second"] as const) {
        expectClose(state[name], exact[name], { relL2: LAYER_F32, what: `${name} at step ${number}`, adapter });
      }
    }
  });

  it("in slices that bindings hold, and in any grid, with the same bits", async () => {
    const state = { weights: normals32(1, count), first: normals32(2, count), second: normals32(3, count).map(Math.abs) };
    const limits = { maxBinding: 3000, maxWorkgroups: 2 };
    expect(plan(limits)).toHaveLength(5);
    const whole = await step(state, 3);
    const sliced = await step(state, 3, {}, limits);
    for (const name of ["weights", "first", "second"] as const) expectSameBits(sliced.state[name], whole.state[name], name);
  });

  it("changes nothing once halted", async () => {
    const state = { weights: normals32(1, count), first: normals32(2, count), second: normals32(3, count).map(Math.abs) };
    const done = await step(state, 3, { halted: true, scale: Number.NaN });
    for (const name of ["weights", "first", "second"] as const) expectSameBits(done.state[name], state[name], name);
  });

  it("padding stays 0", async () => {
    const zeros = new Float32Array(count);
    const contents = {
      weights: zeros,
      first: zeros,
      second: zeros,
      gradients: zeros,
      decayed: decayBits(ranges, count),
      settings: adamwSettings(settings),
    };
    const result = await runSteps(gpu, plan(), { ...contents, status: statusOf({ scale: 1 }) });
    for (const name of ["weights", "first", "second"] as const) expect(result[name].every((v) => v === 0)).toBe(true);
  });

  it("decay bits: one for every 4 numbers", () => {
    expect(
      Array.from(
        decayBits(
          [
            { start: 4, end: 8 },
            { start: 124, end: 132 },
          ],
          300,
        ),
      ),
    ).toEqual([0x80000002, 1, 0, 0]);
    expect(() => decayBits([{ start: 6, end: 8 }], 8)).toThrow(/start at a multiple of 4, got 6/);
  });
});
