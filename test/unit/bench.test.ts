import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { allGroups, crossoverTokens, flopsOf, isChosen } from "../../bench/cases.mjs";
import { onnxModel } from "../../bench/contenders/onnx_model.ts";
import { normals, paddingMask, transposed } from "../../bench/data.mjs";
import { readOptions, usage } from "../../bench/options.mjs";
import { expected } from "../../bench/reference.mjs";
import { addCeilings, againstBase, ceilingsOf, type GroupResult, targetsOf } from "../../bench/results.mjs";
import { crossover, exponent, median, quantile, ratio, relativeError, summary } from "../../bench/statistics.mjs";
import { align, groupTable, overtakings, rivalsTable, short, targetTable, withPrefix } from "../../bench/table.mjs";
import type { LayerTask } from "../../bench/types.ts";

const root = join(import.meta.dirname, "../..");
const task: LayerTask = { kind: "layer", batch: 1, tokens: 256, dim: 128, order: 2, orderExpand: 4, mask: "none" };

describe("statistics", () => {
  it("takes medians and quartiles of even and odd numbers of samples", () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
    expect(quantile([0, 10], 0.25)).toBe(2.5);
    expect(summary([5, 1, 3])).toEqual({ median: 3, min: 1, max: 5, q1: 2, q3: 4 });
  });

  it("compares round by round, so that a slow machine cancels out", () => {
    // The second round was ten times slower for both.
    expect(ratio([2, 20, 2], [1, 10, 1])).toMatchObject({ median: 2, min: 2, max: 2 });
    expect(ratio([2], [1, 5]).median).toBe(2);
  });

  it("fits the exponent of a power law", () => {
    const sizes = [1_024, 4_096, 16_384];
    expect(
      exponent(
        sizes,
        sizes.map((n) => 3 * n ** 1.5),
      ),
    ).toBeCloseTo(1.5, 10);
    expect(
      exponent(
        sizes,
        sizes.map((n) => 7 * n),
      ),
    ).toBeCloseTo(1, 10);
  });

  it("finds where one curve falls below the other", () => {
    const sizes = [128, 512, 2_048];
    const linear = sizes.map((n) => 512 * n);
    const quadratic = sizes.map((n) => n * n);
    expect(crossover(sizes, linear, quadratic)).toBeCloseTo(512, 6);
    expect(
      crossover(
        sizes,
        sizes.map((n) => 1_024 * n),
        quadratic,
      ),
    ).toBeCloseTo(1_024, 6);
    expect(
      crossover(
        sizes,
        quadratic,
        quadratic.map((v) => v + 1),
      ),
    ).toBeNaN();
  });

  it("measures errors, and does not let a missing or broken number pass", () => {
    expect(relativeError([3, 4], [3, 4])).toBe(0);
    expect(relativeError([3, 5], [3, 4])).toBeCloseTo(0.2, 10);
    expect(relativeError([3], [3, 4])).toBeNaN();
    expect(relativeError([Number.NaN, 4], [3, 4])).toBeNaN();
  });
});

describe("data", () => {
  it("is the same everywhere, of mean 0 and variance 1", () => {
    const values = normals(7, 10_000);
    expect([...values.slice(0, 2)]).toEqual([...normals(7, 2)]);
    expect(values.reduce((sum, v) => sum + v, 0) / values.length).toBeCloseTo(0, 1);
    expect(values.reduce((sum, v) => sum + v * v, 0) / values.length).toBeCloseTo(1, 1);
    const used = paddingMask(1, 10_000).reduce((sum, v) => sum + v, 0) / 10_000;
    expect(used).toBeGreaterThan(0.75);
    expect(used).toBeLessThan(0.85);
  });

  it("transposes", () => {
    expect([...transposed(Float32Array.of(1, 2, 3, 4, 5, 6), 2, 3)]).toEqual([1, 4, 2, 5, 3, 6]);
  });
});

