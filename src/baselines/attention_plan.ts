import { MAX_INNER_STEPS, slabBytes } from "../layers/planner.ts";
import { ATTENTION_TILE, attentionStatsBytes, attentionTileSteps, planAttentionKernel } from "../ops/attention.ts";
import { planLinear } from "../ops/linear.ts";
import { type Rows, weightBytes } from "../ops/op.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot, type Step, type TileName } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";

/** Lengths, and where the tensors lie in their buffers, in bytes. */
export interface BaselineCall {
  readonly batch: number;
  readonly length: number;
  readonly causal: boolean;
  readonly x: number;
  readonly out: number;
}

export interface BaselinePlan {
  readonly steps: readonly Step[];
  readonly scratch: ReadonlyMap<string, number>;
}

export interface AttentionPlanConfig {
  readonly dim: number;
  readonly heads: number;
  readonly scratchBudget: number;
}

/** Rows that a slab of such rows should have, whatever the budget. */
export function slabRows(rowBytes: number): number {
  return Math.floor(slabBytes(rowBytes) / rowBytes);
}

/** Stretches of equally many tokens of some batch rows. */
export interface Stretch {
  readonly row: number;
  readonly rows: number;
  readonly token: number;
  readonly tokens: number;
}

/** The projections around attention, and the scratch memory of a call. Buffers: query, out, and the weights q, kv and projection are the caller's; others are scratch. */
export class ProjectionPlanner {
  readonly steps: Step[] = [];
  readonly scratch = new Map<string, number>();
  readonly dim: number;
  readonly heads: number;
  readonly headDim: number;
  /** vec4s of a head, and of all. */
  readonly head4: number;
  readonly width4: number;
  readonly call: BaselineCall;
  readonly maxWorkgroups: number;
  readonly maxBinding: number;
  readonly tile: TileName;

  constructor({ dim, heads }: { readonly dim: number; readonly heads: number }, tuning: Tuning, limits: GpuLimits, call: BaselineCall) {
    this.dim = dim;
    this.heads = heads;
    this.headDim = dim / heads;
    this.head4 = Math.ceil(this.headDim / 4);
    this.width4 = heads * this.head4;
    this.call = call;
    this.maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
    this.maxBinding = limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    this.tile = tuning.tile;
  }

  /** A lane with more queries loads less for each, and leaves fewer workgroups: software adapters want the first, GPUs the second. */
  get queriesOfLane(): 4 | 8 | "quads" {
    return this.tile === "16x8_quads" ? "quads" : this.tile === "8x4" ? 4 : 8;
  }

  /** Rows of this many bytes that one binding holds, of tokens that are bound themselves. */
  rowsBound(rowBytes: number): number {
    return Math.max(1, Math.floor(this.maxBinding / Math.max(rowBytes, 4 * this.dim)));
  }

  scratchSlot(role: string, bytes: number): Slot {
    this.scratch.set(role, Math.max(this.scratch.get(role) ?? 0, bytes));
    return { buffer: role, offset: 0, size: bytes };
  }

  /** Queries `[tokens, H·d]` in scratch. */
  queries(stretch: Stretch): Slot {
    return this.#project(stretch, "q", "queries", this.width4);
  }

  /** Keys and values side by side, `[tokens, 2·H·d]`, in scratch. */
  keysAndValues(stretch: Stretch): Slot {
    return this.#project(stretch, "kv", "keys_values", 2 * this.width4);
  }

