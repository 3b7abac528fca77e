import { afterAll, describe, expect, it } from "vitest";
import { type Gpu, requestGpu, Tensor, WeightsError } from "../../src/index.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { checkPomConfig, pomPlanConfig } from "../../src/layers/pom_config.ts";
import { PomLayer, PomState } from "../../src/pom.ts";
import { PomStream } from "../../src/reference/pom_stream.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { borrow, chooser, expectSameBits, normals32, poisonScratch } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { type PomLayerShape, pomParams, twinShape } from "../support/pom.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const device = await getDevice();
const watch = instrument(device);
afterAll(() => watch.restore());
const TILE = { tile: "8x4" } as const;
const gpus: Gpu[] = [
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim: 0, decodeLanes: 1 } }),
  await requestGpu({ device, tuning: { ...TILE, blockTokens: 64, prefixBlockTokens: 32, fusedSelectMaxDim: 256, decodeLanes: 16 } }),
];
const gpu = gpus[0]!;
const LANES = [1, 4, 16, 64] as const;
const tuned = new Map(
  await Promise.all(
    LANES.map(async (decodeLanes) => [decodeLanes as number, await requestGpu({ device, tuning: { ...gpu.tuning, decodeLanes } })] as const),
  ),
);
const adapter = gpu.info.description;

const SHAPES: readonly PomLayerShape[] = [
  { dim: 3, degree: 3, expand: 2, nGroups: 1, nSelHeads: 1, rotary: "none" },
  { dim: 12, degree: 2, expand: 1, nGroups: 1, nSelHeads: 4, rotary: "none" },
  { dim: 16, degree: 4, expand: 1, nGroups: 4, nSelHeads: 0, rotary: "none" },
  { dim: 5, degree: 2, expand: 2, nGroups: 1, nSelHeads: 1, rotary: "1d" },
  { dim: 16, degree: 3, expand: 1, nGroups: 2, nSelHeads: 8, rotary: "1d" },
  { dim: 12, degree: 2, expand: 1, nGroups: 1, nSelHeads: 4, rotary: "2d" },
];
const nameOf = (s: PomLayerShape) => `k${s.degree} e${s.expand} D${s.dim} G${s.nGroups} H${s.nSelHeads} ${s.rotary}`;
const cases = SHAPES.map((shape) => ({ name: nameOf(shape), shape }));

const makeLayer = (shape: PomLayerShape, on = gpu, scratchBudget?: number) =>
  PomLayer.create(on, { ...shape, bias: true, ...(scratchBudget !== undefined && { scratchBudget }) }, pomParams(1, shape, true));
const makeTwin = (shape: PomLayerShape, batch: number) => new PomStream(twinShape(shape), pomParams(1, shape, true), { batch });

/** Positions of some tokens, where the layer must be told. */
function drawPositions(shape: PomLayerShape, seed: number, length: number, always = false): Uint32Array | undefined {
  if (shape.rotary === "none" || (shape.rotary === "1d" && !always)) return undefined;
  const draw = chooser(seed);
  const axes = shape.rotary === "2d" ? 2 : 1;
  return Uint32Array.from({ length: length * axes }, () => draw.integer(0, axes === 2 ? 63 : 4000));
}

const LENGTHS = [1, 1, 2, 7, 64, 129, 257] as const;
const OFFSETS = [0, 4, 16, 256, 772] as const;
const CALLS = ["append", "append lengths", "append packed", "query", "query packed", "step", "step", "shift"] as const;

