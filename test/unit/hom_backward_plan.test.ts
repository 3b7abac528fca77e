import { describe, expect, it } from "vitest";
import type { BackwardCall } from "../../src/layers/backward_planner.ts";
import { backwardFlopsOf, planHomBackward, planHomTranspose, transposedWeights } from "../../src/layers/hom_backward_plan.ts";
import type { MaskPlan } from "../../src/layers/hom_plan.ts";
import { momentLayout } from "../../src/layers/planner.ts";
import type { Step } from "../../src/runtime/kernel.ts";
import { LIMITS, MIB, masksFor, nameOf, type PlanCase, planCases, planLaws, TUNINGS } from "../support/plans.ts";

const BROUGHT = new Set(
  "query context gradOut gradQuery gradContext residual projections projectionsBack ag agBack gradProjections gradAg mask table divisors empty".split(
    " ",
  ),
);
const WEIGHTS = new Set(["projections", "projectionsBack", "ag", "agBack", "gradProjections", "gradAg"]);

interface Case extends PlanCase {
  readonly call: BackwardCall;
}

const offsets = { query: 0, context: 0, gradOut: 0, gradQuery: 0 } as const;
/** Slabs that a call is cut into, about: plans of thousands would take minutes and show nothing that others do not. */
function slabsOf({ config, call }: PlanCase): number {
  const rowBytes = momentLayout(config).stride4 * 16;
  const slab = Math.min(config.scratchBudget / 6, Math.max(8 * MIB, 1024 * rowBytes)) / rowBytes;
  const across = Math.ceil((call.batch * call.contextLength) / slab);
  return call.mask.kind === "full" ? across * Math.ceil(call.queryLength / slab) : across;
}

/** The calls of the forward plans, as self-mixing and with a context; a context of another length where the mask allows it. */
const cases: Case[] = planCases
  .filter((c, i) => slabsOf(c) < (i % 16 === 0 ? 40 : 4))
  .flatMap(({ name, call, ...rest }, i) => {
    const cross = ["none", "padding", "lengths", "full"].includes(call.mask.kind) && i % 2 === 0;
    const queryLength = cross ? Math.max(1, Math.floor(call.queryLength / 3)) : call.queryLength;
    return [
      { ...rest, name: `${name}, self`, call: { ...call, ...offsets } },
      { ...rest, name: `${name}, T${queryLength}`, call: { ...call, queryLength, ...offsets, gradContext: 0, residual: 0 } },
    ];
  });

type Plan = ReturnType<typeof planHomBackward>;

const rowsOf = (c: Case): { queries: number; tokens: number } => ({
  queries: c.call.batch * c.call.queryLength,
  tokens: c.call.batch * c.call.contextLength,
});

/** Steps that leave a gradient of the weights, merged or whole: what they write, and whether they add to it. */
function weightWrites(steps: readonly Step[], buffer: string): { first4: number; columns4: number; accumulate: boolean }[] {
  return steps.flatMap(({ kernel, slots, uniforms }) => {
    const u = (name: string) => uniforms[name] ?? 0;
    if (kernel.name === "weight_gradient" && slots["out"]?.buffer === buffer)
      return [{ first4: u("out_first4"), columns4: u("outer4"), accumulate: u("accumulate") === 1 }];
    if (kernel.name === "merge_gradients" && slots["gradient"]?.buffer === buffer)
      return [{ first4: u("first4"), columns4: u("outer4"), accumulate: u("accumulate") === 1 }];
    return [];
  });
}

/** Rows that are written and rows that are added to. */
function rowWrites(steps: readonly Step[], buffer: string): { written: number; added: number } {
  const rows = { written: 0, added: 0 };
  for (const { kernel, slots, uniforms } of steps) {
    if (kernel.name !== "linear" || slots["y"]?.buffer !== buffer) continue;
    rows[uniforms["has_residual"] === 2 ? "added" : "written"] += uniforms["slab_rows"] ?? 0;
  }
  return rows;
}

