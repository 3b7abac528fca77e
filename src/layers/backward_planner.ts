import { planDecayBackward } from "../ops/decay_backward.ts";
import { DECAY_ROWS } from "../ops/decay_moments.ts";
import { planLinear } from "../ops/linear.ts";
import { planMaskMoments } from "../ops/mask_moments.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { bindRows, EMPTY, type Rows } from "../ops/op.ts";
import { planScanGradients } from "../ops/scan_gradients.ts";
import { planScanMoments } from "../ops/scan_moments.ts";
import { planScanSegments } from "../ops/scan_segments.ts";
import { planSumGradients } from "../ops/sum_gradients.ts";
import {
  type GradientSource,
  type MomentSource,
  RANGE_REGULAR,
  SOURCE_MEAN,
  SOURCE_PACKED,
  SOURCE_PREFIX,
  SOURCE_ROW,
  SOURCE_SEGMENT,
  type TokenBlocks,
} from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { GROUP, type Slot, type Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type HomPlan, type MaskPlan, merger } from "./hom_plan.ts";
import { firstBlocks, MAX_INNER_STEPS, type PlanConfig, Planner, type Source } from "./planner.ts";
import { weightGradientSteps } from "./weight_gradient.ts";

/**
 * Lengths, and where the tensors lie in their buffers, in bytes. All are f32 and without gaps.
 *
 * Buffers of the steps that are the caller's: query, context, gradOut, gradQuery, gradContext, residual, projections, projectionsBack, agBack, gradProjections,
 * gradAg, mask, table, divisors; the others are scratch. `gradProjections` and `gradAg` have the layout of the packed weights, projectionsBack and agBack
 * that of `transposedWeights`.
 */
export interface BackwardCall {
  readonly batch: number;
  readonly queryLength: number;
  readonly contextLength: number;
  readonly mask: MaskPlan;
  /** Causal only: some queries see nothing. */
  readonly queryMask?: boolean | undefined;
  readonly query: number;
  readonly context: number;
  readonly gradOut: number;
  readonly gradQuery: number;
  /** Undefined: the context is the query, and `gradQuery` gets the gradients of both. */
  readonly gradContext?: number | undefined;
  /** `[B, T, D]`, added to `gradQuery`; in a buffer of its own. */
  readonly residual?: number | undefined;
  /** Add to what the gradients of the weights hold. */
  readonly accumulate?: boolean | undefined;
  /** Without biases their gradients are left as they are. Default true. */
  readonly bias?: boolean | undefined;
}

/** Tokens or queries [start, start + length) of `rows` batch rows: whole ones, or a part of one. */
export interface Stretch {
  readonly row: number;
  readonly rows: number;
  readonly start: number;
  readonly length: number;
}

/**
 * Rows of gradients, one a token or query. The gradients of the sums that a query reads become those of a token's projection: they have the first
 * columns, those of the logits the last.
 */
export interface Gradients {
  readonly slot: Slot;
  readonly stride4: number;
  readonly logitsAt4: number;
}

/** Segments of equal length whose gradients are summed. */
interface SummedSegments {
  readonly firstSegment: number;
  readonly segments: number;
  readonly segmentsPerRow: number;
  readonly segmentLength: number;
}

/** Transposed weights: of the context's projection, or its groups, of the gates, and of the output. */
export interface TransposedWeights {
  readonly ho: Slot;
  readonly se: Slot;
  readonly ag: Slot;
}

/** A slab of queries on the way through their gates. */
export interface GatedSlab {
  readonly x: Rows;
  readonly from: MomentSource;
  readonly rows: Slot;
  readonly selection: boolean;
  readonly gradients: Slot;
  readonly gradientsStride4: number;
  readonly logitsAt4: number;
  readonly sumsAt4: number | undefined;
}

/** A slab of tokens on the way through their moments, the first of them token `first` of all batch rows. */
export interface TokenSlab {
  readonly first: number;
  readonly count: number;
  readonly from: GradientSource;
  readonly rows: Slot;
  readonly rowsStride4: number;
}

/**
 * Collects the dispatches. Half of the scratch budget holds a slab's rows, a quarter of the rest partial sums of weight gradients, and the rest sums of
 * moments and of their gradients. Where a slab holds all that depends on one another, everything is computed once; a causal row that is longer is walked
 * twice, forward for what depends on the moments before a token, and backward for what depends on the queries after it.
 */
export abstract class BackwardPlanner {
  /** Plans the sums of moments, with half of the budget. */
  protected readonly p: Planner;
  protected readonly call: BackwardCall;
  readonly #config: PlanConfig;
  readonly #self: boolean;
  /** Queries that an invocation adds up, where segments are not packed. */
  readonly #queryBlock: number;
  readonly #back: TransposedWeights;
  readonly #written = new Set<string>();

  constructor(config: PlanConfig, tuning: Tuning, limits: GpuLimits, call: BackwardCall, back: TransposedWeights) {
    this.#config = config;
    this.call = call;
    this.#self = call.gradContext === undefined;
    this.p = new Planner({ ...config, scratchBudget: config.scratchBudget / 2 }, tuning, limits, { ...call, out: 0, residual: undefined });
    this.#back = back;
    this.#queryBlock = 2 ** Math.floor(Math.log2(Math.min(this.p.blockTokens, this.#capacity(3))));
  }

  /** Gates computed anew, and what goes back through them. */
  protected abstract throughGates(slab: GatedSlab): Step[];