describe("random streams in slabs and chunks, against float64", () => {
  const scripts = Array.from({ length: 30 }, (_, i) => {
    const pick = chooser(500 + i);
    const shape = SHAPES[i % SHAPES.length]!;
    const [batch, which, budget] = [pick.integer(1, 4), i % 2, pick.of([1, 1, 1.4, 1000])];
    const calls = Array.from({ length: 6 }, () => ({ call: pick.of(CALLS), length: pick.of(LENGTHS), placed: pick.chance(0.3) }));
    const words = calls.map(({ call, length }) => `${call} ${length}`).join(", ");
    return { id: `${nameOf(shape)}, B${batch}, tuning ${which}, budget x${budget}: ${words}`, seed: 500 + i, shape, batch, which, budget, calls };
  });
  it.each(scripts.map((s) => [s.id, s] as const))("%s", async (_, s) => {
    const { shape, batch, seed } = s;
    const { dim } = shape;
    const own = gpus[s.which]!;
    const least = minimumScratch(pomPlanConfig(checkPomConfig("test", shape, own)), own.tuning);
    using layer = await makeLayer(shape, own, Math.ceil(least * s.budget));
    // One twin a batch row, so that packed rows are simple.
    const rows = Array.from({ length: batch }, () => makeTwin(shape, 1));
    const axes = shape.rotary === "2d" ? 2 : 1;
    const play = async (disturb: () => void, check?: (i: number, y: Float32Array, parts: number[]) => void) => {
      using state = layer.createState({ batch });
      const outputs: Float32Array[] = [];
      const pick = chooser(seed + 1);
      for (const [i, { call, length, placed }] of s.calls.entries()) {
        const packed = call.endsWith("packed");
        const tensorShape = packed ? [1, length, dim] : [batch, length, dim];
        const data = normals32(seed + 100 + i, tensorShape[0]! * length * dim);
        const x = borrow(own, tensorShape, pick.of(OFFSETS), data);
        const out = borrow(own, tensorShape, pick.of(OFFSETS));
        const lengths = Uint32Array.from({ length: batch }, () => pick.of([0, length, pick.integer(0, length)]));
        const cuSeqlens = Uint32Array.from([0, ...Array.from({ length: batch - 1 }, () => pick.integer(0, length)), length]).sort();
        const positions = drawPositions(shape, seed + i, length, placed);
        disturb();
        const options = { positions, ...(packed && { cuSeqlens }), ...(call === "append lengths" && { lengths }) };
        if (call.startsWith("append")) layer.append(state, x.tensor, options);
        if (call.startsWith("query")) layer.query(state, x.tensor, { ...options, out: out.tensor });
        if (call === "step") layer.step(state, x.tensor, { positions, out: out.tensor });
        const delta = shape.rotary === "2d" ? ([length % 5, -(length % 3)] as const) : length % 7;
        if (call === "shift" && shape.rotary !== "none") state.shift(delta);
        const reads = call.startsWith("query") || call === "step";
        const y = reads ? await out.readInside() : new Float32Array();
        outputs.push(y);
        if (check) {
          const parts = rows.flatMap((row, b): number[] => {
            const [from, to] = packed ? [cuSeqlens[b]!, cuSeqlens[b + 1]!] : [b * length, (b + 1) * length];
            const n = call === "append lengths" ? lengths[b]! : to - from;
            const tokens = data.subarray(from * dim, (from + n) * dim);
            if (call === "shift" && shape.rotary !== "none") row.shift(typeof delta === "number" ? [delta] : delta);
            if (n === 0 || call === "shift") return [];
            const at = packed ? from : 0;
            const own = positions?.subarray(at * axes, (at + n) * axes);
            if (call.startsWith("append")) row.append(tokens, { positions: own });
            return call === "step" ? [...row.step(tokens, { positions: own })] : reads ? [...row.query(tokens, { positions: own })] : [];
          });
          check(i, y, parts);
        }
        x.destroy();
        out.destroy();
      }
      outputs.push(Float32Array.from(state.count), Float32Array.from(state.next ?? []));
      return outputs;
    };
    const first = await play(
      () => {},
      (i, y, parts) => {
        if (y.length > 0) expectClose(y, parts, { relL2: LAYER_F32, what: `call ${i}`, adapter });
      },
    );
    expect([...first.at(-2)!]).toEqual(rows.map(({ count }) => count[0]));
    if (shape.rotary === "1d") expect([...first.at(-1)!]).toEqual(rows.map(({ next }) => next[0]));
    const second = await play(() => poisonScratch(device, watch.live(/^hom\.scratch\./)));
    second.forEach((y, i) => {
      expectSameBits(y, first[i]!, `call ${i} on other scratch memory`);
    });
  });
});

