import { describe, expect, it } from "vitest";
import { minimumAttentionBackwardScratch, planAttentionBackward } from "../../src/baselines/attention_backward_plan.ts";
import { LIMITS, MIB, planLaws, TUNINGS } from "../support/plans.ts";

const WEIGHTS = new Set(["q", "kv", "projection"].flatMap((name) => [name, `${name}Back`, `${name}Gradient`]));
const BROUGHT = new Set([...WEIGHTS, "query", "gradOut", "gradQuery", "empty"]);
const laws = planLaws(BROUGHT, WEIGHTS);

const shapes = [
  { dim: 1, heads: 1 },
  { dim: 12, heads: 2 },
  { dim: 130, heads: 130 },
  { dim: 512, heads: 8 },
  { dim: 2052, heads: 1 },
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
    TUNINGS.slice(0, 2).flatMap((tuning, t) =>
      [minimumAttentionBackwardScratch(shape), 8 * MIB, 64 * MIB].flatMap((asked) =>
        lengths.flatMap(({ batch, length }) =>
          [false, true].map((causal) => {
            const scratchBudget = Math.max(asked, minimumAttentionBackwardScratch(shape));
            const config = { ...shape, bias: true, scratchBudget };
            const plan = () => planAttentionBackward(config, tuning, LIMITS, { batch, length, causal, x: 0, gradOut: 4 });
            return {
              name: `${batch} x ${length} x ${shape.dim} in ${shape.heads}, tuning ${t}, ${scratchBudget} bytes, causal ${causal}`,
              shape,
              batch,
              length,
              scratchBudget,
              plan,
            };
          }),
        ),
      ),
    ),
  )

  // A plan of a million steps would show nothing that one of a thousand does not.
  .filter(({ shape, batch, length, scratchBudget }) => batch * (length / 64 / (scratchBudget / minimumAttentionBackwardScratch(shape))) ** 2 < 300);

describe("planAttentionBackward", () => {
  it("of many kinds", () => expect(cases.length).toBeGreaterThan(100));
  it("keeps every law", () => {
    // Beside the budget: three numbers a token and head.
    const broken = cases.flatMap(({ name, shape, length, scratchBudget, plan }) => {
      const { steps, scratch } = plan();
      const rows = scratch.get("rows") ?? 0;
      expect(rows % (length * shape.heads * 12), name).toBe(0);
      return Object.entries(laws).flatMap(([title, law]) => {
        const complaint = law({ steps, scratch }, scratchBudget + rows);
        return complaint === undefined ? [] : [`${name}: ${title}: ${complaint}`];
      });
    });
    expect(broken).toEqual([]);
  });

  it("scratch grows by three numbers a token and head, and by nothing else", () => {
    const [shape, [tuning]] = [{ dim: 128, heads: 2 }, TUNINGS];
    for (const causal of [false, true]) {
      const bytes = (length: number) => {
        const { scratch } = planAttentionBackward({ ...shape, bias: true, scratchBudget: 8 * MIB }, tuning!, LIMITS, {
          batch: 1,
          length,
          causal,
          x: 0,
          gradOut: 0,
        });
        return [...scratch.values()].reduce((sum, size) => sum + size, 0);
      };
      expect(bytes(1 << 16) - bytes(1 << 15)).toBe((1 << 15) * 2 * 12);
      expect(bytes(16_384)).toBeLessThan(8 * MIB + 16_384 * 2 * 12 + 1);
    }
  });

  it("computes nothing twice where all of it fits", () => {
    const { steps } = planAttentionBackward({ dim: 64, heads: 2, bias: true, scratchBudget: 64 * MIB }, TUNINGS[0]!, LIMITS, {
      batch: 2,
      length: 500,
      causal: true,
      x: 0,
      gradOut: 0,
    });
    const kernels = steps.map(({ kernel }) => kernel.name).filter((name) => name !== "merge_gradients");
    expect(kernels).toEqual(
      "linear linear linear attention attention_rows weight_gradient attention_backward_q weight_gradient linear attention_backward_kv weight_gradient linear".split(
        " ",
      ),
    );
  });
});
