import { planApplyGatesBackward } from "../ops/apply_gates_backward.ts";
import { planGateBackward } from "../ops/gate_backward.ts";
import { planGatesBackward } from "../ops/gates_backward.ts";
import { planLinear } from "../ops/linear.ts";
import { planMergeMoments } from "../ops/merge_moments.ts";
import type { Rows } from "../ops/op.ts";
import { planPolynomialBackward } from "../ops/polynomial_backward.ts";
import { planTranspose } from "../ops/transpose.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot, type Step, TILES, tileFor } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type BackwardCall, BackwardPlanner, type GatedSlab, type Gradients, type TokenSlab, type TransposedWeights } from "./backward_planner.ts";
import type { HomPlan } from "./hom_plan.ts";
import { MAX_INNER_STEPS, momentLayout } from "./planner.ts";
import type { PomPlanConfig } from "./pom_plan.ts";

/** Sizes of the weights, in numbers with their padding. */
function sizesOf({ dim, pom, ...shape }: PomPlanConfig) {
  const { stride4 } = momentLayout({ dim, ...shape });
  const moment = 4 * stride4;
  const model = Math.ceil(dim / 4) * 4;
  const groups = pom.group ? stride4 / pom.group.columns4 : 1;
  const inputs = pom.group?.inputs ?? model;
  return { moment, model, groups, inputs, columns: moment / groups, gates: pom.gates?.layout.stride };
}

/** Bytes of the gradients of packed weights. */
export function pomGradientBytes(config: PomPlanConfig) {
  const { moment, model, inputs, gates } = sizesOf(config);
  return {
    gradProjections: (inputs + 1) * moment * (gates === undefined ? 2 : 1) * 4,
    gradAg: (moment + 1) * model * 4,
    ...(gates !== undefined && { gradGates: (model + 1) * gates * 4 }),
    gradCoefficients: config.pom.degree * moment * 4,
  };
}

/** As `transposedWeights`: a matrix a group of the projection, then that of the gates. */
export function pomTransposed(
  config: PomPlanConfig,
): TransposedWeights & { groups: readonly Slot[]; bytes: { projectionsBack: number; agBack: number } } {
  const { moment, model, groups, inputs, columns, gates = moment } = sizesOf(config);
  let end = 0;
  const slot = (size: number): Slot => {
    const offset = Math.ceil(end / BIND_ALIGNMENT) * BIND_ALIGNMENT;
    end = offset + size;
    return { buffer: "projectionsBack", offset, size };
  };
  const first = slot((columns + 1) * inputs * 4);
  const others = Array.from({ length: groups - 1 }, () => slot((columns + 1) * inputs * 4));
  const se = slot((gates + 1) * model * 4);
  const ag: Slot = { buffer: "agBack", offset: 0, size: (model + 1) * moment * 4 };
  return { ho: first, se, ag, groups: [first, ...others], bytes: { projectionsBack: end, agBack: ag.size } };
}

