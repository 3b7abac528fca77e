import { describe, expect, it } from "vitest";
import { WeightsError } from "../../src/errors.ts";
import { hlmConfigOf, hlmDecay, hlmFrequencies, hlmMetadata } from "../../src/models/hlm_weights.ts";
import { arenaLayout, arenaShapes, initialParams, packArena } from "../../src/train/arena.ts";
import { checkTrainerOptions } from "../../src/train/options.ts";
import { readTrainerState, type TrainerState, writeTrainerState } from "../../src/train/save.ts";
import { parseSafetensors, writeSafetensors } from "../../src/weights/safetensors.ts";

const config = { vocabSize: 5, dim: 6, layers: 1, contextLength: 8, order: 2, orderExpand: 1, ffwExpand: 2 };
const layout = arenaLayout(config);
const state: TrainerState = {
  config,
  settings: checkTrainerOptions("f", { lr: 0.1 + 0.2, clipNorm: Infinity, betas: [0.9, 0.999] }),
  steps: 1234,
  constants: { freqs: hlmFrequencies(config) },
  arenas: {
    weights: packArena(layout, initialParams(config, 1)),
    first: packArena(layout, initialParams(config, 2)),
    second: packArena(layout, initialParams(config, 3)),
  },
  metadata: { vocabulary: '"abcde"' },
};

describe("a trainer's file", () => {
  const bytes = writeTrainerState(state);

  it("gives everything back, bit for bit", () => {
    expect(readTrainerState("f", bytes)).toEqual(state);
  });

  it("keeps the options of a model and what is not trained", () => {
    const options = { ...config, tokenShift: true, decay: true, positions: false };
    const own = arenaLayout(options);
    const arena = packArena(own, initialParams(options, 4));
    const faded = {
      ...state,
      config: options,
      constants: { "layers.0.hom.decay": hlmDecay(options) },
      arenas: { weights: arena, first: arena, second: arena },
    };
    const read = readTrainerState("f", writeTrainerState(faded));
    expect(read).toEqual(faded);
    expect(Object.keys(initialParams(options, 4)).filter((key) => key.startsWith("pos_emb"))).toEqual([]);
  });

  it("is a checkpoint of the model", () => {
    const file = parseSafetensors(bytes);
    expect(hlmConfigOf(file)).toEqual(config);
    expect(file.metadata["vocabulary"]).toBe('"abcde"');
    const params = initialParams(config, 1);
    expect(Object.keys(params).sort()).toEqual(Object.keys(arenaShapes(layout)).sort());
    for (const [key, values] of Object.entries(params)) expect(file.get(key).toFloat32()).toEqual(values);
  });

  it.each([
    ["a bare checkpoint", () => remake((metadata) => delete metadata["trainer"]), "got a file without a trainer's settings"],
    ["another version", () => remake((m) => Object.assign(m, { trainer: '{"version":2}' })), "got settings of version 2"],
    ["no JSON", () => remake((m) => Object.assign(m, { trainer: "{" })), "got settings that are no JSON"],
    ["a fraction of steps", () => remake((m) => Object.assign(m, { trainer: '{"version":1,"steps":0.5}' })), "got 0.5 steps"],
    ["no moments", () => remake(() => {}, "optimizer.second."), 'got none of "optimizer.second.'],
  ])("is refused with %s", (_what, make, message) => {
    const read = () => readTrainerState("HlmTrainer.resume", make());
    expect(read).toThrow(WeightsError);
    expect(read).toThrow(message);
  });

  function remake(change: (metadata: Record<string, string>) => unknown, without?: string): Uint8Array {
    const file = parseSafetensors(bytes);
    const metadata = { ...file.metadata };
    change(metadata);
    const kept = [...file].filter(({ name }) => without === undefined || !name.startsWith(without));
    return writeSafetensors(Object.fromEntries(kept.map(({ name, shape, data }) => [name, { shape, data: data as Float32Array }])), metadata);
  }
});

it("hlmMetadata is what hlmConfigOf reads", () => {
  const file = parseSafetensors(writeSafetensors({ x: { shape: [1], data: new Float32Array(1) } }, hlmMetadata(config)));
  expect(hlmConfigOf(file)).toEqual(config);
});
