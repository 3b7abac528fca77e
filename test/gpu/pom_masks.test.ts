import { afterAll, describe, expect, it } from "vitest";
import { type Gpu, HomLayer, type MaskSpec, requestGpu, Tensor } from "../../src/index.ts";
import { PomLayer, type Positions } from "../../src/pom.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, chooser, expectSameBits, layerParams, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { drawMask, MASK_KINDS as KINDS, type MaskKind as Kind } from "../support/masks.ts";
import { poisoned } from "../support/poison.ts";
import { drawPositions, drawShape, leastScratch, POM_FORMS, type PomForm, type PomLayerShape, pomExpected, pomParams } from "../support/pom.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const { info } = await requestGpu({ device });
const adapter = info.description || info.architecture;

const LENGTHS = [1, 7, 63, 64, 65, 129, 257, 1000] as const;
const OFFSETS = [0, 4, 12, 16, 48, 252, 256, 768, 1040] as const;
/** Bytes of scratch as a multiple of the least that a layer accepts. */
const BUDGETS = [1, 1.3, 4, 1000] as const;
const REPEATS = 2;
/** Another number gives other cases. */
const SEED = 0;
/** Multiply-adds of a case in float64: what keeps the whole file short. */
const MOST_WORK = 1e7;
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
  readonly shape: PomLayerShape;
  readonly batch: number;
  readonly queries: number;
  readonly tokens: number;
  readonly self: boolean;
  readonly bias: boolean;
  readonly residual: boolean;
  /** Positions are given, not counted. */
  readonly placed: boolean;
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

/** Everything but kind and form is drawn from the seed; lengths are drawn again until the case is cheap enough. The first repeat is one of many slabs. */
function drawCase(kind: Kind, form: PomForm, at: number, repeat: number): Case {
  const seed = SEED + 1000 * KINDS.indexOf(kind) + 10 * at + repeat;
  const draw = chooser(seed);
  const square = kind === "causal" || kind === "blockCausal" || kind === "cuSeqlens";
  const thrifty = repeat === 0;
  const shape = drawShape(draw, form);
  for (;;) {
    const batch = kind === "cuSeqlens" ? 1 : draw.integer(1, thrifty ? 2 : 5);
    const tokens = draw.of(thrifty ? [129, 257, 1000] : LENGTHS);
    const self = square ? draw.chance(0.7) : draw.chance(0.3);
    const queries = square || self ? tokens : draw.of(LENGTHS);
    const width = shape.expand * shape.dim;
    if (batch * width * (tokens * shape.dim + 2 * queries * shape.dim + (kind === "full" ? queries * tokens : 0)) > MOST_WORK) continue;
    if (kind === "full" && batch * queries * tokens > MOST_PAIRS) continue;
    const [bias, residual] = [draw.chance(0.5), draw.chance(0.3)];
    const placed = shape.rotary === "2d" || (shape.rotary === "1d" && draw.chance(0.5));
    const offsets = Array.from({ length: 4 }, () => draw.of(OFFSETS));
    const blocks = { tile: "8x4", blockTokens: draw.of([8, 64]), prefixBlockTokens: draw.of([8, 32]) };
    // The large tile compiles slowly.
    const tuned = { ...(thrifty ? SMALL : draw.chance(0.4) ? LARGE : blocks), fusedSelectMaxDim: draw.of([0, 256]) } as Tuned;
    const budget = thrifty ? 1 : draw.of(BUDGETS);
    const words = [
      form,
      `k${shape.degree} e${shape.expand} D${shape.dim} G${shape.nGroups} H${shape.nSelHeads}`,
      `B${batch} T${queries} N${tokens}`,
      bias && "bias",
      self && "self",
      residual && "residual",
      placed && "placed",
      tuned.fusedSelectMaxDim ? "fused" : "slabs",
      `tile ${tuned.tile}`,
      `blocks ${tuned.blockTokens}/${tuned.prefixBlockTokens}`,
      `budget x${budget}`,
    ];
    const id = `${kind}: ${words.filter((word) => word).join(", ")}`;
    return { id, seed, kind, shape, batch, queries, tokens, self, bias, residual, placed, offsets, tuned, budget };
  }
}

