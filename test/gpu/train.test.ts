import { describe, expect, it } from "vitest";
import { requestGpu, TrainingDivergedError } from "../../src/index.ts";
import { hlmBackward } from "../../src/reference/hlm_backward.ts";
import { type ExportedWeights, HlmTrainer } from "../../src/train/index.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { expectSameBits } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { GRADIENT_F32, MODEL_F32, TRAJECTORY_WEIGHTS } from "../support/tolerances.ts";
import { expectSameWeights, randomTokens, randomWeights, tiny } from "../support/train.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

describe("gradients of random models against float64", () => {
  const budgets = { roomy: 64 << 20, tight: 1 << 16 };
  it.each([
    ["tiny", tiny, { batch: 3, length: 7 }, "roomy"],
    ["odd widths", { ...tiny, dim: 6, order: 3, vocabSize: 13, ffwExpand: 3 }, { batch: 2, length: 9 }, "roomy"],
    ["one token", tiny, { batch: 1, length: 1 }, "roomy"],
    ["one layer of order 1", { ...tiny, layers: 1, order: 1, orderExpand: 3, vocabSize: 2 }, { batch: 5, length: 3 }, "roomy"],
    ["random positions", { ...tiny, contextLength: 40 }, { batch: 4, length: 20, offsets: true }, "roomy"],
    ["slabs of rows", { ...tiny, contextLength: 300 }, { batch: 3, length: 300 }, "tight"],
    ["a frequent token", { ...tiny, vocabSize: 3, contextLength: 200 }, { batch: 2, length: 200 }, "roomy"],
    ["a token shift", { ...tiny, tokenShift: true }, { batch: 3, length: 7 }, "roomy"],
    ["decayed moments", { ...tiny, decay: true }, { batch: 3, length: 7 }, "roomy"],
    ["no positions", { ...tiny, dim: 7, positions: false }, { batch: 3, length: 7 }, "roomy"],
    ["every option", { ...tiny, dim: 9, order: 3, tokenShift: true, decay: true, positions: false }, { batch: 2, length: 16 }, "roomy"],
    ["every option in slabs", { ...tiny, tokenShift: true, decay: true, positions: false, contextLength: 300 }, { batch: 3, length: 300 }, "tight"],
    ["slabs of a large vocabulary", { ...tiny, vocabSize: 5001, layers: 1 }, { batch: 9, length: 16 }, "tight"],
  ] as const)("%s", async (_name, config, { batch, length, ...rest }, budget) => {
    const weights = randomWeights(config, 3);
    const tokens = randomTokens(4, config.vocabSize, batch * (length + 1));
    const posOffset = "offsets" in rest ? Int32Array.from({ length: batch }, (_, row) => (row * 17) % 29) : 5;
    const expected = hlmBackward(config, weights, tokens, { batch, posOffset });
    using trainer = await HlmTrainer.create(gpu, config, weights, { scratchBudget: budgets[budget] });
    // A step of rate 0 before it leaves other numbers everywhere, but the weights.
    const other = typeof posOffset === "number" ? 0 : posOffset.map((_, row) => 14 * row);
    void trainer.step(tokens.toReversed(), { batch, posOffset: other, lr: 0 });
    const { loss, gradNorm } = await trainer.step(tokens, { batch, posOffset });
    const gradients = await trainer.readGradients();
    expectClose([loss], [expected.loss], { relL2: MODEL_F32, what: "loss", adapter });
    const squares = Object.values(expected.grads).reduce((sum, grad) => sum + grad.reduce((s, g) => s + g * g, 0), 0);
    expectClose([gradNorm], [Math.sqrt(squares)], { relL2: GRADIENT_F32, what: "gradient norm", adapter });
    for (const [key, values] of Object.entries(expected.grads)) {
      expectClose(gradients[key]!.data, values, { relL2: GRADIENT_F32, what: key, shape: gradients[key]!.shape, adapter });
    }
  });
});

