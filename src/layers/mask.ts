import { checkInteger, describe, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { GPUBuffer } from "../webgpu.ts";
import type { MaskPlan } from "./hom_plan.ts";
import { firstBlocks } from "./planner.ts";

/**
 * What a query may see of the context; see the table of masks in the README.
 *
 * - `"causal"`: row t sees tokens 0 … t (query and context are equally long)
 * - `{ blockCausal: n }`: row t sees its own block of n tokens and all earlier ones
 * - `{ padding }`: `[B·N]`, non-zero is seen; floats are weights
 * - `{ lengths }`: `[B]`, the first `lengths[b]` tokens are seen
 * - `{ full }`: `[B·T·N]` or `[T·N]` for all batch rows, non-zero is seen; floats are weights
 * - `{ cuSeqlens }`: `[S + 1]`, query and context are S sequences packed as `[1, total, D]`
 */
export type MaskSpec =
  | "causal"
  | { readonly blockCausal: number }
  | { readonly padding: Uint8Array | Float32Array }
  | { readonly lengths: Uint32Array }
  | { readonly full: Uint8Array | Float32Array }
  | { readonly cuSeqlens: Uint32Array };

/** The lengths that a mask is for: B, T and N. */
export interface MaskShape {
  readonly batch: number;
  readonly queryLength: number;
  readonly contextLength: number;
}

/** The 1e-7 of a masked mean, Σ m / (1e-7 + Σ mask): what makes a row that sees nothing 0 instead of 0/0. */
export const MASK_EPSILON = 1e-7;

/** A mask checked against the shapes it is used with, and the arrays that the kernels read. */
export interface ResolvedMask {
  readonly plan: MaskPlan;
  readonly uploads: Readonly<Partial<Record<"mask" | "table" | "divisors", Float32Array | Uint32Array>>>;
  /** What was added to the sums of the mask. */
  readonly epsilon: number;
  /** Tells plans apart; undefined where the plan depends on the mask's contents. */
  readonly key: string | undefined;
}

/**
 * @param epsilon added to the sum of a padding, length or full mask. With an epsilon of 0, a row whose weights add up to 0 sees nothing.
 * @throws TypeError, RangeError
 */
export function resolveMask(where: string, mask: MaskSpec | undefined, shape: MaskShape, blockTokens: number, epsilon: number): ResolvedMask {
  return { ...resolve(where, mask, shape, blockTokens, epsilon), epsilon };
}

function resolve(where: string, mask: MaskSpec | undefined, shape: MaskShape, blockTokens: number, epsilon: number): Omit<ResolvedMask, "epsilon"> {
  const { batch, queryLength, contextLength } = shape;
  const argument = "mask";
  if (mask === undefined) return { plan: { kind: "none" }, uploads: {}, key: "none" };
  if (mask === "causal") {
    checkEqualLengths(where, '"causal" mask', shape);
    return { plan: { kind: "causal", ahead: 1 }, uploads: {}, key: "causal" };
  }
  if (!FULL) throw leftOut(where);
  const keys = typeof mask === "object" && mask !== null ? Object.keys(mask) : [];
  const [kind] = keys;
  if (keys.length !== 1 || kind === undefined || !["blockCausal", "padding", "lengths", "full", "cuSeqlens"].includes(kind)) {
    const got = keys.length > 0 ? raw(`an object with ${keys.join(", ")}`) : mask;
    throw typeError(where, argument, 'be "causal" or an object with one of blockCausal, padding, lengths, full, cuSeqlens', got);
  }
  if ("blockCausal" in mask) {
    const block = checkInteger(where, "mask.blockCausal", mask.blockCausal, 1);
    checkEqualLengths(where, "blockCausal mask", shape);
    const plan: MaskPlan = [1, 2, 4, 8].includes(block)
      ? { kind: "causal", ahead: block }
      : { kind: "blockCausal", block: Math.min(block, contextLength) };
    return { plan, uploads: {}, key: `blockCausal ${block}` };
  }
  if ("padding" in mask) {
    const weights = checkWeights(where, "mask.padding", mask.padding, [[batch, contextLength]]);
    return { plan: { kind: "padding" }, uploads: weightsAndDivisors(weights, batch, contextLength, epsilon), key: "padding" };
  }
  if ("lengths" in mask) {
    const { lengths } = mask;
    checkLengths(where, "mask.lengths", lengths, batch, contextLength);
    return {
      plan: { kind: "lengths" },
      uploads: { table: Uint32Array.from(lengths), divisors: Float32Array.from(lengths, (n) => n + epsilon || 1) },
      key: "lengths",
    };
  }
  if ("full" in mask) {
    const shapes =
      batch === 1
        ? [[batch, queryLength, contextLength]]
        : [
            [batch, queryLength, contextLength],
            [1, queryLength, contextLength],
          ];
    const weights = checkWeights(where, "mask.full", mask.full, shapes);
    const maskBatch = weights.length === queryLength * contextLength ? 1 : batch;
    const { mask: seen, divisors } = weightsAndDivisors(weights, maskBatch * queryLength, contextLength, epsilon);
    return {
      plan: { kind: "full", batch: maskBatch },
      uploads: { mask: seen, table: new Uint32Array(divisors.buffer) },
      key: `full ${maskBatch}`,
    };
  }
  if (batch !== 1 || queryLength !== contextLength) {
    const got = raw(`batch ${batch}, ${queryLength} queries, ${contextLength} context tokens`);
    throw rangeError(where, "query and context", "be packed as [1, total, D] for a cuSeqlens mask", got);
  }
  checkCuSeqlens(where, "mask.cuSeqlens", mask.cuSeqlens, contextLength);
  const cuSeqlens = Uint32Array.from(mask.cuSeqlens);
  const table = new Uint32Array(2 * cuSeqlens.length);
  table.set(cuSeqlens);
  table.set(firstBlocks(cuSeqlens, blockTokens), cuSeqlens.length);
  // An empty segment has a sum of 0; any divisor but 0 leaves it.
  const divisors = Float32Array.from({ length: cuSeqlens.length - 1 }, (_, s) => Math.max(1, (cuSeqlens[s + 1] ?? 0) - (cuSeqlens[s] ?? 0)));
  return { plan: { kind: "packed", cuSeqlens }, uploads: { table, divisors }, key: undefined };
}

function checkEqualLengths(where: string, what: string, { queryLength, contextLength }: MaskShape): void {
  if (queryLength !== contextLength) {
    throw rangeError(where, "query and context", `be equally long for a ${what}`, raw(`${queryLength} queries and ${contextLength} context tokens`));
  }
}

function checkWeights(where: string, argument: string, weights: Uint8Array | Float32Array, shapes: number[][]): Float32Array {
  if (!(weights instanceof Uint8Array) && !(weights instanceof Float32Array))
    throw typeError(where, argument, "be a Uint8Array or a Float32Array", weights);
  if (!shapes.some((shape) => weights.length === shape.reduce((a, b) => a * b, 1))) {
    const wanted = shapes.map((shape) => `${shape.reduce((a, b) => a * b, 1)} ([${shape.join(", ")}])`).join(" or ");
    throw rangeError(where, argument, `have ${wanted} elements`, raw(`${weights.length}`));
  }
  if (weights instanceof Uint8Array) return Float32Array.from(weights, (seen) => (seen === 0 ? 0 : 1));
  const bad = weights.findIndex((weight) => !Number.isFinite(weight));
  if (bad !== -1) throw rangeError(where, `${argument}[${bad}]`, "be finite", weights[bad]);
  return weights;
}

/** Each row's weights, and epsilon plus their sum, added in float64. A row of sum 0 without an epsilon becomes one that sees nothing. */
function weightsAndDivisors(weights: Float32Array, rows: number, length: number, epsilon: number) {
  const divisors = new Float32Array(rows);
  let mask = weights;
  for (let row = 0; row < rows; row++) {
    let sum = epsilon;
    for (let i = row * length; i < (row + 1) * length; i++) sum += weights[i] ?? 0;
    divisors[row] = sum || 1;
    if (sum !== 0) continue;
    if (mask === weights) mask = weights.slice();
    mask.fill(0, row * length, (row + 1) * length);
  }
  return { mask, divisors };
}

/** @internal */
export function checkLengths(where: string, argument: string, lengths: Uint32Array, batch: number, contextLength: number): void {
  if (!(lengths instanceof Uint32Array)) throw typeError(where, argument, "be a Uint32Array", lengths);
  if (lengths.length !== batch) throw rangeError(where, argument, `have ${batch} elements, one a batch row`, raw(`${lengths.length}`));
  lengths.forEach((length, b) => {
    if (length > contextLength) throw rangeError(where, `${argument}[${b}]`, `be at most the context length ${contextLength}`, length);
  });
}

/** @internal */
export function checkCuSeqlens(where: string, argument: string, cuSeqlens: Uint32Array, total: number, sequences?: number): void {
  if (!(cuSeqlens instanceof Uint32Array)) throw typeError(where, argument, "be a Uint32Array", cuSeqlens);
  if (sequences !== undefined && cuSeqlens.length !== sequences + 1) {
    throw rangeError(where, argument, `have ${sequences + 1} elements for ${sequences} sequences`, raw(`${cuSeqlens.length}`));
  }
  if (cuSeqlens.length < 2) throw rangeError(where, argument, "have at least 2 elements", raw(`${cuSeqlens.length}`));
  if (cuSeqlens[0] !== 0) throw rangeError(where, `${argument}[0]`, "be 0", cuSeqlens[0]);
  for (let s = 1; s < cuSeqlens.length; s++) {
    if ((cuSeqlens[s] ?? 0) < (cuSeqlens[s - 1] ?? 0)) {
      throw rangeError(where, `${argument}[${s}]`, `be at least ${argument}[${s - 1}] = ${cuSeqlens[s - 1]}`, cuSeqlens[s]);
    }
  }
  const last = cuSeqlens[cuSeqlens.length - 1];
  if (last !== total) throw rangeError(where, `the last element of ${argument}`, `be the total of ${total} tokens`, last);
}

/**
 * A mask whose arrays are on the GPU: made once by `createMask` of a layer, then used by any number of calls and layers with the same shapes.
 */
export class HomMask {
  readonly gpu: Gpu;
  readonly shape: MaskShape;
  /** @internal */
  readonly resolved: ResolvedMask;
  /** @internal */
  readonly buffers: Readonly<Record<string, GPUBuffer>>;
  /** @internal */
  readonly blockTokens: number;
  #destroyed = false;

  /** @internal */
  constructor(gpu: Gpu, shape: MaskShape, resolved: ResolvedMask, blockTokens: number) {
    this.gpu = gpu;
    this.shape = shape;
    this.resolved = resolved;
    this.blockTokens = blockTokens;
    this.buffers = uploadBuffers(gpu, resolved.uploads);
  }

  /** @internal */
  check(where: string, gpu: Gpu, shape: MaskShape, blockTokens: number, epsilon: number): void {
    if (this.#destroyed) throw typeError(where, "mask", "be alive", raw("a destroyed mask"));
    if (gpu.device !== this.gpu.device) throw typeError(where, "mask", "be on the layer's device", raw("a mask of another device"));
    if (epsilon !== this.resolved.epsilon)
      throw typeError(where, "mask", "be made by a layer of the same kind", raw("a mask of another"), "call createMask of this layer");
    const { batch, queryLength, contextLength } = this.shape;
    if (batch !== shape.batch || queryLength !== shape.queryLength || contextLength !== shape.contextLength) {
      const text = (s: MaskShape) => `batch ${s.batch}, ${s.queryLength} queries, ${s.contextLength} context tokens`;
      throw rangeError(where, "mask", `be made for ${text(shape)}`, raw(`a mask for ${text(this.shape)}`));
    }
    if (this.resolved.plan.kind === "packed" && blockTokens !== this.blockTokens) {
      throw typeError(
        where,
        "mask",
        "be made by a layer of the same block size",
        raw(`blocks of ${describe(this.blockTokens)} tokens`),
        "call createMask of this layer",
      );
    }
  }

  /** Frees the mask's arrays. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const buffer of Object.values(this.buffers)) buffer.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}

export function uploadBuffers(gpu: Gpu, uploads: Readonly<Record<string, Float32Array | Uint32Array>>): Record<string, GPUBuffer> {
  const buffers: Record<string, GPUBuffer> = {};
  try {
    for (const [name, data] of Object.entries(uploads)) buffers[name] = gpu.upload(`hom.mask.${name}`, data);
  } catch (error) {
    for (const buffer of Object.values(buffers)) buffer.destroy();
    throw error;
  }
  return buffers;
}
