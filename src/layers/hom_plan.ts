import { FULL, leftOut } from "../checks.ts";
import { DECAY_ROWS } from "../ops/decay_moments.ts";
import { planMaskMoments } from "../ops/mask_moments.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { EMPTY } from "../ops/op.ts";
import { planScanMoments } from "../ops/scan_moments.ts";
import { planScanSegments } from "../ops/scan_segments.ts";
import { SOURCE_MEAN, SOURCE_PACKED, SOURCE_PREFIX, SOURCE_ROW, SOURCE_SEGMENT } from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { GROUP, type Slot, type Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type BlockSums, blockTokensFor, MAX_INNER_STEPS, momentLayout, type PlanConfig, type PlannedCall, Planner } from "./planner.ts";
import { pomFlops } from "./pom_plan.ts";

/** A mask reduced to what decides the dispatches. */
export type MaskPlan =
  | { readonly kind: "none" | "padding" | "lengths" }
  /** `ahead` tokens of block-causal sight, inside one register tile; 1 is plain causal. */
  | { readonly kind: "causal"; readonly ahead: number }
  | { readonly kind: "blockCausal"; readonly block: number }
  | { readonly kind: "full"; readonly batch: number }
  | { readonly kind: "packed"; readonly cuSeqlens: Uint32Array };

export interface HomCall extends PlannedCall {
  readonly mask: MaskPlan;
  /** Causal only: some queries see nothing. */
  readonly queryMask?: boolean | undefined;
}

export interface HomPlan {
  readonly steps: readonly Step[];
  readonly scratch: ReadonlyMap<string, number>;
  readonly flops: number;
}

/** The smallest scratch budget with which every mask can be computed. */
export function minimumScratch(config: PlanConfig, tuning: Tuning): number {
  const { stride4 } = momentLayout(config);
  const gates = config.pom?.gates?.layout.stride ?? 0;
  return 4 * blockTokensFor(tuning.prefixBlockTokens, config) * (stride4 * 16 + gates * 4);
}

/** The dispatches of one layer call. Pure: nothing here touches a GPU. */
export function planHom(config: PlanConfig, tuning: Tuning, limits: GpuLimits, call: HomCall): HomPlan {
  const planner = new Planner(config, tuning, limits, call);
  const { mask } = call;
  if (FULL && config.decay) {
    if (mask.kind !== "causal" || mask.ahead !== 1 || call.queryMask) throw new Error(`planHom: decayed means are causal, got mask ${mask.kind}`);
    decayed(planner);
  } else if (mask.kind === "causal") causal(planner, mask.ahead, call.queryMask ?? false);
  else if (mask.kind === "none") means(planner, mask.kind);
  else if (!FULL) throw leftOut("planHom");
  else if (mask.kind === "blockCausal") blockCausal(planner, mask.block);
  else if (mask.kind === "full") fullMask(planner, mask.batch);
  else if (mask.kind === "packed") packed(planner, mask.cuSeqlens);
  else means(planner, mask.kind);
  return { steps: planner.steps, scratch: planner.scratch, flops: flopsOf(config, call) };
}

/** Multiply-adds count 2; the masked forms do the same work as the plain one, a full mask adds its weighted sums. */
export function flopsOf(config: PlanConfig, call: Pick<HomCall, "batch" | "queryLength" | "contextLength" | "mask">): number {
  const { dim, order, orderExpand } = config;
  const { batch: B, queryLength: T, contextLength: N } = call;
  if (FULL && config.pom) return pomFlops({ ...config, pom: config.pom }, call, call.mask.kind === "full");
  const M = order * orderExpand * dim;
  const context = 2 * B * N * dim * M + (B * N * M * (order - 1)) / order + B * N * M;
  return context + 4 * B * T * dim * M + (call.mask.kind === "full" ? 2 * B * T * N * M : 0);
}

/** Adds block sums to `moments`; the last part divides. */
export function merger(p: Planner, moments: Slot, divisor?: number | { slot: Slot }): (sums: BlockSums) => void {
  return ({ first, last, ...sums }) => {
    const step = { ...sums, moments, stride4: p.stride4, accumulate: !first, divisor: last ? divisor : undefined, maxWorkgroups: p.maxWorkgroups };
    p.steps.push(planMergeMoments(step));
  };
}