describe("a step", () => {
  it("is one submit and one read a step, and nothing is compiled or allocated once it has been taken", async () => {
    const watch = instrument(device);
    try {
      using trainer = await HlmTrainer.create(gpu, tiny, { seed: 1 });
      const tokens = randomTokens(1, 11, 4 * 9);
      await trainer.step(tokens, { batch: 4 });
      watch.reset();
      const both = [trainer.step(tokens, { batch: 4 }), trainer.step(tokens, { batch: 4 })];
      expect([watch.submits, watch.maps, watch.passes]).toEqual([2, 2, 2]);
      await Promise.all(both);
      await trainer.step(tokens, { batch: 4 });
      watch.reset();
      await trainer.step(tokens, { batch: 4 });
      expect([watch.submits, watch.maps, watch.passes]).toEqual([1, 1, 1]);
      const created = watch.created
        .filter(({ method }) => /Pipeline|Module|Buffer|BindGroup/.test(method))
        .map(({ method, label }) => `${method} ${label}`);
      expect(created).toEqual([]);
      watch.reset();
      await trainer.step(tokens, { batch: 4, accumulate: 2 });
      expect([watch.submits, watch.maps]).toEqual([2, 1]);
    } finally {
      watch.restore();
    }
  });

  it("gives the same bits every time, whatever else is under way", async () => {
    const tokens = Array.from({ length: 4 }, (_, i) => randomTokens(i, 11, 3 * 9));
    const run = async (between: (trainer: HlmTrainer) => Promise<unknown> | undefined) => {
      using trainer = await HlmTrainer.create(gpu, tiny, { seed: 2 });
      const losses: number[] = [];
      for (const batch of tokens) {
        const step = trainer.step(batch, { batch: 3 });
        await between(trainer);
        losses.push((await step).loss);
      }
      return { losses, weights: await trainer.exportWeights() };
    };
    const plain = await run(() => undefined);
    const busy = await run((trainer) => trainer.evaluate(randomTokens(9, 11, 5 * 12), { batch: 5 }));
    expect(busy.losses).toEqual(plain.losses);
    expectSameWeights(busy.weights, plain.weights);
  });

  it("accumulates micro-batches to what one large batch gives", async () => {
    const weights = randomWeights(tiny, 5);
    const tokens = randomTokens(6, 11, 8 * 13);
    const posOffset = Int32Array.from({ length: 8 }, (_, row) => row);
    const run = async (accumulate: number) => {
      using trainer = await HlmTrainer.create(gpu, tiny, weights, { lr: 1e-2 });
      const result = await trainer.step(tokens, { batch: 8, accumulate, posOffset });
      return { ...result, gradients: await trainer.readGradients(), weights: await trainer.exportWeights(), bytes: trainer.bytes };
    };
    const whole = await run(1);
    for (const accumulate of [2, 8]) {
      const parts = await run(accumulate);
      expectClose([parts.loss, parts.gradNorm], [whole.loss, whole.gradNorm], { relL2: GRADIENT_F32, what: "loss and norm", adapter });
      for (const [key, { data }] of Object.entries(whole.gradients)) {
        expectClose(parts.gradients[key]!.data, data, { relL2: GRADIENT_F32, what: `gradient of ${key}`, adapter });
      }
      for (const [key, { data }] of Object.entries(whole.weights)) {
        expectClose(parts.weights[key]!.data, data, { relL2: TRAJECTORY_WEIGHTS, what: key, adapter });
      }
      expect(parts.bytes).toBeLessThan(whole.bytes);
    }
  });

  it("with a rate of 0 changes nothing, and clips what exceeds the norm only", async () => {
    const weights = randomWeights(tiny, 7);
    const tokens = randomTokens(8, 11, 4 * 9);
    const stepWith = async (options: { lr: number; clipNorm: number }) => {
      using trainer = await HlmTrainer.create(gpu, tiny, weights, { ...options, weightDecay: 0, eps: 10 });
      const { gradNorm } = await trainer.step(tokens, { batch: 4 });
      return { gradNorm, weights: await trainer.exportWeights() };
    };
    const still = await stepWith({ lr: 0, clipNorm: 1 });
    for (const [key, values] of Object.entries(weights)) expectSameBits(still.weights[key]!.data, values, key);
    // With a large eps a step is nearly proportional to its gradient.
    const free = await stepWith({ lr: 1, clipNorm: Infinity });
    expectSameWeights((await stepWith({ lr: 1, clipNorm: 2 * free.gradNorm })).weights, free.weights);
    const clipped = await stepWith({ lr: 1, clipNorm: free.gradNorm / 10 });
    expect(clipped.gradNorm).toBe(free.gradNorm);
    const moved = (weightsAfter: ExportedWeights) => weightsAfter["layers.0.ffw.0.bias"]!.data.map((w, i) => w - weights["layers.0.ffw.0.bias"]![i]!);
    const ratio = moved(clipped.weights).map((step, i) => step / moved(free.weights)[i]!);
    expectClose(ratio, new Float32Array(ratio.length).fill(0.1), { relL2: 0.05, what: "clipped step", adapter });
  });

  it("decays weights, not biases", async () => {
    const weights = randomWeights(tiny, 9);
    const tokens = randomTokens(8, 11, 2 * 9);
    // Gradients scaled to nothing leave the decay alone.
    using trainer = await HlmTrainer.create(gpu, tiny, weights, { lr: 0.5, weightDecay: 0.1, clipNorm: 1e-30, eps: 1 });
    await trainer.step(tokens, { batch: 2 });
    const after = await trainer.exportWeights();
    for (const [key, values] of Object.entries(weights)) {
      const kept = key.endsWith(".weight") ? 0.95 : 1;
      expectClose(
        after[key]!.data,
        values.map((w) => w * kept),
        { relL2: 1e-6, what: key, adapter },
      );
    }
  });
});

