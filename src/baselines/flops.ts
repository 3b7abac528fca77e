import { checkInteger, checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";

interface Common {
  /** D, the model width. */
  readonly dim: number;
  /** f: a feed-forward part of f·D channels after each mixing layer. Default 0, none. */
  readonly ffwExpand?: number;
  /** How many of these layers, one after the other. Default 1. */
  readonly depth?: number;
  /** Whether dense layers have biases, which only counts for parameters. Default true, false for `"pom"`. */
  readonly bias?: boolean;
}

/** The high-order moment layer. */
export interface HomCost extends Common {
  readonly layer: "hom";
  readonly order: number;
  readonly orderExpand: number;
}

/** The polynomial mixer. */
export interface PomCost extends Common {
  readonly layer: "pom";
  readonly degree: number;
  readonly expand: number;
  /** Groups of the context projection. Default 1. */
  readonly nGroups?: number;
  /** Gates, if not one for every channel. */
  readonly nSelHeads?: number;
}

/** Softmax attention. */
export interface AttentionCost extends Common {
  readonly layer: "attention";
  readonly heads: number;
}

/** Linear attention with random features. */
export interface LinearAttentionCost extends Common {
  readonly layer: "linear_attention";
  readonly heads: number;
  readonly featureMap: "favor" | "rfa" | "maclaurin_exp" | "maclaurin_gaussian";
  /** R, per head. */
  readonly features: number;
}

/** What decides the cost of a layer. */
export type LayerCost = HomCost | PomCost | AttentionCost | LinearAttentionCost;
/** The kinds of layers that can be compared. */
export type LayerFamily = LayerCost["layer"];

/** What a layer is to be run on. */
export interface CostShape {
  /** N, tokens that are queries and context at once. */
  readonly length: number;
  /** Default 1. */
  readonly batch?: number;
  /** Default false. Only softmax attention costs less with it. */
  readonly causal?: boolean;
}

const FAMILIES: readonly LayerFamily[] = ["hom", "pom", "attention", "linear_attention"];
const FEATURE_MAPS = ["favor", "rfa", "maclaurin_exp", "maclaurin_gaussian"] as const;
const COMMON_KEYS = ["layer", "dim", "ffwExpand", "depth", "bias"];

/** Keys of a family that are integers, and their largest values. */
const LIMITS: Readonly<Record<LayerFamily, Readonly<Record<string, number>>>> = {
  hom: { order: 8, orderExpand: 1024 },
  pom: { degree: 16, expand: 1024, nGroups: 65_536, nSelHeads: 65_536 },
  attention: { heads: 65_536 },
  linear_attention: { heads: 65_536, features: 4096 },
};
const COMMON_LIMITS = { dim: 65_536, ffwExpand: 1024, depth: 1024 };
const OPTIONAL = ["ffwExpand", "depth", "nGroups", "nSelHeads"];
const FROM_ZERO = ["ffwExpand", "nSelHeads"];

/**
 * FLOPs of a layer, or of `depth` of them, a multiply-add counting 2. Activations, exponentials and the products with gates are not counted. With
 * B, N, D as everywhere, M = k·e·D (HoM) or e·D (PoM), H heads, R features a head:
 *
 * - hom: 2·B·N·D·M + B·N·M·(k-1)/k + B·N·M (projection, expansion, reduction) + 4·B·N·D·M (selection, output)
 * - pom: 2·B·N·D·M / nGroups + 2·k·B·N·M + B·N·M (polynomial, reduction) + 2·B·N·D·G + B·N·M + 2·B·N·D·M (selection by G gates, M unless `nSelHeads` says fewer; output)
 * - attention: 8·B·N·D² + 4·B·N²·D; causal, where row t has t keys: 8·B·N·D² + 2·B·N·(N+1)·D
 * - linear_attention: 8·B·N·D² + 4·B·N·D·R (features of queries and keys; half of it for rfa, whose random vectors have a sine and a cosine each; for Maclaurin features
 *   the mean over the degrees that are drawn, one factor a feature) + 4·B·N·D·R + 3·B·N·H·R (sums and reading them, with the denominators)
 * - a feed-forward part: 4·f·B·N·D²
 *
 * @throws TypeError, RangeError
 */
export function flops(config: LayerCost, shape: CostShape): number {
  const where = "flops";
  checkCost(where, "config", config);
  return flopsOf(config, checkShape(where, shape));
}

/**
 * Trained parameters of a layer, or of `depth` of them: weights, and biases unless `bias` says no. Random vectors are not trained and not counted.
 *
 * @throws TypeError, RangeError
 */
export function parameterCount(config: LayerCost): number {
  checkCost("parameterCount", "config", config);
  return parametersOf(config);
}

/** Options of {@link matchFlops}. */
export interface MatchOptions<Family extends LayerFamily> {
  /**
   * Sizes of the layer that are given. The others: `dim`, `ffwExpand`, `depth` and `heads` are the reference's, `order` and `degree` 2, `orderExpand` and `expand` 1, `featureMap` `"favor"`,
   * `features` 64; without heads in the reference, as many of about 64 channels as divide the width.
   */
  readonly fixed?: Partial<Omit<Extract<LayerCost, { layer: Family }>, "layer">>;
  /** The size that is looked for. Default: `orderExpand` of `"hom"`, `expand` of `"pom"`, `dim` of `"attention"`, `features` of `"linear_attention"`. */
  readonly solve?: "dim" | "depth" | "ffwExpand" | "order" | "orderExpand" | "degree" | "expand" | "features";
  /** The size is a multiple of this. Default 4 for `dim` and `features` (and of the number of heads for `dim`), else 1. */
  readonly multipleOf?: number;
}

/** What {@link matchFlops} found. */
export interface Match<Family extends LayerFamily> {
  /** The layer whose cost is nearest, by ratio; the smaller one of two equally near. */
  readonly config: Extract<LayerCost, { layer: Family }>;
  /** What it costs, and what the reference does. */
  readonly cost: number;
  readonly reference: number;
  /** cost / reference: 1 for a perfect match. */
  readonly ratio: number;
}

/**
 * The layer of a family that needs as many FLOPs as `reference` on `length` tokens.
 *
 * @example
 * const { config, ratio } = matchFlops({ layer: "attention", dim: 128, heads: 2 }, "hom", { length: 1024 });
 * // { layer: "hom", dim: 128, order: 2, orderExpand: 3 }, 0.91
 * @throws TypeError, RangeError
 */
export function matchFlops<Family extends LayerFamily>(
  reference: LayerCost,
  family: Family,
  options: CostShape & MatchOptions<Family>,
): Match<Family> {
  const where = "matchFlops";
  checkObject(where, "options", options, ["length", "batch", "causal", "fixed", "solve", "multipleOf"]);
  const { fixed, solve, multipleOf, ...rest } = options;
  const shape = checkShape(where, rest);
  return match(where, reference, family, { fixed, solve, multipleOf } as MatchOptions<Family>, (config) => flopsOf(config, shape));
}

/** The layer of a family that has as many parameters as `reference`; `features` of linear attention have none. @throws TypeError, RangeError */
export function matchParameters<Family extends LayerFamily>(reference: LayerCost, family: Family, options: MatchOptions<Family> = {}): Match<Family> {
  const where = "matchParameters";
  checkObject(where, "options", options, ["fixed", "solve", "multipleOf"]);
  const solve = options.solve ?? (family === "linear_attention" ? "dim" : undefined);
  if (solve === "features") throw rangeError(where, "solve", "be a size with parameters", solve, 'solve for "dim", "depth" or "ffwExpand"');
  return match(where, reference, family, { ...options, ...(solve && { solve }) }, parametersOf);
}

function flopsOf(config: LayerCost, { batch, length: N, causal }: Required<CostShape>): number {
  const { dim: D, ffwExpand = 0, depth = 1 } = config;
  const one = mixingFlops(config, N, causal) + 4 * ffwExpand * N * D * D;
  return depth * batch * one;
}

function mixingFlops(config: LayerCost, N: number, causal: boolean): number {
  const { dim: D } = config;
  switch (config.layer) {
    case "hom": {
      const { order: k, orderExpand: e } = config;
      const M = k * e * D;
      return 6 * N * D * M + N * e * D * (k - 1) + N * M;
    }
    case "pom": {
      const M = config.expand * D;
      return N * M * ((2 * D) / (config.nGroups ?? 1) + 2 * config.degree + 1) + N * (2 * D * gatesOf(config) + M + 2 * D * M);
    }
    case "attention":
      return 8 * N * D * D + (causal ? 2 * N * (N + 1) * D : 4 * N * N * D);
    case "linear_attention": {
      const { heads: H, features: R, featureMap } = config;
      return 8 * N * D * D + (featureMap === "rfa" ? 2 : 4) * N * D * R + 4 * N * D * R + 3 * N * H * R;
    }
  }
}

function parametersOf(config: LayerCost): number {
  const { dim: D, ffwExpand: f = 0, depth = 1, bias = config.layer !== "pom" } = config;
  const ffw = 2 * f * D * D + (f > 0 && bias ? f * D + D : 0);
  return depth * (mixingParameters(config, bias) + ffw);
}

function mixingParameters(config: LayerCost, bias: boolean): number {
  const { dim: D } = config;
  switch (config.layer) {
    case "hom": {
      const M = config.order * config.orderExpand * D;
      return 3 * D * M + (bias ? 2 * M + D : 0);
    }
    case "pom": {
      const { nGroups = 1, degree } = config;
      const [M, G] = [config.expand * D, gatesOf(config)];
      // Gates have a bias of their own always; a bias on z exists only beside grouped projections.
      return (D * M) / nGroups + D * G + G + degree * M + D * M + (bias ? (nGroups > 1 ? M : 0) + D : 0);
    }
    default:
      return 4 * D * D + (bias ? 4 * D : 0);
  }
}

/** Gates of a PoM layer. */
function gatesOf({ dim, expand, nSelHeads = 1 }: PomCost): number {
  return nSelHeads > 1 ? nSelHeads : expand * dim;
}

function checkShape(where: string, shape: CostShape): Required<CostShape> {
  checkObject(where, "shape", shape, ["length", "batch", "causal"]);
  const { batch = 1, causal = false } = shape;
  if (typeof causal !== "boolean") throw typeError(where, "causal", "be true or false", causal);
  return { batch: checkInteger(where, "batch", batch, 1), length: checkInteger(where, "length", shape.length, 1), causal };
}

function checkCost(where: string, argument: string, config: LayerCost): void {
  if (typeof config !== "object" || config === null) throw typeError(where, argument, "be an object", config);
  checkOneOf(where, `${argument}.layer`, config.layer, FAMILIES);
  const limits = LIMITS[config.layer];
  checkObject(where, argument, config, [...COMMON_KEYS, ...Object.keys(limits), ...(config.layer === "linear_attention" ? ["featureMap"] : [])]);
  const values = config as unknown as Readonly<Record<string, unknown>>;
  for (const [key, max] of Object.entries({ ...COMMON_LIMITS, ...limits })) {
    if (values[key] === undefined && OPTIONAL.includes(key)) continue;
    checkInteger(where, `${argument}.${key}`, values[key], FROM_ZERO.includes(key) ? 0 : 1, max);
  }
  if (config.bias !== undefined && typeof config.bias !== "boolean") throw typeError(where, `${argument}.bias`, "be true or false", config.bias);
  if (config.layer === "attention" || config.layer === "linear_attention") checkDivides(where, `${argument}.heads`, config.heads, config.dim);
  if (config.layer === "pom") checkDivides(where, `${argument}.nGroups`, config.nGroups ?? 1, config.dim);
  if (config.layer !== "linear_attention") return;
  checkOneOf(where, `${argument}.featureMap`, config.featureMap, FEATURE_MAPS);
  if (config.featureMap === "rfa" && config.features % 2 !== 0) throw rangeError(where, `${argument}.features`, "be even for rfa", config.features);
}

function checkDivides(where: string, argument: string, value: number, dim: number): void {
  if (dim % value !== 0) throw rangeError(where, argument, `divide the width ${dim}`, value);
}

const DEFAULT_SOLVE: Readonly<Record<LayerFamily, string>> = { hom: "orderExpand", pom: "expand", attention: "dim", linear_attention: "features" };

function match<Family extends LayerFamily>(
  where: string,
  reference: LayerCost,
  family: Family,
  options: MatchOptions<Family>,
  costOf: (config: LayerCost) => number,
): Match<Family> {
  checkCost(where, "reference", reference);
  checkOneOf(where, "family", family, FAMILIES);
  const limits: Readonly<Record<string, number>> = { ...COMMON_LIMITS, ...LIMITS[family] };
  const solve = checkOneOf(where, "solve", options.solve ?? DEFAULT_SOLVE[family], solvable(family));
  const fixed = checkObject(where, "fixed", options.fixed ?? {}, [...COMMON_KEYS.slice(1), ...Object.keys(LIMITS[family]), "featureMap"]);
  if (fixed[solve] !== undefined)
    throw typeError(where, "fixed", `leave ${solve} open`, raw(`${solve}: ${String(fixed[solve])}`), "it is what is solved for");
  const base = { ...defaultsOf(reference, family, fixed, solve), ...fixed } as unknown as Record<string, unknown>;
  const step = stepOf(where, family, solve, options.multipleOf, base);
  const most = Math.floor((limits[solve] ?? 1) / step);
  if (most < 1) throw rangeError(where, "multipleOf", `be at most ${limits[solve]}`, step);
  const configOf = (i: number) => ({ layer: family, ...base, [solve]: i * step }) as unknown as Extract<LayerCost, { layer: Family }>;
  checkCost(where, "fixed", configOf(1));
  const wanted = costOf(reference);
  // The first size that costs at least as much; one less may be nearer.
  let [low, high] = [1, most];
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (costOf(configOf(middle)) < wanted) low = middle + 1;
    else high = middle;
  }
  const distance = (i: number) => Math.abs(Math.log(costOf(configOf(i)) / wanted));
  const config = configOf(low > 1 && distance(low - 1) <= distance(low) ? low - 1 : low);
  const cost = costOf(config);
  return { config, cost, reference: wanted, ratio: cost / wanted };
}

