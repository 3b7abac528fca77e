import source from "../../shaders/attention.wgsl?raw";
import quadsSource from "../../shaders/attention_quads.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { ATTENTION_TILES, defineKernel, variantsOf, workgroupsFor } from "./op.ts";

/** 8 queries by 4 columns would be 128 sums in registers: lavapipe compiles that for more than half a minute. */
const VARIANTS = variantsOf({ queryRows: [4], headColumns: [1, 2, 4] }, { queryRows: [8], headColumns: [1, 2] });

export const attention = defineKernel({ name: "attention", source, uses: [ATTENTION_TILES], variants: VARIANTS });

/** Its tile says no more than that it needs subgroups, as that of the products does. */
export const attentionQuads = defineKernel({
  name: "attention_quads",
  source: quadsSource,
  uses: [ATTENTION_TILES],
  variants: variantsOf({ queryRows: [8], headColumns: [1, 2, 4], tile: ["16x8_quads"] }),
});

/** Queries of a quad, keys that it scores at once, its lanes, and the vec4s of a head that they hold. */
const QUADS = { queries: 8, keys: 16, sides: 4, head4: 16 };

/** Lanes side by side over the keys of a tile, and over the columns of an output. */
const SIDES = WORKGROUP_SIZE / 8;
/** Tiles of queries and keys are no longer than this: slabs are cut at multiples of it. */
export const ATTENTION_TILE = 8 * SIDES;

export interface AttentionKernelArguments {
  readonly q: Slot;
  readonly kv: Slot;
  readonly stats: Slot;
  readonly y: Slot;
  readonly heads: number;
  /** vec4s of a head's channels. */
  readonly head4: number;
  readonly batchRows: number;
  /** Of a batch row in this slab, and the first one's position in it. */
  readonly queries: number;
  readonly firstQuery: number;
  readonly keys: number;
  readonly firstKey: number;
  readonly causal: boolean;
  /** Go on from what an earlier slab of keys left in stats and y. */
  readonly accumulate: boolean;
  /** Divide by the sum. */
  readonly last: boolean;
  /** Queries of a lane; 4 for heads of more than 64 channels. Quads have 8, for heads of up to 64 channels; others take 4 without them. */
  readonly queryRows: 4 | 8 | "quads";
  readonly maxWorkgroups: number;
}

/** Columns of 4 outputs of a lane, of `sides` lanes side by side, and how many groups of lanes it takes to cover a head. */
function headColumns(head4: number, sides = SIDES): { headColumns: 1 | 2 | 4; groups: number } {
  const columns = head4 <= sides ? 1 : head4 <= 2 * sides ? 2 : 4;
  return { headColumns: columns, groups: Math.ceil(head4 / (columns * sides)) };
}

/** Whether quads take heads of this width, where they may. */
function takesQuads(queryRows: AttentionKernelArguments["queryRows"], head4: number): boolean {
  return queryRows === "quads" && head4 <= QUADS.head4;
}

/** Groups of columns that keep a largest score and a sum each, all the same. */
export function attentionColumnGroups(head4: number): number {
  return headColumns(head4).groups;
}

/** Bytes of stats for a query. */
export function attentionStatsBytes(heads: number, head4: number): number {
  return heads * attentionColumnGroups(head4) * 8;
}

/** Inner steps of an invocation for every ATTENTION_TILE keys. */
export function attentionTileSteps(head4: number, queryRows: AttentionKernelArguments["queryRows"]): number {
  return takesQuads(queryRows, head4) ? (ATTENTION_TILE / QUADS.keys) * (head4 + 5) : head4 + 4 * SIDES;
}

/** Softmax attention of a slab of queries over a slab of keys; one dispatch. */
export function planAttentionKernel(a: AttentionKernelArguments): Step {
  const { headColumns: columns, groups } = headColumns(a.head4);
  const quads = takesQuads(a.queryRows, a.head4);
  const queryRows = columns < 4 && a.queryRows === 8 ? 8 : 4;
  const workgroups = quads
    ? Math.ceil((Math.ceil(a.queries / QUADS.queries) * a.heads * a.batchRows * 4) / WORKGROUP_SIZE)
    : Math.ceil(a.queries / (8 * queryRows)) * groups * a.heads * a.batchRows;
  return {
    ...(quads
      ? { kernel: attentionQuads, variant: { queryRows: 8, headColumns: headColumns(a.head4, QUADS.sides).headColumns, tile: "16x8_quads" } }
      : { kernel: attention, variant: { queryRows, headColumns: columns } }),
    uniforms: {
      heads: a.heads,
      head4: a.head4,
      ...(!quads && { column_groups: groups }),
      batch_rows: a.batchRows,
      queries: a.queries,
      keys: a.keys,
      first_query: a.firstQuery,
      first_key: a.firstKey,
      causal: a.causal ? 1 : 0,
      accumulate: a.accumulate ? 1 : 0,
      last: a.last ? 1 : 0,
    },
    slots: { q: a.q, kv: a.kv, stats: a.stats, y: a.y },
    workgroups: workgroupsFor(workgroups, a.maxWorkgroups),
    bytesRead: a.q.size + a.kv.size + (a.accumulate ? a.stats.size + a.y.size : 0),
    bytesWritten: a.stats.size + a.y.size,
  };
}
