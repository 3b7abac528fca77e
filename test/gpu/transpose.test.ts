import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planLinear } from "../../src/ops/linear.ts";
import { planTranspose } from "../../src/ops/transpose.ts";
import { transpose } from "../../src/reference/transpose.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { chooser, expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

interface Case {
  readonly inner: number;
  readonly outer: number;
  readonly first: number;
  readonly count: number;
  readonly scale?: number;
  readonly maxWorkgroups?: number;
}

function plan({ inner, outer, first, count, scale, maxWorkgroups = 65_535 }: Case) {
  const [w, transposed] = [slotOf("w", (inner + 1) * outer), slotOf("transposed", (count + 1) * inner)];
  return planTranspose({ w, transposed, inner, outer, first, count, scale, maxWorkgroups });
}

async function check(c: Case): Promise<void> {
  const w = normals32(c.inner + c.outer, (c.inner + 1) * c.outer);
  const result = await runSteps(gpu, [plan(c)], { w, transposed: (c.count + 1) * c.inner });
  expectSameBits(result.transposed, Float32Array.from(transpose(w, c)), JSON.stringify(c));
}

describe("transpose", () => {
  it.each<Case>([
    { inner: 4, outer: 4, first: 0, count: 4 },
    { inner: 4, outer: 500, first: 0, count: 500 },
    { inner: 1000, outer: 4, first: 0, count: 4 },
    { inner: 32, outer: 64, first: 32, count: 32 },
    { inner: 12, outer: 36, first: 8, count: 20, scale: 0.375 },
    { inner: 36, outer: 136, first: 68, count: 68 },
    { inner: 28, outer: 264, first: 0, count: 132 },
    { inner: 64, outer: 1000, first: 996, count: 4 },
    { inner: 132, outer: 1004, first: 0, count: 1004, maxWorkgroups: 7 },
  ])("$inner x $outer, columns from $first, $count of them, times $scale", check);

  it("any shape", async () => {
    const draw = chooser(7);
    for (let i = 0; i < 20; i++) {
      const [inner, outer] = [4 * draw.integer(1, 40), 4 * draw.integer(1, 40)];
      const first = 4 * draw.integer(0, outer / 4 - 1);
      await check({ inner, outer, first, count: 4 * draw.integer(1, (outer - first) / 4), maxWorkgroups: draw.of([1, 3, 65_535]) });
    }
  });

  it("makes the product with a gradient a linear", async () => {
    const [rows, inner, outer, first, count] = [33, 12, 40, 8, 20];
    const w = normals32(1, (inner + 1) * outer);
    const dy = normals32(2, rows * count);
    const [x, y] = [
      { buffer: "dy", byteOffset: 0, length: count, stride: count, first: 0, count: rows },
      { buffer: "dx", byteOffset: 0, length: inner, stride: inner, first: 0, count: rows },
    ];
    const linear = planLinear({ x, w: slotOf("transposed", (count + 1) * inner), weightDtype: "f32", y, tile: "8x4", maxWorkgroups: 65_535 });
    const steps = [plan({ inner, outer, first, count }), linear];
    const { dx } = await runSteps(gpu, steps, { w, transposed: (count + 1) * inner, dy, dx: rows * inner });
    const expected = Float64Array.from({ length: rows * inner }, (_, at) => {
      const [r, i] = [Math.floor(at / inner), at % inner];
      let sum = 0;
      for (let c = 0; c < count; c++) sum += dy[r * count + c]! * w[i * outer + first + c]!;
      return sum;
    });
    expectClose(dx, expected, { relL2: LAYER_F32, what: "dx", adapter });
  });

  it("is planned from the shapes alone", () => {
    expect(plan({ inner: 132, outer: 1004, first: 0, count: 1004 }).workgroups).toEqual([5 * 32, 1, 1]);
    expect(plan({ inner: 132, outer: 1004, first: 0, count: 1004, maxWorkgroups: 7 }).workgroups).toEqual([7, 23, 1]);
  });
});
