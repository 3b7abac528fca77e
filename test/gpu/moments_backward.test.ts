import { describe, expect, it } from "vitest";
import { type Activation, requestGpu } from "../../src/index.ts";
import { padded } from "../../src/layers/params.ts";
import { planMomentsBackward } from "../../src/ops/moments_backward.ts";
import { ACTIVATIONS, type GradientSource, SOURCE_PACKED, SOURCE_PREFIX, SOURCE_ROW, SOURCE_SEGMENT } from "../../src/ops/types.ts";
import { momentsBackward } from "../../src/reference/moments_backward.ts";
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

const BASE = {
  first_batch_row: 0,
  first_token: 0,
  slab_tokens: 1,
  slab_blocks: 1,
  block_tokens: 1,
  first_segment: 0,
  segments_per_row: 1,
  segment_length: 1,
  packed_segments: 0,
  weighting: 0,
};

describe.each(TILES)("tile %s", (tile) => {
  it.each([
    [1, 1, 1, 1],
    [63, 3, 8, 1],
    [65, 5, 3, 2],
    [257, 32, 2, 1],
    [100, 12, 4, 3],
    [2, 64, 5, 1],
  ])("%d tokens, D %d, order %d, expansion %d", async (rows, dim, order, orderExpand) => {
    // The large tiles compile slowly.
    for (const activation of tile === "8x4" ? ACTIVATIONS : (["gelu"] as const)) {
      const shape = { dim, order, orderExpand, activation };
      const params = layerParams(rows, shape);
      const width = order * orderExpand * dim;
      const [x, gradients] = [normals32(1, rows * dim), normals32(2, rows * width)];
      const { du } = await run(shape, params, x, gradients, tile);
      expectClose(du, momentsBackward(x, gradients, params as never, shape), { relL2: LAYER_F32, what: `du, ${activation}`, adapter });
    }
  });
});

/** Plain gradients of the moments, a row a token, in rows with something beside them. */
async function run(
  shape: { dim: number; order: number; orderExpand: number; activation: Activation },
  params: Record<string, Float32Array>,
  x: Float32Array<ArrayBuffer>,
  gradients: Float32Array<ArrayBuffer>,
  tile: (typeof TILES)[number],
  maxWorkgroups = 65_535,
) {
  const expand4 = padded(shape.orderExpand * shape.dim) / 4;
  const stride4 = shape.order * expand4;
  const count = x.length / shape.dim;
  const w = packProjections(params, shape);
  const rows = padMoments(gradients, shape, 8 * stride4 + 4);
  const from: GradientSource = { source: SOURCE_ROW, sums: slotOf("empty", 4), uniforms: { ...BASE, slab_tokens: count } };
  const step = planMomentsBackward({
    x: { buffer: "x", byteOffset: 0, length: shape.dim, stride: shape.dim, first: 0, count },
    w: slotOf("w", w.length),
    activation: shape.activation,
    order: shape.order,
    expand4,
    from,
    rows: slotOf("rows", rows.length),
    rowsStride4: 2 * stride4 + 1,
    tile,
    maxWorkgroups,
  });
  const result = await runSteps(gpu, [step], { x, w, rows, empty: 4 });
  return { du: unpadMoments(result.rows, shape, 8 * stride4 + 4), step };
}

it("fits any grid: 2 workgroups a dimension give the same bits", async () => {
  const shape = { dim: 12, order: 2, orderExpand: 4, activation: "gelu" } as const;
  const params = layerParams(1, shape);
  const [x, gradients] = [normals32(1, 300 * 12), normals32(2, 300 * 96)];
  const wide = await run(shape, params, x, gradients, "8x4");
  const small = await run(shape, params, x, gradients, "8x4", 2);
  expect(small.step.workgroups[1]).toBeGreaterThan(1);
  expect(small.du).toEqual(wide.du);
});

