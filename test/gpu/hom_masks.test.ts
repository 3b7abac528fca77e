import { afterAll, describe, expect, it } from "vitest";
import { type Activation, type Gpu, HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, chooser, expectSameBits, type LayerShape, layerParams, normals32, poisonScratch, reference } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { drawMask, MASK_KINDS as KINDS, type MaskKind as Kind } from "../support/masks.ts";
import { poisoned } from "../support/poison.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const { info } = await requestGpu({ device });
const adapter = info.description || info.architecture;

const ORDERS = [1, 2, 3, 4, 5, 6, 7, 8] as const;
const DIMS = [1, 3, 5, 12, 33, 64, 65] as const;
const LENGTHS = [1, 7, 63, 64, 65, 127, 128, 129, 257, 257, 1000, 1000] as const;
const OFFSETS = [0, 4, 12, 16, 48, 252, 256, 768, 1040] as const;
/** Bytes of scratch as a multiple of the least that a layer accepts. */
const BUDGETS = [1, 1, 1.3, 1.3, 4, 1000] as const;
const REPEATS = 3;
/** Another number gives other cases. */
const SEED = 0;
/** Multiply-adds of a case in float64: what keeps the whole file short. */
const MOST_WORK = 1.5e7;
/** Batch rows x queries x tokens of a full mask, which is cut in both directions. */
const MOST_PAIRS = 1e5;

interface Tuned {
  readonly tile: "8x4" | "16x8";
  readonly fusedSelectMaxDim: 0 | 256;
  readonly blockTokens: 8 | 64;
  readonly prefixBlockTokens: 8 | 32;
}

interface Case {
  readonly id: string;
  readonly seed: number;
  readonly kind: Kind;
  readonly shape: LayerShape & { readonly activation: Activation };
  readonly batch: number;
  readonly queries: number;
  readonly tokens: number;
  /** Query and context are one tensor. */
  readonly self: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
  readonly offsets: readonly number[];
  readonly tuned: Tuned;
  readonly budget: number;
}

const SMALL: Tuned = { tile: "8x4", fusedSelectMaxDim: 0, blockTokens: 8, prefixBlockTokens: 8 };
const LARGE: Tuned = { tile: "16x8", fusedSelectMaxDim: 0, blockTokens: 64, prefixBlockTokens: 32 };

const gpus = new Map<string, Gpu>();
async function tunedGpu(tuned: Tuned): Promise<Gpu> {
  const key = JSON.stringify(tuned);
  const gpu = gpus.get(key) ?? (await requestGpu({ device, tuning: tuned }));
  gpus.set(key, gpu);
  return gpu;
}

/**
 * Everything but kind and order is drawn from the seed; lengths are drawn again until the case is cheap enough. The first repeat is one of many slabs.
 */
function drawCase(kind: Kind, order: number, repeat: number): Case {
  const seed = SEED + 1000 * KINDS.indexOf(kind) + 10 * order + repeat;
  const draw = chooser(seed);
  const square = kind === "causal" || kind === "blockCausal" || kind === "cuSeqlens";
  const thrifty = repeat === 0;
  const dim = draw.of(thrifty && order > 4 ? DIMS.slice(0, 5) : DIMS);
  const orderExpand = dim * order > 64 ? 1 : draw.integer(1, 3);
  for (;;) {
    const batch = kind === "cuSeqlens" ? 1 : draw.integer(1, thrifty ? 2 : 5);
    const tokens = draw.of(thrifty ? [129, 257, 1000] : LENGTHS);
    const self = square ? draw.chance(0.7) : draw.chance(0.3);
    const queries = square || self ? tokens : draw.of(LENGTHS);
    // Not every activation with every way of loading rows: compiling is what takes the time.
    const activation = draw.of<Activation>(dim % 4 === 0 ? ["gelu", "tanh"] : ["gelu", "identity", "x_erf"]);
    const shape = { dim, order, orderExpand, activation };
    const width = order * orderExpand * dim;
    if (batch * width * (tokens * dim + 2 * queries * dim + (kind === "full" ? queries * tokens : 0)) > MOST_WORK) continue;
    // Every step of a plan keeps a bind group until it is collected, of which lavapipe can have some 60,000.
    if (kind === "full" && batch * queries * tokens > MOST_PAIRS) continue;
    const [bias, residual] = [draw.chance(0.7), draw.chance(0.3)];
    const offsets = Array.from({ length: 4 }, () => draw.of(OFFSETS));
    const blocks = { tile: "8x4", blockTokens: draw.of([8, 64]), prefixBlockTokens: draw.of([8, 32]) };
    // The large tile compiles slowly: with one activation only.
    const tuned = {
      ...(thrifty ? SMALL : activation === "gelu" && draw.chance(0.6) ? LARGE : blocks),
      fusedSelectMaxDim: draw.of([0, 256]),
    } as Tuned;
    const budget = thrifty ? 1 : draw.of(BUDGETS);
    const words = [
      `k${order} e${orderExpand} D${dim}`,
      `B${batch} T${queries} N${tokens}`,
      shape.activation,
      !bias && "no bias",
      self && "self",
      residual && "residual",
      tuned.fusedSelectMaxDim ? "fused" : "slabs",
      `tile ${tuned.tile}`,
      `blocks ${tuned.blockTokens}/${tuned.prefixBlockTokens}`,
      `budget x${budget}`,
    ];
    const id = `${kind}: ${words.filter((word) => word).join(", ")}`;
    return { id, seed, kind, shape, batch, queries, tokens, self, bias, residual, offsets, tuned, budget };
  }
}

