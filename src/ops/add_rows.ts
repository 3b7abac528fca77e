import source from "../../shaders/add_rows.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { ACTIVATION_FUNCTIONS, defineKernel, EMPTY, variantsOf, workgroupsFor } from "./op.ts";

export const addRows = defineKernel({
  name: "add_rows",
  source,
  uses: [ACTIVATION_FUNCTIONS],
  variants: variantsOf({ activation: ["identity", "silu"] }),
});

/** Rows of a slot, in elements: where the first is, and how far it is from one batch row and one token to the next (0: the same for all). */
export interface RowsOf {
  readonly slot: Slot;
  readonly at?: number;
  readonly batch: number;
  readonly token: number;
}

export interface AddRowsArguments {
  readonly a: RowsOf;
  readonly b?: RowsOf | undefined;
  /** 1 + these multiply b. */
  readonly g?: RowsOf | undefined;
  readonly y: RowsOf;
  readonly activation?: "identity" | "silu";
  readonly limit?: number | undefined;
  readonly batch: number;
  readonly tokens: number;
  readonly dim: number;
  readonly maxWorkgroups: number;
}

/** y = clamp(act(a + b (1 + g))); one dispatch. */
export function planAddRows(a: AddRowsArguments): Step {
  const { batch, tokens, dim, limit } = a;
  const size = batch * tokens * dim;
  const nothing: RowsOf = { slot: EMPTY, batch: 0, token: 0 };
  const operands = { a: a.a, b: a.b ?? nothing, g: a.g ?? nothing, y: a.y };
  const places = Object.entries(operands).flatMap(([name, rows]) => [
    [`${name}_at`, rows.at ?? 0] as const,
    [`${name}_batch`, rows.batch] as const,
    [`${name}_token`, rows.token] as const,
  ]);
  return {
    kernel: addRows,
    variant: { activation: a.activation ?? "identity" },
    uniforms: {
      ...Object.fromEntries(places),
      dim,
      tokens,
      size,
      has_b: a.b ? 1 : 0,
      has_g: a.g ? 1 : 0,
      limited: limit === undefined ? 0 : 1,
      limit: limit ?? 0,
    },
    slots: Object.fromEntries(Object.entries(operands).map(([name, { slot }]) => [name, slot])),
    workgroups: workgroupsFor(Math.ceil(size / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: size * 4 * (1 + (a.b ? 1 : 0) + (a.g ? 1 : 0)),
    bytesWritten: size * 4,
  };
}