  /** Moments computed anew, and what goes back through them: the gradients of the projection's outputs, in place of those of the moments. */
  protected abstract throughMoments(slab: TokenSlab): Step[];

  /** Where gradients of the logits lie after `throughGates`. Default: at their columns of the gradients. */
  protected logits({ slot, stride4, logitsAt4 }: Gradients, count: number): Rows {
    return this.columns(slot, stride4, logitsAt4, count);
  }

  /** Adds to the gradients of the gates' weights. Default: the columns of the projections beside those of the moments. */
  protected gateGradient(x: Rows, dlogit: Rows, accumulate: boolean): void {
    this.#projectionGradient(x, dlogit, 4 * this.p.stride4, accumulate);
  }

  /** Groups of the context's projection: of x, of its gradient's columns, and their transposed weights. Default: one of everything. */
  protected groups(): readonly { readonly inputs: number; readonly columns: number; readonly back: Slot }[] {
    return [{ inputs: this.#config.dim, columns: 4 * this.p.stride4, back: this.#back.ho }];
  }

  /** Whether moments and gates are columns of one matrix, whose gradients are computed at once where they can be. */
  protected get sideBySide(): boolean {
    return true;
  }

  /** The dispatches of the call. */
  plan(): Pick<HomPlan, "steps" | "scratch"> {
    const { mask, queryMask = false } = this.call;
    if (this.#config.decay) this.#decayed();
    else if (mask.kind === "causal") this.#causal(mask.ahead, queryMask);
    else if (mask.kind === "blockCausal") this.#blockCausal(mask.block);
    else if (mask.kind === "full") this.#fullMask(mask.batch);
    else if (mask.kind === "packed") this.#packed(mask.cuSeqlens);
    else this.#means(mask.kind);
    return this.p;
  }

  // ---- masks ----

  /** Unmasked, padding and lengths: one mean a batch row. */
  #means(kind: "none" | "padding" | "lengths"): void {
    const { p } = this;
    const { batch, queryLength, contextLength } = this.call;
    const most = Math.min(
      Math.floor(p.sumRows / Math.ceil(contextLength / p.blockTokens)),
      Math.floor(p.sumRows / Math.ceil(queryLength / this.#queryBlock)),
      Math.floor(p.bindTokens / contextLength),
    );
    const chunk = Math.max(1, Math.min(batch, most, this.#wholeRows(queryLength, 3)));
    const divisor = kind === "none" ? contextLength : { slot: { buffer: "divisors", offset: 0, size: batch * 4 } };
    for (let row = 0; row < batch; row += chunk) {
      const rows = Math.min(chunk, batch - row);
      const moments = p.scratchSlot("moments", rows * p.rowBytes);
      const sums = p.scratchSlot("gradient_sums", rows * p.rowBytes);
      p.segmentSums({ firstSegment: row, segments: rows, segmentsPerRow: 1, segmentLength: contextLength, kind }, merger(p, moments, divisor));
      const from = { source: SOURCE_SEGMENT, sums, kind, firstSegment: row, segmentLength: contextLength } as const;
      this.#segments(
        { row, rows, start: 0, length: queryLength },
        { row, rows, start: 0, length: contextLength },
        { source: SOURCE_SEGMENT, moments, firstSegment: row, segmentsPerRow: 1, segmentLength: queryLength },
        (slab, gradients, first, last) => {
          const segments = { firstSegment: row, segments: rows, segmentsPerRow: 1, segmentLength: queryLength };
          this.#sumSegments(slab, segments, gradients, sums, first, last ? divisor : undefined);
        },
        from,
        this.#slab(3),
      );
    }
  }

  /** Sums of the mask's blocks, scanned forward to means, and the gradients of the means backward. */
  #blockCausal(block: number): void {
    const { p } = this;
    const { batch, contextLength } = this.call;
    const segments = Math.ceil(contextLength / block);
    const group = Math.min(GROUP, Math.ceil(Math.min(block, contextLength) / p.blockTokens));
    const half = Math.floor(p.sumRows / 2);
    const queryBlocks = Math.ceil(Math.min(block, contextLength) / this.#queryBlock);
    const most = Math.min(half, Math.floor(p.sumRows / group), Math.floor(p.sumRows / queryBlocks));
    const wholeRows = Math.min(
      batch,
      Math.floor(most / segments),
      Math.floor(half / 2),
      Math.floor(p.bindTokens / contextLength),
      this.#wholeRows(contextLength, 3),
    );
    const segmentsAtOnce = wholeRows >= 1 ? segments : Math.max(1, Math.min(most, Math.floor(this.#slab(2) / block)));
    const rowsAtOnce = Math.max(1, wholeRows);
    const divided = { length: block, rowTokens: contextLength };
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      const running = p.scratchSlot("running", rows * 2 * p.rowBytes);
      const chunks = Array.from({ length: Math.ceil(segments / segmentsAtOnce) }, (_, i) => {
        const segment = i * segmentsAtOnce;
        const count = Math.min(segmentsAtOnce, segments - segment);
        const start = segment * block;
        const stretch: Stretch = { row, rows, start, length: Math.min((segment + count) * block, contextLength) - start };
        const summed = { firstSegment: row * segments + segment, segments: rows * count, segmentsPerRow: segments, segmentLength: block };
        return { segment, count, stretch, summed };
      });
      const means = ({ segment, count, summed }: (typeof chunks)[number]): Source => {
        const moments = p.scratchSlot("moments", rows * count * p.rowBytes);
        p.segmentSums({ ...summed, kind: "none" }, merger(p, moments));
        const common = { moments, running, batchRows: rows, stride4: p.stride4, maxWorkgroups: p.maxWorkgroups };
        const of = { segments: count, firstSegment: segment, segmentLength: block, rowTokens: contextLength };
        p.steps.push(planScanSegments({ ...common, ...of, accumulate: segment > 0 }));
        return { source: SOURCE_SEGMENT, moments, firstSegment: summed.firstSegment, segmentsPerRow: segments, segmentLength: block };
      };
      const gradientSums = ({ count }: (typeof chunks)[number]) => p.scratchSlot("gradient_sums", rows * count * p.rowBytes);
      const scan = ({ segment, count }: (typeof chunks)[number], totals: Slot) => {
        const common = { totals, running, batchRows: rows, stride4: p.stride4, maxWorkgroups: p.maxWorkgroups };
        p.steps.push(planScanGradients({ ...common, blocks: count, firstBlock: segment, segments: divided, accumulate: segment + count < segments }));
      };
      const fromOf = (chunk: (typeof chunks)[number], sums: Slot) => ({ source: SOURCE_SEGMENT, sums, ...chunk.summed }) as const;
      const [only] = chunks;
      if (wholeRows >= 1 && only) {
        const source = means(only);
        const sums = gradientSums(only);
        this.#segments(
          only.stretch,
          only.stretch,
          source,
          (slab, gradients, first, last) => {
            this.#sumSegments(slab, only.summed, gradients, sums, first);
            if (last) scan(only, sums);
          },
          fromOf(only, sums),
          this.#capacity(3),
        );
        continue;
      }
      for (const chunk of chunks) {
        const source = means(chunk);
        for (const slab of cut(chunk.stretch, this.#slab(2), this.#queryBlock)) this.#selectionOnly(slab, source);
      }
      for (const chunk of chunks.reverse()) {
        const sums = gradientSums(chunk);
        const source: Source = { source: SOURCE_SEGMENT, moments: EMPTY, segmentsPerRow: segments, segmentLength: block };
        cut(chunk.stretch, this.#slab(2), this.#queryBlock).forEach((slab, i) => {
          this.#sumSegments(slab, chunk.summed, this.#sumsOnly(slab, source), sums, i === 0);
        });
        scan(chunk, sums);
        this.#tokens(chunk.stretch, fromOf(chunk, sums));
      }
    }
  }

  #packed(cu: Uint32Array): void {
    const { p } = this;
    const at = (array: Uint32Array, i: number) => array[i] ?? 0;
    const segments = cu.length - 1;
    const starts = firstBlocks(cu, p.blockTokens);
    const table: Slot = { buffer: "table", offset: 0, size: 2 * (segments + 1) * 4 };
    const divisor = { slot: { buffer: "divisors", offset: 0, size: segments * 4 } };
    const momentsOf = (count: number) => p.scratchSlot("moments", count * p.rowBytes);
    const slabRows = this.#slab(3);
    p.packedSums(
      cu,
      (sums) => merger(p, momentsOf(sums.segments), divisor)(sums),
      (firstOfChunk, endOfChunk) => {
        const moments = momentsOf(endOfChunk - firstOfChunk);
        const source: Source = { source: SOURCE_PACKED, moments, table, firstSegment: firstOfChunk, packedSegments: segments };
        for (let first = firstOfChunk; first < endOfChunk; ) {
          const fits = (end: number) => at(cu, end) - at(cu, first) <= slabRows && at(starts, end) - at(starts, first) <= p.sumRows;
          let end = first + 1;
          while (end < endOfChunk && fits(end + 1)) end++;
          const stretch: Stretch = { row: 0, rows: 1, start: at(cu, first), length: at(cu, end) - at(cu, first) };
          const count = end - first;
          const sums = p.scratchSlot("gradient_sums", count * p.rowBytes);
          const segment = first;
          const blocks = at(starts, end) - at(starts, first);
          const sum = (slab: Stretch, gradients: Gradients, isFirst: boolean, last: boolean) => {
            if (!fits(end)) {
              // One segment in several slabs is like a batch row that begins at its first token.
              this.#sumBlocks(slab.start - stretch.start, slab.length, gradients, sums, isFirst, segment, last ? divisor : undefined);
              return;
            }
            const partial = p.scratchSlot("partial", blocks * p.rowBytes);
            const range = { count: blocks, firstBlock: at(starts, segment), tokenBase: stretch.start };
            p.steps.push(
              planSumGradients({
                ...this.#gradientRows(gradients),
                blocks: p.tokenBlocks({
                  ...range,
                  blocksPerSegment: 1,
                  firstSegment: 0,
                  segmentsPerRow: 1,
                  segmentLength: 1,
                  table,
                  packedSegments: segments,
                }),
                totals: partial,
                maxWorkgroups: p.maxWorkgroups,
              }),
              planMergeMoments({
                partial,
                moments: sums,
                segments: count,
                firstSegment: segment,
                stride4: p.stride4,
                blocksPerSegment: blocks,
                ragged: { table, offset: segments + 1 + segment, firstBlock: at(starts, segment) },
                accumulate: false,
                divisor,
                maxWorkgroups: p.maxWorkgroups,
              }),
            );
          };
          const from = { source: SOURCE_PACKED, sums, table, firstSegment: first, packedSegments: segments } as const;
          if (stretch.length > 0) this.#segments(stretch, stretch, source, sum, from, slabRows);
          first = end;
        }
      },
    );
  }

  #causal(ahead: number, queryMask: boolean): void {
    const { p } = this;
    const { batch, contextLength } = this.call;
    const blockTokens = p.prefixBlockTokens;
    const table: Slot | undefined = queryMask ? { buffer: "table", offset: 0, size: batch * contextLength * 4 } : undefined;
    // Of the sums that a batch row takes, the running ones are two rows, and those of blocks one more than its tokens would make alone.
    const wholeRows = Math.min(batch, Math.floor(p.sumRows / 2), this.#wholeRows(contextLength, 3));
    const rowsAtOnce = Math.max(1, wholeRows);
    const slab = wholeRows >= 1 ? contextLength : p.wholeSlab(this.#slab(2));
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      const running = p.scratchSlot("running", rows * 2 * p.rowBytes);
      const slabs = Array.from({ length: Math.ceil(contextLength / slab) }, (_, i): Stretch => {
        const start = i * slab;
        return { row, rows, start, length: Math.min(slab, contextLength - start) };
      });
      const common = { batchRows: rows, stride4: p.stride4, maxWorkgroups: p.maxWorkgroups };
      const blocksOf = (s: Stretch) => Math.ceil(s.length / blockTokens);
      const carryOf = (s: Stretch) => p.scratchSlot("carry", rows * blocksOf(s) * p.rowBytes);
      const prefix = { source: SOURCE_PREFIX, table, prefixTable: queryMask ? "mask" : "none", blockTokens, segmentLength: ahead } as const;
      const sourceOf = (s: Stretch): Source => ({ ...prefix, moments: carryOf(s), blocks: blocksOf(s) });
      const runningSums = (s: Stretch): Slot => {
        const sums = p.prefixSlab({ role: "rows", row, rows, token: s.start, tokens: s.length, running: true, ahead });
        p.steps.push(
          planScanMoments({
            ...common,
            rows: sums,
            running,
            carry: carryOf(s),
            firstBatchRow: row,
            blocks: blocksOf(s),
            blockTokens,
            slabTokens: s.length,
            firstBlock: s.start / blockTokens,
            accumulate: s.start > 0,
          }),
        );
        return sums;
      };
      /** Leaves the gradients of the tokens' projections in the first columns. The sums before the blocks are not needed any more. */
      const through = (s: Stretch, gradients: Gradients) => {
        const blocks = blocksOf(s);
        const totals = carryOf(s);
        const firstBlock = s.start / blockTokens;
        p.steps.push(
          planSumGradients({
            ...this.#gradientRows(gradients),
            blocks: this.#queryBlocks({
              count: rows * blocks,
              blocksPerSegment: blocks,
              blockTokens,
              firstBlock,
              firstSegment: row,
              segmentsPerRow: 1,
              segmentLength: contextLength,
              base: row * contextLength + s.start,
            }),
            totals,
            suffix: { ahead },
            maxWorkgroups: p.maxWorkgroups,
          }),
          planScanGradients({ ...common, totals, running, blocks, firstBlock, accumulate: s.start + s.length < contextLength }),
        );
        this.#momentsBackward(s, { source: SOURCE_PREFIX, sums: totals, blocks, blockTokens }, gradients);
      };
      const [only] = slabs;
      if (slabs.length === 1 && only) {
        const sums = runningSums(only);
        const gradients = this.#selection(only, sourceOf(only), sums);
        through(only, gradients);
        this.#both(only, gradients);
        continue;
      }
      for (const s of slabs) this.#selectionOnly(s, sourceOf(s), runningSums(s));
      for (const s of slabs.reverse()) {
        const gradients = this.#sumsOnly(s, sourceOf(s));
        through(s, gradients);
        this.#contextGradients(s, gradients);
      }
    }
  }

  /** Causal means in which tokens fade: a scan forward to the means, one backward through them. */
  #decayed(): void {
    const { p } = this;
    const { batch, contextLength, mask, queryMask } = this.call;
    if (mask.kind !== "causal" || mask.ahead !== 1 || queryMask) throw new Error(`planHomBackward: decayed means are causal, got mask ${mask.kind}`);
    const wholeRows = contextLength > MAX_INNER_STEPS ? 0 : Math.min(batch, Math.floor(p.sumRows / DECAY_ROWS), this.#wholeRows(contextLength, 3));
    const rowsAtOnce = Math.max(1, wholeRows);
    const slab = wholeRows >= 1 ? contextLength : Math.min(p.wholeSlab(this.#slab(2)), MAX_INNER_STEPS);
    const source: Source = { source: SOURCE_MEAN, moments: EMPTY };
    for (let row = 0; row < batch; row += rowsAtOnce) {
      const rows = Math.min(rowsAtOnce, batch - row);
      const running = p.scratchSlot("running", rows * DECAY_ROWS * p.rowBytes);
      const slabs = cut({ row, rows, start: 0, length: contextLength }, slab, p.prefixBlockTokens);
      const means = (s: Stretch) => p.decayedSlab({ row, rows, token: s.start, tokens: s.length, running, accumulate: s.start > 0 });
      /** Leaves the gradients of the tokens' projections in the first columns. */
      const through = (s: Stretch, gradients: Gradients) => {
        const { expand4, stride4, maxWorkgroups } = p;
        p.steps.push(
          planDecayBackward({
            rows: gradients.slot,
            rowsStride4: gradients.stride4,
            decay: p.decay,
            running,
            batchRows: rows,
            firstToken: s.start,
            slabTokens: s.length,
            stride4,
            expand4,
            accumulate: s.start + s.length < contextLength,
            maxWorkgroups,
          }),
        );
        this.#momentsBackward(s, { source: SOURCE_ROW, sums: EMPTY }, gradients);
      };
      const [only] = slabs;
      if (slabs.length === 1 && only) {
        const gradients = this.#selection(only, source, means(only));
        through(only, gradients);
        this.#both(only, gradients);
        continue;
      }
      for (const s of slabs) this.#selectionOnly(s, source, means(s));
      for (const s of slabs.reverse()) {
        const gradients = this.#sumsOnly(s, source);
        through(s, gradients);
        this.#contextGradients(s, gradients);
      }
    }
  }

  /** Every query has weights of its own: slabs of queries by slabs of tokens. */
  #fullMask(maskBatch: number): void {
    const { p } = this;
    const { batch, queryLength, contextLength } = this.call;
    const maxQueries = Math.max(1, Math.min(this.#slab(3), Math.floor(p.maxBinding / (contextLength * 4))));
    const tokenRows = Math.floor(Math.min(this.#config.scratchBudget / 4, p.maxBinding) / p.rowBytes);
    const maxTokens = p.wholeSlab(Math.min(tokenRows, p.slabRows, p.bindTokens, MAX_INNER_STEPS * 4));
    const table: Slot = { buffer: "table", offset: 0, size: maskBatch * queryLength * 4 };
    for (let row = 0; row < batch; row++) {
      const maskRow = (maskBatch === 1 ? 0 : row) * queryLength;
      const slabs = cut({ row, rows: 1, start: 0, length: queryLength }, maxQueries, 1);
      const tokens = cut({ row, rows: 1, start: 0, length: contextLength }, maxTokens, p.prefixBlockTokens);
      const maskOf = (q: Stretch, t: Stretch): Rows => ({
        buffer: "mask",
        byteOffset: t.start * 4,
        length: t.length,
        stride: contextLength,
        first: maskRow + q.start,
        count: q.length,
      });
      const sourceOf = (q: Stretch): Source => ({ source: SOURCE_ROW, moments: EMPTY, table, tableOffset: maskRow + q.start });
      let kept: Gradients | undefined;
      for (const q of slabs) {
        const rows = p.scratchSlot("rows", q.length * p.rowBytes);
        tokens.forEach((t, i) => {
          const plain = p.prefixSlab({ role: "tokens", row, rows: 1, token: t.start, tokens: t.length, running: false, filled: true, ahead: 1 });
          const { tile, stride4, maxWorkgroups } = p;
          p.steps.push(planMaskMoments({ mask: maskOf(q, t), tokens: plain, rows, stride4, accumulate: i > 0, tile, maxWorkgroups }));
        });
        if (slabs.length === 1) {
          kept = this.#selection(q, sourceOf(q), rows);
          this.#queryGradients(q, kept);
        } else {
          this.#selectionOnly(q, sourceOf(q), rows);
        }
      }
      for (const t of tokens) {
        const bytes = Math.ceil(t.length / 4) * 4 * p.rowBytes;
        const slot = p.scratchSlot("tokens", bytes);
        slabs.forEach((q, i) => {
          const { slot: from, stride4 } = kept ?? this.#sumsOnly(q, sourceOf(q));
          this.weights(maskOf(q, t), this.columns(from, stride4, 0, q.length), slot, 4 * p.stride4, 0, i > 0, false);
        });
        const gradients: Gradients = { slot, stride4: p.stride4, logitsAt4: 0 };
        this.#momentsBackward(t, { source: SOURCE_ROW, sums: EMPTY }, gradients);
        this.#contextGradients(t, gradients);
      }
    }
  }

  // ---- slabs ----

  /**
   * Queries whose means are of the same segments as the tokens: in one slab, or in several whose gradients are summed first.
   * @param sum adds the slab's gradients of means to those of the segments
   * @param capacity queries of a slab
   */
  #segments(
    queries: Stretch,
    tokens: Stretch,
    source: Source,
    sum: (slab: Stretch, gradients: Gradients, first: boolean, last: boolean) => void,
    from: TokenSource,
    capacity: number,
  ): void {
    const slabs = cut(queries, capacity, this.#queryBlock);
    const together = this.#self && slabs.length === 1;
    slabs.forEach((slab, i) => {
      const rows = this.p.scratchSlot("rows", slab.rows * slab.length * this.p.rowBytes);
      const gradients = this.#selection(slab, source, rows);
      sum(slab, gradients, i === 0, i === slabs.length - 1);
      if (together) {
        this.#momentsBackward(tokens, from, gradients);
        this.#both(slab, gradients);
      } else {
        this.#queryGradients(slab, gradients);
      }
    });
    if (!together) this.#tokens(tokens, from);
  }

  /** Gradients of tokens whose moments' gradients are those of segments. */
  #tokens(tokens: Stretch, from: TokenSource): void {
    const { p } = this;
    for (const slab of cutRows(tokens, Math.min(this.#capacity(1), p.slabRows))) {
      const gradients: Gradients = { slot: p.scratchSlot("gradients", slab.rows * slab.length * p.rowBytes), stride4: p.stride4, logitsAt4: 0 };
      this.#momentsBackward(slab, from, gradients);
      this.#contextGradients(slab, gradients);
    }
  }

  /** Gradients of the logits and of the sums side by side, and the gated moments in `rows`, of which ag_proj's gradient is made at once. */
  #selection(s: Stretch, source: Source, rows: Slot): Gradients {
    const { p } = this;
    const count = s.rows * s.length;
    const gradients: Gradients = { slot: p.scratchSlot("gradients", 2 * count * p.rowBytes), stride4: 2 * p.stride4, logitsAt4: p.stride4 };
    this.#gate(s, source, gradients, rows, true, true);
    this.#agGradient(s, rows);
    return gradients;
  }

  /** What depends on the moments that the queries see. */
  #selectionOnly(s: Stretch, source: Source, sums?: Slot): void {
    const { p } = this;
    const count = s.rows * s.length;
    const rows = sums ?? p.scratchSlot("rows", count * p.rowBytes);
    const gradients: Gradients = { slot: p.scratchSlot("gradients", count * p.rowBytes), stride4: p.stride4, logitsAt4: 0 };
    this.#gate(s, source, gradients, rows, true, false);
    this.#agGradient(s, rows);
    this.#queryGradients(s, gradients);
  }

  /** What does not: the gradients of the sums alone. */
  #sumsOnly(s: Stretch, source: Source): Gradients {
    const { p } = this;
    const gradients: Gradients = { slot: p.scratchSlot("gradients", s.rows * s.length * p.rowBytes), stride4: p.stride4, logitsAt4: 0 };
    this.#gate(s, source, gradients, p.scratchSlot("unused", 16), false, true);
    return gradients;
  }

  #gate(s: Stretch, source: Source, { slot, stride4, logitsAt4 }: Gradients, rows: Slot, selection: boolean, sums: boolean): void {
    const { p } = this;
    const { tile, maxWorkgroups } = p;
    const count = s.rows * s.length;
    p.steps.push(
      planLinear({
        x: this.#queryRows("gradOut", this.call.gradOut, s),
        w: this.#back.ag,
        weightDtype: "f32",
        y: this.columns(slot, stride4, logitsAt4, count),
        tile,
        maxWorkgroups,
      }),
      ...this.throughGates({
        x: this.#queryRows("query", this.call.query, s),
        from: p.momentSource({ firstBatchRow: s.row, batchRows: s.rows, firstQuery: s.start, queries: s.length }, source),
        rows,
        selection,
        gradients: slot,
        gradientsStride4: stride4,
        logitsAt4,
        sumsAt4: sums ? 0 : undefined,
      }),
    );
  }

  #momentsBackward(s: Stretch, from: TokenSource, { slot, stride4 }: Gradients): void {
    const { p } = this;
    const { batch, contextLength } = this.call;
    const first = s.row * contextLength + s.start;
    const count = s.rows * s.length;
    const { kind = "none" } = from;
    const weights = kind === "padding" ? bindRows({ buffer: "mask", byteOffset: 0, length: 1, stride: 1, first, count }) : undefined;
    const source: GradientSource = {
      source: from.source,
      sums: from.sums,
      table: weights?.slot ?? (kind === "lengths" ? { buffer: "table", offset: 0, size: batch * 4 } : from.table),
      tableOffset: weights?.offset,
      uniforms: {
        first_batch_row: s.row,
        first_token: s.start,
        slab_tokens: s.length,
        slab_blocks: from.blocks ?? 1,
        block_tokens: from.blockTokens ?? 1,
        first_segment: from.firstSegment ?? 0,
        segments_per_row: from.segmentsPerRow ?? 1,
        segment_length: from.segmentLength ?? 1,
        packed_segments: from.packedSegments ?? 0,
        weighting: ["none", "padding", "lengths"].indexOf(kind),
      },
    };
    p.steps.push(...this.throughMoments({ first, count, from: source, rows: slot, rowsStride4: stride4 }));
  }

  /** Adds gradients of queries up to those of their segments. One segment may come in several slabs. */
  #sumSegments(s: Stretch, a: SummedSegments, gradients: Gradients, sums: Slot, first: boolean, divisor?: number | { slot: Slot }): void {
    const { p } = this;
    const { queryLength } = this.call;
    const start = (a.firstSegment % a.segmentsPerRow) * a.segmentLength;
    if (a.segments === 1) {
      this.#sumBlocks(s.start - start, s.length, gradients, sums, first, a.firstSegment, divisor);
      return;
    }
    const blocksPerSegment = Math.ceil(Math.min(a.segmentLength, queryLength) / this.#queryBlock);
    const partial = p.scratchSlot("partial", a.segments * blocksPerSegment * p.rowBytes);
    p.steps.push(
      planSumGradients({
        ...this.#gradientRows(gradients),
        blocks: this.#queryBlocks({
          ...a,
          count: a.segments * blocksPerSegment,
          blocksPerSegment,
          blockTokens: this.#queryBlock,
          firstBlock: 0,
          base: s.row * queryLength + s.start,
        }),
        totals: partial,
        maxWorkgroups: p.maxWorkgroups,
      }),
      planMergeMoments({
        partial,
        moments: sums,
        segments: a.segments,
        firstSegment: a.firstSegment,
        stride4: p.stride4,
        blocksPerSegment,
        accumulate: !first,
        divisor,
        maxWorkgroups: p.maxWorkgroups,
      }),
    );
  }

  /** Queries [start, start + length) of one segment, which are the slab's rows. */
  #sumBlocks(
    start: number,
    length: number,
    gradients: Gradients,
    sums: Slot,
    first: boolean,
    segment: number,
    divisor?: number | { slot: Slot },
  ): void {
    const { p } = this;
    const blocks = Math.ceil(length / this.#queryBlock);
    const partial = p.scratchSlot("partial", blocks * p.rowBytes);
    p.steps.push(
      planSumGradients({
        ...this.#gradientRows(gradients),
        blocks: this.#queryBlocks({
          count: blocks,
          blocksPerSegment: blocks,
          blockTokens: this.#queryBlock,
          firstBlock: start / this.#queryBlock,
          firstSegment: 0,
          segmentsPerRow: 1,
          segmentLength: start + length,
          base: start,
        }),
        totals: partial,
        maxWorkgroups: p.maxWorkgroups,
      }),
      planMergeMoments({
        partial,
        moments: sums,
        segments: 1,
        firstSegment: segment,
        stride4: p.stride4,
        blocksPerSegment: blocks,
        accumulate: !first,
        divisor,
        maxWorkgroups: p.maxWorkgroups,
      }),
    );
  }

  // ---- gradients of weights and tokens ----

  /** Of self-mixing tokens that are a slab of queries as well. */
  #both(s: Stretch, gradients: Gradients): void {
    const { p } = this;
    const { slot, stride4, logitsAt4 } = gradients;
    const adds = (name: string) => this.call.accumulate === true || this.#written.has(name);
    if (!this.#self || !this.sideBySide || adds("ho") !== adds("se")) {
      this.#queryGradients(s, gradients);
      this.#contextGradients(s, gradients);
      return;
    }
    const count = s.rows * s.length;
    const accumulate = adds("ho");
    this.#written.add("ho").add("se");
    const both: Rows = { ...this.columns(slot, stride4, 0, count), length: 8 * p.stride4 };
    this.#projectionGradient(this.#queryRows("query", this.call.query, s), both, 0, accumulate);
    this.#gradQuery(s, this.columns(slot, stride4, logitsAt4, count));
    this.#gradContext(s, this.columns(slot, stride4, 0, count));
  }

