import { WeightsError } from "../errors.ts";
import { type HlmConfig, hlmConfigOf, hlmDecay, hlmFrequencies, hlmMetadata, hlmParams } from "../models/hlm_weights.ts";
import { collectParams } from "../weights/checkpoint.ts";
import { parseSafetensors, writeSafetensors } from "../weights/safetensors.ts";
import { arenaLayout, arenaShapes, packArena, unpackArena } from "./arena.ts";
import { checkTrainerOptions, type TrainerSettings } from "./options.ts";

/** Everything that decides how a training goes on. */
export interface TrainerState {
  readonly config: HlmConfig;
  readonly settings: TrainerSettings;
  /** Optimiser steps done. */
  readonly steps: number;
  /** What is not trained: frequencies of the position embedding, decay factors. By checkpoint name. */
  readonly constants: Readonly<Record<string, Float32Array<ArrayBuffer>>>;
  /** Weights, and the optimiser's first and second moments, each laid out as `arenaLayout(config)` says. */
  readonly arenas: Readonly<Record<ArenaName, Float32Array<ArrayBuffer>>>;
  /** The caller's own. */
  readonly metadata: Readonly<Record<string, string>>;
}

export type ArenaName = "weights" | "first" | "second";

const PREFIXES: Readonly<Record<ArenaName, string>> = { weights: "", first: "optimizer.first.", second: "optimizer.second." };
/** Metadata key of what this file adds to a checkpoint. */
const TRAINER = "trainer";
const VERSION = 1;

/** A safetensors file: a checkpoint that the model itself can be loaded from, with the optimiser's moments beside the weights. */
export function writeTrainerState(state: TrainerState): Uint8Array<ArrayBuffer> {
  const layout = arenaLayout(state.config);
  const { clipNorm, ...settings } = state.settings;
  // JSON has no infinity.
  const trainer = { version: VERSION, steps: state.steps, ...settings, clipNorm: clipNorm === Infinity ? null : clipNorm };
  const tensors: Record<string, { shape: readonly number[]; data: Float32Array }> = {};
  for (const [key, data] of Object.entries(state.constants)) tensors[key] = { shape: [data.length], data };
  for (const [name, prefix] of Object.entries(PREFIXES)) {
    for (const [key, tensor] of Object.entries(unpackArena(layout, state.arenas[name as ArenaName]))) tensors[prefix + key] = tensor;
  }
  return writeSafetensors(tensors, { ...state.metadata, ...hlmMetadata(state.config), [TRAINER]: JSON.stringify(trainer) });
}

/** @throws WeightsError where the file is damaged or was not written by `save` */
export function readTrainerState(where: string, bytes: ArrayBuffer | Uint8Array): TrainerState {
  const file = parseSafetensors(bytes);
  const config = hlmConfigOf(file);
  const { steps, settings } = parseTrainer(where, file.metadata[TRAINER]);
  const layout = arenaLayout(config);
  const params = hlmParams(where, config, file);
  const moments = (name: ArenaName) => {
    const shapes = Object.fromEntries(Object.entries(arenaShapes(layout)).map(([key, shape]) => [PREFIXES[name] + key, shape]));
    const found = collectParams(file, shapes, { where });
    return packArena(layout, Object.fromEntries(Object.entries(found).map(([key, data]) => [key.slice(PREFIXES[name].length), data])));
  };
  const own = [TRAINER, ...Object.keys(hlmMetadata(config))];
  return {
    config,
    settings,
    steps,
    constants: constantsOf(config, params),
    arenas: { weights: packArena(layout, params), first: moments("first"), second: moments("second") },
    metadata: Object.fromEntries(Object.entries(file.metadata).filter(([key]) => !own.includes(key))),
  };
}

/** The parameters that are not trained; those that the checkpoint lacks are the original's. */
export function constantsOf(config: HlmConfig, params: Readonly<Record<string, Float32Array>>): TrainerState["constants"] {
  const constants: Record<string, Float32Array<ArrayBuffer>> = {};
  if (config.positions !== false) constants["freqs"] = Float32Array.from(params["freqs"] ?? hlmFrequencies(config));
  for (let i = 0; config.decay && i < config.layers; i++) {
    const key = `layers.${i}.hom.decay`;
    constants[key] = Float32Array.from(params[key] ?? hlmDecay(config));
  }
  return constants;
}

function parseTrainer(where: string, text: string | undefined): { steps: number; settings: TrainerSettings } {
  const refuse = (got: string): never => {
    throw new WeightsError(
      `${where}: bytes must be what HlmTrainer.save() returned, got ${got}; a bare checkpoint goes to HlmTrainer.create, which begins anew`,
    );
  };
  if (text === undefined) return refuse("a file without a trainer's settings");
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return refuse("settings that are no JSON");
  }
  const { version, steps, clipNorm, ...rest } = json as { version: unknown; steps: unknown; clipNorm: number | null };
  if (version !== VERSION) return refuse(`settings of version ${version}`);
  if (!Number.isSafeInteger(steps) || (steps as number) < 0) return refuse(`${steps} steps`);
  return { steps: steps as number, settings: checkTrainerOptions(where, { ...rest, clipNorm: clipNorm ?? Infinity }) };
}
