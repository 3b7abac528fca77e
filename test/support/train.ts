import { expect } from "vitest";
import type { HlmConfig } from "../../src/models/index.ts";
import { positionFrequencies } from "../../src/reference/positions.ts";
import { initialParams } from "../../src/train/arena.ts";
import type { ExportedWeights } from "../../src/train/index.ts";
import { normals } from "../reference/inputs.ts";
import { chooser, expectSameBits } from "./hom.ts";

export const tiny: HlmConfig = { vocabSize: 11, dim: 8, layers: 2, contextLength: 16, order: 2, orderExpand: 1, ffwExpand: 2 };

export function randomTokens(seed: number, vocabSize: number, count: number): Int32Array<ArrayBuffer> {
  const choose = chooser(seed);
  return Int32Array.from({ length: count }, () => choose.integer(0, vocabSize - 1));
}

/** Weights with biases that are not 0, and logits that differ. */
export function randomWeights(config: HlmConfig, seed: number): Record<string, Float32Array<ArrayBuffer>> {
  const params: Record<string, Float32Array<ArrayBuffer>> = initialParams(config, seed);
  let stream = seed;
  for (const key of Object.keys(params)) {
    if (key.endsWith(".bias")) params[key] = Float32Array.from(normals(++stream, params[key]!.length, 0.2));
  }
  params["output_proj.weight"] = params["output_proj.weight"]!.map((w) => 10 * w);
  if (config.positions !== false) params["freqs"] = Float32Array.from(positionFrequencies(config.dim, config.contextLength));
  for (let i = 0; i < config.layers; i++) {
    const next = chooser(seed + i).next;
    if (config.tokenShift) params[`layers.${i}.shift.mix`] = Float32Array.from({ length: config.dim }, next);
    if (config.decay)
      params[`layers.${i}.hom.decay`] = Float32Array.from({ length: config.orderExpand * config.dim }, (_, c) =>
        c % 4 === 0 ? 1 : 0.2 + 0.8 * next(),
      );
  }
  return params;
}

export function expectSameWeights(actual: ExportedWeights, expected: ExportedWeights): void {
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const [key, { data }] of Object.entries(expected)) expectSameBits(actual[key]!.data, data, key);
}
