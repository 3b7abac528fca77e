import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { padded } from "../../src/layers/params.ts";
import { planGateBackward } from "../../src/ops/gate_backward.ts";
import { type MomentSource, SOURCE_PREFIX, SOURCE_ROW, SOURCE_SEGMENT } from "../../src/ops/types.ts";
import { gateBackward } from "../../src/reference/gate_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { layerParams, normals32 } from "../support/hom.ts";
import { packProjections, padMoments, unpadMoments } from "../support/packed.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const TILES = ["8x4", "16x8", ...(device.features.has("subgroups") ? (["16x8_quads"] as const) : [])] as const;

type Sizes = { batch: number; queries: number; dim: number; order: number; orderExpand: number };
const UNIFORMS = {
  first_batch_row: 0,
  first_query: 0,
  slab_blocks: 1,
  block_tokens: 1,
  first_segment: 0,
  segments_per_row: 1,
  packed_segments: 0,
  table_offset: 0,
  prefix_table: 0,
};

/** Runs the kernel on weighted sums with a divisor a row, or on one mean a batch row; what is not wanted is left out. */
async function run(
  { batch, queries, ...shape }: Sizes,
  tile: (typeof TILES)[number],
  wanted: { selection: boolean; sums: boolean },
  perRow: boolean,
) {
  const { dim, order, orderExpand } = shape;
  const width = order * orderExpand * dim;
  const stride4 = (order * padded(orderExpand * dim)) / 4;
  const rows = batch * queries;
  const params = layerParams(rows, shape);
  const x = normals32(1, rows * dim);
  const h = normals32(2, (perRow ? rows : batch) * width);
  const dr = normals32(3, rows * width);
  const divisors = Float32Array.from(normals32(4, rows), (value) => 1 + value * value);
  const w = packProjections(params, shape);
  const both = wanted.selection && wanted.sums;
  const gradientsStride4 = both ? 2 * stride4 : stride4;
  const logitsAt4 = both ? stride4 : 0;
  const from: MomentSource = {
    source: perRow ? SOURCE_ROW : SOURCE_SEGMENT,
    moments: perRow ? slotOf("empty", 4) : slotOf("moments", 4 * batch * stride4),
    table: perRow ? slotOf("table", rows) : undefined,
    uniforms: { ...UNIFORMS, query_length: queries, slab_queries: queries, segment_length: queries },
  };
  const step = planGateBackward({
    x: { buffer: "x", byteOffset: 0, length: dim, stride: dim, first: 0, count: rows },
    w: slotOf("w", w.length),
    stride4,
    from,
    rows: slotOf("rows", 4 * rows * stride4),
    selection: wanted.selection,
    gradients: slotOf("gradients", 4 * rows * gradientsStride4),
    gradientsStride4,
    logitsAt4,
    sumsAt4: wanted.sums ? 0 : undefined,
    tile,
    maxWorkgroups: 65_535,
  });
  // The rows are sums, of which the divisors make the means.
  const sums = perRow ? h.map((value, i) => value * divisors[Math.floor(i / width)]!) : new Float32Array(rows * width).fill(Number.NaN);
  const result = await runSteps(gpu, [step], {
    x,
    w,
    moments: perRow ? 4 * batch * stride4 : padMoments(h, shape),
    table: new Uint32Array(divisors.buffer),
    rows: perRow ? padMoments(sums, shape) : 4 * rows * stride4,
    gradients: padMoments(dr, shape, 4 * gradientsStride4, 4 * logitsAt4),
    empty: 4,
  });
  const expected = gateBackward(x, h, dr, params as never, shape, { batch, queryLength: queries, divisors: perRow ? divisors : undefined });
  const close = (actual: Float32Array, values: Float64Array, what: string) => expectClose(actual, values, { relL2: LAYER_F32, what, adapter });
  if (wanted.selection) {
    close(unpadMoments(result.rows, shape), expected.gated, "r");
    close(unpadMoments(result.gradients, shape, 4 * gradientsStride4, 4 * logitsAt4), expected.gradLogits, "dlogit");
  } else if (!perRow) {
    expect(
      result.rows.every((value) => Number.isNaN(value)),
      "rows that nobody wants",
    ).toBe(true);
  }
  if (wanted.sums) close(unpadMoments(result.gradients, shape, 4 * gradientsStride4), expected.gradSums, "dsum");
}

describe.each(TILES)("tile %s", (tile) => {
  it.each<Sizes>([
    { batch: 1, queries: 1, dim: 1, order: 1, orderExpand: 1 },
    { batch: 3, queries: 21, dim: 3, order: 8, orderExpand: 1 },
    { batch: 2, queries: 65, dim: 12, order: 2, orderExpand: 3 },
    { batch: 1, queries: 257, dim: 32, order: 2, orderExpand: 1 },
  ])("B $batch, T $queries, D $dim, order $order", async (sizes) => {
    for (const perRow of [true, false]) {
      for (const wanted of [
        { selection: true, sums: true },
        { selection: true, sums: false },
        { selection: false, sums: true },
      ]) {
        await run(sizes, tile, wanted, perRow);
      }
    }
  });
});

it("takes large logits, where 1 - s would cancel", async () => {
  const shape = { dim: 4, order: 1, orderExpand: 1 };
  const logits = [0, 1, -1, 10, -10, 17, -17, 25, -25, 60, -60, 79, -79];
  const rows = logits.length;
  const params = { ...layerParams(1, shape, false), "se_proj.weight": Float32Array.from({ length: 16 }, (_, i) => (i % 5 === 0 ? 1 : 0)) };
  const x = Float32Array.from(logits.flatMap((v) => [v, v, v, v]));
  const w = packProjections(params, shape);
  const ones = new Float32Array(rows * 4).fill(1);
  const step = planGateBackward({
    x: { buffer: "x", byteOffset: 0, length: 4, stride: 4, first: 0, count: rows },
    w: slotOf("w", w.length),
    stride4: 1,
    from: {
      source: SOURCE_PREFIX,
      moments: slotOf("moments", 4 * rows),
      uniforms: { ...UNIFORMS, query_length: rows, slab_queries: rows, slab_blocks: rows, segment_length: rows },
    },
    rows: slotOf("rows", 4 * rows),
    selection: true,
    gradients: slotOf("gradients", 4 * rows),
    gradientsStride4: 1,
    logitsAt4: 0,
    tile: "8x4",
    maxWorkgroups: 65_535,
  });
  const sums = new Float32Array(rows * 4).fill(rows);
  const { gradients } = await runSteps(gpu, [step], { x, w, moments: new Float32Array(rows * 4), rows: sums, gradients: ones, empty: 4 });
  logits.forEach((logit, i) => {
    const e = Math.exp(-Math.abs(logit));
    // An exp of WGSL may be off by 3 + 2 |x| units in the last place: 2e-5 at 80.
    expect(Math.abs(gradients[4 * i]! / (e / (1 + e) ** 2) - 1), `at ${logit}: ${gradients[4 * i]}`).toBeLessThanOrEqual(2e-5);
  });
});
