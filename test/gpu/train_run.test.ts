import { describe, expect, it } from "vitest";
import {
  GpuLostError,
  GpuOutOfMemoryError,
  parseSafetensors,
  requestGpu,
  TrainingDivergedError,
  WeightsError,
  writeSafetensors,
} from "../../src/index.ts";
import { Hlm, type HlmConfig, hlmConfigOf, hlmMetadata } from "../../src/models/index.ts";
import { hlmReference } from "../../src/reference/hlm.ts";
import { hlmBackward } from "../../src/reference/hlm_backward.ts";
import { BatchSampler, evaluationBatches, HlmTrainer, train, warmupCosine } from "../../src/train/index.ts";
import { expectClose } from "../support/compare.ts";
import { failAllocations } from "../support/fail_allocations.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { expectSameBits } from "../support/hom.ts";
import { instrument } from "../support/instrument.ts";
import { GRADIENT_F32, MODEL_F32 } from "../support/tolerances.ts";
import { expectSameWeights, randomTokens, randomWeights, tiny } from "../support/train.ts";

const device = await getDevice();
const gpu = await requestGpu({ device });
const adapter = gpu.info.description;

describe("evaluate", () => {
  it("gives the mean loss of all predictions, of batches of any size", async () => {
    const weights = randomWeights(tiny, 1);
    using trainer = await HlmTrainer.create(gpu, tiny, weights);
    const batches = [
      { tokens: randomTokens(1, 11, 3 * 8), batch: 3 },
      { tokens: randomTokens(2, 11, 17), batch: 1 },
      ...Array.from({ length: 6 }, (_, i) => ({ tokens: randomTokens(3 + i, 11, 2 * 8), batch: 2 })),
    ];
    let total = 0;
    let count = 0;
    for (const { tokens, batch } of batches) {
      const { loss } = hlmBackward(tiny, weights, tokens, { batch });
      const predictions = tokens.length - batch;
      total += loss * predictions;
      count += predictions;
    }
    const result = await trainer.evaluate(batches);
    expect(result.tokens).toBe(count);
    expectClose([result.loss], [total / count], { relL2: MODEL_F32, what: "loss", adapter });
    const { tokens, batch } = batches[0]!;
    const one = await trainer.evaluate(tokens, { batch, posOffset: 3 });
    expectClose([one.loss], [hlmBackward(tiny, weights, tokens, { batch, posOffset: 3 }).loss], { relL2: MODEL_F32, what: "loss", adapter });
    // Evaluating is no step.
    expect(trainer.steps).toBe(0);
    for (const [key, { data }] of Object.entries(await trainer.exportWeights())) expectSameBits(data, weights[key]!, key);
  });

  it("is what the loss of a step was before it", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, { seed: 4 });
    const tokens = randomTokens(1, 11, 4 * 9);
    const { loss } = await trainer.evaluate(tokens, { batch: 4 });
    expect((await trainer.step(tokens, { batch: 4 })).loss).toBe(loss);
  });

  it("stops when it is told to", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, { seed: 4 });
    const controller = new AbortController();
    const reason = new Error("enough");
    function* batches() {
      yield { tokens: randomTokens(1, 11, 9), batch: 1 };
      controller.abort(reason);
      yield { tokens: randomTokens(2, 11, 9), batch: 1 };
    }
    await expect(trainer.evaluate(batches(), { signal: controller.signal })).rejects.toBe(reason);
    expect((await trainer.evaluate(randomTokens(1, 11, 9))).tokens).toBe(8);
  });
});

