import { planGate } from "../ops/gate.ts";
import { planLinear } from "../ops/linear.ts";
import { planMaskMoments } from "../ops/mask_moments.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { planMoments } from "../ops/moments.ts";
import { bindRows, EMPTY, type Rows } from "../ops/op.ts";
import { planPrefixMoments } from "../ops/prefix_moments.ts";
import { planScanMoments } from "../ops/scan_moments.ts";
import { planScanSegments } from "../ops/scan_segments.ts";
import { planSelect, SELECT_MAX_DIM } from "../ops/select.ts";
import {
  type Activation,
  type MomentSource,
  RANGE_LENGTHS,
  RANGE_PACKED,
  RANGE_REGULAR,
  SOURCE_PACKED,
  SOURCE_PREFIX,
  SOURCE_ROW,
  SOURCE_SEGMENT,
  type TokenBlocks,
} from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, GROUP, type Slot, type Step, TILE_ROWS } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";

/** A mask reduced to what decides the dispatches. */
export type MaskPlan =
  | { readonly kind: "none" | "padding" | "lengths" }
  /** `ahead` tokens of block-causal sight, inside one register tile; 1 is plain causal. */
  | { readonly kind: "causal"; readonly ahead: number }
  | { readonly kind: "blockCausal"; readonly block: number }
  | { readonly kind: "full"; readonly batch: number }
  | { readonly kind: "packed"; readonly cuSeqlens: Uint32Array };

export interface HomPlanConfig {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly activation: Activation;
  readonly scratchBudget: number;
}

export interface HomCall {
  readonly batch: number;
  readonly queryLength: number;
  readonly contextLength: number;
  readonly mask: MaskPlan;
  /** Byte offsets of the tensors in their buffers. */
  readonly query: number;
  readonly context: number;
  readonly out: number;
  /** Causal only: some queries see nothing. */
  readonly queryMask?: boolean | undefined;
  /** Added to the output where given. */
  readonly residual?: number | undefined;
}

export interface HomPlan {
  readonly steps: readonly Step[];
  readonly scratch: ReadonlyMap<string, number>;
  readonly flops: number;
}

/** vec4s of one order's channels, and of a row of moments. */
export function momentLayout(config: Pick<HomPlanConfig, "dim" | "order" | "orderExpand">): { expand4: number; stride4: number } {
  const expand4 = Math.ceil((config.orderExpand * config.dim) / 4);
  return { expand4, stride4: config.order * expand4 };
}

/**
 * Tokens of a block: the tuned number, halved until an invocation's inner steps stay under 30,000. lavapipe shares 65,535
 * loop iterations among all loops of an invocation and then silently stops.
 */
export function blockTokensFor(tuned: number, config: Pick<HomPlanConfig, "dim" | "order">): number {
  let tokens = tuned;
  while (tokens > TILE_ROWS && (tokens / TILE_ROWS) * config.order * Math.ceil(config.dim / 4) > MAX_INNER_STEPS) tokens /= 2;
  return tokens;
}
const MAX_INNER_STEPS = 30_000;

/** The smallest scratch budget with which every mask can be computed. */
export function minimumScratch(config: HomPlanConfig, tuning: Tuning): number {
  const { stride4 } = momentLayout(config);
  return 4 * blockTokensFor(tuning.prefixBlockTokens, config) * stride4 * 16;
}

/** The dispatches of one layer call. Pure: nothing here touches a GPU. */
export function planHom(config: HomPlanConfig, tuning: Tuning, limits: GpuLimits, call: HomCall): HomPlan {
  const planner = new HomPlanner(config, tuning, limits, call);
  planner.run();
  return { steps: planner.steps, scratch: planner.scratch, flops: flopsOf(config, call) };
}

/** Multiply-adds count 2; the masked forms do the same work as the plain one, a full mask adds its weighted sums. */
export function flopsOf(config: HomPlanConfig, call: Pick<HomCall, "batch" | "queryLength" | "contextLength" | "mask">): number {
  const { dim, order, orderExpand } = config;
  const { batch: B, queryLength: T, contextLength: N } = call;
  const M = order * orderExpand * dim;
  const context = 2 * B * N * dim * M + (B * N * M * (order - 1)) / order + B * N * M;
  return context + 4 * B * T * dim * M + (call.mask.kind === "full" ? 2 * B * T * N * M : 0);
}

interface Rectangle {
  readonly firstBatchRow: number;
  readonly batchRows: number;
  readonly firstQuery: number;
  readonly queries: number;
}