/** What the plans of a kind did somewhere among its cases. */
const seen = new Map<Kind, { slabs: number; sums: number }>(KINDS.map((kind) => [kind, { slabs: 0, sums: 0 }]));

/** Runs a case twice, the second time on scratch memory full of NaN, and compares both with the reference. */
async function check(c: Case): Promise<void> {
  const { shape, seed, batch, queries, tokens, self, bias, residual, placed, offsets, tuned } = c;
  const gpu = await tunedGpu(tuned);
  const params = pomParams(seed, shape, bias);
  using layer = await PomLayer.create(gpu, { ...shape, bias, scratchBudget: Math.ceil(leastScratch(shape, gpu) * c.budget) }, params);
  const xq = normals32(seed + 10, batch * queries * shape.dim);
  const xc = self ? xq : normals32(seed + 11, batch * tokens * shape.dim);
  const plus = residual ? normals32(seed + 12, xq.length) : undefined;
  const { mask } = drawMask({ ...c, seed: c.kind === "causal" ? 0 : seed });
  const positions: Positions | undefined = placed ? drawPositions(seed + 13, shape, batch, queries) : undefined;
  const contextPositions = placed && !self ? drawPositions(seed + 14, shape, batch, tokens) : undefined;
  const queryShape = [batch, queries, shape.dim];
  const query = borrow(gpu, queryShape, offsets[0] ?? 0, xq);
  const context = self ? undefined : borrow(gpu, [batch, tokens, shape.dim], offsets[1] ?? 0, xc);
  const added = plus && borrow(gpu, queryShape, offsets[2] ?? 0, plus);
  const out = borrow(gpu, queryShape, offsets[3] ?? 0);
  const expected = pomExpected(shape, params, {
    query: xq,
    ...(!self && { context: xc }),
    mask,
    positions,
    contextPositions,
    batch,
    queryLength: queries,
    contextLength: tokens,
  });
  plus?.forEach((value, i) => {
    expected[i] = (expected[i] ?? 0) + value;
  });
  const run = async () => {
    out.poison();
    layer.forward(query.tensor, { context: context?.tensor, mask, residual: added?.tensor, positions, contextPositions, out: out.tensor });
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
    if (times("gate") > 1 || times("select") > 1 || times("apply_gates") > 1) record.slabs++;
    if (times("moments") > 1 || times("prefix_moments") > 1) record.sums++;
  } finally {
    for (const tensor of [query, context, added, out]) tensor?.destroy();
  }
}

describe.each(KINDS)("mask %s", (kind) => {
  const cases = POM_FORMS.flatMap((form, at) => Array.from({ length: REPEATS }, (_, repeat) => drawCase(kind, form, at, repeat)));
  it.each(cases.map((c) => [c.id, c] as const))("%s", (_, c) => check(c));

  it("was computed in several slabs in many of the cases above", () => {
    expect(seen.get(kind)!.slabs).toBeGreaterThanOrEqual(6);
    expect(seen.get(kind)!.sums).toBeGreaterThanOrEqual(6);
  });
});

/** One call on arrays. */
async function forward(
  layer: PomLayer,
  data: Float32Array,
  shape: readonly [number, number, number],
  options: { context?: Float32Array; contextLength?: number; mask?: MaskSpec | undefined; positions?: Positions; contextPositions?: Positions } = {},
): Promise<Float32Array> {
  const { gpu } = layer;
  const { mask, positions, contextPositions } = options;
  using query = Tensor.from(gpu, data, shape);
  using context = options.context && Tensor.from(gpu, options.context, [shape[0], options.contextLength ?? shape[1], shape[2]]);
  using out = poisoned(gpu, shape);
  layer.forward(query, { context, mask, positions, contextPositions, out });
  return out.read();
}