/** What the plans of a kind did somewhere among its cases. */
const seen = new Map<Kind, { slabs: number; sums: number }>(KINDS.map((kind) => [kind, { slabs: 0, sums: 0 }]));

/** Runs a case twice, the second time on scratch memory full of NaN, and compares both with the reference. */
async function check(c: Case): Promise<void> {
  const { shape, seed, batch, queries, tokens, self, bias, residual, offsets, tuned } = c;
  const gpu = await tunedGpu(tuned);
  const params = layerParams(seed, shape, bias);
  const least = minimumScratch({ ...shape, scratchBudget: 1 }, gpu.tuning);
  using layer = await HomLayer.create(gpu, { ...shape, bias, scratchBudget: Math.ceil(least * c.budget) }, params);
  const xq = normals32(seed + 10, batch * queries * shape.dim);
  const xc = self ? xq : normals32(seed + 11, batch * tokens * shape.dim);
  const plus = residual ? normals32(seed + 12, xq.length) : undefined;
  const { mask, queryMask } = drawMask(c);
  const queryShape = [batch, queries, shape.dim];
  const query = borrow(gpu, queryShape, offsets[0] ?? 0, xq);
  const context = self ? undefined : borrow(gpu, [batch, tokens, shape.dim], offsets[1] ?? 0, xc);
  const added = plus && borrow(gpu, queryShape, offsets[2] ?? 0, plus);
  const out = borrow(gpu, queryShape, offsets[3] ?? 0);
  const expected = reference(shape, params, {
    query: xq,
    ...(!self && { context: xc }),
    mask,
    queryMask,
    batch,
    queryLength: queries,
    contextLength: tokens,
  });
  plus?.forEach((value, i) => {
    expected[i] = (expected[i] ?? 0) + value;
  });
  const run = async () => {
    out.poison();
    layer.forward(query.tensor, { context: context?.tensor, mask, queryMask, residual: added?.tensor, out: out.tensor });
    return out.readInside();
  };
  try {
    const first = await run();
    expectClose(first, expected, { relL2: LAYER_F32, what: c.id, adapter, shape: queryShape });
    poisonScratch(device, watch.live(/^hom\.scratch\./));
    expectSameBits(await run(), first, "the same bits on other scratch memory");
    const kernels = layer.plan({ batch, queryLength: queries, contextLength: tokens, mask }).dispatches.map(({ kernel }) => kernel);
    const times = (name: string) => kernels.filter((kernel) => kernel === name).length;
    const record = seen.get(c.kind)!;
    if (times("gate") > 1 || times("select") > 1) record.slabs++;
    if (times("moments") > 1 || times("prefix_moments") > 1) record.sums++;
  } finally {
    for (const tensor of [query, context, added, out]) tensor?.destroy();
  }
}

describe.each(KINDS)("mask %s", (kind) => {
  const cases = ORDERS.flatMap((order) => Array.from({ length: REPEATS }, (_, repeat) => drawCase(kind, order, repeat)));
  it.each(cases.map((c) => [c.id, c] as const))("%s", (_, c) => check(c));

  it("was computed in several slabs in many of the cases above", () => {
    expect(seen.get(kind)!.slabs).toBeGreaterThanOrEqual(6);
    expect(seen.get(kind)!.sums).toBeGreaterThanOrEqual(6);
  });
});

/** One call on arrays. */
async function forward(
  layer: HomLayer,
  data: Float32Array,
  shape: readonly [number, number, number],
  options: { context?: Float32Array; contextLength?: number; mask?: MaskSpec | undefined; queryMask?: Uint8Array | undefined } = {},
): Promise<Float32Array> {
  const { gpu } = layer;
  const { mask, queryMask } = options;
  using query = Tensor.from(gpu, data, shape);
  using context = options.context && Tensor.from(gpu, options.context, [shape[0], options.contextLength ?? shape[1], shape[2]]);
  using out = poisoned(gpu, shape);
  layer.forward(query, { context, mask, queryMask, out });
  return out.read();
}

