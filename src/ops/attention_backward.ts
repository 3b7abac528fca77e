import keysSource from "../../shaders/attention_backward_kv.wgsl?raw";
import queriesSource from "../../shaders/attention_backward_q.wgsl?raw";
import { type Kernel, type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { ATTENTION_SLOPES, ATTENTION_TILES, defineKernel, variantsOf, workgroupsFor } from "./op.ts";

const uses = [ATTENTION_TILES, ATTENTION_SLOPES];
const variants = variantsOf({ queryRows: [4], headColumns: [1, 2] });

export const attentionBackwardQ = defineKernel({ name: "attention_backward_q", source: queriesSource, uses, variants });
export const attentionBackwardKv = defineKernel({ name: "attention_backward_kv", source: keysSource, uses, variants });

const SIDES = WORKGROUP_SIZE / 8;
/** Queries, or keys, of a workgroup. */
const TILE = 4 * SIDES;

export interface AttentionBackwardArguments {
  /** `[batch rows, queries, H·d]`, as `attention` reads them. */
  readonly q: Slot;
  readonly kv: Slot;
  /** Of what attention gave, `[batch rows, queries, H·d]`. */
  readonly gradients: Slot;
  /** `[batch rows, queries, H, 3]`, of `attention_rows`. */
  readonly rows: Slot;
  readonly heads: number;
  readonly head4: number;
  readonly batchRows: number;
  /** Of a batch row in this slab, and the first one's position in it. */
  readonly queries: number;
  readonly firstQuery: number;
  readonly keys: number;
  readonly firstKey: number;
  readonly causal: boolean;
  /** Go on from what an earlier slab left. */
  readonly accumulate: boolean;
  /** Multiplies dq or dk in the end: 1 where another slab follows. */
  readonly scale: number;
  readonly maxWorkgroups: number;
}

/** Inner steps of an invocation for as many keys, or queries, as a tile of `attention` has. */
export function attentionBackwardTileSteps(head4: number): number {
  return 2 * (head4 + SIDES + 1);
}

/** Gradients of a slab of queries over a slab of keys, dq `[batch rows, queries, H·d]`; one dispatch. */
export function planAttentionBackwardQ(a: AttentionBackwardArguments & { readonly dq: Slot }): Step {
  return plan(attentionBackwardQ, a, a.queries, { dq: a.dq });
}

/** Gradients of a slab of keys and their values over a slab of queries, dkv `[batch rows, keys, 2·H·d]`; one dispatch. */
export function planAttentionBackwardKv(a: AttentionBackwardArguments & { readonly dkv: Slot }): Step {
  return plan(attentionBackwardKv, a, a.keys, { dkv: a.dkv });
}

function plan(kernel: Kernel, a: AttentionBackwardArguments, count: number, out: Readonly<Record<string, Slot>>): Step {
  const columns = a.head4 <= SIDES ? 1 : 2;
  const groups = Math.ceil(a.head4 / (columns * SIDES));
  const written = Object.values(out).reduce((sum, { size }) => sum + size, 0);
  return {
    kernel,
    variant: { queryRows: 4, headColumns: columns },
    uniforms: {
      heads: a.heads,
      head4: a.head4,
      column_groups: groups,
      batch_rows: a.batchRows,
      queries: a.queries,
      keys: a.keys,
      first_query: a.firstQuery,
      first_key: a.firstKey,
      causal: a.causal ? 1 : 0,
      accumulate: a.accumulate ? 1 : 0,
      scale: a.scale,
    },
    slots: { q: a.q, kv: a.kv, gradients: a.gradients, rows: a.rows, ...out },
    workgroups: workgroupsFor(Math.ceil(count / TILE) * groups * a.heads * a.batchRows, a.maxWorkgroups),
    bytesRead: a.q.size + a.kv.size + a.gradients.size + a.rows.size + (a.accumulate ? written : 0),
    bytesWritten: written,
  };
}
