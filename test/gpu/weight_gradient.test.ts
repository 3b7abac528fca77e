import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { gradientBlockRows, type WeightGradientPlan, weightGradientSteps } from "../../src/layers/weight_gradient.ts";
import { planMergeGradients } from "../../src/ops/merge_gradients.ts";
import { mergeGradients } from "../../src/reference/merge_gradients.ts";
import { weightGradient } from "../../src/reference/weight_gradient.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { chooser, expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

interface Case {
  readonly rows: number;
  readonly inner: number;
  readonly outer: number;
  readonly tile?: "8x4" | "16x8";
  readonly bias?: boolean;
  readonly accumulate?: boolean;
  /** Numbers before the first row, and beyond the used ones of every row. */
  readonly x?: { readonly before?: number; readonly beyond?: number; readonly span?: number; readonly pitch?: number };
  readonly dy?: { readonly before?: number; readonly beyond?: number; readonly span?: number; readonly pitch?: number };
  /** Columns of the gradient to the left and right of those written, multiples of 4. */
  readonly left?: number;
  readonly right?: number;
  readonly partialBytes?: number;
  readonly maxBinding?: number;
  readonly maxWorkgroups?: number;
}

const padded = (width: number): number => Math.ceil(width / 4) * 4;

/** Rows at some place of a buffer that holds other numbers all around, and the same rows by themselves. */
function scatter(seed: number, rows: number, length: number, buffer: string, place: NonNullable<Case["x"]> = {}) {
  const { before = 0, beyond = 0, span = rows, pitch = span } = place;
  const stride = length + beyond;
  const all = normals32(seed, before + (Math.ceil(rows / span) * pitch + span) * stride);
  const plain = new Float32Array(rows * length);
  for (let r = 0; r < rows; r++) {
    const at = before + (Math.floor(r / span) * pitch + (r % span)) * stride;
    plain.set(all.subarray(at, at + length), r * length);
  }
  const spans = place.span === undefined ? {} : { span, pitch };
  return { all, plain, rows: { buffer, byteOffset: before * 4, length, stride, first: 0, count: rows, ...spans } };
}

async function run(c: Case) {
  const { rows, inner, outer, bias = true, accumulate = false, left = 0, right = 0 } = c;
  const [x, dy] = [scatter(rows + inner, rows, inner, "x", c.x), scatter(rows + outer + 999, rows, outer, "dy", c.dy)];
  const columns = left + padded(outer) + right;
  const size = (padded(inner) + 1) * columns;
  const initial = normals32(5, size);
  const plan: WeightGradientPlan = {
    x: x.rows,
    dy: dy.rows,
    gradient: slotOf("gradient", size),
    columns,
    first: left,
    bias,
    accumulate,
    partial: "partial",
    partialBytes: c.partialBytes ?? 1 << 24,
    tile: c.tile ?? "8x4",
    maxBinding: c.maxBinding ?? 1 << 27,
    maxWorkgroups: c.maxWorkgroups ?? 65_535,
  };
  const { steps, partialBytes } = weightGradientSteps(plan);
  const start = accumulate ? initial : initial.slice().fill(Number.NaN);
  const partial = partialBytes / 4;
  const { gradient } = await runSteps(gpu, steps, { x: x.all, dy: dy.all, gradient: start, partial });
  return { gradient, steps, partialBytes, start, plain: { x: x.plain, dy: dy.plain }, columns };
}

async function check(c: Case) {
  const { inner, outer, bias = true, accumulate = false, left = 0 } = c;
  const done = await run(c);
  const { gradient, start, columns } = done;
  const what = JSON.stringify(c);
  const expected = weightGradient(done.plain.x, done.plain.dy, { inner, outer });
  const [actual, wanted]: number[][] = [[], []];
  for (let i = 0; i <= padded(inner); i++) {
    for (let o = 0; o < columns; o++) {
      const at = i * columns + o;
      const column = o - left;
      const isBias = i === padded(inner);
      if (column < 0 || column >= padded(outer) || (isBias && !bias)) {
        if (!Object.is(gradient[at], start[at])) throw new Error(`${what}: wrote ${gradient[at]} at [${i}, ${o}], beside the gradient`);
        continue;
      }
      const before = accumulate ? start[at]! : 0;
      if (column < outer && (isBias || i < inner)) {
        actual!.push(gradient[at]!);
        wanted!.push(before + expected[(isBias ? inner : i) * outer + column]!);
      } else if (!Object.is(gradient[at]! + 0, before)) throw new Error(`${what}: padding of ${gradient[at]} at [${i}, ${o}], expected ${before}`);
    }
  }
  expectClose(actual!, wanted!, { relL2: LAYER_F32, what, adapter });
  return done;
}