  /** What attention gave `[tokens, H·d]`, projected to the output. */
  output(stretch: Stretch, mixed: Slot): void {
    const length = 4 * this.width4;
    const { rows, tokens } = stretch;
    this.steps.push(
      planLinear({
        x: { buffer: mixed.buffer, byteOffset: 0, length, stride: length, first: 0, count: rows * tokens },
        w: { buffer: "projection", offset: 0, size: weightBytes("f32", length, Math.ceil(this.dim / 4)) },
        weightDtype: "f32",
        y: this.tensor("out", this.call.out, stretch),
        tile: this.tile,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
  }

  #project(stretch: Stretch, weights: string, role: string, width4: number): Slot {
    const count = stretch.rows * stretch.tokens;
    const length = 4 * width4;
    const slot = this.scratchSlot(role, count * length * 4);
    this.steps.push(
      planLinear({
        x: this.tensor("query", this.call.x, stretch),
        w: { buffer: weights, offset: 0, size: weightBytes("f32", this.dim, width4) },
        weightDtype: "f32",
        y: { buffer: role, byteOffset: 0, length, stride: length, first: 0, count },
        tile: this.tile,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
    return slot;
  }

  /** Rows of a `[B, N, D]`. */
  protected tensor(buffer: string, byteOffset: number, { row, rows, token, tokens }: Stretch): Rows {
    const { length } = this.call;
    const { dim } = this;
    return { buffer, byteOffset, length: dim, stride: dim, first: row * length + token, count: rows * tokens, span: tokens, pitch: length };
  }
}

/** Bytes of a token's keys and values, and of a query with all that belongs to it. */
function rowSizes({ dim, heads }: { readonly dim: number; readonly heads: number }) {
  const head4 = Math.ceil(dim / heads / 4);
  const q = heads * head4 * 16;
  return { q, kv: 2 * q, query: 2 * q + attentionStatsBytes(heads, head4) };
}

/** The smallest scratch budget that holds a tile of queries and one of keys. */
export function minimumAttentionScratch(config: { readonly dim: number; readonly heads: number }): number {
  const { kv, query } = rowSizes(config);
  return 2 * ATTENTION_TILE * Math.max(kv, query);
}

/**
 * The dispatches of one call of softmax attention. Keys and values of a batch row stay in scratch if half of the budget holds them; else they are computed
 * slab by slab, again for each slab of queries. Pure: nothing here touches a GPU.
 */
export function planAttention(config: AttentionPlanConfig, tuning: Tuning, limits: GpuLimits, call: BaselineCall): BaselinePlan {
  const p = new ProjectionPlanner(config, tuning, limits, call);
  const { batch, length, causal } = call;
  const size = rowSizes(config);
  const half = config.scratchBudget / 2;
  const mostSteps = ATTENTION_TILE * Math.floor(MAX_INNER_STEPS / attentionTileSteps(p.head4, p.queriesOfLane));
  const keyRows = Math.min(Math.floor(half / size.kv), p.rowsBound(size.kv));
  const queryRows = Math.min(Math.floor(half / size.query), p.rowsBound(size.q), slabRows(size.query));
  const keys = wholeTiles(Math.min(keyRows, mostSteps), length);
  const queries = wholeTiles(queryRows, length);
  const isWhole = keys === length && queries === length;
  const rowsAtOnce = isWhole ? Math.max(1, Math.min(batch, Math.floor(keyRows / length), Math.floor(queryRows / length))) : 1;
  for (let row = 0; row < batch; row += rowsAtOnce) {
    const rows = Math.min(rowsAtOnce, batch - row);
    const all = keys === length ? p.keysAndValues({ row, rows, token: 0, tokens: length }) : undefined;
    for (let query = 0; query < length; query += queries) {
      const stretch = { row, rows, token: query, tokens: Math.min(queries, length - query) };
      const q = p.queries(stretch);
      const mixed = p.scratchSlot("mixed", rows * stretch.tokens * size.q);
      const stats = p.scratchSlot("stats", rows * stretch.tokens * attentionStatsBytes(p.heads, p.head4));
      const end = causal ? query + stretch.tokens : length;
      for (let key = 0; key < end; key += keys) {
        const tokens = Math.min(keys, length - key);
        p.steps.push(
          planAttentionKernel({
            q,
            kv: all ?? p.keysAndValues({ row, rows, token: key, tokens }),
            stats,
            y: mixed,
            heads: p.heads,
            head4: p.head4,
            batchRows: rows,
            queries: stretch.tokens,
            firstQuery: query,
            keys: tokens,
            firstKey: key,
            causal,
            accumulate: key > 0,
            last: key + keys >= end,
            queryRows: p.queriesOfLane,
            maxWorkgroups: p.maxWorkgroups,
          }),
        );
      }
      p.output(stretch, mixed);
    }
  }
  return p;
}

/** All tokens, or as many whole tiles as there is room for. */
export function wholeTiles(room: number, length: number): number {
  return room >= length ? length : Math.max(ATTENTION_TILE, room - (room % ATTENTION_TILE));
}
