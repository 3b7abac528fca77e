import { MAX_INNER_STEPS } from "../layers/planner.ts";
import { ATTENTION_TILE, attentionColumnGroups, attentionStatsBytes, attentionTileSteps, planAttentionKernel } from "../ops/attention.ts";
import { attentionBackwardTileSteps, planAttentionBackwardKv, planAttentionBackwardQ } from "../ops/attention_backward.ts";
import { attentionRowBytes, planAttentionRows } from "../ops/attention_rows.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import type { Slot } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type AttentionPlanConfig, type BaselinePlan, type Stretch, slabRows, wholeTiles } from "./attention_plan.ts";
import type { AttentionConfig } from "./config.ts";
import { type BaselineBackwardCall, ProjectionBackwardPlanner, rowBudget } from "./self_attention_backward.ts";

type Config = AttentionPlanConfig & Pick<Required<AttentionConfig>, "bias">;

/** Bytes of a query with its gradient and all that belongs to both, and of a key and its value with theirs. */
function rowSizes({ dim, heads }: { readonly dim: number; readonly heads: number }) {
  const head4 = Math.ceil(dim / heads / 4);
  const q = heads * head4 * 16;
  return { q, query: 4 * q + attentionStatsBytes(heads, head4), kv: 2 * q, key: 4 * q };
}

/** The smallest scratch budget that holds a tile of queries and one of keys, with their gradients. */
export function minimumAttentionBackwardScratch(config: { readonly dim: number; readonly heads: number }): number {
  const { query, key } = rowSizes(config);
  return Math.ceil((2 * ATTENTION_TILE * Math.max(query, key)) / rowBudget(1));
}

/**
 * The dispatches of the backward pass of softmax attention: attention again, which leaves each query's largest score, sum and dy·y, and the gradients of the
 * queries; then those of keys and values. Where all of it fits, nothing is computed twice; else queries and keys pass in slabs, and queries again for each slab of
 * keys. Three numbers a token and head stay in scratch memory beside the budget. Pure: nothing here touches a GPU.
 */
export function planAttentionBackward(config: Config, tuning: Tuning, limits: GpuLimits, call: BaselineBackwardCall): BaselinePlan {
  return new AttentionBackwardPlanner(config, tuning, limits, call).plan();
}

/** A slab of queries with what belongs to it. */
interface Queries {
  readonly stretch: Stretch;
  readonly q: Slot;
  readonly gradients: Slot;
  readonly rows: Slot;
}

class AttentionBackwardPlanner extends ProjectionBackwardPlanner {
  readonly #sizes: ReturnType<typeof rowSizes>;
  /** Tokens of a slab, and batch rows where all their tokens are in it. */
  readonly #keys: number;
  readonly #queries: number;
  readonly #rowsAtOnce: number;

  constructor(config: Config, tuning: Tuning, limits: GpuLimits, call: BaselineBackwardCall) {
    super(config, tuning, limits, call);
    const { batch, length } = call;
    const size = rowSizes(config);
    const half = rowBudget(config.scratchBudget) / 2;
    const tileSteps = Math.max(attentionTileSteps(this.head4, this.queriesOfLane), attentionBackwardTileSteps(this.head4));
    const mostSteps = ATTENTION_TILE * Math.floor(MAX_INNER_STEPS / tileSteps);
    const keyRows = Math.min(Math.floor(half / size.key), this.rowsBound(size.kv));
    const queryRows = Math.min(
      Math.floor(half / size.query),
      this.rowsBound(Math.max(size.q, attentionRowBytes(this.heads), attentionStatsBytes(this.heads, this.head4))),
    );
    this.#sizes = size;
    this.#keys = wholeTiles(Math.min(keyRows, mostSteps), length);
    this.#queries = wholeTiles(Math.min(queryRows, mostSteps), length);
    const isWhole = this.#keys === length && this.#queries === length;
    const rows = Math.floor(Math.min(keyRows, queryRows, slabRows(size.query)) / length);
    this.#rowsAtOnce = isWhole ? Math.max(1, Math.min(batch, rows)) : 1;
  }

