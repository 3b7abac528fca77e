import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { NO_TARGET, planCrossEntropy } from "../../src/ops/cross_entropy.ts";
import { planSumLoss } from "../../src/ops/sum_loss.ts";
import { STATUS, STATUS_BYTES } from "../../src/ops/types.ts";
import { crossEntropy } from "../../src/reference/cross_entropy.ts";
import { sumLoss } from "../../src/reference/sum_loss.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { chooser, expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32, LOSS_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

interface Case {
  readonly rows: number;
  readonly vocabulary: number;
  readonly logits: Float32Array<ArrayBuffer>;
  readonly targets: Uint32Array<ArrayBuffer>;
  readonly weight?: number;
  readonly gradient?: boolean;
  /** Whole vec4s of columns beyond those that the vocabulary needs. */
  readonly beyond?: number;
  readonly maxWorkgroups?: number;
}

async function run(c: Case) {
  const { rows, vocabulary, gradient = true } = c;
  const stride = Math.ceil(vocabulary / 4) * 4 + (c.beyond ?? 0);
  // A number that would take the whole softmax for itself; NaN would be lost in a max.
  const logits = new Float32Array(rows * stride).fill(500);
  for (let r = 0; r < rows; r++) logits.set(c.logits.subarray(r * vocabulary, (r + 1) * vocabulary), r * stride);
  const step = planCrossEntropy({
    logits: slotOf("logits", logits.length),
    targets: slotOf("targets", rows),
    weight: slotOf("weight", 1),
    losses: slotOf("losses", rows),
    rows,
    vocabulary,
    stride,
    gradient,
    maxWorkgroups: c.maxWorkgroups ?? 65_535,
  });
  const result = await runSteps(gpu, [step], { logits, targets: c.targets, weight: Float32Array.of(c.weight ?? 1), losses: rows });
  if (!gradient) expectSameBits(result.logits, logits, "the logits");
  const inside = (_: number, i: number) => i % stride < vocabulary;
  if (gradient) expect(result.logits.filter((v, i) => !inside(v, i)).every((v) => v === 0)).toBe(true);
  return { losses: result.losses, gradients: result.logits.filter(inside), step };
}

async function check(c: Case) {
  const done = await run(c);
  const { vocabulary, weight = 1 } = c;
  const expected = crossEntropy(c.logits, c.targets, { vocabulary, weight });
  const what = `${c.rows} rows, V = ${vocabulary}`;
  done.losses.forEach((loss, r) => {
    const bound = LOSS_F32 * weight * Math.max(1, Math.abs(expected.losses[r]! / weight));
    if (!(Math.abs(loss - expected.losses[r]!) <= bound))
      throw new Error(`${what}: loss ${loss} of row ${r}, expected ${expected.losses[r]} on ${adapter}`);
  });
  // One class has a softmax of 1 and a gradient of exactly 0.
  if (c.gradient !== false) expectClose(done.gradients, expected.gradients, { relL2: LAYER_F32, what, adapter });
  return done;
}

function drawn(rows: number, vocabulary: number, scale = 2): Case {
  const draw = chooser(rows + vocabulary);
  const targets = Uint32Array.from({ length: rows }, () => draw.integer(0, vocabulary - 1));
  return { rows, vocabulary, logits: normals32(rows * 7 + vocabulary, rows * vocabulary).map((v) => scale * v), targets };
}

