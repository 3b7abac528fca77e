import { planActivateBackward } from "../ops/activate_backward.ts";
import { planLinear } from "../ops/linear.ts";
import type { Rows } from "../ops/op.ts";
import { planTranspose } from "../ops/transpose.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot, type Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { padded } from "./params.ts";
import { weightGradientSteps } from "./weight_gradient.ts";

/** What decides the dispatches besides the lengths of a call. */
export interface TrainingSizes {
  readonly tuning: Tuning;
  readonly limits: GpuLimits;
  readonly scratchBudget: number;
  /** D: no slab holds more rows than it would hold of this width. */
  readonly dim: number;
}

/** Packed weights of a dense layer (src/layers/params.ts), `[rows + 1, columns]` with padding. */
export interface PackedMatrix {
  readonly weights: Slot;
  /** Of the same layout. */
  readonly gradient: Slot;
  readonly rows: number;
  readonly columns: number;
}

/** Rows of `width` numbers, one behind the other, from `byteOffset` on (default 0). */
export interface RowsIn {
  readonly buffer: string;
  readonly byteOffset?: number;
  readonly width: number;
}

/** A feed-forward part, down(gelu(up(x))). */
export interface FeedForward {
  readonly up: PackedMatrix;
  readonly down: PackedMatrix;
  /** `[rows, D]` */
  readonly x: RowsIn;
}

/** Rows of a slab are a multiple of this: their bytes are then one of 256, whatever a row holds. */
const SLAB_ROWS = 64;
/** More would only cost memory. */
const SLAB_BYTES = 8 << 20;

/**
 * Collects the dispatches of a model's forward and backward pass. What is computed anew on the way back, or only passes by, takes scratch memory in slabs of rows.
 */
export class TrainingSteps {
  readonly steps: Step[] = [];
  /** Bytes of the caller's buffers beside weights and gradients. */
  readonly kept = new Map<string, number>();
  readonly scratch = new Map<string, number>();
  protected readonly sizes: TrainingSizes;
  protected readonly maxBinding: number;
  protected readonly maxWorkgroups: number;

  constructor(sizes: TrainingSizes) {
    this.sizes = sizes;
    this.maxBinding = sizes.limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    this.maxWorkgroups = sizes.limits.maxComputeWorkgroupsPerDimension;
  }

  /** Planned dispatches, on buffers of other names, or on parts of them. */
  add({ steps, scratch }: { readonly steps: readonly Step[]; readonly scratch?: ReadonlyMap<string, number> }, names: Names = {}): void {
    for (const [role, bytes] of scratch ?? []) this.scratchSlot(role, bytes);
    this.steps.push(...rename(steps, names));
  }

  /** y = residual + act(x Wᵀ + b), or y + x Wᵀ + b. */
  linear(x: Rows, w: Slot, y: Rows, options: { activation?: "gelu" | "silu"; residual?: Rows | undefined; accumulate?: boolean } = {}): void {
    const { tile } = this.sizes.tuning;
    this.steps.push(planLinear({ x, w, weightDtype: "f32", y, ...options, tile, maxWorkgroups: this.maxWorkgroups }));
  }

  /** Columns [first, first + count) of a matrix, transposed: what a gradient is multiplied by on its way back. */
  transposed(role: string, matrix: Omit<PackedMatrix, "gradient">, first = 0, count = matrix.columns): Slot {
    const { weights: w, rows: inner, columns: outer } = matrix;
    const transposed = this.scratchSlot(role, (count + 1) * inner * 4);
    this.steps.push(planTranspose({ w, transposed, inner, outer, first, count, maxWorkgroups: this.maxWorkgroups }));
    return transposed;
  }

  /** The gradient of a whole matrix, bias included; `accumulate` adds to what is there. */
  weightGradient(x: Rows, dy: Rows, { gradient, columns }: Pick<PackedMatrix, "gradient" | "columns">, accumulate: boolean, bias = true): void {
    const { steps, partialBytes } = weightGradientSteps({
      x,
      dy,
      gradient,
      columns,
      first: 0,
      bias,
      accumulate,
      partial: "gradient_blocks",
      partialBytes: this.slabBytes,
      tile: this.sizes.tuning.tile,
      maxBinding: this.maxBinding,
      maxWorkgroups: this.maxWorkgroups,
    });
    if (partialBytes > 0) this.scratchSlot("gradient_blocks", partialBytes);
    this.steps.push(...steps);
  }

