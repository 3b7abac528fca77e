import { checkInteger, checkObject } from "../checks.ts";
import { gelu, silu } from "./activations.ts";
import { parameter } from "./arrays.ts";
import { homParams, withPrefix } from "./block.ts";
import { homReference } from "./hom.ts";
import { patchify, resizeGrid, unpatchify } from "./images.ts";
import { linear } from "./linear.ts";
import type { Weights } from "./types.ts";

/** Sizes of the diffusion model. */
export interface DihShape {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  readonly layers: number;
  readonly channels: number;
  readonly patch: number;
  /** Registers of DiH++; absent for DiH. */
  readonly registers?: number | undefined;
}

/** What the diffusion model is given. */
export interface DihArguments {
  /** [B, C, S, S] */
  readonly image: ArrayLike<number>;
  /** [B] */
  readonly time: ArrayLike<number>;
  /** [B] */
  readonly classes: ArrayLike<number>;
  readonly batch: number;
  /** S */
  readonly size: number;
}

const EPSILON = 1e-6;
/** What DiH++ clamps its tokens to. */
export const CLAMP = 255;

/** Affine-free layer norm, then (1 + s)·v + b: x [rows, D], modulation [rows', 2D] with rows of x in stretches of rows / rows'. */
export function modulate(
  x: ArrayLike<number>,
  scale: (row: number, c: number) => number,
  shift: (row: number, c: number) => number,
  dim: number,
): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length / dim; row++) {
    let mean = 0;
    for (let c = 0; c < dim; c++) mean += x[row * dim + c]! / dim;
    let variance = 0;
    for (let c = 0; c < dim; c++) variance += (x[row * dim + c]! - mean) ** 2 / dim;
    for (let c = 0; c < dim; c++) {
      const i = row * dim + c;
      out[i] = ((x[i]! - mean) / Math.sqrt(variance + EPSILON)) * (1 + scale(row, c)) + shift(row, c);
    }
  }
  return out;
}

/** The fixed position code of DiH, [side², D]: the column in the first half of the channels, the row in the second. */
export function dihPositions(side: number, dim: number): Float64Array {
  const quarter = dim / 4;
  const code = new Float64Array(side * side * dim);
  for (let n = 0; n < side * side; n++) {
    for (const [half, at] of [n % side, Math.floor(n / side)].entries()) {
      const u = side === 1 ? 0 : at / (side - 1);
      for (let j = 0; j < quarter; j++) {
        const angle = Math.PI * (2 * j + 1) * u;
        code[n * dim + (half * dim) / 2 + j] = Math.sin(angle);
        code[n * dim + (half * dim) / 2 + quarter + j] = Math.cos(angle);
      }
    }
  }
  return code;
}

/** The diffusion model: [B, C, S, S] -> [B, C, S, S]. */
export function dihReference(shape: DihShape, weights: Weights, args: DihArguments): Float64Array {
  const where = "dihReference";
  checkObject(where, "arguments", args, ["image", "time", "classes", "batch", "size"]);
  return dihForward(where, shape, weights, args).output;
}