describe("cross_entropy", () => {
  it.each([
    [1, 1],
    [3, 65],
    [63, 2],
    [65, 66],
    [500, 65],
    [1000, 7],
    [65, 1024],
    [3, 1025],
    [9, 5000],
    [2, 32_128],
    [1, 200_000],
  ])("%d rows, V = %d", async (rows, vocabulary) => {
    await check({ ...drawn(rows, vocabulary), weight: 1 / rows });
    await check({ ...drawn(rows, vocabulary), gradient: false });
  });

  it("targets that are not of the vocabulary leave their rows out", async () => {
    for (const vocabulary of [65, 1100]) {
      const c = drawn(33, vocabulary);
      const targets = c.targets.map((target, r) => (r % 3 === 0 ? NO_TARGET : r % 3 === 1 ? target : vocabulary));
      const { losses, gradients } = await check({ ...c, targets, weight: 1 / 11 });
      expect(Array.from(losses.filter((_, r) => r % 3 !== 1)).every((loss) => loss === 0)).toBe(true);
      expect(gradients.slice(0, vocabulary).every((v) => v === 0)).toBe(true);
    }
  });

  it("does not overflow, and keeps the largest logits apart", async () => {
    for (const vocabulary of [9, 2000]) {
      for (const scale of [100, 1e4, 1e30, 1.5e38]) {
        const spread = Float32Array.from({ length: 5 * vocabulary }, (_, i) => scale * (((i * 7) % 11) / 5 - 1));
        await check({ ...drawn(5, vocabulary), logits: spread });
      }
      const level = new Float32Array(5 * vocabulary).fill(3e38);
      const { losses } = await check({ ...drawn(5, vocabulary), logits: level });
      expect(losses[0]).toBeCloseTo(Math.log(vocabulary), 5);
    }
  });

  it("a certain row has almost no loss, and almost no gradient", async () => {
    const c = drawn(4, 65, 1);
    for (let r = 0; r < 4; r++) c.logits[r * 65 + c.targets[r]!] = 40;
    const { losses, gradients } = await run(c);
    expect(Math.max(...losses)).toBeLessThanOrEqual(LOSS_F32);
    expect(Math.max(...gradients.map(Math.abs))).toBeLessThanOrEqual(LOSS_F32);
  });

  it("columns beyond the vocabulary are not read, and become 0", async () => {
    await check({ ...drawn(10, 65), beyond: 8 });
    await check({ ...drawn(3, 1026), beyond: 4 });
  });

  it("has the same bits in any grid, and next to any other rows", async () => {
    for (const vocabulary of [65, 1030]) {
      const c = drawn(37, vocabulary);
      const whole = await check(c);
      const small = await check({ ...c, maxWorkgroups: 2 });
      expect(small.step.workgroups[1]).toBeGreaterThan(1);
      expectSameBits(small.gradients, whole.gradients, "2 workgroups a dimension");
      const alone = await run({ ...c, rows: 1, logits: c.logits.slice(9 * vocabulary, 10 * vocabulary), targets: c.targets.slice(9, 10) });
      expectSameBits(alone.gradients, whole.gradients.slice(9 * vocabulary, 10 * vocabulary), "alone");
      expectSameBits(alone.losses, whole.losses.slice(9, 10), "alone");
    }
  });

  it("any rows and vocabulary", async () => {
    const draw = chooser(3);
    for (let i = 0; i < 20; i++) {
      const rows = draw.integer(1, 40);
      const c = drawn(rows, draw.of([draw.integer(2, 300), draw.integer(1000, 1300)]), draw.of([0.1, 3, 20]));
      const targets = c.targets.map((target) => (draw.chance(0.2) ? NO_TARGET : target));
      targets[0] = c.targets[0]!;
      await check({ ...c, targets, weight: draw.of([1, 1 / 7, 1024]), beyond: 4 * draw.integer(0, 2) });
    }
  });
});

describe("sum_loss", () => {
  it.each([1, 3, 63, 65, 500, 1000, 100_000])("%d rows", async (rows) => {
    const losses = normals32(rows, rows).map((v) => 4 + v);
    const start = new Float32Array(STATUS_BYTES / 4).fill(Number.NaN);
    start[STATUS.loss] = 1000;
    const sum = async (accumulate: boolean) => {
      const step = planSumLoss({ losses: slotOf("losses", rows), status: slotOf("status", start.length), rows, accumulate });
      return (await runSteps(gpu, [step], { losses, status: start })).status;
    };
    const first = await sum(false);
    expectClose([first[STATUS.loss]!], [sumLoss(losses)], { relL2: LAYER_F32, what: "sum", adapter });
    const more = await sum(true);
    expectClose([more[STATUS.loss]!], [sumLoss(losses, 1000)], { relL2: LAYER_F32, what: "accumulated", adapter });
    expect(Array.from(more).filter((v) => Number.isNaN(v))).toHaveLength(7);
    expectSameBits(await sum(false), first, "again");
  });
});
