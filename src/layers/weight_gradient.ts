import { planMergeGradients } from "../ops/merge_gradients.ts";
import { bindRows, type Rows } from "../ops/op.ts";
import { type OuterTileName, planWeightGradient, weightGradientInvocations } from "../ops/weight_gradient.ts";
import type { Slot, Step, TileName } from "../runtime/kernel.ts";
import { MAX_INNER_STEPS } from "./planner.ts";

export interface WeightGradientPlan {
  /** `[rows, inner]` and `[rows, outer]`, f32, anywhere; dy may be a column range of longer rows. */
  readonly x: Rows;
  readonly dy: Rows;
  /** The whole gradient, in the layout of the packed weights: `[inner + 1, columns]`, inner padded to a multiple of 4. */
  readonly gradient: Slot;
  /** Numbers in a row of the gradient, a multiple of 4. */
  readonly columns: number;
  /** The column that dy's first belongs to, a multiple of 4. */
  readonly first: number;
  /** Without, the last row is left as it is. */
  readonly bias: boolean;
  /** Adds to what the gradient holds. */
  readonly accumulate: boolean;
  /** Scratch buffer for sums of blocks, and the most bytes that it may take. */
  readonly partial: string;
  readonly partialBytes: number;
  readonly tile: TileName;
  readonly maxBinding: number;
  readonly maxWorkgroups: number;
}

/** Invocations that keep an adapter busy: a GPU hides the latency of its loads behind others, two cores have little to hide. */
const BUSY: Readonly<Record<OuterTileName, number>> = { "8x4": 32_768, "16x8": 1_024 };
/** Shorter blocks would cost more to merge than they bring. */
const MIN_BLOCK_ROWS = 64;

/** Rows that an invocation adds up, so that there are enough invocations, no more than `maxBlocks` blocks, and no loop that is too long. */
export function gradientBlockRows(rows: number, blockInvocations: number, tile: OuterTileName, maxBlocks: number): number {
  const wanted = Math.min(Math.ceil(BUSY[tile] / blockInvocations), Math.ceil(rows / MIN_BLOCK_ROWS), maxBlocks);
  return Math.min(Math.ceil(rows / Math.max(1, wanted)), MAX_INNER_STEPS);
}

/**
 * The gradient of packed weights and their bias, Σ over rows of [x, 1]ᵀ dy, in as many dispatches as bindings and scratch ask for. The
 * padding of the columns that are written becomes 0.
 * @returns the dispatches, and the bytes that `partial` needs for them
 */
export function weightGradientSteps(a: WeightGradientPlan): { steps: Step[]; partialBytes: number } {
  const { bias, maxWorkgroups } = a;
  const tile: OuterTileName = a.tile.startsWith("16x8") ? "16x8" : "8x4";
  const [inner4, outer4] = [Math.ceil(a.x.length / 4), Math.ceil(a.dy.length / 4)];
  const rows = 4 * inner4 + (bias ? 1 : 0);
  const block4 = rows * outer4;
  const maxBlocks = Math.floor(Math.min(a.partialBytes, a.maxBinding) / (block4 * 16));
  const invocations = weightGradientInvocations(tile, inner4, outer4, bias);
  const own = { out: a.gradient, stride4: a.columns / 4, first4: a.first / 4, block4: 0 };
  const steps: Step[] = [];
  let partialBytes = 0;
  for (const { x, dy } of pieces(a.x, a.dy, a.maxBinding)) {
    const blockRows = gradientBlockRows(x.count, invocations, tile, maxBlocks);
    const blocksAtOnce = Math.max(1, Math.min(maxBlocks, Math.ceil(x.count / blockRows)));
    for (let firstRow = 0; firstRow < x.count; firstRow += blocksAtOnce * blockRows) {
      const endRow = Math.min(firstRow + blocksAtOnce * blockRows, x.count);
      const blocks = Math.ceil((endRow - firstRow) / blockRows);
      const accumulate = a.accumulate || steps.length > 0;
      const common = { x, dy, firstRow, endRow, blockRows, bias, tile, maxWorkgroups };
      if (blocks === 1) {
        steps.push(planWeightGradient({ ...common, ...own, accumulate }));
        continue;
      }
      const partial: Slot = { buffer: a.partial, offset: 0, size: blocks * block4 * 16 };
      partialBytes = Math.max(partialBytes, partial.size);
      steps.push(
        planWeightGradient({ ...common, out: partial, stride4: outer4, first4: 0, block4, accumulate: false }),
        planMergeGradients({
          partial,
          gradient: a.gradient,
          blocks,
          rows,
          outer4,
          stride4: own.stride4,
          first4: own.first4,
          accumulate,
          maxWorkgroups,
        }),
      );
    }
  }
  return { steps, partialBytes };
}

/** Both rows cut, where they must be, into pieces that bindings hold. */
function pieces(x: Rows, dy: Rows, maxBinding: number): { x: Rows; dy: Rows }[] {
  if (bindRows(x).slot.size <= maxBinding && bindRows(dy).slot.size <= maxBinding) return [{ x, dy }];
  const { count } = x;
  // A cut between spans, or anywhere inside the only one.
  const span = Math.max(...[x, dy].map((rows) => (rows.span !== undefined && rows.span < count ? rows.span : 1)));
  const cut = Math.ceil(Math.ceil(count / span) / 2) * span;
  if (cut >= count) throw new Error(`weightGradientSteps: ${count} rows in spans of ${span} do not fit in a binding of ${maxBinding} bytes`);
  return [
    ...pieces(sliceRows(x, 0, cut), sliceRows(dy, 0, cut), maxBinding),
    ...pieces(sliceRows(x, cut, count), sliceRows(dy, cut, count), maxBinding),
  ];
}

/** Local rows [start, end): whole spans from a span's beginning on, or a part of the only one. */
function sliceRows(rows: Rows, start: number, end: number): Rows {
  const { span, pitch = 0, first } = rows;
  const count = end - start;
  if (span === undefined || end <= span) {
    const { span: _span, pitch: _pitch, ...plain } = rows;
    return { ...plain, first: first + start, count };
  }
  if (start % span !== 0) throw new Error(`weightGradientSteps: spans of ${span} rows cannot be cut at row ${start}`);
  return { ...rows, first: first + (start / span) * pitch, count };
}
