import { checkObject } from "../checks.ts";
import { activationGradient } from "./activation_gradients.ts";
import type { RowValue } from "./add_rows.ts";
import { addRowsBackward } from "./add_rows_backward.ts";
import { checkLength, parameter } from "./arrays.ts";
import { homParams, withPrefix } from "./block.ts";
import { CLAMP, type DihArguments, type DihShape, dihForward } from "./dih.ts";
import { denseBackward } from "./hlm_backward.ts";
import { homBackward } from "./hom_backward.ts";
import { patchify, resizeGridBackward, unpatchify } from "./images.ts";
import { modulateBackward } from "./modulate_backward.ts";
import { sumRows } from "./sum_rows.ts";
import type { Weights } from "./types.ts";

/** The call, and the gradient of its output. */
export interface DihBackwardArguments extends DihArguments {
  /** [B, C, S, S] */
  readonly gradOutput: ArrayLike<number>;
}

/** What {@link dihBackward} gives. */
export interface DihGradients {
  /** [B, C, S, S] */
  readonly image: Float64Array;
  /** By checkpoint name and in the checkpoint's layout; `freqs` is not trained. */
  readonly params: Record<string, Float64Array>;
}

/** Gradients of the diffusion model for a gradient of its output. */
export function dihBackward(shape: DihShape, weights: Weights, args: DihBackwardArguments): DihGradients {
  const where = "dihBackward";
  checkObject(where, "arguments", args, ["image", "time", "classes", "batch", "size", "gradOutput"]);
  const { dim, order, orderExpand, ffwExpand, channels, patch, registers = 0 } = shape;
  const { gradOutput, ...forward } = args;
  const { classes, batch, size } = args;
  checkLength(where, "gradOutput", gradOutput, batch * channels * size * size, "B·C·S·S");
  const trace = dihForward(where, shape, weights, forward);
  const { n, tokens, plus, part, conditions } = trace;
  const images = { batch, channels, height: size, width: size, patch };
  const inner = channels * patch * patch;
  const grads: Record<string, Float64Array> = {};
  /** Gradients of a Linear's parameters go to `grads`; returns that of its input. */
  const dense = (name: string, x: Float64Array, dy: Float64Array, inDim: number, outDim: number): Float64Array => {
    const weight = parameter(where, weights, `${name}.weight`, outDim * inDim);
    const found = denseBackward({ weight, inner: inDim, outer: outDim }, x, dy);
    grads[`${name}.weight`] = found.weight;
    if (weights[`${name}.bias`]) grads[`${name}.bias`] = found.bias;
    return found.dx;
  };
  const dconditions = new Float64Array(conditions.length);
  /** Through a Linear of the conditions: the gradients of its `parts` outputs, of every token [B·tokens, D] each. */
  const conditioned = (name: string, parts: readonly Float64Array[]): void => {
    const width = parts.length * dim;
    const rows = Float64Array.from(
      { length: batch * tokens * width },
      (_, i) => parts[Math.floor((i % width) / dim)]![Math.floor(i / width) * dim + (i % dim)]!,
    );
    const dy = plus ? rows : sumRows(rows, { outer: batch, count: tokens, inner: width });
    addTo(dconditions, dense(name, conditions, dy, dim, width));
  };

  const dread = dense("out_proj", trace.read, patchify(gradOutput, images, true), dim, inner);
  const dlast = new Float64Array(batch * tokens * dim);
  for (let b = 0; b < batch; b++) dlast.set(dread.subarray(b * n * dim, (b + 1) * n * dim), (b * tokens + registers) * dim);
  const read = modulateBackward(trace.x, dlast, part(trace.out, 2, 0), dim);
  conditioned("out_mod.1", [read.dscale, read.dshift]);
  let dx = read.dx;

  for (let i = shape.layers - 1; i >= 0; i--) {
    const of = `layers.${i}`;
    const { cond, gates, input, query, mixed, mid, ffwInput, hiddenU, hidden, fed } = trace.layers[i]!;
    const gated = (a: Float64Array, b: Float64Array, k: number, limit?: number) => {
      const g = part(gates, 2, k);
      const value =
        (values: Float64Array): RowValue =>
        (row, t, c) =>
          values[(row * tokens + t) * dim + c]!;
      const operands = { a: value(a), b: value(b), g: (row: number, t: number, c: number) => g(row * tokens + t, c), dy: value(dx) };
      return addRowsBackward(operands, { batch, tokens, dim }, limit);
    };
    const after = gated(mid, fed, 1, plus ? CLAMP : undefined);
    const dhidden = dense(`${of}.ffw.2`, hidden, after.db, ffwExpand * dim, dim);
    const dhiddenU = dhidden.map((value, j) => value * activationGradient("gelu")(hiddenU[j]!));
    const ffw = modulateBackward(mid, dense(`${of}.ffw.0`, ffwInput, dhiddenU, dim, ffwExpand * dim), part(cond, 4, 2), dim);
    dx = addTo(after.da, ffw.dx);
    const between = gated(input, mixed, 0);
    const own = homParams(withPrefix(weights, `${of}.`), "hom.");
    const hom = homBackward({ dim, order, orderExpand }, own, { query, batch, queryLength: tokens, gradOutput: between.db });
    for (const [key, value] of Object.entries(hom.params)) grads[`${of}.hom.${key}`] = value;
    const mix = modulateBackward(input, hom.query, part(cond, 4, 0), dim);
    dx = addTo(between.da, mix.dx);
    conditioned(`${of}.cond_mlp.1`, [mix.dscale, mix.dshift, ffw.dscale, ffw.dshift]);
    conditioned(`${of}.gate_mlp.1`, [between.dg, after.dg]);
  }

  // Batch rows of tokens: the registers', then the patches'.
  const ofPatches = Float64Array.from({ length: batch * n * dim }, (_, i) => dx[i + (Math.floor(i / (n * dim)) + 1) * registers * dim]!);
  const patches = dense("in_conv", trace.patches, ofPatches, inner, dim);
  const dconditionsU = dconditions.map((value, i) => value * activationGradient("silu")(trace.conditionsU[i]!));
  if (plus) {
    const grid = (name: string, kept: number, gradient: Float64Array) => {
      const known = parameter(where, weights, name, weights[name]?.length ?? 0).length / dim - kept;
      grads[name] = Float64Array.of(
        ...gradient.subarray(0, kept * dim),
        ...resizeGridBackward(gradient.subarray(kept * dim), Math.sqrt(known), dim, true),
      );
    };
    const ofTokens = sumRows(dx, { outer: 1, count: batch, inner: tokens * dim });
    grads["registers"] = ofTokens.slice(0, registers * dim);
    grid("pos_emb", 0, ofTokens.subarray(registers * dim));
    grid("cond_pos_emb", registers, sumRows(dconditionsU, { outer: 1, count: batch, inner: tokens * dim }));
  }
  const dc = plus ? sumRows(dconditionsU, { outer: batch, count: tokens, inner: dim }) : dconditionsU;
  const table = new Float64Array(weights["classes_emb.weight"]?.length ?? 0);
  for (let b = 0; b < batch; b++) for (let d = 0; d < dim; d++) table[classes[b]! * dim + d]! += dc[b * dim + d]!;
  grads["classes_emb.weight"] = table;
  const width = trace.timeU.length / batch;
  const dtime = dense("time_emb.2", trace.timeHidden, dc, width, dim);
  const dtimeU = dtime.map((value, i) => value * activationGradient("silu")(trace.timeU[i]!));
  dense("time_emb.0", trace.features, dtimeU, dim, width);
  return { image: unpatchify(patches, images, false), params: grads };
}

function addTo(sum: Float64Array, values: Float64Array): Float64Array {
  for (let i = 0; i < sum.length; i++) sum[i]! += values[i]!;
  return sum;
}
