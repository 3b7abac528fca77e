import { afterAll, describe, expect, it } from "vitest";
import { type Activation, type Gpu, type HomGradients, HomLayer, type MaskSpec, requestGpu } from "../../src/index.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { type HomBackwardArguments, homBackward } from "../../src/reference/hom_backward.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, chooser, expectSameBits, type LayerShape, layerParams, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { drawMask, MASK_KINDS, type MaskKind } from "../support/masks.ts";
import { LAYER_GRADIENT_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const { info } = await requestGpu({ device });
const adapter = info.description || info.architecture;

const ORDERS = [1, 2, 3, 4, 5, 6, 7, 8] as const;
const DIMS = [1, 3, 5, 12, 32, 33] as const;
const LENGTHS = [1, 7, 16, 63, 64, 65, 127, 129, 257] as const;
const OFFSETS = [0, 4, 16, 252, 256, 1040] as const;
/** Bytes of scratch as a multiple of the least that a layer accepts. */
const BUDGETS = [1.3, 4, 1000] as const;
const REPEATS = 2;
/** Another number gives other cases. */
const SEED = 0;
/** Multiply-adds of a case in float64, about. */
const MOST_WORK = 2e7;
/** Batch rows x queries x tokens of a full mask, which is cut in both directions. */
const MOST_PAIRS = 5e4;

interface Tuned {
  readonly tile: "8x4" | "16x8";
  readonly blockTokens: 8 | 64;
  readonly prefixBlockTokens: 8 | 32;
}

interface Case {
  readonly id: string;
  readonly seed: number;
  readonly kind: MaskKind;
  readonly shape: LayerShape & { readonly activation: Activation };
  readonly batch: number;
  readonly queries: number;
  readonly tokens: number;
  /** The context is not given. */
  readonly self: boolean;
  readonly bias: boolean;
  readonly offsets: readonly number[];
  readonly tuned: Tuned;
  readonly budget: number;
}

const SMALL: Tuned = { tile: "8x4", blockTokens: 8, prefixBlockTokens: 8 };
const LARGE: Tuned = { tile: "16x8", blockTokens: 64, prefixBlockTokens: 32 };

const gpus = new Map<string, Gpu>();
async function tunedGpu(tuned: Tuned): Promise<Gpu> {
  const key = JSON.stringify(tuned);
  const gpu = gpus.get(key) ?? (await requestGpu({ device, tuning: tuned }));
  gpus.set(key, gpu);
  return gpu;
}

/** Everything but kind and order is drawn from the seed; lengths are drawn again until the case is cheap enough. The first repeat is one of many slabs. */
function drawCase(kind: MaskKind, order: number, repeat: number): Case {
  const seed = SEED + 1000 * MASK_KINDS.indexOf(kind) + 10 * order + repeat;
  const draw = chooser(seed);
  const square = kind === "causal" || kind === "blockCausal" || kind === "cuSeqlens";
  const thrifty = repeat === 0;
  const dim = draw.of(thrifty ? DIMS.slice(0, 4) : DIMS);
  const orderExpand = dim * order > 64 ? 1 : draw.integer(1, 2);
  for (;;) {
    const batch = kind === "cuSeqlens" ? 1 : draw.integer(1, thrifty ? 2 : 4);
    const tokens = draw.of(thrifty ? [129, 257] : LENGTHS);
    const self = square ? draw.chance(0.6) : draw.chance(0.3);
    const queries = square || self ? tokens : draw.of(LENGTHS);
    // Not every activation with every way of loading rows: compiling is what takes the time.
    const activation = draw.of<Activation>(dim % 4 === 0 ? ["gelu", "tanh"] : ["gelu", "identity", "x_erf"]);
    const shape = { dim, order, orderExpand, activation };
    const width = order * orderExpand * dim;
    if (batch * width * (4 * tokens * dim + 5 * queries * dim + (kind === "full" ? 2 * queries * tokens : 0)) > MOST_WORK) continue;
    // Every step of a plan keeps a bind group until it is collected, of which lavapipe can have some 60,000.
    if (kind === "full" && batch * queries * tokens > MOST_PAIRS) continue;
    const bias = draw.chance(0.7);
    const offsets = Array.from({ length: 3 }, () => draw.of(OFFSETS));
    const blocks: Tuned = { tile: "8x4", blockTokens: draw.of([8, 64]), prefixBlockTokens: draw.of([8, 32]) };
    // The large tile compiles slowly: with one activation only.
    const tuned = thrifty ? SMALL : activation === "gelu" && draw.chance(0.4) ? LARGE : blocks;
    const budget = thrifty ? 1 : draw.of(BUDGETS);
    const words = [
      `k${order} e${orderExpand} D${dim}`,
      `B${batch} T${queries} N${tokens}`,
      activation,
      !bias && "no bias",
      self && "self",
      `tile ${tuned.tile}`,
      `blocks ${tuned.blockTokens}/${tuned.prefixBlockTokens}`,
      `budget x${budget}`,
    ];
    const id = `${kind}: ${words.filter((word) => word).join(", ")}`;
    return { id, seed, kind, shape, batch, queries, tokens, self, bias, offsets, tuned, budget };
  }
}

/** All of a call's gradients by name, read back; the tensors are destroyed. */
async function read(gradients: HomGradients): Promise<Record<string, Float32Array>> {
  const tensors = { query: gradients.query, ...(gradients.context && { context: gradients.context }), ...gradients.params };
  const values: Record<string, Float32Array> = {};
  for (const [name, tensor] of Object.entries(tensors)) {
    values[name] = await tensor.read();
    tensor.destroy();
  }
  return values;
}

function expected(
  shape: LayerShape,
  params: Record<string, Float32Array>,
  args: Omit<HomBackwardArguments, "mask"> & { mask?: MaskSpec | undefined },
) {
  const { query, context, params: ofParams } = homBackward(shape, params as never, args as HomBackwardArguments);
  return { query, ...(context && { context }), ...ofParams } as Record<string, Float64Array>;
}

const slabs = new Map<MaskKind, number>(MASK_KINDS.map((kind) => [kind, 0]));

/** Computes a case twice, the second time on scratch memory full of NaN, and compares both with the reference. */
async function check(c: Case): Promise<void> {
  const { shape, seed, batch, queries, tokens, self, bias, offsets, tuned } = c;
  const gpu = await tunedGpu(tuned);
  const params = layerParams(seed, shape, bias);
  const least = minimumScratch({ ...shape, scratchBudget: 1 }, gpu.tuning);
  using layer = await HomLayer.create(gpu, { ...shape, bias, scratchBudget: Math.ceil(least * c.budget) }, params);
  const xq = normals32(seed + 10, batch * queries * shape.dim);
  const xc = self ? undefined : normals32(seed + 11, batch * tokens * shape.dim);
  const dy = normals32(seed + 12, xq.length);
  const { mask, queryMask } = drawMask(c);
  const query = borrow(gpu, [batch, queries, shape.dim], offsets[0] ?? 0, xq);
  const context = xc && borrow(gpu, [batch, tokens, shape.dim], offsets[1] ?? 0, xc);
  const gradOutput = borrow(gpu, [batch, queries, shape.dim], offsets[2] ?? 0, dy);
  const wanted = expected(shape, params, {
    query: xq,
    context: xc,
    mask,
    queryMask,
    batch,
    queryLength: queries,
    contextLength: tokens,
    gradOutput: dy,
  });
  try {
    const { output, backward } = layer.forwardForTraining(query.tensor, { context: context?.tensor, mask, queryMask });
    output.destroy();
    watch.reset();
    const first = await read(backward(gradOutput.tensor));
    if (watch.dispatches.filter(({ kernel }) => kernel === "gate_backward").length > 1) slabs.set(c.kind, slabs.get(c.kind)! + 1);
    expect(Object.keys(first).sort()).toEqual(Object.keys(wanted).sort());
    for (const [name, values] of Object.entries(wanted)) {
      expectClose(first[name]!, values, { relL2: LAYER_GRADIENT_F32, what: `${name} of ${c.id}`, adapter });
    }
    poisonScratch(device, watch.live(/^hom\.scratch\./));
    const second = await read(backward(gradOutput.tensor));
    for (const name of Object.keys(wanted)) expectSameBits(second[name]!, first[name]!, `${name}, the same bits on other scratch memory`);
  } finally {
    for (const tensor of [query, context, gradOutput]) tensor?.destroy();
  }
}

describe.each(MASK_KINDS)("mask %s", (kind) => {
  const cases = ORDERS.flatMap((order) => Array.from({ length: REPEATS }, (_, repeat) => drawCase(kind, order, repeat)));
  it.each(cases.map((c) => [c.id, c] as const))("%s", (_, c) => check(c));

  it("was computed in several slabs in many of the cases above", () => {
    expect(slabs.get(kind)).toBeGreaterThanOrEqual(6);
  });
});
