import { describe, expect, it } from "vitest";
import { hlmLoss, hlmReference } from "../../src/reference/hlm.ts";
import { hlmBackward } from "../../src/reference/hlm_backward.ts";
import { HlmTraining } from "../../src/reference/hlm_training.ts";
import { expectClose } from "../support/compare.ts";
import { goldenCases, hlmGolden, loadGolden } from "../support/golden.ts";
import { loadGoldenTraining } from "../support/hlm_training.ts";
import { REFERENCE_GOLDEN, REFERENCE_GRADIENT } from "../support/tolerances.ts";
import { normals, uniforms } from "./inputs.ts";

describe("the golden gradients", async () => {
  const cases = (await goldenCases("hlm")).filter((entry) => entry.grads.length > 0);
  it.each(cases)("$name", async (entry) => {
    const golden = await loadGolden(entry);
    const { config, weights, tokenIds, loss } = hlmGolden(golden);
    // The case averages over the n - 1 predictions of n inputs; causally, the last input is a target only.
    const actual = hlmBackward(config, weights, tokenIds);
    expectClose([actual.loss], [loss!], { relL2: REFERENCE_GOLDEN, what: "loss" });
    for (const key of entry.grads) {
      const { data, shape } = golden.tensor(key);
      expectClose(actual.grads[key.slice("grad.".length)]!, data, { relL2: REFERENCE_GRADIENT, what: key, shape });
    }
  });
});

describe("finite differences", () => {
  const config = { vocabSize: 7, dim: 4, layers: 2, contextLength: 8, order: 3, orderExpand: 1, ffwExpand: 2 };
  const weights = randomWeights(config);
  const [batch, n] = [3, 5];
  const next = uniforms(5);
  const tokens = Int32Array.from({ length: batch * (n + 1) }, () => Math.floor(next() * config.vocabSize));
  const posOffset = [0, 2, 9];
  const inputs = tokens.filter((_, i) => i % (n + 1) < n);
  const lossOf = (values: Record<string, Float64Array>) => {
    const logits = hlmReference(config, values, inputs, { batch, posOffset });
    // Only row by row do inputs and targets have the form that hlmLoss takes.
    let total = 0;
    for (let r = 0; r < batch * n; r++) {
      const two = Float64Array.from({ length: 2 * config.vocabSize }, (_, i) => logits[r * config.vocabSize + (i % config.vocabSize)]!);
      const at = Math.floor(r / n) * (n + 1) + (r % n);
      total += hlmLoss(two, tokens.subarray(at, at + 2), { vocabSize: config.vocabSize });
    }
    return total / (batch * n);
  };
  const { loss, grads } = hlmBackward(config, weights, tokens, { batch, posOffset });

  it("agree on the loss", () => {
    expect(Math.abs(loss / lossOf(weights) - 1)).toBeLessThan(1e-12);
  });
  it("have a gradient for every parameter but freqs", () => {
    expect(Object.keys(grads).sort()).toEqual(
      Object.keys(weights)
        .filter((key) => key !== "freqs")
        .sort(),
    );
  });
  it.each(Object.keys(grads))("%s", (key) => {
    const direction = normals(11, grads[key]!.length);
    const step = 1e-5;
    const moved = (sign: number) => lossOf({ ...weights, [key]: weights[key]!.map((w, i) => w + sign * step * direction[i]!) });
    const expected = (moved(1) - moved(-1)) / (2 * step);
    const actual = grads[key]!.reduce((sum, g, i) => sum + g * direction[i]!, 0);
    expect(Math.abs(actual - expected)).toBeLessThan(1e-8 * Math.max(1e-2, Math.abs(expected)) + 1e-9);
  });
});

describe("a training run", async () => {
  const golden = await loadGoldenTraining();
  it("goes through the original's 40 losses and gradient norms to its weights", () => {
    const training = new HlmTraining(golden.config, golden.initial, golden.settings);
    const steps = golden.tokens.map((tokens) => training.step(tokens, { batch: golden.batch }));
    steps.forEach(({ loss, gradNorm }, i) => {
      expectClose([loss], [golden.loss[i]!], { relL2: REFERENCE_GOLDEN, what: `loss ${i}` });
      expectClose([gradNorm], [golden.gradNorm[i]!], { relL2: REFERENCE_GRADIENT, what: `gradient norm ${i}` });
    });
    for (const [key, values] of Object.entries(golden.final)) {
      if (key === "freqs") expect(training.weights["freqs"]).toEqual(Float64Array.from(golden.initial["freqs"]!));
      else expectClose(training.weights[key]!, values, { relL2: REFERENCE_GRADIENT, what: key });
    }
  });

  it("leaves gradients below the clipping norm alone", () => {
    const { config, initial, settings, tokens, batch } = golden;
    const unclipped = new HlmTraining(config, initial, { ...settings, clipNorm: Infinity });
    const clipped = new HlmTraining(config, initial, settings);
    expect(unclipped.step(tokens[0]!, { batch })).toEqual(clipped.step(tokens[0]!, { batch }));
    expect(clipped.weights).toEqual(unclipped.weights);
  });
});
function randomWeights(config: { vocabSize: number; dim: number; layers: number; order: number; orderExpand: number; ffwExpand: number }) {
  const { vocabSize: V, dim: D, layers, order, orderExpand, ffwExpand } = config;
  const M = order * orderExpand * D;
  const weights: Record<string, Float64Array> = { freqs: Float64Array.of(1, 0.17), "token_emb.weight": normals(1, V * D) };
  let seed = 2;
  const dense = (name: string, inner: number, outer: number) => {
    weights[`${name}.weight`] = normals(seed++, outer * inner, 1 / Math.sqrt(inner));
    weights[`${name}.bias`] = normals(seed++, outer, 0.3);
  };
  dense("pos_emb.0", D, 2 * D);
  dense("pos_emb.2", 2 * D, D);
  for (let i = 0; i < layers; i++) {
    dense(`layers.${i}.hom.ho_proj`, D, M);
    dense(`layers.${i}.hom.se_proj`, D, M);
    dense(`layers.${i}.hom.ag_proj`, M, D);
    dense(`layers.${i}.ffw.0`, D, ffwExpand * D);
    dense(`layers.${i}.ffw.2`, ffwExpand * D, D);
  }
  dense("output_proj", D, V);
  return weights;
}