const common = planLaws(BROUGHT, WEIGHTS);
const laws: Record<string, (c: Case, plan: Plan) => string | undefined> = {
  ...Object.fromEntries(Object.entries(common).map(([law, check]) => [law, ({ config }: Case, plan: Plan) => check(plan, config.scratchBudget)])),

  "writes the gradient of every token once, and of self-mixing ones adds the other part": (c, { steps }) => {
    const { queries, tokens } = rowsOf(c);
    const self = c.call.gradContext === undefined;
    const query = rowWrites(steps, "gradQuery");
    const context = rowWrites(steps, "gradContext");
    const right = self
      ? query.written === queries && query.added === tokens && context.written === 0
      : query.written === queries && query.added === 0 && context.written === tokens;
    return right ? undefined : JSON.stringify({ query, context, queries, tokens });
  },

  "writes the gradients of all weights, and adds from the second time on": ({ config }, { steps }) => {
    const { stride4 } = momentLayout(config);
    const columns = { gradProjections: 2 * stride4, gradAg: Math.ceil(config.dim / 4) };
    for (const [buffer, columns4] of Object.entries(columns)) {
      const written = new Set<number>();
      for (const { first4, columns4: count, accumulate } of weightWrites(steps, buffer)) {
        const own = Array.from({ length: count }, (_, i) => first4 + i);
        if (!own.every((column) => written.has(column) === accumulate)) return `${buffer}: columns from ${first4} on`;
        for (const column of own) written.add(column);
      }
      if (written.size !== columns4) return `${buffer}: ${written.size} of ${columns4} columns`;
    }
    return undefined;
  },

  "passes every query row's gradient through ag_proj and the gates": (c, { steps }) => {
    const { queries } = rowsOf(c);
    const rows = (kernel: string, when: (step: Step) => boolean) =>
      steps.filter((step) => step.kernel.name === kernel && when(step)).reduce((sum, { uniforms }) => sum + (uniforms["slab_rows"] ?? 0), 0);
    const selected = rows("gate_backward", ({ uniforms }) => uniforms["has_selection"] === 1);
    const summed = rows("gate_backward", ({ uniforms }) => uniforms["has_sums"] === 1);
    const tokens = rows("moments_backward", () => true);
    // A full mask in slabs of queries and of tokens sums the queries' gradients anew for each slab of tokens.
    const sums = c.call.mask.kind === "full" ? summed >= queries && summed % queries === 0 : summed === queries;
    return selected === queries && sums && tokens === rowsOf(c).tokens ? undefined : JSON.stringify({ selected, summed, tokens });
  },
};