describe("a loss or gradient that is not finite", () => {
  /** Token 10 overflows; the others do not know of it. */
  const weights = randomWeights(tiny, 11);
  weights["token_emb.weight"]!.fill(3e38, 10 * tiny.dim);
  const good = (seed: number) => randomTokens(seed, 10, 2 * 9);
  const bad = good(3);
  bad[4] = 10;
  const settings = { weightDecay: 0 };

  it("rejects, leaves the last good weights, and those under way do nothing until recover()", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, weights, settings);
    const steps = [good(1), good(2), bad, good(4), bad].map((tokens) => trainer.step(tokens, { batch: 2 }));
    const results = await Promise.allSettled(steps);
    expect(results.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "rejected", "rejected"]);
    const [, , third, fourth] = results as [unknown, unknown, PromiseRejectedResult, PromiseRejectedResult];
    expect(third.reason).toBeInstanceOf(TrainingDivergedError);
    expect(third.reason.message).toMatch(/^HlmTrainer.step: loss and gradients must stay finite, got .* in step 3; the weights are those before it/);
    expect(fourth.reason).toBe(third.reason);
    expect(trainer.steps).toBe(2);
    await expect(trainer.step(good(4), { batch: 2 })).rejects.toBe(third.reason);
    expect(trainer.steps).toBe(2);

    using expected = await HlmTrainer.create(gpu, tiny, weights, settings);
    for (const seed of [1, 2]) await expected.step(good(seed), { batch: 2 });
    expectSameWeights(await trainer.exportWeights(), await expected.exportWeights());
    const saved = await trainer.save();
    expect(saved).toEqual(await expected.save());

    await trainer.recover();
    for (const seed of [5, 6]) expect(await trainer.step(good(seed), { batch: 2 })).toEqual(await expected.step(good(seed), { batch: 2 }));
    expectSameWeights(await trainer.exportWeights(), await expected.exportWeights());
    await expect(trainer.step(bad, { batch: 2 })).rejects.toBeInstanceOf(TrainingDivergedError);
  });

  it("is not in a file saved while it was under way", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, weights, settings);
    await trainer.step(good(1), { batch: 2 });
    void trainer.step(bad, { batch: 2 }).catch(() => {});
    const bytes = await trainer.save();
    using resumed = await HlmTrainer.resume(gpu, bytes);
    expect(resumed.steps).toBe(1);
    expectSameWeights(await resumed.exportWeights(), await trainer.exportWeights());
  });

  it("comes of a rate that is far too high, and only then", async () => {
    const tokens = randomTokens(1, 11, 4 * 9);
    using trainer = await HlmTrainer.create(gpu, tiny, { seed: 1 });
    const explode = async () => {
      for (let i = 0; i < 20; i++) await trainer.step(tokens, { batch: 4, lr: 1e12 });
    };
    await expect(explode()).rejects.toBeInstanceOf(TrainingDivergedError);
    const kept = await trainer.exportWeights();
    for (const { data } of Object.values(kept)) expect(data.every(Number.isFinite)).toBe(true);
  });
});