/** The part of a source that is the same for every slab of queries. */
interface Source {
  readonly source: MomentSource["source"];
  readonly moments: Slot;
  readonly table?: Slot | undefined;
  readonly firstSegment?: number;
  readonly segmentsPerRow?: number;
  readonly segmentLength?: number;
  readonly packedSegments?: number;
  readonly tableOffset?: number;
  readonly blocks?: number;
  readonly blockTokens?: number;
}

class HomPlanner {
  readonly steps: Step[] = [];
  readonly scratch = new Map<string, number>();
  readonly #config: HomPlanConfig;
  readonly #call: HomCall;
  readonly #maxWorkgroups: number;
  readonly #maxBinding: number;
  readonly #expand4: number;
  readonly #stride4: number;
  readonly #rowBytes: number;
  readonly #blockTokens: number;
  readonly #prefixBlockTokens: number;
  readonly #fused: boolean;
  readonly #projections: Slot;
  readonly #ag: Slot;

  constructor(config: HomPlanConfig, tuning: Tuning, limits: GpuLimits, call: HomCall) {
    this.#config = config;
    this.#call = call;
    this.#maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
    this.#maxBinding = limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    const { expand4, stride4 } = momentLayout(config);
    this.#expand4 = expand4;
    this.#stride4 = stride4;
    this.#rowBytes = stride4 * 16;
    this.#blockTokens = blockTokensFor(tuning.blockTokens, config);
    this.#prefixBlockTokens = blockTokensFor(tuning.prefixBlockTokens, config);
    const inner4 = Math.ceil(config.dim / 4);
    const fusedSteps = Math.ceil(stride4 / 16) * (inner4 + 64);
    this.#fused = config.dim <= Math.min(tuning.fusedSelectMaxDim, SELECT_MAX_DIM) && fusedSteps <= MAX_INNER_STEPS;
    this.#projections = { buffer: "projections", offset: 0, size: (4 * inner4 + 1) * 2 * this.#rowBytes };
    this.#ag = { buffer: "ag", offset: 0, size: (4 * stride4 + 1) * inner4 * 16 };
  }

  run(): void {
    const { mask } = this.#call;
    if (mask.kind === "causal") this.#causal(mask.ahead);
    else if (mask.kind === "blockCausal") this.#blockCausal(mask.block);
    else if (mask.kind === "full") this.#full(mask.batch);
    else if (mask.kind === "packed") this.#packed(mask.cuSeqlens);
    else this.#means(mask.kind);
  }

  /** Partial sums and moments may each take a quarter of the budget, rows of a slab half of it. */
  get #sumRows(): number {
    return Math.floor(this.#config.scratchBudget / 4 / this.#rowBytes);
  }

  get #slabRows(): number {
    return Math.floor(this.#config.scratchBudget / 2 / this.#rowBytes);
  }

  /** Tokens that one binding can hold. */
  get #bindTokens(): number {
    return Math.floor(this.#maxBinding / (this.#config.dim * 4));
  }

