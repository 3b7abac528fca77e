import { type MaskPlan, minimumScratch } from "../../src/layers/hom_plan.ts";
import type { HomPlanConfig } from "../../src/layers/planner.ts";
import { BIND_ALIGNMENT, GROUP, packUniforms, type Step, TILES } from "../../src/runtime/kernel.ts";
import type { Tuning } from "../../src/runtime/tuning.ts";

/** Rows of the smaller tile: more iterations than the larger one. */
const TILE_ROWS = TILES["8x4"].rows;
export const MIB = 1 << 20;
export const LIMITS = { maxBufferSize: 256 * MIB, maxStorageBufferBindingSize: 128 * MIB, maxComputeWorkgroupsPerDimension: 65_535 };
/** lavapipe stops an invocation after this many loop iterations, without an error. */
const MOST_ITERATIONS = 65_535;
export const TUNINGS: readonly Tuning[] = [
  { tile: "16x8", blockTokens: 128, prefixBlockTokens: 64, fusedSelectMaxDim: 0, decodeLanes: 1 },
  { tile: "8x4", blockTokens: 64, prefixBlockTokens: 32, fusedSelectMaxDim: 256, decodeLanes: 16 },
  { tile: "16x8", blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim: 256, decodeLanes: 64 },
];

const WIDTHS = [
  { dim: 1, order: 1, orderExpand: 1 },
  { dim: 3, order: 8, orderExpand: 1 },
  { dim: 64, order: 2, orderExpand: 4 },
  { dim: 65, order: 5, orderExpand: 2 },
  { dim: 768, order: 2, orderExpand: 2 },
  { dim: 1024, order: 4, orderExpand: 4 },
  { dim: 2560, order: 2, orderExpand: 2 },
  { dim: 2560, order: 8, orderExpand: 1 },
] as const;

/** The last ones are large batches of short rows. */
const LENGTHS = [
  { batch: 1, length: 1 },
  { batch: 5, length: 257 },
  { batch: 3, length: 4_099 },
  { batch: 1, length: 1_000_003 },
  { batch: 50_000, length: 1 },
  { batch: 5_000, length: 3 },
  { batch: 700, length: 33 },
] as const;

const cuSeqlensOf = (total: number, segment: number): Uint32Array =>
  Uint32Array.from([0, 0, ...Array.from({ length: Math.ceil(total / segment) }, (_, s) => Math.min((s + 1) * segment, total)), total]);

export function masksFor(batch: number, length: number): MaskPlan[] {
  const masks: MaskPlan[] = [
    { kind: "none" },
    { kind: "padding" },
    { kind: "lengths" },
    { kind: "causal", ahead: 1 },
    { kind: "causal", ahead: 8 },
    { kind: "blockCausal", block: Math.min(3, length) },
    { kind: "blockCausal", block: Math.min(100, length) },
    { kind: "blockCausal", block: length },
  ];
  if (batch <= 10 && length < 1000) masks.push({ kind: "full", batch: 1 }, { kind: "full", batch });
  if (batch === 1) masks.push({ kind: "packed", cuSeqlens: cuSeqlensOf(length, 29) }, { kind: "packed", cuSeqlens: cuSeqlensOf(length, 300_000) });
  return masks;
}

export function nameOf(mask: MaskPlan): string {
  if (mask.kind === "causal") return `causal, ahead ${mask.ahead}`;
  if (mask.kind === "blockCausal") return `blockCausal ${mask.block}`;
  if (mask.kind === "full") return `full of batch ${mask.batch}`;
  return mask.kind === "packed" ? `packed in ${mask.cuSeqlens.length - 1}` : mask.kind;
}

/** A layer and the lengths of a call. */
export interface PlanCase {
  readonly name: string;
  readonly config: HomPlanConfig;
  readonly tuning: Tuning;
  readonly call: { readonly batch: number; readonly queryLength: number; readonly contextLength: number; readonly mask: MaskPlan };
}

/** Budgets of the least, some and the default number of bytes, and one that no single binding can hold. */
export const planCases: readonly PlanCase[] = WIDTHS.flatMap((width) =>
  TUNINGS.flatMap((tuning, t) => {
    const least = minimumScratch({ ...width, activation: "gelu", scratchBudget: 1 }, tuning);
    const momentBytes = width.order * width.orderExpand * width.dim * 4;
    return [least, Math.max(least, 5_000_000), Math.max(least, 64 * MIB), 4096 * MIB].flatMap((scratchBudget) =>
      // A plan of a million steps would show nothing that one of a thousand does not.
      LENGTHS.filter(({ batch, length }) => (batch * length * momentBytes) / scratchBudget < 20).flatMap(({ batch, length }) =>
        masksFor(batch, length).map((mask) => ({
          name: `D${width.dim} k${width.order} e${width.orderExpand}, tuning ${t}, budget ${scratchBudget}, B${batch} N${length}, ${nameOf(mask)}`,
          config: { ...width, activation: "gelu" as const, scratchBudget },
          tuning,
          call: { batch, queryLength: length, contextLength: length, mask },
        })),
      ),
    );
  }),
);