describe("save and resume", () => {
  it("go on bit for bit, steps under way included", async () => {
    const text = randomTokens(1, 11, 400);
    const make = () => new BatchSampler(text, { batch: 3, length: 12, seed: 8 });
    const schedule = warmupCosine({ peak: 1e-2, warmup: 2, steps: 8 });
    const run = async (trainer: HlmTrainer, sampler: BatchSampler, until: number) => {
      const losses: number[] = [];
      await train(trainer, { sampler, steps: until, schedule, maxPosOffset: 9, onStep: ({ loss }) => void losses.push(loss) });
      return losses;
    };
    using whole = await HlmTrainer.create(gpu, tiny, { seed: 3 }, { betas: [0.8, 0.95], clipNorm: 0.5 });
    const losses = await run(whole, make(), 8);

    using first = await HlmTrainer.create(gpu, tiny, { seed: 3 }, { betas: [0.8, 0.95], clipNorm: 0.5 });
    const sampler = make();
    await run(first, sampler, 3);
    const lr = schedule(3);
    const [tokens, posOffset] = [sampler.next(), sampler.offsets(9)];
    const fourth = first.step(tokens, { batch: 3, lr, posOffset });
    const bytes = await first.save({ sampler: JSON.stringify(sampler.state), vocabulary: '"abcdefghijk"' });
    expect((await fourth).loss).toBe(losses[3]);

    using resumed = await HlmTrainer.resume(gpu, bytes);
    expect([resumed.steps, resumed.config, resumed.settings]).toEqual([4, whole.config, whole.settings]);
    expect(resumed.metadata["vocabulary"]).toBe('"abcdefghijk"');
    const rest = await run(resumed, new BatchSampler(text, JSON.parse(resumed.metadata["sampler"]!)), 8);
    expect(rest).toEqual(losses.slice(4));
    expectSameWeights(await resumed.exportWeights(), await whole.exportWeights());
    expect(await resumed.save()).toEqual(await whole.save());
  });

  it("give a checkpoint that the model loads, and settings that may be changed", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, { seed: 3 });
    await trainer.step(randomTokens(1, 11, 9));
    const weights = parseSafetensors(await trainer.save());
    expect(hlmConfigOf(weights)).toEqual(tiny);
    using model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
    using own = await trainer.model();
    const ids = randomTokens(2, 11, 10);
    const [a, b] = [model.forward(ids), own.forward(ids)];
    expectSameBits(await a.read(), await b.read(), "logits");
    const exported = await trainer.exportWeights();
    const expected = hlmReference(tiny, Object.fromEntries(Object.entries(exported).map(([key, { data }]) => [key, data])), ids);
    expectClose(await a.read(), expected, { relL2: MODEL_F32, what: "logits", adapter });
    const file = parseSafetensors(writeSafetensors(exported, hlmMetadata(tiny)));
    using again = await HlmTrainer.create(gpu, hlmConfigOf(file), file);
    expectSameWeights(await again.exportWeights(), exported);
    using changed = await HlmTrainer.resume(gpu, await trainer.save(), { lr: 0.5, clipNorm: Infinity });
    expect(changed.settings).toEqual({ ...trainer.settings, lr: 0.5, clipNorm: Infinity });
    await expect(HlmTrainer.resume(gpu, writeSafetensors(exported, hlmMetadata(tiny)))).rejects.toThrow(/got a file without a trainer's settings/);
  });
});

describe("train", () => {
  const text = randomTokens(5, 11, 300);

  it("reports every step in order and evaluates every so often, and learns", async () => {
    using trainer = await HlmTrainer.create(gpu, tiny, { seed: 1 });
    // 0 1 2 … 10 0 1 2 …: the next token is known for sure.
    const order = Int32Array.from({ length: 200 }, (_, i) => i % 11);
    const sampler = new BatchSampler(order, { batch: 8, length: 12, seed: 2 });
    const log: string[] = [];
    const losses: number[] = [];
    await train(trainer, {
      sampler,
      steps: 60,
      schedule: warmupCosine({ peak: 2e-2, warmup: 5, steps: 60 }),
      inFlight: 3,
      settleAt: (step) => step % 7 === 0,
      evaluation: { batches: evaluationBatches(order, { batch: 4, length: 12 }), every: 25 },
      onStep: ({ step, loss, tokens, lr }) => {
        log.push(`step ${step}`);
        losses.push(loss);
        expect(tokens).toBe(96);
        expect(lr).toBeGreaterThan(0);
        if (step % 7 === 0 || step % 25 === 0) expect(trainer.steps).toBe(step);
      },
      onEvaluation: ({ step, loss }) => {
        log.push(`evaluation ${step}`);
        losses.push(loss);
      },
    });
    const expected = Array.from({ length: 60 }, (_, i) => [`step ${i + 1}`, ...([25, 50, 60].includes(i + 1) ? [`evaluation ${i + 1}`] : [])]).flat();
    expect(log).toEqual(expected);
    expect(losses[0]).toBeGreaterThan(2.2);
    expect(losses.at(-1)).toBeLessThan(0.5);
  });

  it("stops when it is told to, and goes on as if nothing had happened", async () => {
    const run = async (stops: number[]) => {
      using trainer = await HlmTrainer.create(gpu, tiny, { seed: 1 });
      const sampler = new BatchSampler(text, { batch: 2, length: 9, seed: 3 });
      const seen: number[] = [];
      for (const stop of [...stops, 0]) {
        const controller = new AbortController();
        const onStep = ({ step }: { step: number }) => {
          seen.push(step);
          if (step === stop) controller.abort(new Error("pause"));
        };
        const done = train(trainer, { sampler, steps: 7, onStep, signal: controller.signal });
        if (stop > 0) await expect(done).rejects.toThrow("pause");
        else await done;
      }
      expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7]);
      return trainer.exportWeights();
    };
    expectSameWeights(await run([2, 5]), await run([]));
  });

  it("draws the batches of steps that did not happen again", async () => {
    const weights = randomWeights(tiny, 11);
    weights["token_emb.weight"]!.fill(3e38, 10 * tiny.dim);
    const some = randomTokens(5, 10, 200);
    using trainer = await HlmTrainer.create(gpu, tiny, weights, { weightDecay: 0 });
    const spoilt = some.slice();
    const sampler = new BatchSampler(spoilt, { batch: 2, length: 9, seed: 3 });
    const before: unknown[] = [];
    const onStep = ({ step }: { step: number }) => {
      before.push(step);
      if (step === 2) spoilt.fill(10);
    };
    await expect(train(trainer, { sampler, steps: 9, inFlight: 3, onStep })).rejects.toBeInstanceOf(TrainingDivergedError);
    expect(trainer.steps).toBe(before.length);
    spoilt.set(some);
    await trainer.recover();
    await train(trainer, { sampler, steps: 9, inFlight: 3 });
    using expected = await HlmTrainer.create(gpu, tiny, weights, { weightDecay: 0 });
    await train(expected, { sampler: new BatchSampler(some, { batch: 2, length: 9, seed: 3 }), steps: 9 });
    expectSameWeights(await trainer.exportWeights(), await expected.exportWeights());
  });
});

