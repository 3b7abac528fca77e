import { describe, expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { HlmTrainer } from "../../src/train/index.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, hlmGolden, loadGolden } from "../support/golden.ts";
import { getDevice } from "../support/gpu.ts";
import { loadGoldenTraining } from "../support/hlm_training.ts";
import { GRADIENT_F32, TRAJECTORY_LOSS, TRAJECTORY_WEIGHTS } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });
const adapter = gpu.info.description;

describe("golden gradients", async () => {
  const cases = (await goldenCases("hlm")).filter((entry) => entry.grads.length > 0).map((entry) => ({ name: entry.name, entry }));
  it.each(cases)("$name", async ({ entry }) => {
    const golden = await loadGolden(entry);
    const { config, weights, tokenIds, loss } = hlmGolden(golden);
    using trainer = await HlmTrainer.create(gpu, config, weights);
    // The case averages over the n - 1 predictions of n inputs; causally, the last input is a target only.
    const step = await trainer.step(tokenIds);
    expectClose([step.loss], [loss!], { relL2: GRADIENT_F32, what: "loss", adapter });
    const gradients = await trainer.readGradients();
    for (const key of entry.grads) {
      const { data, shape } = golden.tensor(key);
      expectClose(gradients[key.slice("grad.".length)]!.data, data, { relL2: GRADIENT_F32, what: key, shape, adapter });
    }
  });
});

describe("40 steps of the original", async () => {
  const golden = await loadGoldenTraining();
  it("are taken with the same losses and gradient norms to the same weights", async () => {
    using trainer = await HlmTrainer.create(gpu, golden.config, golden.initial, golden.settings);
    // All of them under way at once.
    const steps = await Promise.all(golden.tokens.map((tokens) => trainer.step(tokens, { batch: golden.batch })));
    expect(trainer.steps).toBe(40);
    steps.forEach(({ loss, gradNorm }, i) => {
      expectClose([loss], [golden.loss[i]!], { relL2: TRAJECTORY_LOSS, what: `loss ${i}`, adapter });
      expectClose([gradNorm], [golden.gradNorm[i]!], { relL2: TRAJECTORY_WEIGHTS, what: `gradient norm ${i}`, adapter });
    });
    const weights = await trainer.exportWeights();
    expect(Object.keys(weights).sort()).toEqual(Object.keys(golden.final).sort());
    for (const [key, values] of Object.entries(golden.final)) {
      expectClose(weights[key]!.data, values, { relL2: TRAJECTORY_WEIGHTS, what: key, adapter, shape: weights[key]!.shape });
    }
  });
});
