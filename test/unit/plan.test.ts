import { describe, expect, it } from "vitest";
import { flopsOf, type HomCall, type MaskPlan, minimumScratch, planHom } from "../../src/layers/hom_plan.ts";
import { firstBlocks, type HomPlanConfig } from "../../src/layers/planner.ts";
import { BIND_ALIGNMENT, GROUP, packUniforms, type Step, TILES } from "../../src/runtime/kernel.ts";
import type { Tuning } from "../../src/runtime/tuning.ts";

/** Rows of the smaller tile: more iterations than the larger one. */
const TILE_ROWS = TILES["8x4"].rows;
const MIB = 1 << 20;
const LIMITS = { maxBufferSize: 256 * MIB, maxStorageBufferBindingSize: 128 * MIB, maxComputeWorkgroupsPerDimension: 65_535 };
/** lavapipe stops an invocation after this many loop iterations, without an error. */
const MOST_ITERATIONS = 65_535;
/** Buffers that a layer brings; all others are scratch. */
const BROUGHT = new Set(["projections", "ag", "query", "context", "out", "residual", "mask", "table", "divisors", "empty"]);

const TUNINGS: readonly Tuning[] = [
  { tile: "16x8", blockTokens: 128, prefixBlockTokens: 64, fusedSelectMaxDim: 0 },
  { tile: "8x4", blockTokens: 64, prefixBlockTokens: 32, fusedSelectMaxDim: 256 },
  { tile: "16x8", blockTokens: 8, prefixBlockTokens: 8, fusedSelectMaxDim: 256 },
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

function masksFor(batch: number, length: number): MaskPlan[] {
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

function nameOf(mask: MaskPlan): string {
  if (mask.kind === "causal") return `causal, ahead ${mask.ahead}`;
  if (mask.kind === "blockCausal") return `blockCausal ${mask.block}`;
  if (mask.kind === "full") return `full of batch ${mask.batch}`;
  return mask.kind === "packed" ? `packed in ${mask.cuSeqlens.length - 1}` : mask.kind;
}

interface Case {
  readonly name: string;
  readonly config: HomPlanConfig;
  readonly tuning: Tuning;
  readonly call: HomCall;
}

/** Budgets of the least, some and the default number of bytes, and one that no single binding can hold. */
const cases: Case[] = WIDTHS.flatMap((width) =>
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
          call: { batch, queryLength: length, contextLength: length, mask, query: 0, context: 0, out: 0 },
        })),
      ),
    );
  }),
);

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
    case "mask_moments":
    case "gate":
    case "linear":
      return u("inner4") + TILE_ROWS;
    case "select": {
      const lanes = variant.lanes ?? 64;
      return Math.ceil(u("stride4") / lanes) * (1 + u("inner4") + TILE_ROWS + lanes) + TILE_ROWS;
    }
    default:
      throw new Error(`how often does ${kernel.name} loop?`);
  }
}

type Plan = ReturnType<typeof planHom>;