const { rows: ROWS, cols4: COLS4 } = TILES["16x8"];
/** Rows after which a weight's gradient stores what it has. */
const MIN_STRETCH = 512;

/** Iterations of all loops of the busiest invocation, from the kernels' sources. */
function iterations({ kernel, uniforms, variant }: Step): number {
  const u = (name: string): number => {
    const value = uniforms[name];
    if (value === undefined) throw new Error(`${kernel.name} has no uniform ${name}`);
    return value;
  };
  switch (kernel.name) {
    case "moments":
      return (u("block_tokens") / TILE_ROWS) * (1 + u("order") * (1 + u("inner4"))) + u("order");
    case "prefix_moments":
      return (u("block_tokens") / TILE_ROWS) * (1 + u("order") * (1 + u("inner4") + TILE_ROWS)) + 4 * u("order");
    case "merge_moments": // of several ragged segments, none has more blocks than were written
      return u("blocks_per_segment") * (1 + 1 / GROUP) + 1;
    case "scan_moments":
      return u("blocks");
    case "scan_segments":
      return u("segments");
    case "scan_gradients":
      return u("blocks");
    case "sum_gradients": // of each group of queries, its rows twice
      return u("block_tokens") * 3 + 1;
    case "moments_backward":
      return u("order") * (1 + u("inner4") + ROWS * COLS4) + ROWS * COLS4 * (1 + 2 * u("order"));
    case "polynomial_backward": {
      const { rows, cols4 } = TILES[variant.tile ?? "8x4"];
      const together = variant.expand?.name === "rotary" ? 2 : 1;
      const channels = cols4 * (rows * (1 + together) + together * (2 * rows + 2 * u("degree") * (1 + rows)));
      return Math.ceil(u("block_rows") / rows) * (1 + together * (1 + u("inner4") + cols4 * rows) + channels);
    }
    case "apply_gates_backward":
      return 0;
    case "gates_backward":
      return 2 * (Math.ceil(u("head_width") / 4) + 3);
    case "weight_gradient":
      return u("block_rows") * (1 + 1 / MIN_STRETCH) + 4 * ROWS;
    case "merge_gradients":
      return u("blocks") * (1 + 1 / GROUP) + 1;
    case "unpack_linear":
    case "transpose":
    case "activate_backward":
    case "add_rows":
    case "add_rows_backward":
    case "patchify":
    case "unpatchify":
      return 0;
    case "modulate":
    case "modulate_backward": // each row four times, and sums of 64 numbers in between
      return 4 * Math.ceil(u("dim") / 64) + 4 * 16;
    case "sum_rows":
      return u("block_rows");
    case "embed_backward": // of parts of 64 rows
      return 2 * 64;
    case "mask_moments":
    case "gate":
    case "linear":
      return u("inner4") + TILE_ROWS;
    case "gate_backward":
      return u("inner4") + ROWS * COLS4;
    case "select": {
      const lanes = variant.lanes ?? 64;
      return Math.ceil(u("stride4") / lanes) * (1 + u("inner4") + TILE_ROWS + lanes) + TILE_ROWS;
    }
    case "attention": // tiles of 64 keys
      return Math.ceil(u("keys") / 64) * (1 + u("head4") + 8 + 2 * (1 + 8)) + 8;
    case "attention_quads": // tiles of 16 keys
      return Math.ceil(u("keys") / 16) * (1 + u("head4") + 4) + 16;
    case "attention_rows":
      return u("head4");
    case "attention_backward_q":
      return Math.ceil(u("keys") / 32) * (1 + u("head4") + 8);
    case "attention_backward_kv":
      return Math.ceil(u("queries") / 32) * (1 + u("head4") + 8);
    case "append_ones":
      return 0;
    case "random_features":
      return u("levels") * (1 + u("head4")) + 8;
    case "feature_sums":
      return u("block_tokens") + 8;
    case "feature_scores":
      return u("features4") + 8;
    case "feature_products":
      return u("inner4") + (u("local") ? u("block_tokens") / 4 : 0) + 8;
    case "feature_attention_backward":
      return 2 * u("head4");
    case "random_features_backward": // 8 rows of each level on the way up and down
      return 2 * u("levels") * (1 + u("head4") + 8) + u("head4") + 8;
    case "random_vectors_backward":
      return u("levels") * (1 + u("vectors4")) + u("vectors4") + 8;
    default:
      throw new Error(`how often does ${kernel.name} loop?`);
  }
}

interface Checked {
  readonly steps: readonly Step[];
  readonly scratch: ReadonlyMap<string, number>;
}