  /** act(u) in place of u, and the gradient of u in place of that of act(u), of whole scratch rows. */
  activateBackward(u: Rows, gradients: Rows, activation: "gelu" | "silu"): void {
    const elements = u.count * u.length;
    const slot = ({ buffer }: Rows): Slot => ({ buffer, offset: 0, size: elements * 4 });
    this.steps.push(planActivateBackward({ u: slot(u), gradients: slot(gradients), elements, activation, maxWorkgroups: this.maxWorkgroups }));
  }

  /** y = residual + down(gelu(up(x))) */
  feedForward({ up, down, x }: FeedForward, y: RowsIn, residual: RowsIn | undefined, rows: number): void {
    this.slabs(rows, up.columns, (first, count) => {
      const hidden = this.slab("hidden", up.columns, count);
      this.linear(view(x, first, count), up.weights, hidden, { activation: "gelu" });
      this.linear(hidden, down.weights, view(y, first, count), { residual: residual && view(residual, first, count) });
    });
  }

  /**
   * gradX = residual + upᵀ(gelu'(u) ⊙ downᵀ(gradOut)), and the gradients of both matrices. With gradX in gradOut's own place it is added to gradOut: the gradient of x in
   * x + down(gelu(up(x))).
   */
  feedForwardBackward(
    { up, down, x }: FeedForward,
    gradOut: RowsIn,
    gradX: RowsIn,
    options: { readonly rows: number; readonly residual?: RowsIn | undefined; readonly accumulate: boolean },
  ): void {
    const { rows, residual } = options;
    const accumulate = gradX.buffer === gradOut.buffer;
    const downBack = this.transposed("transposed", down);
    const upBack = this.transposed("transposed_up", up);
    this.slabs(rows, up.columns, (first, count) => {
      const adds = options.accumulate || first > 0;
      const [input, gradient] = [view(x, first, count), view(gradOut, first, count)];
      const [hidden, back] = [this.slab("hidden", up.columns, count), this.slab("hidden_gradient", up.columns, count)];
      this.linear(input, up.weights, hidden);
      this.linear(gradient, downBack, back);
      this.activateBackward(hidden, back, "gelu");
      this.weightGradient(hidden, gradient, down, adds);
      this.weightGradient(input, back, up, adds);
      this.linear(back, upBack, view(gradX, first, count), { accumulate, residual: residual && view(residual, first, count) });
    });
  }

  /** Stretches of rows with scratch rows of `width` numbers. */
  slabs(rows: number, width: number, use: (first: number, count: number) => void): void {
    const widest = Math.max(width, this.sizes.dim);
    const most = Math.min(this.slabBytes, this.maxBinding);
    const atOnce = Math.max(SLAB_ROWS, Math.floor(most / (padded(widest) * 4 * SLAB_ROWS)) * SLAB_ROWS);
    for (let first = 0; first < rows; first += atOnce) use(first, Math.min(atOnce, rows - first));
  }

  /** What one of several scratch buffers may take. */
  get slabBytes(): number {
    return Math.min(this.sizes.scratchBudget / 4, SLAB_BYTES);
  }

  /** Scratch rows of `width` numbers, filled up to a multiple of 4. */
  slab(role: string, width: number, count: number): Rows {
    this.scratchSlot(role, bytesOf(count * padded(width)));
    return view({ buffer: role, width: padded(width) }, 0, count);
  }

  scratchSlot(role: string, bytes: number): Slot {
    this.scratch.set(role, Math.max(this.scratch.get(role) ?? 0, bytes));
    return { buffer: role, offset: 0, size: bytes };
  }
}

export function view({ buffer, byteOffset = 0, width }: RowsIn, first: number, count: number): Rows {
  return { buffer, byteOffset, length: width, stride: width, first, count };
}

/** Bindings hold whole vec4s. */
export const bytesOf = (elements: number): number => Math.ceil(elements / 4) * 16;

/** Buffers of steps by other names, or parts of buffers. */
export type Names = Readonly<Record<string, string | Slot>>;

function rename(steps: readonly Step[], names: Names): Step[] {
  const renamed = (slot: Slot): Slot => {
    const name = names[slot.buffer];
    if (name === undefined) return slot;
    return typeof name === "string" ? { ...slot, buffer: name } : { ...slot, buffer: name.buffer, offset: name.offset + slot.offset };
  };
  return steps.map((step) => ({ ...step, slots: Object.fromEntries(Object.entries(step.slots).map(([key, slot]) => [key, renamed(slot)])) }));
}