describe("planHomBackward", () => {
  const broken = new Map(Object.keys(laws).map((law) => [law, [] as string[]]));
  for (const c of cases) {
    const plan = planHomBackward(c.config, c.tuning, LIMITS, c.call);
    for (const [law, check] of Object.entries(laws)) {
      const problem = check(c, plan);
      if (problem !== undefined) broken.get(law)?.push(`${c.name}: ${problem}`);
    }
  }

  it("was asked for many plans", () => {
    expect(cases.length).toBeGreaterThan(3000);
  });

  it.each(Object.keys(laws))("%s", (law) => {
    expect(broken.get(law)?.slice(0, 5)).toEqual([]);
  });

  const small = { dim: 64, order: 2, orderExpand: 2, activation: "gelu", scratchBudget: 64 * MIB } as const;
  const kernelsOf = (call: Omit<BackwardCall, "query" | "context" | "gradOut" | "gradQuery">) =>
    planHomBackward(small, TUNINGS[0]!, LIMITS, { ...offsets, ...call })
      .steps.map(({ kernel }) => kernel.name)
      .filter((name) => name !== "merge_gradients");
  const lengths = { batch: 4, queryLength: 100, contextLength: 100 };
  const gates = ["linear", "gate_backward", "weight_gradient"];
  const sums = ["sum_gradients", "merge_moments"];
  const tokens = ["moments_backward", "weight_gradient", "linear", "linear"];

  it("computes everything once, in one slab, where that has room", () => {
    expect(kernelsOf({ ...lengths, mask: { kind: "causal", ahead: 1 } })).toEqual(
      ["prefix_moments", "scan_moments", ...gates, "sum_gradients", "scan_gradients", ...tokens], //
    );
    for (const kind of ["none", "padding", "lengths"] as const)
      expect(kernelsOf({ ...lengths, mask: { kind } })).toEqual(["moments", "merge_moments", ...gates, ...sums, ...tokens]);
    expect(kernelsOf({ ...lengths, mask: { kind: "blockCausal", block: 20 } })).toEqual(
      ["moments", "merge_moments", "scan_segments", ...gates, ...sums, "scan_gradients", ...tokens], //
    );
    expect(kernelsOf({ batch: 1, queryLength: 400, contextLength: 400, mask: { kind: "packed", cuSeqlens: Uint32Array.of(0, 7, 7, 400) } })).toEqual(
      ["moments", "merge_moments", ...gates, ...sums, ...tokens], //
    );
    const separate = ["weight_gradient", "linear", "moments_backward", "weight_gradient", "linear"];
    expect(kernelsOf({ batch: 4, queryLength: 30, contextLength: 100, gradContext: 0, mask: { kind: "none" } })).toEqual(
      ["moments", "merge_moments", ...gates, ...sums, ...separate], //
    );
    expect(kernelsOf({ batch: 1, queryLength: 30, contextLength: 100, gradContext: 0, mask: { kind: "full", batch: 1 } })).toEqual(
      // The transposed mask times the queries' gradients is a product like that of a weight's gradient.
      ["prefix_moments", "mask_moments", ...gates, "weight_gradient", "linear", "weight_gradient", ...separate.slice(2)], //
    );
  });

  it("walks a causal row that is too long twice, forward and backward", () => {
    const config = { ...small, scratchBudget: MIB };
    const call = { batch: 1, queryLength: 3000, contextLength: 3000, mask: { kind: "causal", ahead: 1 }, ...offsets } as const;
    const { steps } = planHomBackward(config, TUNINGS[0]!, LIMITS, call);
    const tokensOf = (name: string) => steps.filter(({ kernel }) => kernel.name === name).map(({ uniforms }) => uniforms["first_block"] ?? -1);
    expect(tokensOf("scan_moments")).toEqual([...tokensOf("scan_moments")].sort((a, b) => a - b));
    expect(tokensOf("scan_gradients")).toEqual([...tokensOf("scan_moments")].reverse());
    expect(tokensOf("scan_moments").length).toBeGreaterThan(3);
  });

  it("adds to the weights' gradients from the first time on where it is asked to", () => {
    const call = { ...lengths, ...offsets, mask: { kind: "causal", ahead: 1 }, accumulate: true } as const;
    const { steps } = planHomBackward(small, TUNINGS[0]!, LIMITS, call);
    for (const buffer of ["gradProjections", "gradAg"]) {
      const writes = weightWrites(steps, buffer);
      expect(writes.length).toBeGreaterThan(0);
      expect(writes.every(({ accumulate }) => accumulate)).toBe(true);
    }
  });

  it("needs the same scratch for ten times the tokens, once the budget is reached", () => {
    const config = { ...small, scratchBudget: MIB };
    const scratchOf = (length: number, mask: MaskPlan) => {
      const call = { batch: 1, queryLength: length, contextLength: length, mask, ...offsets };
      return Object.fromEntries(planHomBackward(config, TUNINGS[0]!, LIMITS, call).scratch);
    };
    for (const mask of masksFor(1, 20_000)) {
      if (mask.kind === "packed" || mask.kind === "blockCausal") continue;
      expect(scratchOf(200_000, mask), nameOf(mask)).toEqual(scratchOf(20_000, mask));
    }
  });

  it("gives the FLOPs of one slab", () => {
    const [D, M, N] = [64, 256, 100];
    expect(backwardFlopsOf(small, { ...lengths, mask: { kind: "causal", ahead: 1 } })).toBe(18 * 4 * N * D * M);
    expect(backwardFlopsOf(small, { ...lengths, mask: { kind: "full", batch: 1 } })).toBe(18 * 4 * N * D * M + 4 * 4 * N * N * M);
  });
});

describe("transposed weights", () => {
  it.each([
    { dim: 1, order: 1, orderExpand: 1 },
    { dim: 65, order: 5, orderExpand: 2 },
    { dim: 768, order: 2, orderExpand: 2 },
  ])("D$dim k$order e$orderExpand lie side by side at offsets that bind", (config) => {
    const { ho, se, ag, bytes } = transposedWeights(config);
    expect(se.offset % 256).toBe(0);
    expect(se.offset).toBeGreaterThanOrEqual(ho.size);
    expect(bytes).toEqual({ projectionsBack: se.offset + se.size, agBack: ag.size });
    const steps = planHomTranspose(config, LIMITS);
    expect(steps.map(({ slots }) => slots["transposed"])).toEqual([ho, se, ag]);
    for (const { slots, bytesWritten } of steps) expect(slots["transposed"]?.size).toBe(bytesWritten);
  });
});
