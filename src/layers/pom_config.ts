import { checkInteger, checkObject, checkOneOf, rangeError, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { planApplyGates } from "../ops/apply_gates.ts";
import { POLYNOMIAL, ROTARY } from "../ops/expand_pom.ts";
import { weightBytes } from "../ops/op.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Dtype, WeightDtype } from "../runtime/kernel.ts";
import { minimumScratch } from "./hom_plan.ts";
import { packLinear, padded, parameter } from "./params.ts";
import { momentLayout } from "./planner.ts";
import type { PomPlan, PomPlanConfig } from "./pom_plan.ts";

/** Sizes of a {@link PomLayer}, its rotation, and how it is stored. */
export interface PomConfig {
  /** D, the model width. */
  readonly dim: number;
  /** k, the highest power of the polynomial: 1 to 16. */
  readonly degree: number;
  /** e; the moments are M = e·D wide. */
  readonly expand: number;
  /** Groups of the context's projection, each of D / nGroups inputs. Default 1. */
  readonly nGroups?: number;
  /** Gates; each multiplies M / nSelHeads neighbouring channels. Default, and for 0 and 1: a gate for every channel. */
  readonly nSelHeads?: number;
  /** Whether `ag_proj`, and with groups `po_proj` and `se_proj`, have biases. `se_bias` exists always. Default false. */
  readonly bias?: boolean;
  /** Turns moments and gates by the positions of their tokens: one number, or a row and a column. Default `"none"`. */
  readonly rotary?: "none" | "1d" | "2d";
  /** Default 10,000. */
  readonly rotaryBase?: number;
  /** How many positions there are, or rows and columns: what the table of rotations holds. A checkpoint with tables decides itself. Default 4096, or [64, 64]. */
  readonly maxPositions?: number | readonly [number, number];
  /** As in `HomConfig`. */
  readonly dtype?: Dtype;
  /** As in `HomConfig`; coefficients and rotations stay f32. */
  readonly weightDtype?: WeightDtype;
  /** Bytes of scratch memory that one call may use, whatever its lengths. Default 64 MiB. */
  readonly scratchBudget?: number;
}

/**
 * Checkpoint names: `qc_proj.weight [M + gates, D]` (moments, then gates), `se_bias [gates]`, `po_coeff [M, degree]`, `ag_proj.weight [D, M]`, `ag_proj.bias [D]`;
 * with groups `po_proj.weight [M, D / nGroups, 1]`, `po_proj.bias [M]`, `se_proj.weight [gates, D]`, `se_proj.bias [gates]` in place of the first two. A rotation may
 * bring its tables: `freqs_cos`, `freqs_sin [positions, M / 2]`, or `row_*`, `col_* [positions, M / 4]`.
 */
export type PomParams = Readonly<Record<string, Float32Array>>;

const CONFIG_KEYS = [
  "dim",
  "degree",
  "expand",
  "nGroups",
  "nSelHeads",
  "bias",
  "rotary",
  "rotaryBase",
  "maxPositions",
  "dtype",
  "weightDtype",
  "scratchBudget",
];

/** Chunks of channels that a rotation pairs, and positions of a token. */
export const ROTARY_CHUNKS = { none: 1, "1d": 2, "2d": 4 } as const;
const TABLES = { none: [], "1d": ["freqs"], "2d": ["row", "col"] } as const;

/** The configuration with its defaults. @throws TypeError, RangeError */
export function checkPomConfig(where: string, config: PomConfig, gpu: Gpu): Required<PomConfig> {
  checkObject(where, "config", config, CONFIG_KEYS);
  const { bias = false, rotary = "none", rotaryBase = 10_000, dtype = "f32", weightDtype = dtype, scratchBudget = 64 << 20 } = config;
  const dim = checkInteger(where, "dim", config.dim, 1, 65_536);
  const degree = checkInteger(where, "degree", config.degree, 1, 16);
  const expand = checkInteger(where, "expand", config.expand, 1, 1024);
  const nGroups = checkInteger(where, "nGroups", config.nGroups ?? 1, 1, dim);
  const width = expand * dim;
  const nSelHeads = checkInteger(where, "nSelHeads", config.nSelHeads ?? 1, 0, width);
  if (dim % nGroups !== 0) throw rangeError(where, "nGroups", `divide the dim ${dim}`, nGroups);
  if (nSelHeads > 1 && width % nSelHeads !== 0) throw rangeError(where, "nSelHeads", `divide the ${width} channels`, nSelHeads);
  if (typeof bias !== "boolean") throw typeError(where, "bias", "be true or false", bias);
  checkOneOf(where, "rotary", rotary, ["none", "1d", "2d"]);
  const chunks = ROTARY_CHUNKS[rotary];
  if (width % chunks !== 0) throw rangeError(where, "expand · dim", `be a multiple of ${chunks} for a ${rotary} rotation`, width);
  if (nSelHeads > 1 && nSelHeads % chunks !== 0)
    throw rangeError(where, "nSelHeads", `be a multiple of ${chunks} for a ${rotary} rotation`, nSelHeads);
  if (typeof rotaryBase !== "number") throw typeError(where, "rotaryBase", "be a number", rotaryBase);
  if (!(rotaryBase > 0 && rotaryBase < Infinity)) throw rangeError(where, "rotaryBase", "be a finite number > 0", rotaryBase);
  const maxPositions = checkMaxPositions(where, config.maxPositions ?? (rotary === "2d" ? [64, 64] : 4096), rotary);
  checkOneOf(where, "dtype", dtype, ["f32", "f16"]);
  checkOneOf(where, "weightDtype", weightDtype, ["f32", "f16", "i8", "i4"]);
  if (dtype === "f16" && dim % 4 !== 0)
    throw rangeError(where, "dim", 'be a multiple of 4 for dtype "f16"', dim, 'use dtype "f32", with weightDtype "f16" for smaller weights');
  checkInteger(where, "scratchBudget", scratchBudget, 1);
  const full = { dim, degree, expand, nGroups, nSelHeads, bias, rotary, rotaryBase, maxPositions, dtype, weightDtype, scratchBudget };
  const plan = pomPlanConfig(full);
  const needed = minimumScratch(plan, gpu.tuning);
  if (scratchBudget < needed) throw rangeError(where, "scratchBudget", `be at least ${needed} bytes for this width`, scratchBudget);
  const { stride4 } = momentLayout(plan);
  const largest = Math.max(
    weightBytes(weightDtype, dim, 2 * stride4),
    weightBytes(weightDtype, 4 * stride4, Math.ceil(dim / 4)),
    constantsBytes(full),
  );
  const most = Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize);
  if (largest > most) {
    const got = raw(`${largest} bytes`);
    throw rangeError(
      where,
      "config",
      `give weights and tables that the device can bind, at most ${most} bytes`,
      got,
      "use a smaller layer or maxPositions",
    );
  }
  return full;
}

