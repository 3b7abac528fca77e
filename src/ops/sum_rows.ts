import source from "../../shaders/sum_rows.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, workgroupsFor } from "./op.ts";

export const sumRows = defineKernel({ name: "sum_rows", source });

export interface SumRowsArguments {
  readonly x: Slot;
  /** Elements of x: where the first row begins, and from one sum and one of its rows to the next. */
  readonly at?: number;
  readonly outerStep: number;
  readonly rowStep: number;
  /** Sums, rows of each, and numbers of a row. */
  readonly outer: number;
  readonly count: number;
  readonly width: number;
  /** `[outer, width]` */
  readonly y: Slot;
  /** Scratch buffer for sums of blocks. */
  readonly partial: string;
  readonly maxWorkgroups: number;
}

/** Rows that an invocation adds up; of very many, their root. */
const BLOCK = 64;

/**
 * Sums of rows in two levels; two dispatches, or one where a block holds all.
 * @returns the dispatches, and the bytes that `partial` needs for them
 */
export function planSumRows(a: SumRowsArguments): { steps: Step[]; partialBytes: number } {
  const { outer, count, width } = a;
  const blockRows = Math.max(BLOCK, Math.ceil(Math.sqrt(count)));
  const blocks = Math.ceil(count / blockRows);
  const level = (x: Slot, y: Slot, at: number, outerStep: number, rowStep: number, rows: number, blockRows: number): Step => {
    const blocks = Math.ceil(rows / blockRows);
    const size = outer * blocks * width;
    return {
      kernel: sumRows,
      variant: {},
      uniforms: { width, count: rows, blocks, block_rows: blockRows, x_at: at, outer_step: outerStep, row_step: rowStep, size },
      slots: { x, y },
      workgroups: workgroupsFor(Math.ceil(size / WORKGROUP_SIZE), a.maxWorkgroups),
      bytesRead: outer * rows * width * 4,
      bytesWritten: size * 4,
    };
  };
  if (blocks === 1) return { steps: [level(a.x, a.y, a.at ?? 0, a.outerStep, a.rowStep, count, blockRows)], partialBytes: 0 };
  const partial: Slot = { buffer: a.partial, offset: 0, size: outer * blocks * width * 4 };
  const steps = [
    level(a.x, partial, a.at ?? 0, a.outerStep, a.rowStep, count, blockRows),
    level(partial, a.y, 0, blocks * width, width, blocks, blocks),
  ];
  return { steps, partialBytes: partial.size };
}
