import { checkInteger, checkObject, checkOneOf, describe, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { weightBytes } from "../ops/op.ts";
import { ACTIVATIONS, type Activation } from "../ops/types.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Dtype, WeightDtype } from "../runtime/kernel.ts";
import { minimumScratch } from "./hom_plan.ts";
import { momentLayout } from "./planner.ts";

/** Sizes of a {@link HomLayer}, its activation, and how it is stored. */
export interface HomConfig {
  /** D, the model width. */
  readonly dim: number;
  /** k, the highest moment: 1 to 8. */
  readonly order: number;
  /** e, the expansion per order; the moments are M = k·e·D wide. */
  readonly orderExpand: number;
  /** Default `"gelu"`, in its exact erf form. */
  readonly activation?: Activation;
  /** Whether the three projections have biases. Default true. */
  readonly bias?: boolean;
  /**
   * Storage of the output and, unless `weightDtype` says otherwise, of the weights: f16 takes half the memory on any adapter, with or without
   * `shader-f16`, and needs a `dim` that is a multiple of 4. Sums are f32 always; inputs may be of either type. Default `"f32"`.
   */
  readonly dtype?: Dtype;
  /** Storage of the weights: `"i8"` keeps a byte a weight and one scale a channel, `"i4"` half a byte and a scale for every 32 inputs. Default: `dtype`. */
  readonly weightDtype?: WeightDtype;
  /**
   * Decayed moments: what a token adds to a channel's mean fades by the factor `decay` `[e·D]`, one more parameter, with every token after it; the same
   * for every order. Such a layer is causal: it takes the mask `"causal"` alone, and its states know `step`, `clone` and `reset`. Default false.
   */
  readonly decay?: boolean;
  /** Bytes of scratch memory that one call may use, whatever its lengths. Default 64 MiB. */
  readonly scratchBudget?: number;
}

/** Checkpoint names: `ho_proj.weight [M, D]`, `ho_proj.bias [M]`, `se_proj.weight [M, D]`, `se_proj.bias [M]`, `ag_proj.weight [D, M]`, `ag_proj.bias [D]`. */
export type HomParams = Readonly<Record<string, Float32Array>>;

const CONFIG_KEYS = ["dim", "order", "orderExpand", "activation", "bias", "dtype", "weightDtype", "decay", "scratchBudget"];

/** The configuration with its defaults. @throws TypeError, RangeError */
export function checkConfig(where: string, config: HomConfig, gpu: Gpu): Required<HomConfig> {
  checkObject(where, "config", config, CONFIG_KEYS);
  const { activation = "gelu", bias = true, dtype = "f32", weightDtype = dtype, decay = false, scratchBudget = 64 << 20 } = config;
  const dim = checkInteger(where, "dim", config.dim, 1, 65_536);
  const order = checkInteger(where, "order", config.order, 1, 8);
  const orderExpand = checkInteger(where, "orderExpand", config.orderExpand, 1, 1024);
  checkOneOf(where, "activation", activation, ACTIVATIONS);
  checkOneOf(where, "dtype", dtype, ["f32", "f16"]);
  checkOneOf(where, "weightDtype", weightDtype, ["f32", "f16", "i8", "i4"]);
  if (dtype === "f16" && dim % 4 !== 0)
    throw rangeError(where, "dim", 'be a multiple of 4 for dtype "f16"', dim, 'use dtype "f32", with weightDtype "f16" for smaller weights');
  if (typeof bias !== "boolean") throw typeError(where, "bias", "be true or false", bias);
  if (typeof decay !== "boolean") throw typeError(where, "decay", "be true or false", decay);
  if (!FULL && (decay || dtype !== "f32" || weightDtype !== "f32")) throw leftOut(where);
  checkInteger(where, "scratchBudget", scratchBudget, 1);
  const needed = minimumScratch({ dim, order, orderExpand, activation, scratchBudget }, gpu.tuning);
  if (scratchBudget < needed) throw rangeError(where, "scratchBudget", `be at least ${needed} bytes for this width and order`, scratchBudget);
  const { stride4 } = momentLayout({ dim, order, orderExpand });
  const inner4 = Math.ceil(dim / 4);
  const weights = Math.max(weightBytes(weightDtype, dim, 2 * stride4), weightBytes(weightDtype, 4 * stride4, inner4));
  const most = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  if (weights > most) {
    const got = raw(`dim ${dim}, order ${order}, orderExpand ${orderExpand}: ${weights} bytes`);
    throw rangeError(
      where,
      "config",
      `give weights that the device can bind, at most ${most} bytes`,
      got,
      "use a smaller weightDtype or orderExpand",
    );
  }
  return { dim, order, orderExpand, activation, bias, dtype, weightDtype, decay, scratchBudget };
}

/** @throws WeightsError unless every parameter is there, of its shape, and finite */
export function checkParams(where: string, config: Required<HomConfig>, params: HomParams): HomParams {
  const { dim, order, orderExpand, bias } = config;
  const moment = order * orderExpand * dim;
  if (typeof params !== "object" || params === null) throw typeError(where, "params", "be an object of Float32Arrays", params);
  const shapes: Record<string, number[]> = { "ho_proj.weight": [moment, dim], "se_proj.weight": [moment, dim], "ag_proj.weight": [dim, moment] };
  if (bias) Object.assign(shapes, { "ho_proj.bias": [moment], "se_proj.bias": [moment], "ag_proj.bias": [dim] });
  if (config.decay) shapes["decay"] = [orderExpand * dim];
  const missing = Object.keys(shapes).filter((key) => params[key] === undefined);
  if (missing.length > 0)
    throw new WeightsError(
      `${where}: params must have ${Object.keys(shapes).join(", ")}, missing ${missing.join(", ")}${bias ? "; pass bias: false for a layer without biases" : ""}`,
    );
  for (const key of Object.keys(params)) {
    if (!(key in shapes)) throw new WeightsError(`${where}: params must have only ${Object.keys(shapes).join(", ")}, got ${JSON.stringify(key)}`);
  }
  for (const [key, shape] of Object.entries(shapes)) {
    const array = params[key];
    if (!(array instanceof Float32Array)) throw new WeightsError(`${where}: params["${key}"] must be a Float32Array, got ${describe(array)}`);
    const size = shape.reduce((a, b) => a * b, 1);
    if (array.length !== size)
      throw new WeightsError(`${where}: params["${key}"] must have ${size} elements ([${shape.join(", ")}]), got ${array.length}`);
    const bad = array.findIndex((value) => !Number.isFinite(value));
    if (bad !== -1) throw new WeightsError(`${where}: params["${key}"] must be finite, got ${array[bad]} at element ${bad}`);
  }
  const outside = params["decay"]?.findIndex((factor) => !(factor > 0 && factor <= 1)) ?? -1;
  if (outside !== -1)
    throw new WeightsError(`${where}: params["decay"] must have factors in (0, 1], got ${params["decay"]?.[outside]} at element ${outside}`);
  return params;
}