describe.each([SMALL, { ...SMALL, fusedSelectMaxDim: 256 as const }])("who sees nothing, fused up to $fusedSelectMaxDim", (tuned) => {
  const dim = 5;
  const [batch, queries, tokens] = [3, 9, 70];
  const half = Uint8Array.from({ length: batch * tokens }, (_, i) => (i < tokens ? 1 : 0));
  const oneRow = Uint8Array.from({ length: queries * tokens }, (_, i) => (i < tokens ? 1 : 0));
  const firstQuery = Uint8Array.from({ length: batch * queries }, (_, i) => (i % queries === 0 ? 1 : 0));
  const every = () => true;
  const blind: [string, { mask: MaskSpec; queryMask?: Uint8Array }, (b: number, t: number) => boolean][] = [
    ["padding of zeros", { mask: { padding: new Uint8Array(batch * tokens) } }, every],
    ["padding of float zeros", { mask: { padding: new Float32Array(batch * tokens) } }, every],
    ["padding of zeros in two rows", { mask: { padding: half } }, (b) => b > 0],
    ["lengths 0", { mask: { lengths: new Uint32Array(batch) } }, every],
    ["a length 0 among others", { mask: { lengths: Uint32Array.of(tokens, 0, 1) } }, (b) => b === 1],
    ["a full mask of zeros for all rows", { mask: { full: new Uint8Array(queries * tokens) } }, every],
    ["a full mask with one seeing query, for all rows", { mask: { full: oneRow } }, (_, t) => t > 0],
    ["a full mask of float zeros", { mask: { full: new Float32Array(batch * queries * tokens) } }, every],
    ["a queryMask", { mask: "causal", queryMask: firstQuery }, (_, t) => t > 0],
  ];
  it.each([true, false].flatMap((bias) => blind.map(([name, options, isBlind]) => ({ name, bias, options, isBlind }))))(
    "$name gives exactly the bias of ag_proj ($bias)",
    async ({ bias, options, isBlind }) => {
      const shape = { dim, order: 3, orderExpand: 2 };
      const params = layerParams(1, shape, bias);
      using layer = await HomLayer.create(await tunedGpu(tuned), { ...shape, bias }, params);
      const xq = normals32(2, batch * queries * dim);
      const xc = normals32(3, batch * tokens * dim);
      const square = options.mask === "causal";
      const y = await forward(layer, xq, [batch, queries, dim], { ...(!square && { context: xc, contextLength: tokens }), ...options });
      const zero = params["ag_proj.bias"] ?? new Float32Array(dim);
      let others = 0;
      for (let row = 0; row < batch * queries; row++) {
        const values = y.subarray(row * dim, (row + 1) * dim);
        if (isBlind(Math.floor(row / queries), row % queries)) expect([...values], `row ${row}`).toEqual([...zero]);
        else if (values.some((value, i) => value !== zero[i])) others++;
      }
      const seeing = Array.from({ length: batch * queries }, (_, row) => !isBlind(Math.floor(row / queries), row % queries)).filter((sees) => sees);
      expect(others, "rows that see something").toBe(seeing.length);
    },
  );
});

describe("wide rows", () => {
  // 64 lanes hold the outputs of a row; 256 is the widest that they can.
  it.each([130, 132, 255, 256, 257])("dim %d", async (dim) => {
    const c = {
      ...drawCase("causal", 2, 0),
      shape: { dim, order: 2, orderExpand: 1, activation: "gelu" as const },
      batch: 1,
      queries: 70,
      tokens: 70,
    };
    await check({ ...c, id: `causal D${dim}`, self: true, tuned: { ...SMALL, fusedSelectMaxDim: 256 } });
  });
});

describe("packed sequences", () => {
  const shape = { dim: 12, order: 2, orderExpand: 1 };
  const tokens = 130;
  const params = layerParams(4, shape);
  const data = normals32(5, tokens * shape.dim);
  const singles = Uint32Array.from({ length: tokens + 1 }, (_, s) => s);
  it.each([
    ["one segment", [0, tokens]],
    ["an empty segment at the start", [0, 0, 60, tokens]],
    ["three empty segments at the start", [0, 0, 0, 0, tokens]],
    ["empty segments in the middle", [0, 64, 64, 64, 65, 65, tokens]],
    ["an empty segment at the end", [0, 7, tokens, tokens]],
    ["three empty segments at the end", [0, tokens, tokens, tokens, tokens]],
    ["empty segments everywhere", [0, 0, 1, 1, 9, 9, 9, 128, 128, tokens, tokens]],
    ["every token alone", [...singles]],
    ["every token alone, an empty segment after each", [0, ...[...singles].flatMap((s) => [s, s])].slice(0, -1)],
  ])("%s", async (what, cu) => {
    const cuSeqlens = Uint32Array.from(cu);
    for (const scratchBudget of [minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, (await tunedGpu(SMALL)).tuning), 1 << 20]) {
      using layer = await HomLayer.create(await tunedGpu(SMALL), { ...shape, scratchBudget }, params);
      const y = await forward(layer, data, [1, tokens, shape.dim], { mask: { cuSeqlens } });
      const expected = reference(shape, params, { query: data, mask: { cuSeqlens }, batch: 1, queryLength: tokens });
      expectClose(y, expected, { relL2: LAYER_F32, what: `${what}, budget ${scratchBudget}`, adapter });
    }
  });
});

