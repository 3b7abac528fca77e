import { FULL, leftOut } from "../checks.ts";
import { planDecayMoments } from "../ops/decay_moments.ts";
import { planGate } from "../ops/gate.ts";
import { planLinear } from "../ops/linear.ts";
import { planMoments } from "../ops/moments.ts";
import { bindRows, type Rows, weightBytes } from "../ops/op.ts";
import { planPrefixMoments } from "../ops/prefix_moments.ts";
import { planSelect, SELECT_MAX_DIM } from "../ops/select.ts";
import {
  type Activation,
  type Expansion,
  type MomentActivation,
  type MomentSource,
  RANGE_LENGTHS,
  RANGE_PACKED,
  RANGE_REGULAR,
  SOURCE_PREFIX,
  type TokenBlocks,
} from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Dtype, GROUP, type Slot, type Split, type Step, TILES, type TileName, type WeightDtype } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import type { PomPlan } from "./pom_plan.ts";

/** Moments as the kernels keep them: `order` chunks of orderExpand·dim channels. */
export interface MomentShape {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
}

/** What the dispatches of a layer depend on. */
export interface PlanConfig extends MomentShape {
  readonly activation: MomentActivation;
  /** Default f32. */
  readonly weightDtype?: WeightDtype;
  readonly scratchBudget: number;
  /** Causal means whose tokens fade, by factors in the caller's buffer `decay`. Default: none do. */
  readonly decay?: boolean;
  /** A polynomial mixer, whose moments are `order` chunks of neighbouring channels. Default: products of orders. */
  readonly pom?: PomPlan;
}

export interface HomPlanConfig extends PlanConfig {
  readonly activation: Activation;
}

/** Lengths, and where the tensors lie in their buffers, in bytes. */
export interface PlannedCall {
  readonly batch: number;
  readonly queryLength: number;
  readonly contextLength: number;
  readonly query: number;
  readonly context: number;
  readonly out: number;
  /** Types of the tensors' elements; default f32. The residual has the output's. */
  readonly queryDtype?: Dtype;
  readonly contextDtype?: Dtype;
  readonly outDtype?: Dtype;
  /** Added to the output where given. */
  readonly residual?: number | undefined;
}

/** vec4s of one order's channels, and of a row of moments. */
export function momentLayout(config: MomentShape): { expand4: number; stride4: number } {
  const expand4 = Math.ceil((config.orderExpand * config.dim) / 4);
  return { expand4, stride4: config.order * expand4 };
}

/** lavapipe shares 65,535 loop iterations among all loops of an invocation and then silently stops; half of that leaves room. */
export const MAX_INNER_STEPS = 30_000;

/** Loop iterations of 8 rows of a tile that is turned and activated. */
const TURN_STEPS = 48;

