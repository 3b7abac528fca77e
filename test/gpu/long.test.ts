import { describe, expect, it } from "vitest";
import { HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { layerParams, normals32, reference } from "../support/hom.ts";
import { poisoned } from "../support/poison.ts";
import { STREAM_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const shape = { dim: 8, order: 2, orderExpand: 1 };
const { dim } = shape;
const params = layerParams(1, shape);

/** Tokens repeat after this many: a mean over a million of them is a weighted mean over these. No divisor of any block size. */
const PERIOD = 997;
const distinct = normals32(2, PERIOD * dim);
const MILLION = 1_000_000;

const tokens = new Float32Array(MILLION * dim);
for (let at = 0; at < tokens.length; at += distinct.length) tokens.set(distinct.subarray(0, Math.min(distinct.length, tokens.length - at)), at);

/** How often each of the distinct tokens occurs in [start, end), by weight. */
function occurrences(start: number, end: number, weight: (n: number) => number = () => 1): Float64Array {
  const counts = new Float64Array(PERIOD);
  for (let n = start; n < end; n++) counts[n % PERIOD]! += weight(n);
  return counts;
}

/** The layer's output for queries that see the distinct tokens so often. */
function expectedFor(query: Float32Array, counts: Float64Array): Float64Array {
  return reference(shape, params, {
    query,
    context: distinct,
    mask: { padding: counts as unknown as Float32Array },
    batch: 1,
    queryLength: query.length / dim,
    contextLength: PERIOD,
  });
}

describe("a million context tokens in one call", async () => {
  const layer = await HomLayer.create(gpu, shape, params);
  /** Computes 70,000 causal tokens in several slabs. */
  const frugal = await HomLayer.create(gpu, { ...shape, scratchBudget: 1 << 20 }, params);
  const context = Tensor.from(gpu, tokens, [1, MILLION, dim]);
  const queries = 4;
  const xq = normals32(3, queries * dim);
  const query = Tensor.from(gpu, xq, [1, queries, dim]);
  const soft = (n: number) => ((n * 7) % 11) / 8;

  const masks: { name: string; mask: MaskSpec | undefined; counts: () => Float64Array }[] = [
    { name: "none", mask: undefined, counts: () => occurrences(0, MILLION) },
    { name: "lengths", mask: { lengths: Uint32Array.of(777_777) }, counts: () => occurrences(0, 777_777) },
    { name: "padding", mask: { padding: Float32Array.from({ length: MILLION }, (_, n) => soft(n)) }, counts: () => occurrences(0, MILLION, soft) },
  ];
  it.each(masks)("$name", async ({ mask, counts, name }) => {
    using out = poisoned(gpu, query.shape);
    layer.forward(query, { context, mask, out });
    expectClose(await out.read(), expectedFor(xq, counts()), { relL2: STREAM_F32, what: name, adapter });
  });

  it("full", async () => {
    const weights = [(n: number) => soft(n), (n: number) => (n < 1000 ? 1 : 0), () => 1, (n: number) => (n >= 999_999 ? 0.5 : 0)];
    const full = new Float32Array(queries * MILLION);
    weights.forEach((weight, t) => {
      for (let n = 0; n < MILLION; n++) full[t * MILLION + n] = weight(n);
    });
    using out = poisoned(gpu, query.shape);
    layer.forward(query, { context, mask: { full }, out });
    const y = await out.read();
    weights.forEach((weight, t) => {
      const row = xq.subarray(t * dim, (t + 1) * dim);
      expectClose(y.subarray(t * dim, (t + 1) * dim), expectedFor(row, occurrences(0, MILLION, weight)), {
        relL2: STREAM_F32,
        what: `full, query ${t}`,
        adapter,
      });
    });
  });

  /** Output rows t of a call in which the tokens are their own queries, each seeing [start, end). */
  async function checkRows(mask: MaskSpec, rows: readonly { t: number; start: number; end: number }[], length: number, by = layer): Promise<void> {
    using x = Tensor.wrap(gpu, context.buffer, [1, length, dim]);
    using out = poisoned(gpu, x.shape);
    by.forward(x, { mask, out });
    const y = await out.read();
    for (const { t, start, end } of rows) {
      const expected = expectedFor(tokens.subarray(t * dim, (t + 1) * dim), occurrences(start, end));
      expectClose(y.subarray(t * dim, (t + 1) * dim), expected, { relL2: STREAM_F32, what: `row ${t}`, adapter });
    }
    const bad = y.findIndex((value) => !Number.isFinite(value));
    expect(bad, "first value that is not finite").toBe(-1);
  }

  it("cuSeqlens", async () => {
    const cuSeqlens = Uint32Array.of(0, 3, 3, 700_000, 700_001, MILLION);
    const rows = [0, 2, 3, 350_000, 699_999, 700_000, 700_001, 999_999].map((t) => {
      const s = cuSeqlens.findLastIndex((start) => start <= t);
      return { t, start: cuSeqlens[s]!, end: cuSeqlens[s + 1]! };
    });
    await checkRows({ cuSeqlens }, rows, MILLION);
  });

  const LONG = 70_000;
  const PROBES = [0, 1, 31, 32, 63, 64, 2047, 2048, 2049, 4095, 4096, 32_767, 65_535, 65_536, 65_537, LONG - 1];
  it("70,000 causal tokens", async () => {
    await checkRows(
      "causal",
      PROBES.map((t) => ({ t, start: 0, end: t + 1 })),
      LONG,
      frugal,
    );
  });

  it.each([3, 8, 100, 40_000])("70,000 tokens in causal blocks of %d", async (block) => {
    await checkRows(
      { blockCausal: block },
      PROBES.map((t) => ({ t, start: 0, end: Math.min((Math.floor(t / block) + 1) * block, LONG) })),
      LONG,
      frugal,
    );
  });
});