/** Whether a kernel reads what it has bound to write: in place, or to add to it. */
function readsWritten({ kernel, uniforms }: Step, name: string): boolean {
  switch (kernel.name) {
    case "gate":
      return Number(uniforms["source"]) >= 2;
    case "gate_backward":
      return name === "gradients" || (uniforms["has_selection"] === 1 && Number(uniforms["source"]) >= 2);
    case "scan_segments":
      return name === "moments" || uniforms["accumulate"] === 1;
    case "sum_gradients":
      return name === "rows";
    case "scan_gradients":
      return name === "totals" || uniforms["accumulate"] === 1;
    case "moments_backward":
      return Number(uniforms["source"]) >= 2;
    case "polynomial_backward":
      return name === "rows" ? Number(uniforms["source"]) >= 2 : uniforms["accumulate"] === 1;
    case "apply_gates_backward":
      return name === "gradients" || (uniforms["has_selection"] === 1 && Number(uniforms["source"]) >= 2);
    case "gates_backward":
      return true;
    case "linear":
      return uniforms["has_residual"] === 2;
    case "activate_backward":
      return true;
    case "modulate_backward":
      return name === "dx" && uniforms["accumulate"] === 1;
    case "add_rows_backward":
      return name === "dy";
    case "feature_attention_backward":
      return name === (uniforms["is_second"] === 1 ? "stats" : "shares");
    case "embed_backward":
      return name === "partial" && uniforms["level"] === 1;
    default:
      return uniforms["accumulate"] === 1 && name !== "carry";
  }
}

/**
 * What must hold for the dispatches of any call; each says what is wrong, or nothing.
 * @param brought buffers that the caller brings; all others are scratch
 * @param weights those that are bound whole: whoever makes a layer refuses those that are too large
 */
export const planLaws = (
  brought: ReadonlySet<string>,
  weights: ReadonlySet<string>,
): Record<string, (plan: Checked, budget: number) => string | undefined> => ({
  "stays within the scratch budget": ({ scratch }, budget) => {
    const bytes = [...scratch.values()].reduce((sum, size) => sum + size, 0);
    return bytes > budget ? `${bytes} bytes: ${JSON.stringify([...scratch])}` : undefined;
  },

  "binds aligned ranges that the device can bind, inside the scratch that it names": ({ steps, scratch }) => {
    for (const { kernel, slots } of steps) {
      const storage = kernel.bindings.filter(({ type }) => type !== "uniform").map(({ name }) => name);
      if (storage.some((name) => !(name in slots)) || Object.keys(slots).length !== storage.length)
        return `${kernel.name} binds ${Object.keys(slots)}`;
      for (const [name, { buffer, offset, size }] of Object.entries(slots)) {
        const aligned = Number.isInteger(offset) && offset >= 0 && offset % BIND_ALIGNMENT === 0;
        const sized = Number.isInteger(size) && size >= 4 && size % 4 === 0;
        const fits = size <= LIMITS.maxStorageBufferBindingSize || weights.has(buffer);
        const inside = brought.has(buffer) || offset + size <= (scratch.get(buffer) ?? 0);
        if (!aligned || !sized || !fits || !inside) return `${kernel.name}.${name} is ${buffer} at ${offset}, ${size} bytes`;
      }
    }
    return undefined;
  },

  "never binds one buffer to read and to write in one dispatch": ({ steps }) => {
    for (const { kernel, slots } of steps) {
      const written = kernel.bindings.filter(({ type }) => type === "storage").map(({ name }) => slots[name]?.buffer);
      const read = kernel.bindings.filter(({ type }) => type === "read-only-storage").map(({ name }) => slots[name]?.buffer);
      if (new Set(written).size !== written.length || read.some((buffer) => written.includes(buffer))) return `${kernel.name}: ${read} -> ${written}`;
    }
    return undefined;
  },

  "reads no scratch that the call has not written before": ({ steps }) => {
    const written = new Map<string, number>();
    for (const step of steps) {
      const { kernel, slots, uniforms } = step;
      const bound = kernel.bindings.flatMap(({ name, type }) => {
        const slot = slots[name];
        return slot && type !== "uniform" && !brought.has(slot.buffer) ? [{ name, type, ...slot }] : [];
      });
      for (const { name, type, buffer, offset, size } of bound) {
        const reads = type === "read-only-storage" || readsWritten(step, name);
        const empty = kernel.name === "merge_moments" && name === "partial" && uniforms["ragged"] === 1 && uniforms["blocks_per_segment"] === 0;
        if (reads && !empty && offset + size > (written.get(buffer) ?? 0)) return `${kernel.name} reads ${size} bytes of ${buffer}`;
      }
      for (const { type, buffer, offset, size } of bound) {
        if (type === "storage") written.set(buffer, Math.max(written.get(buffer) ?? 0, offset + size));
      }
    }
    return undefined;
  },

  "dispatches no more workgroups than a device allows, and at least one": ({ steps }) => {
    const bad = steps.find(({ workgroups }) => workgroups.some((n) => !Number.isInteger(n) || n < 1 || n > LIMITS.maxComputeWorkgroupsPerDimension));
    return bad && `${bad.kernel.name} in ${bad.workgroups}`;
  },

  "gives every uniform a value that fits": ({ steps }) => {
    for (const { kernel, uniforms } of steps) packUniforms(kernel, uniforms);
    return undefined;
  },

  "keeps every invocation's loops short": ({ steps }) => {
    const bad = steps.find((step) => iterations(step) > MOST_ITERATIONS);
    return bad && `${bad.kernel.name} loops ${iterations(bad)} times`;
  },
});