  #queryGradients(s: Stretch, gradients: Gradients): void {
    const dlogit = this.logits(gradients, s.rows * s.length);
    this.gateGradient(this.#queryRows("query", this.call.query, s), dlogit, this.#accumulates("se"));
    this.#gradQuery(s, dlogit);
  }

  #contextGradients(s: Stretch, { slot, stride4 }: Gradients): void {
    const count = s.rows * s.length;
    const du = this.columns(slot, stride4, 0, count);
    const { part: _, ...x } = this.p.contextRows(s.row * this.call.contextLength + s.start, count);
    const accumulate = this.#accumulates("ho");
    this.groups().forEach(({ inputs, columns }, i) => {
      const of = { ...x, byteOffset: x.byteOffset + i * inputs * 4, length: inputs };
      const dy = { ...du, byteOffset: du.byteOffset + i * columns * 4, length: columns };
      this.#projectionGradient(of, dy, i * columns, accumulate);
    });
    this.#gradContext(s, du);
  }

  #gradQuery(s: Stretch, dlogit: Rows): void {
    const { tile, maxWorkgroups } = this.p;
    const { residual, gradQuery } = this.call;
    this.p.steps.push(
      planLinear({
        x: dlogit,
        w: this.#back.se,
        weightDtype: "f32",
        y: this.#queryRows("gradQuery", gradQuery, s),
        residual: residual === undefined ? undefined : this.#queryRows("residual", residual, s),
        tile,
        maxWorkgroups,
      }),
    );
  }

  /** Where the context is the query, its gradients are added to those that the query already has. */
  #gradContext(s: Stretch, du: Rows): void {
    const { tile, maxWorkgroups } = this.p;
    const { contextLength, gradContext, gradQuery } = this.call;
    const { dim } = this.#config;
    const view = { length: dim, stride: dim, first: s.row * contextLength + s.start, count: s.rows * s.length };
    const y: Rows =
      gradContext === undefined
        ? { buffer: "gradQuery", byteOffset: gradQuery, ...view }
        : { buffer: "gradContext", byteOffset: gradContext, ...view };
    this.groups().forEach(({ inputs, columns, back }, i) => {
      const x = { ...du, byteOffset: du.byteOffset + i * columns * 4, length: columns };
      const of = { ...y, byteOffset: y.byteOffset + i * inputs * 4, length: inputs };
      this.p.steps.push(planLinear({ x, w: back, weightDtype: "f32", y: of, accumulate: this.#self, tile, maxWorkgroups }));
    });
  }

  #agGradient(s: Stretch, rows: Slot): void {
    const { stride4 } = this.p;
    const gated = this.columns(rows, stride4, 0, s.rows * s.length);
    const columns = Math.ceil(this.#config.dim / 4) * 4;
    const gradient: Slot = { buffer: "gradAg", offset: 0, size: (4 * stride4 + 1) * columns * 4 };
    const dy = this.#queryRows("gradOut", this.call.gradOut, s);
    this.weights(gated, dy, gradient, columns, 0, this.#accumulates("ag"), this.call.bias ?? true);
  }

  #projectionGradient(x: Rows, dy: Rows, first: number, accumulate: boolean): void {
    const columns = (this.sideBySide ? 8 : 4) * this.p.stride4;
    const gradient: Slot = { buffer: "gradProjections", offset: 0, size: this.p.projections.size };
    this.weights(x, dy, gradient, columns, first, accumulate, this.call.bias ?? true);
  }

  protected weights(x: Rows, dy: Rows, gradient: Slot, columns: number, first: number, accumulate: boolean, bias: boolean): void {
    const { p } = this;
    const { steps, partialBytes } = weightGradientSteps({
      x,
      dy,
      gradient,
      columns,
      first,
      bias,
      accumulate,
      partial: "weight_partial",
      partialBytes: this.#config.scratchBudget / 8,
      tile: p.tile,
      maxBinding: p.maxBinding,
      maxWorkgroups: p.maxWorkgroups,
    });
    if (partialBytes > 0) p.scratchSlot("weight_partial", partialBytes);
    p.steps.push(...steps);
  }

  /** Whether this gradient is added to: always but for the first time, unless the caller wants it then, too. */
  #accumulates(name: "ho" | "se" | "ag"): boolean {
    const accumulate = this.call.accumulate === true || this.#written.has(name);
    this.#written.add(name);
    return accumulate;
  }

  // ---- sizes and views ----

  /** Tokens for which half of the budget holds so many rows each: of two or three, two lie side by side. */
  #capacity(rowsPerToken: 1 | 2 | 3): number {
    const { p } = this;
    const bytes = Math.min(this.#config.scratchBudget / 2 / rowsPerToken, p.maxBinding / (rowsPerToken === 3 ? 2 : 1));
    return Math.max(1, Math.min(Math.floor(bytes / (p.rowBytes + p.gateBytes / rowsPerToken)), p.bindTokens, MAX_INNER_STEPS * p.prefixBlockTokens));
  }

  /** Tokens of a slab where a larger one would save nothing. */
  #slab(rowsPerToken: 2 | 3): number {
    return Math.max(1, Math.min(this.#capacity(rowsPerToken), this.p.slabRows));
  }

  /** Whole batch rows of a slab; a row that is longer than a slab need be gets one of its own where there is room. */
  #wholeRows(length: number, rowsPerToken: 2 | 3): number {
    const rows = Math.floor(this.#slab(rowsPerToken) / length);
    return rows >= 1 ? rows : length <= this.#capacity(rowsPerToken) ? 1 : 0;
  }

  #queryRows(buffer: string, byteOffset: number, s: Stretch): Rows {
    const { dim } = this.#config;
    return { buffer, byteOffset, length: dim, stride: dim, first: s.row * this.call.queryLength + s.start, count: s.rows * s.length };
  }

  /** One row of moments from column 4·at4 on of every row. */
  protected columns(slot: Slot, stride4: number, at4: number, count: number): Rows {
    return { buffer: slot.buffer, byteOffset: slot.offset + at4 * 16, length: 4 * this.p.stride4, stride: 4 * stride4, first: 0, count };
  }

  #gradientRows({ slot, stride4 }: Gradients): { rows: Slot; rowsStride4: number; stride4: number } {
    return { rows: slot, rowsStride4: stride4, stride4: this.p.stride4 };
  }

  /** Blocks of queries; `base` is the first query of the slab. */
  #queryBlocks(a: {
    count: number;
    blocksPerSegment: number;
    blockTokens: number;
    firstBlock: number;
    firstSegment: number;
    segmentsPerRow: number;
    segmentLength: number;
    base: number;
  }): TokenBlocks {
    return {
      count: a.count,
      uniforms: {
        blocks: a.count,
        block_tokens: a.blockTokens,
        blocks_per_segment: a.blocksPerSegment,
        first_block: a.firstBlock,
        first_segment: a.firstSegment,
        segments_per_row: a.segmentsPerRow,
        segment_length: a.segmentLength,
        row_tokens: this.call.queryLength,
        token_base: a.base,
        range_mode: RANGE_REGULAR,
        packed_segments: 0,
      },
    };
  }
}