  plan(): BaselinePlan {
    const { batch } = this.call;
    for (let row = 0; row < batch; row += this.#rowsAtOnce) {
      const rows = Math.min(this.#rowsAtOnce, batch - row);
      for (const stretch of this.#slabs(row, rows, this.#queries)) this.#queryGradients(stretch);
      for (const stretch of this.#slabs(row, rows, this.#keys)) this.#keyGradients(stretch);
    }
    return this;
  }

  /** Attention of a slab of queries, and the gradients of the queries and of the output's projection. */
  #queryGradients(stretch: Stretch): void {
    const { q, gradients, rows } = this.#of(stretch);
    const { heads, head4, maxWorkgroups } = this;
    const count = stretch.rows * stretch.tokens;
    const mixed = this.scratchSlot("mixed", count * this.#sizes.q);
    const stats = this.scratchSlot("stats", count * attentionStatsBytes(heads, head4));
    const dq = this.scratchSlot("query_gradients", count * this.#sizes.q);
    const seen = this.#slabs(stretch.row, stretch.rows, this.#keys).filter(
      ({ token }) => !this.call.causal || token < stretch.token + stretch.tokens,
    );
    seen.forEach((keys, i) => {
      const kv = this.keysAndValues(keys);
      this.steps.push(
        planAttentionKernel({
          ...this.#pair(stretch, keys),
          q,
          kv,
          stats,
          y: mixed,
          accumulate: i > 0,
          last: i === seen.length - 1,
          queryRows: this.queriesOfLane,
        }),
      );
    });
    this.steps.push(
      planAttentionRows({
        y: mixed,
        gradients,
        stats,
        columnGroups: attentionColumnGroups(head4),
        rows,
        heads,
        head4,
        queries: count,
        maxWorkgroups,
      }),
    );
    this.outputGradients(stretch, mixed);
    seen.forEach((keys, i) => {
      const kv = this.keysAndValues(keys);
      const scale = i === seen.length - 1 ? 1 / Math.sqrt(this.headDim) : 1;
      this.steps.push(planAttentionBackwardQ({ ...this.#pair(stretch, keys), q, kv, gradients, rows, dq, accumulate: i > 0, scale }));
    });
    this.queryGradients(stretch, dq);
  }

  /** Gradients of a slab of keys and values. */
  #keyGradients(stretch: Stretch): void {
    const kv = this.keysAndValues(stretch);
    const dkv = this.scratchSlot("key_value_gradients", stretch.rows * stretch.tokens * this.#sizes.kv);
    const seeing = this.#slabs(stretch.row, stretch.rows, this.#queries).filter(
      ({ token, tokens }) => !this.call.causal || token + tokens > stretch.token,
    );
    seeing.forEach((queries, i) => {
      // Queries have a factor of log2(e) / √d already.
      const scale = i === seeing.length - 1 ? Math.LN2 : 1;
      const { stretch: _, ...slots } = this.#of(queries);
      this.steps.push(planAttentionBackwardKv({ ...this.#pair(queries, stretch), ...slots, kv, dkv, accumulate: i > 0, scale }));
    });
    this.keyValueGradients(stretch, dkv);
  }

  #of(stretch: Stretch): Queries {
    const { length } = this.call;
    const bytes = attentionRowBytes(this.heads);
    const all = this.scratchSlot("rows", stretch.rows * length * bytes);
    const rows = { ...all, offset: stretch.token * bytes, size: stretch.rows * stretch.tokens * bytes };
    return { stretch, q: this.queries(stretch), gradients: this.contextGradients(stretch), rows };
  }

  #pair(queries: Stretch, keys: Stretch) {
    const { heads, head4, maxWorkgroups } = this;
    return {
      heads,
      head4,
      batchRows: queries.rows,
      queries: queries.tokens,
      firstQuery: queries.token,
      keys: keys.tokens,
      firstKey: keys.token,
      causal: this.call.causal,
      maxWorkgroups,
    };
  }

  #slabs(row: number, rows: number, tokens: number): Stretch[] {
    const { length } = this.call;
    return Array.from({ length: Math.ceil(length / tokens) }, (_, i) => ({
      row,
      rows,
      token: i * tokens,
      tokens: Math.min(tokens, length - i * tokens),
    }));
  }
}
