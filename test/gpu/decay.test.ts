import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { planDecayBackward } from "../../src/ops/decay_backward.ts";
import { DECAY_ROWS, decayTable, planDecayMoments } from "../../src/ops/decay_moments.ts";
import { decayBackward, decayMoments } from "../../src/reference/decay.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32, STREAM_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;
const maxWorkgroups = 65_535;

/** From quick to slow, and some that never fade. */
const factorsOf = (count: number) =>
  Float32Array.from({ length: count }, (_, c) => (c % 4 === 3 ? 1 : Math.exp(-1 / 2 ** ((9 * c) / Math.max(1, count - 1)))));

interface Sizes {
  readonly batch: number;
  readonly length: number;
  readonly order: number;
  readonly expand4: number;
}

async function forward(
  m: Float32Array<ArrayBuffer>,
  factors: Float32Array,
  { batch, length, order, expand4 }: Sizes,
  before?: Float32Array<ArrayBuffer>,
) {
  const stride4 = order * expand4;
  const memory = batch * DECAY_ROWS * stride4 * 4;
  const step = planDecayMoments({
    rows: slotOf("rows", m.length),
    decay: slotOf("decay", 12 * expand4),
    running: slotOf("running", memory),
    batchRows: batch,
    slabTokens: length,
    stride4,
    expand4,
    accumulate: before !== undefined,
    maxWorkgroups,
  });
  const { rows, running } = await runSteps(gpu, [step], { rows: m, decay: decayTable(factors, expand4), running: before ?? memory });
  return { h: rows, running };
}

async function backward(
  dh: Float32Array<ArrayBuffer>,
  factors: Float32Array,
  sizes: Sizes,
  slab: { first: number; length: number; after?: Float32Array<ArrayBuffer> },
) {
  const { batch, order, expand4 } = sizes;
  const stride4 = order * expand4;
  const step = planDecayBackward({
    rows: slotOf("rows", dh.length),
    rowsStride4: stride4,
    decay: slotOf("decay", 12 * expand4),
    running: slotOf("running", batch * stride4 * 4),
    batchRows: batch,
    firstToken: slab.first,
    slabTokens: slab.length,
    stride4,
    expand4,
    accumulate: slab.after !== undefined,
    maxWorkgroups,
  });
  const { rows, running } = await runSteps(gpu, [step], {
    rows: dh,
    decay: decayTable(factors, expand4),
    running: slab.after ?? batch * stride4 * 4,
  });
  return { g: rows, running };
}

describe.each([
  { batch: 1, length: 1, order: 1, expand4: 1 },
  { batch: 2, length: 3, order: 2, expand4: 3 },
  { batch: 3, length: 65, order: 2, expand4: 5 },
  { batch: 1, length: 1000, order: 3, expand4: 2 },
])("$batch rows of $length tokens, order $order, E = 4·$expand4", (sizes) => {
  const { batch, length, order, expand4 } = sizes;
  const M = 4 * order * expand4;
  const factors = factorsOf(4 * expand4);
  const m = normals32(1, batch * length * M);

  it("fades", async () => {
    const { h } = await forward(m, factors, sizes);
    expectClose(h, decayMoments(m, factors, { batch, length, momentDim: M }).h, { relL2: LAYER_F32, what: "h", adapter });
  });

  it("has the twin's gradients", async () => {
    const { g } = await backward(m, factors, sizes, { first: 0, length });
    expectClose(g, decayBackward(m, factors, { batch, length, momentDim: M }), { relL2: LAYER_F32, what: "g", adapter });
  });
});

describe("cut into slabs", () => {
  const sizes = { batch: 1, length: 130, order: 2, expand4: 2 };
  const M = 16;
  const factors = factorsOf(8);
  const m = normals32(2, sizes.length * M);

  it.each([1, 64, 129])("%d tokens, then the rest: the bits of one", async (cut) => {
    const whole = await forward(m, factors, sizes);
    const head = await forward(m.slice(0, cut * M), factors, { ...sizes, length: cut });
    const tail = await forward(m.slice(cut * M), factors, { ...sizes, length: sizes.length - cut }, head.running);
    expect(Float32Array.from([...head.h, ...tail.h])).toEqual(whole.h);
    expect(tail.running).toEqual(whole.running);
  });

  it.each([1, 64, 129])("gradients of the tokens from %d on, then of those before: the bits of one", async (cut) => {
    const whole = await backward(m, factors, sizes, { first: 0, length: sizes.length });
    const tail = await backward(m.slice(cut * M), factors, sizes, { first: cut, length: sizes.length - cut });
    const head = await backward(m.slice(0, cut * M), factors, sizes, { first: 0, length: cut, after: tail.running });
    expect(Float32Array.from([...head.g, ...tail.g])).toEqual(whole.g);
  });
});

it("stays accurate over 50,000 tokens of the same sign", async () => {
  const sizes = { batch: 1, length: 25_000, order: 1, expand4: 1 };
  const factors = Float32Array.of(1, 0.9999, 0.99, 0.5);
  const m = normals32(3, 100_000).map((v) => 1 + v / 10);
  const first = await forward(m, factors, sizes);
  const second = await forward(m, factors, sizes, first.running);
  const expected = decayMoments(m, factors, { batch: 1, length: 25_000, momentDim: 4 });
  const { h } = decayMoments(m, factors, { batch: 1, length: 25_000, momentDim: 4 }, expected.state);
  expectClose(second.h, h, { relL2: STREAM_F32, what: "h", adapter });
});