const PLAIN: PomLayerShape = { dim: 5, degree: 3, expand: 2, nGroups: 1, nSelHeads: 1, rotary: "none" };
const TURNED: PomLayerShape = { dim: 8, degree: 2, expand: 2, nGroups: 2, nSelHeads: 4, rotary: "1d" };

describe.each([
  { form: "plain, slabs", shape: PLAIN, tuned: SMALL },
  { form: "plain, fused", shape: PLAIN, tuned: { ...SMALL, fusedSelectMaxDim: 256 } as Tuned },
  { form: "turned", shape: TURNED, tuned: SMALL },
])("who sees nothing, $form", ({ shape, tuned }) => {
  const { dim } = shape;
  const [batch, queries, tokens] = [3, 9, 70];
  const every = () => true;
  const first = (size: number, of: number) => Uint8Array.from({ length: size }, (_, i) => (i < of ? 1 : 0));
  /** Weights that add up to 0 in the first batch row, whose mean the formula does not have, and to 1 in the others. */
  const cancelling = Float32Array.from({ length: batch * tokens }, (_, i) => (i === 3 ? -1 : i === 5 || (i >= tokens && i % tokens === 0) ? 1 : 0));
  const cancellingRow = Float32Array.from({ length: queries * tokens }, (_, i) => (i === 3 ? -2 : i === 5 ? 2 : i % tokens === 0 && i > 0 ? 0.5 : 0));
  const blind: [string, MaskSpec, (b: number, t: number) => boolean][] = [
    ["padding of zeros", { padding: new Uint8Array(batch * tokens) }, every],
    ["padding of float zeros", { padding: new Float32Array(batch * tokens) }, every],
    ["padding of zeros in two rows", { padding: first(batch * tokens, tokens) }, (b) => b > 0],
    ["padding that cancels in a row", { padding: cancelling }, (b) => b === 0],
    ["lengths 0", { lengths: new Uint32Array(batch) }, every],
    ["a length 0 among others", { lengths: Uint32Array.of(tokens, 0, 1) }, (b) => b === 1],
    ["a full mask of zeros for all rows", { full: new Uint8Array(queries * tokens) }, every],
    ["a full mask with one seeing query", { full: first(queries * tokens, tokens) }, (_, t) => t > 0],
    ["a full mask that cancels in a row", { full: cancellingRow }, (_, t) => t === 0],
    ["a full mask of float zeros", { full: new Float32Array(batch * queries * tokens) }, every],
  ];
  it.each(blind.flatMap((test) => [true, false].map((bias) => [...test, bias] as const)))(
    "%s gives exactly the bias of ag_proj, others a mean",
    async (_, mask, isBlind, bias) => {
      const params = pomParams(1, shape, bias);
      using layer = await PomLayer.create(await tunedGpu(tuned), { ...shape, bias }, params);
      const xq = normals32(2, batch * queries * dim);
      const xc = normals32(3, batch * tokens * dim);
      const y = await forward(layer, xq, [batch, queries, dim], { context: xc, contextLength: tokens, mask });
      const args = { query: xq, context: xc, mask, batch, queryLength: queries, contextLength: tokens };
      expectClose(y, pomExpected(shape, params, args), { relL2: LAYER_F32, what: "y", adapter });
      const zero = params["ag_proj.bias"] ?? new Float32Array(dim);
      let others = 0;
      let seeing = 0;
      for (let row = 0; row < batch * queries; row++) {
        const values = y.subarray(row * dim, (row + 1) * dim);
        if (isBlind(Math.floor(row / queries), row % queries)) expect([...values], `row ${row}`).toEqual([...zero]);
        else {
          seeing++;
          if (values.some((value, i) => value !== zero[i])) others++;
        }
      }
      expect(others, "rows that see something").toBe(seeing);
    },
  );
});

