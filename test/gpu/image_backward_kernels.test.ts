import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planAddRowsBackward } from "../../src/ops/add_rows_backward.ts";
import { planModulateBackward } from "../../src/ops/modulate_backward.ts";
import { planSumRows } from "../../src/ops/sum_rows.ts";
import { addRowsBackward } from "../../src/reference/add_rows_backward.ts";
import { modulateBackward } from "../../src/reference/modulate_backward.ts";
import { sumRows } from "../../src/reference/sum_rows.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const relL2 = LAYER_F32;

/** Columns [from, from + width) of rows of `step` numbers. */
const columns = (rows: Float32Array, step: number, from: number, width: number) => rows.filter((_, i) => i % step >= from && i % step < from + width);

describe("modulate_backward", () => {
  it.each([
    { dim: 1, batch: 2, tokens: 3, perToken: true, first: 0 },
    { dim: 5, batch: 3, tokens: 7, perToken: false, first: 2 },
    { dim: 63, batch: 1, tokens: 65, perToken: true, first: 64 },
    { dim: 64, batch: 2, tokens: 1, perToken: false, first: 0 },
    { dim: 65, batch: 2, tokens: 9, perToken: true, first: 1 },
    { dim: 1000, batch: 1, tokens: 3, perToken: false, first: 0 },
  ])("rows of $dim, $batch x $tokens from token $first on, by token $perToken", async ({ dim, batch, tokens, perToken, first }) => {
    const [parts, step] = [3, 5 * dim + 1];
    const size = batch * tokens * dim;
    const x = normals32(1, size).map((value, i) => value + 3 + (i % 7));
    const m = normals32(2, (perToken ? batch * tokens : batch) * parts * dim);
    const dy = normals32(3, batch * (tokens - first) * dim);
    const whole = Float32Array.from({ length: size }, (_, i) => {
      const t = Math.floor(i / dim) % tokens;
      return t < first ? 0 : dy[i - (Math.floor(i / (tokens * dim)) + 1) * first * dim]!;
    });
    const rowOf = (row: number) => (perToken ? row : Math.floor(row / tokens));
    const expected = modulateBackward(x, whole, (row, c) => m[(rowOf(row) * parts + 2) * dim + c]!, dim);
    const [mBatch, mToken] = perToken ? [tokens * parts * dim, parts * dim] : [parts * dim, 0];
    const dm = batch * tokens * step;
    const slots = { x: slotOf("x", size), m: slotOf("m", m.length), dy: slotOf("dy", dy.length), dx: slotOf("dx", size), dm: slotOf("dm", dm) };
    const places = { scaleAt: 2 * dim, mBatch, mToken, dmStep: step, dmScaleAt: 3 * dim, dmShiftAt: dim, first };
    const run = async (accumulate: boolean, dx: Float32Array<ArrayBuffer> | number) => {
      const plan = planModulateBackward({ ...slots, ...places, accumulate, batch, tokens, dim, maxWorkgroups: 4 });
      return await runSteps(gpu, [plan], { x, m, dy, dx, dm });
    };
    const alone = await run(false, size);
    expectClose(columns(alone.dm, step, 3 * dim, dim), expected.dscale, { relL2, what: "ds", adapter, absolute: 1e-6 });
    expectSameBits(columns(alone.dm, step, dim, dim), Float32Array.from(expected.dshift), "dh");
    expect(
      [columns(alone.dm, step, 0, dim), columns(alone.dm, step, 4 * dim, dim + 1)].every((rest) => rest.every(Number.isNaN)),
      "beside the modulations",
    ).toBe(true);
    expectClose(alone.dx, expected.dx, { relL2, what: "dx", adapter, absolute: 1e-6 });
    const before = normals32(4, size);
    const added = await run(true, before);
    expectClose(
      added.dx,
      before.map((value, i) => value + alone.dx[i]!),
      { relL2, what: "added dx", adapter },
    );
  });
});

describe("add_rows_backward", () => {
  it.each([
    { perToken: true, limit: 1.5 },
    { perToken: false, limit: undefined },
    { perToken: false, limit: 0.5 },
  ])("gates by token $perToken, limit $limit", async ({ perToken, limit }) => {
    const sizes = { batch: 3, tokens: 5, dim: 13 };
    const { batch, tokens, dim } = sizes;
    const size = batch * tokens * dim;
    const [a, b, dy] = [normals32(1, size), normals32(2, size), normals32(3, size)];
    const g = normals32(4, (perToken ? batch * tokens : batch) * 2 * dim);
    const value = (values: Float32Array) => (r: number, t: number, c: number) => values[(r * tokens + t) * dim + c]!;
    const gate = (r: number, t: number, c: number) => g[((perToken ? r * tokens + t : r) * 2 + 1) * dim + c]!;
    const expected = addRowsBackward({ a: value(a), b: value(b), g: gate, dy: value(dy) }, sizes, limit);
    const [gBatch, gToken] = perToken ? [tokens * 2 * dim, 2 * dim] : [2 * dim, 0];
    const step = planAddRowsBackward({
      ...sizes,
      a: limit === undefined ? undefined : slotOf("a", size),
      b: slotOf("b", size),
      g: slotOf("g", g.length),
      gAt: dim,
      gBatch,
      gToken,
      dy: slotOf("dy", size),
      db: slotOf("db", size),
      dg: slotOf("dg", 2 * size),
      dgAt: dim,
      dgStep: 2 * dim,
      limit,
      maxWorkgroups: 2,
    });
    const found = await runSteps(gpu, [step], { a, b, g, dy, db: size, dg: 2 * size });
    expectSameBits(found.dy, Float32Array.from(expected.da), "da");
    expectClose(found.db, expected.db, { relL2, what: "db", adapter });
    expectClose(columns(found.dg, 2 * dim, dim, dim), expected.dg, { relL2, what: "dg", adapter });
    expect(columns(found.dg, 2 * dim, 0, dim).every(Number.isNaN), "beside dg").toBe(true);
    expect(found.dy.some((gradient) => gradient === 0)).toBe(limit !== undefined);
  });
});

describe("sum_rows", () => {
  it.each([
    { outer: 1, count: 1, width: 1 },
    { outer: 3, count: 63, width: 7 },
    { outer: 2, count: 65, width: 12 },
    { outer: 5, count: 257, width: 3 },
    { outer: 1, count: 5000, width: 2 },
  ])("$outer sums of $count rows of $width", async ({ outer, count, width }) => {
    const size = outer * count * width;
    const x = normals32(1, 3 + size);
    const rows = x.subarray(3);
    const common = { outer, count, width, partial: "partial", maxWorkgroups: 3 };
    const { steps, partialBytes } = planSumRows({
      ...common,
      x: slotOf("x", x.length),
      at: 3,
      outerStep: count * width,
      rowStep: width,
      y: slotOf("y", outer * width),
    });
    const { y } = await runSteps(gpu, steps, { x, y: outer * width, partial: partialBytes / 4 });
    expectClose(y, sumRows(rows, { outer, count, inner: width }), { relL2, what: "y", adapter });
    // The same numbers as `count` sums of `outer` rows.
    const across = planSumRows({
      ...common,
      outer: count,
      count: outer,
      x: slotOf("x", x.length),
      at: 3,
      outerStep: width,
      rowStep: count * width,
      y: slotOf("y", count * width),
    });
    const turned = await runSteps(gpu, across.steps, { x, y: count * width });
    expectClose(turned.y, sumRows(rows, { outer: 1, count: outer, inner: count * width }), { relL2, what: "y across", adapter });
  });
});