describe.each(["8x4", "16x8"] as const)("tile %s", (tile) => {
  it.each<Case>([
    { rows: 1, inner: 1, outer: 1 },
    { rows: 3, inner: 5, outer: 3 },
    { rows: 63, inner: 4, outer: 4 },
    { rows: 65, inner: 33, outer: 18 },
    { rows: 500, inner: 12, outer: 65 },
    { rows: 1000, inner: 64, outer: 64 },
    { rows: 1000, inner: 7, outer: 130 },
    { rows: 65, inner: 64, outer: 64, bias: false },
    { rows: 500, inner: 20, outer: 8, accumulate: true },
    { rows: 63, inner: 6, outer: 10, accumulate: true, bias: false },
  ])("$rows rows, $inner inputs, $outer outputs", async (c) => {
    await check({ ...c, tile });
  });

  it("a column range of the gradient rows, and of the gradient", async () => {
    await check({ rows: 65, inner: 12, outer: 20, tile, dy: { before: 8, beyond: 44 }, left: 8, right: 20 });
    await check({ rows: 500, inner: 9, outer: 7, tile, dy: { before: 3, beyond: 2 }, left: 4, right: 4, accumulate: true });
  });

  it("rows at any place, in spans", async () => {
    await check({ rows: 500, inner: 12, outer: 8, tile, x: { before: 64, span: 100, pitch: 137 } });
    await check({ rows: 333, inner: 12, outer: 8, tile, x: { before: 4, beyond: 8, span: 50, pitch: 61 }, dy: { before: 12, span: 37, pitch: 41 } });
    await check({
      rows: 65,
      inner: 5,
      outer: 6,
      tile,
      x: { before: 1, beyond: 3, span: 9, pitch: 9 },
      dy: { before: 2, beyond: 1, span: 65, pitch: 65 },
    });
  });

  it("has the same bits every time, and in any grid", async () => {
    const c: Case = { rows: 1000, inner: 33, outer: 65, tile };
    const { gradient, steps } = await run(c);
    expect(steps).toHaveLength(2);
    expectSameBits((await run(c)).gradient, gradient, "again");
    const small = await run({ ...c, maxWorkgroups: 3 });
    expect(Math.max(...small.steps.map(({ workgroups }) => workgroups[0]))).toBeLessThanOrEqual(3);
    expectSameBits(small.gradient, gradient, "3 workgroups a dimension");
  });

  it("keeps to the scratch memory that it may have", async () => {
    const c: Case = { rows: 1000, inner: 20, outer: 12, tile };
    for (const partialBytes of [0, 21 * 12 * 4, 21 * 12 * 4 * 2, 21 * 12 * 4 * 5]) {
      const done = await check({ ...c, partialBytes });
      expect(done.partialBytes).toBeLessThanOrEqual(partialBytes);
      expect(done.steps.length).toBe(partialBytes < 21 * 12 * 4 * 2 ? 1 : 2);
    }
  });

  it("keeps to bindings of the device", async () => {
    const maxBinding = 4096;
    for (const c of [
      { rows: 500, inner: 12, outer: 8 },
      { rows: 333, inner: 7, outer: 5, accumulate: true },
      { rows: 300, inner: 12, outer: 8, x: { before: 64, span: 30, pitch: 35 } },
      { rows: 300, inner: 12, outer: 8, x: { before: 64, span: 100, pitch: 105 } },
    ]) {
      const { steps } = await check({ ...c, tile, maxBinding });
      expect(steps.length).toBeGreaterThan(3);
      for (const { slots } of steps) for (const { size } of Object.values(slots)) expect(size).toBeLessThanOrEqual(maxBinding);
    }
    const crossed = run({ rows: 300, inner: 12, outer: 8, tile, x: { span: 30 }, dy: { span: 7 }, maxBinding });
    await expect(crossed).rejects.toThrow(/spans of 7 rows cannot be cut at row 60/);
  });

  it("more rows than one invocation may add", async () => {
    const c: Case = { rows: 65_600, inner: 4, outer: 3, tile };
    const single = await check({ ...c, partialBytes: 0 });
    expect(single.steps).toHaveLength(3);
    await check(c);
  });
});

