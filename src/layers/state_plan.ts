import { FULL, leftOut } from "../checks.ts";
import { DECAY_ROWS } from "../ops/decay_moments.ts";
import { planLinear } from "../ops/linear.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import { EMPTY, type Rows } from "../ops/op.ts";
import { planStateTotals, STATE_LEVELS } from "../ops/state_totals.ts";
import { planStep } from "../ops/step.ts";
import { SOURCE_MEAN, SOURCE_PACKED, SOURCE_SEGMENT } from "../ops/types.ts";
import { planUpdateState } from "../ops/update_state.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import type { Slot, Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { causalSlabs, decayed } from "./hom_plan.ts";
import { type BlockSums, type PlanConfig, type PlannedCall, Planner } from "./planner.ts";

/** What to do with a state whose batch is `call.batch`. */
export type StateOperation =
  /** `perCall`: adds the mean of the tokens instead of their sum. */
  | { readonly kind: "append"; readonly lengths: boolean; readonly perCall?: boolean }
  | { readonly kind: "appendPacked"; readonly cuSeqlens: Uint32Array; readonly perCall?: boolean }
  | { readonly kind: "query" }
  | { readonly kind: "queryPacked"; readonly states: number }
  | { readonly kind: "step" }
  /** One token a batch row, out of a ring of `ring` tokens. */
  | { readonly kind: "stepWindow"; readonly ring: number };

export interface StatePlan {
  readonly steps: readonly Step[];
  readonly scratch: ReadonlyMap<string, number>;
}

/** Words of a state's entry before the counts of the batch rows (shaders/shared/state_levels.wgsl, shaders/step.wgsl). */
export const ENTRY_COUNTS = 4;

/** The dispatches of one call on a state. Pure: nothing here touches a GPU. */
export function planState(config: PlanConfig, tuning: Tuning, limits: GpuLimits, call: PlannedCall, operation: StateOperation): StatePlan {
  const p = new Planner(config, tuning, limits, call);
  if (config.decay && operation.kind !== "step") throw new Error(`planState: decayed means are stepped, got ${operation.kind}`);
  const one = operation.kind === "stepWindow" || (operation.kind === "step" && call.contextLength === 1);
  if (FULL && one) p.lanes = tuning.decodeLanes;
  const states =
    operation.kind === "appendPacked" ? operation.cuSeqlens.length - 1 : operation.kind === "queryPacked" ? operation.states : call.batch;
  const slots: StateSlots = {
    states,
    levels: { buffer: "levels", offset: 0, size: STATE_LEVELS * states * p.rowBytes },
    entry: { buffer: "entry", offset: 0, size: Math.max(16, (ENTRY_COUNTS + states) * 4) },
  };
  if (one) stepOne(p, slots, operation.kind === "stepWindow" ? operation.ring : undefined);
  else if (FULL && config.decay) decayed(p, { ...slots.levels, size: DECAY_ROWS * states * p.rowBytes });
  else if (operation.kind === "append") append(p, slots, operation.lengths, operation.perCall ?? false);
  else if (operation.kind === "query") query(p, slots);
  else if (operation.kind === "step") stepMany(p, slots);
  else if (!FULL) throw leftOut("planState");
  else if (operation.kind === "appendPacked") p.packedSums(operation.cuSeqlens, adder(p, slots, operation.perCall ?? false), () => {});
  else if (operation.kind === "queryPacked") queryPacked(p, slots);
  return { steps: p.steps, scratch: p.scratch };
}

interface StateSlots {
  readonly states: number;
  readonly levels: Slot;
  readonly entry: Slot;
}

/** Adds block sums to the state: at once, or through whole sums where they come in several parts, so that the state sees one addition a call. */
function adder(p: Planner, { states, levels, entry }: StateSlots, perCall: boolean): (sums: BlockSums) => void {
  const common = { levels, entry, batch: states, stride4: p.stride4, maxWorkgroups: p.maxWorkgroups };
  const divisors = { slot: { buffer: "divisors", offset: 0, size: states * 4 } };
  return ({ first, last, ...sums }) => {
    if (first && last && !perCall) {
      p.steps.push(planUpdateState({ ...common, ...sums }));
      return;
    }
    const moments = p.scratchSlot("moments", sums.segments * p.rowBytes);
    const divisor = perCall && last ? divisors : undefined;
    p.steps.push(planMergeMoments({ ...sums, moments, stride4: p.stride4, accumulate: !first, divisor, maxWorkgroups: p.maxWorkgroups }));
    const { segments, firstSegment } = sums;
    if (last) p.steps.push(planUpdateState({ ...common, partial: moments, segments, firstSegment, blocksPerSegment: 1 }));
  };
}

