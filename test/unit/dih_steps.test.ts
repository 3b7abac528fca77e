import { describe, expect, it } from "vitest";
import { DihSteps } from "../../src/models/dih_steps.ts";
import { LIMITS, MIB, planLaws, TUNINGS } from "../support/plans.ts";

const INPUTS =
  "image gradOut features classes groups position cond_position register_rows resize empty in_conv out_proj out_mod.1 time_emb.0 time_emb.2".split(
    " ",
  );
const LAYER = "hom.projections hom.ag ffw.0 ffw.2 cond_mlp.1 gate_mlp.1".split(" ");
const CASES = [
  { dim: 4, patchSize: 1, channels: 1, layers: 1, registers: undefined, batch: 1, side: 1 },
  { dim: 64, patchSize: 2, channels: 3, layers: 2, registers: undefined, batch: 70, side: 4 },
  { dim: 64, patchSize: 2, channels: 3, layers: 2, registers: 5, batch: 3, side: 4 },
  { dim: 768, patchSize: 2, channels: 4, layers: 2, registers: 16, batch: 2, side: 16 },
  { dim: 768, patchSize: 2, channels: 4, layers: 2, registers: 16, batch: 2, side: 19 },
  { dim: 256, patchSize: 4, channels: 16, layers: 2, registers: undefined, batch: 1, side: 128 },
];

function planOf(c: (typeof CASES)[number], tuning: (typeof TUNINGS)[number]) {
  const { batch, side, ...own } = c;
  const sizes = { ...own, order: 2, orderExpand: 2 };
  const config = { ...sizes, classes: 10, timesteps: 1000, imageSize: Math.min(16, side) * c.patchSize, ffwExpand: 4 };
  const { dim, order, orderExpand } = sizes;
  const dtypes = { dtype: "f32", weightDtype: "f32" } as const;
  const hom = { dim, order, orderExpand, activation: "gelu", bias: true, decay: false, scratchBudget: 64 * MIB, ...dtypes } as const;
  return new DihSteps({ config, hom, gpu: { tuning, limits: LIMITS } }, { batch, side, image: 4, gradOut: 8 });
}

const layerNames = (layers: number, names: readonly string[]) =>
  Array.from({ length: layers }, (_, i) => names.map((name) => `layers.${i}.${name}`)).flat();
const cases = CASES.flatMap((c) =>
  TUNINGS.map((tuning, i) => ({ ...c, tuning, name: `D${c.dim}, B${c.batch}, ${c.side}², ${c.registers ?? "no"} registers, tuning ${i}` })),
);

describe("the plan of the diffusion model's gradients", () => {
  describe.each(cases)("$name", ({ tuning, ...c }) => {
    const plan = planOf(c, tuning);
    const weights = [...INPUTS.slice(INPUTS.indexOf("in_conv")), ...layerNames(c.layers, LAYER)];
    const brought = new Set([...INPUTS, ...weights, ...Object.keys(plan.gradients)]);
    const { "stays within the scratch budget": _, ...laws } = planLaws(brought, new Set(weights));
    const own = { steps: plan.steps, scratch: new Map([...plan.scratch, ...plan.kept]) };
    it.each(Object.entries(laws))("%s", (_, law) => expect(law(own, 0)).toBeUndefined());

    it("writes every gradient, and nothing else that is the caller's", () => {
      const written = plan.steps.flatMap(({ kernel, slots }) =>
        kernel.bindings.flatMap(({ name, type }) => (type === "storage" ? [slots[name]!.buffer] : [])),
      );
      const outside = [...new Set(written)].filter((buffer) => brought.has(buffer) && buffer !== "empty");
      expect(outside.sort()).toEqual(Object.keys(plan.gradients).sort());
    });

    it("keeps three rows a token and layer, and scratch that does not grow with layers", () => {
      const longer = planOf({ ...c, layers: c.layers + 1 }, tuning);
      const bytes = ({ kept }: DihSteps) => [...kept.values()].reduce((sum, size) => sum + size, 0);
      const rows = c.batch * (c.side ** 2 + (c.registers ?? 0));
      expect(bytes(longer) - bytes(plan)).toBe(3 * rows * c.dim * 4);
      expect(longer.scratch).toEqual(plan.scratch);
    });
  });
});
