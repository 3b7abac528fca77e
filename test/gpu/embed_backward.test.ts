import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { packRowGroups, planEmbedBackward, type RowGroups, rowGroupWords } from "../../src/ops/embed_backward.ts";
import { embedBackward } from "../../src/reference/embed_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { chooser, expectSameBits, normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

interface Case {
  readonly keyOf: readonly number[];
  readonly keys: number;
  readonly dim: number;
  readonly accumulate?: boolean;
  /** Numbers before the first row, and beyond the used ones of every row. */
  readonly before?: number;
  readonly beyond?: number;
  readonly maxWorkgroups?: number;
}

function grouped(keyOf: readonly number[]): RowGroups {
  const order = keyOf.map((_, row) => row).sort((a, b) => keyOf[a]! - keyOf[b]! || a - b);
  const keys = [...new Set(keyOf)].sort((a, b) => a - b);
  const starts = keys.map((key) => order.findIndex((row) => keyOf[row] === key));
  return { order: Uint32Array.from(order), starts: Uint32Array.from([...starts, keyOf.length]), keys: Uint32Array.from(keys) };
}

async function run(c: Case) {
  const { keyOf, keys, dim, accumulate = false, before = 0, beyond = 0 } = c;
  const rows = keyOf.length;
  const stride = dim + beyond;
  const x = normals32(rows + dim, before + rows * stride);
  const table = packRowGroups(grouped(keyOf), keys);
  expect(table.length).toBe(rowGroupWords(rows, keys));
  const { steps, partialBytes } = planEmbedBackward({
    x: { buffer: "x", byteOffset: before * 4, length: dim, stride, first: 0, count: rows },
    table: slotOf("table", table.length),
    gradient: slotOf("gradient", keys * dim),
    keys,
    partial: "partial",
    accumulate,
    maxWorkgroups: c.maxWorkgroups ?? 65_535,
  });
  const initial = accumulate ? normals32(9, keys * dim) : new Float32Array(keys * dim).fill(Number.NaN);
  const { gradient } = await runSteps(gpu, steps, { x, table, gradient: initial, partial: partialBytes / 4 });
  const plain = Float32Array.from({ length: rows * dim }, (_, i) => x[before + Math.floor(i / dim) * stride + (i % dim)]!);
  return { gradient, initial, plain, steps };
}

async function check(c: Case) {
  const { keyOf, keys, dim, accumulate = false } = c;
  const done = await run(c);
  const what = `${keyOf.length} rows of ${dim}, ${keys} keys`;
  const present = new Set(keyOf);
  const used = (_: number, i: number) => present.has(Math.floor(i / dim));
  expectSameBits(
    done.gradient.filter((v, i) => !used(v, i)),
    done.initial.filter((v, i) => !used(v, i)),
    `${what}, rows of no key`,
  );
  const expected = embedBackward(done.plain, keyOf, { keys, dim, initial: accumulate ? done.initial : undefined });
  expectClose(done.gradient.filter(used), expected.filter(used), { relL2: LAYER_F32, what, adapter });
  return done;
}

const drawn = (seed: number, rows: number, keys: number): number[] => {
  const draw = chooser(seed);
  return Array.from({ length: rows }, () => draw.integer(0, keys - 1));
};

describe("embed_backward", () => {
  it.each([
    [1, 1, 1],
    [3, 5, 7],
    [63, 65, 64],
    [65, 1, 3],
    [500, 65, 33],
    [1000, 65, 64],
    [1000, 5000, 12],
    [64, 200_000, 4],
  ])("%d rows, %d keys, width %d", async (rows, keys, dim) => {
    await check({ keyOf: drawn(rows, rows, keys), keys, dim });
    await check({ keyOf: drawn(rows + 1, rows, keys), keys, dim, accumulate: true, before: 5, beyond: 3 });
  });

  it.each([63, 64, 65, 128, 129, 5000])("one key for %d rows", async (rows) => {
    const done = await check({ keyOf: Array(rows).fill(2), keys: 4, dim: 5 });
    expect(done.steps).toHaveLength(rows > 64 ? 2 : 1);
  });

  it("as many items as there can be", async () => {
    // 7 keys of 129 rows, in three parts each, and keys of their own for the rest.
    const keyOf = Array.from({ length: 1000 }, (_, row) => (row < 903 ? row % 7 : row));
    await check({ keyOf, keys: 1000, dim: 3 });
    await check({ keyOf: Array.from({ length: 650 }, (_, row) => row % 10), keys: 10, dim: 3, accumulate: true });
  });

  it("has the same bits every time, and in any grid", async () => {
    const c: Case = { keyOf: drawn(4, 777, 9), keys: 9, dim: 17 };
    const { gradient } = await run(c);
    expectSameBits((await run(c)).gradient, gradient, "again");
    const small = await run({ ...c, maxWorkgroups: 2 });
    expect(small.steps[0]!.workgroups[1]).toBeGreaterThan(1);
    expectSameBits(small.gradient, gradient, "2 workgroups a dimension");
  });

  it("the sum over a batch, for positions that its rows share", async () => {
    const [batch, length, dim] = [9, 40, 12];
    await check({ keyOf: Array.from({ length: batch * length }, (_, row) => row % length), keys: length, dim });
  });

  it("any groups", async () => {
    const draw = chooser(5);
    for (let i = 0; i < 25; i++) {
      const rows = draw.integer(1, 700);
      const keys = draw.of([1, 2, 8, 300]);
      // A quarter of them has one key.
      const keyOf = drawn(i, rows, keys).map((key, row) => (row % 4 === 0 ? 0 : key));
      await check({ keyOf, keys, dim: draw.integer(1, 20), accumulate: draw.chance(0.5), maxWorkgroups: draw.of([3, 65_535]) });
    }
  });

  it("refuses rows in spans", () => {
    const x = { buffer: "x", byteOffset: 0, length: 4, stride: 4, first: 0, count: 8, span: 2, pitch: 3 };
    const plan = () =>
      planEmbedBackward({
        x,
        table: slotOf("table", 9),
        gradient: slotOf("gradient", 4),
        keys: 1,
        partial: "partial",
        accumulate: false,
        maxWorkgroups: 9,
      });
    expect(plan).toThrow(/x must lie without spans, got 2/);
  });
});