it("any shape at any place", async () => {
  const draw = chooser(11);
  for (let i = 0; i < 40; i++) {
    const rows = draw.integer(1, 400);
    const place = () => ({
      before: draw.integer(0, 9),
      beyond: draw.of([0, 0, 1, 4, 8]),
      ...(draw.chance(0.5) ? { span: draw.integer(1, rows), pitch: 0 } : {}),
    });
    const spread = (p: ReturnType<typeof place>) => (p.span ? { ...p, pitch: p.span + draw.integer(0, 5) } : p);
    await check({
      rows,
      inner: draw.integer(1, 40),
      outer: draw.integer(1, 40),
      tile: draw.of(["8x4", "16x8"]),
      bias: draw.chance(0.7),
      accumulate: draw.chance(0.5),
      x: spread(place()),
      dy: spread(place()),
      left: 4 * draw.integer(0, 2),
      right: 4 * draw.integer(0, 2),
      partialBytes: draw.of([0, 10_000, 1 << 20]),
      maxWorkgroups: draw.of([2, 65_535]),
    });
  }
});

it("sums of numbers of one sign stay exact: 20,000 rows", async () => {
  const rows = 20_000;
  const x = Float32Array.from(normals32(1, rows * 4), (v) => 1 + 0.1 * v);
  const dy = Float32Array.from(normals32(2, rows * 4), (v) => 1 + 0.1 * v);
  const whole = { byteOffset: 0, length: 4, stride: 4, first: 0, count: rows };
  const { steps } = weightGradientSteps({
    x: { buffer: "x", ...whole },
    dy: { buffer: "dy", ...whole },
    gradient: slotOf("gradient", 20),
    columns: 4,
    first: 0,
    bias: true,
    accumulate: false,
    partial: "partial",
    partialBytes: 0,
    tile: "8x4",
    maxBinding: 1 << 27,
    maxWorkgroups: 65_535,
  });
  const { gradient } = await runSteps(gpu, steps, { x, dy, gradient: 20 });
  expectClose(gradient, weightGradient(x, dy, { inner: 4, outer: 4 }), { relL2: LAYER_F32, what: "gradient", adapter });
});

describe("merge_gradients", () => {
  it.each([1, 3, 31, 32, 33, 65])("%d blocks", async (blocks) => {
    const [rows, outer, columns, first] = [5, 8, 20, 4];
    const partial = normals32(blocks, blocks * rows * outer);
    const gradient = normals32(3, rows * columns);
    for (const accumulate of [false, true]) {
      const step = planMergeGradients({
        partial: slotOf("partial", partial.length),
        gradient: slotOf("gradient", gradient.length),
        blocks,
        rows,
        outer4: outer / 4,
        stride4: columns / 4,
        first4: first / 4,
        accumulate,
        maxWorkgroups: 65_535,
      });
      const result = await runSteps(gpu, [step], { partial, gradient });
      const inside = (i: number) => i % columns >= first && i % columns < first + outer;
      const initial = accumulate ? gradient.filter((_, i) => inside(i)) : undefined;
      const expected = mergeGradients(partial, { blocks, size: rows * outer, initial });
      expectClose(
        result.gradient.filter((_, i) => inside(i)),
        expected,
        { relL2: LAYER_F32, what: "merged", adapter },
      );
      const outside = (values: Float32Array) => values.filter((_, i) => !inside(i));
      expectSameBits(outside(result.gradient), outside(gradient), "the other columns");
    }
  });
});

describe("the number of blocks", () => {
  it("gives a GPU enough invocations, and not more blocks than are worth merging", () => {
    expect(gradientBlockRows(4096, 16_384, "8x4", 1000)).toBe(2048);
    expect(gradientBlockRows(4096, 100_000, "8x4", 1000)).toBe(4096);
    expect(gradientBlockRows(4096, 144, "8x4", 1000)).toBe(64);
    expect(gradientBlockRows(4096, 144, "8x4", 8)).toBe(512);
    expect(gradientBlockRows(50, 144, "8x4", 8)).toBe(50);
    expect(gradientBlockRows(4096, 144, "16x8", 1000)).toBe(512);
  });
  it("stays below the loop limit of lavapipe", () => {
    expect(gradientBlockRows(1_000_000, 100_000, "8x4", 0)).toBe(30_000);
  });
});
