import { describe, expect, it } from "vitest";
import type { HlmConfig } from "../../src/models/hlm_weights.ts";
import { rowGroupWords } from "../../src/ops/embed_backward.ts";
import type { Step } from "../../src/runtime/kernel.ts";
import { tuningFor } from "../../src/runtime/tuning.ts";
import { arenaLayout } from "../../src/train/arena.ts";
import { decayTables, planEvaluation, planMicroBatch, planUpdate, type StepPlan, type StepShape } from "../../src/train/step_plan.ts";

const config = { vocabSize: 65, dim: 128, layers: 3, contextLength: 1 << 17, order: 2, orderExpand: 2, ffwExpand: 2 };
const limits = { maxBufferSize: 1 << 28, maxStorageBufferBindingSize: 1 << 27, maxComputeWorkgroupsPerDimension: 65_535 };
const tuning = tuningFor({ vendor: "", architecture: "", description: "", software: false }, new Set());
const model = { config, layout: arenaLayout(config), tuning, limits, scratchBudget: 16 << 20 };

/** Bytes of what the caller uploads for a micro-batch. */
function uploads({ batch, length, positions }: StepShape, config: HlmConfig): Record<string, number> {
  const { vocabSize, dim } = config;
  const rows = batch * length;
  const words = (count: number) => Math.ceil(count / 4) * 16;
  return {
    ids: words(rows),
    targets: words(rows),
    position_rows: words(rows),
    features: words(positions * dim),
    loss_weight: 16,
    status: 32,
    id_groups: words(rowGroupWords(rows, vocabSize)),
    position_groups: words(rowGroupWords(rows, positions)),
    decays: decayTables(config, {}).byteLength,
    // Bindings that a dispatch has no use for.
    empty: 256,
    unused: 256,
  };
}

/** Every binding lies in its buffer, begins where adapters can bind, and is within the device's limits. */
function checkSteps(steps: readonly Step[], sizes: ReadonlyMap<string, number>, of: { limits: typeof limits }): void {
  for (const { kernel, slots, workgroups } of steps) {
    for (const [name, { buffer, offset, size }] of Object.entries(slots)) {
      const what = `${kernel.name}: ${name} in ${buffer}`;
      const available = sizes.get(buffer);
      if (available === undefined) throw new Error(`${what} is nobody's`);
      expect(offset % 256, what).toBe(0);
      expect(size, what).toBeGreaterThan(0);
      expect(offset + size, what).toBeLessThanOrEqual(available);
      expect(size, what).toBeLessThanOrEqual(of.limits.maxStorageBufferBindingSize);
    }
    // No buffer is read and written by one dispatch.
    const written = kernel.bindings.filter(({ type }) => type === "storage").map(({ name }) => slots[name]?.buffer);
    const read = kernel.bindings.filter(({ type }) => type === "read-only-storage").map(({ name }) => slots[name]?.buffer);
    expect(
      read.filter((buffer) => buffer !== "empty" && buffer !== "unused" && written.includes(buffer)),
      kernel.name,
    ).toEqual([]);
    for (const count of workgroups) expect(count, kernel.name).toBeLessThanOrEqual(of.limits.maxComputeWorkgroupsPerDimension);
  }
}

function sizesOf(plan: StepPlan, shape: StepShape, of: typeof model): Map<string, number> {
  const arenas = ["weights", "gradients", "first", "second"].map((name) => [`arena.${name}`, of.layout.size] as const);
  return new Map<string, number>([...arenas, ...plan.scratch, ...plan.kept, ...Object.entries(uploads(shape, of.config))]);
}

describe("the plan of a step", () => {
  const small = { ...limits, maxStorageBufferBindingSize: 4 << 20, maxComputeWorkgroupsPerDimension: 500 };
  const odd = { ...config, vocabSize: 4999, dim: 50, order: 3, orderExpand: 1, ffwExpand: 3, layers: 2 };
  it.each([
    ["a usual one", model, { batch: 12, length: 64, positions: 64 }],
    ["a single token", model, { batch: 1, length: 1, positions: 1 }],
    ["a long one", model, { batch: 1, length: 1 << 16, positions: 1 << 16 }],
    [
      "odd sizes, small bindings, small grids",
      { ...model, config: odd, layout: arenaLayout(odd), limits: small, scratchBudget: 2 << 20 },
      { batch: 7, length: 333, positions: 448 },
    ],
    ["the options", { ...model, ...withOptions() }, { batch: 3, length: 100, positions: 1 }],
  ])("binds what is there: %s", (_name, of, shape) => {
    for (const plan of [planMicroBatch(of, shape), planEvaluation(of, shape)]) checkSteps(plan.steps, sizesOf(plan, shape, of), of);
    const update = planUpdate(of);
    const sizes = new Map<string, number>([
      ...sizesOf({ ...update, kept: new Map() }, shape, of),
      ["settings", 32],
      ["decayed", Math.max(16, Math.ceil(of.layout.size / 4 / 128) * 4) * 2],
    ]);
    checkSteps(update.steps, sizes, of);
  });

  it("keeps what grows with the tokens in proportion, and scratch as it is", () => {
    const bytes = (of: ReadonlyMap<string, number>) => [...of.values()].reduce((sum, size) => sum + size, 0);
    const [a, b, c] = [14, 15, 16].map((log) => planMicroBatch(model, { batch: 1, length: 1 << log, positions: 1 << log }));
    expect(bytes(c!.kept)).toBe(2 * bytes(b!.kept));
    expect(bytes(b!.kept)).toBe(2 * bytes(a!.kept));
    // Parts of frequent tokens are the only scratch that grows: a 32nd of an activation.
    const rest = (plan: StepPlan) => bytes(new Map([...plan.scratch].filter(([role]) => role !== "group_blocks")));
    expect(rest(c!)).toBe(rest(b!));
    const transposed = [...c!.scratch].filter(([role]) => role.startsWith("transposed")).reduce((sum, [, size]) => sum + size, 0);
    expect(rest(c!) - transposed).toBeLessThan(2.5 * model.scratchBudget);
    for (const [role, size] of c!.kept) expect(size, role).toBeLessThanOrEqual((1 << 16) * config.dim * 4);
  });

  it("evaluates in what two layers need", () => {
    const shape = { batch: 4, length: 64, positions: 64 };
    const deep = { ...config, layers: 12 };
    const kept = (layers: number) =>
      [...planEvaluation({ ...model, config: { ...deep, layers }, layout: arenaLayout({ ...deep, layers }) }, shape).kept].length;
    expect(kept(12)).toBe(kept(2));
  });
});

function withOptions() {
  const own = { ...config, tokenShift: true, decay: true, positions: false };
  return { config: own, layout: arenaLayout(own) };
}