/** What is wrong with a plan, or nothing. */
const laws: Record<string, (c: Case, plan: Plan) => string | undefined> = {
  "stays within the scratch budget": ({ config }, { scratch }) => {
    const bytes = [...scratch.values()].reduce((sum, size) => sum + size, 0);
    return bytes > config.scratchBudget ? `${bytes} bytes: ${JSON.stringify([...scratch])}` : undefined;
  },

  "binds aligned ranges that the device can bind, inside the scratch that it names": (_, { steps, scratch }) => {
    for (const { kernel, slots } of steps) {
      const storage = kernel.bindings.filter(({ type }) => type !== "uniform").map(({ name }) => name);
      if (storage.some((name) => !(name in slots)) || Object.keys(slots).length !== storage.length)
        return `${kernel.name} binds ${Object.keys(slots)}`;
      for (const [name, { buffer, offset, size }] of Object.entries(slots)) {
        const aligned = Number.isInteger(offset) && offset >= 0 && offset % BIND_ALIGNMENT === 0;
        const sized = Number.isInteger(size) && size >= 4 && size % 4 === 0;
        // Weights are bound whole: HomLayer.create refuses those that are too large.
        const fits = size <= LIMITS.maxStorageBufferBindingSize || buffer === "projections" || buffer === "ag";
        const inside = BROUGHT.has(buffer) || offset + size <= (scratch.get(buffer) ?? 0);
        if (!aligned || !sized || !fits || !inside) return `${kernel.name}.${name} is ${buffer} at ${offset}, ${size} bytes`;
      }
    }
    return undefined;
  },

  "never binds one buffer to read and to write in one dispatch": (_, { steps }) => {
    for (const { kernel, slots } of steps) {
      const written = kernel.bindings.filter(({ type }) => type === "storage").map(({ name }) => slots[name]?.buffer);
      const read = kernel.bindings.filter(({ type }) => type === "read-only-storage").map(({ name }) => slots[name]?.buffer);
      if (new Set(written).size !== written.length || read.some((buffer) => written.includes(buffer))) return `${kernel.name}: ${read} -> ${written}`;
    }
    return undefined;
  },

  "reads no scratch that the call has not written before": (_, { steps }) => {
    const written = new Map<string, number>();
    for (const { kernel, slots, uniforms } of steps) {
      const bound = kernel.bindings.flatMap(({ name, type }) => {
        const slot = slots[name];
        return slot && type !== "uniform" && !BROUGHT.has(slot.buffer) ? [{ name, type, ...slot }] : [];
      });
      for (const { name, type, buffer, size } of bound) {
        const accumulates = uniforms["accumulate"] === 1 && name !== "carry";
        const inPlace = (kernel.name === "gate" && Number(uniforms["source"]) >= 2) || (kernel.name === "scan_segments" && name === "moments");
        const reads = type === "read-only-storage" || accumulates || inPlace;
        const empty = kernel.name === "merge_moments" && name === "partial" && uniforms["ragged"] === 1 && uniforms["blocks_per_segment"] === 0;
        if (reads && !empty && size > (written.get(buffer) ?? 0)) return `${kernel.name} reads ${size} bytes of ${buffer}`;
      }
      for (const { type, buffer, size } of bound) {
        if (type === "storage") written.set(buffer, Math.max(written.get(buffer) ?? 0, size));
      }
    }
    return undefined;
  },

  "dispatches no more workgroups than a device allows, and at least one": (_, { steps }) => {
    const bad = steps.find(({ workgroups }) => workgroups.some((n) => !Number.isInteger(n) || n < 1 || n > LIMITS.maxComputeWorkgroupsPerDimension));
    return bad && `${bad.kernel.name} in ${bad.workgroups}`;
  },

  "gives every uniform a value that fits": (_, { steps }) => {
    for (const { kernel, uniforms } of steps) packUniforms(kernel, uniforms);
    return undefined;
  },

  "keeps every invocation's loops short": (_, { steps }) => {
    const bad = steps.find((step) => iterations(step) > MOST_ITERATIONS);
    return bad && `${bad.kernel.name} loops ${iterations(bad)} times`;
  },

  "writes every output row once": ({ call }, { steps }) => {
    const writers = steps.filter(({ slots }) => slots["y"]?.buffer === "out");
    const rows = writers.reduce((sum, { uniforms }) => sum + (uniforms["slab_rows"] ?? 0), 0);
    const expected = call.mask.kind === "packed" ? (call.mask.cuSeqlens.at(-1) ?? 0) : call.batch * call.queryLength;
    return rows === expected ? undefined : `${rows} of ${expected} rows`;
  },
};

describe("planHom", () => {
  const broken = new Map(Object.keys(laws).map((law) => [law, [] as string[]]));
  for (const c of cases) {
    const plan = planHom(c.config, c.tuning, LIMITS, c.call);
    for (const [law, check] of Object.entries(laws)) {
      const problem = check(c, plan);
      if (problem !== undefined) broken.get(law)?.push(`${c.name}: ${problem}`);
    }
  }

  it("was asked for many plans", () => {
    expect(cases.length).toBeGreaterThan(2000);
  });

  it.each(Object.keys(laws))("%s", (law) => {
    expect(broken.get(law)?.slice(0, 5)).toEqual([]);
  });

  it("is pure: the same arguments give the same plan, and are not changed", () => {
    const essence = ({ steps, scratch, flops }: Plan) => [
      flops,
      [...scratch],
      steps.map((s) => [s.kernel.name, s.variant, s.workgroups, s.uniforms, s.slots]),
    ];
    for (const { config, tuning, call } of cases.filter((_, i) => i % 97 === 0)) {
      const frozenCall = Object.freeze({ ...call, mask: Object.freeze({ ...call.mask }) });
      const a = planHom(Object.freeze({ ...config }), Object.freeze({ ...tuning }), Object.freeze({ ...LIMITS }), frozenCall);
      expect(essence(a)).toEqual(essence(planHom(config, tuning, LIMITS, call)));
    }
  });

  it("spreads work over two dimensions where one is too short", () => {
    const most = 50;
    const { config, tuning, call } = cases.find(
      (c) => c.call.contextLength === 4_099 && c.config.dim === 64 && c.call.mask.kind === "none" && c.config.scratchBudget === 64 * MIB,
    )!;
    const { steps } = planHom(config, tuning, { ...LIMITS, maxComputeWorkgroupsPerDimension: most }, call);
    const flat = planHom(config, tuning, LIMITS, call).steps;
    expect(steps.some(({ workgroups: [, y] }) => y > 1)).toBe(true);
    for (const [i, { workgroups }] of steps.entries()) {
      const [x, y] = workgroups;
      const needed = flat[i]!.workgroups[0];
      expect(x).toBeLessThanOrEqual(most);
      expect(x * y).toBeGreaterThanOrEqual(needed);
      expect((x - 1) * y).toBeLessThan(needed);
    }
  });

  it("takes two dispatches and the selection for one row without a mask, up to a million tokens", () => {
    for (const { config, tuning, call } of cases) {
      if (call.mask.kind !== "none" || call.batch !== 1 || config.scratchBudget < 64 * MIB) continue;
      // More cannot be bound, or are more blocks than an invocation may add.
      if (call.contextLength * config.dim * 4 > 100 * MIB || call.contextLength > 30_000 * tuning.blockTokens) continue;
      const kernels = planHom(config, tuning, LIMITS, { ...call, queryLength: 1 }).steps.map(({ kernel }) => kernel.name);
      expect(kernels).toEqual(["moments", "merge_moments", ...(config.dim <= tuning.fusedSelectMaxDim ? ["select"] : ["gate", "linear"])]);
    }
  });

  it("needs the same scratch for ten times the tokens, once the budget is reached", () => {
    const config = { dim: 64, order: 2, orderExpand: 2, activation: "gelu", scratchBudget: MIB } as const;
    const scratchOf = (length: number, mask: MaskPlan) => [
      ...planHom(config, TUNINGS[0]!, LIMITS, { batch: 1, queryLength: length, contextLength: length, mask, query: 0, context: 0, out: 0 }).scratch,
    ];
    for (const mask of masksFor(1, 100_000)) {
      if (mask.kind === "packed" || mask.kind === "blockCausal") continue;
      expect(scratchOf(1_000_000, mask), nameOf(mask)).toEqual(scratchOf(100_000, mask));
    }
  });
});

