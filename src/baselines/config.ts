import { checkInteger, checkObject, checkOneOf, describe, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { weightBytes } from "../ops/op.ts";
import { FEATURE_MAPS, type FeatureMap } from "../ops/types.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { vectorsOf } from "./feature_weights.ts";

/** Sizes of an {@link AttentionLayer}. */
export interface AttentionConfig {
  /** D, the model width. */
  readonly dim: number;
  /** H; each has dim / heads channels. */
  readonly heads: number;
  /** Whether the four projections have biases. Default true. */
  readonly bias?: boolean;
  /** Bytes of scratch memory that one call may use, whatever its length. Default 64 MiB. */
  readonly scratchBudget?: number;
}

/** Sizes of a {@link LinearAttentionLayer}, and its feature map. */
export interface LinearAttentionConfig extends AttentionConfig {
  /**
   * What exp(q·k / √d) is estimated by: `"favor"`, positive random features (Performer, Choromanski et al. 2020); `"rfa"`, sines and cosines, for
   * normalised queries and keys (Peng et al. 2021); `"maclaurin_exp"`, products of signs' projections (Kar and Karnick 2012), or
   * `"maclaurin_gaussian"`, the same for exp(-|q - k|² / (2√d)).
   */
  readonly featureMap: FeatureMap;
  /** R, the width of the feature map, per head: 1 to 4096, even for `"rfa"`, which has a sine and a cosine for each random vector. */
  readonly features: number;
}

/**
 * Checkpoint names: `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `out_proj.weight`, each `[D, D]`, and their biases `[D]`. For linear attention also
 * `omega [H, m, d]` (m = R, or R / 2 for `"rfa"`), or `rademacher [H, R, L, d]` and `degrees [H, R]`: see {@link drawFeatures}.
 */
export type BaselineParams = Readonly<Record<string, Float32Array | Int32Array>>;

export const PROJECTIONS = ["q_proj", "k_proj", "v_proj", "out_proj"] as const;
const CONFIG_KEYS = ["dim", "heads", "bias", "scratchBudget"];

/** The configuration with its defaults. @throws TypeError, RangeError */
export function checkAttentionConfig(where: string, config: AttentionConfig, gpu: Gpu, more: readonly string[] = []): Required<AttentionConfig> {
  checkObject(where, "config", config, [...CONFIG_KEYS, ...more]);
  const { bias = true, scratchBudget = 64 << 20 } = config;
  const dim = checkInteger(where, "dim", config.dim, 1, 65_536);
  const heads = checkInteger(where, "heads", config.heads, 1, 65_536);
  if (dim % heads !== 0) throw rangeError(where, "heads", `divide the width ${dim}`, heads);
  if (typeof bias !== "boolean") throw typeError(where, "bias", "be true or false", bias);
  checkInteger(where, "scratchBudget", scratchBudget, 1);
  const width4 = heads * Math.ceil(dim / heads / 4);
  const bytes = Math.max(weightBytes("f32", dim, 2 * width4), weightBytes("f32", 4 * width4, Math.ceil(dim / 4)));
  const most = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  if (bytes > most) throw rangeError(where, "dim", `give weights that the device can bind, at most ${most} bytes`, raw(`${dim}: ${bytes} bytes`));
  return { dim, heads, bias, scratchBudget };
}

/** @throws TypeError, RangeError */
export function checkLinearAttentionConfig(where: string, config: LinearAttentionConfig, gpu: Gpu): Required<LinearAttentionConfig> {
  const common = checkAttentionConfig(where, config, gpu, ["featureMap", "features"]);
  const featureMap = checkOneOf(where, "featureMap", config.featureMap, FEATURE_MAPS);
  const features = checkInteger(where, "features", config.features, 1, 4096);
  if (featureMap === "rfa" && features % 2 !== 0) throw rangeError(where, "features", 'be even for featureMap "rfa"', features);
  return { ...common, featureMap, features };
}

/** Refuses a budget too small for a single step. @throws RangeError */
export function checkBudget(where: string, scratchBudget: number, needed: number): void {
  if (scratchBudget < needed) throw rangeError(where, "scratchBudget", `be at least ${needed} bytes for these sizes`, scratchBudget);
}

/** Shapes of the parameters. */
export function paramShapes(config: Required<AttentionConfig> | Required<LinearAttentionConfig>): Record<string, readonly number[]> {
  const { dim, heads, bias } = config;
  const shapes: Record<string, readonly number[]> = {};
  for (const name of PROJECTIONS) {
    shapes[`${name}.weight`] = [dim, dim];
    if (bias) shapes[`${name}.bias`] = [dim];
  }
  if (!("featureMap" in config)) return shapes;
  if (config.featureMap === "favor" || config.featureMap === "rfa") shapes["omega"] = [heads, vectorsOf(config), dim / heads];
  else shapes["degrees"] = [heads, config.features];
  return shapes;
}

/** @throws WeightsError unless every parameter is there, of its shape, and finite */
export function checkBaselineParams(
  where: string,
  config: Required<AttentionConfig> | Required<LinearAttentionConfig>,
  params: BaselineParams,
): void {
  if (typeof params !== "object" || params === null) throw typeError(where, "params", "be an object of typed arrays", params);
  const shapes = paramShapes(config);
  if ("degrees" in shapes)
    shapes["rademacher"] = [config.heads, (config as Required<LinearAttentionConfig>).features, levelsOf(params, config), config.dim / config.heads];
  const keys = Object.keys(shapes);
  const missing = keys.filter((key) => params[key] === undefined);
  if (missing.length > 0) {
    const hint = config.bias && missing.some((key) => key.endsWith(".bias")) ? "; pass bias: false for a layer without biases" : "";
    throw new WeightsError(`${where}: params must have ${keys.join(", ")}, missing ${missing.join(", ")}${hint}`);
  }
  for (const key of Object.keys(params)) {
    if (!keys.includes(key)) throw new WeightsError(`${where}: params must have only ${keys.join(", ")}, got ${JSON.stringify(key)}`);
  }
  for (const [key, shape] of Object.entries(shapes)) {
    const array = params[key];
    const isTyped = array instanceof Float32Array || (key === "degrees" && array instanceof Int32Array);
    if (!isTyped)
      throw new WeightsError(
        `${where}: params["${key}"] must be ${key === "degrees" ? "an Int32Array or " : ""}a Float32Array, got ${describe(array)}`,
      );
    const size = shape.reduce((a, b) => a * b, 1);
    if (array.length !== size)
      throw new WeightsError(`${where}: params["${key}"] must have ${size} elements ([${shape.join(", ")}]), got ${array.length}`);
    const bad = array.findIndex((value) => !Number.isFinite(value));
    if (bad !== -1) throw new WeightsError(`${where}: params["${key}"] must be finite, got ${array[bad]} at element ${bad}`);
  }
  checkDegrees(where, params, shapes);
}

/** Random signs that are stored for each feature: L. */
function levelsOf(params: BaselineParams, { heads, dim }: { heads: number; dim: number }): number {
  const features = (params["degrees"]?.length ?? 0) / heads;
  const levels = (params["rademacher"]?.length ?? 0) / (features * dim);
  return Number.isFinite(levels) ? Math.floor(levels) : 0;
}

const MAX_DEGREE = 64;

function checkDegrees(where: string, params: BaselineParams, shapes: Record<string, readonly number[]>): void {
  const degrees = params["degrees"];
  if (!degrees) return;
  const levels = Math.min(shapes["rademacher"]?.[2] ?? 0, MAX_DEGREE);
  const bad = degrees.findIndex((degree) => !Number.isInteger(degree) || degree < 0 || degree > levels);
  if (bad !== -1) throw new WeightsError(`${where}: params["degrees"] must be integers from 0 to ${levels}, got ${degrees[bad]} at element ${bad}`);
}
