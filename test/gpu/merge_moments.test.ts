import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planMergeMoments } from "../../src/ops/merge_moments.ts";
import { GROUP } from "../../src/runtime/kernel.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";

const gpu = await requestGpu({ device: await getDevice() });

/** The sum of blocks [first, end) in f32, in groups: the order that every form of the kernel keeps. */
function summed(partial: Float32Array, width: number, first: number, end: number, start: Float32Array): Float32Array {
  const total = Float32Array.from(start);
  for (let group = first; group < end; group += GROUP) {
    const sum = new Float32Array(width);
    for (let block = group; block < Math.min(group + GROUP, end); block++) {
      for (let i = 0; i < width; i++) sum[i]! += partial[block * width + i]!;
    }
    for (let i = 0; i < width; i++) total[i]! += sum[i]!;
  }
  return total;
}

describe("merge_moments adds blocks in the same order, by however many lanes", () => {
  // Up to GROUP blocks a segment one lane adds, then 16 do: once around, and several times.
  it.each([
    { segments: 1, blocks: 1, width: 4 },
    { segments: 3, blocks: 32, width: 260 },
    { segments: 1, blocks: 33, width: 12 },
    { segments: 2, blocks: 511, width: 20 },
    { segments: 1, blocks: 1_700, width: 64 },
    { segments: 5, blocks: 40, width: 4 },
  ])("$segments x $blocks blocks of $width", async ({ segments, blocks, width }) => {
    const partial = normals32(1, segments * blocks * width);
    const before = normals32(2, segments * width);
    const common = { segments, firstSegment: 0, stride4: width / 4, blocksPerSegment: blocks, maxWorkgroups: 3 };
    const slots = { partial: slotOf("partial", partial.length), moments: slotOf("moments", before.length) };
    for (const accumulate of [false, true]) {
      const moments = before.slice();
      const { moments: actual } = await runSteps(gpu, [planMergeMoments({ ...common, ...slots, accumulate })], { partial, moments });
      const expected = Array.from({ length: segments }, (_, s) => {
        const start = accumulate ? before.subarray(s * width, (s + 1) * width) : new Float32Array(width);
        return [...summed(partial, width, s * blocks, (s + 1) * blocks, start)];
      }).flat();
      expect([...actual]).toEqual(expected);
    }
  });

  it("takes segments of different numbers of blocks", async () => {
    const width = 8;
    const firsts = [0, 1, 1, 700, 733];
    const partial = normals32(3, 733 * width);
    const table = Uint32Array.from(firsts, (first) => first + 5);
    const moments = normals32(4, 4 * width);
    const step = planMergeMoments({
      partial: slotOf("partial", partial.length),
      moments: slotOf("moments", moments.length),
      segments: 4,
      firstSegment: 0,
      stride4: width / 4,
      blocksPerSegment: 733,
      ragged: { table: slotOf("table", table.length), offset: 0, firstBlock: 5 },
      accumulate: false,
      maxWorkgroups: 65_535,
    });
    const { moments: actual } = await runSteps(gpu, [step], { partial, table, moments });
    const expected = [0, 1, 2, 3].flatMap((s) => [...summed(partial, width, firsts[s]!, firsts[s + 1]!, new Float32Array(width))]);
    expect([...actual]).toEqual(expected);
  });
});
