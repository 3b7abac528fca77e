import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { checkPomConfig, packPom, pomMomentShape, pomPlanConfig } from "../../src/layers/pom_config.ts";
import { planApplyGatesBackward } from "../../src/ops/apply_gates_backward.ts";
import { planGateBackward } from "../../src/ops/gate_backward.ts";
import { planGatesBackward } from "../../src/ops/gates_backward.ts";
import { planPolynomialBackward } from "../../src/ops/polynomial_backward.ts";
import { SOURCE_PREFIX, SOURCE_ROW } from "../../src/ops/types.ts";
import { polynomialBackward } from "../../src/reference/polynomial_backward.ts";
import { hardSigmoid } from "../../src/reference/pom.ts";
import { hardSigmoidGradient } from "../../src/reference/pom_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { layerParams, normals32 } from "../support/hom.ts";
import { packProjections, padMoments, unpadMoments } from "../support/packed.ts";
import { type PomLayerShape, pomParams, smoothTokens, twinShape } from "../support/pom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32, LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const TILES = ["8x4", "16x8", ...(device.features.has("subgroups") ? (["16x8_quads"] as const) : [])] as const;

const TOKENS = {
  first_batch_row: 0,
  first_token: 0,
  slab_blocks: 1,
  block_tokens: 1,
  first_segment: 0,
  segments_per_row: 1,
  segment_length: 1,
  packed_segments: 0,
  weighting: 0,
};
const QUERIES = {
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
const plain = { nGroups: 1, nSelHeads: 1, rotary: "none" } as const;

interface Dispatch {
  readonly blockRows: number;
  readonly parts?: number;
  readonly accumulate?: boolean;
  /** A padding mask, of which what lies in tokens of weight 0 does not matter. */
  readonly weights?: Float32Array<ArrayBuffer>;
  readonly maxWorkgroups?: number;
}

/** The kernel on plain gradients of the moments, a row a token, in `parts` dispatches, each in blocks of `blockRows`; merged here. */
async function throughPolynomials(
  shape: PomLayerShape,
  rows: number,
  tile: (typeof TILES)[number],
  { blockRows, parts = 1, accumulate = false, weights, maxWorkgroups = 65_535 }: Dispatch,
) {
  const config = checkPomConfig("test", { ...shape, bias: shape.nGroups !== 1, maxPositions: shape.rotary === "2d" ? [8, 8] : 512 }, gpu);
  const { dim, degree } = shape;
  const params = pomParams(rows, shape, config.bias);
  const { packed, constants } = packPom("test", config, params);
  const { pom } = pomPlanConfig(config);
  const moments = pomMomentShape(config);
  const width = shape.expand * dim;
  const { query: x } = smoothTokens(1, shape, params, rows);
  const gradients = normals32(2, rows * width);
  const padded = padMoments(gradients, moments);
  const stride4 = padded.length / rows / 4;
  const positions = Uint32Array.from({ length: Math.max(1, rows * pom.planes) }, (_, i) => (i * 5) % 8);
  const perPart = Math.ceil(rows / parts);
  const before = padMoments(normals32(3, width * degree), moments);
  const steps = Array.from({ length: Math.ceil(rows / perPart) }, (_, part) => {
    const [firstRow, endRow] = [part * perPart, Math.min((part + 1) * perPart, rows)];
    const blocks = Math.ceil((endRow - firstRow) / blockRows);
    return planPolynomialBackward({
      expand: pom.expand,
      wStride4: pom.gates ? stride4 : 2 * stride4,
      constants: slotOf("constants", constants.length),
      group4: pom.group?.columns4 ?? 0,
      rotations: pom.rotations,
      positions: pom.planes > 0 ? { slot: slotOf("positions", positions.length), first: 0 } : undefined,
      x: { buffer: "x", byteOffset: 0, length: dim, ...(pom.group && { part: pom.group.inputs }), stride: dim, first: 0, count: rows },
      w: slotOf("w", packed.projections.data.length),
      order: moments.order,
      expand4: stride4 / moments.order,
      degree,
      from: {
        source: SOURCE_ROW,
        sums: slotOf("empty", 4),
        table: weights && slotOf("table", weights.length),
        tableOffset: 0,
        uniforms: { ...TOKENS, slab_tokens: rows, weighting: weights ? 1 : 0 },
      },
      rows: slotOf("rows", padded.length),
      rowsStride4: stride4,
      firstRow,
      endRow,
      blockRows,
      gradients: slotOf(`part${part}`, 4 * blocks * degree * stride4),
      accumulate,
      tile,
      maxWorkgroups,
    });
  });
  const out = Object.fromEntries(steps.map(({ slots }, part) => [`part${part}`, accumulate ? before : slots["gradients"]!.size / 4]));
  const unseen = (token: number) => weights?.[token] === 0;
  const seen = x.map((v, i) => (unseen(Math.floor(i / dim)) ? Number.NaN : v));
  const result = await runSteps(gpu, steps, {
    x: seen,
    table: weights ?? 4,
    w: packed.projections.data.slice(),
    constants: constants.slice(),
    positions,
    rows: padded.map((v, i) => (unseen(Math.floor(i / (4 * stride4))) ? Number.NaN : v)),
    empty: 4,
    ...out,
  });
  const position = pom.planes > 0 ? (token: number, axis: number) => positions[token * pom.planes + axis]! : undefined;
  const weighted = gradients.map((v, i) => v * (weights?.[Math.floor(i / width)] ?? 1));
  const expected = polynomialBackward(x, weighted, params, twinShape(shape), position);
  const sums = new Float64Array(4 * stride4 * degree);
  for (const name of Object.keys(out)) {
    for (const [i, value] of (result as Record<string, Float32Array>)[name]!.entries()) sums[i % sums.length]! += value;
  }
  /** [degree, k·E] with its padding -> [M, degree] */
  const byChannel = (padded: ArrayLike<number>) => {
    const powers = unpadMoments(padded, moments);
    return Float64Array.from(powers, (_, i) => powers[(i % degree) * width + Math.floor(i / degree)]!);
  };
  const coefficients = byChannel(sums);
  if (accumulate) for (const [i, value] of byChannel(before).entries()) expected.gradCoefficients[i]! += value;
  return { du: unpadMoments(result.rows, moments), coefficients, expected, steps };
}

describe.each(TILES)("polynomials, tile %s", (tile) => {
  const shapes: PomLayerShape[] = [
    { ...plain, dim: 1, degree: 1, expand: 1 },
    { ...plain, dim: 5, degree: 3, expand: 2 },
    { ...plain, dim: 16, degree: 16, expand: 2 },
    { ...plain, dim: 16, degree: 2, expand: 2, nGroups: 4 },
    { ...plain, dim: 6, degree: 4, expand: 2, rotary: "1d" },
    { ...plain, dim: 16, degree: 2, expand: 2, rotary: "2d" },
    { ...plain, dim: 32, degree: 3, expand: 4, rotary: "2d", nGroups: 4 },
  ];
  it.each(shapes.flatMap((shape) => [1, 7, 130].map((rows) => ({ shape, rows }))))("$shape, $rows tokens", async ({ shape, rows }) => {
    // Groups of which each has its own stretch of x take a tile that does not share rows.
    const own = shape.nGroups !== 1 && tile === "16x8_quads" ? "16x8" : tile;
    for (const how of [{ blockRows: 32 }, { blockRows: 16, parts: 3 }, { blockRows: 160, accumulate: true }]) {
      const { du, coefficients, expected } = await throughPolynomials(shape, rows, own, how);
      const what = `${JSON.stringify(how)} of ${JSON.stringify(shape)}`;
      expectClose(du, expected.gradProjections, { relL2: LAYER_F32, what: `du, ${what}`, adapter });
      expectClose(coefficients, expected.gradCoefficients, { relL2: LAYER_GRADIENT_F32, what: `coefficients, ${what}`, adapter });
    }
  });
});

it.each(["none", "1d"] as const)("does not look at tokens of weight 0, rotation %s", async (rotary) => {
  const shape: PomLayerShape = { ...plain, dim: 6, degree: 3, expand: 2, rotary };
  const weights = Float32Array.from({ length: 37 }, (_, i) => (i % 3 === 1 ? 0 : (i % 5) / 2));
  for (const tile of TILES) {
    const { du, coefficients, expected } = await throughPolynomials(shape, 37, tile, { blockRows: 16, weights });
    expectClose(du, expected.gradProjections, { relL2: LAYER_F32, what: `du, ${tile}`, adapter });
    expectClose(coefficients, expected.gradCoefficients, { relL2: LAYER_GRADIENT_F32, what: `coefficients, ${tile}`, adapter });
  }
});

it("fits any grid: 2 workgroups a dimension give the same bits", async () => {
  const shape: PomLayerShape = { ...plain, dim: 16, degree: 2, expand: 4, rotary: "2d" };
  const wide = await throughPolynomials(shape, 300, "8x4", { blockRows: 8 });
  const small = await throughPolynomials(shape, 300, "8x4", { blockRows: 8, maxWorkgroups: 2 });
  expect(small.steps[0]!.workgroups[1]).toBeGreaterThan(1);
  expect(small.du).toEqual(wide.du);
  expect(small.coefficients).toEqual(wide.coefficients);
});

describe.each(TILES)("hard gates beside the moments, tile %s", (tile) => {
  it("have a slope of 1 / 6 inside and of 0 at the ends", async () => {
    const shape = { dim: 4, order: 1, orderExpand: 8 };
    const logits = [0, 1, -1, 2.999, -2.999, 3, -3, 3.001, -3.001, 40, -40, 1e30, -1e30, 0.25, -2, 2, 1, 1, 1, 1];
    const rows = logits.length;
    const identity = Float32Array.from({ length: 32 * 4 }, (_, i) => (Math.floor(i / 4) % 4 === i % 4 ? 1 : 0));
    const params = { ...layerParams(1, shape, false), "se_proj.weight": identity };
    const x = Float32Array.from(logits.flatMap((v) => [v, v, v, v]));
    const w = packProjections(params, shape);
    const [h, dr] = [normals32(2, rows * 32), normals32(3, rows * 32)];
    const step = planGateBackward({
      x: { buffer: "x", byteOffset: 0, length: 4, stride: 4, first: 0, count: rows },
      w: slotOf("w", w.length),
      stride4: 8,
      from: {
        source: SOURCE_PREFIX,
        moments: slotOf("moments", 32 * rows),
        uniforms: { ...QUERIES, query_length: rows, slab_queries: rows, slab_blocks: rows, segment_length: rows },
      },
      rows: slotOf("rows", 32 * rows),
      selection: true,
      gradients: slotOf("gradients", 64 * rows),
      gradientsStride4: 16,
      logitsAt4: 8,
      sumsAt4: 0,
      gate: "hard_sigmoid",
      tile,
      maxWorkgroups: 65_535,
    });
    const sums = h.map((v) => v * rows);
    const gradients = Float32Array.from({ length: 64 * rows }, (_, i) => (i % 64 < 32 ? Number.NaN : dr[Math.floor(i / 64) * 32 + (i % 32)]!));
    const result = await runSteps(gpu, [step], { x, w, moments: new Float32Array(32 * rows), rows: sums, gradients, empty: 4 });
    const expected = (of: (logit: number, i: number) => number) => Float64Array.from(h, (_, i) => of(logits[Math.floor(i / 32)]!, i));
    const columns = (first: number) => result.gradients.filter((_, i) => Math.floor((i % 64) / 32) === first);
    const close = (actual: Float32Array, values: Float64Array, what: string) => expectClose(actual, values, { relL2: LAYER_F32, what, adapter });
    close(
      result.rows,
      expected((l, i) => hardSigmoid(l) * h[i]!),
      "r",
    );
    close(
      columns(1),
      expected((l, i) => dr[i]! * h[i]! * hardSigmoidGradient(l)),
      "dlogit",
    );
    close(
      columns(0),
      expected((l, i) => (dr[i]! * hardSigmoid(l)) / rows),
      "dsum",
    );
    const flat = columns(1).filter((_, i) => hardSigmoidGradient(logits[Math.floor(i / 32)]!) === 0);
    expect(flat.length).toBe(32 * 8);
    expect(flat.every((v) => v === 0)).toBe(true);
  });
});

describe("gates apart", () => {
  it.each([
    { chunks: 1, headWidth: 1, width: 8, planes: 0 },
    { chunks: 1, headWidth: 5, width: 15, planes: 0 },
    { chunks: 2, headWidth: 3, width: 9, planes: 1 },
    { chunks: 4, headWidth: 1, width: 8, planes: 2 },
    { chunks: 4, headWidth: 130, width: 260, planes: 2 },
  ])("$chunks chunks of $width channels, $headWidth a gate", async ({ chunks, headWidth, width, planes }) => {
    const rows = 13;
    const expand4 = Math.ceil(width / 4);
    const stride4 = chunks * expand4;
    const perChunk = width / headWidth;
    const stride = Math.ceil((chunks * perChunk) / 4) * 4;
    const layout = { stride, chunkGates: perChunk, headWidth, columnStep: headWidth };
    const gates = Float32Array.from(normals32(1, rows * stride), (v, i) => (i % 7 === 0 ? Number(v > 0) : Math.abs(v) % 1));
    const rotations = Float32Array.from({ length: 5 * 8 * expand4 }, (_, i) => {
      const [position, part, column] = [Math.floor(i / (8 * expand4)), Math.floor(i / (4 * expand4)) % 2, i % (4 * expand4)];
      return (part === 0 ? Math.cos : Math.sin)(position * 0.7 + column);
    });
    const positions = Uint32Array.from({ length: Math.max(1, rows * planes) }, (_, i) => (i * 3) % 5);
    const turned =
      planes > 0
        ? { constants: slotOf("constants", rotations.length), rotations: 0, positions: slotOf("positions", positions.length), planes }
        : undefined;
    const shape = { dim: width, order: chunks, orderExpand: 1 };
    const [h, dr] = [normals32(2, rows * chunks * width), normals32(3, rows * chunks * width)];
    const divisors = Float32Array.from({ length: rows }, (_, i) => 1 + (i % 3));
    const sums = padMoments(
      h.map((v, i) => v * divisors[Math.floor(i / (chunks * width))]!),
      shape,
    );
    const gradients = padMoments(dr, shape, 8 * stride4, 4 * stride4);
    const from = {
      source: SOURCE_ROW,
      moments: slotOf("empty", 4),
      table: slotOf("table", rows),
      uniforms: { ...QUERIES, query_length: rows, slab_queries: rows, segment_length: 1 },
    } as const;
    const common = {
      gates: slotOf("gates", gates.length),
      layout,
      turned,
      from,
      slabRows: rows,
      expand4,
      gradients: slotOf("gradients", gradients.length),
      gradientsStride4: 2 * stride4,
      gatesAt4: stride4,
      maxWorkgroups: 65_535,
    };
    const steps = [
      planApplyGatesBackward({ ...common, rows: slotOf("rows", sums.length), stride4, selection: true, sumsAt4: 0 }),
      planGatesBackward({ ...common, chunks }),
    ];
    const contents = { gates, constants: rotations, positions, rows: sums, gradients, table: new Uint32Array(divisors.buffer), empty: 4 };
    const result = await runSteps(gpu, steps, contents);

    const gateAt = (row: number, chunk: number, j: number) => gates[row * stride + chunk * perChunk + j]!;
    const turn = (row: number, chunk: number, j: number, sign: number, of: (chunk: number) => number) => {
      if (planes === 0) return of(chunk);
      const angle = positions[row * planes + (chunk >> 1)]! * 0.7 + j * headWidth;
      const s = (chunk % 2 === 0 ? -sign : sign) * Math.sin(angle);
      return of(chunk) * Math.cos(angle) + of(chunk ^ 1) * s;
    };
    const count = rows * chunks * width;
    const [r, dsum, ds] = [new Float64Array(count), new Float64Array(count), new Float64Array(rows * stride)];
    for (let i = 0; i < count; i++) {
      const [row, chunk, channel] = [Math.floor(i / (chunks * width)), Math.floor(i / width) % chunks, i % width];
      const j = Math.floor(channel / headWidth);
      const s = turn(row, chunk, j, 1, (of) => gateAt(row, of, j));
      r[i] = s * h[i]!;
      dsum[i] = (s * dr[i]!) / divisors[row]!;
      ds[row * stride + chunk * perChunk + j]! += dr[i]! * h[i]!;
    }
    const dlogit = ds.map((_, i) => {
      const [row, at] = [Math.floor(i / stride), i % stride];
      const [chunk, j] = [Math.floor(at / perChunk), at % perChunk];
      if (chunk >= chunks) return 0;
      const s = gateAt(row, chunk, j);
      return s > 0 && s < 1 ? turn(row, chunk, j, -1, (of) => ds[row * stride + of * perChunk + j]!) / 6 : 0;
    });
    const close = (actual: Float32Array, values: Float64Array, what: string) => expectClose(actual, values, { relL2: LAYER_F32, what, adapter });
    close(unpadMoments(result.rows, shape), r, "r");
    close(unpadMoments(result.gradients, shape, 8 * stride4), dsum, "dsum");
    close(result.gates, dlogit, "dlogit");
  });
});
