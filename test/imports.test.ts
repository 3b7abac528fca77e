import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import ts from "typescript-5.9";
import { describe, expect, it } from "vitest";

/** What a folder of src, or a file at its top, may import besides the files that everybody may. Nothing may import upwards. */
const mayImport: Record<string, string[]> = {
  "index.ts": ["models", "layers", "ops", "runtime", "weights"],
  "node.ts": ["runtime", "weights"],
  models: ["models", "layers", "ops", "runtime", "weights"],
  train: ["train", "models", "layers", "ops", "runtime", "weights"],
  "pom.ts": ["layers"],
  "inference.ts": ["layers"],
  "minimal.ts": ["layers", "runtime"],
  baselines: ["baselines", "layers", "ops", "runtime"],
  layers: ["layers", "ops", "runtime", "weights"],
  ops: ["runtime"],
  runtime: ["runtime"],
  weights: ["weights"],
  reference: ["reference"],
};
const forEverybody = ["types.ts", "webgpu.ts", "checks.ts", "errors.ts", "half.ts"];
/** The files of forEverybody among each other. */
const leaves: Record<string, string[]> = {
  "types.ts": ["webgpu.ts"],
  "webgpu.ts": [],
  "checks.ts": ["types.ts", "webgpu.ts", "errors.ts"],
  "errors.ts": [],
  "half.ts": [],
};

type Import = { file: string; specifier: string };

/** One sentence for every import that breaks a rule. Files are relative to src. */
function violations(imports: Import[]): string[] {
  return imports.flatMap(({ file, specifier }) => {
    const broken = brokenRule(file, specifier);
    return broken ? [`${file} imports ${specifier}: ${broken}`] : [];
  });
}

function brokenRule(file: string, specifier: string): string | undefined {
  const from = topOf(file);
  if (!specifier.startsWith(".")) {
    return file === "node.ts" && (specifier === "webgpu" || specifier.startsWith("node:")) ? undefined : "only node.ts may import a package";
  }
  const target = normalize(join(dirname(file), specifier));
  if (target.startsWith("..")) {
    if (!/^\.\.\/shaders\/.*\.wgsl\?raw$/.test(target)) return "leaves src";
    return from === "ops" ? undefined : "only ops may import WGSL";
  }
  const to = topOf(target);
  if (from in leaves) return leaves[from]?.includes(to) ? undefined : `${from} may import only ${leaves[from]?.join(", ") || "nothing"}`;
  if (forEverybody.includes(to)) return undefined;
  if (from === "ops" && to === "ops") {
    const isShared = target === "ops/op.ts" || target === "ops/types.ts";
    return isShared || file === "ops/registry.ts" ? undefined : "an op may not import another op; a layer combines ops";
  }
  const allowed = mayImport[from];
  if (!allowed) return `${from} has no row in this test`;
  return allowed.includes(to) ? undefined : `${from} may import only ${[...allowed, ...forEverybody].join(", ")}`;
}

function topOf(file: string): string {
  return file.split("/")[0] ?? "";
}

function importsOfSources(): Import[] {
  const src = join(import.meta.dirname, "../src");
  const files = readdirSync(src, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  return files.flatMap((file) => {
    const found = ts.preProcessFile(readFileSync(join(src, file), "utf8"), true, true).importedFiles;
    return found.map(({ fileName }) => ({ file: file.replaceAll("\\", "/"), specifier: fileName }));
  });
}

describe("imports of src", () => {
  const imports = importsOfSources();
  it("are found", () => {
    expect(imports.some(({ specifier }) => specifier === "../checks.ts")).toBe(true);
  });
  it("run one way: index -> models -> layers -> ops -> runtime -> checks -> errors", () => {
    expect(violations(imports)).toEqual([]);
  });
});

describe("the import rules", () => {
  it.each([
    ["index.ts", "./layers/hom.ts"],
    ["models/hlm.ts", "../layers/hom.ts"],
    ["baselines/attention.ts", "../layers/params.ts"],
    ["layers/hom.ts", "../ops/moments.ts"],
    ["ops/moments.ts", "../../shaders/moments.wgsl?raw"],
    ["ops/moments.ts", "./op.ts"],
    ["ops/registry.ts", "./moments.ts"],
    ["runtime/device.ts", "../errors.ts"],
    ["reference/moments.ts", "../checks.ts"],
    ["checks.ts", "./errors.ts"],
    ["node.ts", "webgpu"],
  ])("allow %s -> %s", (file, specifier) => {
    expect(violations([{ file, specifier }])).toEqual([]);
  });
  it.each([
    ["runtime/device.ts", "../ops/moments.ts"],
    ["ops/moments.ts", "./select.ts"],
    ["ops/op.ts", "./moments.ts"],
    ["ops/types.ts", "./moments.ts"],
    ["ops/moments.ts", "../layers/hom.ts"],
    ["layers/hom.ts", "../models/hlm.ts"],
    ["models/hlm.ts", "../baselines/flops.ts"],
    ["baselines/attention.ts", "../models/hlm.ts"],
    ["layers/hom.ts", "../../shaders/moments.wgsl?raw"],
    ["layers/hom.ts", "../index.ts"],
    ["reference/moments.ts", "../runtime/device.ts"],
    ["reference/moments.ts", "../ops/op.ts"],
    ["errors.ts", "./checks.ts"],
    ["checks.ts", "./runtime/device.ts"],
    ["index.ts", "webgpu"],
    ["index.ts", "../test/support/gpu.ts"],
    ["elsewhere/new.ts", "../runtime/device.ts"],
  ])("refuse %s -> %s", (file, specifier) => {
    expect(violations([{ file, specifier }])).toHaveLength(1);
  });
});