describe("where a token finds its gradients", () => {
  const shape = { dim: 5, order: 2, orderExpand: 1, activation: "gelu" } as const;
  const params = layerParams(3, shape);
  const width = 10;
  const stride4 = 4;
  const w = packProjections(params, shape);
  const [batch, tokens] = [3, 7];
  const x = normals32(4, batch * tokens * shape.dim);
  const sums = normals32(5, 64 * width);
  const rows = normals32(6, batch * tokens * width);
  const weights = Float32Array.from({ length: batch * tokens }, (_, i) => (i % 4 === 0 ? 0 : (i % 5) / 3));
  const scaled = (of: (batchRow: number, token: number) => { sum?: number; row?: boolean; weight?: number }) =>
    Float64Array.from({ length: batch * tokens * width }, (_, at) => {
      const [row, j] = [Math.floor(at / width), at % width];
      const { sum, row: own, weight = 1 } = of(Math.floor(row / tokens), row % tokens);
      return weight * ((own ? rows[at]! : 0) + (sum === undefined ? 0 : sums[sum * width + j]!));
    });
  const cu = Uint32Array.of(0, 0, 5, 6, 6, 21);
  const cases: { name: string; source: GradientSource["source"]; uniforms: object; table?: Uint32Array<ArrayBuffer>; expected: Float64Array }[] = [
    { name: "batch rows", source: SOURCE_SEGMENT, uniforms: { segment_length: tokens }, expected: scaled((b) => ({ sum: b })) },
    {
      name: "segments, from the second batch row on",
      source: SOURCE_SEGMENT,
      uniforms: { first_batch_row: 1, segment_length: 3, segments_per_row: 3, first_segment: 3 },
      expected: scaled((b, n) => ({ sum: b * 3 + Math.floor(n / 3) })),
    },
    {
      name: "padding",
      source: SOURCE_SEGMENT,
      uniforms: { segment_length: tokens, weighting: 1 },
      table: new Uint32Array(weights.buffer),
      expected: scaled((b, n) => ({ sum: b, weight: weights[b * tokens + n]! })),
    },
    {
      name: "lengths",
      source: SOURCE_SEGMENT,
      uniforms: { segment_length: tokens, weighting: 2 },
      table: Uint32Array.of(0, 7, 3),
      expected: scaled((b, n) => ({ sum: b, weight: n < [0, 7, 3][b]! ? 1 : 0 })),
    },
    {
      name: "packed sequences",
      source: SOURCE_PACKED,
      uniforms: { slab_tokens: batch * tokens, packed_segments: 5, first_segment: 1 },
      table: cu,
      expected: scaled((b, n) => ({ sum: cu.findLastIndex((start) => start <= b * tokens + n) - 1 })),
    },
    {
      name: "causal blocks",
      source: SOURCE_PREFIX,
      uniforms: { slab_blocks: 2, block_tokens: 4 },
      expected: scaled((b, n) => ({ row: true, sum: 2 * b + Math.floor(n / 4) })),
    },
    { name: "rows", source: SOURCE_ROW, uniforms: {}, expected: scaled(() => ({ row: true })) },
  ];
  it.each(cases)("$name", async ({ source, uniforms, table, expected, name }) => {
    // A token of weight 0 is not looked at.
    const input = x.slice();
    const zero = Array.from({ length: batch * tokens }, (_, i) => expected.subarray(i * width, (i + 1) * width).every((v) => v === 0));
    zero.forEach((unseen, i) => {
      if (unseen) input.fill(Number.NaN, i * shape.dim, (i + 1) * shape.dim);
    });
    expect(zero.some((unseen) => unseen)).toBe("weighting" in uniforms);
    const step = planMomentsBackward({
      x: { buffer: "x", byteOffset: 0, length: shape.dim, stride: shape.dim, first: 0, count: batch * tokens },
      w: slotOf("w", w.length),
      activation: shape.activation,
      order: 2,
      expand4: 2,
      from: {
        source,
        sums: slotOf("sums", 64 * 4 * stride4),
        table: table && slotOf("table", table.length),
        uniforms: { ...BASE, slab_tokens: tokens, ...uniforms },
      },
      rows: slotOf("rows", batch * tokens * 4 * stride4),
      rowsStride4: stride4,
      tile: "8x4",
      maxWorkgroups: 65_535,
    });
    const padded = padMoments(rows, shape);
    // Where rows are not read, they hold anything.
    if (source === SOURCE_SEGMENT || source === SOURCE_PACKED) padded.fill(Number.NaN);
    const result = await runSteps(gpu, [step], {
      x: input,
      w,
      sums: padMoments(sums, shape),
      rows: padded,
      table: table ?? new Uint32Array(4),
      empty: 4,
    });
    expectClose(unpadMoments(result.rows, shape), momentsBackward(x, expected, params as never, shape), { relL2: LAYER_F32, what: name, adapter });
  });
});