/** Where tokens find the gradients of their moments; what is left out does not matter to this source. */
interface TokenSource {
  readonly source: GradientSource["source"];
  readonly sums: Slot;
  readonly kind?: "none" | "padding" | "lengths";
  readonly table?: Slot;
  readonly blocks?: number;
  readonly blockTokens?: number;
  readonly firstSegment?: number;
  readonly segmentsPerRow?: number;
  readonly segmentLength?: number;
  readonly packedSegments?: number;
}

/** Whole batch rows as they are; a part of one in slabs of whole groups of units where there is room for one, else of whole units. */
function cut(s: Stretch, capacity: number, unit: number): Stretch[] {
  if (s.rows > 1 || s.length <= capacity) return [s];
  const whole = capacity >= GROUP * unit ? GROUP * unit : unit;
  const slab = Math.max(unit, capacity - (capacity % whole));
  return Array.from({ length: Math.ceil(s.length / slab) }, (_, i) => {
    const start = s.start + i * slab;
    return { ...s, start, length: Math.min(slab, s.start + s.length - start) };
  });
}

/** Anywhere: as many batch rows as fit, or parts of one. */
function cutRows(s: Stretch, capacity: number): Stretch[] {
  if (s.length > capacity) return Array.from({ length: s.rows }, (_, i) => cut({ ...s, row: s.row + i, rows: 1 }, capacity, 1)).flat();
  const rows = Math.floor(capacity / s.length);
  return Array.from({ length: Math.ceil(s.rows / rows) }, (_, i) => ({ ...s, row: s.row + i * rows, rows: Math.min(rows, s.rows - i * rows) }));
}
