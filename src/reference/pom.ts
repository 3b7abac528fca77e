import { checkInteger, checkObject, rangeError, raw } from "../checks.ts";
import { type AggregateArguments, ARGUMENT_KEYS, aggregate, type Emit } from "./aggregate.ts";
import { loadRow, parameter } from "./arrays.ts";
import type { TokenExpander } from "./moments.ts";
import { matvec, projection } from "./projection.ts";
import type { SelectRow } from "./select.ts";
import type { Weights } from "./types.ts";

/** Sizes of a PoM layer; its moments are M = expand·dim wide. */
export interface PomShape {
  readonly dim: number;
  /** The highest power of the polynomial. */
  readonly degree: number;
  readonly expand: number;
  /** Groups of the context projection. Absent: 1 */
  readonly nGroups?: number | undefined;
  /** Gates; each multiplies M / heads neighbouring channels. Absent, 0 or 1: a gate for every channel */
  readonly nSelHeads?: number | undefined;
  /** Rotation of moments and gates by the position of a token: one number, or a row and a column. Absent: none */
  readonly rotary?: "1d" | "2d" | undefined;
  /** Absent: 10,000 */
  readonly rotaryBase?: number;
}

/** Query, context, lengths, mask and positions of a call of {@link pomReference}. */
export interface PomArguments extends Omit<AggregateArguments, "queryMask"> {
  /** [T] or [B, T], of pairs (row, column) where the rotation is 2-D. Absent, 1-D only: 0, 1, … in each row (in each packed sequence) */
  readonly positions?: ArrayLike<number> | undefined;
  /** [N] or [B, N], likewise. Absent: `positions` where there is no context, else 0, 1, … */
  readonly contextPositions?: ArrayLike<number> | undefined;
}

/** Position of token i of [B·N], `axis` 0 or 1. */
export type PositionOf = (token: number, axis: number) => number;

const POM_ARGUMENTS = [...ARGUMENT_KEYS.filter((key) => key !== "queryMask"), "positions", "contextPositions"];

/** min(6, max(-0.1, leaky_relu(z))), of slope 0.01 below 0 */
export function clampedLeaky(z: number): number {
  return Math.min(6, Math.max(-0.1, z > 0 ? z : 0.01 * z));
}

/** min(1, max(0, l/6 + 1/2)) */
export function hardSigmoid(l: number): number {
  return Math.min(1, Math.max(0, l / 6 + 0.5));
}

/** M = expand·dim, after checking the sizes. */
export function pomMomentDim(where: string, shape: PomShape): number {
  const { nGroups: groups = 1, nSelHeads: heads = 1, rotary } = shape;
  const width = checkInteger(where, "dim", shape.dim, 1) * checkInteger(where, "expand", shape.expand, 1);
  checkInteger(where, "degree", shape.degree, 1);
  checkInteger(where, "nGroups", groups, 1);
  checkInteger(where, "nSelHeads", heads, 0);
  if (shape.dim % groups !== 0) throw rangeError(where, "nGroups", `divide dim = ${shape.dim}`, groups);
  if (heads > 1 && width % heads !== 0) throw rangeError(where, "nSelHeads", `divide the ${width} channels`, heads);
  const part = rotary === "2d" ? 4 : rotary === "1d" ? 2 : 1;
  if (width % part !== 0) throw rangeError(where, "dim", `give a multiple of ${part} channels for a rotation`, width);
  if (heads > 1 && heads % part !== 0) throw rangeError(where, "nSelHeads", `be a multiple of ${part} for a rotation`, heads);
  return width;
}

/** z = xc·Wᵀ (+ b), grouped or dense. */
export function contextProjection(where: string, params: Weights, shape: PomShape, width: number): (row: Float64Array, z: Float64Array) => void {
  const { dim, nGroups: groups = 1 } = shape;
  if (groups === 1) {
    const weight = parameter(where, params, "qc_proj.weight", (width + gateCount(shape)) * dim).subarray(0, width * dim);
    const zero = new Float64Array(width);
    return (row, z) => matvec(weight, zero, row, z);
  }
  const [inner, outer] = [dim / groups, width / groups];
  const weight = parameter(where, params, "po_proj.weight", width * inner);
  const bias = parameter(where, params, "po_proj.bias", width, true) ?? new Float64Array(width);
  return (row, z) => {
    for (let g = 0; g < groups; g++) {
      const outputs = [g * outer, (g + 1) * outer] as const;
      const part = weight.subarray(g * outer * inner, (g + 1) * outer * inner);
      matvec(part, bias.subarray(...outputs), row.subarray(g * inner, (g + 1) * inner), z.subarray(...outputs));
    }
  };
}

