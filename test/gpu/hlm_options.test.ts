import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { Hlm, type HlmConfig, HlmState } from "../../src/models/index.ts";
import { hlmReference } from "../../src/reference/hlm.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits } from "../support/hom.ts";
import { MODEL_F32 } from "../support/tolerances.ts";
import { randomTokens, randomWeights, tiny } from "../support/train.ts";

const gpu = await requestGpu({ device: await getDevice() });
const LANES = [1, 4, 16, 64] as const;
const adapter = gpu.info.description;

const OPTIONS: readonly [string, Partial<HlmConfig>][] = [
  ["a token shift", { tokenShift: true }],
  ["decayed moments", { decay: true }],
  ["no positions", { positions: false }],
  ["all of them", { tokenShift: true, decay: true, positions: false, dim: 12, orderExpand: 2 }],
  ["all of them, at a width that is no multiple of 4", { tokenShift: true, decay: true, positions: false, dim: 7 }],
];

describe.each(OPTIONS)("a model with %s", (_name, options) => {
  const config: HlmConfig = { ...tiny, contextLength: 24, ...options };
  const weights = randomWeights(config, 8);
  const [batch, length] = [2, 24];
  const ids = randomTokens(9, config.vocabSize, batch * length);
  const expected = hlmReference(config, weights, ids, { batch });
  const V = config.vocabSize;
  const part = (values: ArrayLike<number>, from: number, count: number) =>
    Float32Array.from({ length: batch * count * V }, (_, i) => values[Math.floor(i / (count * V)) * length * V + from * V + (i % (count * V))]!);
  const idsOf = (from: number, count: number) =>
    Int32Array.from({ length: batch * count }, (_, i) => ids[Math.floor(i / count) * length + from + (i % count)]!);

  it("gives the twin's logits", async () => {
    using model = await Hlm.create(gpu, config, weights);
    using logits = model.forward(ids, { batch });
    expectClose(await logits.read(), expected, { relL2: MODEL_F32, what: "logits", adapter });
  });

  it.each(LANES)("gives them token by token and chunk by chunk, through copies and saved states: %i lanes", async (decodeLanes) => {
    using model = await Hlm.create(await requestGpu({ device: gpu.device, tuning: { decodeLanes } }), config, weights);
    let state = model.createState({ batch });
    let at = 0;
    for (const count of [1, 1, 7, 1, 14]) {
      using logits = model.step(state, idsOf(at, count));
      expectClose(await logits.read(), part(expected, at, count), { relL2: MODEL_F32, what: `logits from ${at}`, adapter });
      at += count;
      const next = at % 2 === 0 ? state.clone() : HlmState.load(gpu, await state.save(), { model });
      expect(next.position).toBe(at);
      expect(next.bytes).toBe(state.bytes);
      state.destroy();
      state = next;
    }
    state.reset();
    using again = model.step(state, idsOf(0, 3));
    expectClose(await again.read(), part(expected, 0, 3), { relL2: MODEL_F32, what: "logits after reset()", adapter });
    state.destroy();
  });

  it.each(LANES)("generates the twin's greedy tokens: %i lanes", async (decodeLanes) => {
    using model = await Hlm.create(await requestGpu({ device: gpu.device, tuning: { decodeLanes } }), config, weights);
    const prompt = ids.slice(0, 5);
    const text = [...prompt];
    for (let i = 0; i < 12; i++) {
      const logits = hlmReference(config, weights, text);
      const last = logits.subarray(logits.length - V);
      text.push(last.indexOf(Math.max(...last)));
    }
    const tokens: number[] = [];
    for await (const token of model.generate(prompt, { maxTokens: 12, temperature: 0 })) tokens.push(token);
    expect(tokens).toEqual(text.slice(5));
  });

  it("has quantised weights like any other", async () => {
    using model = await Hlm.create(gpu, config, weights, { weightDtype: "f16" });
    using logits = model.forward(ids, { batch });
    const values = await logits.read();
    expect(values.every(Number.isFinite)).toBe(true);
    using f32 = await Hlm.create(gpu, config, weights);
    expect(model.weightBytes).toBeLessThan(f32.weightBytes);
  });
});

describe("options", () => {
  it("that are left out are the original's", async () => {
    const weights = randomWeights(tiny, 3);
    const ids = randomTokens(4, tiny.vocabSize, 10);
    using plain = await Hlm.create(gpu, tiny, weights);
    using same = await Hlm.create(gpu, { ...tiny, tokenShift: false, decay: false, positions: true }, weights);
    using a = plain.forward(ids);
    using b = same.forward(ids);
    expectSameBits(await a.read(), await b.read(), "logits");
  });

  it("are checked", async () => {
    await expect(Hlm.create(gpu, { ...tiny, decay: 1 as never }, {})).rejects.toThrow(/Hlm.create: decay must be true or false, got 1/);
    const shifted = { ...tiny, tokenShift: true };
    await expect(Hlm.create(gpu, shifted, randomWeights(tiny, 3))).rejects.toThrow(/layers.0.shift.mix/);
    const decayed = { ...tiny, decay: true };
    const weights = randomWeights(decayed, 3);
    weights["layers.1.hom.decay"]!.fill(0);
    await expect(Hlm.create(gpu, decayed, weights)).rejects.toThrow(/factors in \(0, 1\], got 0/);
    using model = await Hlm.create(gpu, decayed, randomWeights(decayed, 3));
    expect(() => model.createState({ window: 3 })).toThrow(/window must be left out/);
    expect(() => model.forward(Int32Array.of(1, 2), { attentionMask: Uint8Array.of(1, 0) })).toThrow(/attentionMask must be left out/);
    using plain = await Hlm.create(gpu, tiny, randomWeights(tiny, 3));
    using own = model.createState();
    expect(() => plain.step(own, Int32Array.of(1))).toThrow();
    using shiftedModel = await Hlm.create(gpu, shifted, randomWeights(shifted, 3));
    using other = shiftedModel.createState();
    const bytes = await other.save();
    expect(() => HlmState.load(gpu, bytes, { model: plain })).toThrow(/bytes must be of a model without a token shift|bytes must be of a model with/);
    expect(() => plain.step(other, Int32Array.of(1))).toThrow(/token shift/);
  });
});
