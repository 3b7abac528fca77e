import { describe, expect, it } from "vitest";
import type { BackwardCall } from "../../src/layers/backward_planner.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { planPomBackward, planPomTranspose, pomBackwardFlops, pomGradientBytes, pomTransposed } from "../../src/layers/pom_backward_plan.ts";
import { type PomConfig, pomPlanConfig } from "../../src/layers/pom_config.ts";
import type { PomPlanConfig } from "../../src/layers/pom_plan.ts";
import type { Step } from "../../src/runtime/kernel.ts";
import type { Tuning } from "../../src/runtime/tuning.ts";
import { LIMITS, MIB, masksFor, nameOf, planLaws, TUNINGS } from "../support/plans.ts";

const WEIGHTS = new Set(
  "projections projectionsBack ag agBack gates constants gradProjections gradAg gradGates gradCoefficients context_positions query_positions".split(
    " ",
  ),
);
const BROUGHT = new Set([...WEIGHTS, ..."query context gradOut gradQuery gradContext residual mask table divisors empty".split(" ")]);

function configOf(config: Partial<PomConfig>): PomPlanConfig {
  return pomPlanConfig({
    dim: 64,
    degree: 2,
    expand: 2,
    nGroups: 1,
    nSelHeads: 1,
    bias: false,
    rotary: "none",
    rotaryBase: 10_000,
    maxPositions: config.rotary === "2d" ? [8, 8] : 64,
    dtype: "f32",
    weightDtype: "f32",
    scratchBudget: 64 * MIB,
    ...config,
  });
}

const LAYERS: Partial<PomConfig>[] = [
  {},
  { dim: 1, expand: 1, degree: 16 },
  { dim: 65, expand: 3, degree: 5 },
  { dim: 2048, expand: 2, degree: 16 },
  { nSelHeads: 8 },
  { nGroups: 4, degree: 3 },
  { dim: 6, nGroups: 3 },
  { rotary: "1d", nSelHeads: 4 },
  { rotary: "2d", degree: 16, dim: 512 },
  { rotary: "2d", nGroups: 8, dim: 256, expand: 4 },
];
const LENGTHS = [
  { batch: 1, length: 1 },
  { batch: 5, length: 257 },
  { batch: 1, length: 100_003 },
  { batch: 5_000, length: 3 },
];

interface Case {
  readonly name: string;
  readonly config: PomPlanConfig;
  readonly tuning: Tuning;
  readonly call: BackwardCall;
}

const offsets = { query: 0, context: 0, gradOut: 0, gradQuery: 0 } as const;
const cases: Case[] = LAYERS.flatMap((layer) =>
  TUNINGS.flatMap((tuning, t) => {
    const least = minimumScratch(configOf(layer), tuning);
    return [least, Math.max(least, 5_000_000), 64 * MIB].flatMap((scratchBudget) => {
      const config = configOf({ ...layer, scratchBudget: Math.max(least, scratchBudget) });
      return LENGTHS.filter(
        ({ batch, length }) => (batch * length * config.order * config.orderExpand * config.dim * 4) / scratchBudget < 10,
      ).flatMap(({ batch, length }) =>
        masksFor(batch, length).flatMap((mask, i) => {
          const name = `${JSON.stringify(layer)}, tuning ${t}, budget ${scratchBudget}, B${batch} N${length}, ${nameOf(mask)}`;
          const call = { batch, queryLength: length, contextLength: length, mask, ...offsets };
          return [{ name, config, tuning, call: i % 2 === 0 ? call : { ...call, gradContext: 0 } }];
        }),
      );
    });
  }),
);

/** Rows that steps of a kernel walk; their uniforms say how many. */
const rowsOf = (steps: readonly Step[], kernel: string, rows: (uniforms: Step["uniforms"]) => number) =>
  steps.filter((step) => step.kernel.name === kernel).reduce((sum, { uniforms }) => sum + rows(uniforms), 0);
const slabRows = (uniforms: Step["uniforms"]) => uniforms["slab_rows"] ?? 0;

const common = planLaws(BROUGHT, WEIGHTS);
const laws: Record<string, (c: Case, steps: readonly Step[], scratch: ReadonlyMap<string, number>) => string | undefined> = {
  ...Object.fromEntries(
    Object.entries(common).map(([law, check]) => [
      law,
      ({ config }: Case, steps: readonly Step[], scratch: ReadonlyMap<string, number>) => check({ steps, scratch }, config.scratchBudget),
    ]),
  ),

  "passes every token through its polynomial once, and every query through its gates": ({ config, call }, steps) => {
    const tokens = rowsOf(steps, "polynomial_backward", (u) => (u["end_row"] ?? 0) - (u["first_row"] ?? 0));
    const kernel = config.pom.gates ? "apply_gates_backward" : "gate_backward";
    const selected = rowsOf(steps, kernel, (u) => (u["has_selection"] === 1 ? slabRows(u) : 0));
    const logits = rowsOf(steps, "gates_backward", slabRows);
    const queries = call.batch * call.queryLength;
    const right = tokens === call.batch * call.contextLength && selected === queries && logits === (config.pom.gates ? queries : 0);
    return right ? undefined : JSON.stringify({ tokens, selected, logits });
  },

  "writes the coefficients' gradient first, and adds to it from then on": (_, steps) => {
    const writes = steps.filter(({ kernel, slots }) =>
      kernel.bindings.some(({ name, type }) => type === "storage" && slots[name]?.buffer === "gradCoefficients"),
    );
    const adds = writes.map(({ uniforms }) => uniforms["accumulate"]);
    return adds.length > 0 && adds.every((add, i) => add === (i === 0 ? 0 : 1)) ? undefined : adds.join();
  },
};