/** Tokens of a block: the tuned number, halved until an invocation's inner steps stay under MAX_INNER_STEPS. */
export function blockTokensFor(tuned: number, config: Pick<PlanConfig, "dim" | "order" | "pom">): number {
  let tokens = tuned;
  const { rows } = TILES["8x4"];
  const { dim, order, pom } = config;
  // The large tile walks its rows in loops for every power, and for a rotation.
  const steps = Math.ceil(dim / 4) + (pom ? rows * pom.degree + TURN_STEPS : 0);
  while (tokens > rows && (tokens / rows) * order * steps > MAX_INNER_STEPS) tokens /= 2;
  return tokens;
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

/** Block sums that one dispatch left in scratch, to be added to their segments. */
export interface BlockSums {
  readonly partial: Slot;
  readonly firstSegment: number;
  readonly segments: number;
  readonly blocksPerSegment: number;
  /** Segments of different numbers of blocks: where in `table` their first blocks are, and the first block of this dispatch. */
  readonly ragged: { readonly table: Slot; readonly offset: number; readonly firstBlock: number } | undefined;
  /** First and last part of these segments. */
  readonly first: boolean;
  readonly last: boolean;
}

/** Equally long stretches of the context's rows. */
export interface Segments {
  readonly firstSegment: number;
  readonly segments: number;
  readonly segmentsPerRow: number;
  readonly segmentLength: number;
  readonly kind: "none" | "padding" | "lengths";
}

export interface Rectangle {
  readonly firstBatchRow: number;
  readonly batchRows: number;
  readonly firstQuery: number;
  readonly queries: number;
}

/** Where the queries of a slab find their moments; what is left out does not matter to this source. */
export interface Source {
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
  readonly prefixTable?: "none" | "mask" | "counts";
}

/** What a slab of rows takes at most, unless that is fewer rows than SLAB_ROWS: more would only cost memory, and leave the caches. */
const SLAB_BYTES = 4 << 20;
const SLAB_ROWS = 1024;

/** Bytes of a slab of such rows, where a budget allows. */
export function slabBytes(rowBytes: number): number {
  return Math.max(SLAB_BYTES, SLAB_ROWS * rowBytes);
}

/**
 * Collects the dispatches of one call, cut so that scratch stays within the budget and bindings within the device's limits. Slabs of a sum are
 * cut at whole groups of blocks: the order of additions, and with it every bit, does not depend on the batch.
 *
 * Buffers of a step: query, context, out, residual, projections, ag, mask, table, divisors are the caller's; the others are scratch.
 */
export class Planner {
  readonly steps: Step[] = [];
  readonly scratch = new Map<string, number>();
  readonly config: PlanConfig;
  readonly call: PlannedCall;
  readonly maxWorkgroups: number;
  readonly maxBinding: number;
  readonly expand4: number;
  readonly stride4: number;
  /** Bytes of a row of moments. */
  readonly rowBytes: number;
  /** Bytes of a query's gates, where they are computed apart. */
  readonly gateBytes: number;
  readonly blockTokens: number;
  readonly prefixBlockTokens: number;
  /** The largest register tile; one for all lengths, so that a token has the same bits whatever it stands with. */
  readonly tile: TileName;
  /** Lanes that share a tile of the output projection: `decodeLanes` where single tokens are decoded. */
  lanes: 1 | Split = 1;
  /** That of the context's projection: no tile may reach into another group's columns. */
  readonly momentTile: TileName;
  readonly weightDtype: WeightDtype;
  readonly projections: Slot;
  readonly ag: Slot;
  readonly #fused: boolean;
  readonly #wStride4: number;

  constructor(config: PlanConfig, tuning: Tuning, limits: GpuLimits, call: PlannedCall) {
    if (!FULL && (config.pom || config.decay)) throw leftOut("Planner");
    this.config = config;
    this.call = call;
    this.maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
    this.maxBinding = limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    const { expand4, stride4 } = momentLayout(config);
    this.expand4 = expand4;
    this.stride4 = stride4;
    this.rowBytes = stride4 * 16;
    this.blockTokens = blockTokensFor(tuning.blockTokens, config);
    this.prefixBlockTokens = blockTokensFor(tuning.prefixBlockTokens, config);
    this.tile = !FULL || Math.min(this.blockTokens, this.prefixBlockTokens) < TILES[tuning.tile].rows ? "8x4" : tuning.tile;
    this.weightDtype = config.weightDtype ?? "f32";
    const inner4 = Math.ceil(config.dim / 4);
    const { pom } = config;
    this.momentTile = FULL && pom?.group ? groupTile(this.tile, pom.group.columns4) : this.tile;
    this.#wStride4 = pom?.gates ? stride4 : 2 * stride4;
    this.gateBytes = pom?.gates ? pom.gates.layout.stride * 4 : 0;
    this.projections = { buffer: "projections", offset: 0, size: weightBytes(this.weightDtype, pom?.group?.inputs ?? config.dim, this.#wStride4) };
    this.ag = { buffer: "ag", offset: 0, size: weightBytes(this.weightDtype, 4 * stride4, inner4) };
    const fusedSteps = Math.ceil(stride4 / 16) * (inner4 + 64);
    // select.wgsl reads its second weight as f32.
    // Decayed means are made in the rows that the gated moments then take.
    this.#fused =
      config.decay !== true &&
      !pom?.gates &&
      this.weightDtype === "f32" &&
      config.dim <= Math.min(tuning.fusedSelectMaxDim, SELECT_MAX_DIM) &&
      fusedSteps <= MAX_INNER_STEPS;
  }

  /** Rows of moments that fit in a quarter of the budget, and that one invocation may add: partial sums, or sums of segments. */
  get sumRows(): number {
    return Math.min(this.#rowsWithin(this.config.scratchBudget / 4), MAX_INNER_STEPS);
  }

  /** Rows of moments that a slab of queries or of causal tokens may take: as many as keep an adapter busy, within half of the budget. */
  get slabRows(): number {
    const rowBytes = this.rowBytes + this.gateBytes;
    return this.#rowsWithin(Math.min(this.config.scratchBudget / 2, slabBytes(rowBytes)), rowBytes);
  }

  #rowsWithin(bytes: number, rowBytes = this.rowBytes): number {
    return Math.floor(Math.min(bytes, this.maxBinding) / rowBytes);
  }

  /** Tokens that one binding can hold. */
  get bindTokens(): number {
    return Math.floor(this.maxBinding / (this.config.dim * 4));
  }

  /** Whole groups of this many tokens where there is room for one, else whole blocks. */
  wholeSlab(tokens: number): number {
    const block = this.prefixBlockTokens;
    const unit = tokens >= GROUP * block ? GROUP * block : block;
    return Math.max(block, tokens - (tokens % unit));
  }

  scratchSlot(role: string, bytes: number): Slot {
    this.scratch.set(role, Math.max(this.scratch.get(role) ?? 0, bytes));
    return { buffer: role, offset: 0, size: bytes };
  }

  contextRows(first: number, count: number): Rows {
    const { dim, pom } = this.config;
    const part = pom?.group && { part: pom.group.inputs };
    return {
      buffer: "context",
      byteOffset: this.call.context,
      dtype: this.call.contextDtype ?? "f32",
      length: dim,
      stride: dim,
      ...part,
      first,
      count,
    };
  }

  /** What kernels with an expansion read beside `contextRows(first, count)`. */
  expansion(first: number, count: number): Expansion {
    const { pom } = this.config;
    if (!FULL || !pom) return {};
    const { expand, degree, group, planes, rotations } = pom;
    const placed = planes > 0 && bindRows({ buffer: "context_positions", byteOffset: 0, length: planes, stride: planes, first, count });
    return {
      expand,
      wStride4: this.#wStride4,
      constants: this.constants,
      degree,
      group4: group?.columns4 ?? 0,
      rotations,
      positions: placed ? { slot: placed.slot, first: placed.offset } : undefined,
    };
  }

  /** Coefficients and rotations of a polynomial mixer. */
  get constants(): Slot {
    return { buffer: "constants", offset: 0, size: this.config.pom?.constantsBytes ?? 16 };
  }

  /** Block sums of segments, in as many dispatches as scratch and bindings ask for. */
  segmentSums(a: Segments, merge: (sums: BlockSums) => void): void {
    const { batch, contextLength } = this.call;
    const { blockTokens } = this;
    const rowOf = (segment: number) => Math.floor(segment / a.segmentsPerRow);
    const startOf = (segment: number) => rowOf(segment) * contextLength + (segment % a.segmentsPerRow) * a.segmentLength;
    const lastSegment = a.firstSegment + a.segments - 1;
    const end = Math.min(startOf(lastSegment) + a.segmentLength, (rowOf(lastSegment) + 1) * contextLength);
    // The last segment of a row may be shorter; alone, it has fewer blocks.
    const length = a.segments === 1 ? end - startOf(a.firstSegment) : Math.min(a.segmentLength, contextLength);
    const blocksPerSegment = Math.ceil(length / blockTokens);
    let slab = Math.min(blocksPerSegment, Math.floor(this.sumRows / a.segments));
    if (a.segments === 1) slab = Math.min(slab, Math.floor(this.bindTokens / blockTokens));
    slab = slab < blocksPerSegment ? wholeGroups(slab) : slab;
    for (let block = 0; block < blocksPerSegment; block += slab) {
      const count = Math.min(slab, blocksPerSegment - block);
      // One segment is bound from its first token of the slab on; several are bound whole.
      const first = startOf(a.firstSegment) + (a.segments === 1 ? block * blockTokens : 0);
      const last = a.segments === 1 ? Math.min(first + count * blockTokens, end) : end;
      const partial = this.scratchSlot("partial", a.segments * count * this.rowBytes);
      const blocks = this.tokenBlocks({
        count: a.segments * count,
        blocksPerSegment: count,
        firstBlock: block,
        firstSegment: a.firstSegment,
        segmentsPerRow: a.segmentsPerRow,
        segmentLength: a.segmentLength,
        tokenBase: first,
        table: a.kind === "lengths" ? { buffer: "table", offset: 0, size: batch * 4 } : undefined,
      });
      const weights = bindRows({ buffer: "mask", byteOffset: 0, length: 1, stride: 1, first, count: last - first });
      this.#moments(first, last - first, partial, blocks, a.kind === "padding" ? { slot: weights.slot, first: weights.offset } : undefined);
      const { firstSegment, segments } = a;
      const isLast = block + count === blocksPerSegment;
      merge({ partial, firstSegment, segments, blocksPerSegment: count, ragged: undefined, first: block === 0, last: isLast });
    }
  }

  /**
   * Block sums of packed segments. `chunk` is called with segments [first, end) when all their sums have been merged: as many segments as
   * scratch and bindings hold at once, or a part of the dispatches of a single long one.
   */
  packedSums(cu: Uint32Array, merge: (sums: BlockSums) => void, chunk: (first: number, end: number) => void): void {
    if (!FULL) throw leftOut("packedSums");
    const segments = cu.length - 1;
    const starts = firstBlocks(cu, this.blockTokens);
    const table: Slot = { buffer: "table", offset: 0, size: 2 * (segments + 1) * 4 };
    const at = (array: Uint32Array, i: number) => array[i] ?? 0;
    for (let first = 0; first < segments; ) {
      const fits = (end: number) =>
        end - first <= this.sumRows && at(starts, end) - at(starts, first) <= this.sumRows && at(cu, end) - at(cu, first) <= this.bindTokens;
      let end = first + 1;
      while (end < segments && fits(end + 1)) end++;
      const count = end - first;
      const firstBlock = at(starts, first);
      const blocks = at(starts, end) - firstBlock;
      const slab = fits(end) ? Math.max(1, blocks) : wholeGroups(Math.min(this.sumRows, Math.floor(this.bindTokens / this.blockTokens)));
      for (let block = 0; block === 0 || block < blocks; block += slab) {
        const n = Math.min(slab, blocks - block);
        const tokenBase = at(cu, first) + block * this.blockTokens;
        const tokens = (block + n === blocks ? at(cu, end) : tokenBase + n * this.blockTokens) - tokenBase;
        const partial = this.scratchSlot("partial", Math.max(1, n) * this.rowBytes);
        if (n > 0) {
          const packed = {
            count: n,
            blocksPerSegment: 1,
            firstBlock: firstBlock + block,
            firstSegment: 0,
            segmentsPerRow: 1,
            segmentLength: 1,
            tokenBase,
          };
          this.#moments(tokenBase, tokens, partial, this.tokenBlocks({ ...packed, table, packedSegments: segments }));
        }
        const ragged = count > 1 || n === 0 ? { table, offset: segments + 1 + first, firstBlock } : undefined;
        merge({ partial, firstSegment: first, segments: count, blocksPerSegment: n, ragged, first: block === 0, last: block + n === blocks });
      }
      chunk(first, end);
      first = end;
    }
  }

  /** Running sums (or plain moments) of `tokens` tokens of `rows` batch rows, a slab of one row a token. */
  prefixSlab(a: {
    role: string;
    row: number;
    rows: number;
    token: number;
    tokens: number;
    running: boolean;
    ahead: number;
    /** A full mask's product reads tokens in fours. */
    filled?: boolean;
  }): Slot {
    const { contextLength } = this.call;
    const blockTokens = this.prefixBlockTokens;
    const blocks = Math.ceil(a.tokens / blockTokens);
    const first = a.row * contextLength + a.token;
    const rows = this.scratchSlot(a.role, (a.filled ? Math.ceil(a.tokens / 4) * 4 : a.rows * a.tokens) * this.rowBytes);
    this.steps.push(
      planPrefixMoments({
        x: this.contextRows(first, (a.rows - 1) * contextLength + a.tokens),
        ...this.expansion(first, (a.rows - 1) * contextLength + a.tokens),
        w: this.projections,
        weightDtype: this.weightDtype,
        rows,
        activation: this.config.activation,
        order: this.config.order,
        expand4: this.expand4,
        blocks: this.tokenBlocks({
          count: a.rows * blocks,
          blocksPerSegment: blocks,
          firstBlock: a.token / blockTokens,
          firstSegment: a.row,
          segmentsPerRow: 1,
          segmentLength: contextLength,
          tokenBase: first,
          blockTokens,
        }),
        slabTokens: a.tokens,
        running: a.running,
        filled: a.filled ?? false,
        ahead: a.ahead,
        tile: this.momentTile,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
    return rows;
  }

  /** The caller's factors of a layer with decayed means. */
  get decay(): Slot {
    return { buffer: "decay", offset: 0, size: 3 * this.expand4 * 16 };
  }

  /** Decayed means of a stretch of tokens, one row a token. What came before is in `running`, of all batch rows or of these alone. */
  decayedSlab(a: { row: number; rows: number; token: number; tokens: number; running: Slot; all?: boolean; accumulate: boolean }): Slot {
    if (!FULL) throw leftOut("decayedSlab");
    const { stride4, expand4, maxWorkgroups } = this;
    const rows = this.prefixSlab({ role: "rows", row: a.row, rows: a.rows, token: a.token, tokens: a.tokens, running: false, ahead: 1 });
    const common = { rows, decay: this.decay, running: a.running, stride4, expand4, maxWorkgroups };
    this.steps.push(
      planDecayMoments({ ...common, firstBatchRow: a.all ? a.row : 0, batchRows: a.rows, slabTokens: a.tokens, accumulate: a.accumulate }),
    );
    return rows;
  }

  /** Queries whose moments are means of segments: as many slabs as scratch and bindings ask for. */
  queries(all: Rectangle, source: Source): void {
    const capacity = this.#fused ? this.bindTokens : Math.min(this.slabRows, this.bindTokens);
    const rowsAtOnce = Math.max(1, Math.min(all.batchRows, Math.floor(capacity / this.call.queryLength)));
    const queriesAtOnce = rowsAtOnce === 1 ? Math.min(all.queries, capacity) : all.queries;
    for (let row = 0; row < all.batchRows; row += rowsAtOnce) {
      for (let query = 0; query < all.queries; query += queriesAtOnce) {
        const rectangle = {
          firstBatchRow: all.firstBatchRow + row,
          batchRows: Math.min(rowsAtOnce, all.batchRows - row),
          firstQuery: all.firstQuery + query,
          queries: Math.min(queriesAtOnce, all.queries - query),
        };
        const rows = this.#fused ? undefined : this.scratchSlot("rows", rectangle.batchRows * rectangle.queries * this.rowBytes);
        this.slab(rectangle, source, rows);
      }
    }
  }

  /** Selection and output of one slab of queries; `rows` holds sums that the source reads, or room for the gated moments, or both. */
  slab(r: Rectangle, source: Source, rows: Slot | undefined): void {
    const { dim, pom } = this.config;
    const { queryLength, query, out, residual, queryDtype = "f32", outDtype = "f32" } = this.call;
    const first = r.firstBatchRow * queryLength + r.firstQuery;
    const view = { length: dim, stride: dim, first, count: r.batchRows * r.queries, span: r.queries, pitch: queryLength };
    const x: Rows = { buffer: "query", byteOffset: query, dtype: queryDtype, ...view };
    const y: Rows = { buffer: "out", byteOffset: out, dtype: outDtype, ...view };
    const plus: Rows | undefined = residual === undefined ? undefined : { buffer: "residual", byteOffset: residual, dtype: outDtype, ...view };
    const from = this.momentSource(r, source);
    const { weightDtype } = this;
    const gate = pom ? "hard_sigmoid" : "sigmoid";
    const { lanes } = this;
    const common = { stride4: this.stride4, weightDtype, gate, tile: this.tile, maxWorkgroups: this.maxWorkgroups } as const;
    if (this.#fused || !rows) {
      this.steps.push(planSelect({ ...common, x, w: this.projections, wOut: this.ag, y, residual: plus, rows, from }));
      return;
    }
    const length = this.stride4 * 4;
    const gated: Rows = { buffer: rows.buffer, byteOffset: 0, length, stride: length, first: 0, count: view.count };
    if (FULL && pom?.gates) this.#gatesApart(pom, x, rows, from);
    else this.steps.push(planGate({ ...common, x, w: this.projections, rows, from }));
    this.steps.push(planLinear({ x: gated, w: this.ag, weightDtype, y, residual: plus, tile: this.tile, lanes, maxWorkgroups: this.maxWorkgroups }));
  }

  /** Gates of a slab of queries, then the moments times them. */
  #gatesApart(pom: PomPlan, x: Rows, rows: Slot, from: MomentSource): void {
    if (!FULL || !pom.gates) return;
    const { layout, plan } = pom.gates;
    const { weightDtype, tile, lanes, maxWorkgroups, stride4, expand4, constants } = this;
    const { batch, queryLength } = this.call;
    const { planes, rotations } = pom;
    const gates = this.scratchSlot("gated", x.count * this.gateBytes);
    const y: Rows = { buffer: gates.buffer, byteOffset: 0, length: layout.stride, stride: layout.stride, first: 0, count: x.count };
    const w: Slot = { buffer: "gates", offset: 0, size: weightBytes(weightDtype, x.length, layout.stride / 4) };
    const positions: Slot = { buffer: "query_positions", offset: 0, size: batch * queryLength * planes * 4 };
    const turned = planes > 0 ? { constants, rotations, positions, planes } : undefined;
    this.steps.push(
      planLinear({ x, w, weightDtype, y, activation: "hard_sigmoid", tile, lanes, maxWorkgroups }),
      plan({ gates, layout, from, rows, slabRows: x.count, stride4, expand4, turned, maxWorkgroups }),
    );
  }

  /** Where the queries of a slab find their moments, as the kernels read it. */
  momentSource(r: Rectangle, source: Source): MomentSource {
    const { prefixTable = "none" } = source;
    return {
      source: source.source,
      moments: source.moments,
      table: source.table,
      uniforms: {
        first_batch_row: r.firstBatchRow,
        first_query: r.firstQuery,
        query_length: this.call.queryLength,
        slab_queries: r.queries,
        slab_blocks: source.blocks ?? 1,
        block_tokens: source.blockTokens ?? 1,
        first_segment: source.firstSegment ?? 0,
        segments_per_row: source.segmentsPerRow ?? 1,
        segment_length: source.segmentLength ?? 1,
        packed_segments: source.packedSegments ?? 0,
        table_offset: source.tableOffset ?? 0,
        prefix_table: source.source === SOURCE_PREFIX ? ["none", "mask", "counts"].indexOf(prefixTable) : 0,
      },
    };
  }

  tokenBlocks(a: {
    count: number;
    blocksPerSegment: number;
    firstBlock: number;
    firstSegment: number;
    segmentsPerRow: number;
    segmentLength: number;
    tokenBase: number;
    blockTokens?: number;
    table?: Slot | undefined;
    packedSegments?: number;
  }): TokenBlocks {
    const packed = a.packedSegments !== undefined;
    return {
      count: a.count,
      uniforms: {
        blocks: a.count,
        block_tokens: a.blockTokens ?? this.blockTokens,
        blocks_per_segment: a.blocksPerSegment,
        first_block: a.firstBlock,
        first_segment: a.firstSegment,
        segments_per_row: a.segmentsPerRow,
        segment_length: a.segmentLength,
        row_tokens: this.call.contextLength,
        token_base: a.tokenBase,
        range_mode: packed ? RANGE_PACKED : a.table ? RANGE_LENGTHS : RANGE_REGULAR,
        packed_segments: a.packedSegments ?? 0,
      },
      table: a.table,
    };
  }

  #moments(first: number, count: number, partial: Slot, blocks: TokenBlocks, weights?: { slot: Slot; first: number }): void {
    const { activation, order } = this.config;
    const { expand4, maxWorkgroups, momentTile: tile, weightDtype } = this;
    const x = this.contextRows(first, count);
    const expansion = this.expansion(first, count);
    this.steps.push(
      planMoments({ ...expansion, x, w: this.projections, weightDtype, partial, activation, order, expand4, blocks, weights, tile, maxWorkgroups }),
    );
  }
}

/** The tile of a grouped projection. The quads' tile shares rows that groups read differently. */
function groupTile(tile: TileName, columns4: number): TileName {
  const plain = tile === "16x8_quads" ? "16x8" : tile;
  return columns4 % TILES[plain].cols4 === 0 ? plain : "8x4";
}

/** The largest number of blocks that is whole groups, where there is room for one. */
function wholeGroups(blocks: number): number {
  return Math.max(1, blocks > GROUP ? blocks - (blocks % GROUP) : blocks);
}