/** Unmasked, padding and lengths: one mean a batch row. */
function means(p: Planner, kind: "none" | "padding" | "lengths"): void {
  const { batch, queryLength, contextLength } = p.call;
  const blocks = Math.ceil(contextLength / p.blockTokens);
  const chunk = Math.max(1, Math.min(batch, Math.floor(p.sumRows / blocks), Math.floor(p.bindTokens / contextLength)));
  const divisor = kind === "none" ? contextLength : { slot: { buffer: "divisors", offset: 0, size: batch * 4 } };
  for (let row = 0; row < batch; row += chunk) {
    const rows = Math.min(chunk, batch - row);
    const moments = p.scratchSlot("moments", rows * p.rowBytes);
    p.segmentSums({ firstSegment: row, segments: rows, segmentsPerRow: 1, segmentLength: contextLength, kind }, merger(p, moments, divisor));
    p.queries(
      { firstBatchRow: row, batchRows: rows, firstQuery: 0, queries: queryLength },
      { source: SOURCE_SEGMENT, moments, firstSegment: row, segmentsPerRow: 1, segmentLength: queryLength },
    );
  }
}

/** Sums of the mask's blocks, scanned to means of all tokens up to the end of each. */
function blockCausal(p: Planner, block: number): void {
  const { batch, contextLength } = p.call;
  const segments = Math.ceil(contextLength / block);
  // Room for whole groups of each segment's blocks, so that the order of additions does not depend on how many segments there are at once.
  const group = Math.min(GROUP, Math.ceil(Math.min(block, contextLength) / p.blockTokens));
  const half = Math.floor(p.sumRows / 2);
  const most = Math.min(half, Math.floor(p.sumRows / group));
  const wholeRows = Math.min(batch, Math.floor(most / segments), Math.floor(half / 2), Math.floor(p.bindTokens / contextLength));
  const chunk = wholeRows >= 1 ? segments : Math.max(1, Math.min(most, Math.floor(p.bindTokens / block)));
  const rowsAtOnce = Math.max(1, wholeRows);
  for (let row = 0; row < batch; row += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, batch - row);
    for (let segment = 0; segment < segments; segment += chunk) {
      const count = Math.min(chunk, segments - segment);
      const firstSegment = row * segments + segment;
      const moments = p.scratchSlot("moments", rows * count * p.rowBytes);
      const stretch = { firstSegment, segments: rows * count, segmentsPerRow: segments, segmentLength: block, kind: "none" } as const;
      p.segmentSums(stretch, merger(p, moments));
      p.steps.push(
        planScanSegments({
          moments,
          running: p.scratchSlot("running", rows * 2 * p.rowBytes),
          batchRows: rows,
          stride4: p.stride4,
          segments: count,
          firstSegment: segment,
          segmentLength: block,
          rowTokens: contextLength,
          accumulate: segment > 0,
          maxWorkgroups: p.maxWorkgroups,
        }),
      );
      const firstQuery = segment * block;
      p.queries(
        { firstBatchRow: row, batchRows: rows, firstQuery, queries: Math.min((segment + count) * block, contextLength) - firstQuery },
        { source: SOURCE_SEGMENT, moments, firstSegment, segmentsPerRow: segments, segmentLength: block },
      );
    }
  }
}

function packed(p: Planner, cu: Uint32Array): void {
  const segments = cu.length - 1;
  const table: Slot = { buffer: "table", offset: 0, size: 2 * (segments + 1) * 4 };
  const divisor = { slot: { buffer: "divisors", offset: 0, size: segments * 4 } };
  const momentsOf = (count: number) => p.scratchSlot("moments", count * p.rowBytes);
  p.packedSums(
    cu,
    (sums) => merger(p, momentsOf(sums.segments), divisor)(sums),
    (first, end) => {
      const firstQuery = cu[first] ?? 0;
      const queries = (cu[end] ?? 0) - firstQuery;
      if (queries === 0) return;
      p.queries(
        { firstBatchRow: 0, batchRows: 1, firstQuery, queries },
        { source: SOURCE_PACKED, moments: momentsOf(end - first), table, firstSegment: first, packedSegments: segments },
      );
    },
  );
}

function causal(p: Planner, ahead: number, queryMask: boolean): void {
  const { batch, contextLength } = p.call;
  const table: Slot | undefined = queryMask ? { buffer: "table", offset: 0, size: batch * contextLength * 4 } : undefined;
  causalSlabs(p, { ahead, table, prefixTable: queryMask ? "mask" : "none" });
}

/** Slabs of moments, each turned into means in which earlier tokens have faded; `memory` of all batch rows is gone on from. */
export function decayed(p: Planner, memory?: Slot): void {
  const { batch, contextLength } = p.call;
  const wholeRows = Math.min(batch, Math.floor(p.slabRows / contextLength), Math.floor(p.sumRows / DECAY_ROWS));
  const rowsAtOnce = contextLength <= MAX_INNER_STEPS ? Math.max(1, wholeRows) : 1;
  const slab = Math.min(wholeRows >= 1 ? contextLength : p.wholeSlab(Math.min(p.slabRows, p.bindTokens)), MAX_INNER_STEPS);
  for (let row = 0; row < batch; row += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, batch - row);
    const running = memory ?? p.scratchSlot("running", rows * DECAY_ROWS * p.rowBytes);
    for (let token = 0; token < contextLength; token += slab) {
      const tokens = Math.min(slab, contextLength - token);
      const all = memory !== undefined;
      const means = p.decayedSlab({ row, rows, token, tokens, running, all, accumulate: all || token > 0 });
      p.slab({ firstBatchRow: row, batchRows: rows, firstQuery: token, queries: tokens }, { source: SOURCE_MEAN, moments: EMPTY }, means);
    }
  }
}