describe("planPomBackward", () => {
  const broken = new Map(Object.keys(laws).map((law) => [law, [] as string[]]));
  for (const c of cases) {
    const { steps, scratch } = planPomBackward(c.config, c.tuning, LIMITS, c.call);
    for (const [law, check] of Object.entries(laws)) {
      const problem = check(c, steps, scratch);
      if (problem !== undefined) broken.get(law)?.push(`${c.name}: ${problem}`);
    }
  }

  it("was asked for many plans", () => {
    expect(cases.length).toBeGreaterThan(1000);
  });

  it.each(Object.keys(laws))("%s", (law) => {
    expect(broken.get(law)?.slice(0, 5)).toEqual([]);
  });

  const kernelsOf = (config: Partial<PomConfig>) => {
    const call = { batch: 4, queryLength: 100, contextLength: 100, mask: { kind: "causal", ahead: 1 } as const, ...offsets };
    const merges = ["merge_gradients", "merge_moments"];
    return planPomBackward(configOf(config), TUNINGS[0]!, LIMITS, call)
      .steps.map(({ kernel }) => kernel.name)
      .filter((name) => !merges.includes(name));
  };

  it("takes the steps of HoM where moments and gates lie side by side", () => {
    const gates = ["linear", "gate_backward", "weight_gradient", "sum_gradients", "scan_gradients"];
    expect(kernelsOf({})).toEqual(["prefix_moments", "scan_moments", ...gates, "polynomial_backward", "weight_gradient", "linear", "linear"]);
  });

  it("computes gates apart and groups one by one", () => {
    const gates = ["linear", "linear", "apply_gates_backward", "gates_backward", "weight_gradient", "sum_gradients", "scan_gradients"];
    const query = ["weight_gradient", "linear"];
    const sums = ["prefix_moments", "scan_moments"];
    expect(kernelsOf({ nSelHeads: 4 })).toEqual([...sums, ...gates, "polynomial_backward", ...query, "weight_gradient", "linear"]);
    const groups = ["weight_gradient", "weight_gradient", "linear", "linear"];
    expect(kernelsOf({ nGroups: 2 })).toEqual([...sums, ...gates, "polynomial_backward", ...query, ...groups]);
  });

  it("adds from the first time on where it is asked to", () => {
    const call = { batch: 1, queryLength: 100, contextLength: 100, mask: { kind: "none" }, accumulate: true, ...offsets } as const;
    const { steps } = planPomBackward(configOf({}), TUNINGS[0]!, LIMITS, call);
    for (const [buffer, kernels] of Object.entries({
      gradProjections: ["weight_gradient", "merge_gradients"],
      gradAg: ["weight_gradient", "merge_gradients"],
      gradCoefficients: ["polynomial_backward", "merge_moments"],
    })) {
      const writes = steps.filter(
        ({ kernel, slots }) => kernels.includes(kernel.name) && Object.values(slots).some((slot) => slot.buffer === buffer),
      );
      expect(writes.length, buffer).toBeGreaterThan(0);
      expect(
        writes.every(({ uniforms }) => uniforms["accumulate"] === 1),
        buffer,
      ).toBe(true);
    }
  });

  it("gives the FLOPs of one slab", () => {
    const [B, N, D, M] = [4, 100, 64, 128];
    const sizes = { batch: B, queryLength: N, contextLength: N, mask: { kind: "none" } } as const;
    const plain = 18 * B * N * D * M + B * N * M * (6 * 2 + 1);
    expect(pomBackwardFlops(configOf({}), sizes)).toBe(plain);
    expect(pomBackwardFlops(configOf({ nSelHeads: 8 }), sizes)).toBe(plain - 6 * B * N * D * (M - 8));
    expect(pomBackwardFlops(configOf({ nGroups: 4, nSelHeads: 8 }), sizes)).toBe(plain - 6 * B * N * D * (M - 8) - 8 * B * N * (D - D / 4) * M);
  });
});

describe("transposed weights", () => {
  it.each(LAYERS)("%j lie side by side at offsets that bind", (layer) => {
    const config = configOf(layer);
    const { groups, se, ag, bytes } = pomTransposed(config);
    const slots = [...groups, se];
    let end = 0;
    for (const { offset, size } of slots) {
      expect(offset % 256).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(end);
      end = offset + size;
    }
    expect(bytes).toEqual({ projectionsBack: end, agBack: ag.size });
    const steps = planPomTranspose(config, LIMITS);
    expect(steps.map((step) => step.slots["transposed"])).toEqual([...slots, ag]);
    for (const step of steps) expect(step.slots["transposed"]?.size).toBe(step.bytesWritten);
    // A group's columns follow those of the one before it.
    const columns = steps.slice(0, groups.length).map(({ uniforms }) => [uniforms["first4"], uniforms["count4"]] as const);
    expect(columns.every(([first = 0], i) => first === (i === 0 ? 0 : columns[i - 1]![0]! + columns[i - 1]![1]!))).toBe(true);
    expect(pomGradientBytes(config).gradProjections).toBe(steps[0]!.slots["w"]!.size);
  });
});
