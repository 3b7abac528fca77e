import type { planApplyGates } from "../ops/apply_gates.ts";
import type { GateLayout } from "../ops/types.ts";
import type { Expand } from "../runtime/kernel.ts";
import type { PlanConfig } from "./planner.ts";

/** What the plan of a polynomial mixer has beside the shape of its moments. Kernels that only it uses come with it. */
export interface PomPlan {
  readonly expand: Expand;
  readonly degree: number;
  /** Of a grouped projection: inputs of a group, and its columns in vec4s. */
  readonly group?: { readonly inputs: number; readonly columns4: number } | undefined;
  /** Planes of chunks that positions turn, each with a position of its own: 0 without a rotation. */
  readonly planes: number;
  /** Coefficients, then the table of rotations, in the caller's buffer `constants`. */
  readonly constantsBytes: number;
  /** Where the table begins, in vec4s. */
  readonly rotations: number;
  /** Gates computed apart, with weights in the caller's buffer `gates`. Default: the projections' columns beside those of the moments. */
  readonly gates?: { readonly layout: GateLayout; readonly plan: typeof planApplyGates } | undefined;
}

/** What the dispatches of a polynomial mixer depend on. */
export interface PomPlanConfig extends PlanConfig {
  readonly pom: PomPlan;
}

/** Multiply-adds count 2. */
export function pomFlops(
  { dim, order, orderExpand, pom }: { dim: number; order: number; orderExpand: number; pom: PomPlan },
  { batch: B, queryLength: T, contextLength: N }: { batch: number; queryLength: number; contextLength: number },
  full: boolean,
): number {
  const M = order * orderExpand * dim;
  const gates = pom.gates ? pom.gates.layout.stride : M;
  const rotation = pom.planes > 0 ? 3 * M : 0;
  const context = B * N * M * (2 * (pom.group?.inputs ?? dim) + 2 * pom.degree + 1) + B * N * rotation;
  const query = B * T * (2 * dim * gates + rotation + M + 2 * dim * M);
  return context + query + (full ? 2 * B * T * N * M : 0);
}