function checkMaxPositions(where: string, value: number | readonly [number, number], rotary: "none" | "1d" | "2d") {
  if (rotary !== "2d") return checkInteger(where, "maxPositions", value, 1, 2 ** 24);
  if (!Array.isArray(value) || value.length !== 2) throw typeError(where, "maxPositions", "be [rows, columns] for a 2d rotation", value);
  return [checkInteger(where, "maxPositions[0]", value[0], 1, 2 ** 24), checkInteger(where, "maxPositions[1]", value[1], 1, 2 ** 24)] as const;
}

/** Positions that each axis has. */
export function axesOf({ rotary, maxPositions }: Pick<Required<PomConfig>, "rotary" | "maxPositions">): readonly number[] {
  if (rotary === "none") return [];
  return typeof maxPositions === "number" ? [maxPositions] : maxPositions;
}

function layoutOf({ dim, expand, rotary }: Pick<Required<PomConfig>, "dim" | "expand" | "rotary">) {
  const chunks = ROTARY_CHUNKS[rotary];
  return { count: chunks, width: (expand * dim) / chunks };
}

/** The chunks of channels that the kernels see. */
export function pomMomentShape(config: { readonly dim: number; readonly expand: number; readonly rotary: "none" | "1d" | "2d" }) {
  const order = ROTARY_CHUNKS[config.rotary];
  return { dim: config.dim, order, orderExpand: config.expand / order };
}

/** A group's inputs and columns where the kernels can keep groups apart; undefined for a dense matrix, with zeros between groups. */
function groupOf({ dim, expand, nGroups, rotary }: Required<PomConfig>): PomPlan["group"] {
  const [inputs, columns] = [dim / nGroups, (expand * dim) / nGroups];
  const wholeGroups = nGroups % ROTARY_CHUNKS[rotary] === 0;
  return nGroups > 1 && wholeGroups && inputs % 4 === 0 && columns % 4 === 0 ? { inputs, columns4: columns / 4 } : undefined;
}