export function gateCount(shape: PomShape): number {
  const { nSelHeads: heads = 1 } = shape;
  return heads > 1 ? heads : shape.expand * shape.dim;
}

/**
 * Rotates v in place: channel i of a part pairs with i + half its length. 1-D: one part; 2-D: the first half by the row, the second by the column.
 * `step` is the distance of the table's columns: column i·step for pair i.
 */
export type Rotate = (v: Float64Array, token: number, position: PositionOf) => void;

/** Tables of the checkpoint (`freqs_cos`, `freqs_sin`; `row_cos`, …) where it has them, else computed; undefined without a rotation. */
export function rotation(where: string, params: Weights, shape: PomShape, of: "moments" | "gates"): Rotate | undefined {
  const { rotary, rotaryBase = 10_000, nSelHeads: heads = 1 } = shape;
  if (rotary === undefined) return undefined;
  const width = pomMomentDim(where, shape);
  const parts = rotary === "1d" ? ["freqs"] : ["row", "col"];
  const columns = width / (2 * parts.length);
  const perHead = of === "gates" && heads > 1;
  const half = (perHead ? heads : width) / (2 * parts.length);
  const step = perHead ? Math.floor(width / (rotary === "1d" ? 2 * heads : heads)) : 1;
  const tables = parts.map((name) => ({ cos: params[`${name}_cos`], sin: params[`${name}_sin`] }));
  return (v, token, position) => {
    for (const [axis, { cos, sin }] of tables.entries()) {
      const at = position(token, axis);
      const known = cos && sin ? cos.length / columns : Number.MAX_SAFE_INTEGER;
      checkInteger(where, "a position", at, cos ? 0 : -known, known - 1);
      const first = axis * 2 * half;
      for (let i = 0; i < half; i++) {
        const column = i * step;
        const angle = at * rotaryBase ** (-column / columns);
        const c = cos ? cos[at * columns + column]! : Math.cos(angle);
        const s = sin ? sin[at * columns + column]! : Math.sin(angle);
        const [a, b] = [v[first + i]!, v[first + half + i]!];
        v[first + i] = a * c - b * s;
        v[first + half + i] = b * c + a * s;
      }
    }
  };
}

/** m = Σ_j coeff[:, j-1]·a^j, a = clampedLeaky(z), rotated by the token's position; one token x [D] -> m [M]. */
export function polynomialExpander(where: string, params: Weights, shape: PomShape, position?: PositionOf): TokenExpander {
  const width = pomMomentDim(where, shape);
  const { degree } = shape;
  const project = contextProjection(where, params, shape, width);
  const coefficients = parameter(where, params, "po_coeff", width * degree);
  const rotate = rotation(where, params, shape, "moments");
  return (row, m, token) => {
    project(row, m);
    for (let c = 0; c < width; c++) {
      const a = clampedLeaky(m[c]!);
      let sum = 0;
      for (let j = degree - 1; j >= 0; j--) sum = (sum + coefficients[c * degree + j]!) * a;
      m[c] = sum;
    }
    if (rotate && position) rotate(m, token, position);
  };
}

/** s = hardSigmoid(x·W_sᵀ + b), rotated by the query's position; one query x [D] -> s [heads or M]. */
export function pomGate(where: string, params: Weights, shape: PomShape, position?: PositionOf): { count: number; gate: TokenExpander } {
  const { dim, nGroups: groups = 1 } = shape;
  const width = pomMomentDim(where, shape);
  const count = gateCount(shape);
  const rotate = rotation(where, params, shape, "gates");
  const fused = () => {
    const weight = parameter(where, params, "qc_proj.weight", (width + count) * dim).subarray(width * dim);
    const bias = parameter(where, params, "se_bias", count);
    return (row: Float64Array, s: Float64Array) => matvec(weight, bias, row, s);
  };
  const project = groups === 1 ? fused() : projection(where, params, "se_proj", dim, count);
  const gate: TokenExpander = (row, s, token) => {
    project(row, s);
    for (let j = 0; j < count; j++) s[j] = hardSigmoid(s[j]!);
    if (rotate && position) rotate(s, token, position);
  };
  return { count, gate };
}