describe("a row has the same bits in any batch", () => {
  const masks: { name: string; mask: (rows: number[], n: number) => MaskSpec | undefined }[] = [
    { name: "none", mask: () => undefined },
    { name: "causal", mask: () => "causal" },
    { name: "blockCausal 100", mask: () => ({ blockCausal: 100 }) },
    { name: "lengths", mask: (rows, n) => ({ lengths: Uint32Array.from(rows, (b) => Math.max(0, n - 61 * b)) }) },
    { name: "full", mask: (rows, n) => ({ full: Float32Array.from(rows.flatMap((b) => Array.from(normals32(b + 77, n * n), Math.abs))) }) },
  ];
  const forms = [
    { form: "plain, slabs", shape: PLAIN, tuned: SMALL },
    { form: "plain, fused", shape: PLAIN, tuned: { ...SMALL, fusedSelectMaxDim: 256, prefixBlockTokens: 32 } as Tuned },
    { form: "turned, large tiles", shape: TURNED, tuned: LARGE },
  ];
  it.each(masks.flatMap((m) => forms.flatMap((f) => [1, 2.5].map((budget) => ({ ...m, ...f, budget })))))(
    "$name, $form, budget x$budget",
    async ({ name, mask, shape, tuned, budget }) => {
      const [batch, n] = [4, name === "full" ? 70 : 257];
      const gpu = await tunedGpu(tuned);
      using layer = await PomLayer.create(gpu, { ...shape, scratchBudget: Math.ceil(leastScratch(shape, gpu) * budget) }, pomParams(6, shape, false));
      const data = normals32(7, batch * n * shape.dim);
      const rows = Array.from({ length: batch }, (_, b) => b);
      const all = await forward(layer, data, [batch, n, shape.dim], { mask: mask(rows, n) });
      const size = n * shape.dim;
      for (const b of rows) {
        const alone = await forward(layer, data.slice(b * size, (b + 1) * size), [1, n, shape.dim], { mask: mask([b], n) });
        expectSameBits(alone, all.slice(b * size, (b + 1) * size), `row ${b} alone`);
      }
    },
  );
});

