import { expect, test } from "vitest";
import { hlmReference } from "../../src/reference/hlm.ts";
import { parseSafetensors } from "../../src/weights/safetensors.ts";
import { expectClose } from "../support/compare.ts";
import { loadFixture, loadJson } from "../support/fixtures.ts";

interface Expected {
  cases: Record<string, { prompt_ids: number[]; last_logits: number[]; greedy_ids: number[]; smallest_margin: number }>;
}

test("the shipped checkpoint: logits and greedy text of the original model", async () => {
  const file = parseSafetensors(await loadFixture("demo/public/checkpoints/hlm_shakespeare.safetensors"));
  const weights = Object.fromEntries(Array.from(file, (tensor) => [tensor.name, tensor.toFloat32()]));
  const size = (key: string) => Number(file.metadata[key]);
  const config = {
    vocabSize: size("vocab_size"),
    dim: size("dim"),
    layers: size("n_layers"),
    contextLength: size("context_length"),
    order: size("order"),
    orderExpand: size("order_expand"),
    ffwExpand: size("ffw_expand"),
  };
  const { cases } = await loadJson<Expected>("test/fixtures/hlm_shakespeare.expected.json");
  expect(Object.keys(cases).length).toBeGreaterThan(0);
  for (const [prompt, { prompt_ids, last_logits, greedy_ids }] of Object.entries(cases)) {
    // causal: one pass over the whole continuation gives every step's logits
    const logits = hlmReference(config, weights, greedy_ids);
    const at = (t: number) => logits.subarray(t * config.vocabSize, (t + 1) * config.vocabSize);
    // the file gives 6 decimals: 5e-7 of logits around 8
    expectClose(at(prompt_ids.length - 1), last_logits, { relL2: 1e-7, what: `last logits of ${JSON.stringify(prompt)}` });
    expect(greedy_ids.slice(0, prompt_ids.length)).toEqual(prompt_ids);
    for (let t = prompt_ids.length - 1; t + 1 < greedy_ids.length; t++) {
      const step = at(t);
      expect(step.indexOf(Math.max(...step)), `token ${t + 1} after ${JSON.stringify(prompt)}`).toBe(greedy_ids[t + 1]);
    }
  }
});