describe("flops", () => {
  it.each([
    { B: 1, N: 100, T: 100, D: 64, k: 2, e: 2 },
    { B: 3, N: 257, T: 7, D: 12, k: 3, e: 4 },
    { B: 2, N: 1, T: 1, D: 1, k: 8, e: 1 },
  ])("of B$B N$N T$T D$D k$k e$e are those of the specification", ({ B, N, T, D, k, e }) => {
    const M = k * e * D;
    const config = { dim: D, order: k, orderExpand: e, activation: "gelu", scratchBudget: 64 * MIB } as const;
    const context = 2 * B * N * D * M + (B * N * M * (k - 1)) / k + B * N * M;
    const call = { batch: B, queryLength: T, contextLength: N };
    for (const kind of ["none", "padding", "lengths"] as const)
      expect(flopsOf(config, { ...call, mask: { kind } })).toBe(context + 4 * B * T * D * M);
    expect(flopsOf(config, { ...call, mask: { kind: "full", batch: 1 } })).toBe(context + 4 * B * T * D * M + 2 * B * T * N * M);
    const square = { ...call, queryLength: N, mask: { kind: "causal", ahead: 1 }, query: 0, context: 0, out: 0 } as const;
    expect(planHom(config, TUNINGS[0]!, LIMITS, square).flops).toBe(context + 4 * B * N * D * M);
  });
});

describe("offsets of the caller's tensors", () => {
  const config = { dim: 12, order: 2, orderExpand: 1, activation: "gelu", scratchBudget: MIB } as const;
  const call = { batch: 2, queryLength: 9, contextLength: 70, mask: { kind: "none" } } as const;
  it.each([0, 4, 16, 252, 256, 260, 1 << 20, 2 ** 32 + 4])("byte %d", (byteOffset) => {
    const { steps } = planHom(config, TUNINGS[0]!, LIMITS, {
      ...call,
      query: byteOffset,
      context: byteOffset,
      out: byteOffset,
      residual: byteOffset,
    });
    const slots = steps.flatMap((step) => Object.values(step.slots));
    for (const buffer of ["query", "context", "out", "residual"]) {
      const slot = slots.find((s) => s.buffer === buffer)!;
      expect(slot.offset).toBe(byteOffset - (byteOffset % BIND_ALIGNMENT));
      expect(slot.offset + slot.size).toBe(byteOffset + (buffer === "context" ? 140 : 18) * 12 * 4);
    }
    const loads = byteOffset % 16 === 0 ? "vec4" : "scalar";
    for (const { kernel, variant } of steps) {
      if (kernel.name === "moments" || kernel.name === "gate") expect(variant.x).toBe(loads);
      if (kernel.name === "linear") expect(variant).toMatchObject({ x: "vec4", y: loads });
    }
  });
});

describe("firstBlocks", () => {
  it("counts the blocks before each segment", () => {
    expect([...firstBlocks(Uint32Array.of(0, 0, 1, 9, 17, 17, 40), 8)]).toEqual([0, 0, 1, 2, 3, 3, 6]);
  });
});