/** Everything on the way from an image to the output, in the order in which it is computed; u is what an activation or the clamp is given. */
export function dihForward(where: string, shape: DihShape, weights: Weights, args: DihArguments) {
  const { dim, order, orderExpand, ffwExpand, layers, channels, patch, registers = 0 } = shape;
  const { image, time, classes, batch, size } = args;
  const plus = shape.registers !== undefined;
  const side = checkInteger(where, "size", size, patch) / patch;
  const n = side * side;
  const tokens = registers + n;
  const dense = (name: string, x: ArrayLike<number>, inDim: number, outDim: number) =>
    linear(x, parameter(where, weights, `${name}.weight`, outDim * inDim), parameter(where, weights, `${name}.bias`, outDim, true), {
      inDim,
      outDim,
    });

  const freqs = parameter(where, weights, "freqs", dim / 2);
  const features = Float64Array.from({ length: batch * dim }, (_, i) => {
    const angle = time[Math.floor(i / dim)]! * freqs[i % (dim / 2)]!;
    return i % dim < dim / 2 ? Math.cos(angle) : Math.sin(angle);
  });
  const timeWidth = (weights["time_emb.0.bias"]?.length ?? 0) || 4 * dim;
  const timeU = dense("time_emb.0", features, dim, timeWidth);
  const timeHidden = timeU.map(silu);
  const timed = dense("time_emb.2", timeHidden, timeWidth, dim);
  const table = parameter(where, weights, "classes_emb.weight", weights["classes_emb.weight"]?.length ?? 0);
  const c = Float64Array.from(timed, (value, i) => value + table[classes[Math.floor(i / dim)]! * dim + (i % dim)]!);

  const grid = (name: string, first: number): ArrayLike<number> => {
    const all = parameter(where, weights, name, weights[name]?.length ?? 0);
    const known = all.subarray(first * dim);
    return known.length === n * dim ? all : Float64Array.of(...all.subarray(0, first * dim), ...resizeGrid(known, side, dim, true));
  };
  const position = plus ? grid("pos_emb", 0) : dihPositions(side, dim);
  const patches = patchify(image, { batch, channels, height: size, width: size, patch });
  const embedded = dense("in_conv", patches, channels * patch * patch, dim);
  let x = new Float64Array(batch * tokens * dim);
  const before = plus ? parameter(where, weights, "registers", registers * dim) : new Float64Array();
  for (let b = 0; b < batch; b++) {
    x.set(before, b * tokens * dim);
    for (let i = 0; i < n * dim; i++) x[(b * tokens + registers) * dim + i] = embedded[b * n * dim + i]! + position[i]!;
  }
  // One row of conditions a batch row, or a token.
  const perToken = plus ? grid("cond_pos_emb", registers) : undefined;
  const conditionsU = Float64Array.from({ length: batch * (plus ? tokens : 1) * dim }, (_, i) => {
    const row = Math.floor(i / dim);
    return perToken ? c[Math.floor(row / tokens) * dim + (i % dim)]! + perToken[i % (tokens * dim)]! : c[i]!;
  });
  const conditions = conditionsU.map(silu);
  const rowOf = (token: number) => (plus ? token : Math.floor(token / tokens));
  const part = (values: Float64Array, parts: number, k: number) => (token: number, d: number) => values[(rowOf(token) * parts + k) * dim + d]!;

  const kept = Array.from({ length: layers }, (_, i) => {
    const of = `layers.${i}`;
    const cond = dense(`${of}.cond_mlp.1`, conditions, dim, 4 * dim);
    const gates = dense(`${of}.gate_mlp.1`, conditions, dim, 2 * dim);
    const add = (to: Float64Array, y: Float64Array, k: number) => {
      const gate = part(gates, 2, k);
      return to.map((value, j) => value + y[j]! * (1 + gate(Math.floor(j / dim), j % dim)));
    };
    const input = x;
    const query = modulate(x, part(cond, 4, 0), part(cond, 4, 1), dim);
    const mixed = homReference({ dim, order, orderExpand }, homParams(withPrefix(weights, `${of}.`), "hom."), { query, batch, queryLength: tokens });
    const mid = add(x, mixed, 0);
    const ffwInput = modulate(mid, part(cond, 4, 2), part(cond, 4, 3), dim);
    const hiddenU = dense(`${of}.ffw.0`, ffwInput, dim, ffwExpand * dim);
    const hidden = hiddenU.map(gelu);
    const fed = dense(`${of}.ffw.2`, hidden, ffwExpand * dim, dim);
    const outputU = add(mid, fed, 1);
    x = plus ? outputU.map((value) => Math.min(CLAMP, Math.max(-CLAMP, value))) : outputU;
    return { cond, gates, input, query, mixed, mid, ffwInput, hiddenU, hidden, fed };
  });
  const out = dense("out_mod.1", conditions, dim, 2 * dim);
  const last = modulate(x, part(out, 2, 0), part(out, 2, 1), dim);
  const read = new Float64Array(batch * n * dim);
  for (let b = 0; b < batch; b++) read.set(last.subarray((b * tokens + registers) * dim, (b + 1) * tokens * dim), b * n * dim);
  const output = unpatchify(dense("out_proj", read, dim, patch * patch * channels), { batch, channels, height: size, width: size, patch });
  return { side, n, tokens, plus, rowOf, part, features, timeU, timeHidden, patches, conditionsU, conditions, layers: kept, x, out, read, output };
}