describe("cases", () => {
  it("count FLOPs as the layer's plan does", () => {
    const [N, D, M] = [256, 128, 1_024];
    expect(flopsOf(task)).toBe(6 * N * D * M + (N * M) / 2 + N * M);
    expect(flopsOf({ kind: "attention", tokens: N, dim: D, heads: 2, causal: false })).toBe(8 * N * D * D + 4 * N * N * D);
  });

  it("know where the layer needs fewer FLOPs than attention", () => {
    const layer = { ...task, orderExpand: 2 };
    const tokens = crossoverTokens(layer);
    const flops = (n: number) => [
      flopsOf({ ...layer, tokens: n }) ?? 0,
      flopsOf({ kind: "attention", tokens: n, dim: 128, heads: 2, causal: false }) ?? 0,
    ];
    expect(flops(tokens)[0]).toBeCloseTo(flops(tokens)[1] ?? 0, 0);
    expect(tokens).toBeGreaterThan(512);
    expect(tokens).toBeLessThan(520);
  });

  it("have ids of their own, and names of their own within a group", () => {
    for (const quick of [false, true]) {
      const groups = allGroups({ quick });
      expect(new Set(groups.map(({ id }) => id)).size).toBe(groups.length);
      for (const { id, entries } of groups) expect(new Set(entries.map(({ name }) => name)).size, id).toBe(entries.length);
    }
  });

  it("put the rivals beside the layer, first of its width, then at the FLOPs of attention", () => {
    const rivals = allGroups({ quick: false }).filter(({ kind }) => kind === "rivals");
    expect(new Set(rivals.map(({ series }) => series))).toEqual(new Set(["rivals", "causal rivals"]));
    for (const { id, size, entries } of rivals) {
      const costOf = (name: string) => flopsOf(entries.find((e) => e.name === name)!.task)!;
      for (const { name, task } of entries.filter(({ name }) => name.includes("equal FLOPs"))) {
        // The layer has steps of 12·D² FLOPs a token, the mixer of half as many, and features end at 4096 a head.
        const isCoarse = /^[HP]oM/.test(name)
          ? size! <= 1_024
          : task.kind === "rival" && task.layer.layer === "linear_attention" && task.layer.features === 4096;
        const [least, most] = isCoarse ? [0.35, 1.5] : [0.9, 1.1];
        expect(costOf(name) / costOf("attention"), `${id}: ${name}`).toBeGreaterThan(least);
        expect(costOf(name) / costOf("attention"), `${id}: ${name}`).toBeLessThan(most);
      }
      expect(entries.map(({ name }) => name)).toEqual(expect.arrayContaining(["HoM", "PoM", "attention", "Performer", "RFA", "RM"]));
      expect(costOf("PoM") / costOf("HoM"), `${id}: as many moments, and about as much work`).toBeCloseTo(1, 1);
    }
  });

  it("are checked against float64: the last row of a causal call has seen every token, as without a mask", () => {
    const last = (name: string, causal: boolean) => {
      const { entries } = allGroups({ quick: true }).find(({ id }) => id === `rivals${causal ? "-causal" : ""}-256`)!;
      const { rows, width, values, length } = expected(entries.find((e) => e.name === name)!.task)!;
      expect([rows.at(-1), length]).toEqual([255, 256 * 128]);
      return Array.from(values).slice(-width);
    };
    for (const name of ["HoM", "PoM", "attention", "Performer", "RFA", "RM"]) {
      const [causal, whole] = [last(name, true), last(name, false)];
      for (const [i, value] of whole.entries()) expect(causal[i], `${name}, channel ${i}`).toBeCloseTo(value, 9);
      expect(Math.hypot(...whole), name).toBeGreaterThan(0.1);
    }
  });

  it("are chosen by the words of their ids", () => {
    expect(isChosen("layer-A", undefined)).toBe(true);
    expect(isChosen("layer-A", "A")).toBe(true);
    expect(isChosen("attention-256", "A")).toBe(false);
    expect(isChosen("attention-causal-256", "attention-causal")).toBe(true);
    expect(isChosen("causal-1024", "moments,causal")).toBe(true);
  });
});

describe("options", () => {
  it("have defaults, and refuse what they do not know", () => {
    expect(readOptions([])).toMatchObject({
      rounds: 7,
      quick: false,
      budgetMs: 10_000,
      contenders: ["homm", "jax", "tfjs", "onnx", "rivals", "plain"],
    });
    expect(readOptions(["--quick", "--rounds", "1"])).toMatchObject({ rounds: 1, budgetMs: 5_000 });
    expect(() => readOptions(["--rounds", "0"])).toThrow("--rounds must be a whole number from 1 on");
    expect(() => readOptions(["--contenders", "homm,jaxx"])).toThrow("got jaxx");
    expect(() => readOptions(["--fliter", "A"])).toThrow();
  });
});

const entry = (name: string, samples: number[], more: Partial<GroupResult["entries"][number]> = {}): GroupResult["entries"][number] => ({
  name,
  contender: name,
  role: "contender",
  task,
  status: "ok",
  samples,
  ms: summary(samples),
  perCall: { dispatches: 4, submits: 1 },
  peakBytes: 1e6,
  error: 1e-7,
  ...more,
});