/** y = ag_proj(s ⊙ h[base …]), one query: x [D], y [D] */
export function pomSelect(where: string, params: Weights, shape: PomShape, position?: PositionOf): (token: number) => SelectRow {
  const width = pomMomentDim(where, shape);
  const { count, gate } = pomGate(where, params, shape, position);
  const project = projection(where, params, "ag_proj", width, shape.dim);
  const s = new Float64Array(count);
  const r = new Float64Array(width);
  return (token) => (row, h, base, y) => {
    gate(row, s, token);
    for (let c = 0; c < width; c++) r[c] = s[Math.floor((c * count) / width)]! * h[base + c]!;
    project(r, y);
  };
}

/**
 * The PoM layer: y = ag_proj(s ⊙ h), h the (masked) mean of the polynomial features of the context, [B, T, D]. A row that may see
 * nothing has h = 0.
 */
export function pomReference(shape: PomShape, params: Weights, args: PomArguments): Float64Array {
  const where = "pomReference";
  const { dim } = shape;
  const select = pomSelect(where, params, shape, queryPositions(where, shape, args));
  const row = new Float64Array(dim);
  const out = new Float64Array(args.query?.length ?? 0);
  pomMeans(where, shape, params, args, (start, end, h, base) => {
    for (let i = start; i < end; i++) {
      loadRow(args.query, i, row);
      select(i)(row, h, base, out.subarray(i * dim, (i + 1) * dim));
    }
  });
  return out;
}

/** The (masked) means that the queries read. */
export function pomMeans(where: string, shape: PomShape, params: Weights, args: PomArguments, emit: Emit): void {
  checkObject(where, "arguments", args, POM_ARGUMENTS);
  const momentDim = pomMomentDim(where, shape);
  const { positions: _, contextPositions: __, ...rest } = args;
  const expand = polynomialExpander(where, params, shape, tokenPositions(where, shape, args));
  aggregate(where, { dim: shape.dim, momentDim, expand, epsilon: 0 }, rest, emit);
}

const sequencesOf = ({ mask }: PomArguments) => (mask && typeof mask === "object" && "cuSeqlens" in mask ? mask.cuSeqlens : undefined);

export function queryPositions(where: string, shape: PomShape, args: PomArguments): PositionOf | undefined {
  return positionsOf(where, "positions", shape, args.positions, args.batch, args.queryLength, sequencesOf(args));
}

export function tokenPositions(where: string, shape: PomShape, args: PomArguments): PositionOf | undefined {
  const { contextPositions = args.context ? undefined : args.positions, contextLength = args.queryLength } = args;
  return positionsOf(where, "contextPositions", shape, contextPositions, args.batch, contextLength, sequencesOf(args));
}

/** Where tokens stand: given for one row or for all, or counted from 0 in each row or packed sequence. */
export function positionsOf(
  where: string,
  argument: string,
  shape: PomShape,
  given: ArrayLike<number> | undefined,
  batch: number,
  length: number,
  sequences?: ArrayLike<number>,
): PositionOf | undefined {
  const { rotary } = shape;
  if (rotary === undefined) {
    if (given) throw rangeError(where, argument, "be absent for a layer without a rotation", raw(`${given.length} numbers`));
    return undefined;
  }
  const axes = rotary === "2d" ? 2 : 1;
  if (!given) {
    if (axes === 2) throw rangeError(where, argument, "be given for a 2-D rotation", given);
    return (token) => {
      if (!sequences) return token % length;
      let start = 0;
      for (let s = 0; s + 1 < sequences.length; s++) if (sequences[s]! <= token) start = sequences[s]!;
      return token - start;
    };
  }
  const one = length * axes;
  if (given.length !== one && given.length !== batch * one) {
    throw rangeError(where, argument, `hold ${one} or ${batch * one} numbers`, raw(`${given.length}`));
  }
  return (token, axis) => given[(token * axes + axis) % given.length]!;
}