function append(p: Planner, slots: StateSlots, lengths: boolean, perCall: boolean): void {
  const { batch, contextLength } = p.call;
  const blocks = Math.ceil(contextLength / p.blockTokens);
  const chunk = Math.max(1, Math.min(batch, Math.floor(p.sumRows / blocks), Math.floor(p.bindTokens / contextLength)));
  for (let row = 0; row < batch; row += chunk) {
    const segments = Math.min(chunk, batch - row);
    const kind = lengths ? "lengths" : "none";
    p.segmentSums({ firstSegment: row, segments, segmentsPerRow: 1, segmentLength: contextLength, kind }, adder(p, slots, perCall));
  }
}

function totals(p: Planner, { states, levels, entry }: StateSlots, role: string, divide: boolean): Slot {
  const moments = p.scratchSlot(role, states * p.rowBytes);
  p.steps.push(planStateTotals({ levels, entry, moments, batch: states, stride4: p.stride4, divide, maxWorkgroups: p.maxWorkgroups }));
  return moments;
}

function query(p: Planner, slots: StateSlots): void {
  const { batch, queryLength } = p.call;
  const moments = totals(p, slots, "moments", true);
  const source = { source: SOURCE_SEGMENT, moments, firstSegment: 0, segmentsPerRow: 1, segmentLength: queryLength } as const;
  p.queries({ firstBatchRow: 0, batchRows: batch, firstQuery: 0, queries: queryLength }, source);
}

function queryPacked(p: Planner, slots: StateSlots): void {
  const moments = totals(p, slots, "moments", true);
  const table: Slot = { buffer: "table", offset: 0, size: (slots.states + 1) * 4 };
  const source = { source: SOURCE_PACKED, moments, table, firstSegment: 0, packedSegments: slots.states } as const;
  p.queries({ firstBatchRow: 0, batchRows: 1, firstQuery: 0, queries: p.call.queryLength }, source);
}

/** Two dispatches: state and gated mean, then the output projection. */
function stepOne(p: Planner, { levels, entry, states }: StateSlots, ring: number | undefined): void {
  const { dim, activation, order, pom } = p.config;
  const { batch, out, residual, outDtype = "f32" } = p.call;
  const { expand4, lanes, maxWorkgroups, weightDtype } = p;
  const decay = FULL && p.config.decay && { decay: p.decay, levels: { ...levels, size: DECAY_ROWS * states * p.rowBytes } };
  const rows = p.scratchSlot("rows", batch * p.rowBytes);
  const one = { length: dim, stride: dim, first: 0 };
  const x: Rows =
    ring === undefined ? p.contextRows(0, batch) : { ...p.contextRows(0, ring * batch), buffer: "history", byteOffset: 0, dtype: "f32" };
  const length = p.stride4 * 4;
  const view = { ...one, count: batch };
  const gate = pom?.gates ? "none" : pom ? "hard_sigmoid" : "sigmoid";
  const step = {
    ...p.expansion(0, batch),
    x,
    w: p.projections,
    weightDtype,
    entry,
    levels,
    rows,
    activation,
    gate,
    order,
    expand4,
    batch,
    lanes,
    maxWorkgroups,
    ...decay,
  } as const;
  p.steps.push(planStep(step));
  if (FULL && pom?.gates) {
    p.slab({ firstBatchRow: 0, batchRows: batch, firstQuery: 0, queries: 1 }, { source: SOURCE_MEAN, moments: EMPTY }, rows);
    return;
  }
  p.steps.push(
    planLinear({
      x: { buffer: rows.buffer, byteOffset: 0, length, stride: length, first: 0, count: batch },
      w: p.ag,
      weightDtype,
      y: { buffer: "out", byteOffset: out, dtype: outDtype, ...view },
      residual: residual === undefined ? undefined : { buffer: "residual", byteOffset: residual, dtype: outDtype, ...view },
      tile: p.tile,
      lanes,
      maxWorkgroups,
    }),
  );
}

/** Causal inside the chunk: running sums on top of the state's, which takes the chunk's total at the end. */
function stepMany(p: Planner, slots: StateSlots): void {
  const { levels, entry, states } = slots;
  const initial = totals(p, slots, "initial", false);
  causalSlabs(p, {
    ahead: 1,
    table: entry,
    prefixTable: "counts",
    tableOffset: ENTRY_COUNTS,
    initial,
    done: (row, rows, running) => {
      const common = { levels, entry, batch: states, stride4: p.stride4, maxWorkgroups: p.maxWorkgroups };
      p.steps.push(planUpdateState({ ...common, partial: running, segments: rows, firstSegment: row, blocksPerSegment: 2 }));
    },
  });
}