function solvable(family: LayerFamily): readonly string[] {
  const own = { hom: ["order", "orderExpand"], pom: ["degree", "expand"], attention: [], linear_attention: ["features"] }[family];
  return ["dim", "depth", "ffwExpand", ...own];
}

function defaultsOf(reference: LayerCost, family: LayerFamily, fixed: Readonly<Record<string, unknown>>, solve: string): Record<string, unknown> {
  const { dim, ffwExpand, depth } = reference;
  const shared = { dim, ...(ffwExpand !== undefined && { ffwExpand }), ...(depth !== undefined && { depth }) };
  if (family === "hom") return { ...shared, order: 2, orderExpand: 1 };
  if (family === "pom") return { ...shared, degree: 2, expand: 1 };
  const width = typeof fixed["dim"] === "number" && solve !== "dim" ? fixed["dim"] : dim;
  const own = reference.layer === "attention" || reference.layer === "linear_attention" ? reference.heads : headsFor(width);
  const heads = width % own === 0 ? own : headsFor(width);
  return family === "attention" ? { ...shared, heads } : { ...shared, heads, featureMap: "favor", features: 64 };
}

/** Heads of about 64 channels that divide the width. */
function headsFor(dim: number): number {
  let heads = Math.max(1, Math.round(dim / 64));
  while (dim % heads !== 0) heads--;
  return heads;
}

function stepOf(where: string, family: LayerFamily, solve: string, multipleOf: number | undefined, base: Readonly<Record<string, unknown>>): number {
  const given = multipleOf === undefined ? undefined : checkInteger(where, "multipleOf", multipleOf, 1, 65_536);
  if (solve === "features") {
    const step = given ?? 4;
    return base["featureMap"] === "rfa" && step % 2 !== 0 ? 2 * step : step;
  }
  if (solve !== "dim") return given ?? 1;
  const parts = family === "pom" ? base["nGroups"] : family === "hom" ? 1 : base["heads"];
  return leastCommonMultiple(given ?? 4, checkInteger(where, family === "pom" ? "nGroups" : "heads", parts ?? 1, 1, 65_536));
}

function leastCommonMultiple(a: number, b: number): number {
  let [x, y] = [a, b];
  while (y !== 0) [x, y] = [y, x % y];
  return (a / x) * b;
}