describe.each(cases)("a state, $name", ({ shape }) => {
  const { dim } = shape;
  const batch = 2;
  const length = 37;
  const x = normals32(3, batch * length * dim);
  const all = drawPositions(shape, 4, length);
  const axes = 2;
  const cut = (from: number, to: number) => {
    const rows = new Float32Array(batch * (to - from) * dim);
    for (let b = 0; b < batch; b++) rows.set(x.subarray((b * length + from) * dim, (b * length + to) * dim), b * (to - from) * dim);
    return rows;
  };
  const query = normals32(5, batch * 4 * dim);
  const at = drawPositions(shape, 6, 4);
  const read = async (layer: PomLayer, state: PomState) => {
    using q = Tensor.from(gpu, query, [batch, 4, dim]);
    using y = layer.query(state, q, { positions: at });
    return y.read();
  };
  const append = (layer: PomLayer, state: PomState, from: number, to: number) => {
    using tokens = Tensor.from(gpu, cut(from, to), [batch, to - from, dim]);
    layer.append(state, tokens, { positions: all?.subarray(from * axes, to * axes) });
  };

  it.each(LANES)("steps, one at a time and in chunks, are the causal layer: %i lanes", async (lanes) => {
    using layer = await makeLayer(shape, tuned.get(lanes));
    using input = Tensor.from(gpu, x, [batch, length, dim]);
    using causal = layer.forward(input, { mask: "causal", positions: all });
    const expected = await causal.read();
    for (const chunk of lanes === 1 ? [1, 5, length] : [1]) {
      using state = layer.createState({ batch });
      for (let from = 0; from < length; from += chunk) {
        const to = Math.min(from + chunk, length);
        using tokens = Tensor.from(gpu, cut(from, to), [batch, to - from, dim]);
        using y = layer.step(state, tokens, { positions: all?.subarray(from * axes, to * axes) });
        const part = new Float32Array(batch * (to - from) * dim);
        for (let b = 0; b < batch; b++) {
          part.set(expected.subarray((b * length + from) * dim, (b * length + to) * dim), b * (to - from) * dim);
        }
        expectClose(await y.read(), part, { relL2: LAYER_F32, what: `steps of ${chunk}, at ${from}`, adapter });
      }
      expect(state.count).toEqual([length, length]);
    }
  });

  it("merges, subtracts, scales, branches, forgets, saves and loads", async () => {
    using layer = await makeLayer(shape);
    using whole = layer.createState({ batch });
    append(layer, whole, 0, length);
    const expected = await read(layer, whole);
    using a = layer.createState({ batch });
    append(layer, a, 0, 20);
    const early = await read(layer, a);
    using b = layer.createState({ batch });
    if (shape.rotary === "1d") b.shift(20);
    append(layer, b, 20, length);
    using ab = a.clone();
    ab.merge(b);
    expectClose(await read(layer, ab), expected, { relL2: LAYER_F32, what: "a + b", adapter });
    expect([ab.count, ab.next]).toEqual([whole.count, whole.next]);
    ab.subtract(b);
    expectClose(await read(layer, ab), early, { relL2: 2 * LAYER_F32, what: "a + b - b", adapter });
    whole.scale(0.25);
    expect(whole.count).toEqual([length / 4, length / 4]);
    expectClose(await read(layer, whole), expected, { relL2: LAYER_F32, what: "a faded mean", adapter });
    const bytes = await a.save();
    using loaded = PomState.load(gpu, bytes, { layer });
    expectSameBits(await read(layer, loaded), early, "loaded");
    expect(await loaded.save()).toEqual(bytes);
    expect([loaded.count, loaded.next]).toEqual([a.count, a.next]);
    a.reset();
    const zero = pomParams(1, shape, true)["ag_proj.bias"]!;
    expect([...(await read(layer, a)).subarray(0, dim)]).toEqual([...zero]);
  });

  it("belongs to its layer", async () => {
    using layer = await makeLayer(shape);
    using state = layer.createState();
    using other = await makeLayer({ ...shape, degree: shape.degree + 1 });
    using tokens = Tensor.from(gpu, new Float32Array(dim), [1, 1, dim]);
    const positions = drawPositions(shape, 1, 1);
    expect(() => other.append(state, tokens, { positions })).toThrow(/the state's degree must be the layer's/);
    const bytes = await state.save();
    expect(() => PomState.load(gpu, bytes, { layer: other })).toThrow(WeightsError);
    const broken = bytes.slice();
    broken[broken.length - 9]! ^= 1;
    expect(() => PomState.load(gpu, broken)).toThrow(/checksum/);
    expect(state.count).toEqual([0]);
  });
});

