import { describe, expect, it } from "vitest";
import { type Activation, HomLayer, HomState, requestGpu, Tensor } from "../../src/index.ts";
import { HomStream, homReference } from "../../src/reference/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, homGolden, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { LAYER_F32, STREAM_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;
/** The same with other numbers of lanes for decoding. */
const LANES = [1, 4, 16, 64] as const;
const tuned = new Map(
  await Promise.all(
    LANES.map(async (decodeLanes) => [decodeLanes as number, await requestGpu({ device: gpu.device, tuning: { decodeLanes } })] as const),
  ),
);

function floats(seed: number, length: number): Float32Array {
  return Float32Array.from(normals(seed, length));
}

async function makeLayer(seed: number, config: { dim: number; order: number; orderExpand: number; activation?: Activation }, lanes = 1) {
  const { activation = "gelu", ...shape } = config;
  const params = Object.fromEntries(Object.entries(randomParams(seed, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
  const layer = await HomLayer.create(tuned.get(lanes)!, { ...shape, activation }, params);
  const reference = { shape: { ...shape, activation }, params: params as unknown as ReturnType<typeof randomParams> };
  return { layer, ...reference };
}

/** Rows [from, to) of a [B, N, D] array. */
function rowsOf(values: Float32Array, batch: number, length: number, dim: number, from: number, to: number): Float32Array {
  const rows = new Float32Array(batch * (to - from) * dim);
  for (let b = 0; b < batch; b++) rows.set(values.subarray((b * length + from) * dim, (b * length + to) * dim), b * (to - from) * dim);
  return rows;
}

/** Steps through a [B, N, D] stream in chunks and puts the outputs together. */
async function stepThrough(layer: HomLayer, state: HomState, x: Float32Array, batch: number, length: number, chunks: (at: number) => number) {
  const { dim } = layer.config;
  const y = new Float32Array(x.length);
  for (let at = 0; at < length; ) {
    const n = Math.min(chunks(at), length - at);
    using tokens = Tensor.from(gpu, rowsOf(x, batch, length, dim, at, at + n), [batch, n, dim]);
    using out = layer.step(state, tokens);
    const part = await out.read();
    for (let b = 0; b < batch; b++) y.set(part.subarray(b * n * dim, (b + 1) * n * dim), (b * length + at) * dim);
    at += n;
  }
  return y;
}

describe("golden streams, token by token and in chunks", async () => {
  const cases = (await goldenCases("hom_stream")).map((entry) => ({ name: entry.name, entry }));
  it.each(cases.flatMap((c) => LANES.map((lanes) => ({ ...c, lanes }))))("$name, $lanes lanes", async ({ entry, lanes }) => {
    const { shape, params, args, expected } = homGolden(await loadGolden(entry));
    const { dim, order, orderExpand } = shape;
    using layer = await HomLayer.create(tuned.get(lanes)!, { dim, order, orderExpand }, params);
    for (const chunk of [1, 3, 40]) {
      using state = layer.createState();
      const y = await stepThrough(layer, state, args.query, 1, args.queryLength, () => chunk);
      expectClose(y, expected, { relL2: LAYER_F32, what: `${entry.name} y in chunks of ${chunk}`, adapter });
      expect(state.count).toEqual([args.queryLength]);
    }
  });
});

describe("stepwise equals the causal forward", () => {
  const activations: Activation[] = ["gelu", "tanh", "identity", "x_erf"];
  const cases = Array.from({ length: 8 * activations.length * LANES.length }, (_, i) => ({
    lanes: LANES[Math.floor(i / 8 / activations.length)] ?? 1,
    i: i % (8 * activations.length),
  })).map(({ lanes, i }) => ({
    lanes,
    order: 1 + Math.floor(i / activations.length),
    activation: activations[i % activations.length] ?? "gelu",
    dim: [8, 5, 12, 33, 1][i % 5] ?? 8,
    batch: [1, 2, 64, 9][(i >> 2) % 4] ?? 1,
  }));
  it.each(cases)("order $order, $activation, dim $dim, batch $batch, $lanes lanes", async ({ order, activation, dim, batch, lanes }) => {
    const { layer, shape, params } = await makeLayer(order, { dim, order, orderExpand: 2, activation }, lanes);
    using _ = layer;
    const length = 23;
    const x = floats(100 + order, batch * length * dim);
    const expected = homReference(shape, params, { query: x, mask: "causal", batch, queryLength: length });
    using input = Tensor.from(gpu, x, [batch, length, dim]);
    using causal = layer.forward(input, { mask: "causal" });
    expectClose(await causal.read(), expected, { relL2: LAYER_F32, what: "causal forward", adapter });
    for (const chunks of [() => 1, (at: number) => 1 + (at % 7)]) {
      using state = layer.createState({ batch });
      const y = await stepThrough(layer, state, x, batch, length, chunks);
      expectClose(y, expected, { relL2: LAYER_F32, what: "steps", adapter });
    }
  });
});

describe("a state", async () => {
  const dim = 12;
  const batch = 3;
  const { layer, shape, params } = await makeLayer(1, { dim, order: 3, orderExpand: 2 });
  const upload = (values: Float32Array, length: number, rows = batch) => Tensor.from(gpu, values, [rows, length, dim]);
  const query = floats(2, batch * 4 * dim);
  const queryOf = async (state: HomState) => {
    using q = upload(query, 4);
    using y = layer.query(state, q);
    return y.read();
  };
  const stateOf = (x: Float32Array, length: number) => {
    const state = layer.createState({ batch });
    using tokens = upload(x, length);
    layer.append(state, tokens);
    return state;
  };
  const expectedOf = (x: Float32Array, length: number) =>
    homReference(shape, params, { query, context: x, batch, queryLength: 4, contextLength: length });

  it.each([{ chunks: [1, 1, 1, 1, 1, 1, 1] }, { chunks: [64, 65, 1] }, { chunks: [7, 129, 300] }, { chunks: [1000] }])(
    "appended in chunks of $chunks reads like the whole",
    async ({ chunks }) => {
      const length = chunks.reduce((a, b) => a + b, 0);
      const x = floats(3, batch * length * dim);
      using state = layer.createState({ batch });
      let at = 0;
      for (const n of chunks) {
        using tokens = upload(rowsOf(x, batch, length, dim, at, at + n), n);
        layer.append(state, tokens);
        at += n;
      }
      expect(state.count).toEqual([length, length, length]);
      expectClose(await queryOf(state), expectedOf(x, length), { relL2: LAYER_F32, what: "query", adapter });
    },
  );

  it("that has seen nothing reads zeros: the output is the bias", async () => {
    using state = layer.createState({ batch });
    const y = await queryOf(state);
    const bias = Float32Array.from(params["ag_proj.bias"] ?? []);
    for (let row = 0; row < batch * 4; row++) expect(y.slice(row * dim, (row + 1) * dim)).toEqual(bias);
  });

  it("merges in any order, and subtracts what was added", async () => {
    const a = floats(4, batch * 30 * dim);
    const b = floats(5, batch * 70 * dim);
    using first = stateOf(a, 30);
    using second = stateOf(b, 70);
    const before = await queryOf(first);
    using ab = first.clone();
    ab.merge(second);
    using ba = second.clone();
    ba.merge(first);
    const both = new Float32Array(batch * 100 * dim);
    for (let r = 0; r < batch; r++) {
      both.set(a.subarray(r * 30 * dim, (r + 1) * 30 * dim), r * 100 * dim);
      both.set(b.subarray(r * 70 * dim, (r + 1) * 70 * dim), (r * 100 + 30) * dim);
    }
    const expected = expectedOf(both, 100);
    expectClose(await queryOf(ab), expected, { relL2: LAYER_F32, what: "a + b", adapter });
    expectClose(await queryOf(ba), expected, { relL2: LAYER_F32, what: "b + a", adapter });
    expect(ab.count).toEqual([100, 100, 100]);
    ab.subtract(second);
    expect(ab.count).toEqual([30, 30, 30]);
    expectClose(await queryOf(ab), before, { relL2: LAYER_F32, what: "a + b - b", adapter });
    expectClose(await queryOf(first), expectedOf(a, 30), { relL2: LAYER_F32, what: "a, untouched", adapter });
  });

  it("scales, resets and branches", async () => {
    const a = floats(6, batch * 10 * dim);
    const b = floats(7, batch * 5 * dim);
    using state = stateOf(a, 10);
    state.scale(0.25);
    expect(state.count).toEqual([2.5, 2.5, 2.5]);
    using more = upload(b, 5);
    layer.append(state, more);
    const twin = new HomStream(shape, params, { batch });
    twin.append(a);
    twin.scale(0.25);
    twin.append(b);
    expectClose(await queryOf(state), twin.query(query), { relL2: LAYER_F32, what: "scaled", adapter });
    using branch = state.clone();
    branch.reset();
    expect(branch.count).toEqual([0, 0, 0]);
    layer.append(branch, more);
    expectClose(await queryOf(branch), expectedOf(b, 5), { relL2: LAYER_F32, what: "after reset", adapter });
    expectClose(await queryOf(state), twin.query(query), { relL2: LAYER_F32, what: "the branched one", adapter });
  });

  it("takes ragged rows and packed sequences with the bits of each alone", async () => {
    const lengths = Uint32Array.of(5, 0, 200);
    const x = floats(8, batch * 200 * dim);
    using state = layer.createState({ batch });
    using tokens = upload(x, 200);
    layer.append(state, tokens, { lengths });
    expect(state.count).toEqual([5, 0, 200]);
    const ragged = await queryOf(state);

    const packed = new Float32Array(205 * dim);
    packed.set(x.subarray(0, 5 * dim));
    packed.set(x.subarray(400 * dim, 600 * dim), 5 * dim);
    using packedState = layer.createState({ batch });
    using packedTokens = upload(packed, 205, 1);
    layer.append(packedState, packedTokens, { cuSeqlens: Uint32Array.of(0, 5, 5, 205) });
    expect(packedState.count).toEqual([5, 0, 200]);
    expect(await queryOf(packedState)).toEqual(ragged);

    const alone = layer.createState();
    using last = upload(x.slice(400 * dim), 200, 1);
    layer.append(alone, last);
    using q = upload(query.slice(2 * 4 * dim), 4, 1);
    using y = layer.query(alone, q);
    expect(await y.read()).toEqual(ragged.slice(2 * 4 * dim));

    // The queries of all rows, packed: 1 of the first row, none of the second, 3 of the third.
    const some = new Float32Array(4 * dim);
    some.set(query.subarray(0, dim));
    some.set(query.subarray(8 * dim, 11 * dim), dim);
    using packedQuery = upload(some, 4, 1);
    using z = layer.query(state, packedQuery, { cuSeqlens: Uint32Array.of(0, 1, 1, 4) });
    const values = await z.read();
    expect(values.slice(0, dim)).toEqual(ragged.slice(0, dim));
    expect(values.slice(dim)).toEqual(ragged.slice(8 * dim, 11 * dim));
    alone.destroy();
  });

  it("survives saving and loading", async () => {
    const x = floats(9, batch * 100 * dim);
    using state = stateOf(x, 100);
    const bytes = await state.save();
    using loaded = HomState.load(gpu, bytes, { layer });
    expect(loaded.count).toEqual(state.count);
    expect(await queryOf(loaded)).toEqual(await queryOf(state));
    expect(await loaded.save()).toEqual(bytes);
  });
});

describe.each([1, 16])("a window, %i lanes", async (lanes) => {
  const dim = 8;
  const { layer, shape, params } = await makeLayer(10, { dim, order: 2, orderExpand: 2 }, lanes);

  it.each([
    { window: 1, batch: 1 },
    { window: 5, batch: 1 },
    { window: 16, batch: 3 },
  ])("of $window tokens, batch $batch, forgets exactly what leaves", async ({ window, batch }) => {
    const length = 3 * window + 7;
    const x = floats(11, batch * length * dim);
    const mask = Uint8Array.from({ length: length * length }, (_, i) => {
      const t = Math.floor(i / length);
      const n = i % length;
      return n <= t && n > t - window ? 1 : 0;
    });
    const expected = homReference(shape, params, { query: x, mask: { full: mask }, batch, queryLength: length });
    using state = layer.createState({ batch, window });
    const { bytes } = state;
    const y = await stepThrough(layer, state, x, batch, length, (at) => 1 + (at % 4));
    expectClose(y, expected, { relL2: LAYER_F32, what: "windowed steps", adapter });
    expect(state.count).toEqual(new Array(batch).fill(window));
    expect(state.bytes).toBe(bytes);

    using loaded = HomState.load(layer.gpu, await state.save());
    using next = Tensor.from(gpu, floats(12, batch * dim), [batch, 1, dim]);
    using a = layer.step(state, next);
    using b = layer.step(loaded, next);
    expect(await b.read()).toEqual(await a.read());
  });

  it("drifts by less than rounding over 10,000 slides", async () => {
    const window = 32;
    const length = 10_000 + window;
    const x = floats(13, length * dim);
    using state = layer.createState({ window });
    using all = Tensor.from(gpu, x, [1, length, dim]);
    using y = layer.step(state, all);
    const last = (await y.read()).slice(-dim);
    const tail = x.slice(-window * dim);
    const expected = homReference(shape, params, { query: x.slice(-dim), context: tail, batch: 1, queryLength: 1, contextLength: window });
    expectClose(last, expected, { relL2: STREAM_F32, what: "the last of 10,000 slides", adapter });
  });
});

it("stays accurate over many single steps", async () => {
  const dim = 4;
  const { layer, shape, params } = await makeLayer(20, { dim, order: 2, orderExpand: 1 });
  using state = layer.createState();
  // 4,200 appends fill the first level 65 times and the second once.
  const length = 4_200;
  const x = floats(21, length * dim).map((v) => v + 1);
  using all = Tensor.from(gpu, x, [1, length, dim]);
  for (let t = 0; t < length; t++) {
    using token = Tensor.wrap(gpu, all.buffer, [1, 1, dim], { byteOffset: t * dim * 4 });
    layer.append(state, token);
  }
  using q = Tensor.from(gpu, floats(22, dim), [1, 1, dim]);
  using y = layer.query(state, q);
  const expected = homReference(shape, params, { query: floats(22, dim), context: x, batch: 1, queryLength: 1, contextLength: length });
  expectClose(await y.read(), expected, { relL2: STREAM_F32, what: "4,200 appends", adapter });
  layer.destroy();
});
