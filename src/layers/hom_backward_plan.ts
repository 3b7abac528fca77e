import { planGateBackward } from "../ops/gate_backward.ts";
import { planMomentsBackward } from "../ops/moments_backward.ts";
import { planTranspose } from "../ops/transpose.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot, type Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type BackwardCall, BackwardPlanner, type GatedSlab, type TokenSlab, type TransposedWeights } from "./backward_planner.ts";
import type { HomPlan } from "./hom_plan.ts";
import { type HomPlanConfig, momentLayout } from "./planner.ts";

/** Weights as the backward pass multiplies by them: each `[outer + 1, inner]`, transposed, the last row 0. */
export function transposedWeights(config: Pick<HomPlanConfig, "dim" | "order" | "orderExpand">) {
  const { stride4 } = momentLayout(config);
  const inner4 = Math.ceil(config.dim / 4);
  const half = (4 * stride4 + 1) * inner4 * 16;
  const second = Math.ceil(half / BIND_ALIGNMENT) * BIND_ALIGNMENT;
  const ho: Slot = { buffer: "projectionsBack", offset: 0, size: half };
  const se: Slot = { buffer: "projectionsBack", offset: second, size: half };
  const ag: Slot = { buffer: "agBack", offset: 0, size: (4 * inner4 + 1) * stride4 * 16 };
  return { ho, se, ag, bytes: { projectionsBack: second + half, agBack: ag.size } };
}

/** Fills projectionsBack and agBack from projections and ag: whenever the weights have changed. */
export function planHomTranspose(config: Pick<HomPlanConfig, "dim" | "order" | "orderExpand">, limits: GpuLimits): Step[] {
  const { stride4 } = momentLayout(config);
  const [moment, model] = [4 * stride4, Math.ceil(config.dim / 4) * 4];
  const { ho, se, ag } = transposedWeights(config);
  const maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
  const projections: Slot = { buffer: "projections", offset: 0, size: (model + 1) * 2 * moment * 4 };
  const common = { w: projections, inner: model, outer: 2 * moment, count: moment, maxWorkgroups };
  return [
    planTranspose({ ...common, transposed: ho, first: 0 }),
    planTranspose({ ...common, transposed: se, first: moment }),
    planTranspose({
      w: { buffer: "ag", offset: 0, size: (moment + 1) * model * 4 },
      transposed: ag,
      inner: moment,
      outer: model,
      first: 0,
      count: model,
      maxWorkgroups,
    }),
  ];
}

/** The dispatches of the layer's backward pass. Pure: nothing here touches a GPU. */
export function planHomBackward(config: HomPlanConfig, tuning: Tuning, limits: GpuLimits, call: BackwardCall): HomPlan {
  const { steps, scratch } = new HomBackwardPlanner(config, tuning, limits, call, transposedWeights(config)).plan();
  return { steps, scratch, flops: backwardFlopsOf(config, call) };
}

/** Multiply-adds count 2. Gradients that are computed twice, in slabs of a long causal row, count once. */
export function backwardFlopsOf(config: HomPlanConfig, call: Pick<BackwardCall, "batch" | "queryLength" | "contextLength" | "mask">): number {
  const { dim, order, orderExpand } = config;
  const { batch: B, queryLength: T, contextLength: N } = call;
  const M = order * orderExpand * dim;
  // Five products of the queries: logits, gated moments, two weights, the queries; four of the context: moments twice, the weight, the tokens.
  return 10 * B * T * dim * M + 8 * B * N * dim * M + (call.mask.kind === "full" ? 4 * B * T * N * M : 0);
}

/** That of a high-order layer. */
class HomBackwardPlanner extends BackwardPlanner {
  readonly #activation: HomPlanConfig["activation"];
  readonly #order: number;

  constructor(config: HomPlanConfig, ...rest: [Tuning, GpuLimits, BackwardCall, TransposedWeights]) {
    super(config, ...rest);
    this.#activation = config.activation;
    this.#order = config.order;
  }

  protected override throughGates(slab: GatedSlab): Step[] {
    const { projections: w, stride4, tile, maxWorkgroups } = this.p;
    return [planGateBackward({ ...slab, w, stride4, tile, maxWorkgroups })];
  }

  protected override throughMoments({ first, count, ...slab }: TokenSlab): Step[] {
    const { projections: w, expand4, tile, maxWorkgroups } = this.p;
    const x = this.p.contextRows(first, count);
    return [planMomentsBackward({ ...slab, x, w, activation: this.#activation, order: this.#order, expand4, tile, maxWorkgroups })];
  }
}