function layerGroup(): GroupResult {
  return {
    id: "layer-A",
    title: "the layer",
    kind: "layer",
    entries: [
      entry("homm", [10, 100, 10]),
      entry("homm@base", [20, 200, 20], { role: "baseline" }),
      entry("jax", [16, 160, 16], { peakBytes: 4e6 }),
      entry("tfjs", [], { status: "wrong", reason: "relative error 1.0 against float64" }),
      entry("onnx", [50, 500, 50], { peakBytes: 8e6 }),
      entry("three products", [9, 90, 9], {
        role: "ceiling",
        task: { kind: "products", shapes: [[256, 128, 1_024]] },
        details: { variant: "direct 16x8" },
      }),
    ],
  };
}

function ceilingGroup(): GroupResult {
  return {
    id: "ceilings",
    title: "what this adapter can do at best",
    kind: "ceilings",
    entries: [
      entry("product", [100], { role: "ceiling", task: { kind: "products", shapes: [[1, 1, 1]] }, details: { work: 1e9, variant: "quads 16x8" } }),
      entry("copy", [100], { role: "ceiling", task: { kind: "copy", bytes: 16 }, details: { work: 1e8, variant: "4 vec4f a lane" } }),
    ],
  };
}

describe("results", () => {
  it("turn times into rates", () => {
    expect(ceilingsOf([ceilingGroup()])).toEqual([
      { name: "product", unit: "FLOP/s", value: 1e10, variant: "quads 16x8" },
      { name: "copy", unit: "B/s", value: 1e9, variant: "4 vec4f a lane" },
    ]);
  });

  it("print each time as a share of the ceiling that binds it", () => {
    const groups = [ceilingGroup(), layerGroup()];
    addCeilings(groups);
    expect(groups[1]?.entries[0]?.ceiling).toEqual({ name: "three products", share: expect.closeTo(0.9, 6) });
  });

  it("say which targets are met, and leave wrong contenders out", () => {
    const targets = targetsOf([layerGroup()], { software: true });
    expect(Object.fromEntries(targets.map(({ name, value, met }) => [name, [Number(value.toFixed(3)), met]]))).toEqual({
      "layer-A: layer / its three products": [1.111, true],
      "layer-A: fastest peer (jax) / layer": [1.6, true],
      "layer-A: onnx / homm": [5, true],
      "layer-A: leanest peer's peak memory / homm's": [4, true],
    });
  });

  it("compare with another version round by round", () => {
    expect(againstBase([layerGroup()])).toEqual([expect.objectContaining({ name: "layer-A: homm", median: 0.5 })]);
  });

  it("fit the exponent of the scaling group", () => {
    const sizes = [1_024, 4_096, 16_384];
    const entries = sizes.map((tokens) => entry(`homm ${tokens}`, [tokens / 100], { task: { ...task, tokens } }));
    const [target] = targetsOf([{ id: "scaling", title: "", kind: "scaling", entries }], { software: true });
    expect(target).toMatchObject({ value: expect.closeTo(1, 6), met: true, limit: 1.02 });
  });
});

describe("tables", () => {
  it("show three digits", () => {
    expect([0.01234, 1.234, 12.34, 123.4, 1_234.5, Number.NaN].map(short)).toEqual(["0.012", "1.23", "12.3", "123", "1,235", "–"]);
    expect([withPrefix(4.2e9, "FLOP/s"), withPrefix(830e6, "B/s"), withPrefix(12, "B")]).toEqual(["4.20 GFLOP/s", "830 MB/s", "12.0 B"]);
  });

  it("align columns, the first to the left", () => {
    expect(
      align([
        ["", "ms"],
        ["a", "1.00"],
        ["bcd", "12.0"],
      ]),
    ).toBe("       ms\na    1.00\nbcd  12.0");
  });

  it("show time, memory and FLOPs of the rivals by N, and where each overtakes attention", () => {
    const groups = allGroups({ quick: true }).filter(({ series }) => series === "rivals");
    const results = groups.map(
      (group): GroupResult => ({
        ...group,
        entries: group.entries.map((e) => {
          // Attention is quadratic here, the others linear and as fast at N=512.
          const ms = e.name === "attention" ? group.size! ** 2 / 512 : group.size!;
          return e.name === "RM" ? { ...e, status: "skipped" as const } : entry(e.name, [ms], { ...e, peakBytes: 2e6 });
        }),
      }),
    );
    const text = rivalsTable(results);
    expect(text).toMatch(/^ {2}rivals +N=256 +N=1,024$/m);
    expect(text).toMatch(/^ {4}HoM +256 ms +1,024 ms$/m);
    expect(text).toMatch(/^ {4}RM +– +–$/m);
    expect(text.match(/^ {4}Performer, equal FLOPs /gm)).toHaveLength(3);
    expect(text).toContain("HoM is faster than attention from N=512 on");
    expect(text).not.toContain("RM is faster");
    expect(overtakings(results).map(({ name }) => name)).not.toContain("attention");
  });

  it("name the wrong ones under the measured ones", () => {
    const text = groupTable(layerGroup());
    expect(text.split("\n")[0]).toBe("layer-A: the layer");
    expect(text).toMatch(/^ {2}jax +16\.0 ms +16\.0 to 160 +1\.60 /m);
    expect(text).toMatch(/^ {2}tfjs: wrong, relative error/m);
    expect(targetTable(targetsOf([layerGroup()], { software: true }))).toMatch(/onnx \/ homm +5\.00× +\(5\.00 to 5\.00\) +at least 3× +met$/m);
  });
});