describe("the same layer in other words", () => {
  const [batch, n] = [2, 66];
  const data = (dim: number) => normals32(21, batch * n * dim);
  const lower = Uint8Array.from({ length: n * n }, (_, i) => (i % n <= Math.floor(i / n) ? 1 : 0));

  it.each([PLAIN, TURNED])("causal is a full mask of a lower triangle, $rotary", async (shape) => {
    using layer = await PomLayer.create(await tunedGpu(SMALL), shape, pomParams(20, shape, false));
    const causal = await forward(layer, data(shape.dim), [batch, n, shape.dim], { mask: "causal" });
    const full = await forward(layer, data(shape.dim), [batch, n, shape.dim], { mask: { full: lower } });
    expectClose(full, causal, { relL2: LAYER_F32, what: "full", adapter });
  });

  it("groups that the kernels keep apart and groups in a dense matrix give the same", async () => {
    // 4 groups of 4 inputs; of 2 inputs where the dim is 8.
    for (const dim of [16, 8]) {
      const shape: PomLayerShape = { dim, degree: 3, expand: 2, nGroups: 4, nSelHeads: 1, rotary: "none" };
      const params = pomParams(22, shape, true);
      using grouped = await PomLayer.create(await tunedGpu(SMALL), { ...shape, bias: true }, params);
      const inputs = dim / 4;
      const M = 2 * dim;
      const po = new Float32Array(M * dim);
      for (let o = 0; o < M; o++) {
        for (let i = 0; i < inputs; i++) po[o * dim + Math.floor((4 * o) / M) * inputs + i] = params["po_proj.weight"]![o * inputs + i]!;
      }
      const { "po_proj.weight": _, ...rest } = params;
      const expected = pomExpected({ ...shape, nGroups: 1 }, denseOf(rest, po), { query: data(dim), batch, queryLength: n });
      const y = await forward(grouped, data(dim), [batch, n, dim]);
      // po_proj.bias is 0 in a dense layer, which has none.
      const biased = params["po_proj.bias"]!.some((b) => b !== 0);
      expect(biased).toBe(true);
      const { "po_proj.bias": __, ...unbiased } = params;
      using plain = await PomLayer.create(await tunedGpu(SMALL), { ...shape, bias: true }, { ...unbiased, "po_proj.bias": new Float32Array(M) });
      expectClose(await forward(plain, data(dim), [batch, n, dim]), expected, { relL2: LAYER_F32, what: `D ${dim}`, adapter });
      expectClose(y, pomExpected(shape, params, { query: data(dim), batch, queryLength: n }), { relL2: LAYER_F32, what: `D ${dim}, bias`, adapter });
      const flops = grouped.plan({ batch: 1, queryLength: n }).flops;
      expect(flops).toBe(n * M * (2 * (dim === 16 ? inputs : dim) + 6 + 1) + n * (2 * dim * M + M + 2 * dim * M));
    }
  });

  it("a mask made for one kind of layer is refused by the other, and one made by a layer is reused", async () => {
    const gpu = await tunedGpu(SMALL);
    using layer = await PomLayer.create(gpu, PLAIN, pomParams(23, PLAIN, false));
    const padding = Uint8Array.from({ length: batch * n }, (_, i) => (i % 3 ? 1 : 0));
    using made = layer.createMask({ padding }, { batch, queryLength: n });
    const x = data(5);
    using tensor = Tensor.from(gpu, x, [batch, n, 5]);
    using y = layer.forward(tensor, { mask: made });
    expectSameBits(await y.read(), await forward(layer, x, [batch, n, 5], { mask: { padding } }), "prepared");
    const homShape = { dim: 5, order: 1, orderExpand: 1 };
    using hom = await HomLayer.create(gpu, homShape, layerParams(1, homShape));
    expect(() => hom.forward(tensor, { mask: made })).toThrow(/mask must be made by a layer of the same kind/);
  });

  it("positions move moments and gates, and count from 0 by default", async () => {
    using layer = await PomLayer.create(await tunedGpu(SMALL), TURNED, pomParams(24, TURNED, false));
    const x = data(8);
    const counted = Uint32Array.from({ length: n }, (_, i) => i);
    const plain = await forward(layer, x, [batch, n, 8]);
    expectSameBits(await forward(layer, x, [batch, n, 8], { positions: counted }), plain, "given");
    const twice = Int32Array.from([...counted, ...counted]);
    expectSameBits(await forward(layer, x, [batch, n, 8], { positions: twice, contextPositions: counted }), plain, "for each row");
    const moved = await forward(layer, x, [batch, n, 8], { positions: counted.map((p) => p + 5) });
    expect(moved.some((value, i) => Math.abs(value - plain[i]!) > 1e-3)).toBe(true);
    const packed = await forward(layer, x.slice(0, n * 8), [1, n, 8], { mask: { cuSeqlens: Uint32Array.of(0, 20, 20, n) } });
    const second = await forward(layer, x.slice(20 * 8, n * 8), [1, n - 20, 8]);
    expectClose(packed.slice(20 * 8), second, { relL2: LAYER_F32, what: "a packed sequence counts from its start", adapter });
  });
});

/** A dense layer's parameters out of a grouped one's. */
function denseOf(params: Readonly<Record<string, Float32Array>>, po: Float32Array): Record<string, Float32Array> {
  const se = params["se_proj.weight"]!;
  return {
    "qc_proj.weight": Float32Array.from([...po, ...se]),
    se_bias: params["se_proj.bias"]!,
    po_coeff: params["po_coeff"]!,
    "ag_proj.weight": params["ag_proj.weight"]!,
    "ag_proj.bias": params["ag_proj.bias"]!,
  };
}
