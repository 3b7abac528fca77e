import type { AttentionArguments, AttentionShape } from "../../src/reference/attention.ts";
import type { FeatureMap, LinearAttentionShape } from "../../src/reference/random_features.ts";
import { parseSafetensors } from "../../src/weights/safetensors.ts";
import { normals, uniforms } from "../reference/inputs.ts";
import { loadFixture } from "./fixtures.ts";
import type { GoldenCase } from "./golden.ts";

export type BaselineParams = Record<string, Float32Array | Int32Array>;

/** A case of family mha, favor, rfa or maclaurin. `linear` is undefined for softmax attention. */
export interface BaselineGolden {
  readonly shape: AttentionShape;
  readonly linear: LinearAttentionShape | undefined;
  readonly params: BaselineParams;
  readonly args: AttentionArguments & { readonly x: Float32Array };
  /** out.y [B, N, D] */
  readonly expected: Float32Array;
  readonly outputShape: readonly number[];
  /** A tensor [B, H, N, width] of the case, as [B, N, H, width]. */
  byToken(key: string): Float64Array;
}

const FEATURE_MAP_OF: Readonly<Record<string, FeatureMap>> = {
  "favor+": "favor",
  rfa: "rfa",
  maclaurin_exp: "maclaurin_exp",
  maclaurin_gaussian: "maclaurin_gaussian",
};

export async function baselineGolden(entry: GoldenCase): Promise<BaselineGolden> {
  const file = parseSafetensors(await loadFixture(`test/fixtures/golden/${entry.file}`));
  const config = entry.config as Readonly<Record<string, never>>;
  const floats = (key: string): Float32Array => {
    const { data } = file.get(key);
    if (!(data instanceof Float32Array)) throw new Error(`baselineGolden: ${entry.name} has ${key} of another type than F32`);
    return data;
  };
  const params = Object.fromEntries(entry.params.map((key) => [key, key === "degrees" ? (file.get(key).data as Int32Array) : floats(key)]));
  const shape = { dim: Number(config["dim"]), heads: Number(config["n_heads"]) };
  const kernel = String(config["kernel"]);
  const featureMap = FEATURE_MAP_OF[kernel];
  if (!featureMap && kernel !== "softmax") throw new Error(`baselineGolden: ${entry.name} has the unknown kernel ${kernel}`);
  return {
    shape,
    linear: featureMap && { ...shape, featureMap, features: Number(config["n_features"]) },
    params,
    args: { x: floats("in.x"), batch: Number(config["B"]), length: Number(config["N"]), causal: config["causal"] === true },
    expected: floats("out.y"),
    outputShape: file.get("out.y").shape,
    byToken: (key) => {
      const { shape: stored } = file.get(key);
      const [batch = 0, heads = 0, length = 0, width = 0] = stored;
      const data = floats(key);
      return Float64Array.from(data, (_, i) => {
        const [c, h, t, b] = [
          i % width,
          Math.floor(i / width) % heads,
          Math.floor(i / width / heads) % length,
          Math.floor(i / width / heads / length),
        ];
        return b < batch ? (data[((b * heads + h) * length + t) * width + c] ?? Number.NaN) : Number.NaN;
      });
    },
  };
}

/** What the gradients of a case are of, and what they are: by parameter, and `query` of its tokens. */
export async function baselineGradients(entry: GoldenCase): Promise<{
  /** [B, N, D] */
  readonly gradOutput: Float32Array<ArrayBuffer>;
  readonly expected: Readonly<Record<string, Float32Array>>;
}> {
  const file = parseSafetensors(await loadFixture(`test/fixtures/golden/${entry.file}`));
  const floats = (key: string) => Float32Array.from(file.get(key).data as Float32Array);
  const names = entry.grads.map((key) => [key, key === "grad.in.x" ? "query" : key.slice("grad.".length)] as const);
  return { gradOutput: floats("in.G"), expected: Object.fromEntries(names.map(([key, name]) => [name, floats(key)])) };
}

/**
 * Projections and, where the shape asks for some, random features. `spread` is the size of queries and keys: Maclaurin features have either sign, and what is
 * divided by is well away from 0 only for short ones.
 */
export function baselineParams(seed: number, shape: AttentionShape | LinearAttentionShape, { bias = true, spread = 1 } = {}): BaselineParams {
  const { dim, heads } = shape;
  const params: BaselineParams = {};
  for (const [i, name] of ["q_proj", "k_proj", "v_proj", "out_proj"].entries()) {
    params[`${name}.weight`] = Float32Array.from(normals(seed + i, dim * dim, (i < 2 ? spread : 1) / Math.sqrt(dim)));
    if (bias) params[`${name}.bias`] = Float32Array.from(normals(seed + 10 + i, dim, i < 2 ? 0.3 * spread : 0.3));
  }
  if (!("featureMap" in shape)) return params;
  const { featureMap, features } = shape;
  const headDim = dim / heads;
  if (featureMap === "favor" || featureMap === "rfa") {
    const vectors = featureMap === "rfa" ? features / 2 : features;
    params["omega"] = Float32Array.from(normals(seed + 20, heads * vectors * headDim));
    return params;
  }
  const next = uniforms(seed + 30);
  const degrees = Int32Array.from({ length: heads * features }, () => Math.min(7, Math.floor(-Math.log2(1 - next()))));
  const levels = degrees.reduce((a, b) => Math.max(a, b), 0);
  params["degrees"] = degrees;
  params["rademacher"] = Float32Array.from({ length: heads * features * levels * headDim }, () => (next() < 0.5 ? -1 : 1));
  return params;
}