/** Fills projectionsBack and agBack from projections, gates and ag: whenever the weights have changed. */
export function planPomTranspose(config: PomPlanConfig, limits: GpuLimits): Step[] {
  const { moment, model, inputs, columns, gates } = sizesOf(config);
  const { groups, se, ag } = pomTransposed(config);
  const maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
  const outer = gates === undefined ? 2 * moment : moment;
  const projections: Slot = { buffer: "projections", offset: 0, size: (inputs + 1) * outer * 4 };
  const ofGates =
    gates === undefined
      ? { w: projections, outer, first: moment, count: moment }
      : { w: { buffer: "gates", offset: 0, size: (model + 1) * gates * 4 }, outer: gates, first: 0, count: gates };
  return [
    ...groups.map((transposed, i) =>
      planTranspose({ w: projections, transposed, inner: inputs, outer, first: i * columns, count: columns, maxWorkgroups }),
    ),
    planTranspose({ ...ofGates, transposed: se, inner: model, maxWorkgroups }),
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

/**
 * The dispatches of a polynomial mixer's backward pass. Beside the buffers of `planHomBackward` the caller's are constants, gates, query_positions, context_positions,
 * gradGates, and gradCoefficients `[degree, k·E]`. Pure: nothing here touches a GPU.
 */
export function planPomBackward(config: PomPlanConfig, tuning: Tuning, limits: GpuLimits, call: BackwardCall): HomPlan {
  const { steps, scratch } = new PomBackwardPlanner(config, tuning, limits, call).plan();
  return { steps, scratch, flops: pomBackwardFlops(config, call) };
}

/** Multiply-adds count 2. Gradients that are computed twice, in slabs of a long causal row, count once. */
export function pomBackwardFlops(config: PomPlanConfig, call: Pick<BackwardCall, "batch" | "queryLength" | "contextLength" | "mask">): number {
  const { dim, order, orderExpand, pom } = config;
  const { batch: B, queryLength: T, contextLength: N } = call;
  const M = order * orderExpand * dim;
  const gates = pom.gates?.layout.stride ?? M;
  const polynomials = B * N * M * (6 * pom.degree + 1);
  // Products as in HoM's, of which the polynomial's are with a group's inputs.
  const products = B * T * dim * (6 * gates + 4 * M) + 8 * B * N * (pom.group?.inputs ?? dim) * M;
  return products + polynomials + (call.mask.kind === "full" ? 4 * B * T * N * M : 0);
}

/** Invocations that keep an adapter busy; more blocks than this would cost more to merge than they bring. */
const BUSY = 32_768;
const MAX_BLOCKS = 512;

class PomBackwardPlanner extends BackwardPlanner {
  readonly #config: PomPlanConfig;
  readonly #back: ReturnType<typeof pomTransposed>;
  #coefficients = false;

  constructor(config: PomPlanConfig, tuning: Tuning, limits: GpuLimits, call: BackwardCall) {
    const back = pomTransposed(config);
    super(config, tuning, limits, call, back);
    this.#config = config;
    this.#back = back;
  }

  protected override get sideBySide(): boolean {
    return this.#config.pom.gates === undefined;
  }

  protected override groups() {
    const { columns } = sizesOf(this.#config);
    const inputs = this.#config.pom.group?.inputs ?? this.#config.dim;
    return this.#back.groups.map((back) => ({ inputs, columns, back }));
  }

  protected override throughGates(slab: GatedSlab): Step[] {
    const { p } = this;
    const { tile, stride4, expand4, maxWorkgroups } = p;
    const { pom, order } = this.#config;
    if (!pom.gates) return [planGateBackward({ ...slab, gate: "hard_sigmoid", w: p.projections, stride4, tile, maxWorkgroups })];
    const { layout } = pom.gates;
    const { logitsAt4: gatesAt4, x, ...rest } = slab;
    const { batch, queryLength } = this.call;
    const { planes, rotations } = pom;
    const positions: Slot = { buffer: "query_positions", offset: 0, size: batch * queryLength * planes * 4 };
    const turned = planes > 0 ? { constants: p.constants, rotations, positions, planes } : undefined;
    const y = this.#gates(x.count);
    const gates: Slot = p.scratchSlot(y.buffer, x.count * p.gateBytes);
    const w: Slot = { buffer: "gates", offset: 0, size: (Math.ceil(x.length / 4) * 4 + 1) * layout.stride * 4 };
    const common = { gates, layout, turned, gatesAt4, slabRows: x.count, expand4, maxWorkgroups };
    return [
      planLinear({ x, w, weightDtype: "f32", y, activation: "hard_sigmoid", tile, maxWorkgroups }),
      planApplyGatesBackward({ ...rest, ...common, stride4 }),
      ...(slab.selection ? [planGatesBackward({ ...rest, ...common, chunks: order })] : []),
    ];
  }

  protected override logits(gradients: Gradients, count: number): Rows {
    return this.#config.pom.gates ? this.#gates(count) : super.logits(gradients, count);
  }

  protected override gateGradient(x: Rows, dlogit: Rows, accumulate: boolean): void {
    const { gates } = sizesOf(this.#config);
    const { gradGates } = pomGradientBytes(this.#config);
    if (gates === undefined || gradGates === undefined) super.gateGradient(x, dlogit, accumulate);
    else this.weights(x, dlogit, { buffer: "gradGates", offset: 0, size: gradGates }, gates, 0, accumulate, true);
  }

  /** Also adds to the gradients of the coefficients. */
  protected override throughMoments({ first, count, ...slab }: TokenSlab): Step[] {
    const { p } = this;
    const { order, scratchBudget, pom } = this.#config;
    const { expand4, stride4, maxWorkgroups } = p;
    const { degree } = pom;
    const rows4 = degree * stride4;
    const tile = TILES[tileFor(count, p.momentTile, expand4)];
    const together = pom.planes > 0 ? 2 : 1;
    const columns = (Math.ceil(expand4 / tile.cols4) * order) / together;
    const tileSteps = together * (Math.ceil(this.#config.dim / 4) + tile.cols4 * tile.rows * (2 * degree + 4));
    const mostRows = tile.rows * Math.max(1, Math.floor(MAX_INNER_STEPS / tileSteps));
    const most = Math.max(1, Math.min(MAX_BLOCKS, Math.ceil(BUSY / columns), Math.floor(Math.min(scratchBudget / 8, p.maxBinding) / (rows4 * 16))));
    const blockRows = Math.min(mostRows, tile.rows * Math.ceil(count / most / tile.rows));
    const out: Slot = { buffer: "gradCoefficients", offset: 0, size: rows4 * 16 };
    const steps: Step[] = [];
    const common = {
      ...slab,
      ...p.expansion(first, count),
      degree,
      x: p.contextRows(first, count),
      w: p.projections,
      order,
      expand4,
      blockRows,
      tile: p.momentTile,
      maxWorkgroups,
    };
    for (let firstRow = 0; firstRow < count; firstRow += most * blockRows) {
      const endRow = Math.min(firstRow + most * blockRows, count);
      const blocks = Math.ceil((endRow - firstRow) / blockRows);
      const accumulate = this.call.accumulate === true || this.#coefficients;
      this.#coefficients = true;
      if (blocks === 1) {
        steps.push(planPolynomialBackward({ ...common, firstRow, endRow, gradients: out, accumulate }));
        continue;
      }
      const partial = p.scratchSlot("weight_partial", blocks * rows4 * 16);
      steps.push(
        planPolynomialBackward({ ...common, firstRow, endRow, gradients: partial, accumulate: false }),
        planMergeMoments({
          partial,
          moments: out,
          segments: 1,
          firstSegment: 0,
          stride4: rows4,
          blocksPerSegment: blocks,
          accumulate,
          maxWorkgroups,
        }),
      );
    }
    return steps;
  }

  /** Of a slab, and in their place the gradients of their logits. */
  #gates(count: number): Rows {
    const stride = this.p.gateBytes / 4;
    return { buffer: "gated", byteOffset: 0, length: stride, stride, first: 0, count };
  }
}