describe("memory", () => {
  const long: HlmConfig = { ...tiny, contextLength: 1 << 14 };
  const scratchBudget = 1 << 18;

  it("of a step grows linearly with its tokens, and holds nothing of N·M numbers", async () => {
    const own = await requestGpu({ device: await createDevice() });
    const watch = instrument(own.device);
    try {
      using trainer = await HlmTrainer.create(own, long, { seed: 1 }, { scratchBudget });
      const peak = async (n: number) => {
        await trainer.step(randomTokens(n, 11, n + 1));
        return watch.liveBytes;
      };
      const [a, b, c] = [await peak(1 << 12), await peak(1 << 13), await peak(1 << 14)];
      // Twice the tokens: at most twice the memory of what grows.
      expect(c - b).toBeLessThanOrEqual(2.05 * (b - a));
      expect(c - b).toBeGreaterThan(0);
      const { dim, layers } = long;
      const tokens = 1 << 14;
      const momentDim = 2 * dim;
      const largest = Math.max(...watch.live(/./).map(({ size }) => size));
      expect(largest).toBe(tokens * dim * 4);
      expect(largest).toBeLessThan(tokens * momentDim * 4);
      // The inputs of every layer and of every feed-forward part, the last output, two gradients, and some words a token.
      expect(trainer.bytes).toBeLessThan((2 * layers + 1 + 2 + 3) * tokens * dim * 4 + 12 * tokens * 4 + (1 << 20));
      for (const { label, size } of watch.live(/^hom\.scratch/)) expect(size, label).toBeLessThanOrEqual(scratchBudget);
    } finally {
      watch.restore();
      own.device.destroy();
    }
  });

  it("suffices for 16,384 tokens, whose gradients are right", async () => {
    const weights = randomWeights(long, 2);
    const tokens = randomTokens(3, 11, (1 << 14) + 1);
    using trainer = await HlmTrainer.create(gpu, long, weights, { scratchBudget });
    const { loss } = await trainer.step(tokens);
    const expected = hlmBackward(long, weights, tokens);
    expectClose([loss], [expected.loss], { relL2: MODEL_F32, what: "loss", adapter });
    const gradients = await trainer.readGradients();
    for (const [key, values] of Object.entries(expected.grads)) {
      expectClose(gradients[key]!.data, values, { relL2: GRADIENT_F32, what: key, shape: gradients[key]!.shape, adapter });
    }
  }, 120_000);

  it("is given back", async () => {
    const own = await requestGpu({ device: await createDevice() });
    const watch = instrument(own.device);
    const trainer = await HlmTrainer.create(own, tiny, { seed: 1 });
    const last = trainer.step(randomTokens(1, 11, 9));
    trainer.destroy();
    trainer.destroy();
    expect((await last).loss).toBeGreaterThan(0);
    expect(watch.live(/^hom\.(trainer|program)/).map(({ label }) => label)).toEqual([]);
    await expect(trainer.step(randomTokens(1, 11, 9))).rejects.toThrow("HlmTrainer.step: trainer must be alive, got a destroyed trainer");
    own.device.destroy();
  });

  it("that is lacking fails a step, and the next one works", async () => {
    const own = await requestGpu({ device: await createDevice() });
    const trainer = await HlmTrainer.create(own, tiny, { seed: 1 });
    const tokens = randomTokens(1, 11, 4 * 9);
    const enough = failAllocations(own.device, /^hom\.trainer\.mid1/);
    await expect(trainer.step(tokens, { batch: 4 })).rejects.toBeInstanceOf(GpuOutOfMemoryError);
    enough();
    expect(trainer.steps).toBe(0);
    using expected = await HlmTrainer.create(gpu, tiny, { seed: 1 });
    expect(await trainer.step(tokens, { batch: 4 })).toEqual(await expected.step(tokens, { batch: 4 }));
    trainer.destroy();
    const full = failAllocations(own.device, /^hom\.trainer\.gradients/);
    await expect(HlmTrainer.create(own, tiny, { seed: 1 })).rejects.toThrow(/^HlmTrainer.create: the device is out of memory/);
    full();
    own.device.destroy();
  });
});

