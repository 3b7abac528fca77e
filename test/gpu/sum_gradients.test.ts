import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planScanGradients } from "../../src/ops/scan_gradients.ts";
import { planSumGradients } from "../../src/ops/sum_gradients.ts";
import { RANGE_PACKED, RANGE_REGULAR, type TokenBlocks } from "../../src/ops/types.ts";
import { scanGradients } from "../../src/reference/scan_gradients.ts";
import { sumGradients } from "../../src/reference/sum_gradients.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const close = (actual: Float32Array, expected: Float64Array, what: string) => expectClose(actual, expected, { relL2: LAYER_F32, what, adapter });
const maxWorkgroups = 65_535;

/** Rows `[rows, width]` as the first columns of longer ones. */
function beside(rows: Float32Array, width: number, stride: number): Float32Array<ArrayBuffer> {
  const count = rows.length / width;
  const out = new Float32Array(count * stride).fill(Number.NaN);
  for (let row = 0; row < count; row++) out.set(rows.subarray(row * width, (row + 1) * width), row * stride);
  return out;
}
const columns = (rows: Float32Array, width: number, stride: number): Float32Array =>
  Float32Array.from({ length: (rows.length / stride) * width }, (_, i) => rows[Math.floor(i / width) * stride + (i % width)]!);

function regular(groups: number, queries: number, blockTokens: number): TokenBlocks {
  const blocks = Math.ceil(queries / blockTokens);
  return {
    count: groups * blocks,
    uniforms: {
      blocks: groups * blocks,
      block_tokens: blockTokens,
      blocks_per_segment: blocks,
      first_block: 0,
      first_segment: 0,
      segments_per_row: 1,
      segment_length: queries,
      row_tokens: queries,
      token_base: 0,
      range_mode: RANGE_REGULAR,
      packed_segments: 0,
    },
  };
}

describe("sum_gradients", () => {
  it.each([
    { groups: 1, queries: 1, blockTokens: 8, ahead: 1, width: 4, stride: 4 },
    { groups: 3, queries: 63, blockTokens: 8, ahead: 2, width: 12, stride: 24 },
    { groups: 2, queries: 65, blockTokens: 32, ahead: 8, width: 8, stride: 12 },
    { groups: 1, queries: 1000, blockTokens: 1024, ahead: 4, width: 4, stride: 8 },
    { groups: 5, queries: 7, blockTokens: 8, ahead: 8, width: 256, stride: 512 },
  ])("$groups x $queries in blocks of $blockTokens, ahead $ahead", async ({ groups, queries, blockTokens, ahead, width, stride }) => {
    const rows = normals32(1, groups * queries * width);
    const expected = sumGradients(rows, { groups, queryLength: queries, momentDim: width, blockTokens, ahead });
    for (const suffix of [undefined, { ahead }]) {
      const given = beside(rows, width, stride);
      const step = planSumGradients({
        rows: slotOf("rows", given.length),
        rowsStride4: stride / 4,
        stride4: width / 4,
        blocks: regular(groups, queries, blockTokens),
        totals: slotOf("totals", expected.totals.length),
        suffix,
        maxWorkgroups,
      });
      const result = await runSteps(gpu, [step], { rows: given, totals: expected.totals.length, empty: 4 });
      close(result.totals, expected.totals, "totals");
      if (suffix) close(columns(result.rows, width, stride), expected.suffix, "suffix");
      else expect(result.rows).toEqual(given);
    }
  });

  it("of packed sequences, from the second segment on", async () => {
    const cu = [0, 5, 5, 40, 41];
    const firsts = [0, 1, 1, 6, 7];
    const width = 4;
    const rows = normals32(2, (41 - 5) * width);
    const blocks: TokenBlocks = {
      count: 6,
      uniforms: {
        ...regular(1, 41, 8).uniforms,
        blocks: 6,
        blocks_per_segment: 1,
        first_block: 1,
        token_base: 5,
        range_mode: RANGE_PACKED,
        packed_segments: 4,
      },
      table: slotOf("table", 10),
    };
    const step = planSumGradients({
      rows: slotOf("rows", rows.length),
      rowsStride4: 1,
      stride4: 1,
      blocks,
      totals: slotOf("totals", 24),
      maxWorkgroups,
    });
    const { totals } = await runSteps(gpu, [step], { rows, totals: 24, table: Uint32Array.from([...cu, ...firsts]) });
    const third = sumGradients(rows.subarray(0, 35 * width), { groups: 1, queryLength: 35, momentDim: width, blockTokens: 8 }).totals;
    const fourth = sumGradients(rows.subarray(35 * width), { groups: 1, queryLength: 1, momentDim: width, blockTokens: 8 }).totals;
    close(totals, Float64Array.from([...third, ...fourth]), "totals");
  });
});

describe("scan_gradients", () => {
  it.each([
    { groups: 1, blocks: 1, width: 4, cut: 1 },
    { groups: 3, blocks: 33, width: 12, cut: 32 },
    { groups: 2, blocks: 65, width: 4, cut: 7 },
    { groups: 1, blocks: 257, width: 64, cut: 100 },
  ])("$groups x $blocks blocks in slabs of $cut, from the last to the first", async ({ groups, blocks, width, cut }) => {
    const totals = normals32(1, groups * blocks * width);
    for (const segments of [undefined, { length: 5, rowTokens: 5 * blocks - 2 }]) {
      const expected = scanGradients(totals, { groups, blocks, momentDim: width, segments });
      const actual = new Float32Array(totals.length);
      let running = new Float32Array(groups * 2 * width).fill(Number.NaN);
      for (let first = Math.floor((blocks - 1) / cut) * cut; first >= 0; first -= cut) {
        const count = Math.min(cut, blocks - first);
        const part = Float32Array.from({ length: groups * count * width }, (_, i) => {
          const group = Math.floor(i / (count * width));
          return totals[(group * blocks + first) * width + (i % (count * width))]!;
        });
        const step = planScanGradients({
          totals: slotOf("totals", part.length),
          running: slotOf("running", running.length),
          batchRows: groups,
          stride4: width / 4,
          blocks: count,
          firstBlock: first,
          segments,
          accumulate: first + count < blocks,
          maxWorkgroups,
        });
        const result = await runSteps(gpu, [step], { totals: part, running });
        running = result.running;
        result.totals.forEach((value, i) => {
          const group = Math.floor(i / (count * width));
          actual[(group * blocks + first) * width + (i % (count * width))] = value;
        });
      }
      close(actual, expected, segments ? "segments" : "blocks");
    }
  });
});
