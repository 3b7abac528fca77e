import source from "../../shaders/sum_gradients.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { defineKernel, EMPTY, SEARCH_TABLE, TOKEN_RANGE, workgroupsFor } from "./op.ts";
import type { TokenBlocks } from "./types.ts";

export const sumGradients = defineKernel({ name: "sum_gradients", source, uses: [TOKEN_RANGE, SEARCH_TABLE] });

export interface SumGradientsArguments {
  /** Gradients at column 0 of rows of `rowsStride4` vec4s. */
  readonly rows: Slot;
  readonly rowsStride4: number;
  readonly stride4: number;
  /** Blocks of query rows; their range is one of rows of the slab. */
  readonly blocks: TokenBlocks;
  readonly totals: Slot;
  /** Leave in each row what its block gives its token, under a causal mask in groups of `ahead` tokens. */
  readonly suffix?: { readonly ahead: number } | undefined;
  readonly maxWorkgroups: number;
}

/** Sums of query rows' gradients over blocks; one dispatch. */
export function planSumGradients(a: SumGradientsArguments): Step {
  const bytes = Math.floor((a.rows.size * a.stride4) / a.rowsStride4);
  return {
    kernel: sumGradients,
    variant: {},
    uniforms: {
      ...a.blocks.uniforms,
      stride4: a.stride4,
      rows_stride4: a.rowsStride4,
      suffix: a.suffix ? 1 : 0,
      ahead: a.suffix?.ahead ?? 1,
    },
    slots: { table: a.blocks.table ?? EMPTY, rows: a.rows, totals: a.totals },
    workgroups: workgroupsFor(Math.ceil((a.blocks.count * a.stride4) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: bytes,
    bytesWritten: a.totals.size + (a.suffix ? bytes : 0),
  };
}