describe("windows", () => {
  const windows = cases.filter(({ shape }) => shape.rotary === "none").flatMap((c) => LANES.map((lanes) => ({ ...c, lanes })));
  it.each(windows)("$name remembers the last tokens only: $lanes lanes", async ({ shape, lanes }) => {
    const { dim } = shape;
    const [batch, window, length] = [2, 3, 9];
    using layer = await makeLayer(shape, tuned.get(lanes));
    using state = layer.createState({ batch, window });
    const x = normals32(8, batch * length * dim);
    for (let t = 0; t < length; t++) {
      const from = Math.max(0, t - window + 1);
      const tokens = (a: number, b: number) =>
        Float32Array.from({ length: batch * (b - a) * dim }, (_, i) => {
          const row = Math.floor(i / ((b - a) * dim));
          return x[(row * length + a) * dim + (i % ((b - a) * dim))]!;
        });
      const twin = makeTwin(shape, batch);
      twin.append(tokens(from, t + 1));
      using one = Tensor.from(gpu, tokens(t, t + 1), [batch, 1, dim]);
      using y = layer.step(state, one);
      expectClose(await y.read(), twin.query(tokens(t, t + 1)), { relL2: 2 * LAYER_F32, what: `token ${t}`, adapter });
    }
    expect(state.count).toEqual([window, window]);
  });
});

describe("shifts", () => {
  it.each([
    { rotary: "1d", delta: 9 },
    { rotary: "1d", delta: -4 },
    { rotary: "2d", delta: [3, -2] },
  ] as const)("by $delta, $rotary, stand for tokens at other positions", async ({ rotary, delta }) => {
    const shape: PomLayerShape = { dim: 12, degree: 2, expand: 2, nGroups: 1, nSelHeads: 1, rotary };
    const [batch, n, dim] = [2, 40, 12];
    using layer = await makeLayer(shape);
    const by = typeof delta === "number" ? [delta] : delta;
    const here = Uint32Array.from({ length: n * by.length }, (_, i) => 10 + ((7 * i) % 40));
    const there = here.map((p, i) => p + by[i % by.length]!);
    using x = Tensor.from(gpu, normals32(9, batch * n * dim), [batch, n, dim]);
    using q = Tensor.from(gpu, normals32(10, batch * dim), [batch, 1, dim]);
    const readAt = async (state: PomState) => {
      using y = layer.query(state, q, { positions: Uint32Array.of(1, 2).subarray(0, by.length) });
      return y.read();
    };
    using moved = layer.createState({ batch });
    layer.append(moved, x, { positions: here });
    moved.shift(delta);
    using placed = layer.createState({ batch });
    layer.append(placed, x, { positions: there });
    expectClose(await readAt(moved), await readAt(placed), { relL2: LAYER_F32, what: "shifted", adapter });
    expect(moved.next).toEqual(placed.next);
    moved.shift(typeof delta === "number" ? -delta : [-by[0]!, -by[1]!]);
    using back = layer.createState({ batch });
    layer.append(back, x, { positions: here });
    expectClose(await readAt(moved), await readAt(back), { relL2: LAYER_F32, what: "shifted back", adapter });
  });

  it("let a stream go on past the table: a shift back by k, then the same tokens k earlier", async () => {
    const shape: PomLayerShape = { dim: 8, degree: 2, expand: 1, nGroups: 1, nSelHeads: 1, rotary: "1d" };
    using layer = await PomLayer.create(gpu, { ...shape, maxPositions: 16 }, pomParams(1, shape, false));
    using state = layer.createState();
    using x = Tensor.from(gpu, normals32(1, 12 * 8), [1, 12, 8]);
    layer.append(state, x);
    expect(() => layer.append(state, x)).toThrow(/the last position must be from 0 to 15, got 23; .*shift\(\)/);
    expect([state.count, state.next]).toEqual([[12], [12]]);
    state.shift(-10);
    layer.append(state, x);
    expect([state.count, state.next]).toEqual([[24], [14]]);
  });
});