describe("a row has the same bits in any batch", () => {
  const cases = [
    { name: "none", mask: () => undefined },
    { name: "causal", mask: () => "causal" as const },
    { name: "blockCausal 4", mask: () => ({ blockCausal: 4 }) },
    { name: "blockCausal 100", mask: () => ({ blockCausal: 100 }) },
    { name: "padding", mask: (rows: number[], n: number) => ({ padding: Float32Array.from(rows.flatMap((b) => weightsOf(b, n))) }) },
    { name: "lengths", mask: (rows: number[], n: number) => ({ lengths: Uint32Array.from(rows, (b) => Math.max(0, n - 61 * b)) }) },
    { name: "full", mask: (rows: number[], n: number) => ({ full: Float32Array.from(rows.flatMap((b) => weightsOf(b, n * n))) }) },
  ] satisfies { name: string; mask: (rows: number[], n: number) => MaskSpec | undefined }[];
  const weightsOf = (seed: number, size: number) => Array.from(normals32(seed + 77, size), Math.abs);
  const budgets = [1, 2.5, 40];
  const tunings = [
    { form: "slabs", tuned: SMALL },
    { form: "fused", tuned: { ...SMALL, fusedSelectMaxDim: 256, prefixBlockTokens: 32 } },
    { form: "large tiles", tuned: LARGE },
  ] as const;
  it.each(cases.flatMap((c) => budgets.flatMap((budget) => tunings.map((t) => ({ ...c, ...t, budget })))))(
    "$name, budget x$budget, $form",
    async ({ name, mask, budget, tuned }) => {
      const shape = { dim: 5, order: 2, orderExpand: 1 };
      const [batch, n] = [5, name === "full" ? 70 : 257];
      const gpu = await tunedGpu(tuned);
      const scratchBudget = Math.ceil(minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, gpu.tuning) * budget);
      using layer = await HomLayer.create(gpu, { ...shape, scratchBudget }, layerParams(6, shape));
      const data = normals32(7, batch * n * shape.dim);
      const rows = Array.from({ length: batch }, (_, b) => b);
      const all = await forward(layer, data, [batch, n, shape.dim], { mask: mask(rows, n) });
      expectSameBits(await forward(layer, data, [batch, n, shape.dim], { mask: mask(rows, n) }), all, "the same call again");
      const size = n * shape.dim;
      for (const b of rows) {
        const alone = await forward(layer, data.slice(b * size, (b + 1) * size), [1, n, shape.dim], { mask: mask([b], n) });
        expectSameBits(alone, all.slice(b * size, (b + 1) * size), `row ${b} alone`);
      }
    },
  );

  const padded = budgets.flatMap((budget) => [1, 3].flatMap((queries) => tunings.map((t) => ({ ...t, budget, queries }))));
  it.each(padded)("a padded row with its length is the row of that length, $queries queries, budget x$budget, $form", async (c) => {
    const { budget, queries, tuned } = c;
    const shape = { dim: 12, order: 3, orderExpand: 1 };
    const gpu = await tunedGpu(tuned);
    const scratchBudget = Math.ceil(minimumScratch({ ...shape, activation: "gelu", scratchBudget: 1 }, gpu.tuning) * budget);
    using layer = await HomLayer.create(gpu, { ...shape, scratchBudget }, layerParams(8, shape));
    const lengths = [1000, 1, 7, 64, 129, 300, 0];
    const xq = normals32(9, lengths.length * queries * shape.dim);
    const xc = normals32(10, lengths.length * 1000 * shape.dim);
    const all = await forward(layer, xq, [lengths.length, queries, shape.dim], {
      context: xc,
      contextLength: 1000,
      mask: { lengths: Uint32Array.from(lengths) },
    });
    for (const [b, length] of lengths.entries()) {
      if (length === 0) continue;
      const row = xq.slice(b * queries * shape.dim, (b + 1) * queries * shape.dim);
      const context = xc.slice(b * 1000 * shape.dim, (b * 1000 + length) * shape.dim);
      const alone = await forward(layer, row, [1, queries, shape.dim], { context, contextLength: length, mask: { lengths: Uint32Array.of(length) } });
      expectSameBits(alone, all.slice(b * row.length, (b + 1) * row.length), `length ${length}`);
    }
  });
});
