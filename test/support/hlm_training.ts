import type { HlmConfig } from "../../src/reference/hlm.ts";
import type { AdamWSettings } from "../../src/reference/hlm_training.ts";
import { parseSafetensors } from "../../src/weights/safetensors.ts";
import { loadFixture } from "./fixtures.ts";

/** 40 AdamW steps of the original model, computed in float64 and stored in f32. */
export interface GoldenTraining {
  readonly config: HlmConfig;
  readonly settings: AdamWSettings;
  readonly batch: number;
  readonly initial: Record<string, Float32Array>;
  readonly final: Record<string, Float32Array>;
  /** One `[B, n + 1]` a step. */
  readonly tokens: readonly Int32Array[];
  readonly loss: Float32Array;
  readonly gradNorm: Float32Array;
}

export async function loadGoldenTraining(): Promise<GoldenTraining> {
  const file = parseSafetensors(await loadFixture("test/fixtures/golden/hlm_train_40_steps.safetensors"));
  const number = (key: string): number => {
    const value = Number(file.metadata[key]);
    if (!Number.isFinite(value)) throw new Error(`loadGoldenTraining: the metadata's ${key} is ${file.metadata[key]}`);
    return value;
  };
  const named = (prefix: string) =>
    Object.fromEntries(file.names.filter((name) => name.startsWith(prefix)).map((name) => [name.slice(prefix.length), file.get(name).toFloat32()]));
  const [beta1 = 0, beta2 = 0] = (file.metadata["betas"] ?? "").split(",").map(Number);
  const tokens = file.get("tokens");
  const [steps = 0, batch = 0, length = 0] = tokens.shape;
  const ids = tokens.data as Int32Array;
  return {
    config: {
      vocabSize: number("vocab"),
      dim: number("dim"),
      layers: number("n_layers"),
      contextLength: number("context_length"),
      order: number("order"),
      orderExpand: number("order_expand"),
      ffwExpand: number("ffw_expand"),
    },
    settings: {
      lr: number("lr"),
      betas: [beta1, beta2],
      eps: number("eps"),
      weightDecay: number("weight_decay"),
      clipNorm: number("grad_clip_norm"),
    },
    batch,
    initial: named("init."),
    final: named("final."),
    tokens: Array.from({ length: steps }, (_, i) => ids.slice(i * batch * length, (i + 1) * batch * length)),
    loss: file.get("loss").toFloat32(),
    gradNorm: file.get("grad_norm").toFloat32(),
  };
}
