import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planMergeGradients } from "../../src/ops/merge_gradients.ts";
import { planShift } from "../../src/ops/shift.ts";
import { planShiftBackward, shiftBlocks } from "../../src/ops/shift_backward.ts";
import { shift, shiftBackward } from "../../src/reference/shift.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

const SIZES = [
  [1, 1, 1],
  [3, 1, 5],
  [1, 2, 4],
  [2, 63, 12],
  [2, 65, 7],
  [1, 500, 33],
  [3, 129, 128],
] as const;

async function forward(
  x: Float32Array<ArrayBuffer>,
  mix: Float32Array<ArrayBuffer>,
  [batch, length, dim]: readonly [number, number, number],
  previous?: Float32Array<ArrayBuffer>,
) {
  const slot = (name: string, size: number) => slotOf(name, size);
  const ends = batch * dim;
  const step = planShift({
    x: slot("x", x.length),
    mix: slot("mix", dim),
    y: slot("y", x.length),
    previous: previous && slot("previous", ends),
    last: slot("last", ends),
    batch,
    length,
    dim,
    maxWorkgroups: 65_535,
  });
  return await runSteps(gpu, [step], { x, mix, previous: previous ?? ends, y: x.length, last: ends });
}

describe.each(SIZES)("batch %d, %d tokens of %d", (batch, length, dim) => {
  const x = normals32(1, batch * length * dim);
  const mix = normals32(2, dim);
  const dy = normals32(3, x.length);
  const previous = normals32(4, batch * dim);

  it("mixes each token with the one before it", async () => {
    const { y, last } = await forward(x, mix, [batch, length, dim]);
    expectClose(y, shift(x, mix, { batch, length, dim }), { relL2: LAYER_F32, what: "y", adapter });
    const ends = Float32Array.from({ length: batch * dim }, (_, i) => x[(Math.floor(i / dim) * length + length - 1) * dim + (i % dim)]!);
    expect(last).toEqual(ends);
  });

  it("goes on from the token before", async () => {
    const { y } = await forward(x, mix, [batch, length, dim], previous);
    expectClose(y, shift(x, mix, { batch, length, dim, previous }), { relL2: LAYER_F32, what: "y", adapter });
  });

  it("has the gradients of the twin, and adds to what dx holds", async () => {
    const blocks = shiftBlocks(batch, length);
    const padded = Math.ceil(dim / 4) * 4;
    const held = normals32(5, x.length);
    const steps = [
      planShiftBackward({
        x: slotOf("x", x.length),
        mix: slotOf("mix", dim),
        dy: slotOf("dy", x.length),
        dx: slotOf("dx", x.length),
        partial: slotOf("partial", blocks * padded),
        batch,
        length,
        dim,
        maxWorkgroups: 65_535,
      }),
      planMergeGradients({
        partial: slotOf("partial", blocks * padded),
        gradient: slotOf("dmix", padded),
        blocks,
        rows: 1,
        outer4: padded / 4,
        stride4: padded / 4,
        first4: 0,
        accumulate: false,
        maxWorkgroups: 65_535,
      }),
    ];
    const { dx, dmix } = await runSteps(gpu, steps, { x, mix, dy, dx: held, partial: blocks * padded, dmix: padded });
    const expected = shiftBackward(x, mix, dy, { batch, length, dim });
    expectClose(
      dx,
      expected.dx.map((v, i) => v + held[i]!),
      { relL2: LAYER_F32, what: "dx", adapter },
    );
    expectClose(dmix.subarray(0, dim), expected.dmix, { relL2: LAYER_F32, what: "dmix", adapter });
    expect(dmix.subarray(dim).every((v) => v === 0)).toBe(true);
  });
});

it("cut anywhere, gives the bits of one call", async () => {
  const [length, dim] = [37, 12];
  const x = normals32(6, length * dim);
  const mix = normals32(7, dim);
  const whole = (await forward(x, mix, [1, length, dim])).y;
  for (const cut of [1, 20, 36]) {
    const head = await forward(x.slice(0, cut * dim), mix, [1, cut, dim]);
    const tail = await forward(x.slice(cut * dim), mix, [1, length - cut, dim], head.last);
    expect(Float32Array.from([...head.y, ...tail.y])).toEqual(whole);
  }
});

it("works in two dimensions of workgroups", async () => {
  const [batch, length, dim] = [2, 50, 9];
  const x = normals32(8, batch * length * dim);
  const mix = normals32(9, dim);
  const step = planShift({ x: slotOf("x", x.length), mix: slotOf("mix", dim), y: slotOf("y", x.length), batch, length, dim, maxWorkgroups: 4 });
  expect(step.workgroups[1]).toBeGreaterThan(1);
  const { y } = await runSteps(gpu, [step], { x, mix, y: x.length });
  expectClose(y, shift(x, mix, { batch, length, dim }), { relL2: LAYER_F32, what: "y", adapter });
});