  #scratchSlot(role: string, bytes: number): Slot {
    this.scratch.set(role, Math.max(this.scratch.get(role) ?? 0, bytes));
    return { buffer: role, offset: 0, size: bytes };
  }

  #contextRows(first: number, count: number): Rows {
    const { dim } = this.#config;
    return { buffer: "context", byteOffset: this.#call.context, length: dim, stride: dim, first, count };
  }

  /** Unmasked, padding and lengths: one mean a batch row. */
  #means(kind: "none" | "padding" | "lengths"): void {
    const { batch, queryLength, contextLength } = this.#call;
    const blocks = Math.ceil(contextLength / this.#blockTokens);
    const fit = Math.min(batch, this.#sumRows, Math.floor(this.#sumRows / blocks), Math.floor(this.#bindTokens / contextLength));
    const chunk = Math.max(1, fit);
    for (let first = 0; first < batch; first += chunk) {
      const rows = Math.min(chunk, batch - first);
      const moments = this.#segmentSums({
        firstSegment: first,
        segments: rows,
        segmentsPerRow: 1,
        segmentLength: contextLength,
        kind,
        divisor: kind === "none" ? contextLength : { slot: { buffer: "divisors", offset: 0, size: batch * 4 } },
      });
      this.#queries(
        { firstBatchRow: first, batchRows: rows, firstQuery: 0, queries: queryLength },
        { source: SOURCE_SEGMENT, moments, firstSegment: first, segmentsPerRow: 1, segmentLength: Math.max(1, queryLength) },
      );
    }
  }

  /**
   * Sums (or means) of equally long segments of context tokens, in as many dispatches as scratch and bindings ask for. Slabs are cut at
   * whole groups of blocks, so that the order of additions, and with it every bit, does not depend on them.
   */
  #segmentSums(a: {
    firstSegment: number;
    segments: number;
    segmentsPerRow: number;
    segmentLength: number;
    kind: "none" | "padding" | "lengths";
    divisor?: number | { slot: Slot };
  }): Slot {
    const { batch, contextLength } = this.#call;
    const blockTokens = this.#blockTokens;
    const length = Math.min(a.segmentLength, contextLength);
    const blocksPerSegment = Math.ceil(length / blockTokens);
    let slab = Math.min(blocksPerSegment, Math.floor(this.#sumRows / a.segments));
    if (a.segments === 1) slab = Math.min(slab, Math.floor(this.#bindTokens / blockTokens));
    if (slab < blocksPerSegment && slab > GROUP) slab -= slab % GROUP;
    slab = Math.max(1, slab);
    const moments = this.#scratchSlot("moments", a.segments * this.#rowBytes);
    const rowOf = (segment: number) => Math.floor(segment / a.segmentsPerRow);
    const startOf = (segment: number) => rowOf(segment) * contextLength + (segment % a.segmentsPerRow) * a.segmentLength;
    const endOf = (segment: number) => Math.min(startOf(segment) + a.segmentLength, (rowOf(segment) + 1) * contextLength);
    const end = endOf(a.firstSegment + a.segments - 1);
    for (let block = 0; block < blocksPerSegment; block += slab) {
      const count = Math.min(slab, blocksPerSegment - block);
      // One segment is bound from its first token of the slab on; several are bound whole.
      const first = startOf(a.firstSegment) + (a.segments === 1 ? block * blockTokens : 0);
      const last = a.segments === 1 ? Math.min(first + count * blockTokens, end) : end;
      const x = this.#contextRows(first, last - first);
      const partial = this.#scratchSlot("partial", a.segments * count * this.#rowBytes);
      const blocks: TokenBlocks = {
        count: a.segments * count,
        uniforms: {
          blocks: a.segments * count,
          block_tokens: blockTokens,
          blocks_per_segment: count,
          first_block: block,
          first_segment: a.firstSegment,
          segments_per_row: a.segmentsPerRow,
          segment_length: a.segmentLength,
          row_tokens: contextLength,
          token_base: first,
          range_mode: a.kind === "lengths" ? RANGE_LENGTHS : RANGE_REGULAR,
          packed_segments: 0,
        },
        table: a.kind === "lengths" ? { buffer: "table", offset: 0, size: batch * 4 } : undefined,
      };
      const weights = bindRows({ buffer: "mask", byteOffset: 0, length: 1, stride: 1, first, count: last - first });
      this.#moments(x, partial, blocks, a.kind === "padding" ? { slot: weights.slot, first: weights.offset } : undefined);
      const isLast = block + count === blocksPerSegment;
      this.steps.push(
        planMergeMoments({
          partial,
          moments,
          segments: a.segments,
          firstSegment: a.firstSegment,
          stride4: this.#stride4,
          blocksPerSegment: count,
          accumulate: block > 0,
          divisor: isLast ? a.divisor : undefined,
          maxWorkgroups: this.#maxWorkgroups,
        }),
      );
    }
    return moments;
  }

  #moments(x: Rows, partial: Slot, blocks: TokenBlocks, weights?: { slot: Slot; first: number }): void {
    const { activation, order } = this.#config;
    this.steps.push(
      planMoments({
        x,
        w: this.#projections,
        partial,
        activation,
        order,
        expand4: this.#expand4,
        blocks,
        weights,
        maxWorkgroups: this.#maxWorkgroups,
      }),
    );
  }

  #blockCausal(block: number): void {
    const { batch, contextLength } = this.#call;
    const segments = Math.ceil(contextLength / block);
    const wholeRows = Math.min(batch, Math.floor(this.#sumRows / segments), Math.floor(this.#bindTokens / contextLength));
    const chunk = wholeRows >= 1 ? segments : Math.max(1, Math.min(this.#sumRows, Math.floor(this.#bindTokens / block)));
    const rowsAtOnce = Math.max(1, wholeRows);
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      for (let segment = 0; segment < segments; segment += chunk) {
        const count = Math.min(chunk, segments - segment);
        const firstSegment = row * segments + segment;
        const moments = this.#segmentSums({ firstSegment, segments: rows * count, segmentsPerRow: segments, segmentLength: block, kind: "none" });
        this.steps.push(
          planScanSegments({
            moments,
            running: this.#scratchSlot("running", rows * 2 * this.#rowBytes),
            batchRows: rows,
            stride4: this.#stride4,
            segments: count,
            firstSegment: segment,
            segmentLength: block,
            rowTokens: contextLength,
            accumulate: segment > 0,
            maxWorkgroups: this.#maxWorkgroups,
          }),
        );
        const firstQuery = segment * block;
        this.#queries(
          { firstBatchRow: row, batchRows: rows, firstQuery, queries: Math.min((segment + count) * block, contextLength) - firstQuery },
          { source: SOURCE_SEGMENT, moments, firstSegment, segmentsPerRow: segments, segmentLength: block },
        );
      }
    }
  }

  #packed(cu: Uint32Array): void {
    const segments = cu.length - 1;
    const starts = firstBlocks(cu, this.#blockTokens);
    const table: Slot = { buffer: "table", offset: 0, size: 2 * (segments + 1) * 4 };
    const divisor = { slot: { buffer: "divisors", offset: 0, size: segments * 4 } };
    const at = (array: Uint32Array, i: number) => array[i] ?? 0;
    const blocksUniforms = (count: number, firstBlock: number, tokenBase: number): TokenBlocks => ({
      count,
      uniforms: {
        blocks: count,
        block_tokens: this.#blockTokens,
        blocks_per_segment: 1,
        first_block: firstBlock,
        first_segment: 0,
        segments_per_row: 1,
        segment_length: 1,
        row_tokens: 0,
        token_base: tokenBase,
        range_mode: RANGE_PACKED,
        packed_segments: segments,
      },
      table,
    });
    for (let first = 0; first < segments; ) {
      let end = first + 1;
      const fits = (s: number) =>
        s - first <= this.#sumRows && at(starts, s) - at(starts, first) <= this.#sumRows && at(cu, s) - at(cu, first) <= this.#bindTokens;
      while (end < segments && fits(end + 1)) end++;
      const count = end - first;
      const moments = this.#scratchSlot("moments", count * this.#rowBytes);
      const firstBlock = at(starts, first);
      const blocks = at(starts, end) - firstBlock;
      const slab = fits(end) ? Math.max(1, blocks) : groupsWithin(Math.min(this.#sumRows, Math.floor(this.#bindTokens / this.#blockTokens)));
      for (let block = 0; block === 0 || block < blocks; block += slab) {
        const n = Math.min(slab, blocks - block);
        const tokenBase = at(cu, first) + block * this.#blockTokens;
        const tokens = (block + n === blocks ? at(cu, end) : tokenBase + n * this.#blockTokens) - tokenBase;
        const partial = this.#scratchSlot("partial", Math.max(1, n) * this.#rowBytes);
        if (n > 0) this.#moments(this.#contextRows(tokenBase, tokens), partial, blocksUniforms(n, firstBlock + block, tokenBase));
        this.steps.push(
          planMergeMoments({
            partial,
            moments,
            segments: count,
            firstSegment: first,
            stride4: this.#stride4,
            blocksPerSegment: n,
            ragged: count > 1 || n === 0 ? { table, offset: segments + 1 + first, firstBlock } : undefined,
            accumulate: block > 0,
            divisor: block + n === blocks ? divisor : undefined,
            maxWorkgroups: this.#maxWorkgroups,
          }),
        );
      }
      const queries = at(cu, end) - at(cu, first);
      if (queries > 0) {
        this.#queries(
          { firstBatchRow: 0, batchRows: 1, firstQuery: at(cu, first), queries },
          { source: SOURCE_PACKED, moments, table, firstSegment: first, packedSegments: segments },
        );
      }
      first = end;
    }
  }

  #causal(ahead: number): void {
    const { batch, contextLength } = this.#call;
    const { activation, order } = this.#config;
    const blockTokens = this.#prefixBlockTokens;
    const queryMask: Slot | undefined = this.#call.queryMask ? { buffer: "table", offset: 0, size: batch * contextLength * 4 } : undefined;
    const capacity = Math.min(this.#slabRows, this.#bindTokens);
    const wholeRows = Math.min(batch, Math.floor(capacity / contextLength));
    const rowsAtOnce = Math.max(1, wholeRows);
    const slab = wholeRows >= 1 ? contextLength : wholeMultiple(capacity, blockTokens);
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      for (let token = 0; token < contextLength; token += slab) {
        const tokens = Math.min(slab, contextLength - token);
        const blocks = Math.ceil(tokens / blockTokens);
        const first = row * contextLength + token;
        const slabRows = this.#scratchSlot("rows", rows * tokens * this.#rowBytes);
        const carry = this.#scratchSlot("carry", rows * blocks * this.#rowBytes);
        this.steps.push(
          planPrefixMoments({
            x: this.#contextRows(first, (rows - 1) * contextLength + tokens),
            w: this.#projections,
            rows: slabRows,
            activation,
            order,
            expand4: this.#expand4,
            blocks: {
              count: rows * blocks,
              uniforms: {
                blocks: rows * blocks,
                block_tokens: blockTokens,
                blocks_per_segment: blocks,
                first_block: token / blockTokens,
                first_segment: row,
                segments_per_row: 1,
                segment_length: contextLength,
                row_tokens: contextLength,
                token_base: first,
                range_mode: RANGE_REGULAR,
                packed_segments: 0,
              },
            },
            slabTokens: tokens,
            running: true,
            ahead,
            maxWorkgroups: this.#maxWorkgroups,
          }),
          planScanMoments({
            rows: slabRows,
            running: this.#scratchSlot("running", rows * 2 * this.#rowBytes),
            carry,
            batchRows: rows,
            stride4: this.#stride4,
            blocks,
            blockTokens,
            slabTokens: tokens,
            firstBlock: token / blockTokens,
            accumulate: token > 0,
            maxWorkgroups: this.#maxWorkgroups,
          }),
        );
        this.#slab(
          { firstBatchRow: row, batchRows: rows, firstQuery: token, queries: tokens },
          { source: SOURCE_PREFIX, moments: carry, table: queryMask, blocks, blockTokens, segmentLength: ahead },
          slabRows,
        );
      }
    }
  }

  #full(maskBatch: number): void {
    const { batch, queryLength, contextLength } = this.#call;
    const { activation, order } = this.#config;
    const blockTokens = this.#prefixBlockTokens;
    const maxQueries = Math.max(1, Math.min(this.#slabRows, Math.floor(this.#maxBinding / (contextLength * 4))));
    const maxTokens = wholeMultiple(Math.min(this.#sumRows, this.#bindTokens, MAX_INNER_STEPS * 4), blockTokens);
    for (let row = 0; row < batch; row++) {
      const maskRow = (maskBatch === 1 ? 0 : row) * queryLength;
      for (let query = 0; query < queryLength; query += maxQueries) {
        const queries = Math.min(maxQueries, queryLength - query);
        const rows = this.#scratchSlot("rows", queries * this.#rowBytes);
        for (let token = 0; token < contextLength; token += maxTokens) {
          const tokens = Math.min(maxTokens, contextLength - token);
          const blocks = Math.ceil(tokens / blockTokens);
          const first = row * contextLength + token;
          const slab = this.#scratchSlot("tokens", Math.ceil(tokens / 4) * 4 * this.#rowBytes);
          this.steps.push(
            planPrefixMoments({
              x: this.#contextRows(first, tokens),
              w: this.#projections,
              rows: slab,
              activation,
              order,
              expand4: this.#expand4,
              blocks: {
                count: blocks,
                uniforms: {
                  blocks,
                  block_tokens: blockTokens,
                  blocks_per_segment: blocks,
                  first_block: token / blockTokens,
                  first_segment: row,
                  segments_per_row: 1,
                  segment_length: contextLength,
                  row_tokens: contextLength,
                  token_base: first,
                  range_mode: RANGE_REGULAR,
                  packed_segments: 0,
                },
              },
              slabTokens: tokens,
              running: false,
              ahead: 1,
              maxWorkgroups: this.#maxWorkgroups,
            }),
            planMaskMoments({
              mask: { buffer: "mask", byteOffset: token * 4, length: tokens, stride: contextLength, first: maskRow + query, count: queries },
              tokens: slab,
              rows,
              stride4: this.#stride4,
              accumulate: token > 0,
              maxWorkgroups: this.#maxWorkgroups,
            }),
          );
        }
        this.#slab(
          { firstBatchRow: row, batchRows: 1, firstQuery: query, queries },
          {
            source: SOURCE_ROW,
            moments: EMPTY,
            table: { buffer: "table", offset: 0, size: maskBatch * queryLength * 4 },
            tableOffset: maskRow + query,
          },
          rows,
        );
      }
    }
  }

  /** Queries whose moments are means of segments: as many slabs as scratch and bindings ask for. */
  #queries(all: Rectangle, source: Source): void {
    const capacity = this.#fused ? this.#bindTokens : Math.min(this.#slabRows, this.#bindTokens);
    const rowsAtOnce = Math.max(1, Math.min(all.batchRows, Math.floor(capacity / this.#call.queryLength)));
    const queriesAtOnce = rowsAtOnce === 1 ? Math.min(all.queries, capacity) : all.queries;
    for (let row = 0; row < all.batchRows; row += rowsAtOnce) {
      for (let query = 0; query < all.queries; query += queriesAtOnce) {
        const rectangle = {
          firstBatchRow: all.firstBatchRow + row,
          batchRows: Math.min(rowsAtOnce, all.batchRows - row),
          firstQuery: all.firstQuery + query,
          queries: Math.min(queriesAtOnce, all.queries - query),
        };
        const rows = this.#fused ? undefined : this.#scratchSlot("rows", rectangle.batchRows * rectangle.queries * this.#rowBytes);
        this.#slab(rectangle, source, rows);
      }
    }
  }

  /** Selection and output of one slab of queries. */
  #slab(r: Rectangle, source: Source, rows: Slot | undefined): void {
    const { dim } = this.#config;
    const { queryLength, query, out, residual } = this.#call;
    const view = {
      length: dim,
      stride: dim,
      first: r.firstBatchRow * queryLength + r.firstQuery,
      count: r.batchRows * r.queries,
      span: r.queries,
      pitch: queryLength,
    };
    const x: Rows = { buffer: "query", byteOffset: query, ...view };
    const y: Rows = { buffer: "out", byteOffset: out, ...view };
    const plus: Rows | undefined = residual === undefined ? undefined : { buffer: "residual", byteOffset: residual, ...view };
    const from: MomentSource = {
      source: source.source,
      moments: source.moments,
      table: source.table,
      uniforms: {
        first_batch_row: r.firstBatchRow,
        first_query: r.firstQuery,
        query_length: queryLength,
        slab_queries: r.queries,
        slab_blocks: source.blocks ?? 1,
        block_tokens: source.blockTokens ?? 1,
        first_segment: source.firstSegment ?? 0,
        segments_per_row: source.segmentsPerRow ?? 1,
        segment_length: source.segmentLength ?? 1,
        packed_segments: source.packedSegments ?? 0,
        table_offset: source.tableOffset ?? 0,
        has_query_mask: source.source === SOURCE_PREFIX && source.table ? 1 : 0,
      },
    };
    const common = { stride4: this.#stride4, maxWorkgroups: this.#maxWorkgroups };
    if (this.#fused || !rows) {
      this.steps.push(planSelect({ ...common, x, w: this.#projections, wOut: this.#ag, y, residual: plus, rows, from }));
      return;
    }
    const length = this.#stride4 * 4;
    const gated: Rows = { buffer: rows.buffer, byteOffset: 0, length, stride: length, first: 0, count: view.count };
    this.steps.push(
      planGate({ ...common, x, w: this.#projections, rows, from }),
      planLinear({ x: gated, w: this.#ag, y, residual: plus, maxWorkgroups: this.#maxWorkgroups }),
    );
  }
}

/** The number of each packed segment's first block; the last entry is the number of blocks. */
export function firstBlocks(cuSeqlens: Uint32Array, blockTokens: number): Uint32Array<ArrayBuffer> {
  const starts = new Uint32Array(cuSeqlens.length);
  for (let s = 1; s < cuSeqlens.length; s++) {
    const length = (cuSeqlens[s] ?? 0) - (cuSeqlens[s - 1] ?? 0);
    starts[s] = (starts[s - 1] ?? 0) + Math.ceil(length / blockTokens);
  }
  return starts;
}

/** The largest number of blocks that is whole groups, where there is room for one. */
function groupsWithin(blocks: number): number {
  return Math.max(1, blocks > GROUP ? blocks - (blocks % GROUP) : blocks);
}

/** The largest number of tokens that is whole groups of blocks, or at least whole blocks. */
function wholeMultiple(tokens: number, blockTokens: number): number {
  const unit = tokens >= GROUP * blockTokens ? GROUP * blockTokens : blockTokens;
  return Math.max(blockTokens, tokens - (tokens % unit));
}
