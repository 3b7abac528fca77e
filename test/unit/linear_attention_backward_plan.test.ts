import { describe, expect, it } from "vitest";
import { vectorsOf } from "../../src/baselines/feature_weights.ts";
import { minimumLinearAttentionBackwardScratch, planLinearAttentionBackward } from "../../src/baselines/linear_attention_backward_plan.ts";
import type { FeatureMap } from "../../src/ops/types.ts";
import { BIND_ALIGNMENT } from "../../src/runtime/kernel.ts";
import { LIMITS, MIB, planLaws, TUNINGS } from "../support/plans.ts";

const WEIGHTS = new Set(["vectors", "counts", ...["q", "kv", "projection"].flatMap((name) => [name, `${name}Back`, `${name}Gradient`])]);
const BROUGHT = new Set([...WEIGHTS, "query", "gradOut", "gradQuery", "empty"]);
const laws = planLaws(BROUGHT, WEIGHTS);

function configOf(shape: { dim: number; heads: number; features: number; featureMap: FeatureMap; levels?: number }) {
  return { levels: 1, ...shape, bias: true, vectors: vectorsOf(shape), scratchBudget: 0 };
}

const shapes = [
  configOf({ dim: 1, heads: 1, features: 1, featureMap: "favor" }),
  configOf({ dim: 12, heads: 2, features: 24, featureMap: "rfa" }),
  configOf({ dim: 130, heads: 130, features: 10, featureMap: "maclaurin_gaussian", levels: 9 }),
  configOf({ dim: 512, heads: 8, features: 256, featureMap: "maclaurin_exp", levels: 12 }),
  configOf({ dim: 2052, heads: 1, features: 130, featureMap: "favor" }),
];
const lengths = [
  { batch: 1, length: 1 },
  { batch: 1, length: 1_027 },
  { batch: 3, length: 4_099 },
  { batch: 2, length: 50_000 },
  { batch: 5_000, length: 3 },
];
const cases = shapes
  .flatMap((shape) =>
    TUNINGS.flatMap((tuning, t) => {
      const least = minimumLinearAttentionBackwardScratch(shape, tuning);
      return [least, Math.max(least, 8 * MIB), Math.max(least, 64 * MIB)].flatMap((scratchBudget) =>
        lengths.flatMap(({ batch, length }) =>
          [false, true].map((causal) => ({
            name: `${shape.featureMap}, ${batch} x ${length} x ${shape.dim} in ${shape.heads}, tuning ${t}, ${scratchBudget} bytes, causal ${causal}`,
            heads: shape.heads,
            batch,
            length,
            plan: () => planLinearAttentionBackward({ ...shape, scratchBudget }, tuning, LIMITS, { batch, length, causal, x: 0, gradOut: 4 }),
            scratchBudget,
            least,
          })),
        ),
      );
    }),
  )
  // A plan of a million steps would show nothing that one of a thousand does not.
  .filter(({ batch, length, scratchBudget, least }) => (batch * Math.max(length, 64)) / (scratchBudget / least) < 20_000);

describe("planLinearAttentionBackward", () => {
  it("of many kinds", () => expect(cases.length).toBeGreaterThan(200));

  it("keeps every law", () => {
    const broken = cases.flatMap(({ name, heads, batch, length, plan, scratchBudget }) => {
      const { steps, scratch } = plan();
      // Beside the budget: two numbers a token and head, of each slab from an aligned position on.
      const stats = scratch.get("stats") ?? 0;
      expect(stats, name).toBeLessThanOrEqual(batch * length * (heads * 8 + BIND_ALIGNMENT / 8) + BIND_ALIGNMENT);
      return Object.entries(laws).flatMap(([title, law]) => {
        const complaint = law({ steps, scratch }, scratchBudget + stats);
        return complaint === undefined ? [] : [`${name}: ${title}: ${complaint}`];
      });
    });
    expect(broken).toEqual([]);
  });

  it("of causal rows, scratch grows by two numbers a token and head, of others by nothing", () => {
    const [shape] = [{ ...configOf({ dim: 128, heads: 2, features: 64, featureMap: "favor" }), scratchBudget: 8 * MIB }];
    for (const causal of [false, true]) {
      const bytes = (length: number) => {
        const { scratch } = planLinearAttentionBackward(shape, TUNINGS[0]!, LIMITS, { batch: 1, length, causal, x: 0, gradOut: 0 });
        return [...scratch.values()].reduce((sum, size) => sum + size, 0);
      };
      const grown = bytes(1 << 17) - bytes(1 << 16);
      if (causal) expect(Math.abs(grown / ((1 << 16) * 2 * 8) - 1)).toBeLessThan(0.05);
      else expect(grown).toBe(0);
    }
  });

  it("computes nothing twice where all of it fits", () => {
    const shape = { ...configOf({ dim: 64, heads: 2, features: 32, featureMap: "rfa" }), scratchBudget: 64 * MIB };
    const kernels = (causal: boolean) =>
      planLinearAttentionBackward(shape, TUNINGS[0]!, LIMITS, { batch: 2, length: 500, causal, x: 0, gradOut: 0 })
        .steps.map(({ kernel }) => kernel.name)
        .filter((name) => name !== "merge_gradients");
    for (const causal of [false, true]) {
      const names = kernels(causal);
      const times = (name: string) => names.filter((one) => one === name).length;
      expect(["random_features", "append_ones", "feature_attention_backward", "weight_gradient", "linear"].map(times)).toEqual([2, 1, 1, 3, 5]);
      expect(times("feature_products")).toBe(4);
      expect(times("feature_scores")).toBe(causal ? 4 : 0);
    }
  });
});