/** How a causal walk reads its counts, and what a state adds to it. */
export interface CausalOptions {
  readonly ahead: number;
  readonly table?: Slot | undefined;
  readonly prefixTable: "none" | "mask" | "counts";
  readonly tableOffset?: number;
  /** Sums of all batch rows before this call. */
  readonly initial?: Slot | undefined;
  /** Called after the last slab of some batch rows, with their sums [rows, 2, k·E]. */
  readonly done?: (row: number, rows: number, running: Slot) => void;
}

/** Slabs of running sums: what came before a block is added where a row is read. */
export function causalSlabs(p: Planner, options: CausalOptions): void {
  const { ahead, table, prefixTable, tableOffset = 0, initial } = options;
  const { batch, contextLength } = p.call;
  const blockTokens = p.prefixBlockTokens;
  const capacity = Math.min(p.slabRows, p.bindTokens, MAX_INNER_STEPS * blockTokens);
  // The running sums take two rows a batch row, out of the same quarter of the budget as sums elsewhere.
  const wholeRows = Math.min(batch, Math.floor(capacity / contextLength), Math.floor(p.sumRows / 2));
  const rowsAtOnce = Math.max(1, wholeRows);
  const slab = wholeRows >= 1 ? contextLength : p.wholeSlab(capacity);
  for (let row = 0; row < batch; row += rowsAtOnce) {
    const batchRows = Math.min(rowsAtOnce, batch - row);
    const running = p.scratchSlot("running", batchRows * 2 * p.rowBytes);
    for (let token = 0; token < contextLength; token += slab) {
      const tokens = Math.min(slab, contextLength - token);
      const blocks = Math.ceil(tokens / blockTokens);
      const rows = p.prefixSlab({ role: "rows", row, rows: batchRows, token, tokens, running: true, ahead });
      const carry = p.scratchSlot("carry", batchRows * blocks * p.rowBytes);
      p.steps.push(
        planScanMoments({
          rows,
          running,
          initial,
          carry,
          firstBatchRow: row,
          batchRows,
          stride4: p.stride4,
          blocks,
          blockTokens,
          slabTokens: tokens,
          firstBlock: token / blockTokens,
          accumulate: token > 0,
          maxWorkgroups: p.maxWorkgroups,
        }),
      );
      p.slab(
        { firstBatchRow: row, batchRows, firstQuery: token, queries: tokens },
        { source: SOURCE_PREFIX, moments: carry, table, prefixTable, tableOffset, blocks, blockTokens, segmentLength: ahead },
        rows,
      );
    }
    options.done?.(row, batchRows, running);
  }
}

/** Slabs of plain moments, summed with the mask's weights into slabs of query rows. */
function fullMask(p: Planner, maskBatch: number): void {
  const { batch, queryLength, contextLength } = p.call;
  const maxQueries = Math.max(1, Math.min(p.slabRows, Math.floor(p.maxBinding / (contextLength * 4))));
  const maxTokens = p.wholeSlab(Math.min(p.sumRows, p.bindTokens, MAX_INNER_STEPS * 4));
  for (let row = 0; row < batch; row++) {
    const maskRow = (maskBatch === 1 ? 0 : row) * queryLength;
    for (let query = 0; query < queryLength; query += maxQueries) {
      const queries = Math.min(maxQueries, queryLength - query);
      const rows = p.scratchSlot("rows", queries * p.rowBytes);
      for (let token = 0; token < contextLength; token += maxTokens) {
        const length = Math.min(maxTokens, contextLength - token);
        const tokens = p.prefixSlab({ role: "tokens", row, rows: 1, token, tokens: length, running: false, filled: true, ahead: 1 });
        p.steps.push(
          planMaskMoments({
            mask: { buffer: "mask", byteOffset: token * 4, length, stride: contextLength, first: maskRow + query, count: queries },
            tokens,
            rows,
            stride4: p.stride4,
            accumulate: token > 0,
            tile: p.tile,
            maxWorkgroups: p.maxWorkgroups,
          }),
        );
      }
      const table: Slot = { buffer: "table", offset: 0, size: maskBatch * queryLength * 4 };
      p.slab(
        { firstBatchRow: row, batchRows: 1, firstQuery: query, queries },
        { source: SOURCE_ROW, moments: EMPTY, table, tableOffset: maskRow + query },
        rows,
      );
    }
  }
}
