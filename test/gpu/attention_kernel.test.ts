import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { attentionStatsBytes, planAttentionKernel } from "../../src/ops/attention.ts";
import { attention } from "../../src/reference/attention.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
const { maxComputeWorkgroupsPerDimension: maxWorkgroups } = gpu.limits;

interface Case {
  readonly batch: number;
  readonly queries: number;
  readonly keys: number;
  readonly heads: number;
  readonly headDim: number;
  readonly causal?: boolean;
  readonly firstQuery?: number;
  readonly queryRows?: 4 | 8 | "quads";
  /** Where slabs of keys begin. */
  readonly slabs?: readonly number[];
  /** Size of the scores. */
  readonly spread?: number;
}

const padded = (width: number): number => Math.ceil(width / 4) * 4;

/** Heads of `headDim` channels, each padded with zeros to a multiple of 4. */
function padHeads(values: Float32Array, heads: number, headDim: number): Float32Array<ArrayBuffer> {
  const width = padded(headDim);
  const out = new Float32Array((values.length / headDim) * width);
  for (let i = 0; i < values.length / headDim; i++) out.set(values.subarray(i * headDim, (i + 1) * headDim), i * width);
  if (out.length % (heads * width) !== 0) throw new Error("not whole rows");
  return out;
}

async function run(c: Case): Promise<void> {
  const { batch, queries, keys, heads, headDim, causal = false, firstQuery = 0, queryRows = 4, spread = 1 } = c;
  const head4 = padded(headDim) / 4;
  const row = heads * head4 * 4;
  const q = normals32(1, batch * queries * heads * headDim).map((value) => value * spread);
  const [k, v] = [normals32(2, batch * keys * heads * headDim), normals32(3, batch * keys * heads * headDim)];
  const [paddedQ, paddedK, paddedV] = [q, k, v].map((values) => padHeads(values, heads, headDim)) as [Float32Array, Float32Array, Float32Array];
  const scale = 1 / Math.sqrt(headDim);
  const statsFloats = (batch * queries * attentionStatsBytes(heads, head4)) / 4;
  const starts = c.slabs ?? [0];
  const contents: Record<string, Float32Array<ArrayBuffer> | number> = {
    q: Float32Array.from(paddedQ, (value) => value * scale * Math.LOG2E),
    stats: statsFloats,
    y: batch * queries * row,
  };
  const steps = starts.map((firstKey, i) => {
    const count = (starts[i + 1] ?? keys) - firstKey;
    const kv = new Float32Array(batch * count * 2 * row);
    for (let b = 0; b < batch; b++) {
      for (let n = 0; n < count; n++) {
        const from = (b * keys + firstKey + n) * row;
        kv.set(paddedK.subarray(from, from + row), (b * count + n) * 2 * row);
        kv.set(paddedV.subarray(from, from + row), (b * count + n) * 2 * row + row);
      }
    }
    contents[`kv${i}`] = kv;
    return planAttentionKernel({
      q: slotOf("q", batch * queries * row),
      kv: slotOf(`kv${i}`, kv.length),
      stats: slotOf("stats", statsFloats),
      y: slotOf("y", batch * queries * row),
      heads,
      head4,
      batchRows: batch,
      queries,
      firstQuery,
      keys: count,
      firstKey,
      causal,
      accumulate: i > 0,
      last: i === starts.length - 1,
      queryRows,
      maxWorkgroups,
    });
  });
  const { y } = await runSteps(gpu, steps, contents as Record<"y", Float32Array<ArrayBuffer>>);
  const sizes = { batch, queryLength: queries, keyLength: keys, heads, headDim, causal, firstQuery };
  const expected = padHeads(Float32Array.from(attention(q, k, v, sizes)), heads, headDim);
  expectClose(y, expected, { relL2: LAYER_F32, what: "y", adapter, shape: [batch, queries, heads, padded(headDim)] });
}

describe.each([4, 8, ...(gpu.features.has("subgroups") ? (["quads"] as const) : [])] as const)("%s queries a lane", (queryRows) => {
  const causal = true;
  it.each<Case>([
    { batch: 1, queries: 1, keys: 1, heads: 1, headDim: 4 },
    { batch: 2, queries: 63, keys: 65, heads: 3, headDim: 8 },
    { batch: 1, queries: 65, keys: 63, heads: 1, headDim: 6 },
    { batch: 1, queries: 1, keys: 500, heads: 2, headDim: 64 },
    { batch: 1, queries: 33, keys: 129, heads: 2, headDim: 36 },
    { batch: 1, queries: 40, keys: 70, heads: 1, headDim: 128 },
    { batch: 1, queries: 70, keys: 66, heads: 2, headDim: 130 },
    { batch: 2, queries: 63, keys: 63, heads: 2, headDim: 8, causal },
    { batch: 1, queries: 500, keys: 500, heads: 1, headDim: 12, causal },
    { batch: 1, queries: 10, keys: 200, heads: 1, headDim: 12, causal, firstQuery: 190 },
    { batch: 1, queries: 70, keys: 300, heads: 1, headDim: 5, causal, firstQuery: 100 },
    { batch: 1, queries: 100, keys: 300, heads: 2, headDim: 20, slabs: [0, 64, 256] },
    { batch: 2, queries: 130, keys: 130, heads: 2, headDim: 8, causal, slabs: [0, 64, 128] },
    { batch: 1, queries: 64, keys: 200, heads: 1, headDim: 140, causal, firstQuery: 64, slabs: [0, 64, 128] },
  ])("$batch x $queries queries, $keys keys, $heads heads of $headDim, causal $causal, slabs $slabs", (c) => run({ ...c, queryRows }));

  it("scores of any size: the largest is subtracted", () =>
    run({ batch: 1, queries: 40, keys: 200, heads: 1, headDim: 4, queryRows, spread: 60, slabs: [0, 128] }));
});

describe("planAttentionKernel", () => {
  it("covers every tile, group of columns, head and batch row, in two dimensions where one is not enough", () => {
    const slot = slotOf("q", 4);
    const base = {
      q: slot,
      kv: slot,
      stats: slot,
      y: slot,
      keys: 1,
      firstQuery: 0,
      firstKey: 0,
      causal: false,
      accumulate: false,
      last: true,
    } as const;
    const plan = (heads: number, head4: number, queries: number, queryRows: 4 | 8 | "quads") =>
      planAttentionKernel({ ...base, heads, head4, batchRows: 2, queries, queryRows, maxWorkgroups: 100 }).workgroups;
    expect(plan(3, 16, 64, 8)).toEqual([6, 1, 1]);
    expect(plan(3, 16, 64, 4)).toEqual([12, 1, 1]);
    expect(plan(3, 17, 64, 8)).toEqual([12, 1, 1]);
    expect(plan(3, 33, 64, 8)).toEqual([24, 1, 1]);
    expect(plan(3, 16, 65 * 64, 8)).toEqual([98, 4, 1]);
    expect(plan(3, 16, 65, "quads")).toEqual([4, 1, 1]);
    expect(plan(3, 17, 64, "quads")).toEqual(plan(3, 17, 64, 4));
  });
});
