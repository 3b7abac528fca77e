import source from "../../shaders/decay_moments.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { DECAY, defineKernel, workgroupsFor } from "./op.ts";

export const decayMoments = defineKernel({ name: "decay_moments", source, uses: [DECAY] });

/** Rows of moments that the memory of a batch row takes: a sum in two parts, and its weights. */
export const DECAY_ROWS = 3;

export interface DecayMomentsArguments {
  /** `[batchRows, slabTokens, 4·stride4]`: moments, then their decayed means. */
  readonly rows: Slot;
  /** `[3, 4·expand4]`, see {@link decayTable}. */
  readonly decay: Slot;
  /** `[firstBatchRow + batchRows, 3, 4·stride4]` */
  readonly running: Slot;
  readonly firstBatchRow?: number;
  readonly batchRows: number;
  readonly slabTokens: number;
  readonly stride4: number;
  readonly expand4: number;
  /** Goes on from what `running` holds. */
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Decayed means of a slab of tokens, in place; one dispatch. */
export function planDecayMoments(a: DecayMomentsArguments): Step {
  const { batchRows, slabTokens, stride4, expand4 } = a;
  const bytes = batchRows * slabTokens * stride4 * 16;
  const memory = batchRows * DECAY_ROWS * stride4 * 16;
  return {
    kernel: decayMoments,
    variant: {},
    uniforms: {
      first_batch_row: a.firstBatchRow ?? 0,
      batch_rows: batchRows,
      stride4,
      expand4,
      slab_tokens: slabTokens,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots: { decay: a.decay, running: a.running, rows: a.rows },
    workgroups: workgroupsFor(Math.ceil((batchRows * stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: bytes + expand4 * 16 + (a.accumulate ? memory : 0),
    bytesWritten: bytes + memory,
  };
}

/** What the kernels read of decay factors γ `[E]` in (0, 1]: γ, -ln γ and 1 / (1 - γ), each of `expand4` groups of 4, 1 where E is padded. */
export function decayTable(factors: ArrayLike<number>, expand4: number): Float32Array<ArrayBuffer> {
  const width = 4 * expand4;
  const table = new Float32Array(3 * width);
  for (let c = 0; c < width; c++) {
    const factor = Math.fround(c < factors.length ? (factors[c] ?? 1) : 1);
    table[c] = factor;
    table[width + c] = -Math.log(factor);
    table[2 * width + c] = factor === 1 ? 0 : 1 / (1 - factor);
  }
  return table;
}
