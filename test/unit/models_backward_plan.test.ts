import { describe, expect, it } from "vitest";
import { planGnnBackward } from "../../src/models/gnn_trainable.ts";
import type { ModelSteps, TrainedBlock } from "../../src/models/model_training.ts";
import { planVisionBackward } from "../../src/models/vision_trainable.ts";
import { LIMITS, MIB, planLaws, TUNINGS } from "../support/plans.ts";

function blocksOf(layers: number, sizes: { dim: number; activation: "gelu" | "tanh" }, prefix: (i: number) => string, hom: string): TrainedBlock[] {
  const dtypes = { dtype: "f32", weightDtype: "f32" } as const;
  const mixer = { ...sizes, order: 2, orderExpand: 2, bias: true, decay: false, scratchBudget: 64 * MIB, ...dtypes } as const;
  return Array.from({ length: layers }, (_, i) => ({ mixer, ffwExpand: 4, hom: `${prefix(i)}${hom}`, ffw: prefix(i) }));
}

const weightsOf = (blocks: readonly TrainedBlock[]) =>
  blocks.flatMap(({ hom, ffw }) => [`${hom}projections`, `${hom}ag`, `${ffw}ffw.1`, `${ffw}ffw.3`]);

interface Planned {
  readonly plan: ModelSteps;
  readonly inputs: readonly string[];
  readonly weights: readonly string[];
  /** Buffers whose zeros are read where nothing has written. */
  readonly zeros?: readonly string[];
}

const GRAPHS = [
  { dim: 5, layers: 1, classes: undefined, batch: 1, nodes: 1, graphs: 1 },
  { dim: 65, layers: 3, classes: 7, batch: 4, nodes: 257, graphs: 1 },
  { dim: 256, layers: 2, classes: 50_000, batch: 2, nodes: 700, graphs: 2 },
  { dim: 128, layers: 2, classes: undefined, batch: 1, nodes: 5_000, graphs: 1 },
];

function planGraph(c: (typeof GRAPHS)[number], tuning: (typeof TUNINGS)[number]): Planned {
  const { dim, layers, classes, batch, nodes, graphs } = c;
  const blocks = blocksOf(layers, { dim, activation: "tanh" }, (i) => `layers.${i}.`, "");
  const shape = { batch, queryLength: nodes, contextLength: nodes };
  const sizes = { dim, order: 2, orderExpand: 2, ffwExpand: 4, layers, classes };
  const plan = planGnnBackward({ tuning, limits: LIMITS }, sizes, blocks, {
    shape,
    plan: { kind: "full", batch: graphs },
    offsets: { x: 4, gradOut: 8 },
  });
  return { plan, inputs: ["x", "gradOut", "mask", "table", "empty"], weights: ["linear", ...weightsOf(blocks)] };
}

const IMAGES = [
  { dim: 5, layers: 1, classes: 1, batch: 1, side: 1, known: 1, pooling: "cls" },
  { dim: 64, layers: 2, classes: 10, batch: 200, side: 7, known: 49, pooling: "cls" },
  { dim: 66, layers: 2, classes: 10, batch: 3, side: 9, known: 49, pooling: "none" },
  { dim: 256, layers: 1, classes: 21_841, batch: 3, side: 50, known: 196, pooling: "none" },
  { dim: 768, layers: 2, classes: 1_000, batch: 64, side: 14, known: 196, pooling: "none" },
] as const;

function planImages(c: Omit<(typeof IMAGES)[number], "layers"> & { readonly layers: number }, tuning: (typeof TUNINGS)[number]): Planned {
  const { dim, layers, classes, batch, side, known, pooling } = c;
  const blocks = blocksOf(layers, { dim, activation: "gelu" }, (i) => `layers.${i}.`, "hom.");
  const n = side * side;
  // The last row and column of pixels fill no patch.
  const sizes = { batch, height: side * 8 + 1, width: side * 8 + 1, n, channels: 3, patch: 8, dim };
  const shape = { batch, queryLength: n + 1, contextLength: n + 1 };
  const read = pooling === "cls" ? { at: 0, count: 1 } : { at: 1, count: n };
  const call = { sizes, shape, resolved: { plan: { kind: "padding" } }, read, known, offsets: { image: 4, gradOut: 8 } } as const;
  const plan = planVisionBackward({ tuning, limits: LIMITS }, { classes }, blocks, call);
  const inputs = ["image", "gradOut", "mask", "divisors", "positions", "cls_token", "grid", "empty"];
  return { plan, inputs, weights: ["conv", "out_proj", ...weightsOf(blocks)], zeros: pooling === "cls" ? [`dx${layers % 2}`] : [] };
}

const bytes = (sizes: ReadonlyMap<string, number>) => [...sizes.values()].reduce((sum, size) => sum + size, 0);
const cases = [
  ...GRAPHS.flatMap((c) =>
    TUNINGS.map((tuning, i) => {
      const name = `graphs D${c.dim}, B${c.batch}, ${c.nodes} nodes, ${c.classes ?? "no"} classes, tuning ${i}`;
      return { name, rows: c.batch * c.nodes * c.dim, of: (more: number) => planGraph({ ...c, layers: c.layers + more }, tuning) };
    }),
  ),
  ...IMAGES.flatMap((c) =>
    TUNINGS.map((tuning, i) => {
      const name = `images D${c.dim}, B${c.batch}, ${c.side}² patches, ${c.classes} classes, tuning ${i}`;
      return { name, rows: c.batch * (c.side ** 2 + 1) * c.dim, of: (more: number) => planImages({ ...c, layers: c.layers + more }, tuning) };
    }),
  ),
];

describe("the plan of a model's gradients", () => {
  describe.each(cases)("$name", ({ rows, of }) => {
    const { plan, inputs, weights, zeros = [] } = of(0);
    const given = [...inputs, ...weights, ...Object.keys(plan.gradients)];
    const { "stays within the scratch budget": _, ...laws } = planLaws(new Set([...given, ...zeros]), new Set(weights));
    const own = { steps: plan.steps, scratch: new Map([...plan.scratch, ...plan.kept]) };
    it.each(Object.entries(laws))("%s", (_, law) => expect(law(own, 0)).toBeUndefined());

    it("writes every gradient, and nothing else that is the caller's", () => {
      const written = plan.steps.flatMap(({ kernel, slots }) =>
        kernel.bindings.flatMap(({ name, type }) => (type === "storage" ? [slots[name]!.buffer] : [])),
      );
      const outside = [...new Set(written)].filter((buffer) => given.includes(buffer) && buffer !== "empty");
      expect(outside.sort()).toEqual(Object.keys(plan.gradients).sort());
    });

    it("keeps two rows a token and layer, and scratch that does not grow with layers", () => {
      const longer = of(1).plan;
      const padding = 2 * 16;
      expect(Math.abs(bytes(longer.kept) - bytes(plan.kept) - 2 * rows * 4)).toBeLessThanOrEqual(padding);
      expect(longer.scratch).toEqual(plan.scratch);
    });
  });
});