const isPerHead = ({ nSelHeads }: Required<PomConfig>): boolean => nSelHeads > 1;
const gateCount = (config: Required<PomConfig>): number => (isPerHead(config) ? config.nSelHeads : config.expand * config.dim);

function gatesOf(config: Required<PomConfig>): PomPlan["gates"] {
  const { dim, expand, nSelHeads, rotary } = config;
  const { count, width } = layoutOf(config);
  if (isPerHead(config)) {
    const headWidth = (expand * dim) / nSelHeads;
    // As the original: with one axis half a head's width.
    const columnStep = rotary === "1d" ? Math.floor(headWidth / 2) : headWidth;
    return { layout: { stride: padded(nSelHeads), chunkGates: nSelHeads / count, headWidth, columnStep }, plan: planApplyGates };
  }
  if (rotary === "none" && !groupOf(config)) return undefined;
  const layout = { stride: count * padded(width), chunkGates: padded(width), headWidth: 1, columnStep: 1 };
  return { layout, plan: planApplyGates };
}

/** What the planner needs of a layer. */
export function pomPlanConfig(config: Required<PomConfig>): PomPlanConfig {
  const { degree, rotary, weightDtype, scratchBudget } = config;
  const { count, width } = layoutOf(config);
  const pom: PomPlan = {
    expand: rotary === "none" ? POLYNOMIAL : ROTARY,
    degree,
    group: groupOf(config),
    planes: axesOf(config).length,
    constantsBytes: constantsBytes(config),
    rotations: (degree * count * padded(width)) / 4,
    gates: gatesOf(config),
  };
  return { ...pomMomentShape(config), activation: "leaky_clamp", weightDtype, scratchBudget, pom };
}

function constantsBytes(config: Required<PomConfig>): number {
  const { count, width } = layoutOf(config);
  const positions = axesOf(config).reduce((sum, axis) => sum + axis, 0);
  return (config.degree * count + 2 * positions) * padded(width) * 4;
}

/** The configuration with as many positions as the checkpoint's tables have, where it has them. @throws WeightsError */
export function withTables(where: string, config: Required<PomConfig>, params: PomParams): Required<PomConfig> {
  const { width } = layoutOf(config);
  const sizes = TABLES[config.rotary].map((name) => params?.[`${name}_cos`]?.length);
  if (sizes.length === 0 || sizes.every((size) => size === undefined)) return config;
  const rows = sizes.map((size = 0) => size / width);
  const bad = rows.findIndex((n) => !Number.isInteger(n) || n < 1);
  if (bad !== -1) {
    const name = `${TABLES[config.rotary][bad]}_cos`;
    throw new WeightsError(`${where}: params["${name}"] must have rows of ${width} elements, got ${sizes[bad] ?? "none"}`);
  }
  const [first = 1, second = 1] = rows;
  return { ...config, maxPositions: config.rotary === "2d" ? [first, second] : first };
}

/** The parameters that are learned, and their channels as the kernels keep them. */
export function pomLayout(config: Required<PomConfig>) {
  const { dim, degree, expand, nGroups, bias } = config;
  const M = expand * dim;
  const gates = gateCount(config);
  const moment = layoutOf(config);
  const shapes: Readonly<Record<string, readonly number[]>> = {
    po_coeff: [M, degree],
    "ag_proj.weight": [dim, M],
    ...(bias && { "ag_proj.bias": [dim] }),
    ...(nGroups === 1
      ? { "qc_proj.weight": [M + gates, dim], se_bias: [gates] }
      : { "po_proj.weight": [M, dim / nGroups, 1], "se_proj.weight": [gates, dim], ...(bias && { "po_proj.bias": [M], "se_proj.bias": [gates] }) }),
  };
  return { shapes, moment, perGate: isPerHead(config) ? { count: 1, width: gates } : moment, grouped: groupOf(config) !== undefined };
}