describe("a lost device", () => {
  it("rejects steps under way and later ones", async () => {
    const own = await requestGpu({ device: await createDevice() });
    const trainer = await HlmTrainer.create(own, tiny, { seed: 1 });
    const step = trainer.step(randomTokens(1, 11, 9));
    own.device.destroy();
    await expect(step).rejects.toBeInstanceOf(GpuLostError);
    await own.lost;
    await expect(trainer.step(randomTokens(1, 11, 9))).rejects.toBeInstanceOf(GpuLostError);
    await expect(trainer.save()).rejects.toBeInstanceOf(GpuLostError);
    trainer.destroy();
  });
});

describe("arguments", async () => {
  const trainer = await HlmTrainer.create(gpu, tiny, { seed: 1 });
  const ids = randomTokens(1, 11, 4 * 5);
  it.each([
    [() => trainer.step(ids, { batch: 3 }), RangeError, "HlmTrainer.step: tokens must have 3 rows of n + 1 >= 2 tokens, got 20 ids"],
    [() => trainer.step(randomTokens(1, 11, 18)), RangeError, "HlmTrainer.step: tokens must have at most contextLength = 16 inputs a row, got 17"],
    [() => trainer.step(ids, { batch: 4, accumulate: 3 }), RangeError, "HlmTrainer.step: accumulate must divide the batch of 4 rows, got 3"],
    [() => trainer.step(ids, { batch: 4, lr: -1 }), RangeError, "HlmTrainer.step: lr must be a finite number >= 0, got -1"],
    [() => trainer.step(ids, { batch: 4, rate: 1 } as never), TypeError, "HlmTrainer.step: options must have only the keys"],
    [() => trainer.evaluate([]), RangeError, "HlmTrainer.evaluate: tokens must have at least one batch, got none"],
    [() => trainer.evaluate(5 as never), TypeError, "HlmTrainer.evaluate: tokens must be an Int32Array or batches of { tokens, batch }, got 5"],
    [() => HlmTrainer.create(gpu, tiny, { seed: -1 }), RangeError, "HlmTrainer.create: seed must be an integer from 0 to 4294967295, got -1"],
    [() => HlmTrainer.create(gpu, { ...tiny, dim: 7 }, { seed: 1 }), RangeError, "HlmTrainer.create: dim must be even"],
    [() => HlmTrainer.create(gpu, tiny, {}), WeightsError, "HlmTrainer.create: weights must hold all the keys of the model"],
    [() => HlmTrainer.create(gpu, tiny, { seed: 1 }, { scratchBudget: 100 }), RangeError, "HlmTrainer.create: scratchBudget must be at least"],
    [() => HlmTrainer.create({} as never, tiny, { seed: 1 }), TypeError, "HlmTrainer.create: gpu must be what requestGpu() returned"],
  ])("refused: %#", async (call, kind, message) => {
    const error = await call().then(
      () => undefined,
      (reason: Error) => reason,
    );
    expect(error).toBeInstanceOf(kind);
    expect(error?.message).toContain(message);
    // Nothing has changed.
    expect(trainer.steps).toBe(0);
  });
});