describe("the ONNX writer", () => {
  it("writes the messages that a protobuf reader expects", () => {
    const bytes = onnxModel({
      nodes: [{ op: "Concat", inputs: ["x", "w"], outputs: ["y"], attributes: { axis: -1, perm: [0, 300] } }],
      inputs: { x: [1, 2] },
      outputs: { y: [1, 4] },
      initializers: { w: { shape: [1, 2], data: Float32Array.of(1, 2) } },
    });
    const model = decode(bytes);
    expect(model.get(1)).toEqual([9n]);
    const graph = decode(model.get(7)?.[0] as Uint8Array);
    const node = decode(graph.get(1)?.[0] as Uint8Array);
    const text = (value: unknown) => new TextDecoder().decode(value as Uint8Array);
    expect([node.get(4)?.map(text), node.get(1)?.map(text), node.get(2)?.map(text)]).toEqual([["Concat"], ["x", "w"], ["y"]]);
    const attributes = node.get(5)?.map((value) => decode(value as Uint8Array)) ?? [];
    expect(attributes.map((a) => [text(a.get(1)?.[0]), a.get(20), BigInt.asIntN(64, (a.get(3)?.[0] as bigint) ?? 0n), a.get(8)])).toEqual([
      ["axis", [2n], -1n, undefined],
      ["perm", [7n], 0n, [0n, 300n]],
    ]);
    const weight = decode(graph.get(5)?.[0] as Uint8Array);
    expect(weight.get(1)).toEqual([1n, 2n]);
    const raw = Uint8Array.from(weight.get(9)?.[0] as Uint8Array);
    expect([...new Float32Array(raw.buffer)]).toEqual([1, 2]);
  });
});

/** Fields of a protobuf message: numbers, and bytes of what has a length. */
function decode(bytes: Uint8Array): Map<number, (bigint | Uint8Array)[]> {
  const fields = new Map<number, (bigint | Uint8Array)[]>();
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++] ?? 0;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = Number(varint());
    let value: bigint | Uint8Array = varint();
    if ((key & 7) === 2) {
      const length = Number(value);
      value = bytes.subarray(at, at + length);
      at += length;
    }
    fields.set(key >> 3, [...(fields.get(key >> 3) ?? []), value]);
  }
  return fields;
}

describe("the contenders' package", () => {
  const read = (path: string) => JSON.parse(readFileSync(join(root, "bench/contenders", path), "utf8"));

  it("pins exact versions", () => {
    const { devDependencies } = read("package.json");
    const { packages } = read("package-lock.json");
    for (const [name, version] of Object.entries(devDependencies)) {
      expect(version).toMatch(/^\d+\.\d+\.\d+$/);
      expect(packages[`node_modules/${name}`].version).toBe(version);
    }
  });

  it("is not installed by the repository's own npm ci", () => {
    const own = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")).packages;
    for (const name of Object.keys(read("package.json").devDependencies)) expect(Object.keys(own)).not.toContain(`node_modules/${name}`);
  });
});

describe("docs/benchmarks.md", () => {
  const text = readFileSync(join(root, "docs/benchmarks.md"), "utf8");

  it("names every group", () => {
    const words = new Set(allGroups({ quick: false }).map(({ id }) => id.split("-")[0] ?? ""));
    expect([...words].filter((word) => !text.includes(`\`${word}`))).toEqual([]);
  });

  it("names every option", () => {
    const options = [...usage.matchAll(/^ {2}(--\w+)/gm)].map(([, option]) => option ?? "");
    expect(options.length).toBeGreaterThan(5);
    expect(options.filter((option) => !text.includes(option))).toEqual([]);
  });

  it("names every kernel of the bench", () => {
    const kernels = readdirSync(join(root, "bench/kernels"));
    expect(kernels.filter((kernel) => !text.includes(kernel))).toEqual([]);
  });
});