/** Everything that goes to the GPU, packed. @throws WeightsError unless every parameter is there, of its shape, and finite */
export function packPom(where: string, config: Required<PomConfig>, params: PomParams) {
  if (typeof params !== "object" || params === null) throw typeError(where, "params", "be an object of Float32Arrays", params);
  const { dim, expand, nGroups, rotary } = config;
  const M = expand * dim;
  const { shapes: learned, moment, perGate } = pomLayout(config);
  const shapes: Record<string, readonly number[]> = { ...learned };
  const tables = TABLES[rotary].flatMap((name) => [`${name}_cos`, `${name}_sin`]);
  const { width } = layoutOf(config);
  if (tables.some((key) => key in params)) for (const [i, key] of tables.entries()) shapes[key] = [axesOf(config)[i >> 1] ?? 0, width];
  for (const key of Object.keys(params)) {
    if (!(key in shapes)) throw new WeightsError(`${where}: params must have only ${Object.keys(shapes).join(", ")}, got ${JSON.stringify(key)}`);
  }
  const checked = Object.fromEntries(Object.entries(shapes).map(([key, shape]) => [key, parameter(where, params, key, shape)]));
  const at = (key: string) => checked[key] ?? new Float32Array();
  const model = { count: 1, width: dim };
  const plain = nGroups === 1;
  const group = groupOf(config);
  const contextWeight = plain
    ? at("qc_proj.weight").subarray(0, M * dim)
    : group
      ? at("po_proj.weight")
      : dense(at("po_proj.weight"), M, dim, nGroups);
  const context = { weight: contextWeight, bias: checked["po_proj.bias"], outer: moment };
  const gate = {
    weight: plain ? at("qc_proj.weight").subarray(M * dim) : at("se_proj.weight"),
    bias: checked[plain ? "se_bias" : "se_proj.bias"],
    outer: perGate,
  };
  const apart = gatesOf(config) !== undefined;
  const columns = 4 * momentLayout(pomMomentShape(config)).stride4;
  const packed = {
    projections: {
      data: packLinear(apart ? [context] : [context, gate], { count: 1, width: group?.inputs ?? dim }),
      outer: apart ? columns : 2 * columns,
    },
    ag: { data: packLinear([{ weight: at("ag_proj.weight"), bias: checked["ag_proj.bias"], outer: model }], moment), outer: padded(dim) },
    ...(apart && { gates: { data: packLinear([gate], model), outer: perGate.count * padded(perGate.width) } }),
  };
  return { packed, constants: packConstants(config, checked) };
}

/** A grouped weight [M, D / groups] with the zeros between its groups, [M, D]. */
function dense(weight: Float32Array, outer: number, dim: number, groups: number): Float32Array {
  const inputs = dim / groups;
  const full = new Float32Array(outer * dim);
  for (let o = 0; o < outer; o++) full.set(weight.subarray(o * inputs, (o + 1) * inputs), o * dim + Math.floor((o * groups) / outer) * inputs);
  return full;
}

/** Coefficients by power, [degree, chunks], then cosines and sines by position; see shaders/shared/polynomial.wgsl. */
function packConstants(config: Required<PomConfig>, params: PomParams): Float32Array {
  const { degree, rotary, rotaryBase } = config;
  const { count, width } = layoutOf(config);
  const stretch = padded(width);
  const constants = new Float32Array(constantsBytes(config) / 4);
  const coefficients = params["po_coeff"] ?? new Float32Array();
  for (let c = 0; c < count * width; c++) {
    const column = Math.floor(c / width) * stretch + (c % width);
    for (let j = 0; j < degree; j++) constants[j * count * stretch + column] = coefficients[c * degree + j] ?? 0;
  }
  let at = degree * count * stretch;
  axesOf(config).forEach((positions, axis) => {
    const name = TABLES[rotary][axis];
    const [cos, sin] = [params[`${name}_cos`], params[`${name}_sin`]];
    for (let position = 0; position < positions; position++, at += 2 * stretch) {
      if (cos && sin) {
        constants.set(cos.subarray(position * width, (position + 1) * width), at);
        constants.set(sin.subarray(position * width, (position + 1) * width), at + stretch);
      } else turns(position, width, rotaryBase, constants, at, stretch);
    }
  });
  return constants;
}

/** Cosines and, `stretch` further on, sines of a position's angles, position · base^(-i / width). */
export function turns(position: number, width: number, base: number, into: Float32Array, at: number, stretch: number): void {
  for (let i = 0; i < width; i++) {
    const angle = position * base ** (-i / width);
    into[at + i] = Math.cos(angle);
    into[at + stretch + i] = Math.sin(angle);
  }
}
